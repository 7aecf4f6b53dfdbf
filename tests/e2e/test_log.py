"""What scripts read of handoffd's log: --log-format json, with the context on every line."""

import json
import unittest

import harness
from handoffs import HandoffCase

NEW = "kvd-v2"


class Json(HandoffCase):
    def objects(self, s):
        return [json.loads(x) for x in s.log().splitlines() if x.startswith("{")]

    def service_with_json(self, *names):
        s = self.kvd(*names, start=False)
        s.launcher = ["sh", "-c", 'exec "$@" --log-format json', "sh"]
        s.start()
        return s

    def test_a_handoff(self):
        s = self.service_with_json()
        self.use(s, NEW)
        u = s.upgrade("--correlation-id", 'deploy "17"', "--tenant", "blue", "--trace-parent", harness.TRACE_PARENT)
        self.assert_outcome(u, 0, "committed")
        self.upgrade(s, "kvd-v1")
        s.stop()
        lines = self.objects(s)
        keys = ["time", "level", "service", "event", "handoff", "phase", "trace_parent", "correlation_id",
                "tenant", "message"]
        for x in lines:
            self.assertEqual((list(x), x["service"]), (keys, "kvd"))
        first = [x for x in lines if x["handoff"] == u.result["handoff"]]
        for x in first:
            self.assertEqual((x["correlation_id"], x["tenant"], x["trace_parent"]),
                             ('deploy "17"', "blue", harness.TRACE_PARENT))
        seen = [x["phase"] for i, x in enumerate(first) if not i or first[i - 1]["phase"] != x["phase"]]
        self.assertEqual(seen, u.phases())
        self.assertEqual([x["event"] for x in lines if x["event"]],
                         ["serves", "begun", "committed", "begun", "committed"])
        self.assertEqual([x["handoff"] for x in lines if x["message"] == "stopping"], [None])

    def test_what_went_wrong(self):
        s = self.service_with_json()
        self.use(s, NEW, "ready:unhealthy")
        self.assert_outcome(s.upgrade(), 1, "aborted")
        [x] = [x for x in self.objects(s) if x["event"] == "aborted"]
        self.assertEqual(x["level"], "warning")
        self.assertIn("unhealthy", x["message"])


if __name__ == "__main__":
    unittest.main()
