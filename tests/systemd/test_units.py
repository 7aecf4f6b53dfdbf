"""handoff@NAME as systemd and its operators see it."""

import json
import os
import re
import signal
import subprocess
import threading
import time

import harness
import systemd
from harness import PATIENCE, wait_until


class Units(systemd.TestCase):
    """A service that is started, reloaded and stopped."""

    def test_start(self):
        """`systemctl start` returns when the daemon serves, and says which."""
        u = self.unit(start=False)
        u.start()
        self.assertTrue(u.client().ping())
        self.assertEqual(u.state(), "active/running")
        self.assertEqual(u.show("StatusText"), "pid %d, version 1.0 serves" % u.daemon_pid())
        self.assertEqual(u.show("ActiveState", u.guard), "active")
        self.assertIn("nss-user-lookup.target", u.show("After").split())

    def test_reload(self):
        """`systemctl reload` is a handoff: it returns when that has ended, with its result."""
        u = self.unit()
        load = u.load()
        main, old = u.pid(), u.daemon_pid()
        p = u.systemctl("reload")
        self.assertEqual(p.returncode, 0, p.stderr)
        new = u.daemon_pid()
        self.assertNotEqual(new, old)
        self.assertFalse(harness.is_alive(old))
        self.assertEqual((u.pid(), u.state()), (main, "active/running"))
        u.install("/bin/false")
        p = u.systemctl("reload")
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("failed", p.stderr)
        u.wait_journal("aborted")
        self.assertEqual((u.pid(), u.daemon_pid(), u.state()), (main, new, "active/running"))
        status = "pid %d, version 1.0 serves; the last handoff was aborted: " % new
        wait_until(lambda: u.show("StatusText").startswith(status), "the unit's status says so")
        self.assert_nothing_failed(load)

    def entries(self, *matches):
        """Of the journal, by fields."""
        p = subprocess.run(["journalctl", "-q", "-o", "json", "--no-pager", *matches], text=True, check=False,
                           stdout=subprocess.PIPE, timeout=PATIENCE)
        return [json.loads(line) for line in p.stdout.splitlines()]

    def test_reexec(self):
        """Another handoffd goes on as the unit's main process; systemd, too, notices nothing."""
        u = self.unit()
        load = u.load()
        main, daemon = u.pid(), u.daemon_pid()
        for _ in range(3):
            p = u.ctl("reexec", u.name)
            self.assertEqual(p.returncode, 0, p.stderr + u.journal())
        self.assertEqual((u.pid(), u.daemon_pid(), u.state()), (main, daemon, "active/running"))
        u.wait_journal("goes on as handoffd")
        p = u.systemctl("reload")   # what it tells systemd is heard
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual((u.pid(), u.state()), (main, "active/running"))
        daemon = u.daemon_pid()
        status = "pid %d, version 1.0 serves; the last handoff was committed" % daemon
        wait_until(lambda: u.show("StatusText") == status, "the unit's status says so")
        u.kill_supervisor()   # and its descriptor store is as it was
        u.wait_adopted(daemon, main)
        self.assert_nothing_failed(load)

    def test_journal(self):
        """What the log says has fields; `explain` has the lines of the process that failed."""
        u = self.unit()
        self.assertEqual(u.systemctl("reload").returncode, 0)
        handoff = u.status()["last"]["handoff"]
        [end] = wait_until(lambda: self.entries("HANDOFF_ID=" + handoff,
                                                "MESSAGE_ID=cb2627c7acc1424bb9873e435dabdff8"),
                           "the journal has the outcome")
        self.assertEqual((end["HANDOFF_SERVICE"], end["_SYSTEMD_UNIT"], end["_PID"], end["PRIORITY"]),
                         (u.name, u.unit, str(u.pid()), "6"))
        phases = [x["HANDOFF_PHASE"] for x in self.entries("HANDOFF_ID=" + handoff)]
        self.assertLessEqual({"starting", "warm", "drain", "take", "exit"}, set(phases))
        u.arguments = ["--fault", "ready:unhealthy"]
        u.configure()
        self.assertNotEqual(u.systemctl("reload").returncode, 0)
        record = wait_until(lambda: [x for x in [json.loads(u.ctl("--json", "explain", u.name).stdout)]
                                     if x["log"]], "the journal has the successor's lines")[0]
        self.assertEqual(record["failed"]["role"], "successor")
        self.assertIn("kvd[%d]" % record["to"]["pid"], record["log"])

    def test_environment(self):
        """What systemd tells its main process is not told to the daemon."""
        u = self.unit(dropin={"WatchdogSec": "1min"})
        main, daemon = (u.environment_of(pid) for pid in (u.pid(), u.daemon_pid()))
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "SYSTEMD_EXEC_PID", "INVOCATION_ID",
                     "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "JOURNAL_STREAM"):
            self.assertIn(name, main)
            if name != "JOURNAL_STREAM":
                self.assertNotIn(name, daemon)
        self.assertNotEqual(daemon.get("JOURNAL_STREAM"), main["JOURNAL_STREAM"])

    def test_stop_is_systemds(self):
        """`handoffctl stop` would be undone by Restart=always: it says what to do instead."""
        u = self.unit()
        daemon = u.daemon_pid()
        p = u.ctl("stop", u.name)
        self.assertEqual(p.returncode, 1)
        self.assertIn("systemctl stop handoff@%s" % u.name, p.stderr)
        self.assertEqual(u.daemon_pid(), daemon)
        u.stop()
        u.assert_nothing_left()
        self.assertIsNone(u.status())


