"""Resources run out at the successor, at the incumbent, at handoffd; the wall clock jumps; all
processes are suspended. Disks and handoffd's descriptors are in test_bad_state.py, each single
call in tests/fault/."""

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import time

import harness
from badinput import NOBODY, ROOT
from handoffs import PATIENT, HandoffCase

sys.path.append(os.path.join(harness.TOP, "tests", "fault"))
import fault  # noqa: E402  pylint: disable=wrong-import-position

SHIM = os.path.join(harness.BUILD, "tests/fault/shim.so")


def prlimit(pid, *args):
    """As its own user and group: for another's limits a capability is needed, which root may
    lack (prlimit(2))."""
    st = os.stat("/proc/%d" % pid)
    return subprocess.run(["prlimit", "--pid", str(pid), *args], check=True, text=True,
                          stdout=subprocess.PIPE, user=st.st_uid, group=st.st_gid,
                          extra_groups=[] if ROOT else None).stdout


@contextlib.contextmanager
def limited(pid, what, value):
    """Lowers a soft limit of a running process for a while."""
    before = prlimit(pid, "--" + what, "-o", "SOFT", "--noheadings", "--raw").strip()
    prlimit(pid, "--%s=%s:" % (what, value))
    try:
        yield
    finally:
        if harness.is_alive(pid):
            prlimit(pid, "--%s=%s:" % (what, before))


