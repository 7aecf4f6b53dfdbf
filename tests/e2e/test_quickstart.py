"""The quickstart as a newcomer runs it, and Ctrl-C at any moment."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

import harness

SCRIPT = os.path.join(harness.TOP, "examples", "quickstart.sh")
NOBODY = 65534


class Quickstart(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="handoff-test-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.addCleanup(harness.kill_marked, self.dir)

    def start(self, *before, upgrades=1):
        env = harness.environment(self.dir, TMPDIR=self.dir, BUILD_DIR=harness.BUILD,
                                  QUICKSTART_UPGRADES=str(upgrades))
        return subprocess.Popen([*before, "sh", SCRIPT], env=env, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                start_new_session=True)

    def read_until(self, process, text):
        """Reads until a line contains text; all that was read."""
        lines = []
        for line in process.stdout:
            lines.append(line)
            if text in line:
                return lines
        self.fail("ended before %r:\n%s" % (text, "".join(lines)))

    def assert_nothing_left(self, output):
        harness.wait_until(lambda: not harness.marked(self.dir), "no process is left", 10)
        left = [x for x in os.listdir(self.dir) if not x.startswith("sanitizer")]
        self.assertEqual(left, [], output)

    def run_whole(self, *before, **kwargs):
        process = self.start(*before, **kwargs)
        output, _ = process.communicate(timeout=280)
        self.assertEqual(process.returncode, 0, output)
        self.assertIn("Nothing failed.", output)
        self.assertNotIn("PROBLEM", output)
        for name, value in [("failed requests", "0"), ("acknowledged writes lost", "0 of"),
                            ("connections lost", "0 of 50"),
                            ("wrong values read", "0")]:
            self.assertRegex(output, r"(?m)^  %s +%s" % (name, value))
        for phase in ["idle", "warm", "ready", "take", "drain", "seal", "exit"]:
            self.assertRegex(output, r"(?m)^    %s +0 +0 .* ms +\d+ ms  " % phase)
        self.assert_nothing_left(output)
        return output

    def test_whole(self):
        # Without root, if that can be had; the interrupted ones are run by root then.
        before = []
        if os.getuid() == 0:
            os.chown(self.dir, NOBODY, NOBODY)
            before = ["setpriv", "--reuid=%d" % NOBODY, "--regid=%d" % NOBODY, "--clear-groups"]
        self.run_whole(*before, upgrades=3)

    def interrupt(self, text, whole_group, sig=signal.SIGINT):
        process = self.start()
        lines = self.read_until(process, text) if text else []
        if whole_group:
            os.killpg(process.pid, sig)  # as a terminal does
        else:
            process.send_signal(sig)
        rest, _ = process.communicate(timeout=harness.PATIENCE)
        output = "".join(lines) + rest
        self.assertEqual(process.returncode, 128 + sig, output)
        self.assertNotIn("PROBLEM", output)
        self.assert_nothing_left(output)

    MOMENTS = ["Building", "handoffctl upgrade kvd", "warm", "never-ready", "idle  ", "drain  "]

    def test_interrupted(self):
        for i, text in enumerate(self.MOMENTS):
            with self.subTest(moment=text):
                self.interrupt(text, whole_group=i % 2 == 0)

    def test_terminated(self):
        self.interrupt("committed:", whole_group=False, sig=signal.SIGTERM)

    def test_interrupted_at_once(self):
        for whole_group in (False, True):
            process = self.start()
            # It may not have set its traps yet: then it has nothing to clean either.
            harness.wait_until(lambda p=process: re.search(
                "quickstart", harness.read_file("/proc/%d/cmdline" % p.pid)), "sh runs")
            (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
            output, _ = process.communicate(timeout=harness.PATIENCE)
            self.assertIn(process.returncode, (130, -signal.SIGINT), output)
            self.assert_nothing_left(output)


if __name__ == "__main__":
    unittest.main()
