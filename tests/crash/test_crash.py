"""The matrix's own checks: what is wrong must be found. (TEST_DIR=tests/crash tests/e2e/run.py)"""

import os
import shutil
import signal
import subprocess
import sys
import types
import unittest
from unittest import mock

import redis

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness  # noqa: E402
import checks  # noqa: E402
import run  # noqa: E402
from cases import SCENARIOS, Case, Upgrade, law  # noqa: E402
from place import Boundary  # noqa: E402


def facts(**known):
    names = ("maybe_started started maybe_decided decided maybe_serving serving untied "
             "aborting late given successor replaced").split()
    return types.SimpleNamespace(**dict(dict.fromkeys(names, False), **known))


def case(deed, roles):
    return Case("upgrade", Boundary("S", "before", "send", "Begin", 1), deed, roles)


class Law(unittest.TestCase):
    def test_who_dies_decides(self):
        begun = {"maybe_started": True, "started": True}
        decided = dict(begun, maybe_decided=True, decided=True)
        serving = dict(decided, maybe_serving=True, serving=True, untied=True)
        for deed, roles, known, allowed in (
                ("kill", "O", begun, {"committed"}),
                ("kill", "N", begun, {"aborted"}),
                ("kill", "N", decided, {"aborted"}),
                ("kill", "N", serving, {"rolled back", "committed"}),
                ("kill", "S", begun, {"aborted"}),
                ("kill", "S", decided, {"committed", "rolled back"}),
                ("kill", "S", serving, {"committed"}),
                ("kill", "O", dict(begun, late=True), {"aborted"}),
                ("kill-late", "S", begun, {"aborted"}),
                ("kill-twice", "SO", decided, {"committed"}),
                ("kill", "SN", decided, {"rolled back", "committed"}),
                ("kill", "ON", decided, {"aborted"}),
                ("kill", "SON", decided, {"committed"}),
                ("abort", "S", begun, {"aborted"}),
                ("abort", "S", decided, {"committed"})):
            with self.subTest(deed=deed, roles=roles, known=known):
                self.assertEqual(law(case(deed, roles), "committed", facts(**known)), allowed)

    def test_a_reexec_has_happened_or_not(self):
        for deed, roles, replaced, allowed in (
                ("kill", "C", False, {"refused"}),
                ("kill", "O", True, {"replaced"}),
                ("kill", "S", True, {"replaced", "unknown"}),
                ("close", "S", False, {"refused", "unknown"})):
            with self.subTest(deed=deed, roles=roles):
                self.assertEqual(law(case(deed, roles), "replaced", facts(replaced=replaced)), allowed)

    def test_names_lead_back(self):
        c = Case("crash", Boundary("S", "after", "write", "Journal(idle)", 2), "kill-late", "SN")
        self.assertEqual(Case.parse(str(c)), c)

    def test_a_message_that_nobody_sends(self):
        with self.assertRaisesRegex(AssertionError, "Prepare"):
            run.assert_complete([])


class Checks(unittest.TestCase):
    """A service with one wrong thing in it."""

    def setUp(self):
        self.p = run.new_place()
        self.addCleanup(self.p.close)
        now = self.p.info()
        self.r = types.SimpleNamespace(p=self.p, case=case("kill", "S"), before=now, now=now,
                                       scenario=SCENARIOS["upgrade"], facts=facts(), lines=[],
                                       code=0, result=None, answer=None)

    def assert_found(self, check):
        with self.assertRaises(AssertionError):
            check(self.r)

    def test_all_is_well(self):
        self.r.load = self.p.load(*run.LOAD)
        self.r.code, self.r.result = 1, {"outcome": "aborted", "code": 1}
        self.r.facts.started = True
        for check in checks.CHECKS:
            check(self.r)

    def test_a_lie_about_the_outcome(self):
        self.r.result = {"outcome": "committed", "code": 0}
        self.assert_found(checks.outcome_is_true)

    def test_a_lie_about_a_reexec(self):
        self.r.case = case("reexec", "S")
        self.r.answer = 0
        self.assert_found(checks.answer_is_true)
        self.r.answer = 4
        checks.answer_is_true(self.r)

    def test_an_outcome_against_the_rules(self):
        self.r.result = {"outcome": "rolled back", "code": 1}
        self.r.facts.started = True
        self.assert_found(checks.outcome_is_lawful)

    def test_a_lost_write(self):
        self.r.load = self.p.load(*run.LOAD)
        self.r.load.wait_ok(200)
        with self.p.client() as c:
            c.delete(*c.keys())
        self.assert_found(checks.no_write_is_lost)

    def test_a_lost_connection(self):
        self.r.result = {"outcome": "aborted"}
        self.r.load = self.p.load(*run.LOAD)
        checks.no_connection_is_lost(self.r)
        self.r.load = self.p.load(*run.LOAD)
        self.assertEqual(self.p.ctl("restart", self.p.name).returncode, 0)
        self.assert_found(checks.no_connection_is_lost)

    def test_a_file(self):
        with open(self.p.path("run", "kvd", "stale.sock"), "wb"):
            pass
        self.assert_found(checks.no_file_is_left)

    def test_a_descriptor(self):
        self.p.first_kinds["socket"] = 0
        with mock.patch.object(checks, "PATIENCE", 0.1):
            self.assert_found(checks.no_descriptor_is_left)

    def test_a_process(self):
        other = subprocess.Popen(["sleep", "600"], env=self.p.env, start_new_session=True,
                                 executable="/bin/sleep")
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        self.p.kvds = self.p.leftovers
        with mock.patch.object(checks, "PATIENCE", 0.1):
            self.assert_found(checks.no_process_is_left)

    def test_a_cgroup(self):
        if not self.p.group:
            self.skipTest("no cgroup can be made here: not delegated")
        os.mkdir(os.path.join(self.p.group, "left"))
        with mock.patch.object(checks, "PATIENCE", 0.1):
            self.assert_found(checks.no_cgroup_is_left)

    def test_an_upgrade_that_cannot_commit(self):
        self.p.binary_of = lambda version: self.p.path("bin", "none")
        self.assert_found(checks.next_upgrade_commits)

    def second_writer(self, epoch):
        """A kvd that the lock does not stop: it has one of its own, with or without the epoch."""
        lock = os.path.join(self.p.data_dir, ".handoff.lock")
        os.rename(lock, lock + ".old")
        if epoch:
            shutil.copy(lock + ".old", lock)
        port = harness.free_port()
        log = self.p.path("second.log")
        with open(log, "wb") as out:
            second = subprocess.Popen([harness.program("kvd-v2"), "--data-dir", self.p.data_dir,
                                       "--listen", "127.0.0.1:%d" % port], env=self.p.env,
                                      stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.addCleanup(second.wait)
        self.addCleanup(second.kill)
        self.p.listen["second"] = "tcp:127.0.0.1:%d" % port
        return second, log

    def test_a_second_writer_with_an_older_epoch_refuses(self):
        second, log = self.second_writer(epoch=False)
        second.wait(harness.PATIENCE)
        self.assertIn("is not the writer any more", harness.read_file(log))

    def test_two_writers_notice_each_other(self):
        with self.p.client() as c:
            c.set("a", 1)
        second, log = self.second_writer(epoch=True)
        harness.wait_until(lambda: " serves" in harness.read_file(log), "it serves")
        with self.p.client() as c:
            c.set("a", 2)
        with self.p.client("second") as c, self.assertRaises((OSError, redis.ConnectionError)):
            c.set("a", 3)
        second.wait(harness.PATIENCE)
        self.assertIn("another process writes here", harness.read_file(log))

    def test_a_log_that_is_not_as_it_was_written(self):
        with self.p.client() as c:
            for i in range(100):
                c.set("a", i)
        logs = [os.path.join(self.p.data_dir, x) for x in os.listdir(self.p.data_dir)]
        log = max((x for x in logs if x.endswith(".log")), key=os.path.getsize)
        with open(log, "r+b") as f:
            f.seek(os.path.getsize(log) // 2)
            byte = f.read(1)
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte[0] ^ 1]))
        self.assert_found(checks.one_writer)