def memory_of(pid):
    """The size of its address space."""
    for line in harness.read_file("/proc/%d/status" % pid).splitlines():
        if line.startswith("VmSize:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("pid %d is gone" % pid)


class Limits(HandoffCase):
    def assert_aborted_until_enough(self, s, option, values):
        """Each value is too low for a successor but the last; the incumbent never changes."""
        pid, aborted = s.daemon_pid(), 0
        for value in values:
            s.configure(**{option: value})
            u = s.upgrade()
            if u.code == 0:
                break
            self.assert_outcome(u, 1, "aborted", value)
            self.assertRegex(u.result["message"], "the successor (ended|died while it opened)|Too many open files")
            self.assertEqual(s.daemon_pid(), pid)
            aborted += 1
        self.assertEqual(u.code, 0, "nothing was enough")
        self.assertGreater(aborted, 2)
        self.assert_serves(s, "1.0")

    def test_successor_without_descriptors(self):
        s = self.kvd()
        self.assert_aborted_until_enough(s, "limit_nofile", ["%d" % n for n in range(3, 60)])

    def test_successor_without_memory(self):
        s = self.kvd()
        mib = [1, 2, 4, 6, 8] + list(range(12, 400, 12))
        self.assert_aborted_until_enough(s, "limit_as", ["%d" % (n << 20) for n in mib])

    def test_incumbent_without_descriptors(self):
        """Sealed, and it has none to open its data again: the lock is no reason to wait (it is
        still open), it ends, and the old binary is started again."""
        s = self.kvd()
        self.use(s, "kvd-v2", "ready:unhealthy")
        pid = s.daemon_pid()
        s.install("kvd-v1")
        harness.wait_until(lambda: "kvd 1.0 serves" in s.log(), "it has made its files")
        with limited(pid, "nofile", 3):
            u = s.upgrade()
        self.assert_outcome(u, 1, "aborted")
        self.assertNotIn("the lock cannot be taken again", s.log())
        self.assert_serves(s, "1.0")
        self.assert_clean_upgrade(s, "kvd-v2")

    def test_supervisor_without_memory(self):
        """However little is left: refused with that reason, or done; never the end of handoffd. A
        daemon would have its limit, and need more than it."""
        s = self.kvd(options={"limit-as": "%d" % (1 << 40)})
        supervisor, said = s.supervisor.pid, set()
        for left in list(range(0, 512, 32)) + list(range(512, 8192, 512)):
            pid = s.daemon_pid()
            with limited(supervisor, "as", memory_of(supervisor) + left * 1024):
                u = s.upgrade()
            self.assertIn(u.code, (0, 1, 3), u.lines)
            if u.code:
                said.add(u.lines[-1]["message"])
                self.assertIn("Cannot allocate memory", u.lines[-1]["message"])
                self.assertEqual(s.daemon_pid(), pid)
        self.assertEqual(u.code, 0, said)
        self.assertTrue(said)
        self.assert_serves(s, "1.0")

    def test_start_without_memory(self):
        """Not 2, which a service manager takes for final."""
        s = self.kvd(start=False)
        for kib in range(2048, 65536, 64):
            s.launcher = ["prlimit", "--as=%d" % (kib * 1024)]
            since = len(s.log())
            s.launch()
            harness.wait_until(lambda: s.supervisor.poll() is not None or   # pylint: disable=cell-var-from-loop
                               "starting the daemon" in s.log()[since:], "how it goes")
            if s.supervisor.poll() is None:
                break
            self.assertNotEqual(s.supervisor.returncode, 2, s.log())
            s.ended(s.supervisor.returncode)
        self.assertRegex(s.log(), r"/kvd\.conf: cannot read (it|the configuration): Cannot allocate memory; "
                                  r"free memory, or raise MemoryMax=\n")
        s.stop()

    def test_start_without_descriptors(self):
        """The same; and once it is up, it tries to start the daemon again and again, and says what to do."""
        s = self.kvd(start=False)
        for n in range(4, 200):
            s.launcher = ["prlimit", "--nofile=%d" % n]
            since = len(s.log())
            s.launch()
            harness.wait_until(lambda: s.supervisor.poll() is not None or   # pylint: disable=cell-var-from-loop
                               re.search(r"is tried again in a moment$|^kvd\[", s.log()[since:], re.M), "how it goes")
            if s.supervisor.poll() is None:
                s.stop()
            else:
                s.ended(1)
            if re.search(r"^kvd\[", s.log(), re.M):
                break
        for what in ("/kvd.conf:2: command: %s: cannot be looked at" % s.binary, "error: cannot make the daemon's channel",
                     "error: cannot start a process"):
            self.assertIn(what + ": Too many open files; raise LimitNOFILE=\n", s.log())

    def test_no_processes_left(self):
        if not ROOT:
            self.skipTest("needs root, to be another user")
        s = self.kvd(start=False)
        for d, _, files in os.walk(s.dir):
            for name in [d] + [os.path.join(d, f) for f in files]:
                os.chown(name, NOBODY, NOBODY)
        with open(s.log_path, "ab") as log:
            s.supervisor = subprocess.Popen(
                [harness.program("handoffd"), "-c", s.conf], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env=s.env, cwd=s.dir, start_new_session=True, user=NOBODY,
                group=NOBODY, extra_groups=[])
        s.wait_state("idle")
        pid = s.daemon_pid()
        with limited(s.supervisor.pid, "nproc", 1):
            u = s.upgrade()
            self.assert_outcome(u, 1, "aborted")
            self.assertIn("the limit of processes is reached; raise TasksMax= or LimitNPROC=",
                          u.result["message"])
            self.assertEqual(s.daemon_pid(), pid)
            os.kill(pid, signal.SIGKILL)
            s.wait_status(lambda x: "limit of processes" in (x["warning"] or "") and
                          "NOT served" in (x["refused"] or ""), "the reason")
        s.wait_state("idle")   # it is tried again and again
        self.assert_clean_upgrade(s, "kvd-v2")

    def test_no_file_may_grow(self):
        """RLIMIT_FSIZE: the journal cannot be written, and SIGXFSZ is not the end."""
        s = self.kvd()
        pid = s.daemon_pid()
        with limited(s.supervisor.pid, "fsize", 0):
            u = s.upgrade()
            self.assert_outcome(u, 1, "aborted")
            self.assertIn("File too large", u.result["message"])
            self.assertEqual(s.daemon_pid(), pid)
            self.assertEqual(s.status()["warning"], "the journal could not be written")
        self.assert_clean_upgrade(s, "kvd-v2")
        self.assertIsNone(s.status()["warning"])

    def committed_from_memory(self):
        """After the commit no record can be written any more: who it says serves, serves."""
        s = self.kvd("exit:hang")
        self.use(s, "kvd-v2")
        u = s.start_upgrade()
        u.wait_phase("exit")
        with limited(s.supervisor.pid, "fsize", 0):
            u.wait()
        self.assert_outcome(u, 0, "committed")
        status = s.status()
        self.assertEqual(status["warning"], "the journal could not be written")
        self.assertEqual((status["last"]["outcome"], status["version"]), ("committed", "2.0"))
        return s

    def test_journal_is_repaired_by_the_next_change(self):
        s = self.committed_from_memory()
        self.assert_clean_upgrade(s, "kvd-v1")
        self.assertIsNone(s.status()["warning"])

    def test_journal_is_repaired_by_the_next_supervisor(self):
        """It finds *committed*, and the one that serves."""
        s = self.committed_from_memory()
        pid = s.daemon_pid()
        s.kill_supervisor()
        s.start()
        self.assert_serves(s, "2.0")
        status = s.status()
        self.assertEqual((status["pid"], status["warning"]), (pid, None))
        self.assertEqual(status["last"]["outcome"], "committed")
        self.assert_clean_upgrade(s, "kvd-v1")


class ReadOnly(HandoffCase):
    """The disk of the journal becomes read-only under its open files, as ext4 makes it when it meets an
    error. (mount(2) does not, while a file is open for writing: what it does is in test_bad_state.py.)"""

    def shimmed(self, *names, **kwargs):
        """A service, and what makes its writes fail from a moment on."""
        s = self.kvd(*names, start=False, **kwargs)
        control = fault.Control(s.path("control"))
        self.addCleanup(control.close)
        s.env.update(LD_PRELOAD=SHIM, FAULT_SHIM=control.path)
        s.start()
        s.wait_status(lambda x: x["binary_kept"] and x["sha256"], "nothing is written any more")
        return s, control

    @staticmethod
    def make_read_only(control):
        control.arm(role=fault.ROLES.index("S"), call=control.names().index("pwrite"), error=errno.EROFS)

    def assert_mends(self, s, control, binary):
        """It is told, and over with the next handoff, when the disk can be written again."""
        self.assertEqual(s.status()["warning"], "the journal could not be written")
        self.assertTrue(control.disarm())
        self.assert_clean_upgrade(s, binary)
        self.assertIsNone(s.status()["warning"])

    def assert_aborted_for_it(self, s, u, pid):
        self.assert_outcome(u, 1, "aborted")
        self.assertIn("the journal could not be written: Read-only file system; the incumbent (pid %d) serves, no client "
                      "met the successor" % pid, u.result["message"])
        self.assertEqual(s.daemon_pid(), pid)
        self.assert_serves(s, "1.0")

    def test_read_only_before_an_upgrade(self):
        s, control = self.shimmed()
        pid = s.daemon_pid()
        self.make_read_only(control)
        self.use(s, "kvd-v2")
        self.assert_aborted_for_it(s, s.upgrade(), pid)
        self.assert_mends(s, control, "kvd-v2")

    def test_read_only_before_the_decision(self):
        """The successor is there, warm, and must not be told to serve."""
        s, control = self.shimmed(options=PATIENT)
        pid = s.daemon_pid()
        self.use(s, "kvd-v2", "warmup:stop")
        u = s.start_upgrade()
        self.await_stop(s, u)
        self.make_read_only(control)
        self.let_go(u)
        u.wait()
        self.assert_aborted_for_it(s, u, pid)
        self.assertIn("ready", u.phases())
        self.assert_mends(s, control, "kvd-v2")

    def test_read_only_after_the_decision(self):
        """It is finished from memory; the old one has only to go."""
        s, control = self.shimmed("exit:stop", options=PATIENT)
        self.use(s, "kvd-v2")
        u = s.start_upgrade()
        self.await_stop(s, u)
        self.make_read_only(control)
        self.let_go(u)
        u.wait()
        self.assert_outcome(u, 0, "committed")
        self.assert_serves(s, "2.0")
        self.assert_mends(s, control, "kvd-v1")


class Signals(HandoffCase):
    def test_one_that_comes_when_all_is_over(self):
        """SIGTERM, SIGINT and SIGHUP, right behind the last turn of the loop: nobody handles them, and
        they change no exit status."""
        s = self.kvd(start=False)
        s.env.update(LD_PRELOAD=SHIM, FAULT_LATE="1")
        s.start()
        self.assertEqual(s.ctl("stop", "kvd").returncode, 0)
        s.ended()


class Time(HandoffCase):
    def test_wall_clock_jumps(self):
        """It is set 16 years forth and back at each look at it, in all processes; nobody decides
        anything by it."""
        s = self.kvd(start=False)
        s.env.update(LD_PRELOAD=SHIM, FAULT_CLOCK="1")
        s.start()
        load = s.load()
        for i in range(10):
            self.upgrade(s, "kvd-v1" if i % 2 else "kvd-v2", old=i)
        self.use(s, "kvd-v2", "ready:unhealthy")
        self.assert_outcome(s.upgrade(), 1, "aborted")
        s.kill_supervisor()
        self.assertLess(s.start(), 5)
        years = {line[:4] for line in s.log().splitlines() if line[4:5] == "-"}
        self.assertGreater(len(years), 1, "the clock did not jump")
        self.assertEqual(s.ctl("status", "kvd").returncode, 0)
        self.use(s, "kvd-v1")
        self.assert_clean_upgrade(s, "kvd-v2")
        self.assert_nothing_failed(load)

    def suspended(self, phase, *names):
        """Everybody stops in this phase, for longer than every timer, and goes on at once."""
        s = self.kvd()
        load = s.load()
        self.use(s, "kvd-v2", *names)
        u = s.start_upgrade()
        u.wait_phase(phase)
        everybody = [p.pid for p in self.daemons(s)] + [s.supervisor.pid]
        for sig in signal.SIGSTOP, signal.SIGCONT:
            for pid in everybody:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sig)
            if sig == signal.SIGSTOP:
                time.sleep(4)   # there is nothing to wait for but time: the longest is 2.5 s
        u.wait()
        self.assertIn(u.code, (0, 1), u.result)
        self.assert_serves(s, "1.0" if u.code else "2.0")
        self.use(s, "kvd-v1")
        self.assert_clean_upgrade(s, "kvd-v2")
        self.assert_nothing_failed(load)

    def test_suspended_in_warm_up(self):
        self.suspended("warm", "hello:delay=300")

    def test_suspended_in_the_pause(self):
        self.suspended("ready", "open:delay=300")

    def test_suspended_after_the_decision(self):
        self.suspended("take", "commit:delay=300")
