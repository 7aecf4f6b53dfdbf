#!/usr/bin/python3
"""The crash matrix, with real processes under load.

usage: run.py [--quick] [--seed N] [--jobs N] [--slice I/N] [--list] [SCENARIO | CASE]...

A dry run of each scenario finds the boundaries: every message, sent and received, and every
record, before and after. At each of them, in random order, each deed is done to each role and
to pairs and triples of roles; then the checks. Prints a row for each boundary (TAP), the cases
that failed, and what the outcomes were. A case is run again by its name.

  --quick      SIGKILL of each role alone, at each boundary that is new in its scenario, and
               some of all the others; not chosen by chance
  --jobs N     services at a time (3)
  --slice I/N  only that part of the cases
  --list       the cases' names
$CRASH_SCALE makes all times longer, for a loaded machine (1); $BUILD_DIR: where the programs are.
"""

import argparse
import collections
import os
import random
import sys
import threading
import time
import traceback

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "wire")]

import place  # noqa: E402
import harness  # noqa: E402
import msgdef  # noqa: E402
from cases import FOR_TIMERS, SCENARIOS, Case, cases_at, play  # noqa: E402
from checks import CHECKS  # noqa: E402

TRIES = 3  # for a boundary that is not reached: what depends on time may come another way
REACHED = 0.95  # of the cases, at least
SAMPLE = 160  # one of so many that are not SIGKILL of one role is in the quick choice
LOAD = ("--keepalive", "10", "--keepalive-rate", "400", "--fresh-rate", "100", "--keys", "200",
        "--timeout", "60")


class Run:
    """One try at one case."""

    def __init__(self, p, case):
        self.p = p
        self.case = case
        self.scenario = SCENARIOS[case.scenario]
        self.now = self.result = self.code = None
        self.stall = 0
        self.outcome = "not reached"

    def play(self):
        """The scenario under load, with the deed if the boundary is reached."""
        self.scenario.prepare(self.p)
        self.p.wait_state("idle")
        self.load = self.p.load(*LOAD)
        self.before, u, self.answer, self.facts = play(self.p, self.case, self.scenario)
        if self.facts is None:
            self.load.stop()
        elif u is not None:
            self.result, self.code, self.lines = u.result, u.code, u.lines

    def check(self):
        for check in CHECKS:
            check(self)
        self.outcome = self.result["outcome"] if self.result else "serves"


# ---- the dry run

def dry_run(p, name):
    """What a scenario passes in two runs, as it was seen in the first."""
    traces = []
    for _ in range(2):
        SCENARIOS[name].prepare(p)
        p.wait_state("idle")
        client = p.client()  # a connection that moves
        client.ping()
        p.arm(None, look=True)
        u = SCENARIOS[name].start(p)
        if u is not None:
            u.wait()
            want = SCENARIOS[name].ends
            if want and (u.result is None or u.result["outcome"] != want):
                raise AssertionError("%s without a deed: %s\n%s" % (name, u.result, p.log()))
            u.close()
        while True:  # until nothing more comes
            n = len(p.controller.trace)
            p.wait_state("idle")
            if not p.controller.wait(lambda n=n: len(p.controller.trace) > n, 0.3):
                break
        client.close()
        traces.append([x for x in p.controller.trace
                       if x.boundary.name != "Heartbeat" or x.boundary.nth == 1])
    both = {x.boundary for x in traces[1]}
    return [x for x in traces[0] if x.boundary in both]


def dry_runs(names):
    """{scenario: what it passes}"""
    p = place.Place()
    try:
        seen = {x: dry_run(p, x) for x in names if p.group or x != "stray"}
        p.finish()
    finally:
        p.close()
    return seen


def assert_complete(seen):
    """Every message between a daemon and a supervisor, or between two daemons, and every record,
    on both sides of both of its ends: in the table msg.def and among the boundaries."""
    table = msgdef.load(os.path.join(HERE, "..", "..", "src", "proto", "msg.def"))
    have = {(b.when, b.op, b.name.split("(")[0]) for b in (x.boundary for x in seen)}
    want = {(w, op, m.name) for m in table for w in ("before", "after")
            for op in (("write",) if m.type >= 128 else ("send", "recv"))
            if m.type < 64 or m.type >= 128}  # 64 to 127: operators'
    # who is refused is killed in the same breath, and reads it or not
    want -= {("before", "recv", "Abort"), ("after", "recv", "Abort")}
    if want - have:
        raise AssertionError("no scenario passes: %s" % sorted(want - have))


