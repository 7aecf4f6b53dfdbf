"""Attacks by the daemon's user: what runs as it was taken over, and handoffd is root. SECURITY.md
names these tests."""

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import unittest

import harness
from attacks import DAEMON, PYTHON, VICTIM, AttackCase, as_user, out_of_band, picture, uids
from badinput import SOCKETS, frame, looks_at_others


# openat(2) as /proc/PID/syscall has it
OPENAT = {"x86_64": "257 ", "aarch64": "56 "}.get(os.uname().machine, "")


class DaemonUser(AttackCase):
    """A service below a handoffd of root; its daemon runs as another user, and so do the attacks.
    The directories that such a daemon has are its own; somebody else's are there, too."""

    def setUp(self):
        super().setUp()
        self.s = self.opened(self.service("kvd-v1", start=False, options={
            "user": str(DAEMON), "group": str(DAEMON), "start-timeout": "60s"}))
        self.owned(self.s.data_dir, DAEMON, 0o700)
        self.home = self.s.path("home")        # of the daemon's user
        self.theirs = self.s.path("theirs")    # of somebody else
        for path, uid, mode in ((self.home, DAEMON, 0o755), (self.theirs, VICTIM, 0o711)):
            os.mkdir(path)
            self.owned(path, uid, mode)
        self.letter = os.path.join(self.theirs, "letter")
        with open(self.letter, "w", encoding="utf-8") as f:
            f.write("private")
        self.owned(self.letter, VICTIM, 0o600)
        self.before = picture(self.theirs)

    def tearDown(self):
        self.assertEqual(picture(self.theirs), self.before)

    def victim(self, **env):
        """A process of somebody else."""
        p = subprocess.Popen([*as_user(VICTIM), *PYTHON, "import sys; sys.stdin.read()"],
                             stdin=subprocess.PIPE, env=dict(os.environ, **env),
                             start_new_session=True)
        self.addCleanup(lambda: (p.stdin.close(), p.wait()))
        harness.wait_until(lambda: uids(p.pid)[0] == {VICTIM}, "it runs as its user")
        return p

    def test_what_runs_as_whom(self):
        """Daemons have its rights and no others, whatever an operator lets run."""
        self.s.start()
        self.upgrades(self.s)
        self.assertEqual(uids(self.s.daemon_pid()), ({DAEMON}, {DAEMON}, []))
        script = os.path.join(self.home, "script")
        with open(script, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\nid -u >%s/ran\ncat %s >%s/stolen\n" % (self.home, self.letter,
                                                                     self.home))
        os.chmod(script, 0o755)
        u = self.s.upgrade("--binary", script)
        self.assertEqual(u.code, 1, u.lines)
        self.assertEqual(harness.read_file(self.home + "/ran"), "%d\n" % DAEMON)
        self.assertEqual(harness.read_file(self.home + "/stolen"), "")
        self.upgrades(self.s)

    def test_nothing_of_the_supervisors(self):
        """Journal, locks, sockets, what is current: it cannot write, replace, remove or add one."""
        self.s.start()
        places = [self.s.path("run", "kvd"), self.s.path("state", "kvd")]
        paths = [os.path.join(top, x) for p in places for top, dirs, names in os.walk(p)
                 for x in dirs + names + ["new"]]
        code = """
done = []
def attempt(what, f, *args):
    try:
        f(*args)
        done.append(what + " " + path)
    except OSError:
        pass
for path in sys.argv[2:]:
    attempt("write", os.open, path, os.O_WRONLY)
    attempt("remove", os.unlink, path)
    attempt("replace", os.rename, path, path + ".old")
    attempt("link", os.link, path, sys.argv[1] + "/link")
    attempt("mode", os.chmod, path, 0o777)
    attempt("owner", os.chown, path, os.getuid(), os.getgid())
    attempt("add", os.mkdir, path)
print(*[x.replace(" ", "_") for x in done])
"""
        self.assertGreater(len(paths), 6)
        done = self.run_as(DAEMON, code, self.home, *places, *paths)
        door = self.s.path("run", "kvd", "daemon.sock")  # belongs to it
        self.assertEqual([x for x in done if not x.endswith(door)], [])
        self.upgrades(self.s)

    def test_no_signal_and_no_trace(self):
        """Neither handoffd nor a child of it that is about to become the daemon can be traced;
        only the daemon itself can be signalled."""
        self.s.start()
        code = """
import ctypes, signal
libc = ctypes.CDLL(None, use_errno=True)
got = []
pid = int(sys.argv[1])
for sig in (0, signal.SIGSTOP, signal.SIGKILL):
    try:
        os.kill(pid, sig)
        got.append("signal")
    except PermissionError:
        pass
if libc.ptrace(16, pid, None, None) == 0:
    got.append("trace")
for x in ("mem", "environ", "fd/0"):
    try:
        os.open("/proc/%d/%s" % (pid, x), os.O_RDONLY)
        got.append(x)
    except OSError:
        pass
print(*got)
"""
        self.assertEqual(self.run_as(DAEMON, code, self.s.supervisor.pid), [])
        self.upgrades(self.s)

    def test_another_process_of_its_user_registers(self):
        """daemon.sock lets it in, and the kernel tells that it is not the daemon."""
        self.s.start()
        pid = self.s.daemon_pid()
        st = os.stat(self.s.data_dir)
        hello = frame(1, {1: 2, 2: pid, 3: b"x", 4: 1, 5: 1, 6: 0, 7: st.st_dev, 8: st.st_ino,
                          10: 6, 11: True, 12: 1, 13: 99})
        code = """
c = connect()
try:
    c.sendall(bytes.fromhex(sys.argv[2]))
except BrokenPipeError:  # it is away by then
    pass
print(b"not a daemon of this service" in c.recv(10000))
"""
        with self.unharmed(self.s):
            said = self.run_as(DAEMON, code, self.s.path("run", "kvd", "daemon.sock"), hello.hex())
            self.assertEqual(said, ["True"])
            self.assertEqual(self.s.daemon_pid(), pid)
        self.upgrades(self.s)

    def test_a_stranger_while_nobody_is_known(self):
        """The journal is lost, nothing says whose the daemon is that has the lock, and it is
        silent: a process of its user that has a lock of its own is not taken for it."""
        self.s.start()
        pid = self.s.daemon_pid()
        os.kill(pid, signal.SIGSTOP)
        self.s.kill_supervisor()
        self.s.lose_journal("elsewhere")
        self.s.launch()
        self.s.wait_state("cold")
        harness.wait_until(lambda: "pid %d has the lock on the data and may serve" % pid in
                           self.s.log(), "it is told")
        self.assertNotIn("NOT served", self.s.log())
        code = """
import fcntl
copy = open(sys.argv[2], "wb")
fcntl.flock(copy, fcntl.LOCK_EX)
print(b"not a daemon of this service" in connect().recv(10000))
"""
        said = self.run_as(DAEMON, code, self.s.path("run", "kvd", "daemon.sock"),
                           os.path.join(self.home, ".handoff.lock"))
        self.assertEqual(said, ["True"])
        self.assertEqual(self.s.status()["state"], "cold")
        os.kill(pid, signal.SIGCONT)
        self.s.wait_state("idle")
        self.assertEqual(self.s.daemon_pid(), pid)
        self.upgrades(self.s)

    def test_pid_of_another_in_hello(self):
        """What a daemon says about its pid is for the log: who is ended at a stop is another."""
        victim = self.victim()
        os.rename(self.puppets(self.s), self.s.binary)
        self.s.launch()
        p = self.puppet()
        self.assertEqual(uids(p.pid)[0], {DAEMON})
        own, p.pid = p.pid, victim.pid
        p.serve(self.s.data_dir)
        self.s.wait_state("idle")
        self.assertEqual(self.s.daemon_pid(), own)
        self.s.stop()
        self.assertIsNone(victim.poll())

    def test_pid_of_another_in_the_lock_record(self):
        """The journal is lost, and the lock's record is the daemon's to write: it
        names another user's daemon, which has the lock on data of its own."""
        other = self.opened(self.service("kvd-v1", name="other", start=False, options={
            "user": str(VICTIM), "group": str(VICTIM)}))
        self.owned(other.data_dir, VICTIM, 0o700)
        other.start()
        pid = other.daemon_pid()
        self.s.start()
        mine = self.s.daemon_pid()
        self.s.kill_supervisor()
        os.kill(mine, signal.SIGKILL)
        harness.wait_until(lambda: not harness.is_alive(mine), "it is dead")
        os.remove(self.s.path("run", "kvd", "journal"))
        path = os.path.join(self.s.data_dir, ".handoff.lock")
        shutil.copy(os.path.join(other.data_dir, ".handoff.lock"), path)
        self.owned(path, DAEMON, 0o600)
        self.s.start()
        self.assertNotEqual(self.s.daemon_pid(), pid)
        self.upgrades(self.s)
        self.s.stop()
        self.assertEqual(other.daemon_pid(), pid)
        self.upgrades(other)

    @unittest.skipUnless(looks_at_others(), "needs root with CAP_SYS_PTRACE")
    def test_a_process_that_looks_like_a_helper(self):
        """Others' processes with all that a helper's environment has: they are no children of
        handoffd's, and of no session that a daemon has begun."""
        self.s.start()
        text = harness.read_file("/proc/%d/environ" % self.s.daemon_pid())
        env = dict(x.split("=", 1) for x in text.split("\0")
                   if x.startswith(("HANDOFF_GENERATION=", "HANDOFF_DIR=")))
        self.assertEqual(len(env), 2)
        victim = self.victim(**env)
        self.upgrades(self.s)
        pid = self.s.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        self.s.wait_status(lambda x: x["state"] == "idle" and x["pid"] not in (None, pid), "back")
        self.s.stop()
        self.assertIsNone(victim.poll())

    def test_data_directory_swapped(self):
        """For a link to somebody else's, and for a file: nothing there is touched, nobody is
        served from it, and the incumbent goes on."""
        self.s.start()
        away = self.s.data_dir + ".away"
        os.chmod(self.s.dir, 0o777)  # as careless as can be: it may rename its own directory
        client = self.second(self.s)
        for swap in ("os.symlink(sys.argv[3], sys.argv[1])", "open(sys.argv[1], 'w').close()",
                     "os.mkfifo(sys.argv[1])"):
            with self.subTest(swap):
                self.run_as(DAEMON, "os.rename(*sys.argv[1:3])\n" + swap, self.s.data_dir, away,
                            self.theirs)
                u = self.s.upgrade("--binary", harness.program("kvd-v2"))
                self.assertIn(u.code, (1, 2), u.lines)
                client.use()
                self.run_as(DAEMON, "os.unlink(sys.argv[1])\nos.rename(*sys.argv[2:0:-1])",
                            self.s.data_dir, away)
        self.upgrades(self.s)

    def test_lock_file_swapped(self):
        """A FIFO, a link to somebody else's file, a hard link to its own: the lock is not taken on
        what is not the file at its path, and nobody waits in an open(2)."""
        self.s.start()
        path = os.path.join(self.s.data_dir, ".handoff.lock")
        for swap in ("os.mkfifo(sys.argv[1])", "os.symlink(sys.argv[2], sys.argv[1])"):
            with self.subTest(swap):
                self.run_as(DAEMON, "os.rename(sys.argv[1], sys.argv[1] + '.old')\n" + swap, path,
                            self.letter)
                self.s.kill_supervisor()
                os.remove(self.s.path("run", "kvd", "journal"))  # so that handoffd looks there
                self.s.launch()
                harness.wait_until(lambda: self.s.status() is not None, "it answers")
                self.s.kill_supervisor()
                self.run_as(DAEMON, "os.rename(sys.argv[1] + '.old', sys.argv[1])", path)
                os.remove(self.s.path("run", "kvd", "journal"))
                self.s.start()
        self.upgrades(self.s)

    def test_unix_listener_swapped(self):
        """The path of a listener lies in a directory of the daemon's user: what it puts there is
        bound over, or unlinked, with its own rights and only if it is what was bound."""
        path = os.path.join(self.home, "kvd.sock")
        self.s.listen["local"] = "unix:" + path
        self.s.configure()
        self.s.start()
        for swap in ("os.symlink(sys.argv[2], sys.argv[1])", "os.mkdir(sys.argv[1])",
                     "open(sys.argv[1], 'w').close()"):
            with self.subTest(swap):
                self.run_as(DAEMON, "os.unlink(sys.argv[1])\n" + swap, path, self.letter)
                swapped = os.lstat(path).st_ino
                del self.s.listen["local"]
                self.s.configure()
                self.assertEqual(self.s.upgrade().code, 0, self.s.log())  # unlinks what it bound
                self.assertEqual(os.lstat(path).st_ino, swapped)
                self.s.listen["local"] = "unix:" + path
                self.s.configure()
                u = self.s.upgrade()
                self.assertEqual(u.code, 2, u.lines)  # in the way, and no socket
                self.assertEqual(os.lstat(path).st_ino, swapped)
                self.run_as(DAEMON, "p = sys.argv[1]\nlink = os.path.islink(p)\n"
                            "(os.rmdir if os.path.isdir(p) and not link else os.unlink)(p)", path)
                self.assertEqual(self.s.upgrade().code, 0, self.s.log())
        # the whole directory, for one of somebody else's where a socket of that name is
        with socket.socket(socket.AF_UNIX) as c:
            c.bind(os.path.join(self.theirs, "kvd.sock"))
        self.owned(os.path.join(self.theirs, "kvd.sock"), VICTIM, 0o600)
        self.before = picture(self.theirs)
        os.chmod(self.s.dir, 0o777)
        self.run_as(DAEMON, "os.rename(sys.argv[1], sys.argv[1] + '.old')\n"
                    "os.symlink(sys.argv[2], sys.argv[1])", self.home, self.theirs)
        self.assertEqual(self.s.stop(), 0)

    @unittest.skipUnless(looks_at_others(), "needs root with CAP_SYS_PTRACE")
    def test_executable_swapped(self):
        """It lies in a directory of the daemon's user. What is opened to look at it is opened with
        that user's rights: the writer of somebody else's FIFO goes on waiting for a reader."""
        fifo = os.path.join(self.theirs, "fifo")
        os.mkfifo(fifo)
        self.owned(fifo, VICTIM, 0o600)
        self.before = picture(self.theirs)
        own = os.path.join(self.home, "kvd")
        shutil.copy(harness.program("kvd-v1"), own)
        self.owned(own, DAEMON, 0o755)
        self.s.start()
        self.assertEqual(self.s.upgrade("--binary", own).code, 0, self.s.log())
        pid = self.s.daemon_pid()
        self.run_as(DAEMON, "os.rename(sys.argv[1], sys.argv[1] + '.old')\n"
                    "os.symlink(sys.argv[2], sys.argv[1])", own, fifo)
        writer = subprocess.Popen([*as_user(VICTIM), *PYTHON,
                                   "import os, sys; os.open(sys.argv[1], os.O_WRONLY)", fifo])
        self.addCleanup(lambda: (writer.kill(), writer.wait()))
        in_open = "/proc/%d/syscall" % writer.pid
        harness.wait_until(lambda: harness.read_file(in_open).startswith(OPENAT), "it waits")
        self.assertEqual(self.s.upgrade("--binary", own).code, 2, self.s.log())
        self.s.kill_supervisor()
        self.s.start()  # it looks for what its daemon runs
        self.assertEqual(self.s.daemon_pid(), pid)
        self.assertIsNone(writer.poll())
        self.upgrades(self.s)
        self.assertIsNone(writer.poll())

    def test_output_swapped(self):
        """output is a path in a directory of the daemon's user: a link leads nowhere that this
        user cannot write, and a FIFO without a reader holds up the daemon's start alone."""
        path = os.path.join(self.home, "kvd.out")
        self.s.start()
        for swap in ("os.symlink(sys.argv[2], sys.argv[1])", "os.mkfifo(sys.argv[1])"):
            with self.subTest(swap):
                self.run_as(DAEMON, swap, path, self.letter)
                self.s.configure(output=path, start_timeout="2s")
                with self.unharmed(self.s):
                    self.assertIn(self.s.upgrade().code, (1, 2), self.s.log())
                self.run_as(DAEMON, "os.unlink(sys.argv[1])", path)
        self.s.configure(start_timeout="60s")
        self.upgrades(self.s)

    def test_configuration_forged(self):
        """Without data-dir the lock's directory is the daemon's user's. What it puts there is not
        taken for the configuration that was in use when the file is broken."""
        s = self.s
        s.configure(command=[s.binary], data_dir=None)
        os.mkdir(s.path("run", s.name))
        s.launcher = ["env", "-u", "HANDOFF_RUNTIME_DIR",
                      "RUNTIME_DIRECTORY=" + s.path("run", s.name)]
        os.rename(self.puppets(s), s.binary)
        s.launch()
        self.puppet().serve()
        s.wait_state("idle")
        self.assertEqual(s.stop(), 0)
        taken = s.path("taken")
        self.run_as(DAEMON, "open(sys.argv[1], 'w').write(sys.argv[2] + '\\0' + sys.argv[3])",
                    s.path("run", s.name, "lock", "config"), s.conf,
                    "service kvd {\n command = {/bin/touch, %s}\n data-dir = %s\n}\n" %
                    (taken, s.data_dir))
        with open(s.conf, "w", encoding="utf-8") as f:
            f.write("service kvd {")
        s.launch()
        harness.wait_until(lambda: s.supervisor.poll() is not None or os.path.exists(taken),
                           "it ends, or is taken over")
        self.assertFalse(os.path.exists(taken), s.log())
        s.ended(2)

    def lingering(self):
        """A socket whose last close(2) waits for an hour: nobody reads what it has sent."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        c = socket.create_connection(listening.getsockname())
        c.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                c.send(bytes(1 << 16))
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
        return c

    def serving(self):
        """A daemon that the test plays, and that serves."""
        os.rename(self.puppets(self.s), self.s.binary)
        self.s.launch()
        p = self.puppet()
        p.serve(self.s.data_dir)
        self.s.wait_state("idle")
        return p

    def test_a_descriptor_that_lingers(self):
        """A daemon sends a socket whose last close(2) waits for an hour."""
        p = self.serving()
        c = self.lingering()
        self.s.supervisor.send_signal(signal.SIGSTOP)  # so that its copy is the last
        p.send(frame(SOCKETS, {1: 1, 2: 1, 3: ["resp"]}), fds=[c.fileno()])
        os.close(c.detach())
        self.s.supervisor.send_signal(signal.SIGCONT)
        self.wait_line(self.s, "warning: pid %d is refused: sockets that were not announced" %
                       p.pid)
        self.assertIsNotNone(self.s.status())

    @unittest.skipUnless(out_of_band(), "this kernel has no MSG_OOB for unix sockets")
    def test_a_descriptor_that_lingers_out_of_band(self):
        """The same with a byte of MSG_OOB, which a read drops, and its descriptor with it."""
        p = self.serving()
        c = self.lingering()
        fds = struct.pack("i", c.fileno())
        self.s.supervisor.send_signal(signal.SIGSTOP)
        p.channel.sendmsg([b"\xff"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)], socket.MSG_OOB)
        os.close(c.detach())
        p.send(b"\xff" * 5)
        self.s.supervisor.send_signal(signal.SIGCONT)
        self.wait_line(self.s, "warning: pid %d sent what is not the protocol: a frame length that no "
                       "frame can have (not this protocol?); its channel is closed" % p.pid)
        self.assertIsNotNone(self.s.status())

    def test_operators_are_not_the_daemon(self):
        """The daemon's user may look, and may not act."""
        self.s.start()
        for args in (["upgrade"], ["plan"], ["abort"], ["restart"], ["reexec"], ["stop"]):
            p = subprocess.run([*as_user(DAEMON), harness.program("handoffctl"), *args, "kvd"],
                               env=self.s.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, timeout=harness.PATIENCE,
                               check=False, cwd="/")
            self.assertEqual(p.returncode, 8, p.stdout + p.stderr)
        self.upgrades(self.s)


if __name__ == "__main__":
    unittest.main()
