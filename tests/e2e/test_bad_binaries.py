"""Binaries that cannot take over, or cannot even start: the incumbent serves on; without one,
the start is tried again with growing pauses and the listening sockets stay open."""

import os
import shutil
import socket
import struct
import unittest

import harness
from badinput import ABORT, HELLO_ACK, Case, wait_end

BEFORE = "the successor ended before it was ready: "
SERVES = "; the incumbent (pid %d) serves, no client met the successor"


class Files:
    """Programs of all kinds, made in the service's directory."""

    @staticmethod
    def make(s, name, data, mode=0o755):
        path = s.path("bin", name)
        with open(path + ".new", "wb") as f:
            f.write(data)
        os.chmod(path + ".new", mode)
        os.rename(path + ".new", path)
        return path

    @classmethod
    def script(cls, s, name, text, interpreter="/bin/sh"):
        return cls.make(s, name, ("#!%s\n%s\n" % (interpreter, text)).encode())

    @classmethod
    def another_machine(cls, s):
        """kvd with another e_machine (elf(5)): 243, RISC-V, or x86-64 where that is ours."""
        with open(harness.program("kvd"), "rb") as f:
            data = bytearray(f.read())
        ours = struct.unpack_from("<H", data, 18)[0]
        theirs = 243 if ours != 243 else 62
        struct.pack_into("<H", data, 18, theirs)
        return cls.make(s, "foreign", bytes(data)), theirs, ours

    @classmethod
    def unusable(cls, s):
        """Those that are refused before anything is begun: {path: why}."""
        foreign, theirs, ours = cls.another_machine(s)
        missing, directory = s.path("bin", "missing"), s.path("bin")
        plain = cls.make(s, "plain", harness.read_file(s.conf).encode(), 0o644)
        text = cls.make(s, "text", b"no program\n" * 10)
        empty = cls.make(s, "empty", b"")
        lost = cls.script(s, "lost", "", "/nowhere/python")
        bare = cls.make(s, "bare", b"#!\n")
        elf = "neither an ELF executable nor a script with #!; was it copied completely?"
        return {
            missing: "%s: no such file; install it, or correct command" % missing,
            directory: "%s: a directory, not a file; name the executable itself" % directory,
            "/dev/null": "/dev/null: a special file, not a file; name the executable itself",
            plain: "%s: not executable by the daemon's user: Permission denied; chmod +x it, and "
                   "look for noexec mounts" % plain,
            foreign: "%s: built for another architecture (ELF machine %d, this one is %d); "
                     "install the build for this machine" % (foreign, theirs, ours),
            text: "%s: %s" % (text, elf),
            empty: "%s: %s" % (empty, elf),
            lost: "%s: its interpreter '/nowhere/python' cannot be run: No such file or "
                  "directory; correct its first line" % lost,
            bare: "%s: its interpreter '' cannot be run: Exec format error; correct its first "
                  "line" % bare,
        }


