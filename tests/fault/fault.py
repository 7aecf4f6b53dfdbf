#!/usr/bin/python3
"""Fails each system call and each allocation of whole processes in turn, in each scenario.

usage: fault.py [-j N] [-n CASES] [-s SECONDS] [--seed N] [--slice K/N] [--list] [--sabotage]
                [SCENARIO[:ROLE[:CALL]]|CASE]...
    A dry run of each scenario counts the calls of each role; then each is failed with each
    error it can have. CASE is what a failure prints, e.g. upgrade:S:sendmsg:3:EPIPE.
    -n, -s       a random choice: so many cases, or as many as fit into SECONDS; --seed makes
                 it again, whichever cases others come and go
    --slice K/N  every Nth case, from the Kth on
    --list       only the counts
    --sabotage   the test's own test: it must find what is done behind its back
Roles: S handoffd, C its child before the exec and a handoffd that is asked whether it can go on,
O the incumbent's library, N a successor's, T handoffctl. $BUILD_DIR says where the programs are.
"""

import argparse
import contextlib
import errno
import hashlib
import json
import mmap
import multiprocessing
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(os.path.dirname(HERE), "e2e"))

import harness  # noqa: E402
from fakesupervisor import frame  # noqa: E402
from moving import Wire, command  # noqa: E402

SHIM = os.path.join(harness.BUILD, "tests/fault/shim.so")
ROLES = ["", "S", "C", "O", "N", "T"]
CUT, TRUNCATED = 10000, 10001
SPECIAL = {"CUT": CUT, "TRUNCATED": TRUNCATED}
BOUND = 60  # seconds in which somebody serves again: many times the sum of all timers

# What each call can come to on Linux. What is not here cannot fail, or not for what we ask of
# it (a signal to our own child, an epoll_ctl that takes away).
MEMORY = "ENOMEM"
FILES = "EMFILE ENFILE ENOMEM"
ERRORS = {
    "read": "EINTR EAGAIN EIO CUT", "write": "EINTR EAGAIN EIO ENOSPC EPIPE CUT",
    "pread": "EINTR EIO CUT", "pwrite": "EINTR EIO ENOSPC EDQUOT EFBIG CUT",
    "open": "EINTR EACCES EIO EROFS ENOSPC " + FILES,
    "openat": "EINTR EACCES EIO EROFS ENOSPC " + FILES,
    "close": "EINTR EIO", "fcntl": "EMFILE", "dup2": "EINTR EMFILE", "close_range": "EMFILE ENOMEM",
    "ftruncate": "EINTR EIO", "fallocate": "EINTR EIO ENOSPC EOPNOTSUPP", "fdatasync": "EIO ENOSPC",
    "fstat": "EIO ENOMEM", "stat": "EIO EACCES ENOMEM", "lstat": "EIO EACCES ENOMEM",
    "fstatat": "EIO EACCES ENOMEM", "faccessat": "EIO ENOMEM", "fstatfs": "EINTR EIO ENOMEM",
    "fgetxattr": "EIO ENOTSUP ENOMEM", "readlink": "EIO EACCES ENOMEM",
    "realpath": "EIO EACCES ENOMEM", "opendir": "EACCES " + FILES, "fdopendir": MEMORY,
    "mkdir": "EIO ENOSPC EROFS EMLINK ENOMEM", "mkdirat": "EIO ENOSPC EROFS ENOMEM", "unlink": "EIO EROFS EACCES",
    "unlinkat": "EIO EROFS EACCES", "chmod": "EIO EROFS EPERM", "fchmod": "EIO EPERM",
    "fchown": "EIO EPERM", "lchown": "EIO EPERM", "rename": "EIO ENOSPC EROFS",
    "flock": "EINTR ENOLCK", "socket": "ENOBUFS " + FILES, "socketpair": FILES,
    "bind": "EADDRINUSE ENOMEM", "listen": "EADDRINUSE", "connect": "EINTR EAGAIN ECONNREFUSED",
    "accept4": "EINTR EAGAIN ECONNABORTED ENOBUFS " + FILES,
    "sendmsg": "EINTR EAGAIN EPIPE ECONNRESET ENOBUFS ENOMEM ETOOMANYREFS CUT",
    "recvmsg": "EINTR EAGAIN ECONNRESET ENOMEM TRUNCATED CUT",
    "shutdown": "ENOTCONN", "setsockopt": "ENOMEM", "getsockopt": "ENOBUFS", "getsockname": "ENOBUFS",
    "pidfd_signal": "", "pipe2": "EMFILE ENFILE", "fork": "EAGAIN ENOMEM", "pidfd_open": FILES,
    "waitid": "EINTR", "waitpid": "EINTR", "epoll_create1": FILES, "epoll_ctl": "ENOMEM ENOSPC",
    "epoll_wait": "EINTR", "setpriority": "EACCES EPERM", "open_memstream": MEMORY,
    "timerfd_create": FILES, "eventfd": FILES, "memfd_create": FILES, "poll": "EINTR ENOMEM", "unshare": "ENOMEM EPERM",
    "chdir": "EIO EACCES ENOMEM", "fchdir": "EIO EACCES", "setrlimit": "EPERM",
    "setgroups": "ENOMEM EPERM", "setresgid": "EAGAIN", "setresuid": "EAGAIN",
    "execveat": "EIO EACCES ENOMEM ENOENT E2BIG EAGAIN", "pthread_create": "EAGAIN",
    "malloc": MEMORY, "calloc": MEMORY, "realloc": MEMORY, "strdup": MEMORY, "strndup": MEMORY,
    "asprintf": MEMORY,
}

