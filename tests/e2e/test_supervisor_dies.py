"""kill -9 for handoffd, or a pause of it, at every moment: somebody serves, in the end exactly
one, and what is told about the handoff is true."""

import contextlib
import fcntl
import os
import shutil
import signal
import unittest

import harness
from handoffs import HandoffCase, faults

NEW, OLD = "kvd-v2", "kvd-v1"
MS = 500  # so long a phase is held open

# phase: point of the old or of the new daemon that holds it open, and how it may end when the
# supervisor dies there
PHASES = {
    "warm": ("new", "warmup", {"aborted"}),
    "drain": ("old", "drain", {"aborted"}),
    "seal": ("old", "seal", {"aborted"}),
    "ready": ("new", "begin", {"aborted"}),
    "take": ("new", "take", {"committed", "rolled back"}),
    "exit": ("old", "exit", {"committed"}),
}


class SupervisorDies(HandoffCase):
    def held(self, s, phase, separate=False):
        """An upgrade that has reached the phase and is held there. separate: the new binary
        has a path of its own, so that the old one's still leads to it."""
        who, point, _ = PHASES[phase]
        fault = ["%s:delay=%d" % (point, MS)]
        if who == "old":
            self.upgrade(s, OLD, *fault)
        self.use(s, OLD if separate else NEW, *(fault if who == "new" else []))
        other = s.path("bin", "other")
        shutil.copy(harness.program(NEW), other + ".new")
        os.rename(other + ".new", other)
        count = s.log().count("fault: delay at " + point)
        u = s.start_upgrade(*(["--binary", other] if separate else []))
        u.wait_phase(phase)
        harness.wait_until(lambda: s.log().count("fault: delay at " + point) > count,
                           "kvd is at " + point)
        return u

    def both_held(self, s, phase, separate=False):
        """Again, where the machine was too slow to look while the phase was held."""
        for _ in range(10):
            u = self.held(s, phase, separate)
            status = s.status()
            if status["pid"] and status["successor_pid"]:
                return u, status
            u.wait()
            self.back_to_old(s)
        self.fail("the phase was always over already: " + phase)

    def assert_settled(self, s, u, allowed):
        """The outcome is one of those allowed, it is what really happened, and the next
        upgrade commits."""
        u.wait()
        self.assertIsNotNone(u.result, "%s\n%s" % (u.lines, s.log()))
        outcome = u.result["outcome"]
        self.assertIn(outcome, allowed, "%s\n%s" % (u.result, s.log()))
        self.assertEqual(u.code, 0 if outcome == "committed" else 1)
        self.assert_serves(s, "2.0" if outcome == "committed" else "1.0")
        last = s.status()["last"]
        self.assertEqual((last["handoff"], last["outcome"]), (u.result["handoff"], outcome))
        s.assert_no_zombies()

    def back_to_old(self, s, load=None):
        if load is not None:
            self.calm(load)
        self.upgrade(s, OLD)
        self.assert_serves(s, "1.0")
        if load is not None:
            self.calm(load)

    def kill(self, *pids):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # a successor ends with its supervisor
                os.kill(pid, signal.SIGKILL)

    def test_idle(self):
        s = self.kvd()
        load = s.load()
        pid, epoch = s.daemon_pid(), s.status()["epoch"]
        for _ in range(5):
            s.kill_supervisor()
            load.wait_ok(100)
            self.assertLess(s.start(), 5)
            status = s.status()
            self.assertEqual((status["pid"], status["epoch"]), (pid, epoch))
        self.back_to_old(s, load)
        self.assert_nothing_failed(load)

    def test_each_phase(self):
        s = self.kvd()
        load = s.load()
        for phase, (_, _, allowed) in PHASES.items():
            with self.subTest(phase=phase):
                u = self.held(s, phase)
                s.kill_supervisor()
                s.start()
                self.assert_settled(s, u, allowed)
                self.back_to_old(s, load)
        self.assert_nothing_failed(load)

    def test_each_phase_and_it_stays_away(self):
        """The daemons' own timers have decided when it comes back."""
        s = self.kvd()
        load = s.load()
        for phase, (_, _, allowed) in PHASES.items():
            with self.subTest(phase=phase):
                u = self.held(s, phase)
                s.kill_supervisor()
                # In take and exit the old one cannot know: it stays sealed, and waits.
                load.wait_ok(500)
                s.start()
                self.assert_settled(s, u, allowed)
                self.back_to_old(s, load)
        self.assert_nothing_failed(load)

    def test_the_successor_hangs(self):
        """It hangs, with the lock or before it has it, and nobody is there to end it: it ends
        with the supervisor, and the incumbent serves again."""
        s = self.kvd()
        load = s.load()
        for point in ("warmup", "begin", "open", "ready"):
            with self.subTest(point=point):
                self.use(s, NEW, point + ":hang")
                count = s.log().count("fault: hang at " + point)
                u = s.start_upgrade()
                harness.wait_until(lambda point=point, count=count: s.log().count(
                    "fault: hang at " + point) > count, "it hangs")
                s.kill_supervisor()
                load.wait_ok(300)
                s.start()
                self.assert_settled(s, u, {"aborted"})
                self.back_to_old(s, load)
        self.assert_nothing_failed(load)

    def test_with_the_successor(self):
        s = self.kvd()
        load = s.load()
        for phase, (_, _, allowed) in PHASES.items():
            with self.subTest(phase=phase):
                u, status = self.both_held(s, phase)
                self.kill(s.supervisor.pid, status["successor_pid"])
                s.ended(-signal.SIGKILL)
                s.start()
                u.wait()
                # in exit the old one was told to go: then the new one's death is a crash
                self.assertIn(u.result["outcome"], allowed | {"rolled back"}, s.log())
                committed = u.result["outcome"] == "committed"
                self.assert_serves(s, "2.0" if committed else "1.0")
                self.back_to_old(s, load)
        r = load.stop()
        self.assertEqual((r["lost_writes"], r["wrong_values"]), (0, 0))

    def test_with_the_incumbent(self):
        s = self.kvd()
        load = s.load()
        for phase in PHASES:
            with self.subTest(phase=phase):
                u, status = self.both_held(s, phase, separate=True)
                self.kill(s.supervisor.pid, status["pid"])
                s.ended(-signal.SIGKILL)
                s.start()
                u.wait()
                self.assertIn(u.result["outcome"], ("committed", "aborted"), s.log())
                committed = u.result["outcome"] == "committed"
                self.assertEqual(committed, phase in ("take", "exit"), s.log())
                self.assert_serves(s, "2.0" if committed else "1.0")
                self.back_to_old(s, load)
        r = load.stop()
        self.assertEqual((r["lost_writes"], r["wrong_values"]), (0, 0))

    def test_with_both(self):
        s = self.kvd()
        load = s.load()
        for phase in ("warm", "seal", "ready", "take", "exit"):
            with self.subTest(phase=phase):
                u, status = self.both_held(s, phase)
                self.kill(s.supervisor.pid, status["pid"], status["successor_pid"])
                s.ended(-signal.SIGKILL)
                # What is started again must not be the daemon that holds phases.
                s.arguments = faults()
                s.configure()
                s.start()
                u.wait()
                committed = phase in ("take", "exit")
                self.assertEqual(u.result["outcome"], "committed" if committed else "aborted",
                                 s.log())
                self.assertEqual(u.code, 0 if committed else 1, u.result)
                s.wait_state("idle")
                self.back_to_old(s, load)
        r = load.stop()
        self.assertEqual((r["lost_writes"], r["wrong_values"]), (0, 0))

    def test_again_and_again(self):
        """It dies while it adopts, too."""
        s = self.kvd()
        load = s.load()
        for phase in ("ready", "seal", "exit"):
            with self.subTest(phase=phase):
                u = self.held(s, phase)
                for _ in range(3):
                    s.kill_supervisor()
                    s.launch()
                    harness.wait_until(lambda: s.status() is not None or
                                       s.supervisor.poll() is not None, "it answers")
                s.kill_supervisor()
                s.start()
                self.assert_settled(s, u, PHASES[phase][2] | {"rolled back"})
                self.back_to_old(s, load)
        self.assert_nothing_failed(load)

    def test_paused(self):
        """SIGSTOP for longer than self-fence: the daemons act on their own; what it finds when
        it goes on, it tells as it is."""
        s = self.kvd()
        load = s.load()
        for phase in ("warm", "drain", "seal", "ready", "take", "exit"):
            with self.subTest(phase=phase):
                u = self.held(s, phase)
                s.supervisor.send_signal(signal.SIGSTOP)
                try:
                    load.wait_ok(500)  # in drain, seal and ready the old one has resumed
                finally:
                    s.supervisor.send_signal(signal.SIGCONT)
                self.assert_settled(s, u, {"committed", "aborted", "rolled back"})
                self.back_to_old(s, load)
        self.assert_nothing_failed(load)

    def test_the_incumbent_is_stopped(self):
        """An incumbent that is alive and silent is never killed: it is shown as what it is, no
        upgrade begins, and the refusal tells the way out."""
        s = self.kvd()
        pid = s.daemon_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            s.kill_supervisor()
            s.launch()
            s.wait_state("unregistered")
            p = s.ctl("upgrade", "kvd")
            self.assertEqual(p.returncode, 1, p.stdout)
            self.assertRegex(p.stderr, "not registered.*kill -CONT.*handoffctl restart")
            self.assertEqual(s.status()["pid"], pid)
        finally:
            os.kill(pid, signal.SIGCONT)
        s.wait_state("idle")
        self.assertEqual(s.daemon_pid(), pid)
        self.back_to_old(s)

    def test_cold_start(self):
        """Killed while the daemon's first start is under way."""
        s = self.service("kvd-v1", arguments=faults("open:delay=400"), start=False)
        s.launch()
        harness.wait_until(lambda: "fault: delay at open" in s.log(), "the daemon starts")
        s.kill_supervisor()
        s.start()
        self.assert_serves(s, "1.0")

    def test_a_child_of_the_dead_one_still_has_its_lock(self):
        """A successor that was forked and has not closed what it does not need yet."""
        s = self.kvd()
        s.kill_supervisor()
        path = s.path("run", "kvd", "supervisor.lock")
        with open(path, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            s.launch()
            harness.wait_until(lambda: path in harness.descriptors(s.supervisor.pid).values(),
                               "it has met the lock")
        self.assert_serves(s, "1.0")

    def test_stopped_after_a_death(self):
        """SIGTERM for a supervisor that has just adopted leaves no daemon."""
        s = self.kvd()
        s.kill_supervisor()
        s.launch()
        harness.wait_until(lambda: s.status() is not None, "it answers")
        self.assertEqual(s.stop(), 0)
        s.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