class Crash(systemd.TestCase):
    """The supervisor dies or hangs; the daemon does not notice."""

    def test_killed(self):
        """kill -9 under load: the daemon serves on, is adopted, no request fails."""
        u = self.unit()
        load = u.load()
        daemon = u.daemon_pid()
        for _ in range(3):
            killed = u.kill_supervisor()
            u.wait_adopted(daemon, killed)
            u.wait_unit("active")
            load.wait_ok(100)
        self.assertEqual(u.systemctl("reload").returncode, 0)
        self.assertNotEqual(u.daemon_pid(), daemon)
        self.assert_nothing_failed(load)

    def test_killed_in_a_reload(self):
        """systemd starts no supervisor before the reload's process has gone: it goes at once."""
        u = self.unit()
        load = u.load()
        old = u.daemon_pid()
        u.arguments = ["--fault", "start:hang"]
        u.configure()
        reload = subprocess.Popen(["systemctl", "reload", u.unit], stderr=subprocess.PIPE)
        u.wait_status(lambda s: s["state"] == "warm", "a handoff under way")
        killed = u.kill_supervisor()
        self.assertNotEqual(reload.wait(PATIENCE), 0)
        reload.stderr.close()
        u.wait_adopted(old, killed)
        u.wait_unit("active")
        u.wait_journal("code=exited, status=6")
        self.assert_nothing_failed(load)

    def test_hangs(self):
        """A restart of a supervisor that hangs: another one has the daemon."""
        u = self.unit(dropin={"TimeoutStopSec": "1s"})
        load = u.load()
        daemon = u.daemon_pid()
        with systemd.hung(u.pid()) as hung:
            self.assertEqual(u.systemctl("restart").returncode, 0)
        u.wait_adopted(daemon, hung)
        self.assert_nothing_failed(load)

    def test_restart(self):
        """A restart of one that can hear it ends the daemon and starts it again."""
        u = self.unit()
        old, daemon = u.pid(), u.daemon_pid()
        u.signal_supervisor(signal.SIGSTOP)  # systemd sends SIGCONT behind SIGTERM
        self.assertEqual(u.systemctl("restart").returncode, 0)
        self.assertFalse(harness.is_alive(daemon))
        self.assertNotIn(u.pid(), (0, old))
        self.assertTrue(u.client().ping())