# With these a start does not end as if the configuration were wrong.
PASSING = "EAGAIN EDQUOT EIO EMFILE ENFILE ENOBUFS ENOMEM ENOSPC".split()

TIMERS = {"start-timeout": "2s", "drain-grace": "500ms", "deadline": "1500ms",
          "commit-timeout": "700ms", "exit-timeout": "700ms", "heartbeat": "200ms",
          "self-fence": "600ms", "presumed-dead": "900ms", "stop-timeout": "1s"}


class Wrong(Exception):
    """What must not be."""


class Control:
    """The file that all shims map: struct control of shim.c."""

    HEAD = struct.Struct("<IiIIIiII")
    MEMORY = struct.Struct("<I" + 64 * "ii")
    COUNTS = HEAD.size + MEMORY.size

    def __init__(self, path):
        self.path = path
        with open(path, "wb") as f:
            f.truncate(16384)
        self.file = open(path, "r+b")
        self.map = mmap.mmap(self.file.fileno(), 0)
        self.calls = []

    def close(self):
        self.map.close()
        self.file.close()

    def arm(self, o_pid=0, role=0, call=0, nth=0, error=0):
        """From here on calls are counted, and one is failed; nth 0: each of them."""
        n = self.ncalls()
        self.map[self.COUNTS:self.COUNTS + 4 * len(ROLES) * n] = bytes(4 * len(ROLES) * n)
        at = self.COUNTS + (4 * len(ROLES) + 16) * n
        self.map[at:at + 512] = bytes(512)
        self.map[0:self.HEAD.size] = self.HEAD.pack(0, o_pid, role, call, nth, error, 0, n)
        self.map[0:4] = b"\1\0\0\0"

    def disarm(self):
        """Returns whether the fault struck."""
        self.map[0:4] = bytes(4)
        return self.HEAD.unpack(self.map[0:self.HEAD.size])[6] > 0

    def ncalls(self):
        return self.HEAD.unpack(self.map[0:self.HEAD.size])[7]

    def names(self):
        n = self.ncalls()
        at = self.COUNTS + 4 * len(ROLES) * n
        return [self.map[at + 16 * i:at + 16 * i + 16].rstrip(b"\0").decode() for i in range(n)]

    def counts(self):
        """{(role, call): how often} since arm()."""
        n = self.ncalls()
        c = struct.unpack_from("<%dI" % (len(ROLES) * n), self.map, self.COUNTS)
        return {(ROLES[r], name): c[r * n + i] for r in range(1, len(ROLES))
                for i, name in enumerate(self.names()) if c[r * n + i]}

    def blocks(self, pid):
        """How many blocks of memory this process has not freed."""
        m = self.MEMORY.unpack_from(self.map, self.HEAD.size)[1:]
        return next((m[i + 1] for i in range(0, len(m), 2) if m[i] == pid), None)

    def where(self):
        at = self.COUNTS + (4 * len(ROLES) + 16) * self.ncalls()
        return self.map[at:at + 512].split(b"\0")[0].decode(errors="replace")


def kind(what):
    """A descriptor, without what differs from one life to the next."""
    return re.sub(r":\[\d+\]$", "", what).replace(" (deleted)", "")


