"""What handoffd and handoffctl say where a call fails that hardly ever does, or at a moment that
is short: handoff-messages(7). What else they say, the tests of its cause look for."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import unittest

import harness
from badinput import Case, HELLO_ACK, LINE, mount_namespaces, receive
from fakesupervisor import EVENT, RESTART, RESULT, frame

sys.path.append(os.path.join(harness.TOP, "tests", "fault"))
import fault  # noqa: E402  pylint: disable=wrong-import-position

SERVING = 6  # a daemon's phase


class Other(fault.Upgrade):
    """An upgrade to another file."""
    name = "other"

    def prepare(self, st):
        pid = super().prepare(st)
        st.s.install("kvd-v2")
        return pid

    def judge(self, st):
        super().judge(st)
        st.s.install("kvd")


class FromCopy(fault.Crash):
    """The daemon is killed, and other bytes lie at its path by now: its copy is started."""
    name = "from-copy"

    def prepare(self, st):
        st.s.install("kvd-v2")
        return super().prepare(st)

    def judge(self, st):
        super().judge(st)
        st.s.install("kvd")


fault.SCENARIOS.update((c.name, c) for c in (Other, FromCopy))


# No machine is late for these; no words here need one that has passed.
LONG = {"start-timeout": "30s", "drain-grace": "10s", "deadline": "20s", "commit-timeout": "10s",
        "exit-timeout": "10s", "heartbeat": "1s", "self-fence": "10s", "presumed-dead": "15s"}


class Faults(unittest.TestCase):
    """One call fails, in tests/fault/shim.c, and tests/fault/fault.py judges what comes of it: the
    service is served, by nobody else than before where it has to, and the next upgrade commits.
    Which call it is, is found: each in turn, until the words are there."""

    def provoke(self, scenario, *rows):
        """rows: role, call, error, words"""
        st = fault.Stage(LONG)
        self.addCleanup(st.close)
        for role, call, error, words in rows:
            with self.subTest(words=words):
                self.assertTrue(self.found(st, scenario, role, call, error, words), words)

    @staticmethod
    def found(st, scenario, role, call, error, words):
        """(More than once around: a heartbeat, or who asks for the status, may come in between.)"""
        nth = around = 0
        while around < 3:
            nth += 1
            since, said = len(st.s.log()), len(st.said)
            struck = fault.run(st, scenario, (fault.ROLES.index(role), st.ctl.names().index(call), nth, error))
            if words in st.s.log()[since:] + st.said[said:]:
                return True
            if not struck:
                nth, around = 0, around + 1
        return False

    def test_upgrade(self):
        self.provoke(
            Other.name,
            ("S", "pwrite", errno.ENOSPC, "the current binary could not be recorded in "),
            ("S", "calloc", errno.ENOMEM, ": what it leaves behind is not ended"),
            ("S", "sendmsg", errno.ETOOMANYREFS, " could not be sent to pid "))

    def test_cold(self):
        self.provoke(
            "cold",
            ("S", "calloc", errno.ENOMEM, "error: no memory for an event loop"),
            ("S", "calloc", errno.ENOMEM, "error: no memory for the event loop"),
            ("S", "open", errno.EMFILE, "/boot_id cannot be read: whose the journal's pids are, nobody knows"))

    def test_adopt(self):
        self.provoke(
            "adopt",
            ("S", "rename", errno.ENOSPC, "the configuration could not be kept in "),
            ("S", "pidfd_open", errno.EMFILE, " may be the daemon that serves, and cannot be looked at: "))

    def test_no_journal(self):
        self.provoke("lost", ("S", "read", errno.EIO, "/.handoff.lock cannot be asked who may be serving: "))

    def test_from_copy(self):
        self.provoke(FromCopy.name, ("S", "openat", errno.EMFILE, "error: the kept copy of "))

    @unittest.skipIf(os.geteuid(), "needs root, to be another user")
    def test_root(self):
        self.provoke("adopt", ("S", "lchown", errno.EPERM, "/daemon.sock cannot be given to uid "))

    def test_incumbent(self):
        """What the library says in the daemon that serves."""
        self.provoke(
            "upgrade",
            ("O", "calloc", errno.ENOMEM, "no memory to move connections: they stay"))
        self.provoke("rollback", ("O", "pwrite", errno.ENOSPC, "the lock's record could not be written: "))

    def test_successor(self):
        """... and in the one that is to."""
        self.provoke(
            "upgrade",
            ("N", "getsockopt", errno.ENOBUFS, "a descriptor of the incumbent's is refused: it is no connection"),
            ("N", "pread", errno.EIO, "a connection's state of "),
            ("N", "fdatasync", errno.EIO, ".handoff.lock could not be written: "),
            ("N", "sendmsg", errno.ETOOMANYREFS, " could not be sent: "),
            ("N", "sendmsg", errno.ETOOMANYREFS, "the incumbent's connections: an answer could not be sent"),
            ("N", "realloc", errno.ENOMEM, "no memory or descriptors for the listening sockets"),
            ("N", "calloc", errno.ENOMEM, "no memory for the incumbent's connections"))

    def test_command_line(self):
        self.provoke(
            "status",
            ("T", "strdup", errno.ENOMEM, "out of memory"),
            ("T", "socket", errno.EMFILE, "the supervisor of kvd cannot be reached at "))


class Moments(Case):
    """A daemon takes as long for a step as the test wants to ask for an upgrade in it."""

    def refuses(self, s, words):
        s.wait_status(lambda x: x["refused"] == words, "it is refused: " + words)
        p = s.ctl("upgrade", s.name)
        self.assertEqual((p.returncode, p.stderr.splitlines()[0]), (1, "handoffctl: refused: " + words))

    def stopped(self):
        """Its daemon does not hear SIGTERM."""
        s = self.service(options={"stop-timeout": "60s"})
        pid = s.daemon_pid()
        harness.wait_until(lambda: " serves: epoch " in s.log(), "it has its handlers")
        os.kill(pid, signal.SIGSTOP)
        return s, pid

    def test_restarting(self):
        s, pid = self.stopped()
        restart = harness.Upgrade([harness.program("handoffctl"), "--json", "restart", s.name], s.env,
                                  s.path("restart.err"))
        s.background.append(restart)
        self.refuses(s, "the daemon is being restarted; try again in a moment")
        os.kill(pid, signal.SIGCONT)
        restart.wait()
        self.assertEqual(restart.code, 0, restart.lines)
        self.second(s)

    def test_stopping(self):
        s, pid = self.stopped()
        s.supervisor.terminate()
        self.refuses(s, "the supervisor is being stopped, and the service with it")
        os.kill(pid, signal.SIGCONT)
        s.ended()

    def test_registering(self):
        """A new supervisor knows of a daemon, which has not come, and then has not sent its sockets."""
        s, p = self.puppet_service(options={"stop-timeout": "1s"})
        s.kill_supervisor()
        s.launch()
        self.refuses(s, "the daemon serves, and has not registered with this new supervisor yet; try again in a second")
        p.connect()
        p.send(p.hello(s.data_dir, role=2, phase=SERVING, sockets=1))
        p.receive(HELLO_ACK)
        self.refuses(s, "the daemon serves, and is registering; try again in a second")

    def test_two_requests(self):
        """... on one connection, of which the first waits for its end."""
        s, pid = self.stopped()
        s.supervisor.send_signal(signal.SIGSTOP)
        c = self.control(s)
        c.sendall(frame(RESTART, {}) + frame(RESTART, {}))
        s.supervisor.send_signal(signal.SIGCONT)
        kind, fields, _ = receive(c)
        while kind == EVENT:
            kind, fields, _ = receive(c)
        self.assertEqual((kind, fields[3]), (RESULT, "this connection still waits for the answer to its last request"))
        os.kill(pid, signal.SIGCONT)

    def test_notify_socket(self):
        """What is no address is told, and that is all."""
        s = self.service(start=False)
        s.env["NOTIFY_SOCKET"] = "relative"
        s.start()
        self.assertIn("warning: $NOTIFY_SOCKET cannot be used, systemd is told nothing: ", s.log())
        self.second(s)

    def faulty(self):
        """A service with a puppet, and what makes the nth call of its handoffd fail, or each (0)."""
        s = self.service(start=False)
        control = fault.Control(s.path("control"))
        self.addCleanup(control.close)
        s.env.update(LD_PRELOAD=fault.SHIM, FAULT_SHIM=control.path)
        os.rename(self.puppets(s), s.binary)
        s.launch()
        p = self.puppet()
        p.serve(s.data_dir)
        s.wait_state("idle")

        def fail(call, nth, error):
            control.arm(0, fault.ROLES.index("S"), control.names().index(call), nth, error)
        return s, p, fail

    def test_no_memory_for_a_channel(self):
        """It is closed, and the daemon registers with the next one."""
        s, p, fail = self.faulty()
        words, nth = "error: no memory for the channel of pid %d" % p.pid, 0
        while words not in s.log():
            self.assertLess(nth, 20, s.log())
            nth += 1
            p.drop()
            s.wait_state("unregistered")
            fail("malloc", nth, errno.ENOMEM)
            p.connect()
            p.send(p.hello(s.data_dir, role=2, phase=SERVING))
            with contextlib.suppress(EOFError, ConnectionError):
                p.receive(HELLO_ACK)
        p.drop()
        s.wait_state("unregistered")
        p.connect()
        p.send(p.hello(s.data_dir, role=2, phase=SERVING))
        p.receive(HELLO_ACK)
        s.wait_state("idle")

    def test_nothing_to_hand_over(self):
        """What another handoffd has to know cannot be written down: it is not asked."""
        s, _p, fail = self.faulty()
        fail("memfd_create", 1, errno.EMFILE)
        q = s.ctl("reexec", s.name)
        self.assertEqual((q.returncode, q.stderr.splitlines()[0]), (
            1, "handoffctl: refused: the other handoffd could not be asked whether it can go on: "
            "Too many open files; this one goes on"))
        self.assertEqual(s.status()["supervisor_pid"], s.supervisor.pid)

    def test_data_dir_of_which_nothing_is_known(self):
        """That it is another directory would be a guess, and no advice for a disk."""
        s, _p, fail = self.faulty()
        fail("stat", 2, errno.EIO)   # the first is of the working directory
        u = s.upgrade()
        self.assertEqual((u.code, u.result["outcome"], u.result["message"]), (
            1, "refused", "data-dir %s: cannot be looked at: Input/output error; look at the disk" % s.data_dir))

    def test_what_an_upgrade_has_met(self):
        """... is not why nobody serves when the daemon dies later."""
        s, p, fail = self.faulty()
        fail("fork", 1, errno.EAGAIN)
        u = s.upgrade()
        self.assertEqual((u.code, u.result["outcome"]), (1, "aborted"), u.lines)
        self.assertIn("the limit of processes is reached", u.result["message"])
        p.exit(1)
        warning = s.wait_status(lambda x: x["warning"], "nobody serves")["warning"]
        self.assertEqual(warning, "pid %d exited with 1" % p.pid)

    def test_cannot_be_ended(self):
        """What a daemon has left behind hears no signal, as a process that hangs in the kernel; the
        next daemon serves meanwhile."""
        s, old, fail = self.faulty()
        fail("pidfd_signal", 0, errno.EPERM)
        old.order("fork")
        new = self.puppet()
        new.serve(s.data_dir)
        s.wait_state("idle")
        harness.wait_until(lambda: " of the daemon that ended (pid %d) does not end; nothing waits for it" % old.pid
                           in s.log(), "it is told", 30)
        self.assertEqual(s.daemon_pid(), new.pid)
        old.close()   # what is left ends


# In a mount namespace: systemd is asked by $0, and there are cgroups of version 2.
MANAGED = 'mount --bind "$0" /bin/systemctl && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'


def managed(systemctl, *command, **kwargs):
    return subprocess.run(["unshare", "-m", "sh", "-c", MANAGED, systemctl, *command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **kwargs)


@unittest.skipUnless(mount_namespaces() and managed("/bin/true", "true").returncode == 0,
                     "needs root and mount namespaces, with cgroups of version 2, and a systemctl to hide")
class Reap(Case):
    """What `handoffd --reap` finds when a unit has ended. Its group is a directory of the test's."""

    def setUp(self):
        self.s = self.service(options={"stop-timeout": "10ms"}, start=False)
        self.group = self.s.path("group")

    def reap(self, *said):
        """Its status, and its lines without their time."""
        systemctl = self.s.path("systemctl")
        with open(systemctl, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\n" + "".join("echo '%s'\n" % x for x in said))
        os.chmod(systemctl, 0o755)
        p = managed(systemctl, harness.program("handoffd"), "--reap", "kvd", "-c", self.s.conf, env=self.s.env,
                    cwd=self.s.dir, timeout=harness.PATIENCE)
        return p.returncode, LINE.findall(p.stdout)

    def unit(self):
        return "ActiveState=inactive", "ControlGroup=/../../.." + self.group

    def test_systemd_says_nothing(self):
        self.assertEqual(self.reap(), (1, ["error: systemd does not say how handoff@kvd is: nothing is ended"]))

    def test_broken_configuration(self):
        with open(self.s.conf, "w", encoding="utf-8") as f:
            f.write("nonsense")
        code, lines = self.reap("ActiveState=inactive", "ControlGroup=")
        self.assertEqual((code, len(lines)), (0, 1), lines)
        self.assertTrue(lines[0].startswith("warning: stop-timeout is taken for 30 s: %s:1: " % self.s.conf), lines)

    def test_no_group(self):
        with open(self.group, "w", encoding="ascii"):
            pass
        self.assertEqual(self.reap(*self.unit()), (
            1, ["error: the cgroup /../../..%s cannot be looked at: Not a directory; what is left in it is not ended" % self.group]))

    def test_cannot_be_killed(self):
        """Somebody is in it until the end."""
        os.mkdir(self.group)
        for name, text in (("cgroup.procs", ""), ("cgroup.events", "populated 1\n")):
            with open(os.path.join(self.group, name), "w", encoding="ascii") as f:
                f.write(text)
        self.assertEqual(self.reap(*self.unit()), (
            1, ["warning: what was left behind did not end within 10 ms: it is killed",
                "error: what is left in the cgroup /../../..%s cannot be killed: it hangs in the kernel" % self.group]))
