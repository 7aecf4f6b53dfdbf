"""What befalls a service in its life: no memory, an end of everything, a name that looks odd; and
the exporter beside it."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import unittest
import urllib.error
import urllib.request

import harness
import systemd
from harness import PATIENCE, wait_until


class Memory(systemd.TestCase):
    """The kernel ends the daemon for its memory (OOMPolicy=continue)."""

    MEGABYTE = 1 << 20

    @contextlib.contextmanager
    def limited(self, u, pid):
        """pid alone in a memory cgroup of version 1: the unit's is not changed while it runs."""
        root = os.path.join(u.dir, "memory")
        os.mkdir(root)
        if subprocess.run(["mount", "-t", "cgroup", "-o", "memory", "none", root], check=False,
                          stderr=subprocess.DEVNULL).returncode:
            raise unittest.SkipTest("no memory controller of cgroup v1 here")
        group = os.path.join(root, "handoff-test-%d" % os.getpid())
        try:
            os.mkdir(group)
            for name, value in (("cgroup.procs", pid), ("memory.limit_in_bytes", 8 * self.MEGABYTE)):
                with open(os.path.join(group, name), "w", encoding="ascii") as f:
                    f.write("%d\n" % value)
            yield group
        finally:
            wait_until(lambda: not harness.read_file(os.path.join(group, "cgroup.procs")), "it is empty")
            os.rmdir(group)
            subprocess.run(["umount", root], check=True)

    def fill(self, u):
        """Requests that are never complete: what the daemon keeps of them is lost with it."""
        request = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % self.MEGABYTE + bytes(self.MEGABYTE - 1)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for _ in range(64):
                s = stack.enter_context(socket.create_connection(("127.0.0.1", u.port), PATIENCE))
                s.sendall(request)

    def test_no_memory(self):
        """Started again by handoffd; the unit stays as it is, and what was acknowledged is there."""
        u = self.unit()
        with u.client() as c:
            self.assertEqual(c.incr("n"), 1)
        main, daemon = u.pid(), u.daemon_pid()
        with self.limited(u, daemon):
            self.fill(u)
            u.wait_status(lambda s: s["state"] == "idle" and s["pid"] not in (None, daemon), "another daemon")
        u.wait_journal("the daemon (pid %d) was killed by signal 9 (KILL)" % daemon)
        with u.client() as c:
            self.assertEqual(c.incr("n"), 2)
        self.assertEqual((u.pid(), u.state()), (main, "active/running"))


class Everything(systemd.TestCase):
    """Supervisor and daemon are gone, and so is all that lies in memory."""

    def test_start_after_a_crash(self):
        """As after a loss of power: the state directory and the data are left."""
        u = self.unit(binary="kvd-v1", dropin={"RestartSec": "1h"})
        u.install("kvd-v2")
        up = u.upgrade()
        self.assertEqual(up.result["outcome"], "committed")
        load = u.load()
        load.wait_ok(100)
        systemd.systemctl("kill", "--kill-whom=all", "-s", "KILL", u.unit)
        wait_until(lambda: u.state() == "activating/auto-restart", "all are dead")
        u.stop()
        wait_until(lambda: not os.path.lexists(u.runtime_dir), "the runtime directory is gone, too")
        u.start()
        self.assertEqual(u.status()["version"], "2.0")
        self.assertIn(up.result["handoff"], u.ctl("--json", "history", u.name).stdout)
        load.wait_ok(100)
        load.stop()
        verify = load.verify()["verify"]
        self.assertEqual((verify["lost"], verify["wrong"], verify["error"]), (0, 0, None), load.errors())
        self.assertEqual(u.systemctl("reload").returncode, 0)