class Kept:
    """A client that stays. It has always sent one request in part: what O has read of it moves."""

    def __init__(self, s, key, size):
        self.wire, self.key, self.count, self.rest = Wire(s), key, None, b""
        self.pad = b"x" * size
        self.begin()

    def begin(self):
        """The first part of a request: an ECHO if it is to be large, else an INCR."""
        incr = command("incr", self.key)
        text = command("echo", self.pad) + incr if self.pad else incr
        at = len(text) - (len(incr) if self.pad else 0) - 5
        self.wire.send(text[:at])
        self.rest = text[at:]

    def go_on(self):
        """Sends the rest; the replies must be the next ones. EOFError, OSError: it has ended."""
        self.wire.send(self.rest)
        if self.pad and self.wire.reply() != self.pad:
            raise Wrong("a wrong reply over a connection that stays")
        n = self.wire.reply()
        if self.count is not None and n != self.count + 1:
            raise Wrong("over a connection that stays came %r after %d" % (n, self.count))
        self.count = n
        self.begin()

    def again(self, s):
        """Another connection; what was not sent whole over the one before was not done."""
        self.wire.close()
        self.wire = Wire(s)
        self.begin()


class Stage:
    """A service below the shims, in which one case follows the other."""

    def __init__(self, timers=None):
        s = self.s = harness.Service("kvd", options=timers or TIMERS, start=False)
        self.ctl = Control(s.path("control"))
        s.env.update(LD_PRELOAD=SHIM, FAULT_SHIM=self.ctl.path)
        self.value = 0
        self.codes = {}
        self.said = ""  # by handoffctl
        self.begin()

    def close(self):
        self.s.close()
        self.ctl.close()

    def begin(self):
        """Running, and as it will be after each case."""
        self.s.start()
        self.s.upgrade()
        self.kept = [Kept(self.s, "small", 0), Kept(self.s, "large", 100000)]
        self.s.upgrade()
        self.served()
        self.connected(False)
        self.s.wait_status(lambda x: x["binary_kept"] and x["sha256"], "it is copied and hashed")
        self.s.wait_copied()
        self.alone()
        # the connection of who asked last may not be closed yet: not more than it is now
        pid = self.idle()["pid"]
        self.supervisor = self.s.supervisor.pid
        self.before = self.holdings(pid)
        with contextlib.suppress(AssertionError):
            harness.wait_until(lambda: self.fewer(self.holdings(pid)), "", 0.3)

    def fewer(self, now):
        """Keeps the smaller of what was held before and what is held now."""
        for who in now:
            self.before[who] = min(self.before[who], now[who], key=lambda x: (len(x[0]), x[1]))
        return False

    # What is asked for

    def call(self, *args):
        """handoffctl: its code, and the last object it printed."""
        try:
            p = self.s.ctl("--json", *args)
        except subprocess.TimeoutExpired:
            raise Wrong("handoffctl %s hangs" % args[0]) from None
        self.said += p.stdout + p.stderr
        lines = []
        for line in p.stdout.splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
        result = next((x for x in reversed(lines) if "outcome" in x), {})
        if p.returncode < 0:
            raise Wrong("handoffctl %s died of signal %d" % (args[0], -p.returncode))
        if not p.stderr and not lines or len(lines) < p.stdout.count("\n"):
            raise Wrong("handoffctl %s: %d, %r" % (args[0], p.returncode, p.stdout))
        return p.returncode, result

    def faulty(self, *names):
        """The next daemon has these faults of kvd's own."""
        self.s.arguments = [a for n in names for a in ("--fault", n)]
        self.s.configure()

    # What must be

    def served(self):
        """Somebody answers, and no write is lost or done twice. A request whose connection was
        closed (by a daemon that died) may have been done."""
        deadline = time.monotonic() + BOUND
        maybe = 0
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.s.port), 5) as c:
                    c.sendall(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n")
                    maybe += 1
                    answer = b""
                    while not answer.endswith(b"\r\n"):
                        part = c.recv(100)
                        if not part:
                            raise OSError("closed")
                        answer += part
                break
            except OSError as e:
                if time.monotonic() > deadline:
                    raise Wrong("nobody serves: %s" % e) from None
                time.sleep(0.01)
        got = int(answer[1:])
        if not self.value < got <= self.value + maybe:
            raise Wrong("the counter is %d, at least %d and at most %d was expected" %
                        (got, self.value + 1, self.value + maybe))
        self.value = got

    def connected(self, may_end):
        """The connections that stay go on, as if nothing had been; where they may end, others do."""
        for k in self.kept:
            try:
                k.go_on()
            except TimeoutError:
                raise Wrong("a connection that stays is silent") from None
            except (EOFError, OSError) as e:
                if not may_end:
                    raise Wrong("a connection that stays is lost: %r" % e) from None
                k.again(self.s)
                k.go_on()

    def lives(self):
        code = self.s.supervisor.poll()
        if code is not None:
            raise Wrong("handoffd has ended with %d" % code)

    def idle(self):
        """The status when everything is settled."""
        try:
            return self.s.wait_status(lambda x: x["state"] == "idle" and x["pid"] and
                                      harness.is_alive(x["pid"]), "idle")
        except AssertionError as e:
            raise Wrong(str(e).split("\n", 1)[0]) from None

    def holdings(self, pid):
        """{who: (its descriptors, how many blocks of memory)}."""
        return {who: (sorted(map(kind, harness.descriptors(p).values())), self.ctl.blocks(p))
                for who, p in (("S", self.s.supervisor.pid), ("O", pid))}

    def ready(self):
        """An upgrade would not be refused: a daemon whose channel was ended has registered again."""
        try:
            self.s.wait_status(lambda x: not x["refused"], "an upgrade would not be refused")
        except AssertionError as e:
            raise Wrong(str(e).split("\n", 1)[0]) from None

    def alone(self):
        """handoffd and one daemon, and nobody else."""
        pid = self.idle()["pid"]
        wanted = {self.s.supervisor.pid, pid}

        def settled():
            return {p.pid for p in harness.marked(self.s.dir)} == wanted
        try:
            harness.wait_until(settled, "nobody else", 10)
        except AssertionError:
            raise Wrong("left behind: %s" % [p for p in harness.marked(self.s.dir)
                                             if p.pid not in wanted]) from None

    def recover(self, may_end):
        """Whatever happened, without a fault all is as it was: the next upgrade commits, nothing
        has leaked, and the journal is whole again. May the connections that stay have ended?"""
        self.lives()
        self.served()
        self.connected(may_end)
        self.alone()
        # a new handoffd has all that it ever has after two of them
        for _ in range(2 if self.s.supervisor.pid != self.supervisor else 1):
            self.ready()
            code, result = self.call("upgrade", self.s.name)
            if code:
                raise Wrong("the next upgrade: %d, %s" % (code, result))
            self.connected(False)
            self.alone()
        self.supervisor = self.s.supervisor.pid
        status = self.idle()
        # (without its directory there are no copies as long as this handoffd lives, and it says so)
        if status.get("warning") and "/exe: " not in status["warning"]:
            raise Wrong("the warning stays: " + status["warning"])
        self.settle(status["pid"])

    def settle(self, pid):
        """The descriptors are those of before, but for the history and the copies, which handoffd
        does without if they cannot be opened, and for epoll's, without which libevent uses poll(2);
        what memory it has is judged by one()."""
        def same():
            now = self.holdings(pid)
            return now["O"] == self.before["O"] and spared(now["S"][0]) == spared(self.before["S"][0])

        def spared(files):
            return [x for x in files if not x.endswith(("/state/%s/history" % self.s.name,
                                                        "/state/%s/exe" % self.s.name, "[eventpoll]"))]
        try:
            harness.wait_until(same, "", 10)
        except AssertionError:
            raise Wrong(self.leaked(self.holdings(pid))) from None
        with contextlib.suppress(AssertionError):
            harness.wait_until(lambda: not self.grown(), "", 0.3)

    def grown(self):
        """How many blocks of memory handoffd has more than at the beginning."""
        return max(0, self.ctl.blocks(self.s.supervisor.pid) - self.before["S"][1])

    def leaked(self, now):
        """What differs from before, for people."""
        text = []
        for who, (files, blocks) in now.items():
            old_files, old_blocks = self.before[who]
            more, fewer = list(files), list(old_files)
            for f in old_files:
                if f in more:
                    more.remove(f)
                    fewer.remove(f)
            text.append("%s: more %s, fewer %s, blocks of memory %s to %s" %
                        (who, more, fewer, old_blocks, blocks))
        return "leaked: " + "; ".join(text)


# --- scenarios: act() runs below the fault, judge() looks at what came of it ---

class Upgrade:
    """An upgrade that would commit."""
    name = "upgrade"
    faults = ()
    ends = False  # whoever has the connections is ended, and they with it

    def prepare(self, st):
        self.old = st.idle()["pid"]
        st.faulty(*self.faults)
        return self.old

    def act(self, st):
        self.code, self.result = st.call("upgrade", st.s.name)
        st.served()

    def judge(self, st):
        st.lives()
        st.faulty()
        status = st.idle()
        st.codes[self.code] = st.codes.get(self.code, 0) + 1
        said, old_serves = self.result.get("outcome"), status["pid"] == self.old
        old_lives = harness.is_alive(self.old)
        if self.code == 0 and (old_serves or said not in (None, "committed")):
            raise Wrong("0, and the old one serves: %s" % self.result)
        if self.code == 0 and status["last"]["outcome"] != "committed":
            raise Wrong("0, and the status says %s" % status["last"])
        if self.code in (1, 2, 4, 5, 8) and not old_serves and old_lives:
            raise Wrong("%d, and the old one, which lives, does not serve" % self.code)
        if self.code == 1 and not old_serves and said == "committed":
            raise Wrong("1, and it is committed")
        if self.code in (3, 6) and status["state"] != "idle":
            raise Wrong("%d, and no end" % self.code)


class Aborted(Upgrade):
    """An upgrade whose successor says that it is not healthy."""
    name = "aborted"
    faults = ("ready:unhealthy",)

    def judge(self, st):
        if self.code == 0:
            raise Wrong("an unhealthy successor serves")
        super().judge(st)


class RolledBack(Upgrade):
    """An upgrade whose successor dies in the probation: the incumbent is sealed, and resumes."""
    name = "rollback"
    ends = True
    faults = ("commit:die",)

    def prepare(self, st):
        st.s.options["probation"] = "1s"
        return super().prepare(st)

    def judge(self, st):
        del st.s.options["probation"]
        if self.code == 0:
            raise Wrong("a successor that died is committed")
        super().judge(st)


def add_mistake(st):
    with open(st.s.conf, "a", encoding="utf-8") as f:
        f.write("no-such-option = 1\n")


class Refused(Upgrade):
    """An upgrade with a configuration that is wrong."""
    name = "refused"

    def prepare(self, st):
        o = super().prepare(st)
        add_mistake(st)
        return o

    def judge(self, st):
        if self.code == 0:
            raise Wrong("a wrong configuration is committed")
        super().judge(st)


class Pinned(Upgrade):
    """An upgrade to the bytes that lie there, from a copy that was hashed."""
    name = "pinned"

    def act(self, st):
        with open(st.s.binary, "rb") as f:
            wanted = hashlib.sha256(f.read()).hexdigest()
        self.code, self.result = st.call("upgrade", st.s.name, "--sha256", wanted)
        st.served()


class PinnedWrong(Upgrade):
    """The same to other bytes: whatever fails, they do not run."""
    name = "pinnedwrong"

    def act(self, st):
        self.code, self.result = st.call("upgrade", st.s.name, "--sha256", "0" * 64)
        st.served()

    def judge(self, st):
        if self.code == 0:
            raise Wrong("other bytes than those that were asked for are committed")
        super().judge(st)


class Check(Upgrade):
    """`handoffd --check` of a good configuration."""
    name = "check"

    def act(self, st):
        p = subprocess.run([harness.program("handoffd"), "--check", "-c", st.s.conf],
                           env=st.s.env, cwd=st.s.dir, stdin=subprocess.DEVNULL, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=BOUND,
                           check=False)
        self.code, self.errors = p.returncode, p.stderr
        st.served()

    def judge(self, st):
        st.faulty()
        if self.code not in (0, 1, 2):
            raise Wrong("handoffd --check ended with %d" % self.code)
        if self.code and not self.errors:
            raise Wrong("handoffd --check: %d, and not a word" % self.code)
        Plan.judge(self, st)


class CheckWrong(Check):
    """The same of a wrong one."""
    name = "checkwrong"

    def prepare(self, st):
        o = super().prepare(st)
        add_mistake(st)
        return o

    def judge(self, st):
        if self.code == 0:
            raise Wrong("handoffd --check takes a wrong configuration for good")
        super().judge(st)


class Plan(Upgrade):
    name = "plan"

    def act(self, st):
        self.code, self.result = st.call("plan", st.s.name)
        st.served()

    def judge(self, st):
        st.lives()
        if st.idle()["pid"] != self.old and harness.is_alive(self.old):
            raise Wrong("a plan changed who serves")


class Status(Upgrade):
    name = "status"

    def act(self, st):
        before = len(st.said)
        code, _ = st.call("status", st.s.name)
        if not code and '"listeners"' not in st.said[before:]:
            raise Wrong("handoffctl status: 0, and no status: %s" % st.said[before:])
        st.served()

    judge = Plan.judge


class Operator(Upgrade):
    """`handoffctl abort` while a successor warms up."""
    name = "abort"
    faults = ("warmup:hang",)

    def prepare(self, st):
        o = super().prepare(st)
        self.u = st.s.start_upgrade()
        self.u.wait_phase("warm")
        return o

    def act(self, st):
        self.abort, _ = st.call("abort", st.s.name)
        try:
            self.result = self.u.wait() or {}
        except AssertionError:
            raise Wrong("the upgrade does not end") from None
        self.code = self.u.code
        st.s.background.remove(self.u)
        st.served()

    def judge(self, st):
        if self.code == 0:
            raise Wrong("aborted, and committed")
        super().judge(st)


class Restart(Upgrade):
    """`handoffctl restart`."""
    name = "restart"
    ends = True

    def act(self, st):
        self.code, self.result = st.call("restart", st.s.name)
        st.served()

    def judge(self, st):
        st.lives()
        if self.code == 0 and st.idle()["pid"] == self.old:
            raise Wrong("restarted, and it is the old one")


class Crash(Upgrade):
    """The daemon is killed."""
    name = "crash"
    ends = True

    def act(self, st):
        os.kill(self.old, signal.SIGKILL)
        st.served()

    def judge(self, st):
        st.lives()


class Cold:
    """handoffd starts, and nothing runs."""
    name = "cold"
    ends = True

    def prepare(self, st):
        st.s.stop()
        return 0

    def act(self, st):
        st.s.launch()
        self.code = started(st)

    def judge(self, st):
        """It may give up, with a reason; then nothing is left, and the next try succeeds."""
        if self.code is None:
            return
        if self.code not in (1, 2):
            raise Wrong("handoffd ended with %d" % self.code)
        harness.wait_until(lambda: not harness.marked(st.s.dir), "nothing is left", 10)
        st.s.start()


def started(st):
    """Waits until handoffd has ended, or somebody serves: its code, or None."""
    deadline = time.monotonic() + BOUND
    while time.monotonic() < deadline:
        code = st.s.supervisor.poll()
        if code is not None:
            st.s.awaited = st.s.supervisor
            return code
        status = None
        with contextlib.suppress(ValueError):   # no memory for a line
            status = st.s.status()
        # (nor is there for each key of it)
        if status and status.get("state") == "idle" and status.get("pid"):
            st.served()
            return None
        time.sleep(0.002)
    raise Wrong("nobody serves and handoffd does not end; the status is %s" % st.s.status())


class Adopt(Cold):
    """handoffd was killed and starts again, the daemon serves."""
    name = "adopt"
    ends = False

    def prepare(self, st):
        self.old = st.idle()["pid"]
        st.s.kill_supervisor()
        return self.old

    def judge(self, st):
        if self.code is not None:
            st.served()   # without a supervisor, too
            st.s.start()
        if st.idle()["pid"] != self.old and harness.is_alive(self.old):
            raise Wrong("the daemon that served was not adopted")


class Lost(Adopt):
    """The same without a journal: the lock says who serves."""
    name = "lost"

    def prepare(self, st):
        o = super().prepare(st)
        os.unlink(st.s.path("run", st.s.name, "journal"))
        return o


class Middle(Adopt):
    """handoffd was killed in a handoff, with the incumbent sealed, and starts again."""
    name = "middle"

    def prepare(self, st):
        self.old = st.idle()["pid"]
        st.faulty("begin:hang")
        self.u = st.s.start_upgrade()
        self.u.wait_phase("ready")
        st.s.kill_supervisor()
        st.faulty()
        return self.old

    def judge(self, st):
        super().judge(st)
        try:
            self.u.wait()
        except AssertionError:
            raise Wrong("handoffctl upgrade does not end") from None
        st.s.background.remove(self.u)
        if self.u.code == 0:
            raise Wrong("handoffctl says 0 of an aborted upgrade")


class Reexec(Upgrade):
    """`handoffctl reexec`: another handoffd goes on in this process, or this one does."""
    name = "reexec"

    def prepare(self, st):
        self.life = life(st.s.supervisor.pid)
        return super().prepare(st)

    def act(self, st):
        with socket.socket(socket.AF_UNIX) as c:   # a part of a request is on its way
            c.connect(st.s.path("run", st.s.name, "control.sock"))
            with contextlib.suppress(ConnectionError):
                c.sendall(frame(66, {})[:-1])
            self.code, self.result = st.call("reexec", st.s.name)
        st.served()

    def judge(self, st):
        """If the next one has ended the daemon serves on, until its service manager starts another."""
        code = started(st)
        if code is not None:
            if code != 1 or self.code != 6:
                raise Wrong("handoffd ended with %d, told was %d: %s" % (code, self.code, self.result))
            st.s.start()
        elif life(st.s.supervisor.pid) == self.life:
            if self.code == 0:
                raise Wrong("the same handoffd, told was: %s" % self.result)
        elif self.code not in (0, 6):
            raise Wrong("another handoffd, told was %d: %s" % (self.code, self.result))
        if st.idle()["pid"] != self.old:
            raise Wrong("another daemon serves")
        st.supervisor = None   # to recover(): it is a new one


def life(pid):
    """What differs from one exec to the next: where the kernel has put things."""
    with open("/proc/%d/auxv" % pid, "rb") as f:
        return f.read()


class Stop:
    """SIGTERM."""
    name = "stop"
    ends = True

    def prepare(self, st):
        return st.idle()["pid"]

    def act(self, st):
        st.s.supervisor.terminate()
        try:
            self.code = st.s.supervisor.wait(BOUND)
        except subprocess.TimeoutExpired:
            raise Wrong("handoffd does not stop") from None
        st.s.awaited = st.s.supervisor

    def judge(self, st):
        harness.wait_until(lambda: not harness.marked(st.s.dir), "nothing is left", 10)
        if self.code:
            raise Wrong("a stop ends with %d" % self.code)
        st.s.start()


SCENARIOS = {c.name: c for c in (
    Upgrade, Aborted, RolledBack, Refused, Pinned, PinnedWrong, Plan, Check, CheckWrong, Status,
    Operator, Restart, Crash, Cold, Adopt, Lost, Middle, Reexec, Stop)}


# --- counting and running ---

def run(st, scenario, arm):
    """One case; whether the fault struck. Wrong if something is not as it must be."""
    s = SCENARIOS[scenario]()
    o_pid = s.prepare(st)
    st.ctl.arm(o_pid, *arm)
    try:
        s.act(st)
    finally:
        struck = st.ctl.disarm()
    if isinstance(s, Cold) and s.code == 2 and errno.errorcode.get(arm[3]) in PASSING:
        raise Wrong("handoffd ended with 2, which is final, for an error that passes")
    s.judge(st)
    # one that could not be moved, or not be taken, ends with the incumbent
    may_end = struck and ROLES[arm[0]] in ("O", "N") and st.idle()["pid"] != o_pid
    st.recover(s.ends or may_end)
    return struck


def count(scenario):
    """{(role, call): the most that a dry run had of it}."""
    st = Stage()
    most = {}
    try:
        for _ in range(3):
            s = SCENARIOS[scenario]()
            st.ctl.arm(s.prepare(st))
            s.act(st)
            st.ctl.disarm()
            for k, v in st.ctl.counts().items():
                most[k] = max(most.get(k, 0), v)
            s.judge(st)
            st.recover(s.ends)
    finally:
        st.close()
    return most


def errors_of(role, call):
    # the successor's library writes to eventfds only, the incumbent's to a memfd, too
    if call == "write" and role in "ON":
        return "EINTR EAGAIN" + (" EFBIG ENOSPC CUT" if role == "O" else "")
    return ERRORS[call]


def cases_of(name):
    """All of a scenario, of a role in it, or of one call of that role."""
    scenario = name.split(":")[0]
    cases = ["%s:%s:%s:%d:%s" % (scenario, role, call, nth, e)
             for (role, call), n in sorted(count(scenario).items())
             for nth in range(1, n + 1) for e in errors_of(role, call).split()]
    return [c for c in cases if c.startswith(name + ":")]


def symbols(where):
    """The callers' names, if the programs have them."""
    names = []
    for frame in where.split():
        base, _, offset = frame.partition("+")
        with contextlib.suppress(OSError, FileNotFoundError):
            path = os.path.join(harness.BUILD, ".libs", base) if base.startswith("lib") \
                else harness.program(base)
            p = subprocess.run(["addr2line", "-f", "-e", path, offset], check=False,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            names.append(p.stdout.split("\n")[0] or frame)
    return " < ".join(names)


def one(st, case):
    """("ok" | "not reached" | what is wrong, log)."""
    scenario, role, call, nth, error = case.split(":")
    arm = (ROLES.index(role), st.ctl.names().index(call), int(nth),
           SPECIAL.get(error) or getattr(errno, error))
    begin = len(st.s.log())
    try:
        struck = run(st, scenario, arm)
        # what handoffd keeps of its history is not much, and not more each time
        blocks = [st.grown()]
        while blocks[-1] and len(blocks) < 4 and blocks == sorted(set(blocks)):
            run(st, scenario, arm)
            blocks.append(st.grown())
        if len(blocks) == 4 and blocks == sorted(set(blocks)):
            raise Wrong("handoffd leaks memory: %s blocks more" % blocks)
        st.before["S"] = (st.before["S"][0], st.before["S"][1] + blocks[-1])
        return ("ok" if struck else "not reached"), ""
    except (Wrong, AssertionError, OSError, subprocess.SubprocessError, KeyError, TypeError) as e:
        text = str(e) or type(e).__name__
        log = "at %s\n%s" % (symbols(st.ctl.where()), st.s.log()[begin:])
        return text, log


def work(todo, done, stop):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    harness.PATIENCE = BOUND
    st = None
    while not stop.is_set() and (case := todo.get()):
        begin = time.monotonic()
        try:
            st = st or Stage()
            verdict, log = one(st, case)
        except Exception as e:  # the stage itself: no case may end in silence
            verdict, log = "no stage: %r" % e, ""
        done.put((case, verdict, log, time.monotonic() - begin))
        if verdict not in ("ok", "not reached") and st:
            st.close()
            st = None
    if st:
        st.close()
    done.put(None)


def in_parallel(function, items, jobs):
    pool = multiprocessing.get_context("fork").Pool(jobs)
    results = pool.map(function, items, 1)
    pool.close()
    pool.join()
    return results


def count_all(names, jobs):
    return [c for cases in in_parallel(cases_of, names, jobs) for c in cases]


def run_all(cases, jobs, seconds, total):
    ctx = multiprocessing.get_context("fork")
    todo, done, stop = ctx.Queue(), ctx.Queue(), ctx.Event()
    for c in cases + [None] * jobs:   # an end for each worker
        todo.put(c)
    workers = [ctx.Process(target=work, args=(todo, done, stop)) for _ in range(jobs)]
    begin = time.monotonic()
    for w in workers:
        w.start()
    tally, ended, spent = {"ok": 0, "not reached": 0, "wrong": 0}, 0, []
    while ended < jobs:
        item = done.get()
        if item is None:
            ended += 1
            continue
        case, verdict, log, took = item
        spent.append((took, case))
        tally[verdict if verdict in tally else "wrong"] += 1
        if verdict not in ("ok", "not reached"):
            print("not ok - %s: %s" % (case, verdict.replace("\n", " ")))
            print("#   again: make check-fault FAULT=%s" % case)
            print("".join("#   %s\n" % line for line in log.splitlines()[-40:]), flush=True)
        if seconds and time.monotonic() - begin > seconds:
            stop.set()
    todo.cancel_join_thread()
    for w in workers:
        w.join()
    spent.sort(reverse=True)
    print("slowest: " + ", ".join("%s %.1f s" % (c, t) for t, c in spent[:5]))
    print("%d cases of %d: %d failed, %d did not come to their call, in %.0f s" %
          (sum(tally.values()), total, tally["wrong"], tally["not reached"],
           time.monotonic() - begin))
    print("checks %d of %d cases, each with one call failed" % (tally["ok"], total))
    return 1 if tally["wrong"] or not tally["ok"] else 0


# What is done behind the test's back, and must be found.

def kill(st):
    st.s.supervisor.kill()


def leak(st):
    st.before["S"][0].remove("socket")


def leak_memory(st):
    st.before["O"] = (st.before["O"][0], st.before["O"][1] - 1)


def leak_each_time(st):
    st.grown = iter(range(1, 100)).__next__


def lose(st):
    st.value += 1


def leave(st):
    subprocess.Popen(["sleep", "60"], env=st.s.env)


def lie(st):
    st.call = lambda *_: (0, {"outcome": "committed"})


DEEDS = (kill, leak, leak_memory, leak_each_time, lose, leave, lie)


def found(deed):
    """What one() says after this deed; "ok" would be wrong."""
    st = Stage()
    try:
        deed(st)
        return one(st, "upgrade:S:read:1:EINTR")[0]
    finally:
        st.close()


def sabotage():
    """Each of the deeds is to be found: how many were not."""
    missed = 0
    for deed, said in zip(DEEDS, in_parallel(found, DEEDS, len(DEEDS))):
        ok = said not in ("ok", "not reached")
        print("%s - sabotage: %s: %s" % ("ok" if ok else "not ok", deed.__name__, said[:100]))
        missed += not ok
    return 1 if missed else 0


def main():
    p = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1])
    p.add_argument("-j", type=int, default=2 * os.cpu_count())
    p.add_argument("-n", type=int, default=0)
    p.add_argument("-s", type=float, default=0)
    p.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    p.add_argument("--slice", default="1/1")
    p.add_argument("--list", action="store_true")
    p.add_argument("--sabotage", action="store_true")
    p.add_argument("names", nargs="*")
    a = p.parse_args()
    if harness.may_have_a_network():
        harness.own_network()   # nobody else takes a port that was free a moment ago
    if a.sabotage:
        return sabotage()
    given = [n for n in a.names if n.count(":") == 4]
    scenarios = [n for n in a.names if n not in given] or ([] if given else list(SCENARIOS))
    if a.list:
        for n in scenarios:
            print(n, count(n.split(":")[0]))
        return 0
    part, parts = map(int, a.slice.split("/"))
    cases = given + (count_all(scenarios, a.j)[part - 1::parts] if scenarios else [])
    total = len(cases)
    if a.s or a.n:
        print("seed %d" % a.seed)
        cases.sort(key=lambda case: zlib.crc32(("%d %s" % (a.seed, case)).encode()))
    if a.n:
        del cases[a.n:]
    return run_all(cases, min(a.j, len(cases)), a.s, total)


if __name__ == "__main__":
    harness.install_handlers()
    sys.exit(main())
