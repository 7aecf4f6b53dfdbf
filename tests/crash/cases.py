"""What is tried in the matrix: scenarios, deeds, and which outcomes the rules allow.

A case is a scenario, a boundary in it, a deed, and the roles it is done to; its name is
"SCENARIO/BOUNDARY/DEED/ROLES", as in "upgrade/S.before.send.Commit.1/kill/SN".
"""

import collections
import contextlib
import itertools
import os
import re
import signal
import zlib

import harness
from badinput import receive
from place import BEAT, Boundary, longer_than_all_timers, signal_to, wait_dead


ABORT, REEXEC, RESULT = 67, 74, 81


class Case(collections.namedtuple("Case", "scenario boundary deed roles")):
    def __str__(self):
        return "/".join((self.scenario, str(self.boundary), self.deed, self.roles))

    @classmethod
    def parse(cls, text):
        scenario, boundary, deed, roles = text.split("/")
        return cls(scenario, Boundary.parse(boundary), deed, roles)

    def number(self):
        """One that is always the same for it: what is chosen by it is chosen again."""
        return zlib.crc32(str(self).encode())


# ---- scenarios: something that a supervisor and its daemons do

class Upgrade:
    """An upgrade by handoffctl; faults of the incumbent and of the successor."""

    kind = "a handoff"

    def __init__(self, old=(), new=(), ends="committed", probation=0):
        self.old = ["--fault " + f for f in old]
        self.new = [f if f.startswith("--") else "--fault " + f for f in new]
        self.ends = ends  # if nobody disturbs it
        self.probation = "%dms" % probation

    def prepare(self, p):
        """The incumbent that this begins with, if it is not there yet."""
        if p.options.get("probation", "0ms") != self.probation:
            p.configure(probation=self.probation)
        if self.old:
            version = p.info()["version"][0]
            u = p.upgrade("--binary", p.binary_of(p.other(version), *self.old))
            if u.code:
                raise AssertionError("preparing: %s\n%s" % (u.result, p.log()))

    def start(self, p):
        version = p.other(p.info()["version"][0])
        new = [f.replace("DIR", p.dir) for f in self.new]
        return p.start_upgrade("--binary", p.binary_of(version, *new))

    def over(self, _p, u):
        """It has come to its end."""
        return u.process.poll() is not None


class Plan(Upgrade):
    """`handoffctl plan`: the successor starts as far as Hello, the incumbent never knows."""

    def start(self, p):
        binary = p.binary_of(p.other(p.info()["version"][0]))
        u = harness.Upgrade([harness.program("handoffctl"), "--json", "plan", p.name, "--binary",
                             binary], p.env, p.path("plan.err"))
        p.background.append(u)
        return u


class DaemonDies(Upgrade):
    """The incumbent is killed and nothing else was asked for: a cold start."""

    kind = "a cold start"

    def start(self, p):
        fd = os.pidfd_open(p.incumbent)
        signal_to(fd, signal.SIGKILL)
        os.close(fd)

    def over(self, p, _u):  # not asked of a supervisor that may be held
        return " serves\n" in p.new_log()


class Restart(Upgrade):
    """`handoffctl restart`: the daemon is ended, and a cold start."""

    kind = "a cold start"

    def start(self, p):
        u = harness.Upgrade([harness.program("handoffctl"), "--json", "restart", p.name], p.env,
                            p.path("restart.err"))
        p.background.append(u)
        return u


class Asked(harness.Upgrade):
    """The command, and the other operator's connection, which ends with it."""

    def close(self):
        self.half.close()
        super().close()


class Reexec(Upgrade):
    """`handoffctl reexec`, while another operator has sent a part of a request."""

    kind = "a re-exec"

    def start(self, p):
        half = p.send(ABORT, 3)
        u = Asked([harness.program("handoffctl"), "--json", "reexec", p.name], p.env,
                  p.path("reexec.err"))
        u.half = half
        p.background.append(u)
        p.caller = u.process.pid
        return u


class SupervisorDies(Upgrade):
    """The supervisor is killed and comes back: the incumbent registers."""

    kind = "an adoption"

    def start(self, p):
        p.kill_supervisor()
        p.launch()

    def over(self, p, _u):
        return "has registered: it serves\n" in p.new_log()


SCENARIOS = {
    "upgrade": Upgrade(),
    "unhealthy": Upgrade(new=["ready:unhealthy"], ends="aborted"),
    "seal-fails": Upgrade(old=["seal:fail-once"], ends="aborted"),
    "slow": Upgrade(old=["seal:progress"], new=["begin:delay=%d" % (2.5 * BEAT)]),
    "probation": Upgrade(probation=200),
    "rollback": Upgrade(new=["commit:die"], ends="rolled back", probation=200),
    "stray": Upgrade(old=["drain:stray=600000"]),
    "refused": Upgrade(new=["--data-dir DIR/other-data"], ends="aborted"),
    "plan": Plan(ends="plan"),
    "crash": DaemonDies(ends=None),
    "adopt": SupervisorDies(ends=None),
    "restart": Restart(ends=None),
    "reexec": Reexec(ends="replaced"),
}