class Broken(unittest.TestCase):
    """Daemons that break a promise, in a case of the matrix: it says so."""

    def run_of(self, boundary, deed, **scenario):
        p = run.new_place()
        self.addCleanup(p.close)
        patch = mock.patch.dict(SCENARIOS, broken=Upgrade(**scenario))
        patch.start()
        self.addCleanup(patch.stop)
        return run.Run(p, Case("broken", Boundary.parse(boundary), deed, boundary[0]))

    def test_acknowledged_writes_are_lost(self):
        r = self.run_of("S.after.recv.Status.1", "abort", new=["commit:forget"])
        r.play()
        self.assertEqual(r.result["outcome"], "committed")
        with self.assertRaisesRegex(AssertionError, "lost"):
            checks.no_write_is_lost(r)

    def test_two_writers(self):
        """The incumbent says that it has sealed and writes on; the successor, which has read
        the state by then and is stopped, finds that out at its first write."""
        r = self.run_of("O.after.send.SealComplete.1", "", old=["seal:keep"], new=["ready:stop"])
        p, c = r.p, r.p.controller
        r.scenario.prepare(p)
        r.load = p.load(*run.LOAD)
        p.arm(r.case.boundary)
        u = r.scenario.start(p)
        self.assertTrue(c.wait(lambda: c.held))
        harness.wait_until(lambda: "fault: stop at ready" in p.new_log(), "it has read all")
        pid = p.roles()["N"]
        harness.wait_until(lambda: harness.Process(pid).state == "T", "it is stopped")
        c.held.go()
        r.load.wait_ok(100)
        os.kill(pid, signal.SIGCONT)
        u.wait()
        self.assertIsNotNone(u.result)
        harness.wait_until(lambda: checks.has_met_another(r), "it has written, too")
        with self.assertRaisesRegex(AssertionError, "two writers"):
            checks.one_writer(r)


class Points(unittest.TestCase):
    def test_no_hello_before_the_tie(self):
        """A successor that got the lock and hangs must end with its supervisor: so it does not
        say Hello before it is tied to it."""
        p = run.new_place()
        self.addCleanup(p.close)
        c = p.controller
        p.arm(Boundary("N", "before", "tie", "On", 1))
        u = p.start_upgrade("--binary", p.binary_of("2"))
        self.assertTrue(c.wait(lambda: c.held))
        self.assertFalse(c.wait(lambda: c.has("N", "before", "send", "Hello"), 0.5))
        c.held.go()
        u.wait()
        self.assertEqual(u.result["outcome"], "committed")

    def test_held_is_held(self):
        """Nobody passes an armed boundary until told."""
        p = run.new_place()
        self.addCleanup(p.close)
        c = p.controller
        p.arm(Boundary("O", "before", "send", "SealComplete", 1))
        u = p.start_upgrade("--binary", p.binary_of("2"))
        self.assertTrue(c.wait(lambda: c.held))
        self.assertFalse(c.wait(lambda: c.has("S", "after", "recv", "SealComplete"), 0.1))
        c.held.go()
        u.wait()
        self.assertEqual(u.result["outcome"], "committed")


if __name__ == "__main__":
    unittest.main()
