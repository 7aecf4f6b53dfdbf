"""What lies on the disk, and what is missing: sockets and records of before, damaged ones,
directories of others, full and read-only disks, no more descriptors."""

import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import unittest
import zlib

import cbor2

import harness
from badinput import NOBODY, ROOT, Case, frame, mount_namespaces, receive


def slots(data):
    """The valid records of a file of two slots: {offset: (sequence, payload)}."""
    found, at = {}, data.find(b"HNDF")
    while at >= 0:
        crc, sequence, n = struct.unpack_from("<IQI", data, at + 4)
        payload = data[at + 20:at + 20 + n]
        if zlib.crc32(data[at + 8:at + 20 + n]) == crc:
            found[at] = (sequence, payload)
        at = data.find(b"HNDF", at + 4)
    return found


def record(sequence, payload):
    body = struct.pack("<QI", sequence, len(payload)) + payload
    return b"HNDF" + struct.pack("<I", zlib.crc32(body)) + body


def rewrite(path, change):
    """Changes the fields of every record, with right checksums."""
    with open(path, "r+b") as f:
        data = f.read()
        for at, (sequence, payload) in slots(data).items():
            kind, fields = cbor2.loads(payload)
            change(fields)
            f.seek(at)
            f.write(record(sequence, cbor2.dumps([kind, fields], canonical=True)))


def damage(path):
    """One byte of every record."""
    with open(path, "r+b") as f:
        data = f.read()
        assert slots(data)
        for at in slots(data):
            f.seek(at + 24)
            f.write(bytes([data[at + 24] ^ 1]))