# ---- deeds: each is given the place, who is held, the case, and ended(): "all is over"

class Gone(Exception):
    """Who was there in the dry run is not there yet, or no more."""


class Pidfds(contextlib.ExitStack):
    """{role: pidfd} of the case's roles, so that a pid is the process that it was."""

    def __init__(self, p, roles):
        super().__init__()
        alive = p.roles()
        if not set(roles) <= set(alive):
            raise Gone
        self.roles = {r: os.pidfd_open(alive[r]) for r in roles}
        for fd in self.roles.values():
            self.callback(os.close, fd)


def kill_all(p, roles):
    for fd in roles.values():
        signal_to(fd, signal.SIGKILL)
    for role, fd in roles.items():
        wait_dead(fd)
        if role == "S":
            p.supervisor.wait(harness.PATIENCE)


def kill(p, held, case, _ended):
    with Pidfds(p, case.roles) as fds:
        kill_all(p, fds.roles)
    if "S" in case.roles:
        p.launch()
    held.go()


def kill_twice(p, held, case, ended):
    """The next supervisor is killed too, at one of its first boundaries, if it comes so far."""
    with Pidfds(p, case.roles) as fds:
        kill_all(p, fds.roles)
    p.controller.hold_next("S", case.number() % 12 + 1, but=p.supervisor.pid)
    p.launch()
    held.go()
    while not p.controller.wait(lambda: p.controller.held, 0.02) and not ended():
        pass
    p.kill_supervisor()
    p.controller.disarm()
    p.launch()


def chain(p, held, case, ended):
    """The first is killed, and then the second at one of its next boundaries, if it comes so far."""
    first, second = case.roles
    with Pidfds(p, first) as fds:
        kill_all(p, fds.roles)
    p.controller.hold_next(second, case.number() % 8 + 1)
    if first == "S":
        p.launch()
    held.go()
    while not p.controller.wait(lambda: p.controller.held, 0.02) and not ended():
        pass
    if p.controller.held:
        fd = os.pidfd_open(p.controller.held.seen.pid)
        kill_all(p, {second: fd})
        os.close(fd)
        if second == "S":
            p.launch()
    p.controller.disarm()


def kill_late(p, held, case, ended):
    """The supervisor comes back when the daemons' own timers have decided."""
    with Pidfds(p, case.roles) as fds:
        kill_all(p, fds.roles)
    held.go()
    longer_than_all_timers(p, ended)
    p.launch()


def stop(p, held, case, ended, then_kill=False):
    with Pidfds(p, case.roles) as fds:
        for fd in fds.roles.values():
            signal_to(fd, signal.SIGSTOP)
        held.go()
        longer_than_all_timers(p, ended)
        if then_kill:
            kill_all(p, fds.roles)
        for fd in fds.roles.values():
            signal_to(fd, signal.SIGCONT)
    if then_kill and "S" in case.roles:
        p.launch()


def stop_kill(p, held, case, ended):
    stop(p, held, case, ended, then_kill=True)


def ask(p, held, case, kind, name):
    """Whoever is held goes on when the request is with the supervisor: in its queue, or, if it
    can act meanwhile, read."""
    had = p.controller.has("S", "after", "recv", name)
    p.asking = p.send(kind)
    if case.boundary.role != "S":
        p.controller.wait(lambda: p.controller.has("S", "after", "recv", name) > had)
    held.go()


def abort(p, held, case, _ended):
    """handoffctl abort."""
    ask(p, held, case, ABORT, "AbortRequest")


def reexec(p, held, case, _ended):
    """handoffctl reexec, in the middle of it: refused, or it waits."""
    ask(p, held, case, REEXEC, "Reexec")


def close(_p, held, _case, _ended):
    held.go(b"c")


def slow(p, held, _case, ended):
    longer_than_all_timers(p, ended)
    held.go()


DEEDS = {"kill": kill, "kill-twice": kill_twice, "kill-late": kill_late, "chain": chain,
         "stop": stop, "stop-kill": stop_kill, "abort": abort, "reexec": reexec, "close": close,
         "slow": slow}
FOR_TIMERS = {"kill-late", "stop", "stop-kill", "slow"}  # that somebody's timers expire is the point


def cases_at(scenario, seen):
    """Every case at a boundary that a dry run has seen."""
    b = seen.boundary
    alive = [r for r in "SON" if r in seen.alive]
    for n in (1, 2, 3):
        for roles in map("".join, itertools.combinations(alive, n)):
            yield Case(scenario, b, "kill", roles)
            if "S" in roles:
                yield Case(scenario, b, "kill-late", roles)
                yield Case(scenario, b, "kill-twice", roles)
            if n < 3:
                yield Case(scenario, b, "stop", roles)
            if n == 1:
                yield Case(scenario, b, "stop-kill", roles)
    for role in sorted({"C", "T"} & seen.alive):   # alone: who is asked, and who has asked
        for deed in ("kill", "stop", "stop-kill"):
            yield Case(scenario, b, deed, role)
    for first, second in itertools.permutations("SON", 2):
        if first in alive:
            yield Case(scenario, b, "chain", first + second)
    for deed in ("abort", "reexec", "slow") + (("close",) if b.op in ("send", "recv") else ()):
        yield Case(scenario, b, deed, b.role)


