"""handoffctl plan says beforehand what an upgrade would be, and touches nothing."""

import hashlib
import json
import os
import socket
import statistics
import unittest

import harness
from fakesupervisor import Case, HANDOFF, HISTORY, PLAN, PLANNED, frame, result
from handoffs import HandoffCase

NEW, OLD = "kvd-v2", "kvd-v1"


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


class Plans(HandoffCase):
    def plan(self, s, *args, code=0):
        """The object, and the result behind it."""
        p = s.ctl("--json", "plan", s.name, *args)
        self.assertEqual(p.returncode, code, p.stdout + p.stderr)
        lines = [json.loads(x) for x in p.stdout.splitlines()]
        self.assertEqual([x["event"] for x in lines[-2:]], ["plan", "result"])
        self.assertEqual(lines[-2]["handoff"], lines[-1]["handoff"])
        return lines[-2], lines[-1]

    def wait_sums(self, s):
        return s.wait_status(lambda x: x["state"] == "idle" and x["sha256"], "what runs is hashed")

    def test_which_bytes(self):
        s = self.kvd()
        status = self.wait_sums(s)
        plan, said = self.plan(s)
        self.assertEqual((plan["changed"], plan["sha256"]), (False, status["sha256"]))
        self.assertEqual(plan["from"], {"pid": status["pid"], "build": status["build"], "version": "1.0",
                                        "binary": s.binary})
        self.assertEqual((plan["starts"], plan["protocol"], plan["capabilities"]),
                         (True, 1, ["connections"]))
        self.assertGreater(plan["start_us"], 0)
        self.assertIn("would go ahead", said["message"])
        s.install(NEW)
        plan, _ = self.plan(s)
        self.assertEqual((plan["changed"], plan["sha256"]), (True, sha256(s.binary)))
        self.assertEqual((plan["to"]["version"], plan["to"]["binary"], plan["to"]["pid"]), ("2.0", s.binary, None))
        s.install(OLD)
        other = harness.program(NEW)
        plan, _ = self.plan(s, "--binary", other)
        self.assertEqual((plan["changed"], plan["to"]["binary"]), (True, other))
        p = s.ctl("plan", "kvd", "--binary", other)
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        for words in (other + " (it, a file", "sha256        " + sha256(other), "version       2.0",
                      "to its first message", "1, connections", "not known: no handoff"):
            self.assertIn(words, p.stdout)
        self.assertEqual((s.status()["pid"], s.status()["last"]), (status["pid"], None))

    def test_one_that_goes_well_aborts_nothing(self):
        s = self.kvd()
        p = s.ctl("--json", "plan", "kvd")
        self.assertEqual([x["phase"] for x in map(json.loads, p.stdout.splitlines()) if x["event"] == "phase"],
                         ["starting", "warm"])
        self.assertNotRegex(s.ctl("plan", "kvd").stdout, "s  abort\n")
        self.assertNotIn("abort", s.log())

    def test_the_start_fails(self):
        """What was known before it is told all the same."""
        s = self.kvd()
        self.wait_sums(s)
        self.use(s, NEW, "hello:die")
        plan, said = self.plan(s, code=1)
        self.assertEqual((plan["starts"], plan["changed"], plan["sha256"], plan["start_us"], plan["protocol"],
                          plan["capabilities"], plan["to"]["version"]),
                         (False, True, sha256(s.binary), None, None, None, None))
        self.assertIn("would fail", said["message"])
        self.assertIn("what it wrote: journalctl -u handoff@kvd, or the file that `output` names", s.ctl("plan", "kvd").stderr)
        self.assert_serves(s, "1.0")

    def test_the_pause(self):
        s = self.kvd()
        plan, _ = self.plan(s)
        self.assertEqual((plan["handoffs"], plan["pause_median_us"], plan["pause_max_us"]), (0, None, None))
        pauses = [self.upgrade(s, NEW).result["pause_us"] for _ in range(3)]
        self.use(s, NEW, "ready:unhealthy")
        self.assertEqual(s.upgrade().code, 1)   # which tells nothing
        self.use(s, NEW)
        plan, _ = self.plan(s)
        self.assertEqual((plan["handoffs"], plan["pause_median_us"], plan["pause_max_us"]),
                         (3, statistics.median(pauses), max(pauses)))
        self.assertEqual(plan["deadline_ms"], 2000)
        self.assertIn("of the last 3 that committed", s.ctl("plan", "kvd").stdout)

    def test_listeners_that_come_and_go(self):
        s = self.kvd()
        old, path = "resp " + s.listen["resp"], s.path("admin.sock")
        s.listen = {"resp": "tcp:127.0.0.1:%d" % harness.free_port(), "admin": "unix:" + path}
        s.configure()
        plan, _ = self.plan(s)
        self.assertEqual((plan["added"], plan["dropped"]),
                         (["resp " + s.listen["resp"], "admin unix:" + path], [old]))
        self.assertFalse(os.path.exists(path))
        self.assertEqual(s.status()["listeners"], [old])
        s.listen = {"l%d" % i: "unix:@%s.%d" % (s.dir, i) for i in range(40)}
        s.configure()
        plan, _ = self.plan(s)
        self.assertEqual((len(plan["added"]), plan["added"][-1]), (17, "..."))

    def test_a_listener_that_cannot_be_bound(self):
        """It is refused in the words of the upgrade."""
        s = self.kvd()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            s.listen["two"] = "tcp:127.0.0.1:%d" % taken.getsockname()[1]
            s.configure()
            said = "refused: listener two (%s): address in use: find its owner" % s.listen["two"]
            for command in ("plan", "upgrade"):
                p = s.ctl(command, "kvd")
                self.assertEqual((p.returncode, p.stdout), (2, ""))
                self.assertIn(said, p.stderr)
        self.assert_serves(s, "1.0")

    def test_limits(self):
        with open("/proc/sys/net/core/somaxconn", encoding="ascii") as f:
            cap = int(f.read())

        def with_backlog(n):
            return lambda s: s._configuration().replace("listen resp {", "listen resp { backlog = %d" % n)
        s = self.kvd(text=with_backlog(cap))
        self.assertEqual(self.plan(s)[0]["limits"], [])
        s.text = with_backlog(cap + 1)
        s.configure(limit_nofile=4)
        plan, _ = self.plan(s, code=1)   # with so few it cannot even start
        self.assertEqual(len(plan["limits"]), 2, plan)
        self.assertIn("the backlog of resp, %d, is more than net.core.somaxconn: %d is what counts" % (cap + 1, cap),
                      plan["limits"][0])
        self.assertRegex(plan["limits"][1], "the daemon has [0-9]+ descriptors open, its successor may have 4 ")
        p = s.ctl("plan", "kvd")
        self.assertIn("limits        " + plan["limits"][0], p.stdout)


