"""handoff-exporter: metrics, health and traces of all services of a host, over HTTP."""

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.request

import harness
from test_metrics import MetricsCase, samples

OPENMETRICS = "application/openmetrics-text"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Exporter:
    """A process; where it listens it says itself."""

    def __init__(self, s, *args):
        self.log = s.path("exporter.log")
        with open(self.log, "ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(
                [harness.program("handoff-exporter"), "--listen", "127.0.0.1:0", *args],
                env=s.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def port():
            with open(self.log, encoding="utf-8") as f:
                f.seek(begin)
                line = f.readline()
            return line.endswith("\n") and int(line.rpartition(" ")[2])
        self.url = "http://127.0.0.1:%d" % harness.wait_until(port, "the exporter listens")

    def get(self, path, **headers):
        """Status, content type and text."""
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as r:
                return r.status, r.headers["Content-Type"], r.read().decode()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.headers["Content-Type"], e.read().decode()

    def end(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(60)


class ExporterCase(MetricsCase):
    def exporter(self, s, *args):
        x = Exporter(s, *args)
        self.addCleanup(lambda: x.process.poll() is None and x.end())
        return x

    def second(self, s, name="kvd2"):
        """Another service of the same host."""
        other = self.service("kvd-v1", name=name, start=False)
        other.env = dict(other.env, HANDOFF_RUNTIME_DIR=s.env["HANDOFF_RUNTIME_DIR"])
        other.start()
        return other


class Web(ExporterCase):
    def test_metrics(self):
        s = self.kvd()
        s.wait_state("idle")
        x = self.exporter(s)
        code, kind, text = x.get("/metrics")
        self.assertEqual((code, kind), (200, "text/plain; version=0.0.4; charset=utf-8"))
        self.assert_clean(text)
        self.assertEqual(text, s.ctl("metrics").stdout)
        code, kind, text = x.get("/metrics", Accept=OPENMETRICS + ";version=1.0.0,text/plain;q=0.5")
        self.assertEqual((code, kind), (200, OPENMETRICS + "; version=1.0.0; charset=utf-8"))
        self.assertEqual(text, s.ctl("metrics", "--openmetrics").stdout)
        self.upgrade(s, "kvd-v2")
        self.assertEqual(self.value(x.get("/metrics")[2], "handoff_handoffs_total", outcome="committed"), 1)
        self.assertEqual(x.end(), 0)

    def test_health(self):
        s = self.kvd("begin:exit1", start=False)
        x = self.exporter(s)
        self.assertEqual(x.get("/health")[0::2], (200, ""))       # no service, and none is ill
        self.assertEqual(x.get("/health/kvd")[0], 404)
        s.launch()
        harness.wait_until(lambda: (x.get("/health/kvd")[0::2] ==
                                    (503, "kvd: the service is not served\n")), "the daemon fails to start")
        self.assertEqual(x.get("/ready")[0], 503)
        s.install("kvd-v1")
        s.arguments = []
        s.configure()
        s.ctl("restart", "kvd")   # may end the start that is under way, which it says: the next one is well
        for path in ("/health", "/health/kvd", "/ready", "/ready/kvd"):
            harness.wait_until(lambda p=path: x.get(p)[0::2] == (200, "kvd: ok\n"), path)
        for path in ("/", "/healthy", "/health/..", "/metrics/kvd", "/health/kvd/x", "/health/nobody"):
            self.assertEqual(x.get(path)[0], 404, path)

    def test_ready(self):
        """While a handoff is under way the service is well, and not ready for another."""
        s = self.kvd(options={"start-timeout": "60s"})
        s.wait_state("idle")
        x = self.exporter(s)
        self.use(s, "kvd-v2", "warmup:hang")
        u = s.start_upgrade()
        u.wait_phase("starting")
        harness.wait_until(lambda: x.get("/ready/kvd")[0::2] == (503, "kvd: a handoff is under way\n"), "a handoff")
        self.assertEqual(x.get("/health/kvd")[0], 200)
        s.ctl("abort", "kvd")
        u.wait()
        harness.wait_until(lambda: x.get("/ready/kvd")[0] == 200, "it is over")

    def test_a_supervisor_hangs(self):
        """It costs its own rows, also those of who asks meanwhile for another service."""
        s = self.kvd()
        s.wait_state("idle")
        other = self.second(s)
        x = self.exporter(s)
        harness.wait_until(lambda: x.get("/health")[0::2] == (200, "kvd: ok\nkvd2: ok\n"), "both serve")
        os.kill(other.supervisor.pid, signal.SIGSTOP)
        try:
            harness.wait_until(lambda: x.get("/health")[0::2] == (
                503, "kvd: ok\nkvd2: the supervisor does not answer\n"), "one hangs")
            harness.wait_until(lambda: x.get("/health/kvd")[0::2] == (200, "kvd: ok\n"), "the other does not")
            text = x.get("/metrics")[2]
            self.assertEqual([k for k in samples(text) if "kvd2" in k], ['handoff_up{service="kvd2"}'])
            self.assertEqual(self.value(text, "handoff_up", "kvd2"), 0)
            harness.wait_until(lambda: self.value(x.get("/metrics")[2], "handoff_serving") == 1, "its rows")
        finally:
            os.kill(other.supervisor.pid, signal.SIGCONT)
        harness.wait_until(lambda: x.get("/health")[0] == 200, "both serve again")

    def sockets(self, x):
        return len([d for d in harness.descriptors(x.process.pid).values() if d.startswith("socket:")])

    def test_it_dies(self):
        """kill -9 in the middle of questions: nobody notices, and another one says the same."""
        s = self.kvd()
        s.wait_state("idle")
        x = self.exporter(s)
        idle = self.sockets(x)
        before = x.get("/health")
        harness.wait_until(lambda: self.sockets(x) == idle, "nothing is asked")
        os.kill(s.supervisor.pid, signal.SIGSTOP)
        with socket.create_connection(("127.0.0.1", int(x.url.rpartition(":")[2]))) as c:
            c.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            harness.wait_until(lambda: self.sockets(x) == idle + 2, "the supervisor is asked")
            x.end(signal.SIGKILL)
        os.kill(s.supervisor.pid, signal.SIGCONT)
        self.upgrade(s, "kvd-v2")
        self.assertEqual(self.exporter(s).get("/health"), before)

    def test_bad_usage(self):
        for args in (["--listen", "x"], ["--listen", "1:2:3"], ["--listen", "127.0.0.1:70000"], ["x"], ["-q"]):
            p = subprocess.run([harness.program("handoff-exporter"), *args], capture_output=True, text=True,
                               timeout=60, check=False)
            self.assertEqual(p.returncode, 2, args)
        s = self.kvd(start=False)
        x = self.exporter(s)
        p = subprocess.run([harness.program("handoff-exporter"), "-l", x.url[7:]], capture_output=True,
                           text=True, timeout=60, check=False)
        self.assertEqual(p.returncode, 1, p.stderr)
        self.assertIn("--listen", p.stderr)


class Prometheus(ExporterCase):
    """A real one scrapes it."""

    def test_scrape(self):
        s = self.kvd()
        s.wait_state("idle")
        x = self.exporter(s)
        port = harness.free_port()
        with open(s.path("prometheus.yml"), "w", encoding="utf-8") as f:
            f.write("scrape_configs:\n  - job_name: handoff\n    scrape_interval: 1s\n"
                    "    static_configs: [{targets: ['%s']}]\n" % x.url[7:])
        with open(s.path("prometheus.log"), "wb") as log:
            p = subprocess.Popen(["prometheus", "--config.file=" + s.path("prometheus.yml"),
                                  "--storage.tsdb.path=" + s.path("tsdb"),
                                  "--web.listen-address=127.0.0.1:%d" % port],
                                 stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=s.env)
        self.addCleanup(lambda: (p.kill(), p.wait()))

        def scraped():
            url = "http://127.0.0.1:%d/api/v1/query?query=handoff_serving" % port
            try:
                with urllib.request.urlopen(url, timeout=60) as r:
                    result = json.load(r)["data"]["result"]
            except (OSError, urllib.error.URLError):
                return False
            return [(r["metric"]["service"], r["value"][1]) for r in result] == [("kvd", "1")]
        harness.wait_until(scraped, "Prometheus has a row", 60)


class Traces(ExporterCase):
    def lines(self, path):
        text = harness.read_file(path)
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def spans(self, line):
        [resource] = line["resourceSpans"]
        self.assertEqual(resource["resource"]["attributes"],
                         [{"key": "service.name", "value": {"stringValue": "kvd"}}])
        [scope] = resource["scopeSpans"]
        return scope["spans"]

    def wait_lines(self, path, n):
        harness.wait_until(lambda: len(self.lines(path)) >= n, "%d traces" % n, 60)
        lines = self.lines(path)
        self.assertEqual(len(lines), n)
        return lines

    def attributes(self, span):
        return {a["key"]: a["value"].get("stringValue") or int(a["value"]["intValue"])
                for a in span["attributes"]}

    def test_to_a_file(self):
        s = self.kvd()
        path = s.path("spans.json")
        x = self.exporter(s, "--spans", path)
        self.use(s, "kvd-v2")
        before = time.time_ns()
        u = s.upgrade("--reason", "release 2", "--trace-parent", "00-%s-%s-01" % (TRACE, PARENT))
        self.assert_outcome(u, 0, "committed")
        [root, *phases] = self.spans(self.wait_lines(path, 1)[0])
        self.assertEqual((root["name"], root["traceId"], root["parentSpanId"], root["status"]),
                         ("handoff", TRACE, PARENT, {"code": 1}))
        a = self.attributes(root)
        self.assertEqual((a["handoff.id"], a["handoff.outcome"], a["handoff.reason"], a["handoff.from.version"],
                          a["handoff.to.version"], a["handoff.pause_us"]),
                         (u.result["handoff"], "committed", "release 2", "1.0", "2.0", u.result["pause_us"]))
        self.assertEqual([p["name"] for p in phases], ["handoff." + p for p in u.phases()])
        begin, end = int(root["startTimeUnixNano"]), int(root["endTimeUnixNano"])
        self.assertEqual(end - begin, u.result["total_us"] * 1000)
        self.assertTrue(before - 10**9 < begin < time.time_ns() + 10**9)
        ids = {root["spanId"]}
        for p in phases:
            self.assertEqual((p["traceId"], p["parentSpanId"]), (TRACE, root["spanId"]))
            self.assertTrue(begin <= int(p["startTimeUnixNano"]) <= int(p["endTimeUnixNano"]) <= end, p)
            ids.add(p["spanId"])
        self.assertEqual(len(ids), 1 + len(phases))

        # it dies and is started again: what came meanwhile is added, nothing twice
        x.end(signal.SIGKILL)
        self.use(s, "kvd-v1", "ready:unhealthy")
        u = s.upgrade()
        self.assert_outcome(u, 1, "aborted")
        self.exporter(s, "--spans", path)
        [root, *_] = self.spans(self.wait_lines(path, 2)[1])
        self.assertEqual((root["traceId"], root["status"]["code"], root["status"]["message"]),
                         (u.result["handoff"].replace("-", ""), 2, u.result["message"]))
        self.assertNotIn("parentSpanId", root)
        # rotated: the next one goes into a new file
        os.rename(path, path + ".1")
        self.upgrade(s, "kvd-v1")
        self.wait_lines(path, 1)

    def test_a_file_that_cannot_be_had(self):
        """It is said once, and the traces wait; one that cannot be read at the start is refused."""
        s = self.kvd()
        path = s.path("later/spans.json")
        x = self.exporter(s, "--spans", path)
        self.upgrade(s, "kvd-v2")
        says = "handoff-exporter: %s: cannot be opened: No such file or directory; traces wait" % path
        harness.wait_until(lambda: says in harness.read_file(x.log), "it says so")
        self.upgrade(s, "kvd-v1")
        os.mkdir(s.path("later"))
        self.wait_lines(path, 2)
        self.assertEqual(harness.read_file(x.log).count(says), 1)
        p = subprocess.run([harness.program("handoff-exporter"), "--listen", "127.0.0.1:0", "--spans", path + "/x"],
                           env=s.env, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(p.returncode, 1)
        self.assertIn("%s/x cannot be read: Not a directory" % path, p.stderr)

    def hold(self, x):
        """All its threads stand still, which is not so yet when kill(2) returns."""
        os.kill(x.process.pid, signal.SIGSTOP)
        tasks = "/proc/%d/task" % x.process.pid
        harness.wait_until(lambda: all(harness.Process(int(t)).state == "T" for t in os.listdir(tasks)), "it is stopped")

    def test_a_reader_that_goes(self):
        """What does not fit into the pipe waits for the next one; no line twice, none lost."""
        s = self.kvd()
        path = s.path("pipe")
        os.mkfifo(path)
        x = self.exporter(s, "--spans", path)
        for binary in ("kvd-v2", "kvd-v1", "kvd-v2"):
            self.upgrade(s, binary)
        self.hold(x)   # else it could have written more than that before the pipe is made smaller
        r = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(r, fcntl.F_SETPIPE_SZ, 4096)   # less than the three
        os.kill(x.process.pid, signal.SIGCONT)
        harness.wait_until(lambda: select.select([r], [], [], 0)[0], "the pipe is written", 60)
        self.hold(x)   # else a line could come between the last look and the end
        text = os.read(r, 1 << 20)
        os.close(r)
        os.kill(x.process.pid, signal.SIGCONT)
        lines = text.split(b"\n")[:-1]
        with open(path, "rb") as pipe:
            while len(lines) < 3:
                lines.append(pipe.readline())
        got = [self.attributes(self.spans(json.loads(line))[0])["handoff.id"] for line in lines]
        self.assertEqual(got, [json.loads(h)["handoff"] for h in s.ctl("--json", "history").stdout.splitlines()])

    def test_to_a_pipe(self):
        """What came before it was started is not sent; what comes while nobody reads waits."""
        s = self.kvd()
        self.upgrade(s, "kvd-v2")
        path = s.path("pipe")
        os.mkfifo(path)
        self.exporter(s, "--spans", path)
        self.upgrade(s, "kvd-v1")
        with open(path, encoding="utf-8") as pipe:
            first = json.loads(pipe.readline())
        self.upgrade(s, "kvd-v2")
        with open(path, encoding="utf-8") as pipe:
            second = json.loads(pipe.readline())
        self.assertEqual([self.attributes(self.spans(x)[0])["handoff.number"] for x in (first, second)], [2, 3])


if __name__ == "__main__":
    unittest.main()
