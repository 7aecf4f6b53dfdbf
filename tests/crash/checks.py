"""What must hold after every case of the matrix: one function per check, all of them in CHECKS.

Each is given the Run: the place p, the case, the scenario, before (who served: pid and version),
result (what handoffctl said, or None), the facts of the trace, and the load. It raises
AssertionError, and may note something in the Run for the table.
"""

import harness
from cases import law

PATIENCE = harness.PATIENCE  # a test of this file may shorten it
BOUND = PATIENCE  # seconds in which somebody serves again; the table says the longest
NEWCOMER_US = 5000  # of examples/kvd/net.c
CODES = {"committed": {0}, "aborted": {1, 5}, "rolled back": {1, 5}, "refused": {1, 4, 5},
         "unknown": {6}, "plan": {0, 1}, "replaced": {0}}


def require(right, text, *args):
    if not right:
        raise AssertionError(text % args)


def somebody_serves(r):
    """A fresh client is answered within the bound."""
    harness.wait_until(r.p.info, "somebody serves", BOUND)


def who_serves_is_said(r):
    """handoffctl status names the process that answers, and its version."""
    status = r.p.wait_state("idle")
    r.now = harness.wait_until(r.p.info, "somebody serves", BOUND)
    said = {"pid": status["pid"], "version": status["version"]}
    require(said == r.now, "status says %s, %s answers", said, r.now)


def outcome_is_true(r):
    """Committed if and only if the successor's version serves; its exit code; `status` agrees."""
    if r.scenario.ends is None:
        require(r.now["version"] == r.before["version"], "it was %s, it is %s", r.before, r.now)
        return
    if r.result is None and "T" in r.case.roles:   # it was killed
        return
    require(r.result is not None, "handoffctl ended without a result: %s", r.lines)
    outcome = r.result["outcome"]
    # 5 as well if the successor that was committed has died in the meantime, too
    codes = CODES[outcome] | ({5} if r.facts and r.now["pid"] != r.facts.successor else set())
    require(r.code in codes and r.code == r.result["code"], "exit code %s: %s", r.code, r.result)
    new = r.now["version"] != r.before["version"]
    require(new == (outcome == "committed"), "%s, and before was %s, now is %s", r.result,
            r.before, r.now)
    last = r.p.status()["last"]
    if last and last["handoff"] == r.result.get("handoff"):
        require(last["outcome"] == outcome, "status says %s, the result was %s", last, r.result)


def outcome_is_lawful(r):
    """It is one that the rules allow for this case."""
    if r.scenario.ends in (None, "plan") or r.result is None:
        return
    allowed = law(r.case, r.scenario.ends, r.facts)
    require(r.result["outcome"] in allowed, "%s, allowed are %s: %s", r.result["outcome"],
            sorted(allowed), r.result)


def answer_is_true(r):
    """Who asked for an abort, or for a re-exec, with 0 has got it."""
    if r.answer == 0 and r.case.deed == "reexec":
        require(r.facts.replaced, "the same handoffd, the re-exec was answered with 0")
    elif r.answer == 0 and r.result is not None:
        require(r.result["outcome"] != "committed", "the abort was answered with 0: %s", r.result)
    elif r.case.deed == "reexec":
        require(r.answer in (1, 4, 5), "the re-exec was answered with %s", r.answer)


def next_upgrade_commits(r):
    """What failed before leaves nothing behind that makes the next one fail."""
    version = r.p.other(r.now["version"][0])
    u = r.p.calm_upgrade(version)
    if u.code == 4:  # who asked has lost its connection, and what was asked for goes on
        r.p.wait_state("idle")
        u = r.p.calm_upgrade(version)
    if u.code == 1 and "--fault=seal:fail" in u.result["message"]:
        u = r.p.calm_upgrade(version)  # the incumbent's one failure was still to come
    require(u.code == 0, "the next upgrade: %s\n%s", u.result or u.lines, u.errors())
    status = r.p.wait_state("idle")
    require(status["version"] == version + ".0", "the next upgrade: %s", status)
    r.now = r.p.info()
    require(r.now == {"pid": status["pid"], "version": status["version"]}, "%s, %s", r.now, status)


