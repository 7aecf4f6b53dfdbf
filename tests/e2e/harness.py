"""Real processes for the end-to-end tests: a supervised service, load on it, what it leaves.

Everything lives in one temporary directory for each Service, and every process below it
carries that directory's name in its environment (MARK_OF_HANDOFF_TEST), however often it forks
or changes its parent: so what is left behind is found and, at the end, ended. Only processes
found in this way are ever signalled, through a pidfd.

The programs are those of $BUILD_DIR (default: build/ in the source tree).
"""

import atexit
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import queue
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("BUILD_DIR") or os.path.join(TOP, "build"))
PLACES = ("examples/kvload", "examples/kvd", "examples/httpd", "examples", "src/handoffd", "src/handoffctl",
          "tests/e2e", "tests/lib", ".")
MARK = "MARK_OF_HANDOFF_TEST"  # not HANDOFF_...: a supervisor keeps its own from daemons
TRACE_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"  # of the W3C's own example
PATIENCE = 60  # seconds: the machine may be slow; nothing waits this long for nothing

_live = set()
_ports = set()


# --- helpers ---

def program(name):
    """The path of a built program: the executable itself, never libtool's script before it."""
    for place in PLACES:
        for sub in (".libs", "."):
            path = os.path.normpath(os.path.join(BUILD, place, sub, name))
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
    raise FileNotFoundError("%s was not built in %s (BUILD_DIR)" % (name, BUILD))


def wait_until(predicate, what, timeout=PATIENCE):
    """Polls until predicate() is true and returns its value; AssertionError after timeout, with
    what was waited for: a text, or a function that tells what is there instead."""
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            said = what() if callable(what) else what
            raise AssertionError("waited %d s in vain: %s" % (timeout, said))
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def free_port():
    """A TCP port of the loopback interface that nobody has now, and that was not given before: the
    kernel may choose one again that nobody has bound yet."""
    while True:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        if port not in _ports:
            _ports.add(port)
            return port


def environment(mark, **more):
    """The environment of every process below a test."""
    env = dict(os.environ, **{MARK: mark}, **more)
    libraries = [os.path.join(BUILD, ".libs"), env.get("LD_LIBRARY_PATH")]
    env["LD_LIBRARY_PATH"] = ":".join(x for x in libraries if x)
    report = "log_path=%s" % os.path.join(mark, "sanitizer")
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
        env[name] = ":".join(x for x in (env.get(name), report, "print_stacktrace=1") if x)
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "RUNTIME_DIRECTORY",
                 "STATE_DIRECTORY"):
        env.pop(name, None)
    return env


def read_file(path, default=""):
    try:
        with open(path, "rb") as f:
            return f.read().decode(errors="replace")
    except OSError:
        return default


# --- a network of its own ---

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def own_network():
    """This process, and all that it starts, in a new network namespace with its loopback up."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "no network namespace")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000


def bounded():
    """A launcher with the capabilities that the shipped unit leaves to handoffd."""
    unit = read_file(os.path.join(TOP, "src/units/handoff@.service.in"))
    names = re.search(r"^CapabilityBoundingSet=(.*)$", unit, re.M).group(1).split()
    caps = ",".join(["-all"] + [x.lower().replace("cap_", "+", 1) for x in names])
    return ["setpriv", "--bounding-set", caps, "--inh-caps", "-all"]


def own_cgroups():
    """This process, and all that it starts, in a mount namespace where version 2 of the cgroups is."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) or \
            libc.mount(b"none", b"/sys/fs/cgroup", b"cgroup2", 0, None):
        raise OSError(ctypes.get_errno(), "no cgroups of version 2")


