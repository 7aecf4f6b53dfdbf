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


class Families:
    """The OpenMetrics text format, as far as it has gauges, counters and infos: metadata first, each
    family in one piece, each series once. Raises a ValueError with the line that breaks it."""

    SUFFIX = {"gauge": "", "counter": "_total", "info": "_info"}
    SAMPLE = re.compile(r'([a-z_]+)\{([^{}]*)\} (\S+)')
    LABELS = re.compile(r'(?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"(?:,(?!$)|$))+')

    def __init__(self, text):
        self.kinds, self.told, self.series = {}, set(), set()
        self.family, self.sampled = None, False
        if not text.endswith("\n# EOF\n"):
            raise ValueError("no # EOF at its end")
        for line in text[:-len("# EOF\n")].splitlines():
            if not (self.metadata(line) if line.startswith("#") else self.sample(line)):
                raise ValueError(line)

    def metadata(self, line):
        m = re.fullmatch(r"# (TYPE|UNIT|HELP) ([a-z_]+) (\S.*)", line)
        if not m or (m[1], m[2]) in self.told:
            return False
        word, name, text = m.groups()
        if name != self.family and name in {n for _, n in self.told}:
            return False   # it was left for another one
        if name == self.family and self.sampled:
            return False
        self.family, self.sampled = name, False
        self.told.add((word, name))
        if word == "TYPE":
            self.kinds[name] = text
            return text in self.SUFFIX and (not self.SUFFIX[text] or not name.endswith(self.SUFFIX[text]))
        return word == "HELP" or name.endswith("_" + text)

    def sample(self, line):
        m = self.SAMPLE.fullmatch(line)
        kind = self.kinds.get(self.family)
        if not m or not kind or m[1] != self.family + self.SUFFIX[kind] or not self.LABELS.fullmatch(m[2]):
            return False
        names = re.findall(r'([a-z_]+)="', m[2])
        series = m[1] + "{" + ",".join(sorted(m[2].split(",")))
        if len(set(names)) < len(names) or series in self.series:
            return False
        self.series.add(series)
        self.sampled = True
        value = float(m[3])
        return (kind != "counter" or 0 <= value < float("inf")) and (kind != "info" or value == 1)


class MetricsCase(HandoffCase):
    def assert_openmetrics(self, text):
        try:
            return Families(text)
        except ValueError as e:
            self.fail("%s\n%s" % (e, text))

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
        self.upgrade(s, "kvd-v2")
        text = self.metrics(s, "--openmetrics")
        families = self.assert_openmetrics(text)
        self.assertEqual({n for _, n in families.told} - set(families.kinds), set())
        self.assertGreater(len(families.series), 20)
        self.assertIn("# TYPE handoff_handoffs counter\n", text)
        self.assertIn("# TYPE handoff_daemon info\n", text)
        self.assertIn("# UNIT handoff_last_pause_seconds seconds\n", text)
        self.assertEqual(self.outcomes(text), [1, 0, 0])

    def test_what_is_not_openmetrics(self):
        """The check of the format finds each of these."""
        good = ('# TYPE a counter\n# HELP a x\na_total{b="c"} 1\na_total{b="d"} 1\n'
                '# TYPE e gauge\ne{b="c"} 2\n# EOF\n')
        self.assert_openmetrics(good)
        for old, new in (
                ("# EOF\n", ""), ("# EOF\n", "# EOF\n\n"), ("# EOF", "\n# EOF"), ('a_total{b="d"}', 'a{b="d"}'),
                ('b="d"', 'b="c"'), ('b="d"', 'b="d",b="c"'), ('b="d"', 'b="d",'), ('b="d"', 'b="\\d"'),
                ("# TYPE a counter\n", ""), ("a counter", "a_total counter"), ("counter", "untyped"),
                ('a_total{b="d"} 1', 'a_total{b="d"} -1'), ("# HELP a x\n", "# TYPE a counter\n"),
                ("# EOF", '# HELP e late\n# EOF'), ("# EOF", 'a_total{b="x"} 1\n# EOF'),
                ("# HELP a x", "# UNIT a seconds"), ("# TYPE e", "#TYPE e")):
            with self.subTest(new=new), self.assertRaises(ValueError):
                Families(good.replace(old, new, 1))

    def test_json_is_refused(self):
        s = self.kvd()
        p = s.ctl("--json", "metrics")
        self.assertEqual(p.returncode, 2, p.stdout + p.stderr)


if __name__ == "__main__":
    unittest.main()