# ---- many cases

class Matrix:
    def __init__(self, cases, jobs):
        # those that need longer times come first: a worker changes its place once
        self.todo = sorted(cases, key=lambda c: c.deed not in FOR_TIMERS)
        self.jobs = jobs
        self.lock = threading.Lock()
        self.outcomes = collections.Counter()  # (class of boundary, deed, roles, outcome)
        self.done = collections.defaultdict(list)  # boundary: [(case, outcome, failure)]
        self.stalls = {}  # (deed, roles): (seconds, case)
        self.failed = []  # "CASE: WHY"
        self.count = 0

    def run(self):
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.jobs)]
        for t in threads:
            t.start()
        try:
            for t in threads:
                t.join()
        except KeyboardInterrupt:
            place.Place.over.set()
            harness.close_all()
            for t in threads:  # what it waits for is gone
                t.join(harness.PATIENCE)
            for d in place.Place.dirs:
                harness.kill_marked(d)
            raise

    def _next(self):
        with self.lock:
            return self.todo.pop() if self.todo and not place.Place.over.is_set() else None

    def _work(self):
        worker = Worker()
        while (case := self._next()) is not None:
            result = worker.case(case)
            self._note(case, *result, worker.why)
        worker.finish()

    def _note(self, case, outcome, failure, stall, why):
        b = case.boundary
        with self.lock:
            self.count += 1
            self.done[case.scenario, b].append((case, outcome, failure))
            self.outcomes["%s %s" % (b.role, b.op), case.deed, case.roles, outcome] += 1
            before = self.stalls.get((case.deed, case.roles), (0, ""))
            self.stalls[case.deed, case.roles] = max(before, (stall, str(case)))
            if failure:
                self.failed.append("%s: %s" % (case, why))
                print("# FAILED %s\n# again: make check-crash CRASH_ARGS=%s" % (case, case))
                print("\n".join("#   " + x for x in failure.splitlines()))
            elif self.count % 50 == 0:
                print("# %d done, %d to do" % (self.count, len(self.todo)))
            sys.stdout.flush()

    def report(self):
        """A row for each boundary, and one for how many were not reached; how many failed."""
        bad = missed = 0
        for i, (key, cases) in enumerate(sorted(self.done.items(), key=str), 1):
            good = all(not f for _, _, f in cases)
            bad += not good
            missed += sum(o == "not reached" for _, o, _ in cases)
            ends = collections.Counter("%s %s: %s" % (c.deed, c.roles, o) for c, o, _ in cases)
            print("%s %d - %s %s (%s)" % ("ok" if good else "not ok", i, key[0], key[1],
                                          "; ".join(sorted(ends))))
        good = missed <= (1 - REACHED) * self.count
        print("%s %d - the boundary was reached: all but %d of %d" %
              ("ok" if good else "not ok", len(self.done) + 1, missed, self.count))
        print("1..%d" % (len(self.done) + 1))
        return bad + (not good)

    def table(self):
        """Who stood where, what was done to whom, what came of it."""
        rows = collections.defaultdict(collections.Counter)
        for (kind, deed, roles, outcome), n in self.outcomes.items():
            rows[deed, roles, kind][outcome] += n
        names = sorted({o for r in rows.values() for o in r})
        print("# %-10s %-5s %-8s %s" % ("deed", "to", "held", "".join("%13s" % n for n in names)))
        for (deed, roles, kind), r in sorted(rows.items()):
            print(("# %-10s %-5s %-8s %s" % (deed, roles, kind, "".join(
                "%13s" % (r[n] or "") for n in names))).rstrip())
        print("# longest time without a reply:")
        for key, (stall, case) in sorted(self.stalls.items()):
            print("# %-10s %-5s %5.1f s  %s" % (*key, stall, case))
        ends = collections.Counter()
        for (_, _, _, outcome), n in self.outcomes.items():
            ends[outcome] += n
        print("# outcomes: %s" % ", ".join("%s %d" % x for x in sorted(ends.items())))
        for line in self.failed:  # at the end, where a CI shows it
            print("# FAILED %s" % line)


