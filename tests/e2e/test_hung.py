"""A hung incumbent: what is told of it while it hangs, what gets out of it, what is remembered."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import time
import unittest

import harness
from badinput import BEGIN, D_STATUS, HEARTBEAT, READY, RESUME, frame
from handoffs import HandoffCase, PATIENT
from test_rules import RuleCase, SOON

NEW = "kvd-v2"
# The pause has an end, what follows it has none: the daemon comes back, or goes, when the test wants it.
ENDLESS = {"start-timeout": "10min"}
SERVES = re.compile("^handoff_serving{.*} ([01])$", re.M)


class HungCase(HandoffCase):
    def hung(self, options, phase):
        """A service whose daemon is stopped, and an upgrade of it that has come to this phase."""
        s = self.kvd(options=options)
        self.use(s, NEW)
        s.hung = s.daemon_pid()
        os.kill(s.hung, signal.SIGSTOP)
        self.addCleanup(self.go_on, s)
        u = s.start_upgrade()
        u.wait_phase(phase)
        return s, u

    @staticmethod
    def go_on(s):
        if harness.is_alive(s.hung):
            os.kill(s.hung, signal.SIGCONT)

    def served(self, s):
        """What each of them says; they must not differ."""
        said = s.status()["serves"]
        first = s.ctl("status", "kvd").stdout.splitlines()[0]
        number = SERVES.search(s.ctl("metrics").stdout)[1]
        self.assertEqual((first.endswith(", served"), number), (said, "01"[said]), first)
        return said

    def last(self, s):
        return json.loads(s.ctl("--json", "history", "kvd", "-n", "1").stdout)


class Told(HungCase):
    def test_nobody_serves(self):
        """It was told to serve again, and says nothing: the service is not served, however long that lasts."""
        s, u = self.hung(ENDLESS, "resume")
        s.wait_status(lambda x: not x["serves"], "it is not served")
        self.assertFalse(self.served(s))
        self.assertTrue(s.status()["handoff"])
        self.go_on(s)
        u.wait()
        self.assert_outcome(u, 1, "aborted", s.log())
        self.assert_serves(s, "1.0")
        self.assertTrue(self.served(s))

    def test_a_pause_is_served(self):
        """As long as it is none that is too long."""
        s, u = self.hung(dict(PATIENT, **{"drain-grace": "10min", "self-fence": "5min"}), "drain")
        self.assertTrue(self.served(s))
        self.go_on(s)
        u.wait()
        self.assert_outcome(u, 0, "committed", s.log())
        self.assertTrue(self.served(s))

    def test_a_successor_in_place_of_the_dead(self):
        """It does its slow work, and nobody serves meanwhile."""
        s = self.kvd(options=ENDLESS)
        self.use(s, NEW, "warmup:stop")
        u = s.start_upgrade()
        self.await_stop(s, u)
        self.assertTrue(self.served(s))
        os.kill(s.daemon_pid(), signal.SIGKILL)
        s.wait_status(lambda x: not x["serves"], "it is not served")
        self.assertFalse(self.served(s))
        self.let_go(u)
        u.wait()
        self.assert_outcome(u, 0, "committed", s.log())
        self.assertTrue(self.served(s))


class WayOut(HungCase):
    """What ends it is told where somebody looks: in the state, in each refusal, to who waits, in the log."""

    def assert_way_out(self, s, text):
        self.assertIn("the incumbent (pid %d) was told to serve again and does not say that it does, the service is "
                      "NOT served; if it is stopped, 'kill -CONT %d'" % (s.hung, s.hung), text)

    def abort(self, s):
        """It waits, too."""
        a = harness.Upgrade([harness.program("handoffctl"), "--json", "abort", "kvd"], s.env, s.path("abort.err"))
        s.background.append(a)
        return a

    def told(self, waiting):
        return waiting.wait_line(lambda x: x.get("phase") == "resume" and x["text"], "it is told")["text"]

    def test_it_is_told(self):
        s, u = self.hung(ENDLESS, "resume")
        self.assert_way_out(s, self.told(u))
        self.assert_way_out(s, s.log())
        self.assert_way_out(s, s.status()["refused"])
        self.assertRegex(s.ctl("status", "kvd").stdout, "refuses +another handoff is under way: the incumbent ")
        for command in ("upgrade", "rollback", "restart", "plan", "reexec"):
            p = s.ctl(command, "kvd")
            self.assertEqual(p.returncode, 4, command)
            self.assertIn("refused: another handoff is under way: the incumbent ", p.stderr)
            self.assert_way_out(s, p.stderr)
        a = self.abort(s)
        self.assert_way_out(s, self.told(a))
        os.kill(s.hung, signal.SIGKILL)   # the other way
        for waiting, code in ((u, 1), (a, 0)):
            self.assertEqual(waiting.wait()["outcome"], "aborted")
            self.assertEqual(waiting.code, code)
        self.assert_serves(s, "1.0")
        self.assertEqual(s.log().count("does not say that it does"), 1)


class Remembered(HungCase):
    def assert_advice(self, s):
        """Not that it was busy."""
        text = s.ctl("explain", "kvd").stdout
        self.assertIn("It was silent: it hung, was stopped, or", text)
        self.assertNotIn("Upgrade when it is calmer", text)

    def test_it_was_silent(self):
        s, u = self.hung(ENDLESS, "resume")
        harness.wait_until(lambda: "does not say that it does" in s.log(), "it counts as dead")
        self.go_on(s)
        u.wait()
        self.assert_outcome(u, 1, "aborted", s.log())
        self.assertIn("silent for self-fence", [x["what"] for x in self.last(s)["steps"] if x["who"] == "incumbent"])
        self.assert_advice(s)

    def test_both_die(self):
        """What is started again is no successor: the one that it was to be is remembered."""
        s = self.kvd(options=dict(ENDLESS, **{"self-fence": "5min", "presumed-dead": "10min"}))
        new = s.path("bin", "new")
        shutil.copy(harness.program(NEW), new)
        s.hung = s.daemon_pid()
        os.kill(s.hung, signal.SIGSTOP)
        self.addCleanup(self.go_on, s)
        u = s.start_upgrade("--binary", new)
        u.wait_phase("resume")
        os.kill(s.hung, signal.SIGKILL)
        u.wait()
        self.assert_outcome(u, 1, "aborted", s.log())
        self.assert_serves(s, "1.0")
        successor = int(re.search(r"the successor \(pid (\d+)\) is sent SIGKILL", s.log())[1])
        r = self.last(s)
        self.assertEqual((r["from"]["pid"], r["from"]["version"]), (s.hung, "1.0"))
        self.assertEqual((r["to"]["pid"], r["to"]["version"], r["to"]["binary"]), (successor, "2.0", new))
        self.assertNotEqual(r["to"]["build"], r["from"]["build"])
        self.assertIn("1.0 -> 2.0", s.ctl("history", "kvd").stdout)
        what = {who: [x["what"] for x in r["steps"] if x["who"] == who] for who in ("incumbent", "successor", "daemon")}
        self.assertEqual(what["successor"], ["Hello", "was killed by signal 9 (KILL)"])
        self.assertEqual(what["daemon"], ["Hello", "Ready", "Status"])
        self.assertEqual(what["incumbent"][-1], "was killed by signal 9 (KILL)")
        self.assertNotIn("kvd[%d]" % successor, r["log"] or "")   # which is not at fault
        self.assert_advice(s)


class Played(RuleCase):
    """The incumbent is a puppet, which accepts nobody."""

    def connect(self, s, n):
        """So many clients wait."""
        clients = contextlib.ExitStack()
        self.addCleanup(clients.close)
        for _ in range(n):
            clients.enter_context(socket.create_connection(("127.0.0.1", s.port), harness.PATIENCE))
        s.wait_status(lambda x: x["queues"][0]["waiting"] == n, "they wait")

    def told_to_resume(self, s, o):
        """An upgrade that has come to nothing."""
        u = self.upgrade_to_kvd(s)
        self.kill(self.prepared(o))
        o.receive(RESUME)
        s.wait_state("resume")   # who answers has looked at the queues
        return u

    def deepest(self, s):
        r = json.loads(s.ctl("--json", "history", "kvd", "-n", "1").stdout)
        self.assertIn("In the queue of resp %d of " % r["queues"][0]["deepest"], s.ctl("explain", "kvd").stdout)
        return r["queues"][0]["deepest"]

    def test_the_queue_at_its_end(self):
        """Who came since it was told to serve counts."""
        s, o = self.puppet_o(heartbeat="30s", self_fence="60s")
        u = self.told_to_resume(s, o)
        self.connect(s, 60)
        self.say(o, D_STATUS, serving=True)
        self.ends(u, s, 1, "aborted")
        self.assertEqual(self.deepest(s), 60)

    def test_the_queue_of_the_dead(self):
        s, o = self.puppet_o(heartbeat="30s", self_fence="60s")
        u = self.told_to_resume(s, o)
        self.connect(s, 60)
        o.exit(3)
        self.puppet().serve(s.data_dir)
        self.ends(u, s, 1, "aborted")
        self.assertEqual(self.deepest(s), 60)

    def test_the_queue_at_each_heartbeat(self):
        """It accepts them before the supervisor has read that it does."""
        s = self.kvd(heartbeat="100ms")
        os.rename(self.puppets(s), s.binary)
        s.launch()
        o = self.puppet()
        [fd] = o.sockets(s.data_dir)
        listener = socket.socket(fileno=fd)
        self.addCleanup(listener.close)
        o.take()
        s.wait_state("idle")
        u = self.told_to_resume(s, o)
        self.connect(s, 60)
        now = time.monotonic() * 1000
        while o.receive(HEARTBEAT)[1] <= now:
            pass
        o.receive(HEARTBEAT)   # the queue is looked at before it is sent
        for _ in range(60):
            listener.accept()[0].close()
        self.say(o, D_STATUS, serving=True)
        self.ends(u, s, 1, "aborted")
        self.assertEqual(self.deepest(s), 60)

    def test_a_successor_that_was_too_late(self):
        """It says that it serves while it is being ended, and the incumbent that is to serve again hangs."""
        s = self.started(deadline="2s", drain_grace="2s", **SOON)
        s.hung = s.daemon_pid()
        u, n = self.upgrade_to_puppet(s)
        begin = n.receive(BEGIN)
        os.kill(s.hung, signal.SIGSTOP)
        self.addCleanup(HungCase.go_on, s)
        n.send(frame(READY, {0: n.id, 1: [], 2: False, 3: begin[2], 4: begin[3]}),
               frame(D_STATUS, {0: n.id, 1: True}))
        s.wait_status(lambda x: x["state"] == "resume" and not x["serves"], "it is not served")
        HungCase.go_on(s)
        u.wait()
        self.assertEqual(u.code, 1, u.result)
        self.assertTrue(s.status()["serves"])

    def test_who_is_slow_is_not_offered_for_killing(self):
        """It beats while it opens its data again, also where the deadline is over."""
        s, o = self.puppet_o(deadline="1s", drain_grace="500ms", **SOON)
        u = self.upgrade_to_kvd(s)
        self.prepared(o)
        o.receive(RESUME)
        s.wait_status(lambda x: not x["serves"], "it is not served")
        for _ in range(10):
            o.send(frame(HEARTBEAT, {1: int(time.monotonic() * 1000)}))
            o.receive(HEARTBEAT)
        self.assertEqual(s.status()["refused"], "another handoff is under way")
        self.say(o, D_STATUS, serving=True)
        self.ends(u, s, 1, "aborted")
        self.assertNotIn("does not say that it does", s.log())

    def test_a_plan_of_an_earlier_supervisor(self):
        """Its incumbent was not asked: it serves."""
        s, o = self.puppet_o(deadline="1s", drain_grace="1s")
        self.use(s, NEW, "warmup:stop")
        plan = harness.Upgrade([harness.program("handoffctl"), "--json", "plan", "kvd", "--binary",
                                harness.program(NEW)], s.env, s.path("plan.err"))
        s.background.append(plan)
        s.wait_state("warm")
        s.kill_supervisor()
        begun = time.monotonic()
        s.launch()
        harness.wait_until(s.status, "the new supervisor")
        harness.wait_until(lambda: not s.status()["serves"] or time.monotonic() > begun + 3, "longer than a pause")
        self.assertTrue(s.status()["serves"], s.status())
        o.id = bytes(16)
        self.again(s, o, "SERVE")
        o.id = o.receive(RESUME)[0]
        self.say(o, D_STATUS, serving=True)
        s.wait_state("idle")

    def test_an_earlier_supervisor_has_asked_it(self):
        """The next one does not know since when nobody serves, and counts from its own beginning."""
        s, o = self.puppet_o(deadline="2s", drain_grace="2s", **SOON)
        u = self.upgrade_to_kvd(s)
        self.prepared(o)
        s.kill_supervisor()
        s.launch()
        harness.wait_until(lambda: s.status() is not None, "the new supervisor")
        self.again(s, o, "DRAINED")
        o.receive(RESUME)
        s.wait_status(lambda x: not x["serves"], "it is not served")
        self.say(o, D_STATUS, serving=True)
        self.ends(u, s, 1, "aborted")
        self.assertTrue(s.status()["serves"])


if __name__ == "__main__":
    unittest.main()
