"""The harness itself: what must fail does fail, and it is counted."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest

import harness

SLEEP = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]


class Processes(unittest.TestCase):
    def setUp(self):
        self.mark = tempfile.mkdtemp(prefix="handoff-test-")
        self.addCleanup(os.rmdir, self.mark)
        self.addCleanup(harness.kill_marked, self.mark)

    def spawn(self, argv=None):
        p = subprocess.Popen(argv or SLEEP, env=harness.environment(self.mark),
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(p.wait)
        self.addCleanup(p.stdin.close)
        self.addCleanup(p.stdout.close)
        p.stdout.readline()  # it runs
        return p

    def test_marked_processes_are_found_and_ended(self):
        p = self.spawn()
        self.assertEqual([x.pid for x in harness.marked(self.mark)], [p.pid])
        self.assertTrue(harness.is_alive(p.pid))
        self.assertEqual(harness.marked(self.mark + "-other"), [])
        harness.kill_marked(self.mark)
        self.assertEqual(p.wait(harness.PATIENCE), -9)

    def test_an_orphan_is_found(self):
        p = self.spawn(["/bin/sh", "-c", "echo; sh -c 'echo $$; exec cat /dev/zero >/dev/null' & "
                        "wait"])
        child = int(p.stdout.readline())
        self.assertEqual([x.pid for x in harness.children(p.pid)], [child])
        p.kill()
        p.wait(harness.PATIENCE)
        self.assertEqual([x.pid for x in harness.marked(self.mark)], [child])

    def test_zombie(self):
        # A shell that executes something else never waits for its background child.
        p = self.spawn(["/bin/sh", "-c", "true & exec cat /proc/self/comm -"])
        harness.wait_until(lambda: harness.zombies(p.pid), "a zombie")

    def test_descriptors(self):
        before = harness.descriptors(os.getpid())
        with open(os.devnull, encoding="utf-8") as f:
            after = harness.descriptors(os.getpid())
            self.assertEqual(after[f.fileno()], os.devnull)
            self.assertNotIn(f.fileno(), before)

    def test_wait_until_ends(self):
        with self.assertRaisesRegex(AssertionError, "in vain: never"):
            harness.wait_until(lambda: False, "never", 0.05)

    def test_json_process(self):
        p = harness.JsonProcess(["/bin/sh", "-c", "echo '{\"n\": 1}'; echo no; exit 3"],
                                harness.environment(self.mark), os.devnull)
        self.assertEqual(p.wait_line(lambda x: "n" in x, "n"), {"n": 1})
        self.assertEqual(p.end(), 3)
        self.assertEqual(p.lines[1]["event"], "not JSON")
        with self.assertRaisesRegex(AssertionError, "ended before more"):
            p.wait_line(lambda x: True, "more")


class Ends(unittest.TestCase):
    """Of handoffd: a crash at its end, or with nobody looking, fails the test it happens in."""

    def kvd(self):
        s = harness.Service("kvd")
        self.addCleanup(s.close)
        return s

    def test_ordinary(self):
        s = self.kvd()
        s.finish()
        self.assertEqual(s.supervisor.returncode, 0)

    def test_code_of_a_stop(self):
        s = self.kvd()
        daemon = s.daemon_pid()
        os.kill(s.supervisor.pid, signal.SIGTRAP)
        with self.assertRaisesRegex(AssertionError, "handoffd ended with -5, not 0"):
            s.stop()
        os.kill(daemon, signal.SIGKILL)

    def test_nobody_looked(self):
        s = self.kvd()
        os.kill(s.supervisor.pid, signal.SIGTRAP)
        s.supervisor.wait(harness.PATIENCE)
        for end in (s.launch, s.finish):
            with self.assertRaisesRegex(AssertionError, "handoffd ended with -5, and no test awaited it"):
                end()

    def test_killed(self):
        s = self.kvd()
        s.kill_supervisor()
        os.kill(s.daemons()[0].pid, signal.SIGKILL)
        s.finish()

    def test_a_code_that_is_awaited(self):
        s = self.kvd()
        s.stop()
        with open(s.conf, "w", encoding="utf-8") as f:
            f.write("service kvd {")
        s.launch()
        s.ended(2)
        s.finish()


class Scripts(unittest.TestCase):
    """Who asks what they do, or mistypes, starts nothing: there is no other program than sed."""

    def test_arguments(self):
        path = tempfile.mkdtemp(prefix="handoff-test-")
        self.addCleanup(shutil.rmtree, path)
        os.symlink(shutil.which("sed"), os.path.join(path, "sed"))
        for name, line in (("tests/run.sh", "Runs every test on a fresh Debian 12"),
                           ("examples/quickstart.sh", "See it work: ")):
            for args, code in ((["-h"], 0), (["--help"], 0), (["e2e"], 2), (["--quick"], 2)):
                with self.subTest(name, args=args):
                    p = subprocess.run(["/bin/sh", name, *args], cwd=harness.TOP, env={"PATH": path},
                                       capture_output=True, text=True, timeout=harness.PATIENCE, check=False)
                    self.assertEqual(p.returncode, code, p.stderr)
                    said, nothing = (p.stderr, p.stdout) if code else (p.stdout, p.stderr)
                    self.assertEqual(nothing, "")
                    if code:
                        self.assertRegex(said, r"\Ausage: sh %s [^\n]*\n\Z" % name)
                    else:
                        self.assertTrue(said.startswith(line), said)
                        self.assertNotRegex(said, "(?m)^#")
                        self.assertNotIn("set -u", said)


class Runner(unittest.TestCase):
    """run.py and count.awk, on a directory of small tests."""

    CASES = """
        import unittest
        class T(unittest.TestCase):
            def test_a_good(self): pass
            def test_b_bad(self): self.fail("because")
            def test_c_error(self): raise KeyError("nothing")
            @unittest.skip("no IPv6 on this machine")
            def test_d_skip(self): pass
            def test_e_sub(self):
                with self.subTest(part=1): self.fail("in part")
            def test_f_cleanup(self): self.addCleanup(self.fail, "left behind")
        class U(unittest.TestCase):
            @classmethod
            def setUpClass(cls): raise OSError("no class")
            def test_never(self): pass
        """

    def run_tests(self, files, *options):
        with tempfile.TemporaryDirectory() as d:
            for name, text in files.items():
                with open(os.path.join(d, name), "w", encoding="utf-8") as f:
                    f.write(textwrap.dedent(text))
            p = subprocess.run([sys.executable, os.path.join(harness.TOP, "tests/e2e/run.py"),
                                *options],
                               env=dict(os.environ, TEST_DIR=d), stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, check=False)
        return p.returncode, p.stdout

    def count(self, text, script="count.awk", **variables):
        argv = ["awk", "-f", os.path.join(harness.TOP, "tests", script)]
        for k, v in variables.items():
            argv[1:1] = ["-v", "%s=%s" % (k, v)]
        return subprocess.run(argv, input=text, stdout=subprocess.PIPE, text=True,
                              check=True).stdout.splitlines()

    def test_failures_are_told(self):
        code, out = self.run_tests({"test_x.py": self.CASES})
        self.assertEqual(code, 1)
        self.assertIn("AssertionError: because", out)
        counted = [x.split(" (")[0] for x in self.count(out)]
        self.assertEqual(counted, [
            "fail test_x.T.test_b_bad", "fail test_x.T.test_c_error",
            "skip test_x.T.test_d_skip: no IPv6 on this machine",
            "fail test_x.T.test_e_sub", "fail test_x.T.test_f_cleanup", "fail setUpClass",
            "pass 1"], out)

    def test_success(self):
        code, out = self.run_tests({"test_x.py": """
            import unittest
            class T(unittest.TestCase):
                def test_good(self): pass
            """})
        self.assertEqual((code, self.count(out)), (0, ["pass 1"]))

    def test_module_that_cannot_be_imported(self):
        code, out = self.run_tests({"test_x.py": "import nothing_of_this_name\n"})
        self.assertEqual(code, 1)
        self.assertEqual(len(self.count(out)), 2)

    @unittest.skipUnless(harness.may_have_a_network(), "no network namespace can be made here")
    def test_side_by_side(self):
        code, out = self.run_tests({"test_x.py": self.CASES, "test_y.py": """
            import os, unittest
            class T(unittest.TestCase):
                def test_good(self): pass
            class U(unittest.TestCase):
                def test_dies(self): os._exit(3)
            """}, "-j2")
        self.assertEqual(code, 1)
        counted = [x.split(" (")[0] for x in self.count(out)]
        self.assertEqual(sorted(counted), [
            "fail setUpClass", "fail test_x.T.test_b_bad", "fail test_x.T.test_c_error",
            "fail test_x.T.test_e_sub", "fail test_x.T.test_f_cleanup",
            "fail test_y.U: exit status 3", "pass 2",
            "skip test_x.T.test_d_skip: no IPv6 on this machine"], out)

    def test_no_tests_is_a_failure(self):
        self.assertEqual(self.run_tests({})[0], 1)

    def test_logs_of_make_check(self):
        def results(log, result):
            return self.count("\n".join(self.count(log, "checklog.awk", program="p",
                                                   result=result)))
        good = "Running suite(s): frames\n100%: Checks: 12, Failures: 0, Errors: 0\n"
        bad = ("60%: Checks: 5, Failures: 1, Errors: 1\n"
               "tests/unit/t.c:7:F:core:test_a:0: Assertion failed\n"
               "t.c:9:E:core:test_b:0: (after this point) Received signal 11\n")
        self.assertEqual(results(good, "PASS"), ["pass 12"])
        self.assertEqual(results(good + good, "PASS"), ["pass 24"])
        self.assertEqual(results(bad, "FAIL")[-1], "pass 3")
        self.assertEqual(len(results(bad, "FAIL")), 3)
        self.assertEqual(results(bad.splitlines()[0], "FAIL")[-1], "pass 3")
        self.assertEqual(len(results(bad.splitlines()[0], "FAIL")), 3)
        self.assertEqual(results(good + "LeakSanitizer: 8 bytes\n", "FAIL"),
                         ["fail p (FAIL)", "pass 12"])
        self.assertEqual(results("all well\n", "PASS"), ["pass 1"])
        self.assertEqual(results("Segmentation fault\n", "FAIL"), ["fail p (FAIL)", "pass 0"])
        self.assertEqual(results("no IPv6 on this machine\n", "SKIP"),
                         ["skip p: no IPv6 on this machine", "pass 0"])
        self.assertEqual(results("ok 1 - x\nnot ok 2 - y\n", "FAIL"), ["fail p: y", "pass 1"])


if __name__ == "__main__":
    unittest.main()
