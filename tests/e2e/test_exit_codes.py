"""Each exit code of `handoffctl upgrade`, from a real supervisor."""

import os
import shutil
import signal
import subprocess
import unittest

import harness
from handoffs import PATIENT, HandoffCase

NEW, OLD = "kvd-v2", "kvd-v1"
NOBODY = 65534


class ExitCodes(HandoffCase):
    def held(self, s, point, *names):
        """An upgrade whose successor is stopped at a point, until let_go()."""
        self.use(s, NEW, point + ":stop", *names)
        u = s.start_upgrade()
        self.await_stop(s, u)
        return u

    def test_0_committed(self):
        s = self.kvd()
        self.use(s, NEW)
        self.assert_outcome(s.upgrade(), 0, "committed")
        self.assert_serves(s, "2.0")

    def test_1_aborted(self):
        s = self.kvd()
        self.use(s, NEW, "ready:unhealthy")
        self.assert_outcome(s.upgrade(), 1, "aborted")
        self.assert_serves(s, "1.0")

    def test_2_usage_and_configuration(self):
        s = self.kvd()
        for args in (["--nonsense"], ["--deadline", "soon"], ["--binary"]):
            p = s.ctl("upgrade", "kvd", *args)
            self.assertEqual((p.returncode, p.stdout), (2, ""), args)
            self.assertIn("handoffctl", p.stderr)
        for binary in (s.path("missing"), s.conf, s.dir):
            u = s.upgrade("--binary", binary)
            self.assertEqual((u.code, u.lines[-1]["code"]), (2, 2), u.lines)
            self.assertIn(binary, u.lines[-1]["message"])
        s.configure(drain_grace="1h")
        u = s.upgrade()
        self.assertEqual(u.code, 2, u.lines)
        self.assertIn("kvd.conf:", u.result["message"])
        self.assertIn("drain-grace", u.result["message"])
        s.configure(drain_grace="1s")
        self.assert_clean_upgrade(s, NEW)

    def test_3_no_supervisor(self):
        s = self.kvd(start=False)
        self.assertEqual(s.upgrade().code, 3)
        s.start()
        self.assertEqual(s.ctl("upgrade", "other").returncode, 3)
        s.kill_supervisor()
        self.assertEqual(s.upgrade().code, 3)  # its socket is there still
        s.start()
        self.assert_clean_upgrade(s, NEW)
        s.stop()
        self.assertEqual(s.upgrade().code, 3)

    def test_4_another(self):
        s = self.kvd(options=PATIENT)
        u = self.held(s, "warmup")
        p = s.ctl("upgrade", "kvd")
        self.assertEqual(p.returncode, 4, p.stderr)
        self.assertIn("another handoff is under way", p.stderr)
        self.let_go(u)
        u.wait()
        self.assert_outcome(u, 0, "committed")

    def test_5_nobody_serves(self):
        """Both die, and the old binary cannot start either. Then it can: it does."""
        s = self.kvd("drain:die", options=PATIENT)
        away = s.data_dir + ".away"
        u = self.held(s, "begin", "begin:die")
        os.rename(s.data_dir, away)
        self.let_go(u)
        u.wait()
        self.assertEqual(u.code, 5, "%s\n%s" % (u.lines, s.log()))
        self.assertEqual(s.upgrade().code, 5)
        os.rename(away, s.data_dir)
        s.wait_state("idle")
        self.assertEqual(self.version(s), "1.0")

    def test_6_it_does_not_come_back(self):
        s = self.kvd(options=PATIENT)
        u = self.held(s, "begin")
        s.kill_supervisor()
        self.let_go(u)
        u.wait()
        self.assertEqual((u.code, u.result["outcome"]), (6, "unknown"), u.lines)
        s.start()
        last = s.status()["last"]
        self.assertEqual((last["handoff"], last["outcome"]), (u.result["handoff"], "aborted"))
        self.assert_serves(s, "1.0")

    def test_6_left_alone(self):
        s = self.kvd(options=PATIENT)
        u = self.held(s, "take")
        u.process.send_signal(signal.SIGINT)
        u.wait_line(lambda x: x["event"] == "note", "asking for the abort")
        u.process.send_signal(signal.SIGINT)
        u.wait()
        self.assertEqual(u.code, 6, u.lines)
        self.let_go(u)
        s.wait_state("idle")
        self.assert_serves(s, "2.0")

    def test_8_permission(self):
        s = self.kvd()
        ctl = harness.program("handoffctl")
        before, control = [], s.path("run", "kvd", "control.sock")
        if os.getuid() == 0:
            # Somebody who can reach the socket, and the program, but may not do this.
            os.chmod(s.dir, 0o711)
            ctl = s.path("handoffctl")
            shutil.copy(harness.program("handoffctl"), ctl)
            before = ["setpriv", "--reuid=%d" % NOBODY, "--regid=%d" % NOBODY, "--clear-groups"]
        else:
            os.chmod(control, 0)
        pid = s.daemon_pid() if before else None
        for command in ("upgrade", "plan", "restart", "reexec", "stop", "abort"):
            p = subprocess.run([*before, ctl, command, "-S", control], env=s.env, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                               timeout=harness.PATIENCE)
            self.assertEqual(p.returncode, 8, "%s: %s" % (command, p.stderr))
            self.assertIn("ermission denied", p.stderr)
        if before:
            p = subprocess.run([*before, ctl, "status", "-S", control], env=s.env, check=False,
                               stdout=subprocess.PIPE, text=True, timeout=harness.PATIENCE)
            self.assertEqual(p.returncode, 0)
            self.assertEqual(s.daemon_pid(), pid)
        os.chmod(control, 0o666)
        self.assert_clean_upgrade(s, NEW)


