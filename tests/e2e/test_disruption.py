"""What a handoff costs its clients: stall, queues, drops; --max-stall."""

import contextlib
import json
import socket
import unittest

import harness
from handoffs import HandoffCase, TIMERS, faults

NEW = "kvd-v2"
# what is held for a while must not run into a limit on a slow machine
PATIENT = dict(TIMERS, **{"drain-grace": "40s", "deadline": "50s", "start-timeout": "50s",
                          "commit-timeout": "20s", "exit-timeout": "20s"})


class DisruptionCase(HandoffCase):
    def last(self, s):
        p = s.ctl("--json", "history", "kvd", "-n", "1")
        return json.loads(p.stdout)

    def held(self, s, *names):
        """An upgrade whose incumbent takes its time to drain: the pause has begun."""
        self.use(s, NEW, *names)
        u = s.start_upgrade()
        harness.wait_until(lambda: "fault: delay at drain" in s.log(), "the incumbent drains")
        return u

    def queue(self, record, listener):
        return next(q for q in record["queues"] if q["listener"] == listener)


class Queues(DisruptionCase):
    def setUp(self):
        self.clients = contextlib.ExitStack()
        self.addCleanup(self.clients.close)

    def connect(self, address, n):
        """n clients that say nothing; TCP's do not wait for their place."""
        for _ in range(n):
            family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
            c = self.clients.enter_context(socket.socket(family))
            if family == socket.AF_INET:
                c.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                c.connect(address)

    def test_deepest(self):
        s = self.service("kvd-v1", arguments=faults("drain:delay=2000"), options=PATIENT, start=False)
        s.listen["local"] = "unix:" + s.path("local.sock")
        s.configure()
        s.start()
        s.daemon_pid()
        # the queues are looked at behind Commit: the successor is to be slower than that
        u = self.held(s, "take:delay=500")
        self.connect(("127.0.0.1", s.port), 5)
        self.connect(s.path("local.sock"), 3)
        u.wait()
        self.assert_outcome(u, 0, "committed")
        r = self.last(s)
        tcp, unix = self.queue(r, "resp"), self.queue(r, "local")
        self.assertTrue(5 <= tcp["deepest"] <= tcp["backlog"], r)
        self.assertTrue(3 <= unix["deepest"] <= unix["backlog"], r)
        self.assertEqual((tcp["drops"], unix["drops"]), (0, 0))
        self.assertTrue(2000000 <= r["stall_us"] == u.result["stall_us"] <= r["total_us"], r)
        text = s.ctl("explain", "kvd").stdout
        self.assertIn("In the queue of resp %d of %d waited" % (tcp["deepest"], tcp["backlog"]), text)

    def test_drops(self):
        s = self.service("kvd-v1", start=False, text=lambda s: s._configuration().replace(
            'listen resp { ', 'listen resp { backlog = 1 '), options=PATIENT,
            arguments=faults("drain:delay=2000"))
        s.start()
        u = self.held(s)
        self.connect(("127.0.0.1", s.port), 8)
        u.wait()
        self.assert_outcome(u, 0, "committed")
        q = self.queue(self.last(s), "resp")
        self.assertGreater(q["drops"], 0, q)
        self.assertEqual(q["backlog"], 1)


class Stall(DisruptionCase):
    def test_of_an_abort(self):
        s = self.kvd("drain:delay=300", options=PATIENT)
        self.use(s, NEW, "ready:unhealthy")
        u = s.upgrade()
        self.assert_outcome(u, 1, "aborted")
        r = self.last(s)
        self.assertTrue(300000 <= r["stall_us"] == u.result["stall_us"] <= r["total_us"], r)

    def test_of_one_that_nobody_noticed(self):
        s = self.kvd()
        self.use(s, NEW, "warmup:die")
        self.assert_outcome(s.upgrade(), 1, "aborted")
        self.assertEqual(self.last(s)["stall_us"], 0)
        self.assertIn("No client had to wait.", s.ctl("explain", "kvd").stdout)

    def test_both_die(self):
        """It ends when the old binary serves again."""
        s = self.kvd("drain:die", options=PATIENT)
        self.use(s, NEW, "begin:delay=300", "begin:die")
        u = s.upgrade()
        self.assertIn(u.code, (1, 5), u.lines)
        cause = self.last(s)["failed"]["cause"]
        self.assertTrue(u.result["message"].startswith(cause + "; both daemons have died"), (u.result, cause))
        r = self.last(s)
        self.assertTrue(300000 <= r["stall_us"] <= r["total_us"], "%s\n%s" % (r, s.log()))

    def test_max_stall(self):
        s = self.kvd("drain:delay=300", options=PATIENT)
        self.use(s, NEW, "drain:delay=300")
        self.assertEqual(s.upgrade("--max-stall", "never").code, 2)
        u = s.upgrade("--max-stall", "100ms")   # nothing is known yet
        self.assert_outcome(u, 7, "committed")
        self.assertIn("over the 100 ms of --max-stall", u.result["message"])
        self.assertEqual(self.last(s)["code"], 7)
        # that was of another build
        self.assertEqual(self.plan(s, "100ms")[0], 0)
        self.assert_outcome(s.upgrade("--max-stall", "100ms"), 7, "committed")
        pid = s.daemon_pid()
        u = s.upgrade("--max-stall", "100ms")
        self.assert_outcome(u, 1, "refused")
        self.assertIn("cannot be met", u.result["message"])
        self.assertIn("; an upgrade without --max-stall measures it anew", u.result["message"])
        self.assertEqual((s.daemon_pid(), self.last(s)["number"]), (pid, 2))
        code, starts, message = self.plan(s, "100ms")
        self.assertEqual((code, starts), (1, True))
        self.assertIn("an upgrade would be refused: --max-stall 100 ms cannot be met", message)
        p = s.ctl("plan", "kvd", "--max-stall", "100ms")
        self.assertEqual(p.returncode, 1)
        self.assertNotIn("journalctl", p.stderr)   # nothing is wrong with the successor
        self.assertEqual(self.plan(s, "1h")[0], 0)
        # a script that is run again after status 7 has nothing to do
        s.wait_status(lambda x: x["state"] == "idle" and x["sha256"], "what runs is hashed")
        self.assert_outcome(s.upgrade("--if-changed", "--max-stall", "100ms"), 0, "unchanged")
        s.configure(environment=["COLOUR=blue"])
        u = s.upgrade("--if-changed", "--max-stall", "100ms")
        self.assert_outcome(u, 1, "refused")
        self.assertIn("measures it anew; the daemon was not asked, it serves on", u.result["message"])
        u = s.upgrade("--max-stall", "1h")
        self.assert_outcome(u, 0, "committed")

    def plan(self, s, max_stall):
        """Its status, whether the successor started, what is said."""
        p = s.ctl("--json", "plan", "kvd", "--max-stall", max_stall)
        plan, result = [json.loads(x) for x in p.stdout.splitlines()][-2:]
        return p.returncode, plan["starts"], result["message"]


if __name__ == "__main__":
    unittest.main()