class Played(Case):
    """A history that a test cannot make come true in time."""

    def history(self, *records):
        def handle(connection, kind, fields):
            if kind == HISTORY:
                before = fields.get(1, len(records) + 1)
                connection.send(*[frame(HANDOFF, {0: bytes(15) + bytes([n]), 1: n, **records[n - 1]})
                                  for n in range(before - 1, 0, -1)], result(0, "history", ""))
            else:
                self.assertEqual(kind, PLAN)
                connection.send(frame(PLANNED, {0: fields[0], 1: "/bin/new", 9: 10000, 13: ["resp", "quiet"],
                                                14: [100, 100]}), result(0, "plan", "yes", fields[0]))
        self.supervisor(handle)
        _code, lines = self.json("plan", "kvd")
        return lines[0]

    def committed(self, pause, stall=0, deepest=0):
        return {4: "committed", 17: pause, 29: stall, 32: ["resp", "quiet"], 33: [deepest, 0], 34: [100, 100],
                35: [0, 0]}

    def test_a_queue_that_would_be_full(self):
        plan = self.history(self.committed(1000, 50000, 2), self.committed(3000, 100000, 20),
                            self.committed(2000, 0, 50))
        self.assertEqual((plan["handoffs"], plan["pause_median_us"], plan["pause_max_us"]), (3, 2000, 3000))
        self.assertEqual(plan["limits"], [
            "at 200 connections a second, the most of the last handoffs, the queue of resp (100 places) is full "
            "after 500 ms, and deadline allows 10000 ms; raise its backlog, or lower deadline"])

    def test_a_queue_that_is_long_enough(self):
        self.assertEqual(self.history(self.committed(1000, 1000000, 9))["limits"], [])

    def test_nothing_is_remembered(self):
        plan = self.history()
        self.assertEqual((plan["handoffs"], plan["starts"], plan["changed"], plan["limits"]), (0, False, None, []))

    def test_no_history_is_told(self):
        def handle(connection, kind, fields):
            if kind == PLAN:
                connection.send(frame(PLANNED, {0: fields[0], 1: "/bin/new", 9: 10000}),
                                result(0, "plan", "yes", fields[0]))
        self.supervisor(handle)
        code, lines = self.json("plan", "kvd")
        self.assertEqual((code, lines[0]["handoffs"], lines[0]["pause_max_us"]), (0, None, None))


if __name__ == "__main__":
    unittest.main()
