"""A handoff is the unit's reload, whoever has asked for it; what systemd and others do meanwhile."""

import os
import shutil
import signal
import subprocess

import harness
import systemd
from harness import PATIENCE, wait_until
from handoffs import TIMERS, faults

# phase of a handoff: which daemon holds it open, at which point, how; the outcomes that a stop
# in it may have, which may come late where the daemon goes on by itself
PHASES = {"warm": ("new", "warmup:hang", ["aborted"]),
          "drain": ("old", "drain:delay=500", ["aborted", "committed"]),
          "seal": ("old", "seal:delay=500", ["aborted", "committed"]),
          "ready": ("new", "begin:hang", ["aborted"]),
          "take": ("new", "take:delay=500", ["committed"]),
          "exit": ("old", "exit:delay=500", ["committed"])}


def job(*args):
    """systemctl, in the background."""
    return subprocess.Popen(["systemctl", *args], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


class Reload(systemd.TestCase):
    """Under way for as long as its successor hangs in the warm-up."""

    def held(self, u):
        u.arguments = faults("warmup:hang")
        u.configure()
        up = u.start_upgrade()
        up.wait_phase("warm")
        wait_until(lambda: u.state() == "reloading/reload", "the unit is reloading")
        return up

    def let(self, u, *names):
        u.arguments = faults(*names)
        u.configure()

    def ended(self, process):
        """Its exit code, and what it said."""
        _, err = process.communicate(timeout=PATIENCE)
        return process.returncode, err

    def test_by_hand(self):
        """`systemctl reload` waits for a handoff that somebody else has begun, then begins its own."""
        u = self.unit()
        load = u.load()
        main, old = u.pid(), u.daemon_pid()
        up = self.held(u)
        self.assertRegex(u.show("StatusText"), "^handoff [0-9a-f]{8} is under way$")
        self.assertEqual(u.systemctl("is-active").returncode, 0)
        self.let(u)
        reload = job("reload", u.unit)
        wait_until(lambda: u.show("Job") != "", "the reload waits")
        self.assertEqual(u.ctl("abort", u.name).returncode, 0)
        self.assertEqual(up.wait()["outcome"], "aborted")
        self.assertEqual(self.ended(reload), (0, ""))
        self.assertEqual((u.pid(), u.state()), (main, "active/running"))
        self.assertNotEqual(u.daemon_pid(), old)
        self.assert_nothing_failed(load)

    def test_the_supervisor_is_killed(self):
        """In a handoff that was begun by hand: no reload keeps systemd from starting another one."""
        u = self.unit()
        load = u.load()
        old = u.daemon_pid()
        up = self.held(u)
        killed = u.kill_supervisor()
        u.wait_adopted(old, killed)
        self.assertEqual(up.wait()["outcome"], "aborted")
        u.wait_unit("active")
        self.assert_nothing_failed(load)

    def test_daemon_reload(self):
        """systemd reads its units again, and is executed again, at rest and in a handoff."""
        u = self.unit()
        load = u.load()
        main, old = u.pid(), u.daemon_pid()
        for verb in ("daemon-reload", "daemon-reexec"):
            self.let(u, "warmup:delay=1500")
            self.assertEqual(systemd.systemctl(verb).returncode, 0)
            wait_until(lambda: (u.pid(), u.state()) == (main, "active/running"), "systemd is back")
            self.assertEqual(u.daemon_pid(), old)
            reload = job("reload", u.unit)
            u.wait_status(lambda s, o=old: s["state"] != "idle" or s["pid"] != o, "a handoff")
            self.assertEqual(systemd.systemctl(verb).returncode, 0)
            code, _ = self.ended(reload)
            if verb == "daemon-reload":  # the other one ends the connection that systemctl waits at
                self.assertEqual(code, 0, u.log())
            u.wait_status(lambda s, o=old: s["state"] == "idle" and s["pid"] != o, "another daemon")
            wait_until(lambda: u.state() == "active/running", "the reload has ended")
            wait_until(lambda: u.pid() == main, "the same supervisor")
            old = u.daemon_pid()
        self.assert_nothing_failed(load)


class Stop(systemd.TestCase):
    """`systemctl stop` in each phase of a handoff."""

    def held(self, u, phase):
        """An upgrade to version 2 that is in this phase."""
        who, fault, _ = PHASES[phase]
        other = u.path("bin", "other")
        shutil.copy(harness.program("kvd-v2"), other + ".new")
        os.rename(other + ".new", other)
        u.arguments = faults(fault) if who == "old" else []
        u.configure()
        u.start()
        u.arguments = faults(fault) if who == "new" else []
        u.configure()
        with u.client() as client:
            self.written += 1
            self.assertEqual(client.incr("n"), self.written)
        up = u.start_upgrade("--binary", other)
        up.wait_phase(phase)
        return up

    def test_in_each_phase(self):
        """It is settled, both daemons end, and no write is lost."""
        u = self.unit(start=False, binary="kvd-v1", options=dict(TIMERS, **{"commit-timeout": "10s"}))
        self.written = 0
        for phase, (_, _, outcomes) in PHASES.items():
            with self.subTest(phase=phase):
                up = self.held(u, phase)
                u.stop()
                u.assert_nothing_left()
                self.assertEqual(u.state(), "inactive/dead")
                up.wait()
                self.assertIn(up.result["outcome"], outcomes, u.log())

    def test_in_a_reload(self):
        """The reload has failed, the unit has not."""
        u = self.unit()
        u.arguments = faults("warmup:hang")
        u.configure()
        reload = job("reload", u.unit)
        u.wait_status(lambda s: s["state"] == "warm", "a handoff under way")
        u.stop()
        self.assertNotEqual(reload.wait(PATIENCE), 0)
        reload.stderr.close()
        self.assertEqual(u.state(), "inactive/dead")
        u.assert_nothing_left()


class Watchdog(systemd.TestCase):
    """Where the unit has one it is fed by handoffd's loop, and by nothing else."""

    def test_watchdog(self):
        """One that is stopped, and one that does not even hear SIGABRT, are replaced; the daemon
        serves on."""
        u = self.unit(dropin={"WatchdogSec": "2s", "TimeoutAbortSec": "500ms"})
        load = u.load()
        daemon, before = u.daemon_pid(), u.show("WatchdogTimestampMonotonic")
        wait_until(lambda: u.show("WatchdogTimestampMonotonic") != before, "it is fed")
        stopped = u.signal_supervisor(signal.SIGSTOP)
        u.wait_adopted(daemon, stopped)
        u.wait_journal("watchdog")
        with systemd.hung(u.pid()) as hung:
            u.wait_adopted(daemon, hung)
        self.assert_nothing_failed(load)
