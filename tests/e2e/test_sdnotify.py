"""What a service manager is told about the service, in order: sd_notify(3)."""

import os
import signal
import time

import harness
from handoffs import TIMERS, HandoffCase
from test_fdstore import Managed


class Told(HandoffCase):
    """manager.py is the manager: it remembers each message."""

    def kvd(self, options=(), **env):
        s = Managed("kvd-v1", options={**TIMERS, **dict(options)})
        self.addCleanup(s.finish)
        s.env.update(env)
        s.start()
        return s

    def phases(self, s):
        """The messages that are about more than the status."""
        return [(key, t) for t in list(s.manager.told)
                for key in ("READY", "RELOADING", "STOPPING") if key in t]

    def assert_told(self, s, *keys):
        """That, in this order; the last of them may still be on its way."""
        harness.wait_until(lambda: len(self.phases(s)) >= len(keys), "it says " + keys[-1])
        self.assertEqual([k for k, _ in self.phases(s)], list(keys))

    def test_reloading(self):
        """A handoff is a reload, however it ends; a plan is none."""
        s = self.kvd()
        self.assert_told(s, "READY")
        before = time.monotonic_ns() // 1000
        self.upgrade(s, "kvd-v2")
        self.assert_told(s, "READY", "RELOADING", "READY")
        after = time.monotonic_ns() // 1000
        _, reload = self.phases(s)[1]
        self.assertEqual(reload["RELOADING"], "1")
        # systemd from 253 on compares it with when it asked for the reload
        self.assertTrue(before <= int(reload["MONOTONIC_USEC"]) <= after, reload)
        self.assertRegex(reload["STATUS"], "^handoff [0-9a-f]{8} is under way$")
        self.assertEqual(s.ctl("plan", s.name).returncode, 0)
        self.use(s, "kvd-v1", "ready:unhealthy")
        self.assertEqual(s.upgrade().result["outcome"], "aborted")
        self.assert_told(s, "READY", "RELOADING", "READY", "RELOADING", "READY")
        self.assertIn("the last handoff was aborted", self.phases(s)[-1][1]["STATUS"])

    def test_a_handoff_that_waits_for_who_hangs(self):
        """Its status says that nobody serves, as long as that is so."""
        s = self.kvd(options={"start-timeout": "10min"})
        pid = s.daemon_pid()
        self.use(s, "kvd-v2")
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(os.kill, pid, signal.SIGCONT)

        def last():
            return [t["STATUS"] for t in list(s.manager.told) if "STATUS" in t][-1]
        u = s.start_upgrade()
        harness.wait_until(lambda: last().endswith(" is under way, NOT served"), last)
        os.kill(pid, signal.SIGCONT)
        u.wait()
        self.assert_outcome(u, 1, "aborted", s.log())
        harness.wait_until(lambda: last().startswith("pid %d, version 1.0 serves" % pid), last)

    def test_stopped_in_a_handoff(self):
        """Behind STOPPING=1 nothing is ready any more."""
        s = self.kvd(options={"start-timeout": "60s"})
        self.use(s, "kvd-v2", "warmup:hang")
        u = s.start_upgrade()
        u.wait_phase("warm")
        s.stop()
        u.wait()
        self.assert_told(s, "READY", "RELOADING", "STOPPING")

    def test_killed_in_a_handoff(self):
        """Who follows says that it is ready, as at any start, and no second reload."""
        s = self.kvd(options={"start-timeout": "60s"})
        self.use(s, "kvd-v2", "warmup:hang")
        u = s.start_upgrade()
        u.wait_phase("warm")
        s.kill_supervisor()
        s.start()
        u.wait()
        self.assert_told(s, "READY", "RELOADING", "READY")

    def test_nobody_listens(self):
        """A manager that has gone costs a line, and a handoff nothing."""
        s = self.kvd()
        self.assert_told(s, "READY")
        os.remove(s.manager.path)
        self.upgrade(s, "kvd-v2")
        self.assertEqual(s.log().count("systemd cannot be told: "), 1, s.log())

    def test_watchdog(self):
        """Its own watchdog is fed, and no other's."""
        s = self.kvd(WATCHDOG_USEC="200000")
        harness.wait_until(lambda: [t for t in list(s.manager.told) if "WATCHDOG" in t], "WATCHDOG=1")
        s = self.kvd(WATCHDOG_USEC="200000", WATCHDOG_PID="1")
        self.upgrade(s, "kvd-v2")
        self.assertEqual([t for t in list(s.manager.told) if "WATCHDOG" in t], [])

    def test_watchdog_over_a_reexec(self):
        """A new life does not know how much of the period is left: it feeds it at once."""
        s = self.kvd(WATCHDOG_USEC="3600000000", options={"self-fence": "60s", "presumed-dead": "61s"})
        for n in (1, 2, 3):
            harness.wait_until(lambda n=n: len([t for t in list(s.manager.told) if "WATCHDOG" in t]) == n,
                               "WATCHDOG=1, %d times\n%s" % (n, s.log()))
            self.assertEqual(s.ctl("reexec", s.name).returncode, 0, s.log())