def may_have_a_network():
    """Whether own_network() works here: a child tries."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(OSError):
            own_network()
            code = 0
        os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


# --- processes ---

class Process:
    """One line of /proc about a process that carries a mark."""

    def __init__(self, pid):
        stat = read_file("/proc/%d/stat" % pid)
        after = stat[stat.rfind(")") + 2:].split()
        self.pid = pid
        self.comm = stat[stat.find("(") + 1:stat.rfind(")")]
        self.state = after[0] if after else "gone"
        self.parent = int(after[1]) if after else 0
        self.command = read_file("/proc/%d/cmdline" % pid).replace("\0", " ").strip()

    def __repr__(self):
        return "%d %s (%s, child of %d): %s" % (self.pid, self.comm, self.state, self.parent,
                                                self.command)


def has_mark(pid, mark):
    wanted = ("%s=%s" % (MARK, mark)).encode()
    try:
        with open("/proc/%d/environ" % pid, "rb") as f:
            return wanted in f.read().split(b"\0")
    except OSError:
        return False


def marked(mark):
    """Every process whose environment has the mark. (A zombie has none: see zombies.)"""
    pids = [int(x) for x in os.listdir("/proc") if x.isdigit()]
    return [Process(p) for p in pids if p != os.getpid() and has_mark(p, mark)]


def children(pid):
    """The children of all threads of pid, zombies too."""
    pids = []
    with contextlib.suppress(OSError):
        for task in os.listdir("/proc/%d/task" % pid):
            text = read_file("/proc/%d/task/%s/children" % (pid, task))
            pids += [int(x) for x in text.split()]
    return [Process(p) for p in pids]


def zombies(pid):
    return [p for p in children(pid) if p.state == "Z"]


def kill_marked(mark):
    """SIGKILL for every process with the mark, until none is left."""
    def none_left():
        for p in marked(mark):
            # The pidfd pins the process; then look again whether it still is the one.
            with contextlib.suppress(OSError):
                fd = os.pidfd_open(p.pid)
                try:
                    if has_mark(p.pid, mark):
                        signal.pidfd_send_signal(fd, signal.SIGKILL)
                finally:
                    os.close(fd)
        return not marked(mark)
    wait_until(none_left, "the test's processes end after SIGKILL")


def descriptors(pid):
    """The open descriptors of a process: {number: what it is}."""
    found = {}
    for n in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(OSError):
            found[int(n)] = os.readlink("/proc/%d/fd/%s" % (pid, n))
    return found


def is_alive(pid):
    """A process whose first thread is a zombie lives, and has all its files, until the others end."""
    state = Process(pid).state
    if state == "Z":
        with contextlib.suppress(OSError):
            return len(os.listdir("/proc/%d/task" % pid)) > 1
    return state not in ("gone", "Z", "X")


class JsonProcess:
    """A program that prints a JSON object a line; they are read while it runs."""

    def __init__(self, argv, env, errors):
        self.errors_path = errors
        with open(errors, "ab") as err:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, stderr=err, env=env,
                                            text=True, start_new_session=True)
        self.lines = []
        self._queue = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            try:
                self._queue.put(json.loads(line))
            except ValueError:
                self._queue.put({"event": "not JSON", "line": line})
        self._queue.put(None)

    def next(self, timeout=PATIENCE):
        """The next line; None at the end."""
        try:
            line = self._queue.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError("no line of JSON in %d s\n%s" % (timeout, self.errors())) from None
        if line is None:
            self._queue.put(None)
            return None
        self.lines.append(line)
        return line

    def wait_line(self, predicate, what):
        """Reads on until a line fits; AssertionError if the program ends before."""
        while True:
            line = self.next()
            if line is None:
                raise AssertionError("ended before %s: %s\n%s" % (what, self.lines[-3:],
                                                                  self.errors()))
            if predicate(line):
                return line

    def end(self, timeout=PATIENCE):
        """Reads to the end and returns the exit code."""
        while self.next(timeout) is not None:
            pass
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        self.process.stdout.close()
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(AssertionError, ValueError):
            self.end()

    def errors(self):
        return read_file(self.errors_path)


class Upgrade(JsonProcess):
    """A running `handoffctl --json upgrade`. wait() gives its outcome."""

    def wait_phase(self, phase):
        """Until the handoff has reached this phase: warm, drain, seal, ready, take, exit."""
        return self.wait_line(lambda x: x.get("event") == "phase" and x.get("phase") == phase,
                              "phase " + phase)

    def wait(self):
        """Until it has ended; the result, also in self.result, its code in self.code."""
        self.code = self.end()
        self.result = next((x for x in reversed(self.lines) if "outcome" in x), None)
        return self.result

    def phases(self):
        return [x["phase"] for x in self.lines if x.get("event") == "phase"]


# --- a service ---

class Service:
    """A service with its supervisor, in a temporary directory of its own.

    binary    the daemon's program; it is copied to self.binary, where install() replaces it
    arguments of the daemon, behind --data-dir
    listen    {name: address}; default: resp on a free loopback port
    options   more lines of the configuration, e.g. {"deadline": "3s"}
    text      a function of the Service that returns the whole configuration instead
    """

    def __init__(self, binary="kvd", arguments=(), listen=None, options=None, text=None,
                 name="kvd", start=True):
        self.dir = tempfile.mkdtemp(prefix="handoff-test-")
        self.name = name
        self.env = environment(self.dir, HANDOFF_RUNTIME_DIR=self.path("run"),
                               HANDOFF_STATE_DIR=self.path("state"))
        self.data_dir = self.path("data")
        self.conf = self.path(name + ".conf")
        self.log_path = self.path("handoffd.log")
        self.supervisor = None
        self.awaited = None  # the supervisor whose end a test has looked at
        self.launcher = []  # a command that ends in an exec of what follows it
        self.flags = []     # more options of handoffd
        self.background = []
        _live.add(self)
        for d in ("run", "state", "data", "bin"):
            os.mkdir(self.path(d))
        self.port = free_port()
        self.binary = self.path("bin", name)
        self.install(binary)
        self.arguments = list(arguments)
        self.listen = listen or {"resp": "tcp:127.0.0.1:%d" % self.port}
        self.options = dict(options or {})
        self.text = text
        self.configure()
        if start:
            self.start()

    def path(self, *names):
        return os.path.join(self.dir, *names)

    # Files

    def install(self, binary):
        """Puts a program where the configuration's command is: a new inode, then a rename."""
        source = binary if os.path.isabs(binary) else program(binary)
        shutil.copy(source, self.binary + ".new")
        os.rename(self.binary + ".new", self.binary)

    def forget(self):
        """What has served here is not known any more, as on a new machine: the next start takes
        what lies at the path."""
        os.remove(self.path("state", self.name, "current"))

    def lose_journal(self, path=None):
        """Nobody is named any more, by the lock's record neither. path: another way to the runtime
        directory, so that the environment of the daemon does not say that it is of this service."""
        os.remove(self.path("run", self.name, "journal"))
        os.truncate(os.path.join(self.data_dir, ".handoff.lock"), 0)
        if path:
            os.symlink("run", self.path(path))
            self.env["HANDOFF_RUNTIME_DIR"] = self.path(path)

    def configure(self, **options):
        """Writes the configuration; options change it (drain_grace="1s"), None removes one."""
        for key, value in options.items():
            self.options[key.replace("_", "-")] = value
        text = self.text(self) if self.text is not None else self._configuration()
        with open(self.conf, "w", encoding="utf-8") as f:
            f.write(text)

    def _configuration(self):
        command = [self.binary, "--data-dir", self.data_dir] + self.arguments
        options = {"command": command, "data-dir": self.data_dir, **self.options}
        lines = ["service %s {" % self.name]
        lines += ["    %s = %s" % (k, self._value(v)) for k, v in options.items() if v is not None]
        lines += ["    listen %s { address = %s }" % (k, self._value(v))
                  for k, v in self.listen.items()]
        return "\n".join(lines + ["}", ""])

    @classmethod
    def _value(cls, v):
        if isinstance(v, bool):
            return "true" if v else "false"
        if isinstance(v, (list, tuple)):
            return "{" + ", ".join(cls._value(x) for x in v) + "}"
        if isinstance(v, int):
            return str(v)
        return '"%s"' % str(v).replace("\\", "\\\\").replace('"', '\\"')

    # The supervisor

    def launch(self):
        """Starts handoffd and does not wait."""
        assert self.supervisor is None or self.supervisor.poll() is not None, "it runs already"
        self.assert_no_end_of_its_own()
        with open(self.log_path, "ab") as log:
            self.supervisor = subprocess.Popen(
                self.launcher + [program("handoffd"), "-c", self.conf] + self.flags,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, cwd=self.dir,
                start_new_session=True)

    def start(self):
        """Starts handoffd; returns how many seconds it took until the service was there and
        registered (the adoption of a running daemon, too)."""
        begin = time.monotonic()
        self.launch()
        self.wait_state("idle")
        return time.monotonic() - begin

    def ended(self, code=0):
        """Awaits the end of handoffd, which must have this exit code; the exit code."""
        try:
            found = self.supervisor.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError("handoffd did not stop in %d s\n%s" %
                                 (PATIENCE, self.log())) from None
        if found != code:
            raise AssertionError("handoffd ended with %d, not %d\n%s" % (found, code, self.log()))
        self.awaited = self.supervisor
        return found

    def assert_no_end_of_its_own(self):
        """A handoffd that is dead was killed, or a test has awaited its end."""
        code = self.supervisor.poll() if self.supervisor is not None else None
        if code not in (None, -signal.SIGKILL) and self.awaited is not self.supervisor:
            raise AssertionError("handoffd ended with %d, and no test awaited it\n%s" %
                                 (code, self.log()))

    def kill_supervisor(self):
        """SIGKILL; the daemon stays. Nobody has handoffd's sockets any more: a child that it had just
        forked does, until it ends as well, a moment later."""
        self.supervisor.kill()
        self.ended(-signal.SIGKILL)
        wait_until(lambda: not self.is_listening(), "nobody listens at control.sock")

    def is_listening(self):
        """Somebody has control.sock."""
        with socket.socket(socket.AF_UNIX) as c:
            c.setblocking(False)
            # EAGAIN, for a queue that is full, says so, too
            return c.connect_ex(self.path("run", self.name, "control.sock")) in (0, errno.EAGAIN)

    def stop(self):
        """SIGTERM for handoffd: it ends the daemon, then itself, with 0. The exit code."""
        self.supervisor.terminate()
        return self.ended()

    def log(self):
        return read_file(self.log_path)

    def copying(self):
        """The children with which handoffd copies an executable; in a moment there are none."""
        return [p for p in children(self.supervisor.pid)
                if p.comm == "handoffd-copy" or p.command.startswith(program("handoffd"))]

    def wait_copied(self):
        wait_until(lambda: not self.copying(), "the copies are made")

    # The command line

    def ctl(self, *args, **kwargs):
        """Runs `handoffctl ARGS`: CompletedProcess with text."""
        return subprocess.run([program("handoffctl"), *args], env=self.env, cwd=self.dir,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=PATIENCE * 2,
                              check=False, **kwargs)

    def status(self):
        """`status` as a dictionary; None without a supervisor."""
        p = self.ctl("--json", "status", self.name)
        return json.loads(p.stdout) if p.returncode == 0 else None

    def wait_status(self, predicate, what):
        """Until predicate(status) is true; ends at once when handoffd has exited."""
        def look():
            status = self.status()
            if status is not None and predicate(status):
                return status
            code = self.supervisor.poll()
            if code is not None:
                raise AssertionError("handoffd exited with %d before %s\n%s" %
                                     (code, what, self.log()))
            return None
        return wait_until(look, what)

    def wait_state(self, state):
        return self.wait_status(lambda s: s["state"] == state, "state " + state)

    def start_upgrade(self, *args):
        """Begins an upgrade: an Upgrade, whose phases come while it runs."""
        u = Upgrade([program("handoffctl"), "--json", "upgrade", self.name, *args], self.env,
                    self.path("upgrade.%d.err" % len(self.background)))
        self.background.append(u)
        return u

    def upgrade(self, *args):
        """An upgrade from beginning to end: an Upgrade with code, result and lines."""
        u = self.start_upgrade(*args)
        u.wait()
        return u

    # The daemon

    def daemon_pid(self):
        """The incumbent as the supervisor knows it."""
        return self.wait_status(lambda s: s["pid"], "a daemon's pid")["pid"]

    def daemons(self):
        """Every process of the service's program, also when no supervisor is there."""
        return [p for p in marked(self.dir) if p.command.split(" ")[0] == self.binary]

    def client(self, listener="resp", **kwargs):
        """A redis.Redis on a listener; its reads wait for a stalled service."""
        import redis  # python3-redis: only what needs it
        kwargs.setdefault("socket_timeout", PATIENCE)
        address = self.listen[listener]
        if address.startswith("unix:"):
            return redis.Redis(unix_socket_path=address[len("unix:"):], **kwargs)
        return redis.Redis(host="127.0.0.1", port=int(address.rsplit(":", 1)[1]), **kwargs)

    def target(self, listener="resp"):
        """A listener's address for kvload."""
        address = self.listen[listener]
        return address[len("tcp:"):] if address.startswith("tcp:") else address

    def load(self, *args, listener="resp"):
        """Starts load on the service: a Load that is under way."""
        one = Load(self.target(listener), self.env,
                   self.path("load.%d" % len(self.background)), *args)
        self.background.append(one)
        return one

    # The end

    def leftovers(self):
        return marked(self.dir)

    def assert_nothing_left(self):
        """No process of this service lives, except for one that is just about to go."""
        try:
            wait_until(lambda: not self.leftovers(), "no process is left")
        except AssertionError:
            raise AssertionError("left behind:\n%s\n%s" % (
                "\n".join(map(repr, self.leftovers())), self.log())) from None

    def assert_no_zombies(self):
        """handoffd has waited for each of its children, or is about to: for the one that copies
        an executable too, which is of no handoff and ends when it is done."""
        wait_until(lambda: not zombies(self.supervisor.pid),
                   lambda: "no zombie is left: %s\n%s" % (zombies(self.supervisor.pid), self.log()))

    def sanitizer_reports(self):
        """What the sanitizers have said in any process of the service."""
        names = sorted(x for x in os.listdir(self.dir) if x.startswith("sanitizer"))
        return "\n".join(read_file(self.path(x)) for x in names)

    def logs(self):
        """All there is to read about it, for a test that failed."""
        parts = []
        for x in sorted(os.listdir(self.dir)):
            if x.endswith((".log", ".err", ".conf")) or x.startswith("sanitizer"):
                parts.append("--- %s\n%s" % (x, read_file(self.path(x))))
        return "\n".join(parts)

    def finish(self):
        """Stops in the ordinary way, and that nothing is left is a part of every test."""
        if self not in _live:
            return
        try:
            for b in self.background:
                b.close()
            if self.supervisor is not None and self.supervisor.poll() is None:
                self.stop()
            self.assert_no_end_of_its_own()
            self.assert_nothing_left()
            if self.sanitizer_reports():
                raise AssertionError(self.sanitizer_reports())
        finally:
            self.close()

    def close(self):
        """Ends everything by force; no complaint. Takes what is closed already."""
        if self not in _live:
            return
        _live.discard(self)
        for b in self.background:
            b.close()
        if self.supervisor is not None and self.supervisor.poll() is None:
            self.supervisor.kill()
            self.supervisor.wait(PATIENCE)
        kill_marked(self.dir)
        if not os.environ.get("HANDOFF_TEST_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)


class Load(JsonProcess):
    """kvload in the background: it is sending when the constructor returns."""

    def __init__(self, target, env, base, *args):
        self.target = target
        self.env = env
        self.state = base + ".state"
        self.result = None
        self.code = None
        super().__init__([program("kvload"), "--target", target, "--json", "--state", self.state,
                          "--report-every", "0.1", *args], env, base + ".err")
        # Also: from its first line on a SIGUSR1 is caught.
        self.wait_line(lambda x: x["ok"] > 0, "the first reply")

    def stats(self):
        """The counts now; "window" is what happened since the last call."""
        self.process.send_signal(signal.SIGUSR1)
        return self.wait_line(lambda x: x["event"] == "stats", "stats")

    def wait_ok(self, more):
        """Until that many more requests have been answered."""
        goal = self.stats()["ok"] + more
        self.wait_line(lambda x: x["ok"] >= goal, "%d more replies" % more)

    def stop(self):
        """Ends the load and returns its result; see kvload --help."""
        if self.result is None:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
            self.code = self.end()
            self.result = next(x for x in reversed(self.lines) if x["event"] == "result")
        return self.result

    def verify(self):
        """Reads everything back that was acknowledged, also after a restart of everything:
        the result with its "verify"."""
        p = subprocess.run([program("kvload"), "verify", "--state", self.state, "--target",
                            self.target, "--json"], env=self.env, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, timeout=PATIENCE * 2, check=False)
        if not p.stdout:
            raise AssertionError("kvload verify: " + p.stderr)
        return json.loads(p.stdout.splitlines()[-1])


class TestCase(unittest.TestCase):
    """A test with services that must leave nothing behind."""

    maxDiff = None

    def service(self, *args, **kwargs):
        """A Service; it is stopped, and must be gone, when the test ends."""
        start = kwargs.pop("start", True)
        s = Service(*args, start=False, **kwargs)
        self.addCleanup(s.finish)
        if start:
            s.start()
        return s

    def assert_nothing_failed(self, load):
        """Stops the load: no failed request, no lost write, and all is still there."""
        r = load.stop()
        bad = {k: r[k] for k in ("failed", "lost_writes", "wrong_values") if r[k]}
        self.assertEqual(bad, {}, "%s\n%s" % (r, load.errors()))
        verify = load.verify()["verify"]
        self.assertEqual((verify["lost"], verify["wrong"], verify["error"]), (0, 0, None),
                         load.errors())
        return r


# --- never leave anything behind ---

def close_all():
    for s in list(_live):
        s.close()


def live():
    """The services that are not closed: whose logs belong to a failure."""
    return list(_live)


def _interrupted(_signum, _frame):
    # The one exception that unittest does not take for a failed test. On the way out
    # atexit closes everything.
    raise KeyboardInterrupt


def install_handlers():
    """SIGINT and SIGTERM end the program in order."""
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, _interrupted)


atexit.register(close_all)
