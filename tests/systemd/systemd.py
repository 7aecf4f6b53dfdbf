"""A service below a real systemd, for the tests in this folder.

How to add a test: put it into a test_*.py here, in a class derived from TestCase below, and
list the file in tests/local.mk (EXTRA_DIST). Run it with

    tests/systemd/run.sh BUILD test_units.Units.test_reload

which boots a systemd in namespaces of its own, with the units that `make install` installs;
all tests share that boot. In a test

    u = self.unit(options={"deadline": "3s"}, dropin={"RestartSec": "2s"})

is a started handoff@NAME with kvd behind it and a NAME of its own; everything of
tests/e2e/harness.py works on it (u.load(), u.client(), u.status(), u.upgrade(), ...), and
u.systemctl(), u.show("MainPID"), u.journal(), u.pid(), u.kill_supervisor() are systemd's side.
At the end of the test it is stopped, and must have left nothing: no process, no cgroup, no
runtime directory. start=False: nothing is started; files=... is written before.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading

import harness
from harness import PATIENCE, wait_until

CGROUPS = "/sys/fs/cgroup"
CONFIGURATIONS = "/etc/handoff"
DROPINS = "/run/systemd/system"


PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000


def trace(request, pid):
    """ptrace(2), without an address or data."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    ptrace.restype = ctypes.c_long
    if ptrace(request, pid, None, None) < 0:
        raise OSError(ctypes.get_errno(), "ptrace %x of %d" % (request, pid))


@contextlib.contextmanager
def hung(pid):
    """A process that does nothing and hears nothing but SIGKILL; what is done below must kill it.

    SIGSTOP would not do: systemd sends SIGCONT after SIGTERM. A tracer's stop holds.
    """
    trace(PTRACE_SEIZE, pid)
    trace(PTRACE_INTERRUPT, pid)
    os.waitpid(pid, WALL)
    # A tracer hears of the end first; the parent does when it has taken note.
    reaper = threading.Thread(target=wait_killed, args=(pid,), daemon=True)
    reaper.start()
    yield pid
    reaper.join(PATIENCE)
    assert not reaper.is_alive(), "pid %d, which hangs, was not killed" % pid


def wait_killed(pid):
    """Until a traced process is dead; what else happens to it leaves it as it is."""
    while not os.WIFSIGNALED(os.waitpid(pid, WALL)[1]):
        pass


def systemctl(*args):
    """CompletedProcess with text; never raises for an exit code."""
    return subprocess.run(["systemctl", "--no-pager", *args], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=PATIENCE * 3, check=False)