class Wait(HandoffCase):
    """--wait: a supervisor that is being started, or is about something else, is no reason to fail."""

    def waiting(self, s, why, *args):
        """handoffctl with --wait, which has said for what it waits."""
        p = subprocess.Popen([harness.program("handoffctl"), *args, "--wait", "10min"], env=s.env, text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.stderr.close)
        self.assertEqual(p.stderr.readline(), "handoffctl: waiting for kvd: %s\n" % why)
        return p

    def assert_ends(self, p, code, text):
        out, err = p.communicate(timeout=harness.PATIENCE)
        self.assertEqual(p.returncode, code, out + err)
        self.assertIn(text, out + err)

    def test_it_is_started(self):
        s = self.kvd(start=False)
        p = self.waiting(s, "no supervisor answers", "status", "kvd")
        s.start()
        self.assert_ends(p, 0, "kvd: idle")

    def test_it_is_started_again(self):
        """The daemon serves on, and hands over when it is adopted."""
        s = self.kvd()
        self.use(s, NEW)
        for command, version in (("upgrade", "2.0"), ("rollback", "1.0"), ("plan", "1.0")):
            with self.subTest(command=command):
                s.wait_status(lambda x: x["binary_kept"] and x["previous_kept"] is not False,
                              "copies, also for the next supervisor")
                s.kill_supervisor()
                p = self.waiting(s, "no supervisor answers", command, "kvd")
                s.start()
                self.assert_ends(p, 0, "committed" if command != "plan" else "an upgrade would go ahead")
                self.assert_serves(s, version)

    def test_it_hands_over(self):
        """Of those who upgrade, the next one begins when the one before has ended."""
        s = self.kvd(options=PATIENT)
        self.use(s, NEW, "warmup:stop")
        u = s.start_upgrade()
        self.await_stop(s, u)
        self.use(s, OLD)
        more = [self.waiting(s, "another handoff is under way", "upgrade", "kvd") for _ in range(2)]
        self.let_go(u)
        u.wait()
        self.assert_outcome(u, 0, "committed")
        for p in more:
            self.assert_ends(p, 0, "committed")
        self.assert_serves(s, "1.0")

    def test_the_time_is_over(self):
        """Then the answer is that without --wait."""
        s = self.kvd(options={"start-timeout": "10min"})
        self.assertEqual(s.ctl("upgrade", "other", "--wait", "10ms").returncode, 3)
        self.use(s, NEW, "warmup:hang")
        u = s.start_upgrade()
        harness.wait_until(lambda: "fault: hang at warmup" in s.log(), "kvd is in its warm-up")
        self.assertEqual(s.ctl("--json", "upgrade", "kvd", "--wait", "10ms").returncode, 4)
        self.assertEqual(s.ctl("status", "kvd", "--wait", "10ms").returncode, 0)
        self.assertEqual(s.ctl("abort", "kvd").returncode, 0)
        u.wait()
        self.assert_outcome(u, 1, "aborted")


if __name__ == "__main__":
    unittest.main()
