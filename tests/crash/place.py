"""A service below the shim: where a process can be held at a boundary, and what is done there.

A Boundary is a point in the life of a role: "S before send PrepareHandoff", "O after recv Commit",
"S after write Journal(committed)"; nth counts, from when the controller was armed. Roles are S the
supervisor, O who served when the controller was armed, N every daemon that came later, C another
handoffd that S asks whether it can go on, T the handoffctl that has asked for a re-exec.
"""

import collections
import contextlib
import itertools
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "..", "e2e"))

import harness  # noqa: E402
from fakesupervisor import frame  # noqa: E402

SCALE = float(os.environ.get("CRASH_SCALE") or 1)  # of all times, for a loaded machine

# In the order that timers.h demands, and as short as two cores in use allow: in ms, for a deed
# of which the expiry of timers is the point.
TIMERS = {"self-fence": 600, "presumed-dead": 900, "drain-grace": 600, "deadline": 1200,
          "commit-timeout": 600, "exit-timeout": 600, "start-timeout": 2000, "stop-timeout": 2000}
HASTY = SCALE        # times these
PATIENT = 5 * SCALE  # where no timer ought to expire, however slow the machine is
LONG = 2.5           # seconds: longer than every timer
BEAT = 100 * SCALE   # ms, of both

# the tests' own questions, and plan's for the history: as many as there are handoffs by then
IGNORED = {("send", "State"), ("recv", "State"), ("send", "StatusRequest"), ("recv", "StatusRequest"),
           ("send", "HistoryRequest"), ("recv", "HistoryRequest"), ("send", "Handoff"), ("recv", "Handoff")}

_ports = itertools.count(20000)


def quiet_port():
    """One below those that the kernel gives to outgoing connections: while nobody listens on it
    (all are dead) no client of the load takes it."""
    while True:
        port = next(_ports)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))
            return port


def delegated(name):
    """A cgroup that a handoffd may divide, or None where none can be made."""
    for top in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        path = os.path.join(top, name)
        if os.path.exists(top + "/cgroup.procs"):
            with contextlib.suppress(OSError):
                os.mkdir(path)
                os.setxattr(path, "user.delegate", b"1")
                return path
    return None


class Boundary(collections.namedtuple("Boundary", "role when op name nth")):
    def __str__(self):
        return "%s.%s.%s.%s.%d" % self

    @classmethod
    def parse(cls, text):
        role, when, op, name, nth = text.split(".")
        return cls(role, when, op, name, int(nth))


Seen = collections.namedtuple("Seen", "pid boundary alive")  # alive: the roles there at that time


class Held:
    """A thread that stands at its boundary."""

    def __init__(self, conn, seen):
        self.conn = conn
        self.seen = seen

    def go(self, how=b"g"):
        with contextlib.suppress(OSError):  # it may be dead by now
            self.conn.send(how)


