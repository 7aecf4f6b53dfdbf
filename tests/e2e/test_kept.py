"""The right bytes: copies of executables serve a crash, a reboot and a rollback, whatever lies at
the path by then."""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import uuid

import harness
from badinput import looks_at_others, mount_namespaces
from handoffs import HandoffCase, faults

sys.path.append(os.path.join(harness.TOP, "tests", "fault"))
import fault  # noqa: E402  pylint: disable=wrong-import-position

NEW, OLD = "kvd-v2", "kvd-v1"
GARBAGE = b"\x7fELF, cut off in the middle"
# The first page of memory is there and cannot be read: so neither can the record of the executables.
UNREAD = ["unshare", "-m", "sh", "-c", 'mount --bind /proc/$$/mem state/kvd/current && exec "$@"', "sh"]


class KeptCase(HandoffCase):
    def kept(self, s):
        """The copies, by their numbers."""
        directory = s.path("state", s.name, "exe")
        return {n: os.listdir(os.path.join(directory, n)) for n in os.listdir(directory)}

    def wait_kept(self, s):
        """Until there is a copy of what serves and of the previous one."""
        return s.wait_status(lambda x: x["state"] == "idle" and x["binary_kept"] and
                             x["previous_kept"] is not False, "copies")

    def crash(self, s):
        """The supervisor and the daemon die together."""
        pid = s.daemon_pid()
        s.supervisor.send_signal(signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        s.kill_supervisor()
        harness.wait_until(lambda: not harness.is_alive(pid), "the daemon's end")

    def reboot(self, s):
        """No process and no runtime directory is left, and the kernel has another boot id."""
        self.crash(s)
        shutil.rmtree(s.path("run", s.name))
        with open(s.path("boot_id"), "w", encoding="ascii") as f:
            f.write("%s\n" % uuid.uuid4())
        s.launcher = ["unshare", "-m", "sh", "-c", "mount --bind %s /proc/sys/kernel/random/boot_id "
                      "&& exec \"$@\"" % s.path("boot_id"), "sh"]

    def rollback(self, s, *args):
        p = s.ctl("--json", "rollback", s.name, *args)
        return p.returncode, p.stdout + p.stderr

    def assert_rolled(self, s, version):
        self.assertEqual(self.rollback(s)[0], 0, s.log())
        self.assert_serves(s, version)


def replaced(path):
    """Another whole file by a rename."""
    shutil.copy(harness.program(NEW), path + ".new")
    os.rename(path + ".new", path)


def opened(path):
    """None as long as somebody runs it: a process is a zombie before its last thread has ended."""
    try:
        return open(path, "r+b")
    except OSError as e:
        if e.errno != errno.ETXTBSY:
            raise
        return None


def overwritten(path):
    """Its inode stays, and its bytes go. Nobody may run it meanwhile."""
    with harness.wait_until(lambda: opened(path), "nobody runs it") as f:
        f.truncate(0)
        f.write(GARBAGE)


def removed(path):
    os.unlink(path)


def half_copied(path):
    with open(path + ".new", "wb") as f:
        f.write(GARBAGE)
    os.chmod(path + ".new", 0o755)
    os.rename(path + ".new", path)


FATES = (replaced, overwritten, removed, half_copied)


class Crash(KeptCase):
    def test_both_die(self):
        """A copy of what has served is started, under its own name, and it may die again."""
        for fate in FATES:
            with self.subTest(fate.__name__):
                s = self.kvd()
                with s.client() as c:
                    c.set("a", "1")
                self.wait_kept(s)
                self.crash(s)
                fate(s.binary)
                s.start()
                self.assert_serves(s, "1.0")
                process = harness.Process(s.daemon_pid())
                self.assertEqual(process.comm, "kvd")
                self.assertEqual(process.command.split()[0], s.binary)
                with s.client() as c:
                    self.assertEqual(c.get("a"), b"1")
                os.kill(process.pid, signal.SIGKILL)
                s.wait_status(lambda x: x["state"] == "idle" and x["pid"] != process.pid, "a start")
                self.assert_serves(s, "1.0")
                self.assertTrue(s.status()["binary_changed"])
                self.assert_clean_upgrade(s, NEW)
                self.assertFalse(s.status()["binary_changed"])

    def test_only_the_daemon_dies(self):
        for fate in (replaced, removed, half_copied):
            with self.subTest(fate.__name__):
                s = self.kvd()
                fate(s.binary)
                pid = s.daemon_pid()
                os.kill(pid, signal.SIGKILL)
                s.wait_status(lambda x: x["state"] == "idle" and x["pid"] != pid, "a start")
                self.assert_serves(s, "1.0")

    @unittest.skipUnless(mount_namespaces(), "needs root and mount namespaces")
    def test_after_a_reboot(self):
        for fate in FATES:
            with self.subTest(fate.__name__):
                s = self.kvd()
                self.assert_clean_upgrade(s, NEW)
                self.assert_clean_upgrade(s, OLD)
                self.wait_kept(s)
                self.reboot(s)
                fate(s.binary)
                s.start()
                self.assert_serves(s, "1.0")
                self.assert_rolled(s, "2.0")

    def test_a_start_that_is_asked_for(self):
        """After a stop, and at a restart, what lies at the path is meant."""
        s = self.kvd()
        self.wait_kept(s)
        self.assertEqual(s.stop(), 0)
        replaced(s.binary)
        s.start()
        self.assert_serves(s, "2.0")
        s.install(OLD)
        self.assertEqual(s.ctl("restart", s.name).returncode, 0)
        self.assert_serves(s, "1.0")
        half_copied(s.binary)
        pid = s.daemon_pid()
        self.assertEqual(s.ctl("restart", s.name).returncode, 2)
        self.assertEqual(s.daemon_pid(), pid)
        self.wait_kept(s)
        self.assertEqual(s.stop(), 0)
        s.start()   # nobody can have meant that
        self.assert_serves(s, "1.0")

    def test_a_link_to_the_release(self):
        """A path through a link to a directory stays one: a restart takes the release that it leads to
        by then, a crash the one that has served."""
        s = self.kvd()
        path = s.path("rel/current/kvd")
        for number, program in ("1", NEW), ("2", OLD):
            os.makedirs(s.path("rel", number))
            shutil.copy(harness.program(program), s.path("rel", number, "kvd"))
        os.symlink("1", s.path("rel/current"))
        self.assert_outcome(s.upgrade("--binary", path), 0, "committed")
        self.assertEqual(s.status()["binary"], path)
        self.wait_kept(s)
        os.symlink("2", s.path("rel/next"))
        os.rename(s.path("rel/next"), s.path("rel/current"))
        daemon = s.daemon_pid()
        s.kill_supervisor()
        s.start()
        self.assertEqual((s.daemon_pid(), s.status()["binary"]), (daemon, path))
        self.crash(s)
        s.start()
        self.assert_serves(s, "2.0")
        self.assertEqual(s.ctl("restart", s.name).returncode, 0)
        self.assert_serves(s, "1.0")
        self.assertEqual(s.status()["binary"], path)

    def test_a_lost_journal(self):
        """What --binary named is not forgotten with it."""
        s = self.kvd()
        self.assertEqual(s.upgrade("--binary", harness.program(NEW)).code, 0)
        pid = s.daemon_pid()
        s.kill_supervisor()
        os.remove(s.path("run", s.name, "journal"))
        s.start()
        self.assertEqual(s.daemon_pid(), pid)
        self.assertEqual(s.status()["binary"], harness.program(NEW))
        self.crash(s)
        s.start()
        self.assert_serves(s, "2.0")

    def test_without_a_copy_it_is_waited_for(self):
        """A script has none; a half-edited one is no reason to end the service."""
        s = self.service(start=False)
        script = s.path("bin", "script")

        def write(text):
            with open(script, "w", encoding="utf-8") as f:
                f.write(text)
            os.chmod(script, 0o755)
        good = "#!/bin/sh\nexec %s --data-dir %s\n" % (harness.program(OLD), s.data_dir)
        write(good)
        s.configure(command=[script])
        s.start()
        self.assertIs(s.status()["binary_kept"], False)
        self.assertEqual(self.kept(s), {})
        self.crash(s)
        os.unlink(script)
        s.launch()
        s.wait_status(lambda x: "no such file" in (x["warning"] or ""), "a reason")
        write(good)
        s.wait_state("idle")
        self.assertEqual(self.version(s), "1.0")

    @unittest.skipUnless(looks_at_others(), "needs root with CAP_SYS_PTRACE")
    def test_a_daemon_of_another_user(self):
        """Its executable is known again after an adoption, with the capabilities of the unit too."""
        s = self.service("kvd-v1", start=False, options={"user": "nobody"})
        s.launcher = harness.bounded()
        os.chmod(s.dir, 0o755)
        shutil.chown(s.data_dir, "nobody")
        s.start()
        self.wait_kept(s)
        s.kill_supervisor()
        shutil.rmtree(s.path("state", s.name, "exe"))
        s.forget()
        replaced(s.binary)
        s.start()
        self.wait_kept(s)   # from the process: nothing else has these bytes any more
        self.crash(s)
        s.start()
        self.assert_serves(s, "1.0")
        self.assertEqual(harness.Process(s.daemon_pid()).comm, "kvd")


class Rollback(KeptCase):
    def test_there_and_back(self):
        for fate in (None, overwritten, removed, half_copied):
            with self.subTest(fate.__name__ if fate else "kept"):
                s = self.kvd()
                self.upgrade(s, NEW)
                status = self.wait_kept(s)
                self.assertEqual((status["previous"], status["previous_kept"]), (s.binary, True))
                if fate and fate is not overwritten:
                    fate(s.binary)
                load = s.load()
                self.assert_rolled(s, "1.0")
                if fate is overwritten:   # 2.0 does not run now
                    fate(s.binary)
                self.assert_rolled(s, "2.0")
                self.assert_rolled(s, "1.0")
                self.assert_nothing_failed(load)
                self.assertEqual(len(self.kept(s)), 2)

    @unittest.skipUnless(mount_namespaces(), "needs root and mount namespaces")
    def test_it_holds(self):
        """Over a restart, a stop and a reboot; until the next upgrade."""
        s = self.kvd()
        self.upgrade(s, NEW)
        self.assert_rolled(s, "1.0")
        self.assertEqual(s.ctl("restart", s.name).returncode, 0)   # there may be no copy yet
        self.assert_serves(s, "1.0")
        self.wait_kept(s)
        self.assertEqual(s.ctl("restart", s.name).returncode, 0)
        self.assert_serves(s, "1.0")
        self.assertEqual(s.stop(), 0)
        s.start()
        self.assert_serves(s, "1.0")
        self.reboot(s)
        s.start()
        self.assert_serves(s, "1.0")
        self.assertEqual(s.upgrade().code, 0)
        self.assert_serves(s, "2.0")
        self.assertEqual(s.ctl("restart", s.name).returncode, 0)
        self.assert_serves(s, "2.0")

    def test_from_another_path(self):
        """Back from --binary to the configured command."""
        s = self.kvd()
        self.assertEqual(s.upgrade("--binary", harness.program(NEW)).code, 0)
        self.wait_kept(s)
        self.assert_rolled(s, "1.0")
        self.assertEqual(s.status()["binary"], s.binary)
        self.assert_rolled(s, "2.0")
        self.assertEqual(s.status()["binary"], harness.program(NEW))

    def test_at_once(self):
        """Before its copy is made the previous file is still open."""
        s = self.kvd()
        for _ in range(3):
            self.upgrade(s, NEW)
            self.assertEqual(self.rollback(s)[0], 0, s.log())
            self.assert_serves(s, "1.0")

    def test_refused(self):
        s = self.kvd()
        pid = s.daemon_pid()
        self.assertIsNone(s.status()["previous"])
        code, text = self.rollback(s)
        self.assertEqual(code, 1, text)
        self.assertIn("there is no previous executable", text)
        self.wait_kept(s)
        self.upgrade(s, NEW)
        status = self.wait_kept(s)
        harness.wait_until(lambda: not any(x.endswith("(deleted)") for x in
                                           harness.descriptors(s.supervisor.pid).values()),
                           "the previous file is not held open any more")
        for n in self.kept(s):   # somebody makes room: the copies are gone
            shutil.rmtree(s.path("state", s.name, "exe", n))
        code, text = self.rollback(s)
        self.assertEqual(code, 1, text)
        self.assertIn("has been replaced or removed, and there is no copy of it", text)
        self.assertEqual(s.daemon_pid(), status["pid"])
        self.assertNotEqual(pid, status["pid"])
        self.assert_serves(s, "2.0")

    def test_exit_codes(self):
        """It is a handoff like any other."""
        s = self.kvd()
        self.upgrade(s, NEW)
        s.arguments = faults("ready:unhealthy")
        s.configure()
        code, text = self.rollback(s)
        self.assertEqual(code, 1, text)
        self.assertIn("aborted", text)
        self.assert_serves(s, "2.0")
        s.arguments = faults("warmup:hang")
        s.configure()
        under_way = s.start_upgrade()
        under_way.wait_phase("warm")
        code, text = self.rollback(s)
        self.assertEqual(code, 4, text)
        under_way.wait()
        s.configure(deadline="soon")
        code, text = self.rollback(s)
        self.assertEqual(code, 2, text)
        s.arguments = []
        s.configure(deadline=None)
        self.assert_rolled(s, "1.0")

    def loop(self, instead):
        """v1, and then what commits as a successor, and as a first daemon does not serve."""
        s = self.kvd(options={"start-timeout": "60s"})
        self.wait_kept(s)
        with open(s.binary + ".new", "w", encoding="ascii") as f:
            f.write('#!/bin/sh\n[ "$HANDOFF_ROLE" != first ] || %s\nexec %s "$@"\n'
                    % (instead, harness.program(NEW)))
        os.chmod(s.binary + ".new", 0o755)
        os.rename(s.binary + ".new", s.binary)
        self.assert_outcome(s.upgrade(), 0, "committed")
        os.kill(s.daemon_pid(), signal.SIGKILL)
        return s

    def assert_back(self, s):
        """It serves, and goes on to, until somebody upgrades."""
        code, text = self.rollback(s)
        self.assertEqual(code, 0, text + s.log())
        self.assertIn("restarted", text)
        self.assert_serves(s, "1.0")
        pid = s.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        s.wait_status(lambda x: x["state"] == "idle" and x["pid"] != pid, "a start after a crash")
        self.assert_serves(s, "1.0")
        s.install(NEW)
        self.assert_outcome(s.upgrade(), 0, "committed")
        self.assert_serves(s, "2.0")
        self.assert_rolled(s, "1.0")

    def test_while_nobody_serves(self):
        """What has committed crashes at each start: there is nobody who could hand over."""
        s = self.loop("exit 3")
        s.wait_status(lambda x: x["state"] == "cold" and x["warning"], "a start that has failed")
        self.assert_back(s)

    def test_while_a_start_hangs(self):
        s = self.loop("{ echo it hangs; exec sleep 1000; }")
        harness.wait_until(lambda: "it hangs" in s.log(), "a start that hangs")
        self.assert_back(s)

    def test_refused_while_nobody_serves(self):
        s = self.service("kvd-v1", arguments=["--no-such-option"], start=False)
        s.launch()
        s.wait_status(lambda x: x["warning"], "a start that has failed")
        code, text = self.rollback(s)
        self.assertEqual(code, 5, text)
        self.assertIn("there is no previous executable", text)

    def test_the_supervisor_dies(self):
        """In each phase: it ends as an upgrade would, and the next one works."""
        s = self.kvd()
        self.upgrade(s, NEW)
        version = "2.0"
        for phase in ("starting", "warm", "drain", "seal", "ready", "commit", "take", "exit"):
            with self.subTest(phase):
                self.wait_kept(s)
                u = harness.Upgrade([harness.program("handoffctl"), "--json", "rollback", s.name],
                                    s.env, s.path("rollback.err"))
                s.background.append(u)
                u.wait_phase(phase)
                s.kill_supervisor()
                s.start()
                u.wait()
                self.assertIn((u.code, u.result["outcome"]),
                              [(0, "committed"), (1, "aborted"), (1, "rolled back")], s.log())
                if u.code == 0:
                    version = "1.0" if version == "2.0" else "2.0"
                self.assert_serves(s, version)
        self.wait_kept(s)
        self.assert_rolled(s, "1.0" if version == "2.0" else "2.0")


class Copies(KeptCase):
    def test_what_is_there(self):
        s = self.kvd()
        self.wait_kept(s)
        directory = s.path("state", s.name, "exe")
        self.assertEqual(os.stat(directory).st_mode & 0o7777, 0o700)
        self.assertEqual(list(self.kept(s).values()), [["kvd"]])
        for _ in range(2):
            self.upgrade(s, NEW)
            self.wait_kept(s)
            self.upgrade(s, OLD)
            self.wait_kept(s)
        self.assertEqual(list(self.kept(s).values()), [["kvd"], ["kvd"]])
        for n, names in self.kept(s).items():
            path = os.path.join(directory, n, names[0])
            with open(path, "rb") as f, open(harness.program(NEW), "rb") as new, \
                 open(harness.program(OLD), "rb") as old:
                self.assertIn(f.read(), (new.read(), old.read()))

    def test_leftovers(self):
        """A copy that was not finished, and one that nobody names, are removed."""
        s = self.kvd()
        self.wait_kept(s)
        before = self.kept(s)
        self.assertEqual(s.stop(), 0)
        for n in ("77", "rubbish"):
            os.mkdir(s.path("state", s.name, "exe", n))
            overwritten_path = s.path("state", s.name, "exe", n, "kvd")
            with open(overwritten_path, "wb") as f:
                f.write(GARBAGE)
        s.start()
        self.assertEqual(self.kept(s), before)

    def two(self, **env):
        """A service with two copies; the words of a start that cannot read which they are."""
        s = self.kvd(start=False)
        s.env.update(env)
        s.start()
        self.wait_kept(s)
        self.upgrade(s, NEW)
        self.wait_kept(s)
        path = s.path("state", "kvd", "current")
        return s, "error: %s cannot be read: Input/output error; it stays as it is" % path

    @unittest.skipUnless(mount_namespaces(), "needs root and mount namespaces")
    def test_a_record_that_cannot_be_read(self):
        """... is not an empty one: the copies stay for the supervisor that can."""
        s, words = self.two()
        kept = self.kept(s)
        self.crash(s)
        s.launcher = UNREAD
        s.start()
        self.assertIn(words, s.log())
        self.upgrade(s, OLD)
        s.wait_copied()
        self.assertEqual(self.kept(s), kept)
        self.assertEqual(s.status()["warning"], s.path("state/kvd/current") + ": Input/output error")
        why = s.path("state/kvd/current") + " cannot be read: Input/output error"
        self.assertIn("/handoffd: %s; handoffd " % why, s.ctl("reexec", s.name).stderr)
        u = s.upgrade("--sha256", "0" * 64)
        self.assertEqual((u.code, u.result["message"]), (
            1, "%s could not be copied and checked for --sha256: %s; the daemon was not asked, it serves on" %
            (s.binary, why)))
        s.kill_supervisor()
        s.launcher = []
        s.start()
        self.wait_kept(s)
        self.assertIsNone(s.status()["warning"])
        s.install("kvload")
        self.assert_rolled(s, "2.0")

    @unittest.skipUnless(mount_namespaces(), "needs root and mount namespaces")
    def test_a_record_that_cannot_be_read_and_no_file(self):
        """That is no mistake of the configuration: there are copies, and the next supervisor finds them."""
        s, words = self.two()
        self.crash(s)
        shutil.rmtree(s.path("run", s.name))   # as after a reboot
        os.unlink(s.binary)
        s.launcher = UNREAD
        s.launch()
        s.ended(1)
        self.assertIn(words, s.log())
        s.launcher = []
        s.start()
        self.assert_serves(s, "2.0")

    def faulty(self):
        """As two(), and what makes the next read of the record fail."""
        directory = tempfile.mkdtemp(prefix="handoff-test-")
        self.addCleanup(shutil.rmtree, directory)
        control = fault.Control(os.path.join(directory, "control"))
        self.addCleanup(control.close)

        def fail():
            control.arm(0, fault.ROLES.index("S"), control.names().index("pread"), 1, errno.EIO)
        return *self.two(LD_PRELOAD=fault.SHIM, FAULT_SHIM=control.path), control, fail

    def test_a_record_that_can_be_read_by_then(self):
        """Before another handoffd goes on it is read once more."""
        s, words, control, fail = self.faulty()
        kept, pid = self.kept(s), s.daemon_pid()
        s.configure(presumed_dead="60s")   # that the daemon serves is not recorded without it
        os.kill(pid, signal.SIGSTOP)
        s.kill_supervisor()
        fail()
        s.launch()
        s.wait_status(lambda x: x["state"] != "idle", "it answers: all else has been read")
        self.assertIn(words, s.log())
        fail()
        os.kill(pid, signal.SIGCONT)
        s.wait_state("idle")
        self.assertTrue(control.disarm())
        self.assertEqual(s.status()["warning"], s.path("state/kvd/current") + ": Input/output error")
        p = s.ctl("reexec", s.name)
        self.assertEqual(p.returncode, 0, p.stderr)
        s.wait_state("idle")
        self.assertEqual((self.kept(s), s.daemon_pid(), s.status()["warning"]), (kept, pid, None))
        self.assert_rolled(s, "1.0")

    def test_a_record_that_cannot_be_read_at_first(self):
        """It is read again before something is recorded."""
        s, words, control, fail = self.faulty()
        for ends in (s.kill_supervisor, lambda: self.crash(s)):
            kept, since = self.kept(s), len(s.log())
            ends()
            fail()
            s.start()
            self.assertTrue(control.disarm())
            self.assertIn(words, s.log()[since:])
            self.wait_kept(s)
            self.assertEqual(self.kept(s), kept)
            self.assertIsNone(s.status()["warning"])
        s.install("kvload")
        self.assert_rolled(s, "1.0")

    def test_a_torn_copy_is_not_run(self):
        """Then the path counts, and it is said."""
        s = self.kvd()
        self.wait_kept(s)
        (n, names), = self.kept(s).items()
        os.truncate(s.path("state", s.name, "exe", n, names[0]), 1000)
        self.crash(s)
        replaced(s.binary)
        s.start()
        self.assert_serves(s, "2.0")
        self.assertIn("the kept copy of %s is lost" % s.binary, s.log())

    def slow(self, s):
        """The child that copies, stopped in its work. A large file, copied again and again until
        it is met."""
        def met():
            for p in harness.children(s.supervisor.pid):
                if p.comm != "handoffd-copy":
                    continue
                with contextlib.suppress(ProcessLookupError):   # it has just ended
                    os.kill(p.pid, signal.SIGSTOP)
                state = harness.wait_until(
                    lambda: next((x for x in harness.Process(p.pid).state if x in "TtZg"), None),
                    "it is stopped, or has gone")
                if state in "Tt":
                    return p.pid
            status = s.status()
            if status and status["state"] == "idle" and status["binary_kept"]:
                self.use_large(s)
                self.assertEqual(s.upgrade().code, 0)
            return None
        self.wait_kept(s)
        self.use_large(s)
        self.assertEqual(s.upgrade().code, 0)
        return harness.wait_until(met, "the copying child")

    @staticmethod
    def use_large(s):
        s.install(NEW)
        os.truncate(s.binary, 192 << 20)

    def test_the_child_dies_with_its_supervisor(self):
        """Also after it has read the file with the rights of the daemon's user."""
        s = self.service("kvd-v1", start=False, options={"user": "nobody"})
        os.chmod(s.dir, 0o755)
        shutil.chown(s.data_dir, "nobody")
        s.start()
        child = self.slow(s)
        s.kill_supervisor()
        harness.wait_until(lambda: not harness.is_alive(child), "its end")
        s.start()
        self.wait_kept(s)
        self.assertLessEqual(len(self.kept(s)), 2)

    def test_a_restart_does_not_lose_it(self):
        """Of the previous executable it is made when there is time: its file stays open."""
        s = self.kvd()
        child = self.slow(s)
        code, text = self.rollback(s)
        self.assertEqual(code, 0, text)
        self.assertEqual(s.ctl("restart", s.name).returncode, 0)
        harness.wait_until(lambda: not harness.is_alive(child), "its end")
        self.wait_kept(s)

    def test_a_handoff_does_not_wait_for_it(self):
        s = self.kvd()
        child = self.slow(s)
        self.upgrade(s, OLD)
        harness.wait_until(lambda: not harness.is_alive(child), "its end")
        self.wait_kept(s)
        self.assert_serves(s, "1.0")
        self.assert_rolled(s, "2.0")

    @unittest.skipUnless(mount_namespaces(), "needs root and mount namespaces")
    def test_a_full_disk(self):
        """It costs a handoff nothing, it is said, and made up for when there is room."""
        s = self.kvd()
        self.wait_kept(s)
        exe = s.path("state", s.name, "exe")
        self.assertEqual(s.stop(), 0)
        s.launcher = ["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=64k none %s && "
                      "exec \"$@\"" % exe, "sh"]
        s.start()
        self.assertIn("No space left", s.wait_status(lambda x: x["warning"], "it is said")["warning"])
        self.upgrade(s, NEW)
        self.assert_serves(s, "2.0")
        s.wait_status(lambda x: x["warning"], "it is said again")
        inside = "/proc/%d/root%s" % (s.supervisor.pid, exe)
        subprocess.run(["nsenter", "-m", "-t", str(s.supervisor.pid), "mount", "-o",
                        "remount,size=64m", exe], check=True)
        self.wait_kept(s)
        self.assertIsNone(s.status()["warning"])
        self.assertEqual([os.listdir(os.path.join(inside, n)) for n in os.listdir(inside)],
                         [["kvd"], ["kvd"]])
        self.assert_rolled(s, "1.0")


class Configuration(KeptCase):
    """The file is broken when a supervisor is started again."""

    def broken(self, s):
        with open(s.conf, "w", encoding="utf-8") as f:
            f.write("service kvd {\n    command = {\"/usr/bin/kv")

    def assert_used(self, s):
        warning = s.wait_state("idle")["warning"]
        self.assertIn(s.conf, warning)
        self.assertIn("; the configuration that was in use is used, and an upgrade reads the file again", warning)
        self.assertIn("; the configuration that was in use is used; mend that, 'handoffctl upgrade' reads the file again",
                      s.log())

    def mended(self, s):
        self.assertEqual(s.upgrade().code, 2)
        s.configure()
        self.assertEqual(s.upgrade().code, 0)
        self.assertIsNone(s.status()["warning"])

    def test_a_living_daemon_is_adopted(self):
        for breaks in (self.broken, lambda s: os.unlink(s.conf)):
            s = self.kvd()
            pid = s.daemon_pid()
            s.kill_supervisor()
            breaks(s)
            s.start()
            self.assertEqual(s.daemon_pid(), pid)
            self.assert_used(s)
            s.kill_supervisor()   # once more: it is still kept
            s.start()
            self.assertEqual(s.daemon_pid(), pid)
            self.assert_used(s)
            self.mended(s)

    def test_both_die(self):
        s = self.kvd()
        self.wait_kept(s)
        self.crash(s)
        self.broken(s)
        s.start()
        self.assert_serves(s, "1.0")
        self.assert_used(s)
        self.mended(s)

    def test_the_last_one_counts(self):
        """That of the last upgrade that committed; not one that was refused or aborted."""
        s = self.kvd()
        s.configure(deadline="1777ms")
        self.assertEqual(s.upgrade().code, 0)
        s.arguments = faults("ready:unhealthy")
        s.configure(deadline="1888ms")
        self.assertEqual(s.upgrade().code, 1)
        s.kill_supervisor()
        self.broken(s)
        s.start()
        self.assertEqual(s.status()["timers"]["deadline"], 1777)
        s.arguments = []
        s.configure(deadline="1999ms")
        self.assertEqual(s.ctl("restart", s.name).returncode, 0)
        self.assertIsNone(s.status()["warning"])
        s.kill_supervisor()
        self.broken(s)
        s.start()
        self.assertEqual(s.status()["timers"]["deadline"], 1999)

    def test_below_systemd(self):
        """Which says the directory itself."""
        s = self.service("kvd-v1", start=False)
        for d in ("run", "state"):
            os.mkdir(s.path(d, s.name))
        s.launcher = ["env", "-u", "HANDOFF_RUNTIME_DIR", "-u", "HANDOFF_STATE_DIR",
                      "RUNTIME_DIRECTORY=" + s.path("run", s.name),
                      "STATE_DIRECTORY=" + s.path("state", s.name)]
        s.start()
        pid = s.daemon_pid()
        s.kill_supervisor()
        self.broken(s)
        s.start()
        self.assertEqual(s.daemon_pid(), pid)
        self.assert_used(s)

    def test_that_one_is_broken_too(self):
        """1 is not final for systemd: the daemon goes on, and is adopted when it is mended."""
        s = self.kvd()
        pid = s.daemon_pid()
        s.kill_supervisor()
        self.broken(s)
        with open(s.path("run", s.name, "config"), "r+b") as f:
            f.truncate(len(s.conf) + 1 + 20)
        s.launch()
        s.ended(1)
        self.assertIn("cannot be used either", s.log())
        self.assertEqual(self.version(s), "1.0")
        s.configure()
        s.start()
        self.assertEqual(s.daemon_pid(), pid)

    def test_after_a_stop(self):
        """Nothing is kept: whoever starts it has to hear of the mistake."""
        s = self.kvd()
        self.assertEqual(s.stop(), 0)
        self.broken(s)
        s.launch()
        s.ended(2)
        self.assertFalse(os.path.exists(s.path("run", s.name, "config")))


if __name__ == "__main__":
    unittest.main()