class Worker:
    """Plays one case after the other, in a place of its own."""

    def __init__(self):
        self.p = None
        self.ran = 0
        self.why = None  # the last failure, in a line

    def case(self, case):
        """(outcome, failure or None, stall)"""
        for _ in range(TRIES):
            try:
                run = Run(self._place(case), case)
                run.play()
                self.ran += 1
                if run.facts is not None:
                    run.check()
                    return run.outcome, None, run.stall
            except Exception as e:  # whatever it is, it is the case that failed
                self.why = str(e).split("\n", maxsplit=1)[0]
                failure = traceback.format_exc()
                if self.p is not None:
                    failure += self.p.story()
                    self.p.close()
                    self.p = None
                return "FAILED", failure, 0
        return "not reached", None, 0

    def _place(self, case):
        pace = place.HASTY if case.deed in FOR_TIMERS else place.PATIENT
        # whose daemons die soon is started later and later
        if self.p is not None and (self.p.pace != pace or self.ran == 60 or
                                   ": cold\n" in self.p.new_log()):
            self.finish()
        if self.p is None:
            self.p, self.ran = new_place(pace), 0
        return self.p

    def finish(self):
        if self.p is not None:
            p, self.p = self.p, None
            p.finish()


def new_place(pace=place.PATIENT):
    """A place that has seen two upgrades: from then on nothing may grow."""
    p = place.Place(pace)
    for version in "21":
        u = p.calm_upgrade(version)
        if u.code:
            raise AssertionError("%s\n%s" % (u.result, p.log()))
    p.wait_state("idle")
    p.first_kinds, p.first_files = p.kinds(), p.files()
    for _ in range(3):  # the last question's connection may be among them
        p.status()
        p.first_kinds &= p.kinds()
    return p


# ---- what is asked for

def quick(cases):
    """SIGKILL of each role alone, where a boundary is met for the first time: in a handoff, in
    a cold start, in an adoption; and some of the others, always the same. Without heartbeats:
    how many there are depends on time."""
    met = set()
    for c in cases:
        if c.boundary.name == "Heartbeat":
            continue
        if c.boundary.name.startswith("Carry") and c.boundary.name != "Carry":
            continue   # nothing differs between these and Carry
        key = (SCENARIOS[c.scenario].kind, c.boundary, c.roles)
        if c.deed == "kill" and len(c.roles) == 1:
            if key not in met:
                yield c
            met.add(key)
        elif c.number() % SAMPLE == 0:
            yield c


def choose(args):
    """The cases, in the order of the scenarios."""
    if any("/" in x for x in args.what):
        return [Case.parse(x) for x in args.what]
    seen = dry_runs(args.what or SCENARIOS)
    if not args.what:
        assert_complete(x for found in seen.values() for x in found)
    cases = [c for name, found in seen.items() for x in found for c in cases_at(name, x)]
    if args.quick:
        cases = list(quick(cases))
    i, n = (int(x) for x in args.slice.split("/"))
    random.Random(args.seed).shuffle(cases)
    return cases[i - 1::n]


def main():
    parser = argparse.ArgumentParser(usage=__doc__.strip())
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--slice", default="1/1")
    parser.add_argument("what", nargs="*")
    args = parser.parse_args()
    harness.install_handlers()
    if harness.may_have_a_network():
        harness.own_network()
    begin = time.monotonic()
    cases = choose(args)
    if args.list:
        print("\n".join(map(str, cases)))
        return 0
    print("# %d cases, seed %d, slice %s, times x %g" % (len(cases), args.seed, args.slice,
                                                         place.SCALE))
    m = Matrix(cases, args.jobs)
    try:
        m.run()
    except KeyboardInterrupt:
        print("Bail out! interrupted")
        return 130
    bad = m.report()
    m.table()
    print("# %d cases, seed %d, slice %s, %d s, %d boundaries, %d rows failed" %
          (m.count, args.seed, args.slice, time.monotonic() - begin, len(m.done), bad))
    return 1 if bad or not m.count else 0


if __name__ == "__main__":
    sys.exit(main())