class Controller:
    """Hears of every boundary, answers at once, and holds whoever comes to the armed one."""

    def __init__(self, place):
        self.place = place
        self.path = place.path("crash.sock")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._changed = threading.Condition()
        self._stop, self._stopped = os.pipe()
        self.arm(None)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def arm(self, boundary, look=False):
        """From here on counts begin anew; look: note at each boundary who is alive."""
        with self._changed:
            self.trace = []
            self.held = None
            self._armed = boundary
            self._next = None
            self._look = look
            self._counts = collections.Counter()

    def hold_next(self, role, nth, but=None):
        """Holds the nth boundary from here on of a role, the process `but` apart."""
        with self._changed:
            self.held = None
            self._next = [role, nth, but]

    def disarm(self):
        """Nobody is held from here on; who came just now goes on."""
        with self._changed:
            self._armed = self._next = None
            held, self.held = self.held, None
        if held is not None:
            held.go()

    def wait(self, predicate, limit=harness.PATIENCE):
        """Until predicate() is true, asked anew at each boundary; whether it was in time."""
        with self._changed:
            return self._changed.wait_for(predicate, limit)

    def has(self, role, when, op, name, pid=None):
        """How often that was passed, by this process."""
        return sum(1 for x in list(self.trace) if x.boundary[:4] == (role, when, op, name) and
                   pid in (None, x.pid))

    def close(self):
        os.close(self._stopped)
        self._thread.join()
        self._listener.close()

    def _run(self):
        poll = select.poll()
        conns = {}
        for f in (self._listener.fileno(), self._stop):
            poll.register(f, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._stop:
                    for c in conns.values():
                        c.close()
                    os.close(self._stop)
                    return
                if fd == self._listener.fileno():
                    c, _ = self._listener.accept()
                    conns[c.fileno()] = c
                    poll.register(c, select.POLLIN)
                    continue
                text = b""
                with contextlib.suppress(OSError):
                    text = conns[fd].recv(400)
                if text:
                    self._boundary(conns[fd], text.decode().split(" "))
                else:
                    poll.unregister(fd)
                    conns.pop(fd).close()

    def _boundary(self, conn, words):
        program, role, pid, when, op, name = words
        pid = int(pid)
        if role == "asked":
            role, self.place.asked = "C", pid
        else:
            role = "S" if program == "handoffd" else "O" if pid == self.place.incumbent else "N"
        # who copies an executable for handoffd is tied to it as well, and is none of the three
        if (op, name) in IGNORED or (role == "S" and op == "tie"):
            Held(conn, None).go()
            return
        alive = frozenset(self.place.roles()) if self._look else frozenset()
        with self._changed:
            key = (role, when, op, name)
            self._counts[key] += 1
            seen = Seen(pid, Boundary(*key, self._counts[key]), alive)
            self.trace.append(seen)
            hold = seen.boundary == self._armed or self._is_next(seen)
            if hold:
                self._armed = self._next = None
                self.held = Held(conn, seen)
            self._changed.notify_all()
        if not hold:
            Held(conn, None).go()


    def _is_next(self, seen):
        if self._next is None or seen.boundary.role != self._next[0] or seen.pid == self._next[2]:
            return False
        self._next[1] -= 1
        return self._next[1] == 0


class Place(harness.Service):
    """A kvd service whose supervisor and daemons run below the shim."""

    over = threading.Event()  # interrupted: nothing more is started
    dirs = []  # of all that there were

    def __init__(self, pace=PATIENT):
        self.controller = self.group = self.incumbent = self.asked = self.caller = None
        self.log_at = 0
        self.pace = pace
        self.long = LONG * pace
        options = {k: "%dms" % (v * pace) for k, v in TIMERS.items()}
        super().__init__("kvd-v1", options=dict(options, heartbeat="%dms" % BEAT), start=False,
                         listen={"resp": "tcp:127.0.0.1:%d" % quiet_port()})
        self.dirs.append(self.dir)
        self.group = delegated(os.path.basename(self.dir))
        if self.group:
            self.launcher = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', self.group]
        self.controller = Controller(self)
        self.shim = {"LD_PRELOAD": os.path.join(harness.BUILD, "tests", "crash", "shim.so"),
                     "CRASH_SOCKET": self.controller.path}
        if not os.path.exists(self.shim["LD_PRELOAD"]):
            raise FileNotFoundError("%(LD_PRELOAD)s was not built" % self.shim)
        os.mkdir(self.path("other-data"))
        for name in ("kvd-v1", "kvd-v2"):
            os.symlink(harness.program(name), self.path("bin", name))
        self.start()

    def launch(self):
        self._not_over()
        env, self.env = self.env, dict(self.env, **self.shim)
        try:
            super().launch()
        finally:
            self.env = env

    def load(self, *args, **kwargs):
        self._not_over()
        return super().load(*args, **kwargs)

    def _not_over(self):
        if self.over.is_set():
            raise RuntimeError("interrupted")

    def close(self):
        super().close()
        if self.controller is not None:
            self.controller.close()
            self.controller = None
        if self.group:
            with contextlib.suppress(OSError):  # an interrupt may close it twice at once
                for name in self.groups():
                    os.rmdir(os.path.join(self.group, name))
                os.rmdir(self.group)
            self.group = None

    # Who

    def arm(self, boundary, look=False):
        self.incumbent = self.daemon_pid()
        self.asked = self.caller = None
        self.log_at = len(self.log())
        self.controller.arm(boundary, look)

    def new_log(self):
        return self.log()[self.log_at:]

    def story(self):
        """What has happened since then, for a case that failed."""
        trace = "\n".join("%d %s" % x[:2] for x in self.controller.trace
                          if x.boundary.name != "Heartbeat" or x.boundary.nth == 1)
        return "\n".join([trace, self.new_log(), self.sanitizer_reports()])

    def roles(self):
        """{role: pid} of those that live."""
        found = {"S": self.supervisor.pid, "O": self.incumbent, "C": self.asked, "T": self.caller}
        here = session(self.supervisor.pid)  # daemons have sessions of their own, copiers have not
        found.update(("N", p.pid) for p in harness.children(self.supervisor.pid)
                     if p.pid != self.incumbent and p.state != "Z" and session(p.pid) != here)
        return {r: p for r, p in found.items() if p and harness.is_alive(p)}

    def binary_of(self, version, *faults):
        """A program of this version, at a path of its own, that misbehaves in this way the first
        time that it is started: a cold start of it is as good as any."""
        plain = self.path("bin", "kvd-v%s" % version)
        if not faults:
            return plain
        path = "-".join([plain] + ["".join(c if c.isalnum() else "-" for c in f) for f in faults])
        with open(path + ".faults", "w", encoding="utf-8") as f:
            f.write(" ".join(faults))
        if not os.path.exists(path):
            with open(path, "w", encoding="utf-8") as f:
                f.write("#!/bin/sh\nexec %s \"$@\" $(cat %s.faults; : >%s.faults)\n" %
                        (shlex.quote(plain), shlex.quote(path), shlex.quote(path)))
            os.chmod(path, 0o755)
        return path

    def other(self, version):
        return "2" if version == "1" else "1"

    def calm_upgrade(self, version):
        """One that nobody disturbs, with time to spare."""
        return self.upgrade("--binary", self.binary_of(version), "--deadline", "20s",
                            "--drain-grace", "10s")

    def send(self, kind, part=None):
        """An operator's request without a field, and its answer when that comes: a socket. When
        this returns the request, or that part of it, lies in the supervisor's queue."""
        c = socket.socket(socket.AF_UNIX)
        c.settimeout(harness.PATIENCE)
        c.connect(self.path("run", self.name, "control.sock"))
        c.sendall(frame(kind, {})[:part])
        return c

    # What is there

    def info(self):
        """Who answers a fresh client: {"pid", "version"}; None: nobody does."""
        import redis
        with contextlib.suppress(redis.RedisError, OSError):
            with self.client(socket_timeout=5) as c:
                i = c.info()
                c.set("who", i["process_id"])
                return {"pid": i["process_id"], "version": "%.1f" % i["kvd_version"]}
        return None

    def kinds(self):
        """How many descriptors of each kind handoffd has. The daemon's executable is one."""
        names = (x.replace(" (deleted)", "") for x in
                 harness.descriptors(self.supervisor.pid).values())
        return collections.Counter(
            x if x.startswith((self.dir, "/dev/", "anon_inode:")) else x.split(":")[0].split("/")[0]
            for x in names)

    def files(self):
        """Below the runtime and the state directory, copies of executables apart: of those some
        come and go."""
        copies = self.path("state", self.name, "exe")
        return {os.path.join(d, f) for top in ("run", "state")
                for d, _, names in os.walk(self.path(top)) if not d.startswith(copies) for f in names}

    def copies(self):
        """The copies of executables: of the current one, of the previous one, or one under way."""
        return {os.path.join(d, f) for d, _, names in os.walk(self.path("state", self.name, "exe"))
                for f in names}

    def groups(self):
        """The cgroups of generations."""
        return [x.name for x in os.scandir(self.group) if x.is_dir()] if self.group else []

    def kvds(self):
        return [p for p in self.leftovers() if "--data-dir" in p.command]

    def verify_logs(self):
        """kvd's own look at its logs: torn tails, and records of two writers."""
        return subprocess.run([harness.program("kvd-v1"), "--verify", "--data-dir", self.data_dir],
                              env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=harness.PATIENCE, check=False)


def session(pid):
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid)
    return None


def signal_to(pidfd, sig):
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, sig)


def wait_dead(pidfd):
    """SIGKILL has been sent: until the process has ended."""
    if not select.select([pidfd], [], [], harness.PATIENCE)[0]:
        raise AssertionError("a process does not die")


def longer_than_all_timers(p, ended):
    """Or less, if ended() says that nothing more can come."""
    end = time.monotonic() + p.long
    while time.monotonic() < end and not ended():
        time.sleep(0.01)