class Upgrade(Case):
    def setUp(self):
        self.s = self.service()

    def aborted(self, why, *args):
        """An upgrade that is aborted with this reason; the incumbent never heard of it."""
        with self.unharmed(self.s):
            pid = self.s.daemon_pid()
            u = self.s.upgrade(*args)
            self.assertEqual((u.code, u.result["outcome"], u.result["message"]),
                             (1, "aborted", why + SERVES % pid), self.s.log())
            self.assertNotIn("drain", u.phases())

    def test_unusable(self):
        for path, why in Files.unusable(self.s).items():
            with self.subTest(os.path.basename(path)), self.unharmed(self.s):
                self.s.configure(command=[path])
                u = self.refused(self.s, code=2,
                                 message="%s:2: command: %s" % (self.s.conf, why))
                self.assertEqual((u.result["outcome"], u.phases()), ("refused", []))
                self.s.configure(command=[self.s.binary, "--data-dir", self.s.data_dir])
                if os.path.isfile(path) and os.access(path, os.X_OK):
                    self.refused(self.s, "--binary", path, code=2, message=why)

    def test_what_handoffctl_refuses(self):
        for path, why in ((self.s.path("missing"), "No such file or directory"),
                          (self.s.dir, "Is a directory")):
            with self.unharmed(self.s):
                p = self.s.ctl("upgrade", "kvd", "--binary", path)
                self.assertEqual((p.returncode, p.stderr), (
                    2, "handoffctl: --binary %s: %s; give the path of an executable file\n" %
                    (path, why)))

    def test_a_script_works(self):
        path = Files.script(self.s, "wrapper", 'exec "%s" "$@"' % harness.program("kvd-v2"))
        with self.unharmed(self.s, same_daemon=False):
            self.assertEqual(self.s.upgrade("--binary", path).code, 0, self.s.log())
        self.assertEqual(self.s.status()["software_version"]
                         if "software_version" in self.s.status() else "2.0", "2.0")
        os.kill(self.s.daemon_pid(), 9)  # and is what is started again
        since = self.mark(self.s)
        self.s.wait_state("idle")
        self.second(self.s)
        self.assertEqual([x for x in self.lines(self.s, since) if x.startswith("error: the daemon "
                                                                               "ended")], [])

    def test_exits_at_once(self):
        for code in (0, 1, 77):
            path = Files.script(self.s, "exits", "exit %d" % code)
            self.aborted(BEFORE + "it exited with %d" % code, "--binary", path)

    def test_dies_of_a_signal(self):
        path = Files.script(self.s, "dies", "kill -SEGV $$")
        self.aborted(BEFORE + "it was killed by signal 11 (SEGV)", "--binary", path)

    def test_forks_into_the_background(self):
        """What it left behind is ended with the attempt, as soon as it reads its channel."""
        self.s.configure(command=[self.s.binary, "--data-dir", self.s.data_dir,
                                  "--fault=start:fork"])
        self.aborted(BEFORE + "it exited with 0")
        harness.wait_until(lambda: len(self.s.daemons()) == 1, "the child is gone")

    def test_a_puppet_that_forks(self):
        path = self.puppets(self.s)
        u = self.s.start_upgrade("--binary", path)
        p = self.puppet()
        p.order("fork")
        u.wait()
        self.assertEqual((u.code, u.result["message"]),
                         (1, BEFORE + "it exited with 0" + SERVES % self.s.daemon_pid()))
        # The child lives as long as it likes; it has nothing of the service.
        p.close()
        with self.unharmed(self.s):
            pass

    def test_never_says_hello(self):
        self.s.configure(start_timeout="500ms",
                         command=[self.s.binary, "--data-dir", self.s.data_dir,
                                  "--fault=hello:hang"])
        self.aborted("the successor did not finish its start within start-timeout")
        self.s.configure(command=[self.s.binary, "--data-dir", self.s.data_dir,
                                  "--fault=start:stop"])
        self.aborted("the successor did not finish its start within start-timeout")

    def test_does_not_know_the_library(self):
        self.s.configure(start_timeout="500ms")
        self.aborted("the successor did not finish its start within start-timeout",
                     "--binary", Files.script(self.s, "sleeps", "exec sleep 1000"))

    def play(self, act, why, line=None):
        path = getattr(self, "path", None) or self.puppets(self.s)
        self.path = path
        with self.unharmed(self.s):
            since = self.mark(self.s)
            u = self.s.start_upgrade("--binary", path)
            p = self.puppet()
            act(p)
            u.wait()
            self.assertEqual((u.code, u.result["message"]),
                             (1, BEFORE + why + SERVES % self.s.daemon_pid()), self.s.log())
            if line:
                self.wait_line(self.s, line % p.pid, since)
            p.close()

    def test_closes_its_channel(self):
        self.play(lambda p: p.drop(), "it closed its channel and was killed",
                  "info: pid %d closed its channel and was killed")
        self.play(lambda p: (p.send(p.hello(self.s.data_dir, role=1)), p.drop()),
                  "it closed its channel and was killed")

    def test_exits_after_hello(self):
        self.play(lambda p: (p.send(p.hello(self.s.data_dir, role=1)), p.exit(3)),
                  "it exited with 3")

    def test_another_protocol_version(self):
        why = "no common protocol version: the daemon speaks 7 to 9, this supervisor 1 to 1"

        def act(p):
            p.send(p.hello(self.s.data_dir, role=1, low=7, high=9))
            self.assertIn((ABORT, why), [(k, f.get(1)) for k, f, _ in wait_end(p.channel)])
        self.play(act, why, "warning: pid %d is refused: " + why)
        why = "no common protocol version: the daemon speaks 1 to 0, this supervisor 1 to 1"
        self.play(lambda p: p.send(p.hello(self.s.data_dir, role=1, low=1, high=0)), why)

    def test_a_wide_range_of_versions_is_fine(self):
        path = self.puppets(self.s)
        u = self.s.start_upgrade("--binary", path)
        p = self.puppet()
        p.send(p.hello(self.s.data_dir, role=1, low=0, high=65535))
        self.assertEqual(p.receive(HELLO_ACK)[1], 1)
        p.exit(0)
        u.wait()
        self.assertEqual(u.code, 1)

    def test_another_data_directory(self):
        other = self.s.path("other")
        os.mkdir(other)
        why = "the daemon opened another directory than data-dir %s" % self.s.data_dir
        self.play(lambda p: p.send(p.hello(other, role=1)), why,
                  "warning: pid %d is refused: " + why)
        why = "the configuration names data-dir %s, the daemon opened none" % self.s.data_dir
        self.play(lambda p: p.send(p.hello(role=1)), why, "warning: pid %d is refused: " + why)

    def test_garbage_for_a_hello(self):
        self.play(lambda p: p.send(os.urandom(1) + b"\xff\xff\xff" + os.urandom(2000)),
                  "what it sent is not the protocol (a frame length that no frame can have (not "
                  "this protocol?))")

    def test_replaced_while_it_runs(self):
        """By a rename: the incumbent keeps its inode, and the next upgrade takes the new one."""
        with self.unharmed(self.s):
            self.s.install("kvd-v2")
        old = self.s.daemon_pid()
        with self.unharmed(self.s, same_daemon=False):
            self.assertEqual(self.s.upgrade().code, 0, self.s.log())
        self.assertNotEqual(self.s.daemon_pid(), old)

    def test_replaced_by_garbage_and_then_a_crash(self):
        """What has served is what is started again, whatever lies at its path by now."""
        before = self.count(self.s)
        Files.make(self.s, "kvd", b"no program")
        self.refused(self.s, code=2, message="%s:2: command: %s: neither an ELF executable nor a "
                     "script with #!; was it copied completely?" % (self.s.conf, self.s.binary))
        pid = self.s.daemon_pid()
        os.kill(pid, 9)
        self.wait_line(self.s, "error: the daemon (pid %d) was killed by signal 9 (KILL): it is "
                       "started again" % pid)
        self.s.wait_status(lambda x: x["state"] == "idle" and x["pid"] != pid, "a new one")
        self.second(self.s)
        self.assert_count(self.s, before)

    def test_removed_and_then_a_crash(self):
        before = self.count(self.s)
        os.unlink(self.s.binary)
        pid = self.s.daemon_pid()
        os.kill(pid, 9)
        self.s.wait_status(lambda x: x["state"] == "idle" and x["pid"] != pid, "a new one")
        self.second(self.s)
        self.assert_count(self.s, before)

    def test_overwritten_in_place(self):
        """The kernel refuses it while it runs (ETXTBSY, open(2))."""
        with self.unharmed(self.s), self.assertRaises(OSError) as e:
            open(self.s.binary, "r+b").close()
        self.assertEqual(e.exception.errno, 26)

    def test_a_script_overwritten_while_it_runs(self):
        """Nothing keeps it (a script is read, not mapped): the old one serves, the new is judged."""
        path = Files.script(self.s, "wrapper", 'exec "%s" "$@"' % harness.program("kvd-v2"))
        self.assertEqual(self.s.upgrade("--binary", path).code, 0, self.s.log())
        with open(path, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\nexit 4\n")
        self.aborted(BEFORE + "it exited with 4", "--binary", path)

    def test_replaced_between_two_attempts(self):
        """A failed one leaves nothing behind that makes the next one fail."""
        for _ in range(3):
            path = Files.script(self.s, "next", "exit 1")
            self.aborted(BEFORE + "it exited with 1", "--binary", path)
            shutil.copy(harness.program("kvd-v2"), path + ".new")
            os.rename(path + ".new", path)
            with self.unharmed(self.s, same_daemon=False):
                self.assertEqual(self.s.upgrade("--binary", path).code, 0, self.s.log())


class ColdStart(Case):
    """Nobody serves: said clearly, tried again with growing pauses, sockets open meanwhile."""

    def failing(self, s, why, since=0, times=3):
        """Until the same thing was said this often; the listening socket takes connections."""
        line = "error: %s; the service is NOT served, a start is tried again in a moment"

        def count():
            return sum(self.same(x, line % why) for x in self.lines(s, since))
        try:
            harness.wait_until(lambda: count() >= times, "failed starts", 20)
        except AssertionError:
            self.assertIn(line % why, self.lines(s, since))
            raise
        waiting = socket.create_connection(("127.0.0.1", s.port), harness.PATIENCE)
        self.addCleanup(waiting.close)
        self.assertEqual(s.status()["state"], "cold")
        self.assertIsNone(s.status()["pid"])
        s.assert_no_zombies()
        return waiting

    @staticmethod
    def same(line, wanted):
        """Equal, but for the number of a process."""
        head, mark, tail = wanted.partition("PID")
        if not mark:
            return line == wanted
        return line.startswith(head) and line.endswith(tail) and \
            line[len(head):len(line) - len(tail)].isdigit()

    def mended(self, s, waiting, before):
        """With a right binary at its path it serves who waits."""
        s.install("kvd")
        s.wait_state("idle")
        waiting.sendall(b"PING\r\n")
        self.assertEqual(waiting.recv(100), b"+PONG\r\n")
        self.second(s)
        self.assert_count(s, before)

    def start(self, data, options=None):
        """A service that served, stopped, and now has this for a binary: and its count."""
        s = self.service(options=options)
        before = self.count(s)
        s.stop()
        s.forget()
        Files.make(s, "kvd", data)
        s.launch()
        return s, before

    def test_unusable(self):
        """Refused at once when handoffd starts: nothing runs yet that could be kept."""
        s = self.service(start=False)
        for path, why in Files.unusable(s).items():
            with self.subTest(os.path.basename(path)):
                s.configure(command=[path])
                s.launch()
                s.ended(2)
                self.wait_line(s, "error: %s:2: command: %s" % (s.conf, why))

    def test_exits_at_once(self):
        for code in (0, 1):
            with self.subTest(code):
                s, before = self.start(b"#!/bin/sh\nexit %d\n" % code)
                waiting = self.failing(s, "the daemon ended before it was ready: pid PID exited "
                                       "with %d" % code)
                self.mended(s, waiting, before)

    def test_vanishes_after_the_check(self):
        s, before = self.start(b"#!/bin/sh\nrm -f $0\nexit 1\n")
        waiting = self.failing(s, "the daemon could not be started: %s: no such file; install "
                               "it, or correct command" % s.binary)
        self.mended(s, waiting, before)

    def test_never_says_hello(self):
        s, before = self.start(b"#!/bin/sh\nexec sleep 1000\n", {"start-timeout": "200ms"})
        waiting = self.failing(s, "the daemon did not finish its start within start-timeout: pid "
                               "PID was killed by signal 9 (KILL)", times=2)
        self.mended(s, waiting, before)

    def test_forks_into_the_background(self):
        """Each child that was left behind ends by itself: none piles up."""
        s = self.service()
        before = self.count(s)
        s.stop()
        s.configure(command=[s.binary, "--data-dir", s.data_dir, "--fault=start:fork"])
        s.launch()
        self.failing(s, "the daemon ended before it was ready: pid PID exited with 0")
        harness.wait_until(lambda: len(s.daemons()) <= 1, "the children are gone")
        self.assertLessEqual(self.count(s), before)

    def puppet_cold(self, act, why):
        s = self.service()
        before = self.count(s)
        s.stop()
        s.forget()
        os.rename(self.puppets(s), s.binary)
        s.launch()
        for _ in range(2):
            since = self.mark(s)
            p = self.puppet()
            act(s, p)
            waiting = self.failing(s, why.replace("DATA", s.data_dir), since, 1)
            p.close()
        # One more may have been started already: then it is told to go.
        s.install("kvd")
        self.listener.setblocking(False)

        def idle():
            try:
                control, _ = self.listener.accept()
                control.close()
            except BlockingIOError:
                pass
            return s.status()["state"] == "idle"
        harness.wait_until(idle, "kvd serves")
        waiting.sendall(b"PING\r\n")
        self.assertEqual(waiting.recv(100), b"+PONG\r\n")
        self.assert_count(s, before)

    def test_closes_its_channel(self):
        self.puppet_cold(lambda s, p: p.drop(), "the daemon ended before it was ready: pid PID "
                         "closed its channel and was killed")

    def test_another_protocol_version(self):
        self.puppet_cold(lambda s, p: p.send(p.hello(s.data_dir, low=7, high=9)),
                         "the daemon ended before it was ready: pid PID was killed by signal 9 "
                         "(KILL): no common protocol version: the daemon speaks 7 to 9, this "
                         "supervisor 1 to 1")

    def test_another_data_directory(self):
        self.puppet_cold(lambda s, p: p.send(p.hello(s.path("bin"))),
                         "the daemon ended before it was ready: pid PID was killed by signal 9 "
                         "(KILL): the daemon opened another directory than data-dir DATA")

    def test_garbage_for_a_hello(self):
        self.puppet_cold(lambda s, p: p.send(b"\xff" * 100),
                         "the daemon ended before it was ready: pid PID was killed by signal 9 "
                         "(KILL): what it sent is not the protocol (a frame length that no frame "
                         "can have (not this protocol?))")

    def test_unhealthy(self):
        s = self.service()
        s.stop()
        s.configure(command=[s.binary, "--data-dir", s.data_dir, "--fault=ready:unhealthy"])
        s.launch()
        self.failing(s, "the daemon says that it is unhealthy: pid PID was killed by signal 9 "
                     "(KILL): --fault=ready:unhealthy", times=2)

    def test_crashes_for_ever_after_it_served(self):
        """The pauses grow; who looks is told why."""
        s = self.service()
        before = self.count(s)
        s.stop()
        s.configure(command=[s.binary, "--data-dir", s.data_dir, "--fault=commit:die"])
        s.launch()
        line = "error: the daemon (pid PID) was killed by signal 9 (KILL): it is started again"
        harness.wait_until(lambda: sum(self.same(x, line) for x in self.lines(s)) >= 3, "crashes")
        self.assertLess(sum(self.same(x, line) for x in self.lines(s)), 10)
        harness.wait_until(lambda: "was killed by signal 9 (KILL)" in str(s.status()), "why")
        self.assertLessEqual(self.count(s), before)


if __name__ == "__main__":
    unittest.main()
