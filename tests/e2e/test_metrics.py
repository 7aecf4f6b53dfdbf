"""handoffctl metrics: what Prometheus reads."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import unittest

import harness
from handoffs import HandoffCase

QUEUE = ("handoff_queue_connections", "handoff_queue_backlog", "handoff_queue_drops_total")


def samples(text):
    """{'name{labels}': value}, of services and of a whole host."""
    return {k: float(v) for k, v in re.findall(r"^([a-z_]+\{.*\}) (\S+)$", text, re.M)}


class MetricsCase(HandoffCase):
    def assert_clean(self, text):
        p = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True,
                           text=True, timeout=60, check=False)
        self.assertEqual((p.returncode, p.stdout + p.stderr), (0, ""), text)

    def value(self, text, name, service="kvd", **labels):
        more = "".join(',%s="%s"' % x for x in labels.items())
        return samples(text).get('%s{service="%s"%s}' % (name, service, more))


class Metrics(MetricsCase):
    def metrics(self, s, *args):
        p = s.ctl("metrics", *args)
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        return p.stdout

    def outcomes(self, text):
        return [self.value(text, "handoff_handoffs_total", outcome=o)
                for o in ("committed", "aborted", "rolled back")]

    def test_of_a_service(self):
        s = self.kvd()
        s.wait_state("idle")
        text = self.metrics(s)
        self.assert_clean(text)
        for name in ("up", "serving", "connected"):
            self.assertEqual(self.value(text, "handoff_" + name), 1, text)
        for name in ("upgrade_refused", "in_progress", "leftover_processes"):
            self.assertEqual(self.value(text, "handoff_" + name), 0, text)
        self.assertEqual(self.outcomes(text), [0, 0, 0])
        self.assertEqual(self.value(text, "handoff_cold_starts_total"), 1)
        self.assertEqual(self.value(text, "handoff_epoch"), 1)
        self.assertIsNone(self.value(text, "handoff_last_pause_seconds"))
        status = s.status()
        self.assertEqual(self.value(text, "handoff_daemon_info", build=status["build"],
                                    version="1.0"), 1, text)
        self.assertEqual(self.value(text, "handoff_serving_since_timestamp_seconds"),
                         status["since_ms"] / 1000)
        self.assertLessEqual(
            self.value(text, "handoff_supervisor_since_timestamp_seconds"),
            self.value(text, "handoff_serving_since_timestamp_seconds"))

    def test_of_one_that_does_not_start(self):
        s = self.kvd(start=False)
        s.configure(command=["/bin/false"])
        s.launch()
        s.wait_status(lambda x: x["warning"], "it has been tried")
        text = self.metrics(s)
        for name, value in (("up", 1), ("serving", 0), ("connected", 0)):
            self.assertEqual(self.value(text, "handoff_" + name), value, text)

    def test_of_handoffs(self):
        s = self.kvd()
        u = self.upgrade(s, "kvd-v2")
        self.use(s, "kvd-v1", "ready:unhealthy")
        self.assert_outcome(s.upgrade(), 1, "aborted")
        u = self.upgrade(s, "kvd-v1")
        text = self.metrics(s)
        self.assert_clean(text)
        self.assertEqual(self.outcomes(text), [2, 1, 0])
        self.assertEqual(self.value(text, "handoff_last_pause_seconds"), u.result["pause_us"] / 1e6)
        self.assertEqual(self.value(text, "handoff_last_duration_seconds"), u.result["total_us"] / 1e6)
        last = json.loads(s.ctl("--json", "history", "-n", "1", "kvd").stdout.splitlines()[0])
        self.assertEqual(self.value(text, "handoff_last_stall_seconds"), last["stall_us"] / 1e6)
        for name, key in (("queue", "deepest"), ("dropped", "drops")):
            self.assertEqual(self.value(text, "handoff_last_%s_connections" % name, listener="resp"),
                             last["queues"][0][key], text)
        # the counters are this supervisor's own
        s.kill_supervisor()
        self.assertEqual(samples(self.metrics(s)), {'handoff_up{service="kvd"}': 0})
        s.start()
        s.wait_state("idle")
        text = self.metrics(s)
        self.assertEqual((self.outcomes(text), self.value(text, "handoff_cold_starts_total")),
                         ([0, 0, 0], 0))
        self.assertEqual(self.value(text, "handoff_serving"), 1)

    def test_of_a_queue(self):
        """A daemon that does not accept, and a queue that is full."""
        s = self.kvd(start=False)
        with open(s.conf, encoding="utf-8") as f:
            text = f.read().replace('" }', '" backlog = 2 }')
        s.text = lambda _: text
        s.configure()
        s.start()
        pid = s.daemon_pid()
        text = self.metrics(s)
        self.assertEqual([self.value(text, name, listener="resp") for name in QUEUE], [0, 2, 0], text)
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(os.kill, pid, signal.SIGCONT)
        with contextlib.ExitStack() as stack:
            for _ in range(6):
                c = stack.enter_context(socket.socket())
                c.setblocking(False)
                c.connect_ex(("127.0.0.1", s.port))
            text = harness.wait_until(lambda: self.full(s), "the queue is full, and drops what comes")
        self.assert_clean(text)

    def full(self, s):
        text = self.metrics(s)
        waiting, _, drops = [self.value(text, name, listener="resp") for name in QUEUE]
        return waiting > 2 and drops > 0 and text

    def test_nobody_serves(self):
        s = self.kvd("begin:exit1", start=False)
        s.launch()
        harness.wait_until(lambda: (self.value(self.metrics(s), "handoff_cold_starts_total") or 0) > 1,
                           "the daemon fails to start")
        text = self.metrics(s)
        self.assert_clean(text)
        self.assertEqual(self.value(text, "handoff_serving"), 0, text)
        self.assertEqual(self.value(text, "handoff_upgrade_refused"), 1, text)

    def test_openmetrics(self):
        s = self.kvd()
        text = self.metrics(s, "--openmetrics")
        self.assertTrue(text.endswith("\n# EOF\n"), text)
        self.assertIn("# TYPE handoff_handoffs counter\n", text)
        self.assertIn("# TYPE handoff_daemon info\n", text)
        self.assertIn("# UNIT handoff_last_pause_seconds seconds\n", text)
        self.assertEqual(self.outcomes(text), [0, 0, 0])

    def test_json_is_refused(self):
        s = self.kvd()
        p = s.ctl("--json", "metrics")
        self.assertEqual(p.returncode, 2, p.stdout + p.stderr)


if __name__ == "__main__":
    unittest.main()