class State(Case):
    def setUp(self):
        self.s = self.service()
        self.runtime = self.s.path("run", "kvd")
        self.journal = os.path.join(self.runtime, "journal")
        self.before = self.count(self.s)

    def crash(self, daemon=True):
        """SIGKILL for handoffd, and for the daemon first if asked for."""
        pid = self.s.daemon_pid()
        if daemon:
            # Stopped, so that it does not start another one meanwhile.
            self.s.supervisor.send_signal(signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)
        self.s.kill_supervisor()
        if daemon:
            harness.wait_until(lambda: not harness.is_alive(pid), "the daemon is dead")
        return pid

    def serves(self, pid=None):
        """All is as it was; of the same daemon if given."""
        self.s.wait_state("idle")
        if pid:
            self.assertEqual(self.s.daemon_pid(), pid)
        harness.wait_until(lambda: len(self.s.daemons()) == 1, lambda: "one daemon: %s" % self.s.daemons())
        self.second(self.s)
        self.assert_count(self.s, self.before)
        self.assertEqual(self.s.upgrade("--binary", harness.program("kvd-v2")).code, 0,
                         self.s.log())
        self.second(self.s)
        self.assert_count(self.s, self.before)

    def start_fails(self, line, code=1):
        """handoffd says this, and exits."""
        since = self.mark(self.s)
        self.s.launch()
        self.s.ended(code)
        self.assertEqual(self.lines(self.s, since), ["error: " + line])

    # Sockets

    def test_stale_sockets(self):
        self.crash()
        for name in ("control.sock", "daemon.sock"):
            self.assertTrue(os.path.lexists(os.path.join(self.runtime, name)))
        p = self.s.ctl("status", "kvd")
        self.assertEqual((p.returncode, p.stderr), (
            3, "handoffctl: the supervisor of kvd is gone (nobody answers at %s; its daemon may "
            "still serve); systemd starts it again, and --wait waits for that; else start it: handoffd -c FILE\n" %
            os.path.join(self.runtime, "control.sock")))
        self.s.launch()
        self.serves()

    def test_something_else_in_place_of_a_socket(self):
        for name in ("control.sock", "daemon.sock"):
            path = os.path.join(self.runtime, name)
            pid = self.crash(daemon=False)
            os.unlink(path)
            os.mkdir(path)
            self.start_fails("%s: Is a directory" % path)
            self.assertTrue(harness.is_alive(pid))
            os.rmdir(path)
            with open(path, "w", encoding="utf-8"):
                pass
            self.s.launch()
            self.s.wait_state("idle")
            self.assertEqual(self.s.daemon_pid(), pid)

    def test_runtime_directory_with_a_long_name(self):
        self.s.stop()
        long = self.s.path("r" * 100)
        self.s.env["HANDOFF_RUNTIME_DIR"] = long
        self.start_fails("%s/kvd/daemon.sock is longer than a socket's path may be (107 bytes): "
                         "use a shorter runtime directory" % long)
        p = self.s.ctl("status", "kvd")
        self.assertEqual((p.returncode, p.stderr), (
            2, "handoffctl: %s/kvd/control.sock is longer than the 107 bytes that a socket's "
            "path may have; use a shorter one\n" % long))

    # The journal

    def test_journal_of_another_boot(self):
        """Its processes are nobody here, whoever has their pids by now."""
        self.crash()
        other = subprocess.Popen(["sleep", "1000"])
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)

        def change(fields):
            fields[1] = "0" * 8 + "-0000-0000-0000-" + "0" * 12
            fields[5] = other.pid
            with open("/proc/%d/stat" % other.pid, encoding="ascii") as f:
                fields[6] = int(f.read().rsplit(")", 1)[1].split()[19])
        rewrite(self.journal, change)
        since = self.mark(self.s)
        self.s.launch()
        self.serves()
        self.assertIn("info: starting the daemon", self.lines(self.s, since))
        self.assertNotIn("info: adopting what runs", self.lines(self.s, since))
        self.assertIsNone(other.poll())

    def test_journal_with_a_pid_of_somebody_else(self):
        """The pid is right, the start time is not."""
        self.crash()
        rewrite(self.journal, lambda fields: fields.update({5: os.getpid(), 6: 1}))
        since = self.mark(self.s)
        self.s.launch()
        self.wait_line(self.s, "info: pid %d is gone" % os.getpid(), since)
        self.serves()

    def damaged(self, pid):
        """What is said and done about a journal that says nothing."""
        since = self.mark(self.s)
        self.s.launch()
        self.wait_line(self.s, "error: %s: is damaged: Bad message; the lock says who runs" %
                       self.journal, since)
        self.serves(pid)

    def test_corrupt_journal_with_a_living_daemon(self):
        pid = self.crash(daemon=False)
        damage(self.journal)
        self.damaged(pid)
        self.assertIn("info: adopting what runs", self.lines(self.s))

    def test_corrupt_journal_without_a_daemon(self):
        self.crash()
        damage(self.journal)
        self.damaged(None)

    def test_garbage_for_a_journal(self):
        for data in (os.urandom(70000), b"x", b"HNDF" * 20000):
            pid = self.crash(daemon=False)
            with open(self.journal, "wb") as f:
                f.write(data)
            since = self.mark(self.s)
            self.s.launch()
            self.wait_line(self.s, "error: %s: is damaged: Bad message; the lock says who "
                           "runs" % self.journal, since)
            self.s.wait_state("idle")
            self.assertEqual(self.s.daemon_pid(), pid)
        self.serves(pid)

    def test_truncated_journal(self):
        """To nothing, with a daemon that lives; cut in a record; and gone."""
        for size in (0, 30):
            pid = self.crash(daemon=False)
            os.truncate(self.journal, size)
            since = self.mark(self.s)
            self.s.launch()
            self.s.wait_state("idle")
            self.assertEqual(self.s.daemon_pid(), pid)
            self.assertIn("info: the journal names nobody, and pid %d has the lock" % pid,
                          self.lines(self.s, since))
        pid = self.crash(daemon=False)
        os.unlink(self.journal)
        self.s.launch()
        self.serves(pid)

    def test_truncated_journal_without_a_daemon(self):
        self.crash()
        os.truncate(self.journal, 0)
        self.s.launch()
        self.serves()

    def test_journal_is_a_link(self):
        pid = self.crash(daemon=False)
        os.rename(self.journal, self.journal + ".x")
        os.symlink(self.journal + ".x", self.journal)
        self.start_fails("%s: cannot be opened: Too many levels of symbolic links" % self.journal)
        os.rename(self.journal + ".x", self.journal)
        self.s.launch()
        self.serves(pid)

    # `current`

    def test_corrupt_current(self):
        path = self.s.path("state", "kvd", "current")
        copies = self.s.path("state", "kvd", "exe")
        self.assertEqual(self.s.upgrade("--binary", harness.program("kvd-v2")).code, 0)
        self.s.wait_status(lambda x: x["binary_kept"] and x["previous_kept"], "copies")
        kept = sorted(os.listdir(copies))
        self.s.stop()
        shutil.rmtree(self.runtime)  # as after a boot
        damage(path)
        since = self.mark(self.s)
        self.s.launch()
        self.wait_line(self.s, "error: %s: is damaged: a binary given by --binary and the kept executables "
                       "are forgotten, and these set aside in exe.damaged; the configuration's command counts"
                       % path, since)
        self.serves()
        self.assertEqual(sorted(os.listdir(copies + ".damaged")), kept)
        self.s.stop()
        shutil.rmtree(self.runtime)
        since = self.mark(self.s)
        self.s.start()  # the upgrade of serves() was recorded in place of what was damaged
        self.assertEqual([x for x in self.lines(self.s, since) if "damaged" in x], [])
        self.assertEqual(self.s.status()["binary"], harness.program("kvd-v2"))

    def test_corrupt_current_again(self):
        """What was set aside stays; what could not be is not swept, until there is room for it."""
        path, copies = self.s.path("state", "kvd", "current"), self.s.path("state", "kvd", "exe")
        self.s.wait_status(lambda x: x["binary_kept"], "a copy")
        kept = os.listdir(copies)
        self.s.stop()
        damage(path)
        os.makedirs(os.path.join(copies + ".damaged", "earlier"))
        os.rename(os.path.join(copies, kept[0]), os.path.join(copies, "77"))   # no number that is given again
        since = self.mark(self.s)
        self.s.launch()
        self.wait_line(self.s, "error: %s: is damaged: a binary given by --binary and the kept executables are "
                       "forgotten; these cannot be set aside in exe.damaged: Directory not empty; until they are, no "
                       "copy is made, and the next start removes them; the configuration's command counts" % path, since)
        self.serves()
        harness.wait_until(lambda: "could be made: %s.damaged: Directory not empty" % copies in
                           (self.s.status()["warning"] or ""), "it is said")
        self.assertEqual((os.listdir(copies), os.listdir(copies + ".damaged")), (["77"], ["earlier"]))
        shutil.rmtree(copies + ".damaged")
        self.s.wait_status(lambda x: x["binary_kept"], "a copy")
        self.assertEqual(os.listdir(copies + ".damaged"), ["77"])

    def test_current_is_a_directory(self):
        path = self.s.path("state", "kvd", "current")
        self.s.stop()
        os.unlink(path)
        os.mkdir(path)
        self.start_fails("%s: cannot be opened: Is a directory" % path)

    # The lock

    def lock_refused(self, make, why):
        """No daemon can start: tried again until the lock is one."""
        path = os.path.join(self.s.data_dir, ".handoff.lock")
        self.crash()
        os.unlink(path)
        make(path)
        since = self.mark(self.s)
        self.s.launch()
        harness.wait_until(lambda: sum("the service is NOT served" in x
                                       for x in self.lines(self.s, since)) >= 2, "failed starts")
        self.assertIn(" .handoff.lock: %s\n" % why, self.s.log()[since:])
        self.assertEqual(self.s.status()["state"], "cold")
        (os.rmdir if os.path.isdir(path) and not os.path.islink(path) else os.unlink)(path)
        self.serves()

    def test_lock_is_a_directory(self):
        self.lock_refused(os.mkdir, "cannot be opened: Is a directory")

    def test_lock_is_a_link(self):
        self.lock_refused(lambda path: os.symlink(self.s.conf, path),
                          "cannot be opened: Too many levels of symbolic links")

    def test_lock_is_a_fifo(self):
        self.lock_refused(os.mkfifo, "is not a regular file: Invalid argument")

    def test_lock_is_replaced_under_a_daemon(self):
        """What lies at the path counts (device and inode are compared): one writer only."""
        path = os.path.join(self.s.data_dir, ".handoff.lock")
        os.rename(path, path + ".x")
        with open(path, "wb"):
            pass
        self.assertEqual(self.s.upgrade().code, 0, self.s.log())
        self.serves()

    def test_lock_becomes_a_directory_under_a_daemon(self):
        """The successor says so in its warm-up, and the incumbent has not stopped for it."""
        path = os.path.join(self.s.data_dir, ".handoff.lock")
        os.rename(path, path + ".x")
        os.mkdir(path)
        with self.unharmed(self.s):
            u = self.s.upgrade()
            self.assertEqual((u.code, u.result["outcome"]), (1, "aborted"))
            self.assertNotIn("drain", u.phases())
        os.rmdir(path)
        os.rename(path + ".x", path)
        self.serves()

    def test_lock_becomes_a_link_in_the_pause(self):
        """The successor cannot have it, the incumbent not again until somebody mends it."""
        path = os.path.join(self.s.data_dir, ".handoff.lock")
        self.s.arguments += ["--fault", "drain:delay=3000"]
        self.s.configure(drain_grace="20s", deadline="30s", start_timeout="60s")
        self.assertEqual(self.s.upgrade().code, 0)
        self.s.arguments = []
        self.s.configure()
        with self.unharmed(self.s):
            u = self.s.start_upgrade()
            u.wait_phase("drain")
            os.rename(path, path + ".x")
            os.symlink("nowhere", path)
            harness.wait_until(lambda: "the lock cannot be taken again: .handoff.lock: cannot be "
                               "opened: Too many levels of symbolic links\n" in self.s.log(),
                               "the line")
            self.assertEqual(self.s.status()["state"], "resume")
            os.rename(path + ".x", path)   # the link is gone in the same moment
            u.wait()
            self.assertEqual((u.code, u.result["outcome"]), (1, "aborted"))
        self.serves()

    @unittest.skipUnless(ROOT, "needs root, to be another user")
    def test_lock_owned_by_another(self):
        path = os.path.join(self.s.data_dir, ".handoff.lock")
        self.s.stop()
        os.chmod(self.s.dir, 0o711)
        for d in ("bin", "run"):
            os.chmod(self.s.path(d), 0o755)
        for root, _, files in os.walk(self.s.data_dir):
            for x in [root] + [os.path.join(root, x) for x in files]:
                os.chown(x, NOBODY, -1)
        os.chown(path, 0, 0)
        os.chmod(path, 0o600)
        self.s.configure(user="nobody")
        since = self.mark(self.s)
        self.s.launch()
        harness.wait_until(lambda: " .handoff.lock: cannot be opened: Permission denied\n" in self.s.log()[since:], "the line")
        os.chown(path, NOBODY, -1)
        self.s.wait_state("idle")
        self.second(self.s)

    # Directories

    @unittest.skipUnless(ROOT, "needs root, to be another user")
    def test_runtime_directory_of_another(self):
        self.s.stop()
        for place in (self.runtime, self.s.path("state", "kvd")):
            os.chown(place, NOBODY, -1)
            self.start_fails("%s: belongs to another user: remove it, or name another directory "
                             "with HANDOFF_RUNTIME_DIR or HANDOFF_STATE_DIR" % place)
            os.chown(place, 0, -1)
        self.s.launch()
        self.serves()

    def test_runtime_directory_is_a_link(self):
        self.s.stop()
        os.rename(self.runtime, self.runtime + ".x")
        os.symlink(self.runtime + ".x", self.runtime)
        self.start_fails("%s: is not a directory (a symlink is not followed)" % self.runtime)

    def test_runtime_directory_removed_while_it_runs(self):
        """Sockets and journal are gone; the daemon is not, and SIGTERM still ends all."""
        client = self.second(self.s)
        shutil.rmtree(self.runtime)
        client.use()
        self.assertEqual(self.s.ctl("status", "kvd").returncode, 3)
        self.assertEqual(self.s.stop(), 0)

    # A second supervisor

    def test_second_supervisor(self):
        with self.unharmed(self.s):
            p = subprocess.run([harness.program("handoffd"), "-c", self.s.conf], env=self.s.env,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, timeout=harness.PATIENCE,
                               check=False)
            self.assertEqual(p.returncode, 1)
            self.assertTrue(p.stdout.endswith(
                "handoffd[kvd]: error: another supervisor runs for this service (it holds "
                "%s/supervisor.lock)\n" % self.runtime), p.stdout)
            self.assertEqual(p.stdout.count("\n"), 1)
            self.assertIsNotNone(self.s.status())

    def test_second_supervisor_in_another_runtime_directory(self):
        """Its daemon cannot have the data, and the first one is not disturbed."""
        with self.unharmed(self.s):
            env = dict(self.s.env, HANDOFF_RUNTIME_DIR=self.s.path("run2"),
                       HANDOFF_STATE_DIR=self.s.path("state2"))
            conf = self.s.path("kvd.conf.2")
            with open(conf, "w", encoding="utf-8") as f:
                f.write(harness.read_file(self.s.conf).replace(
                    ":%d" % self.s.port, ":%d" % harness.free_port()))
            log = self.s.path("second.log")
            with open(log, "wb") as out:
                p = subprocess.Popen([harness.program("handoffd"), "-c", conf], env=env,
                                     stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            try:
                harness.wait_until(lambda: "starting the daemon" in harness.read_file(log),
                                   "what it says")
                p.terminate()
                self.assertEqual(p.wait(harness.PATIENCE), 0)
            finally:
                p.kill()
                p.wait()


class Descriptors(Case):
    """With so many more and no more: each attempt is refused, and nothing stays behind."""

    def limit(self, s, n):
        """Lets handoffd have n descriptors more than now. Who has gone is seen to have, when a
        connection that stays has been answered twice."""
        self.witness = self.control(s)
        for _ in range(2):
            self.witness.sendall(frame(66, {}))
            receive(self.witness)
        used = set(harness.descriptors(s.supervisor.pid))
        top = 0
        while n > 0 or top in used:
            n -= top not in used
            top += 1
        top = max(top, 1)
        # Numbers above the limit that are open already stay open (getrlimit(2)).
        _, hard = resource.prlimit(s.supervisor.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(s.supervisor.pid, resource.RLIMIT_NOFILE, (top, hard))

    def free(self, s):
        self.witness.close()
        _, hard = resource.prlimit(s.supervisor.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(s.supervisor.pid, resource.RLIMIT_NOFILE, (hard, hard))

    def test_none_left(self):
        s = self.service()
        with self.unharmed(s) as client:
            since = self.mark(s)
            self.limit(s, 0)
            c = self.control(s)
            self.wait_line(s, "warning: no descriptors for visitors of %s: they wait a second" %
                           s.path("run", "kvd", "control.sock"), since)
            client.use()
            self.free(s)
            self.assertIsNotNone(s.status())
            c.close()

    def test_upgrade_with_n_more(self):
        s = self.service(options={"limit-nofile": "1024"})
        said = set()
        for n in range(1, 40):
            with self.unharmed(s, same_daemon=False):
                pid = s.daemon_pid()
                self.count(s)
                self.limit(s, n)
                try:
                    u = s.upgrade("--binary", harness.program("kvd-v2"))
                finally:
                    self.free(s)
                if u.code == 0:
                    break
                self.assertEqual(u.code, 1, u.result)
                self.assertIn("Too many open files", u.result["message"])
                self.assertEqual(s.daemon_pid(), pid)
                said.add(u.result["message"])
        self.assertEqual(u.code, 0, "no number was enough")
        self.assertGreater(n, 3)
        self.assertGreater(len(said), 1)


@unittest.skipUnless(mount_namespaces(), "needs root and mount namespaces")
class Disks(Case):
    """Full and read-only file systems, in a mount namespace of the test's own."""

    def setUp(self):
        self.s = self.service(start=False)
        self.holder = self.mount = None

    def mounted(self, *commands):
        """handoffd and handoffctl run where these mounts are; self.at(path) sees them."""
        script = "set -e; cd /; %s; echo ready; exec sleep 100000" % "; ".join(commands)
        self.holder = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c",
                                        script], env=self.s.env, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE)
        self.addCleanup(self.holder.stdout.close)
        self.addCleanup(self.holder.wait)
        self.addCleanup(self.holder.kill)
        self.assertEqual(self.holder.stdout.readline(), b"ready\n")
        enter = ["nsenter", "--mount=/proc/%d/ns/mnt" % self.holder.pid, "--"]
        self.mount = lambda how: subprocess.run(enter + how.split(), check=True)
        s = self.s

        def launch():
            with open(s.log_path, "ab") as log:
                s.supervisor = subprocess.Popen(
                    enter + [harness.program("handoffd"), "-c", s.conf], env=s.env, stdout=log,
                    stdin=subprocess.DEVNULL, stderr=log, start_new_session=True)

        def ctl(*args, **kwargs):
            return subprocess.run(enter + [harness.program("handoffctl"), *args], env=s.env,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                  stderr=subprocess.PIPE, timeout=harness.PATIENCE, check=False,
                                  **kwargs)
        s.launch, s.ctl = launch, ctl

    def at(self, path):
        return "/proc/%d/root%s" % (self.holder.pid, path)

    @staticmethod
    def count(s):
        """Without the executables: the former one stays open while it cannot be copied."""
        s.wait_copied()
        return sum(not os.path.basename(x).startswith("kvd")
                   for x in harness.descriptors(s.supervisor.pid).values())

    def upgrade(self, *args):
        p = self.s.ctl("upgrade", "kvd", *args)
        return p.returncode, p.stderr + p.stdout

    def fill(self, directory):
        """Until there is no room for a byte more; the file that took it."""
        path = self.at(os.path.join(directory, "filler"))
        with open(path, "wb", buffering=0) as f:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        f.write(b"\0" * size)
                except OSError:
                    pass
        return path

    def ended(self, line):
        since = self.mark(self.s)
        self.s.launch()
        self.s.ended(1)
        self.assertEqual(self.lines(self.s, since), ["error: " + line])

    def test_full_when_it_starts(self):
        for place, name, what in (("run", "journal", "cannot be read or written"),
                                  ("state", "current", "cannot be written")):
            with self.subTest(place):
                directory = self.s.path(place)
                self.mounted("mount -t tmpfs -o size=64k none %s" % directory,
                             "mkdir -m 711 %s/kvd" % directory,
                             "touch %s/kvd/supervisor.lock %s/kvd/%s" % (directory, directory,
                                                                        name))
                self.fill(directory)
                self.ended("%s/kvd/%s: %s: No space left on device" % (directory, name, what))

    def test_runtime_and_state_get_full(self):
        """Both records have their room: an upgrade commits on a full disk."""
        self.mounted(*["mount -t tmpfs -o size=256k none %s" % self.s.path(x)
                       for x in ("run", "state")])
        self.s.start()
        self.s.wait_status(lambda x: x["warning"], "a copy that does not fit")
        for x in ("run", "state"):
            self.fill(self.s.path(x))
        with self.unharmed(self.s, same_daemon=False):
            code, text = self.upgrade("--binary", harness.program("kvd-v2"))
            self.assertEqual(code, 0, text + self.s.log())
        self.assertEqual([x for x in self.lines(self.s) if x.startswith("error")], [])
        # And a supervisor that dies comes back.
        pid = self.s.daemon_pid()
        self.s.kill_supervisor()
        self.s.start()
        self.assertEqual(self.s.daemon_pid(), pid)

    def test_data_directory_gets_full(self):
        """A write is refused, not lost; what is there is read; with room again all is well."""
        self.mounted("mount -t tmpfs -o size=4m none %s" % self.s.data_dir)
        self.s.start()
        client = self.second(self.s)
        before = self.count(self.s)
        filler = self.fill(self.s.data_dir)
        refused = client.ask("SET big %s" % ("x" * 60000))
        self.assertEqual(refused, "-MISCONF the write was not done: the disk is full")
        self.assertIn(" writes are refused: shard ", self.s.log())
        self.assertIn(": writing the log: No space left on device\n", self.s.log())
        self.assertEqual(client.ask("GET second"), str(client.n))
        self.assertEqual(client.ask("GET big"), "$-1")
        code, text = self.upgrade("--binary", harness.program("kvd-v2"))
        self.assertIn(code, (0, 1), text)
        again = self.second_read(client)
        self.assertEqual(again, str(client.n))
        os.unlink(filler)
        harness.wait_until(lambda: self.works(), "writes with room")
        self.assertEqual(self.upgrade()[0], 0, self.s.log())
        self.second(self.s)
        self.assert_count(self.s, before)

    def second_read(self, client):
        with socket.create_connection(("127.0.0.1", self.s.port), harness.PATIENCE) as c:
            c.sendall(b"GET second\r\n")
            return c.makefile("rb").read(len("$1\r\n") + len(str(client.n))).decode().split()[-1]

    def works(self):
        try:
            self.second(self.s)
            return True
        except AssertionError:
            return False

    def test_read_only_when_it_starts(self):
        """The state directory, then the runtime directory."""
        for place in ("state", "run"):
            with self.subTest(place):
                directory = self.s.path(place)
                self.mounted("mount -t tmpfs none %s" % directory,
                             "mkdir -m 711 %s/kvd" % directory,
                             "mount -o remount,ro %s" % directory)
                self.ended("%s/kvd: Read-only file system" % directory)

    def test_read_only_under_a_daemon(self):
        """Paths lead to what cannot be written: an upgrade writes to what is open, and what it cannot write
        is said. A supervisor that is started then ends, and says why; later it adopts the daemon."""
        places = [self.s.path(x) for x in ("run", "state")]
        self.mounted(*["mount -t tmpfs none %s" % x for x in places])
        self.s.start()
        self.s.wait_status(lambda x: x["binary_kept"], "it is copied")
        for x in places:
            self.mount("mount --bind %s %s" % (x, x))
            self.mount("mount -o remount,bind,ro %s" % x)
        self.s.configure(drain_grace="9s")   # so that there is something to be kept
        with self.unharmed(self.s, same_daemon=False):
            code, text = self.upgrade("--binary", harness.program("kvd-v2"))
            self.assertEqual(code, 0, text)
            self.wait_line(self.s, "error: the configuration could not be kept in %s: Read-only file system; a supervisor "
                           "that is started again needs the file to be in order" % self.s.path("run", "kvd"))
        self.s.wait_status(lambda x: x["binary_kept"] and x["sha256"], "no child is left that could write")
        self.s.wait_copied()
        pid = self.s.daemon_pid()
        self.s.kill_supervisor()
        for x in places:
            self.mount("umount -l %s" % x)
        for x in places:
            self.mount("mount -o remount,ro %s" % x)
            self.ended("%s/kvd: Read-only file system" % x)
            self.second(self.s)
            self.mount("mount -o remount,rw %s" % x)
        self.s.start()
        self.assertEqual(self.s.daemon_pid(), pid)
        self.assertEqual(self.upgrade()[0], 0, self.s.log())
        self.second(self.s)

    def test_name_service_is_slow(self):
        """As one that is only about to come up: not 2, with which nobody would start it again."""
        os.mkfifo(self.s.path("fifo"))
        self.mounted("mount --bind %s /etc/passwd" % self.s.path("fifo"))
        self.s.configure(user="root")
        self.s.launch()
        self.s.ended(1)
        self.assertEqual(self.s.log(), "handoffd: %s:4: the name service did not answer within 5 s; use numbers for "
                         "user and groups, or repair it (getent passwd)\n" % self.s.conf)

    def test_data_directory_is_read_only(self):
        """Refused before anything is begun, with file and line; not for good: a disk that has met an error is so
        until it is remounted."""
        self.mounted("mount -t tmpfs none %s" % self.s.data_dir,
                     "mount -o remount,ro %s" % self.s.data_dir)
        self.s.launch()
        self.s.ended(1)
        self.assertEqual(self.s.log(), "handoffd: %s:3: data-dir %s: cannot be written: Read-only file system; look at "
                         "the disk, remount it\n" % (self.s.conf, self.s.data_dir))


if __name__ == "__main__":
    unittest.main()
