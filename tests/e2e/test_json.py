"""What scripts read: every key is always there, and has the type that handoffctl(1) says."""

import json
import os
import re
import signal
import unittest

import harness
from handoffs import HandoffCase

NEW = "kvd-v2"
UNHURRIED = {"self-fence": "60s", "presumed-dead": "61s"}   # another handoffd may take its time
KINDS = {"number": int, "boolean": bool, "text": str, "array": list, "object": dict}

# The keys of each object, as JSON OUTPUT has them.
STATUS = """service state serves pid build version epoch since_ms supervisor_pid supervisor_version binary binary_kept
    binary_changed sha256 previous previous_kept listeners queues handoff successor_pid last refused
    warning leftovers timers""".split()
RECORD = """handoff number kind asked_ms uid outcome code message reason trace_parent correlation_id
    tenant from to pause_us serving_us total_us stall_us connections_left connections_moved connections_stayed
    queues failed steps
    log""".split()
COUNTS = "connections_left shards_sealed shards connections_moved connections_stayed".split()
PHASE = "event phase us ms text".split() + COUNTS
WATCH = "event at_ms handoff phase us text missed reason trace_parent correlation_id tenant".split() + COUNTS
RESULT = """event outcome handoff message pause_us serving_us total_us stall_us connections_moved
    connections_stayed pid build version code""".split()
PLAN = """event handoff starts changed sha256 from to protocol capabilities start_us deadline_ms
    handoffs pause_median_us pause_max_us added dropped limits""".split()
PARTS = {
    "queues": ["listener waiting backlog drops".split(), "listener deepest backlog drops".split()],
    "last": ["handoff outcome message".split()],
    "from": ["pid build version binary".split()],
    "to": ["pid build version binary".split()],
    "failed": ["role phase timer cause".split()],
    "steps": ["us who what".split()],
}


def documented():
    """{key: kind}, from the manual's list of types."""
    with open(os.path.join(harness.TOP, "man", "handoffctl.1"), encoding="utf-8") as f:
        text = f.read()
    section = re.search(r"The types are:\n(.*?)^\.El", text, re.S | re.M)[1]
    found = {}
    for item in section.split(".It ")[1:]:
        kind, _, words = item.partition("\n")
        for line in re.findall(r"^\.Li (.*)$", words, re.M):
            found.update({w: kind for w in re.findall(r"\w+", line)})
    return found


def outcomes():
    """Those of results, as the manual lists them."""
    with open(os.path.join(harness.TOP, "man", "handoffctl.1"), encoding="utf-8") as f:
        text = f.read().partition("The outcomes of a result:")[2].partition(".El")[0]
    return re.findall(r"^\.It Ql (.*)$", text, re.M)


class JsonCase(HandoffCase):
    """Objects are compared with the manual, and with the lists above."""

    def setUp(self):
        super().setUp()
        self.kinds = documented()
        self.seen = {}

    def assert_value(self, key, value):
        kind = self.kinds.get(key, "text")
        if value is not None:
            # bool is an int to Python, and not to JSON
            self.assertIs(type(value), KINDS[kind], "%s: %r" % (key, value))
            self.seen.setdefault(key, value)
        for part in (value or []) if kind == "array" else [value] if kind == "object" else []:
            if key in ("listeners", "capabilities", "added", "dropped", "limits"):
                self.assertIs(type(part), str)
            elif key == "timers" and part is not None:
                self.assertLessEqual({type(x) for x in part.values()}, {int})
            elif part is not None:
                self.assertIn(list(part), PARTS[key], key)
                for k, v in part.items():
                    self.assert_value(k, v)

    def assert_object(self, o, keys):
        self.assertEqual(sorted(o), sorted(keys))
        for key, value in o.items():
            self.assert_value(key, value)

    def assert_lines(self, lines, objects):
        """A result, and the phases before it."""
        for x in lines:
            self.assert_object(x, objects[x["event"]])

    def lines(self, s, *args):
        return [json.loads(x) for x in s.ctl("--json", *args).stdout.splitlines()]