def no_write_is_lost(r):
    """Everything that was acknowledged is still there, and nothing that was never written."""
    load = r.load.stop()
    bad = {k: load[k] for k in ("lost_writes", "wrong_values") if load[k]}
    require(not bad, "%s\n%s", bad, r.load.errors())
    verify = r.load.verify()["verify"]
    require((verify["lost"], verify["wrong"], verify["error"]) == (0, 0, None), "%s\n%s", verify,
            r.load.errors())
    r.stall = load["stall_us"] / 1e6


def no_request_fails(r):
    """As long as nobody who serves was hurt. kvd waits a moment for the request of who has just
    come (NEWCOMER_MS), and a load that itself was late by more may come too late for that."""
    hurt = "O" in r.case.roles or ("N" in r.case.roles and r.facts and r.facts.maybe_serving)
    if r.scenario.ends is None or (hurt and r.case.deed != "abort"):
        return
    load = r.load.stop()
    excused = load["fresh"]["reset"] if load["lag_us"] > NEWCOMER_US else 0
    require(load["failed"] <= excused, "%s requests failed: %s\n%s", load["failed"], load,
            r.load.errors())


def no_connection_is_lost(r):
    """Those that stay open are those of the beginning, unless everybody who had them was hurt: the
    incumbent until it has sealed, then also the successor, who has them alone once it says so."""
    f, outcome = r.facts, r.result and r.result["outcome"]
    # who goes on without the incumbent has all that it had given
    had = not (r.case.roles == "O" and f.given and outcome == "committed")
    hurt = r.case.deed != "abort" and ("O" in r.case.roles and had or
                                       "N" in r.case.roles and f.maybe_serving)
    died = outcome != "aborted" and "rolled back" in (outcome, r.scenario.ends)
    if r.scenario.kind == "a cold start" or hurt or died:
        return
    load = r.load.stop()
    kept = load["keepalive"]
    require(not kept["lost"] + kept["closed_idle"], "connections were lost: %s\n%s", kept,
            r.load.errors())


def has_met_another(r):
    """A kvd has found that it is not the only writer."""
    return any(text in r.p.new_log()
               for text in ("another process writes here", "is not the writer any more"))


def one_writer(r):
    """The log's epochs only grow, and each segment begins where the one before ended: two
    writers would have left records of an older epoch, or a chain that does not fit. And none
    has met another: it looks at the log's size before each write, at its epoch when it opens."""
    require(not has_met_another(r), "two writers: %s", r.p.new_log())
    v = r.p.verify_logs()
    require(v.returncode == 0, "kvd --verify: %s", v.stdout)


def no_process_is_left(r):
    """One daemon, its supervisor, and no zombie."""
    pid = r.now["pid"]
    harness.wait_until(lambda: [x.pid for x in r.p.kvds()] == [pid],
                       "one daemon (%d) is left: %s" % (pid, r.p.kvds()), PATIENCE)
    harness.wait_until(lambda: not harness.zombies(r.p.supervisor.pid),
                       "no zombie: %s" % harness.zombies(r.p.supervisor.pid), PATIENCE)


def no_descriptor_is_left(r):
    """handoffd has as many of each kind as before, or fewer."""
    harness.wait_until(lambda: not r.p.kinds() - r.p.first_kinds,
                       "more descriptors: %s, at first %s" % (r.p.kinds(), r.p.first_kinds),
                       PATIENCE)


def no_file_is_left(r):
    """The runtime and the state directory hold the files that they held, and two executables at
    most: the current one's copy and the previous one's."""
    harness.wait_until(lambda: not r.p.files() - r.p.first_files,
                       lambda: "files are left: %s" % (r.p.files() - r.p.first_files), PATIENCE)
    harness.wait_until(lambda: len(r.p.copies()) <= 2, "copies are left: %s" % r.p.copies(),
                       PATIENCE)


def no_cgroup_is_left(r):
    """One generation, one group."""
    if r.p.group:
        harness.wait_until(lambda: len(r.p.groups()) == 1, "one cgroup: %s" % r.p.groups(), PATIENCE)


CHECKS = [somebody_serves, who_serves_is_said, outcome_is_true, outcome_is_lawful, answer_is_true,
          next_upgrade_commits, no_write_is_lost, no_request_fails, no_connection_is_lost,
          one_writer, no_process_is_left, no_descriptor_is_left, no_file_is_left,
          no_cgroup_is_left]
