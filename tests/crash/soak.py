#!/usr/bin/python3
"""Upgrades under load for a long time, with random faults on everybody.

usage: soak.py [--seconds N] [--seed N]

Half of the upgrades have bad binaries; in most of them somebody is killed or stopped at a random
boundary, or an operator aborts. After each somebody serves, and what was said of the upgrade is
true. No request fails in a round in which nobody who serves, or may serve, was killed or stopped:
that the supervisor or a successor goes is noticed by nobody. At the end nothing that was acknowledged
is lost, and nothing has grown: descriptors, memory, zombies, files, cgroups.
$CRASH_SCALE and $BUILD_DIR as for run.py.
"""

import argparse
import collections
import os
import random
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import place  # noqa: E402
import harness  # noqa: E402
import checks  # noqa: E402
from cases import Case, Upgrade, play  # noqa: E402
from run import LOAD, dry_runs, new_place  # noqa: E402

# Beside each round's: what it remembers was acknowledged long ago. Nothing is stopped for so long
# that it gives up.
LONG_LOAD = ("--keepalive", "10", "--keepalive-rate", "200", "--fresh-rate", "0", "--keys", "2000",
             "--timeout", "60")
CHECKS = [checks.somebody_serves, checks.who_serves_is_said, checks.outcome_is_true,
          checks.answer_is_true, checks.no_write_is_lost, checks.no_request_fails,
          checks.no_process_is_left, checks.no_file_is_left, checks.no_cgroup_is_left]
HEAP = 128  # kB: a heap settles (see tests/bench/soak.c)
SETTLED = 60  # seconds after which memory counts, or a third of the time
PACE = 2 * place.SCALE  # times the shortest timers: an upgrade that nobody disturbs meets them


class NoDaemon(Upgrade):
    """A program that knows nothing of handoff, and stays."""

    def start(self, p):
        path = p.path("bin", "no-daemon")
        with open(path, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\nexec sleep 1000\n")
        os.chmod(path, 0o755)
        return p.start_upgrade("--binary", path)


GOOD = {"good": Upgrade()}
BAD = {
    "exits": Upgrade(new=["start:exit1"], ends="aborted"),
    "unhealthy": Upgrade(new=["ready:unhealthy"], ends="aborted"),
    "hangs": Upgrade(new=["begin:hang"], ends="aborted"),
    "no daemon": NoDaemon(ends="aborted"),
}
# (deed, who, how often): the supervisor dies more rarely, so that it can grow
DEEDS = [(None, "", 8), ("kill", "O", 4), ("kill", "N", 4), ("kill", "ON", 2), ("kill", "S", 1),
         ("kill", "SN", 1), ("kill", "SON", 1), ("stop", "O", 2), ("stop", "N", 2),
         ("stop", "S", 2), ("stop-kill", "O", 1), ("stop-kill", "N", 1), ("abort", "", 4)]


class Round:
    """One upgrade, in the form that checks.py reads."""

    def __init__(self, p, rng, boundaries):
        self.p = p
        table = rng.choice((GOOD, BAD))
        self.name = rng.choice(sorted(table))
        self.scenario = table[self.name]
        deed, roles, _ = rng.choices(DEEDS, [n for _, _, n in DEEDS])[0]
        at = [x.boundary for x in boundaries if set(roles) <= x.alive]
        boundary = rng.choice(at) if deed else None
        self.case = Case(self.name, boundary, deed, roles or (boundary.role if boundary else ""))

    def play(self):
        self.load = self.p.load(*LOAD)
        self.before, u, self.answer, self.facts = play(self.p, self.case, self.scenario)
        self.result, self.code, self.lines = u.result, u.code, u.lines
        for check in CHECKS:
            check(self)

    def text(self):
        return "%s, %s, %s %s" % (self.name, self.case.boundary, self.case.deed, self.case.roles)


# ---- what must not grow

def anonymous(pid):
    """kB of heap, stack and data."""
    return sum(int(x.split()[1]) for x in
               harness.read_file("/proc/%d/smaps_rollup" % pid).splitlines()
               if x.startswith("Anonymous:"))


def counts(p, daemon):
    pid = p.supervisor.pid
    return {"descriptors of handoffd": sum(p.kinds().values()),
            "descriptors of the daemon, connections apart": sum(
                not x.startswith("socket:") for x in harness.descriptors(daemon).values()),
            "heap, stack, data of handoffd, kB": anonymous(pid),
            "children of handoffd": len(harness.children(pid)),
            "zombies": len(harness.zombies(pid)),
            "files in runtime and state directory": len(p.files()),
            "copies of executables": max(len(p.copies()), 2),
            "cgroups": len(p.groups()),
            "processes of the service": len(p.kvds())}


def settled(p):
    """One daemon, from upgrades that nobody disturbed."""
    for _ in range(2):
        u = p.calm_upgrade(p.other(p.info()["version"][0]))
        checks.require(u.code == 0, "%s\n%s", u.result, u.errors())
        p.wait_state("idle")
    pid = p.info()["pid"]
    harness.wait_until(lambda: [x.pid for x in p.kvds()] == [pid] and
                       not harness.zombies(p.supervisor.pid), "all else is gone")
    samples = [counts(p, pid) for _ in range(10)]  # a question's connection may just be ending
    return {k: min(s[k] for s in samples) for k in samples[0]}


def compare(first, last):
    """A TAP row for each; how many have grown."""
    bad = 0
    for i, name in enumerate(first, 2):
        good = last[name] <= first[name] + (HEAP if name.endswith("kB") else 0)
        bad += not good
        print("%s %d - %s: %d, then %d" % ("ok" if good else "not ok", i, name, first[name],
                                           last[name]))
    return bad


def soak(seconds, seed):
    rng = random.Random(seed)
    boundaries = dry_runs(["upgrade"])["upgrade"]
    p = new_place(PACE)
    load = p.load(*LONG_LOAD)
    begin = time.monotonic()
    first, tally = None, collections.Counter()
    while time.monotonic() < begin + seconds:
        r = Round(p, rng, boundaries)
        try:
            r.play()
        except AssertionError as e:
            text = "%s\n%s\n%s" % (r.text(), e, p.story())
            print("not ok 1 - rounds\n# %s" % text.replace("\n", "\n# "))
            return 1
        tally[r.name, r.case.deed or "", r.case.roles, r.result["outcome"]] += 1
        if first is None and time.monotonic() > begin + min(SETTLED, seconds / 3):
            first = settled(p)
    if first is None:
        first = settled(p)
    last = settled(p)
    result = load.stop()
    verify = load.verify()["verify"]
    lost = result["lost_writes"] + result["wrong_values"] + verify["lost"] + verify["wrong"]
    good = not lost and p.verify_logs().returncode == 0
    print("%s 1 - %d rounds in %d s, seed %d; %d writes acknowledged by who remembers all, %d lost" %
          ("ok" if good else "not ok", sum(tally.values()), time.monotonic() - begin, seed,
           result["acked_writes"], lost))
    bad = compare(first, last) + (not good)
    for key, n in sorted(tally.items()):
        print("# %-10s %-10s %-4s %-12s %5d" % (*key, n))
    p.finish()
    return 1 if bad else 0


def main():
    parser = argparse.ArgumentParser(usage=__doc__.strip())
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    args = parser.parse_args()
    harness.install_handlers()
    if harness.may_have_a_network():
        harness.own_network()
    print("# %g s, seed %d" % (args.seconds, args.seed))
    return soak(args.seconds, args.seed)


if __name__ == "__main__":
    sys.exit(main())