class Unit(harness.Service):
    """handoff@NAME. name is the instance; dropin: {setting: value} of [Service]."""

    counter = 0

    def __init__(self, dropin=None, start=True, name=None, **kwargs):
        Unit.counter += 1
        super().__init__(name=name or "kvd-%d.x" % Unit.counter, start=False, **kwargs)
        self.unit = "handoff@%s.service" % self.name
        self.guard = "handoff-guard@%s.service" % self.name
        for name in ("HANDOFF_RUNTIME_DIR", "HANDOFF_STATE_DIR"):
            del self.env[name]
        self.runtime_dir = os.path.join("/run/handoff", self.name)
        self.state_dir = os.path.join("/var/lib/handoff", self.name)
        os.chmod(self.dir, 0o755)
        # What belongs to this test is known by its environment: see harness.marked.
        mark = "%s=%s" % (harness.MARK, self.dir)
        self.dropin({"Environment": mark, **(dropin or {})})
        self.dropin({"Environment": mark}, self.guard)
        os.makedirs(CONFIGURATIONS, exist_ok=True)
        self.conf = os.path.join(CONFIGURATIONS, self.name + ".conf")
        libraries = "LD_LIBRARY_PATH=" + self.env["LD_LIBRARY_PATH"]
        self.options.setdefault("environment", [libraries])
        self.configure()
        if start:
            self.start()

    # systemd's side

    def dropin(self, settings, unit=None):
        """A drop-in for this instance, from the next start on."""
        path = os.path.join(DROPINS, (unit or self.unit) + ".d")
        os.makedirs(path, exist_ok=True)
        with open(os.path.join(path, "test.conf"), "w", encoding="utf-8") as f:
            f.write("[Service]\n" + "".join("%s=%s\n" % x for x in settings.items()))
        systemctl("daemon-reload")

    def systemctl(self, verb, *args):
        return systemctl(verb, *args, self.unit)

    def show(self, name, unit=None):
        """One property of the unit, as text."""
        return systemctl("show", "--value", "-p", name, unit or self.unit).stdout.strip()

    def state(self):
        """active, activating, deactivating, inactive, failed or reloading; with its sub-state."""
        return self.show("ActiveState") + "/" + self.show("SubState")

    def wait_unit(self, *states):
        """Until its ActiveState is one of these."""
        return wait_until(lambda: self.show("ActiveState") in states and self.show("ActiveState"),
                          "%s: %s" % (self.unit, " or ".join(states)))

    def pid(self):
        """The main process; 0: there is none."""
        return int(self.show("MainPID") or 0)

    def cgroup(self):
        return os.path.join(CGROUPS, "system.slice/system-handoff.slice", self.unit)

    def journal(self, unit=None):
        return subprocess.run(["journalctl", "--no-pager", "-o", "short-precise", "-u",
                               unit or self.unit], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              timeout=PATIENCE, check=False).stdout

    def wait_journal(self, text, unit=None):
        """journald comes to it when it pleases."""
        wait_until(lambda: text in self.journal(unit), "%r in the journal" % text)

    def signal_supervisor(self, number):
        """A signal for the main process alone; its pid."""
        pid = self.pid()
        fd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)
        return pid

    @contextlib.contextmanager
    def killed_after(self, seconds):
        """SIGKILL for what is the main process now, then, whatever is done below; if it still is there."""
        fd = os.pidfd_open(self.pid())

        def kill():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        killer = threading.Timer(seconds, kill)
        killer.start()
        try:
            yield
        finally:
            killer.join()
            os.close(fd)

    @staticmethod
    def environment_of(pid):
        text = harness.read_file("/proc/%d/environ" % pid)
        return dict(x.split("=", 1) for x in text.split("\0") if "=" in x)

    # In place of the harness's own supervisor

    def start(self):
        p = self.systemctl("start")
        assert p.returncode == 0, p.stderr + self.logs()

    def kill_supervisor(self):
        """SIGKILL for handoffd; systemd starts another one."""
        return self.signal_supervisor(signal.SIGKILL)

    def stop(self):
        p = self.systemctl("stop")
        assert p.returncode == 0, p.stderr + self.logs()

    def wait_status(self, predicate, what):
        def look():
            status = self.status()
            return status if status is not None and predicate(status) else None
        return wait_until(look, "%s of %s\n%s" % (what, self.unit, self.state()))

    def wait_adopted(self, daemon, before):
        """Until another supervisor than `before` has that daemon registered; its status."""
        wait_until(lambda: self.pid() not in (0, before), "another supervisor")
        return self.wait_status(lambda s: s["pid"] == daemon and s["state"] == "idle",
                                "pid %d registered" % daemon)

    def log(self):
        return self.journal() + self.journal(self.guard)

    def logs(self):
        return super().logs() + "\n--- journal\n" + self.log() + self.systemctl("status").stdout

    # The end

    def what_is_left(self):
        left = ["process %r" % p for p in self.leftovers()]
        left += [d for d in (self.runtime_dir,) if os.path.lexists(d)]
        # Empty ones of units are systemd's own, which removes them when it pleases.
        left += ["cgroup " + d for d, _, _ in os.walk(self.cgroup())
                 if d != self.cgroup() or harness.read_file(os.path.join(d, "cgroup.procs"))]
        if self.show("ActiveState") not in ("inactive", "failed"):
            left.append(self.unit)
        return left

    def assert_nothing_left(self):
        """After a stop, which does not wait for the guard."""
        wait_until(lambda: self.show("ActiveState", self.guard) in ("inactive", "failed"),
                   "the guard's end")
        assert self.show("ActiveState", self.guard) == "inactive", self.logs()
        try:  # a handoffctl may be about to go
            wait_until(lambda: not self.what_is_left(), "nothing is left")
        except AssertionError:
            raise AssertionError("left behind: %s\n%s" % (self.what_is_left(), self.logs())) from None

    def finish(self):
        try:
            for b in self.background:
                b.close()
            self.stop()
            self.assert_nothing_left()
        finally:
            self.close()

    def close(self):
        if self in harness._live:
            # the pass over marked processes is the harness's; first nobody may start one anew
            systemctl("kill", "-s", "KILL", self.unit)
            systemctl("stop", self.unit)
            systemctl("reset-failed", self.unit, self.guard)
        super().close()


class TestCase(harness.TestCase):
    """Tests with units that must leave nothing behind."""

    def unit(self, *args, **kwargs):
        start = kwargs.pop("start", True)
        u = Unit(*args, start=False, **kwargs)
        self.addCleanup(u.finish)
        if start:
            u.start()
        return u