class Stop(systemd.TestCase):
    """`systemctl stop` leaves nothing, whenever it comes and whatever handoffd does."""

    def check_ended(self, u, daemon):
        """By the guard, since nobody else could."""
        u.assert_nothing_left()
        self.assertFalse(harness.is_alive(daemon))
        u.wait_journal("pid %d was left behind" % daemon, u.guard)
        self.assertEqual(u.show("ActiveState", u.guard), "inactive")

    def test_before_a_restart(self):
        """In the delay before a supervisor that died is started again."""
        u = self.unit(dropin={"RestartSec": "1h"})
        daemon = u.daemon_pid()
        u.kill_supervisor()
        wait_until(lambda: u.state() == "activating/auto-restart", "the delay before a restart")
        self.assertTrue(u.client().ping())
        u.stop()
        self.check_ended(u, daemon)

    def test_hangs(self):
        """It is killed after TimeoutStopSec=, and the daemon is asked to end."""
        u = self.unit(dropin={"TimeoutStopSec": "1s"})
        daemon = u.daemon_pid()
        with systemd.hung(u.pid()):
            u.stop()
        self.check_ended(u, daemon)
        u.wait_journal("signal 15: ending")

    def test_daemon_hangs(self):
        """A daemon without a supervisor that does not hear SIGTERM: killed after stop-timeout."""
        u = self.unit(dropin={"RestartSec": "1h"}, options={"stop-timeout": "500ms"})
        daemon = u.daemon_pid()
        u.kill_supervisor()
        wait_until(lambda: u.state() == "activating/auto-restart", "the delay before a restart")
        with systemd.hung(daemon):
            u.stop()
        self.check_ended(u, daemon)
        u.wait_journal("did not end within 500 ms: it is killed", u.guard)

    def test_race(self):
        """kill -9 of the supervisor and a stop, at once, again and again: `make check-stops`."""
        u = self.unit(start=False)
        calm = [time_of_a_stop(u) for _ in range(3)]
        races = int(os.environ.get("STOP_RACES", "15"))
        for i in range(races):
            u.start()
            with u.killed_after(min(calm) * i / races):
                u.stop()
            u.assert_nothing_left()
        wait_until(lambda: len(lives(u)) >= len(calm) + races, "all of it in the journal")
        deaths = [death(x) for x in lives(u)[len(calm):]]
        print("# %d races, nothing was left: the supervisor was killed in %d before systemd began to stop it, "
              "in %d while it ended, in %d it had ended"
              % (races, deaths.count("before"), deaths.count("in the stop"), deaths.count("never")))


def time_of_a_stop(u):
    """In seconds, of a service that is left alone."""
    u.start()
    begin = time.monotonic()
    u.stop()
    took = time.monotonic() - begin
    u.assert_nothing_left()
    return took


def lives(u):
    """What the journal has of each life of the unit, from its start to its end."""
    return re.findall(r"\]: Starting .*?\]: Stopped ", u.journal(), re.S)


def death(life):
    """When the supervisor was killed."""
    head, killed, _ = life.partition("code=killed")
    return "never" if not killed else "in the stop" if "]: Stopping " in head else "before"


class Reap(systemd.TestCase):
    """`handoffd --reap`, by hand."""

    def reap(self, name):
        return subprocess.run([harness.program("handoffd"), "--reap", name], timeout=PATIENCE,
                              stderr=subprocess.PIPE, text=True, check=False)

    def test_only_what_is_down(self):
        """Neither a unit that runs, nor one that is about to be started again."""
        u = self.unit(dropin={"RestartSec": "1h"})
        daemon = u.daemon_pid()
        p = self.reap(u.name)
        self.assertEqual(p.returncode, 1)
        self.assertIn("handoff@%s is active: nothing is ended" % u.name, p.stderr)
        u.kill_supervisor()
        wait_until(lambda: u.state() == "activating/auto-restart", "the delay before a restart")
        p = self.reap(u.name)
        self.assertEqual(p.returncode, 1)
        self.assertIn("is activating: nothing is ended", p.stderr)
        self.assertTrue(u.client().ping())
        self.assertTrue(harness.is_alive(daemon))

    def test_runtime_directory(self):
        """What lies in it is removed, however it got there; what a link leads to is not."""
        u = self.unit(start=False)
        os.makedirs(os.path.join(u.runtime_dir, "lock", "deeper"))
        os.symlink(u.dir, os.path.join(u.runtime_dir, "lock", "link"))
        os.mkfifo(os.path.join(u.runtime_dir, "lock", "deeper", "fifo"))
        self.assertEqual(self.reap(u.name).returncode, 0)
        self.assertFalse(os.path.lexists(u.runtime_dir))
        self.assertTrue(os.path.exists(u.conf))
        self.assertTrue(os.listdir(u.dir))

    def test_somebody_else_s(self):
        """The directory of a supervisor that was started by hand stays as it is."""
        s = self.service(name="by-hand", start=False)
        s.env["HANDOFF_RUNTIME_DIR"] = "/run/handoff"
        s.start()
        p = self.reap(s.name)
        self.assertEqual(p.returncode, 0)
        self.assertIn("/run/handoff/by-hand stays", p.stderr)
        self.assertTrue(s.client().ping())
        self.assertEqual(s.status()["state"], "idle")
