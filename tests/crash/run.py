#!/usr/bin/python3
"""The crash matrix, with real processes under load.

usage: run.py [--quick] [--seed N] [--jobs N] [--part I/N] [--list] [SCENARIO | CASE]...

A dry run of each scenario finds the boundaries: every message, sent and received, and every
record, before and after. At each of them, in random order, each deed is done to each role and
to pairs and triples of roles; then the checks. Prints a row for each boundary (TAP), the cases
that failed, and what the outcomes were. A case is run again by its name.

  --quick    SIGKILL of each role alone, at each boundary that is new in its scenario
  --jobs N   services at a time (3)
  --part I/N only that part of the cases
  --list     the cases' names
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
from cases import SCENARIOS, Case, cases_at, play  # noqa: E402
from checks import CHECKS  # noqa: E402

TRIES = 3  # for a boundary that is not reached: what depends on time may come another way
LOAD = ("--keepalive", "10", "--keepalive-rate", "400", "--fresh-rate", "100", "--keys", "200")


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
        """The scenario under load, with the deed if the boundary is reached; then the checks."""
        self.scenario.prepare(self.p)
        self.p.wait_state("idle")
        self.load = self.p.load(*LOAD)
        self.before, u, self.aborted, self.facts = play(self.p, self.case, self.scenario)
        if self.facts is None:
            self.load.stop()
            return
        if u is not None:
            self.result, self.code, self.lines = u.result, u.code, u.lines
        for check in CHECKS:
            check(self)
        self.outcome = self.result["outcome"] if self.result else "serves"


# ---- the dry run

def dry_run(name):
    """What a scenario passes in two runs, as it was seen in the first."""
    p = place.Place()
    try:
        traces = []
        for _ in range(2):
            SCENARIOS[name].prepare(p)
            p.wait_state("idle")
            p.arm(None, look=True)
            u = SCENARIOS[name].start(p)
            if u is not None:
                u.wait()
                want = SCENARIOS[name].ends
                if u.result is None or u.result["outcome"] != want:
                    raise AssertionError("%s without a deed: %s\n%s" % (name, u.result, p.log()))
            while True:  # until nothing more comes
                n = len(p.controller.trace)
                p.wait_state("idle")
                if not p.controller.wait(lambda n=n: len(p.controller.trace) > n, 0.3):
                    break
            traces.append([x for x in p.controller.trace
                           if x.boundary.name != "Heartbeat" or x.boundary.nth == 1])
        p.finish()
    finally:
        p.close()
    both = {x.boundary for x in traces[1]}
    return [x for x in traces[0] if x.boundary in both]


def assert_complete(seen):
    """Every message between a daemon and a supervisor, and every record, on both sides of both
    of its ends: in the table msg.def and among the boundaries."""
    table = msgdef.load(os.path.join(HERE, "..", "..", "src", "proto", "msg.def"))
    have = {(b.when, b.op, b.name.split("(")[0]) for b in (x.boundary for x in seen)}
    want = {(w, op, m.name) for m in table for w in ("before", "after")
            for op in (("write",) if m.type >= 128 else ("send", "recv"))
            if m.type < 64 or m.type >= 128}
    # who is refused is killed in the same breath, and reads it or not
    want -= {("before", "recv", "Abort"), ("after", "recv", "Abort")}
    if want - have:
        raise AssertionError("no scenario passes: %s" % sorted(want - have))


# ---- many cases

class Matrix:
    def __init__(self, cases, jobs):
        self.todo = list(cases)
        self.jobs = jobs
        self.lock = threading.Lock()
        self.outcomes = collections.Counter()  # (class of boundary, deed, roles, outcome)
        self.done = collections.defaultdict(list)  # boundary: [(case, outcome, failure)]
        self.stalls = {}  # (deed, roles): (seconds, case)
        self.count = 0

    def run(self):
        # daemons: an interrupt ends the program, and atexit all that it has started
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.jobs)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    def _next(self):
        with self.lock:
            return self.todo.pop() if self.todo else None

    def _work(self):
        p, ran = None, 0
        while (case := self._next()) is not None:
            for _ in range(TRIES):
                outcome, failure, stall = "FAILED", None, 0
                try:
                    if p is None:
                        p, ran = new_place(), 0
                    run = Run(p, case)
                    run.play()
                    outcome, stall = run.outcome, run.stall
                    ran += 1
                    # whose daemons die soon is started later and later
                    if ran == 60 or ": cold\n" in p.new_log():
                        p.finish()
                        p = None
                except Exception:  # whatever it is, it is the case that failed
                    failure = traceback.format_exc()
                    if p is not None:
                        failure += p.story()
                        p.close()
                        p = None
                if failure or outcome != "not reached":
                    break
            self._note(case, outcome, failure, stall)
        if p is not None:
            p.finish()

    def _note(self, case, outcome, failure, stall):
        b = case.boundary
        with self.lock:
            self.count += 1
            self.done[case.scenario, b].append((case, outcome, failure))
            kind = "%s %s" % (b.role, "write" if b.op == "write" else b.op)
            self.outcomes[kind, case.deed, case.roles, outcome] += 1
            before = self.stalls.get((case.deed, case.roles), (0, ""))
            self.stalls[case.deed, case.roles] = max(before, (stall, str(case)))
            if failure:
                print("# FAILED %s\n%s" % (case, "\n".join("#   " + x for x in
                                                           failure.splitlines())))
            elif self.count % 50 == 0:
                print("# %d done, %d to do" % (self.count, len(self.todo)))
            sys.stdout.flush()

    def report(self):
        """A row for each boundary; the number of those that failed."""
        bad = 0
        for i, (key, cases) in enumerate(sorted(self.done.items(), key=str), 1):
            good = all(not f for _, _, f in cases) and any(o != "not reached" for _, o, _ in cases)
            bad += not good
            ends = collections.Counter("%s %s: %s" % (c.deed, c.roles, o) for c, o, _ in cases)
            print("%s %d - %s %s (%s)" % ("ok" if good else "not ok", i, key[0], key[1],
                                          "; ".join(sorted(ends))))
        print("1..%d" % len(self.done))
        return bad

    def table(self):
        """Who stood where, what was done to whom, what came of it."""
        rows = collections.defaultdict(collections.Counter)
        for (kind, deed, roles, outcome), n in self.outcomes.items():
            rows[deed, roles, kind][outcome] += n
        names = sorted({o for r in rows.values() for o in r})
        print("# %-10s %-5s %-8s %s" % ("deed", "to", "held", "".join("%13s" % n for n in names)))
        for (deed, roles, kind), r in sorted(rows.items()):
            print("# %-10s %-5s %-8s %s" % (deed, roles, kind,
                                            "".join("%13s" % (r[n] or "") for n in names)))
        print("# longest time without a reply:")
        for key, (stall, case) in sorted(self.stalls.items()):
            print("# %-10s %-5s %5.1f s  %s" % (*key, stall, case))


def new_place():
    """A place that has seen two upgrades: from then on nothing may grow."""
    p = place.Place()
    for version in "21":
        u = p.calm_upgrade(version)
        if u.code:
            raise AssertionError("%s\n%s" % (u.result, p.log()))
    p.wait_state("idle")
    p.first_kinds, p.first_files = p.kinds(), p.files()
    return p


# ---- what is asked for

def quick(cases, first):
    """SIGKILL of each role alone, where a boundary is met for the first time: in a handoff, in
    a cold start, in an adoption."""
    for c in cases:
        where = c.scenario if SCENARIOS[c.scenario].ends is None else "a handoff"
        key = (where, c.boundary)
        if c.deed == "kill" and len(c.roles) == 1 and first.setdefault(key, c.scenario) == c.scenario:
            yield c


def choose(args):
    """The cases, in the order of the scenarios."""
    if any("/" in x for x in args.what):
        return [Case.parse(x) for x in args.what]
    cases, seen, first = [], [], {}
    for name in args.what or SCENARIOS:
        found = dry_run(name)
        seen += found
        mine = [c for x in found for c in cases_at(name, x)]
        cases += quick(mine, first) if args.quick else mine
    if not args.what:
        assert_complete(seen)
    i, n = (int(x) for x in args.part.split("/"))
    random.Random(args.seed).shuffle(cases)
    return cases[i - 1::n]


def main():
    parser = argparse.ArgumentParser(usage=__doc__.strip())
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("what", nargs="*")
    args = parser.parse_args()
    harness.install_handlers()
    begin = time.monotonic()
    cases = choose(args)
    if args.list:
        print("\n".join(map(str, cases)))
        return 0
    print("# %d cases, seed %d, times x %g" % (len(cases), args.seed, place.SCALE))
    m = Matrix(cases, args.jobs)
    m.run()
    bad = m.report()
    m.table()
    print("# %d cases, seed %d, %d s, %d boundaries, %d of them failed" %
          (m.count, args.seed, time.monotonic() - begin, len(m.done), bad))
    return 1 if bad or not m.count else 0


if __name__ == "__main__":
    sys.exit(main())