# ---- what the rules allow

LATE = re.compile(r"within (start-timeout|drain-grace|deadline|commit-timeout|presumed-dead)"
                  r"|silent for presumed-dead|is not registered")


class Facts:
    """What has happened in an attempt, as its trace and the log say; before: how much of the
    trace lies before the deed."""

    def __init__(self, p, supervisor, before):
        trace = list(p.controller.trace)
        n = self.successor = next((x.pid for x in trace if x.boundary.role == "N"), None)

        def has(role, when, op, name, pid):
            return any(x.boundary[:4] == (role, when, op, name) and x.pid == pid for x in trace)
        # a record is there for the next supervisor when pwrite has been reached and passed:
        # between the two ends of the write nobody can tell
        self.maybe_started = has("S", "before", "write", "Journal(started)", supervisor)
        self.started = has("S", "after", "write", "Journal(started)", supervisor)
        self.maybe_decided = has("S", "before", "write", "Journal(committed)", supervisor)
        self.decided = has("S", "after", "write", "Journal(committed)", supervisor)
        self.maybe_serving = n and has("N", "before", "send", "Status", n)
        self.serving = n and has("N", "after", "send", "Status", n)
        self.untied = n and has("N", "after", "tie", "Off", n)  # it does not end with S
        # all connections that move are with the successor, too, and it has said so
        self.given = any(x.boundary[:4] == ("O", "before", "send", "SealComplete")
                         for x in trace[:before])
        # (one that is started anew has no such boundary)
        self.replaced = any(x.boundary[:4] == ("S", "after", "exec", "handoffd") for x in trace)
        self.aborting = any(x.boundary.name in ("ResumeAfterAbort", "SealFailed", "Abort")
                            for x in trace[:before])
        self.late = bool(LATE.search(p.new_log()))  # a time limit has expired


def law(case, ends, f):
    """The outcomes that the rules allow for a case, given the facts. rules.md: S, O and N die,
    alone and together; all else may end in any way that is told as it is (see checks.py), and
    so may what a time limit has ended."""
    undecided, any_ = {"aborted"}, {"committed", "aborted", "rolled back"}
    if ends == "replaced":
        lost = "S" in case.roles or case.deed == "close"
        return {"replaced" if f.replaced else "refused"} | ({"unknown"} if lost else set())
    if case.deed == "reexec" and not f.late:
        return {ends}
    if not f.started:
        known = "S" in case.roles and not f.maybe_started
        return {"refused", "unknown"} | (undecided if known else any_)
    freely = not case.deed.startswith("kill") or ends != "committed" or f.aborting or f.late
    if case.deed == "abort" and not (f.aborting or f.late):
        return {ends} if f.decided else undecided
    if freely or case.roles not in ("O", "N"):
        if not f.maybe_decided:
            return undecided
        if freely or not f.decided and "S" in case.roles:
            return any_
    if case.roles == "N":
        return ({"rolled back", "committed"} if f.serving else any_ if f.maybe_serving else
                undecided)
    if case.roles == "ON":
        return {"committed"} if f.serving else any_ if f.maybe_serving else undecided
    if case.roles == "SN" or case.roles == "S" and not f.untied:
        return {"rolled back", "committed"}
    return {"committed"}


# ---- one case

class Played(collections.namedtuple("Played", "before u answer facts")):
    """What came of a case: who served before; the command, if the scenario has one; the exit code
    of what was asked for in between; the facts, None if the boundary was not reached (or the roles
    were not there)."""


def result_of(sock):
    """The code of the Result; None: there is none."""
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            kind, fields, _ = receive(sock)
            if kind == RESULT:
                return fields[1]
    return None


def play(p, case, scenario):
    """The scenario, with the deed when somebody comes to the boundary."""
    c = p.controller
    p.asking = None
    before = p.info()
    p.arm(case.boundary)
    supervisor = p.supervisor.pid
    u = scenario.start(p)
    while not c.wait(lambda: c.held, 0.02) and not scenario.over(p, u):
        pass
    c.wait(lambda: c.held, 0.2)  # what comes behind the end
    done, passed = c.held is not None, len(c.trace)
    try:
        if done:
            DEEDS[case.deed](p, c.held, case, lambda: scenario.over(p, u))
    except Gone:
        done = False
    if not done:
        c.disarm()
    if u is not None:
        u.wait()
        u.close()
    answer = None
    if p.asking is not None:
        answer = result_of(p.asking)
        p.asking.close()
    return Played(before, u, answer, Facts(p, supervisor, passed) if done else None)