class Types(JsonCase):
    def test_status_and_list(self):
        """While it serves, in a handoff, after one, while nobody serves, and with nobody there."""
        s = self.kvd(listen={"resp": "tcp:127.0.0.1:%d" % harness.free_port(), "admin": "unix:@" + str(id(self))})

        def look(state):
            status = s.wait_state(state)
            self.assert_object(status, STATUS)
            [listed] = json.loads(s.ctl("--json", "list").stdout)
            self.assert_object(listed, STATUS)
            return status
        self.assertIs(look("idle")["serves"], True)
        self.use(s, NEW, "warmup:hang")
        u = s.start_upgrade()
        u.wait_phase("warm")
        self.assertIsNotNone(look("warm")["handoff"])
        self.assertEqual(s.ctl("abort", "kvd").returncode, 0)
        u.wait()
        self.upgrade(s, NEW)
        s.wait_status(lambda x: x["sha256"], "what runs is hashed")
        self.assertEqual(look("idle")["previous"], s.binary)
        os.rename(s.data_dir, s.data_dir + ".away")
        os.kill(s.daemon_pid(), signal.SIGKILL)
        s.wait_status(lambda x: x["warning"], "nobody serves")
        cold = look("cold")
        self.assertIsNotNone(cold["refused"])
        self.assertIs(cold["serves"], False)
        os.rename(s.data_dir + ".away", s.data_dir)
        look("idle")
        # each of them was there once
        self.assertEqual(set(STATUS) - set(self.seen), set())
        s.kill_supervisor()
        [listed] = json.loads(s.ctl("--json", "list").stdout)
        self.assert_object(listed, STATUS)
        self.assertEqual(listed["state"], "no supervisor")
        s.start()

    def test_results(self):
        s = self.kvd(options=UNHURRIED)
        objects = {"phase": PHASE, "result": RESULT, "note": ["event", "message"],
                   "error": ["event", "code", "message"]}
        self.use(s, NEW)
        told = outcomes()
        for args, outcome in (
                (["upgrade", "kvd"], "committed"), (["rollback", "kvd"], "committed"),
                (["restart", "kvd"], "restarted"), (["reexec", "kvd"], "replaced"), (["abort", "kvd"], "refused"),
                (["upgrade", "kvd", "--binary", s.conf], "refused"), (["upgrade", "other"], None),
                (["stop", "kvd"], "stopped")):
            with self.subTest(args=args):
                lines = self.lines(s, *args)
                self.assert_lines(lines, objects)
                self.assertEqual((lines[-1]["event"], lines[-1].get("outcome")),
                                 ("result" if outcome else "error", outcome))
                self.assertIn(outcome, [*told, None])
        s.ended()
        self.assertEqual(set(RESULT) - set(self.seen), set())

    def test_how_far_a_seal_is(self):
        """Told in numbers to who upgrades, too."""
        s = self.kvd("seal:progress")
        self.use(s, NEW)
        lines = self.lines(s, "upgrade", "kvd")
        self.assert_lines(lines, {"phase": PHASE, "result": RESULT})
        self.assertEqual([(x["phase"], x["shards_sealed"], x["shards"]) for x in lines
                          if x["event"] == "phase" and x["shards"]], [("seal", 0, 4)])

    def test_unchanged_and_failed(self):
        s = self.kvd()
        s.wait_status(lambda x: x["sha256"], "what runs is hashed")
        [result] = self.lines(s, "upgrade", "kvd", "--if-changed")
        self.assertEqual((result["event"], result["outcome"]), ("result", "unchanged"))
        self.use(s, NEW, "start:exit1")
        result = self.lines(s, "restart", "kvd")[-1]
        self.assert_object(result, RESULT)
        self.assertEqual((result["outcome"], result["code"]), ("failed", 5))
        self.use(s, NEW)
        s.ctl("restart", "kvd")   # or a start that is tried again is the one that serves
        s.wait_state("idle")

    def test_watch_from_life_to_life(self):
        """A handoff, a crash, a supervisor that goes on as another: each line has the same keys."""
        s = self.kvd(options=UNHURRIED)
        w = harness.JsonProcess([harness.program("handoffctl"), "--json", "watch", "kvd"], s.env,
                                s.path("watch.err"))
        s.background.append(w)
        self.assertEqual(w.next(harness.PATIENCE)["phase"], "idle")
        self.upgrade(s, NEW)
        w.wait_line(lambda x: x["phase"] == "committed", "the outcome")
        os.kill(s.daemon_pid(), signal.SIGKILL)
        w.wait_line(lambda x: x["phase"] == "serves", "it serves again")
        self.assertEqual(self.lines(s, "reexec", "kvd")[-1]["outcome"], "replaced")
        w.wait_line(lambda x: x["phase"] == "replaced", "the new one")
        for x in w.lines:
            self.assert_object(x, WATCH)
        self.assertEqual({x["event"] for x in w.lines}, {"watch"})

    def test_history_and_explain(self):
        s = self.kvd()
        self.use(s, NEW, "ready:hang")
        u = s.upgrade("--reason", "a", "--trace-parent", harness.TRACE_PARENT, "--correlation-id", "c", "--tenant", "d")
        self.assertEqual(u.code, 1)
        self.use(s, NEW)
        self.upgrade(s, NEW)
        self.assertEqual(s.ctl("rollback", "kvd").returncode, 0)
        records = self.lines(s, "history", "kvd")
        self.assertEqual([r["outcome"] for r in records], ["aborted", "committed", "committed"])
        for r in records:
            self.assert_object(r, RECORD)
        [r] = self.lines(s, "explain", "kvd", records[0]["handoff"])
        self.assert_object(r, RECORD)
        self.assertEqual(set(RECORD) - set(self.seen), {"log"} - set(self.seen))

    def test_watch(self):
        s = self.kvd("seal:progress")
        w = harness.JsonProcess([harness.program("handoffctl"), "--json", "watch", "kvd"], s.env, s.path("watch.err"))
        s.background.append(w)
        w.wait_line(lambda x: x["phase"] == "idle", "it watches")
        self.use(s, NEW)
        with s.client() as c:
            c.ping()   # it is there, and moves
            self.assert_outcome(s.upgrade("--reason", "a", "--trace-parent", harness.TRACE_PARENT, "--correlation-id",
                                          "c", "--tenant", "d"), 0, "committed")
        w.wait_line(lambda x: x["phase"] == "committed", "its end")
        self.assert_lines(w.lines, {"watch": WATCH})
        counted = [{k: x[k] for k in COUNTS if x[k] is not None} for x in w.lines]
        self.assertEqual([x for x in counted if x], [
            {"connections_left": 1}, {"shards_sealed": 0, "shards": 4}, {"connections_moved": 1, "connections_stayed": 0}])
        self.assertEqual(set(WATCH) - set(self.seen), {"missed"})   # test_watch has one that is

    def test_plan(self):
        s = self.kvd()
        s.wait_status(lambda x: x["sha256"], "what runs is hashed")
        self.upgrade(s, NEW)
        s.wait_status(lambda x: x["sha256"], "what runs is hashed")
        s.listen = {"other": "unix:@" + str(id(self))}
        s.configure(limit_nofile=8)
        objects = {"phase": PHASE, "result": RESULT, "plan": PLAN}
        self.assert_lines(self.lines(s, "plan", "kvd"), objects)
        s.configure(limit_nofile=None)
        self.assert_lines(self.lines(s, "plan", "kvd"), objects)
        self.assertEqual(set(PLAN) - set(self.seen), set())

    def test_the_manual_names_no_others(self):
        """A type of a key that no object has would be checked by nothing."""
        keys = set(STATUS + RECORD + PHASE + WATCH + RESULT + PLAN)
        keys |= {k for parts in PARTS.values() for part in parts for k in part}
        self.assertEqual(set(self.kinds) - keys, set())
        self.assertGreater(len(self.kinds), 30)


if __name__ == "__main__":
    unittest.main()
