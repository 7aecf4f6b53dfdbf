"""What will run is what was asked for, and only if it does not run already: --sha256 and
--if-changed."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import unittest

import harness
from handoffs import PATIENT, faults
from test_kept import GARBAGE, KeptCase, NEW, OLD


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


class PinCase(KeptCase):
    def assert_untouched(self, s, pid):
        """Nothing was begun, and nothing is left of it."""
        self.assertEqual(s.daemon_pid(), pid)
        self.assertIsNone(s.status()["last"])
        self.assertEqual(s.ctl("--json", "history", s.name).stdout, "")

    def numbers(self, s):
        """Of the copies, some of which may be about to go."""
        return os.listdir(s.path("state", s.name, "exe"))

    def copies(self, s):
        """Of what serves and of what did; a moment later nothing else is left."""
        harness.wait_until(lambda: len(self.numbers(s)) <= 2, "litter is removed")
        return self.numbers(s)

    def add_bytes(self, path):
        """The same program with another sum: a new inode, as a deployment makes it."""
        with open(path, "rb") as f:
            data = f.read()
        with open(path + ".new", "wb") as f:
            f.write(data + b"\0")
        os.chmod(path + ".new", 0o755)
        os.rename(path + ".new", path)


    @contextlib.contextmanager
    def held(self, path):
        """Who opens this file for reading is held in open(2), for 45 s at most: fcntl(2), Leases.
        (handoffd itself asks with O_NONBLOCK.)"""
        old = signal.signal(signal.SIGIO, signal.SIG_IGN)
        fd = os.open(path, os.O_RDWR)
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            yield
        finally:
            os.close(fd)
            signal.signal(signal.SIGIO, old)


class Pin(PinCase):
    def test_it_runs_what_was_asked_for(self):
        s = self.kvd()
        s.install(NEW)
        load = s.load()
        u = s.upgrade("--sha256", sha256(s.binary).upper())
        self.assert_outcome(u, 0, "committed")
        self.assert_serves(s, "2.0")
        self.assert_nothing_failed(load)
        status = s.wait_status(lambda x: x["binary_kept"] and x["previous_kept"] and x["sha256"], "copies, and a sum")
        self.assertEqual((status["binary"], status["sha256"]), (s.binary, sha256(s.binary)))
        process = harness.Process(status["pid"])   # named after the file, not after the copy
        self.assertEqual((process.comm, process.command.split()[0]), ("kvd", s.binary))
        exe = os.readlink("/proc/%d/exe" % status["pid"])
        self.assertTrue(exe.startswith(s.path("state", "kvd", "exe")), exe)
        self.assertEqual(sha256("/proc/%d/exe" % status["pid"]), sha256(s.binary))
        self.assertEqual(len(self.copies(s)), 2)

    def test_another_is_refused(self):
        s = self.kvd()
        self.wait_kept(s)
        kept, pid = self.kept(s), s.daemon_pid()
        s.install(NEW)
        wanted = sha256(harness.program(OLD))
        p = s.ctl("upgrade", "kvd", "--sha256", wanted)
        self.assertEqual((p.returncode, p.stdout), (1, ""), p.stderr)
        self.assertEqual(len(p.stderr.splitlines()), 1 + ("pid" in p.stderr.splitlines()[-1]), p.stderr)
        for word in ("refused", wanted, sha256(s.binary), s.binary, "it serves on"):
            self.assertIn(word, p.stderr)
        u = s.upgrade("--sha256", wanted)
        self.assert_outcome(u, 1, "refused")
        self.assertEqual(u.phases(), [])
        self.assert_untouched(s, pid)
        self.assertEqual(self.kept(s), kept)
        self.assert_clean_upgrade(s, NEW)

    def test_exchanged_after_the_check(self):
        """What lies at the path when the successor is started does not matter any more."""
        s = self.kvd(options=PATIENT)
        self.use(s, NEW, "warmup:stop")
        u = s.start_upgrade("--sha256", sha256(s.binary))
        self.await_stop(s, u)
        with open(s.binary, "r+b") as f:   # not even the inode that was read
            f.truncate(0)
            f.write(GARBAGE)
        self.let_go(u)
        u.wait()
        self.assert_outcome(u, 0, "committed", s.log())
        self.assert_serves(s, "2.0")
        self.crash(s)
        s.arguments = []   # the next one is not stopped
        s.configure()
        s.start()
        self.assert_serves(s, "2.0")

    def test_not_a_hash(self):
        s = self.service(start=False)
        for word in ("", "abc", "g" * 64, "a" * 63, "a" * 65):
            p = s.ctl("upgrade", "kvd", "--sha256", word)
            self.assertEqual((p.returncode, p.stdout), (2, ""), word)
            self.assertIn("64 hexadecimal digits", p.stderr)

    def test_a_script(self):
        s = self.kvd()
        script = s.path("bin", "script")
        with open(script, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\nexec %s \"$@\"\n" % harness.program(NEW))
        os.chmod(script, 0o755)
        pid = s.daemon_pid()
        u = s.upgrade("--binary", script, "--sha256", sha256(script))
        self.assert_outcome(u, 1, "refused")
        self.assertIn("is a script", u.result["message"])
        self.assert_untouched(s, pid)

    def test_no_room_for_the_copy(self):
        """No copy, no check: refused, and the plain upgrade is still possible."""
        s = self.kvd()
        self.wait_kept(s)
        pid = s.daemon_pid()
        s.install(NEW)
        exe = s.path("state", "kvd", "exe")
        os.rename(exe, exe + ".away")
        s.kill_supervisor()
        with open(exe, "w", encoding="utf-8"):
            pass                           # a file where the directory should be
        s.start()
        u = s.upgrade("--sha256", sha256(s.binary))
        self.assert_outcome(u, 1, "refused")
        self.assertIn("could not be copied", u.result["message"])
        self.assert_untouched(s, pid)
        self.assert_clean_upgrade(s, NEW)

    def test_aborted(self):
        """Its copy goes, and the next one is not confused."""
        s = self.kvd()
        self.wait_kept(s)
        self.use(s, NEW, "ready:unhealthy")
        u = s.upgrade("--sha256", sha256(s.binary))
        self.assert_outcome(u, 1, "aborted")
        harness.wait_until(lambda: len(self.numbers(s)) == 1, "the copy is removed")
        self.use(s, NEW)
        self.assert_outcome(s.upgrade("--sha256", sha256(s.binary)), 0, "committed")
        self.assert_serves(s, "2.0")
        self.assert_rolled(s, "1.0")

    def test_the_same_again(self):
        """What comes back by a rollback is what ran before, and not the same bytes once more."""
        s = self.kvd()
        self.wait_kept(s)
        self.use(s, NEW)
        for _ in range(2):
            self.assert_outcome(s.upgrade("--sha256", sha256(s.binary)), 0, "committed")
            self.wait_kept(s)
        self.assert_serves(s, "2.0")
        self.assert_rolled(s, "1.0")

    def test_it_takes_too_long(self):
        s = self.kvd()
        self.wait_kept(s)
        pid = s.daemon_pid()
        other = s.path("bin", "other")
        shutil.copy(harness.program(NEW), other)
        with self.held(other):
            u = s.upgrade("--binary", other, "--sha256", sha256(harness.program(NEW)))
            self.assert_outcome(u, 1, "refused")
            self.assertIn("longer than start-timeout", u.result["message"])
        self.assert_untouched(s, pid)
        self.assert_clean_upgrade(s, NEW)

    def test_the_supervisor_dies(self):
        """Before the decision: taken back. After it: what serves is known, and has its copy."""
        for old, new, point, version in (((), ("warmup:stop",), "warmup", "1.0"),
                                         (("exit:stop",), (), "exit", "2.0")):
            with self.subTest(point):
                s = self.kvd(*old, options=PATIENT)
                self.wait_kept(s)
                self.use(s, NEW, *new)
                u = s.start_upgrade("--sha256", sha256(s.binary))
                u.wait_phase("warm" if new else "exit")
                self.await_stop(s, u)
                s.kill_supervisor()
                self.let_go(u)
                self.use(s, OLD)
                s.start()
                u.wait()
                self.assert_serves(s, version)
                self.wait_kept(s)
                self.crash(s)
                os.unlink(s.binary)
                s.start()
                self.assert_serves(s, version)

    def test_while_it_is_looked_at(self):
        """Another upgrade, an abort, the death of the daemon. The loop goes on."""
        s = self.kvd()
        self.wait_kept(s)
        other = s.path("bin", "other")
        shutil.copy(harness.program(NEW), other)
        for end in ("abort", "Ctrl-C", "daemon", "restart", "go on"):
            with self.subTest(end):
                s.wait_copied()
                pid = s.daemon_pid()
                with self.held(other):
                    u = s.start_upgrade("--binary", other, "--sha256",
                                        sha256(harness.program(NEW)))
                    s.wait_status(lambda x: "about to begin" in (x["refused"] or ""), "it is looked at")
                    child = harness.wait_until(s.copying, "the copier")[0]
                    p = s.ctl("upgrade", "kvd")
                    self.assertEqual(p.returncode, 4, p.stderr)
                    self.assertIn("about to begin", s.status()["refused"])
                    if end == "abort":
                        self.assertEqual(s.ctl("abort", "kvd").returncode, 0)
                    elif end == "Ctrl-C":
                        u.process.send_signal(signal.SIGINT)
                    elif end == "daemon":
                        os.kill(pid, signal.SIGKILL)
                    elif end == "restart":
                        self.assertEqual(s.ctl("restart", "kvd").returncode, 0)
                    if end != "go on":
                        u.wait()
                u.wait()
                if end == "go on":
                    self.assert_outcome(u, 0, "committed")
                    continue
                self.assertEqual((u.code, u.result["outcome"]),
                                 (5 if end == "daemon" else 1, "refused"), u.lines)
                s.wait_status(lambda x: x["state"] == "idle" and not x["refused"], "rest")
                harness.wait_until(lambda: not harness.is_alive(child.pid), "the child's end")
        self.assert_serves(s, "2.0")


class IfChanged(PinCase):
    def scripted(self, **kwargs):
        """A service whose command is a script with a file among its arguments; either names the
        version that runs."""
        s = self.service(start=False, **kwargs)
        s.script, s.file = s.path("bin", "script"), s.path("version")
        self.write(s.script, "#!/bin/sh\nexec \"$(cat \"${1#--version=}\")\" --data-dir %s\n" % s.data_dir)
        self.write(s.file, harness.program(OLD))
        s.configure(command=[s.script, "--version=" + s.file])
        return s

    def write(self, path, text):
        with open(path + ".new", "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path + ".new", 0o755)
        os.rename(path + ".new", path)

    def wait_sums(self, s):
        return s.wait_status(lambda x: x["state"] == "idle" and x["sha256"], "what runs is hashed")

    def assert_unchanged(self, s, *args):
        """Nothing to do, and nothing is done."""
        before = self.wait_sums(s)
        u = s.upgrade("--if-changed", *args)
        self.assert_outcome(u, 0, "unchanged", s.log())
        self.assertEqual((u.phases(), u.result["pid"]), ([], before["pid"]))
        after = s.status()
        self.assertEqual((after["pid"], after["last"]), (before["pid"], before["last"]))

    def assert_changed(self, s, version, *args):
        """It is another: then it runs, and is what runs."""
        self.wait_sums(s)
        self.assert_outcome(s.upgrade("--if-changed", *args), 0, "committed", s.log())
        self.assertEqual(self.version(s), version)
        self.assert_unchanged(s)

    def test_the_executable(self):
        s = self.kvd()
        self.assert_unchanged(s)
        s.install(OLD)          # another inode with the same bytes
        self.assert_unchanged(s)
        self.assert_unchanged(s, "--sha256", sha256(s.binary))
        p = s.ctl("upgrade", "kvd", "--if-changed")
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        self.assertRegex(p.stdout, r"\Aunchanged: nothing to do: .*%s" % sha256(s.binary))
        s.install(NEW)
        self.assert_changed(s, "2.0")
        self.assert_rolled(s, "1.0")
        self.wait_sums(s)
        self.assert_changed(s, "2.0")   # what lies at the path is not what runs

    def test_a_file_among_the_arguments(self):
        s = self.scripted()
        s.start()
        self.assert_unchanged(s)
        self.write(s.file, harness.program(OLD))
        self.assert_unchanged(s)
        self.write(s.file, harness.program(NEW))
        self.assert_changed(s, "2.0")
        self.write(s.file, harness.program(OLD))
        self.assert_changed(s, "1.0")
        os.unlink(s.file)       # it cannot start, and that is for the upgrade to say
        self.assertEqual(s.upgrade("--if-changed").result["outcome"], "aborted")

    def test_the_configuration(self):
        """An option of it is a change, too."""
        s = self.kvd()
        self.assert_unchanged(s)
        s.configure(environment=["COLOUR=blue"])
        self.assert_changed(s, "1.0")

    def test_another_pin_is_refused_first(self):
        s = self.kvd()
        self.wait_sums(s)
        u = s.upgrade("--if-changed", "--sha256", "0" * 64)
        self.assert_outcome(u, 1, "refused")

    def test_remembered(self):
        """By a supervisor that adopts, one that starts after a crash, and after a reboot."""
        s = self.scripted()
        s.start()
        self.wait_sums(s)
        for end in (s.kill_supervisor, lambda: self.crash(s), s.stop, lambda: self.reboot(s)):
            end()
            s.start()
            self.assert_unchanged(s)

    def test_changed_while_nobody_looked(self):
        """What runs is what it was started with, whatever lies there when it is adopted."""
        s = self.scripted()
        s.start()
        self.wait_sums(s)
        s.kill_supervisor()
        self.write(s.file, harness.program(NEW))
        s.start()
        self.assert_changed(s, "2.0")
        self.crash(s)
        self.write(s.file, harness.program(OLD))
        s.start()
        self.assertEqual(self.version(s), "1.0")
        self.assert_unchanged(s)

    def test_unknown_is_changed(self):
        """Replaced between its start and its sum: nobody knows any more what it was."""
        s = self.scripted()
        self.write(s.script, "#!/bin/sh\necho >>\"${1#--version=}\"\n"
                   "exec $(cat \"${1#--version=}\") --data-dir %s\n" % s.data_dir)
        s.start()
        s.wait_copied()
        self.assertIsNone(s.status()["sha256"])
        for _ in range(2):
            self.assert_outcome(s.upgrade("--if-changed"), 0, "committed", s.log())

    def test_files_that_cannot_be_hashed(self):
        """A directory, a FIFO, a device among the arguments are no files; a large one is data."""
        s = self.scripted()
        fifo, large = s.path("fifo"), s.path("large")
        os.mkfifo(fifo)
        s.configure(command=[s.script, "--version=" + s.file, fifo, "/dev/null", s.dir, "", "="])
        s.start()
        self.assert_unchanged(s)
        with open(large, "wb") as f:
            f.truncate((1 << 30) + 1)
        s.configure(command=[s.script, "--version=" + s.file, large])
        self.assert_outcome(s.upgrade("--if-changed"), 0, "committed", s.log())
        s.wait_copied()
        self.assert_outcome(s.upgrade("--if-changed"), 0, "committed", s.log())


if __name__ == "__main__":
    unittest.main()