class Removal(systemd.TestCase):
    """What the guard cannot remove is named; the next start works."""

    def test_no_removal(self):
        u = self.unit()
        lock = os.path.join(u.runtime_dir, "lock")
        os.makedirs(lock, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", lock], check=True)
        try:
            u.stop()
            wait_until(lambda: u.show("ActiveState", u.guard) == "failed", "the guard says so")
        finally:
            subprocess.run(["umount", lock], check=True)
        u.wait_journal(" cannot be removed: ", u.guard)
        systemd.systemctl("reset-failed", u.guard)
        u.start()
        self.assertTrue(u.client().ping())


class Package(systemd.TestCase):
    """The hooks of examples/deploy/debian/, while systemd is about to start a dead supervisor again."""

    def hook(self, u, name, *args):
        path = os.path.join(harness.TOP, "examples/deploy/debian", "kvd." + name)
        return subprocess.Popen(["sh", path, *args], env=u.env, stdin=subprocess.DEVNULL, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def ended(self, p):
        out, _ = p.communicate(timeout=PATIENCE)
        self.assertEqual(p.returncode, 0, out)
        return out

    def dead(self, u):
        """Its supervisor is dead and comes back when it is told to; the daemon serves."""
        u.kill_supervisor()
        wait_until(lambda: u.state() == "activating/auto-restart", "systemd waits")

    def test_upgrade_and_removal(self):
        u = self.unit(name="kvd", binary="kvd-v1", dropin={"RestartSec": "1h"})
        u.install("kvd-v2")
        self.dead(u)
        load = u.load()
        p = self.hook(u, "postinst", "configure", "1")
        for line in p.stdout:
            if "waiting for kvd" in line:
                break
        self.assertEqual(u.systemctl("restart").returncode, 0)   # a start waits for RestartSec=
        self.assertIn("committed", self.ended(p))
        self.assertEqual(u.status()["version"], "2.0")
        self.assert_nothing_failed(load)
        load.stop()
        self.dead(u)
        self.ended(self.hook(u, "prerm", "remove"))
        self.assertEqual(u.state(), "inactive/dead")
        self.assertIn("does not run, nothing to hand over", self.ended(self.hook(u, "postinst", "configure", "1")))


class Names(systemd.TestCase):
    """The instance is the name as it stands, whatever systemd makes of such characters elsewhere."""

    def test_another_in_the_configuration(self):
        """The log says so; handoffctl knows the service by its instance."""
        u = self.unit(start=False)
        with open(u.conf, encoding="utf-8") as f:
            text = f.read()
        with open(u.conf, "w", encoding="utf-8") as f:
            f.write(text.replace("service %s {" % u.name, "service other {"))
        u.start()
        u.wait_journal("the service is called other, and its runtime directory %s: handoffctl finds it by" % u.runtime_dir)
        self.assertRegex(u.ctl("list").stdout, "(?m)^%s +idle " % re.escape(u.name))
        self.assertEqual(u.ctl("upgrade", u.name).returncode, 0)

    def test_odd(self):
        for name in ("0", "a-b@_.service", "A" * 64):
            with self.subTest(name=name):
                u = self.unit(name=name)
                self.assertEqual(u.status()["service"], name)
                self.assertEqual(u.systemctl("reload").returncode, 0)
                killed, daemon = u.pid(), u.daemon_pid()
                u.kill_supervisor()
                u.wait_adopted(daemon, killed)

    def test_none(self):
        """What cannot be a name fails once, and is not tried again."""
        for name in ("-", ".x", "a b", "a:b", "ü"):
            with self.subTest(name=name):
                unit = subprocess.run(["systemd-escape", "--template=handoff@.service", name], check=True,
                                      stdout=subprocess.PIPE, text=True).stdout.strip()
                p = systemd.systemctl("start", unit)
                self.assertNotEqual(p.returncode, 0)
                state = systemd.systemctl("show", "--value", "-p", "ActiveState", "-p", "ExecMainStatus",
                                          "-p", "NRestarts", unit).stdout.split()
                self.assertCountEqual(state, ["failed", "2", "0"])
                systemd.systemctl("reset-failed", unit)


class Exporter(systemd.TestCase):
    """handoff-exporter.service, as a user that nobody else is, at its address."""

    UNIT = "handoff-exporter.service"
    URL = "http://127.0.0.1:9780"

    def get(self, path):
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(self.URL + path, timeout=PATIENCE) as r:
                return r.read().decode()
        return None

    def wait_for(self, path, text):
        return wait_until(lambda: text in (self.get(path) or ""), "%s says %s" % (path, text))

    def test_exporter(self):
        """It sees the services of the host; its own death is nobody else's."""
        u = self.unit()
        self.assertEqual(systemd.systemctl("start", self.UNIT).returncode, 0)
        self.addCleanup(systemd.systemctl, "stop", self.UNIT)
        self.wait_for("/health/" + u.name, "%s: ok" % u.name)
        self.assertIn('handoff_up{service="%s"} 1' % u.name, self.get("/metrics"))
        pid = int(u.show("MainPID", self.UNIT))
        self.assertNotEqual(os.stat("/proc/%d" % pid).st_uid, 0)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: int(u.show("MainPID", self.UNIT)) not in (0, pid), "another exporter")
        self.wait_for("/ready/" + u.name, "%s: ok" % u.name)
        self.assertEqual(u.systemctl("reload").returncode, 0)


class DropIn(systemd.TestCase):
    """examples/deploy/handoff@kvd.conf, as it stands."""

    def test_drop_in(self):
        """systemd takes each line, and the service lives with all of them."""
        u = self.unit(name="kvd", start=False)
        path = os.path.join(systemd.DROPINS, u.unit + ".d", "kvd.conf")
        shutil.copy(os.path.join(harness.TOP, "examples/deploy/handoff@kvd.conf"), path)
        self.addCleanup(os.remove, path)
        os.mkdir("/var/lib/kvd", 0o700)
        self.addCleanup(shutil.rmtree, "/var/lib/kvd")
        u.data_dir = "/var/lib/kvd"
        u.configure()
        self.assertEqual(systemd.systemctl("daemon-reload").returncode, 0)
        u.start()
        load = u.load()
        self.assertEqual(u.show("WatchdogUSec"), "30s")
        self.assertEqual(u.show("ReadWritePaths"), "/var/lib/kvd")
        self.assertEqual(u.systemctl("reload").returncode, 0)
        self.assert_nothing_failed(load)
        p = subprocess.run(["systemd-analyze", "verify", u.unit], check=False, text=True, timeout=PATIENCE,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertNotIn("kvd.conf", p.stdout)


class Hardening(systemd.TestCase):
    """systemd's own opinion: its score, from 0 to 10, and less is better. A bare unit has 9.6."""

    LIMITS = {"handoff@.service": 4.0, "handoff-guard@.service": 9.6, "handoff-exporter.service": 1.5}

    def test_scores(self):
        for name, limit in self.LIMITS.items():
            unit = name.replace("@", "@x")
            p = subprocess.run(["systemd-analyze", "security", "--no-pager", "--json=off", unit], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=PATIENCE)
            score = re.search(r"Overall exposure level for .*: ([\d.]+)", p.stdout)
            self.assertIsNotNone(score, p.stdout)
            print("# systemd-analyze security %s: %s" % (name, score[1]))
            self.assertLessEqual(float(score[1]), limit, p.stdout)
