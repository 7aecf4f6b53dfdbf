"""handoff-exporter: metrics, health and traces of all services of a host, over HTTP."""

import contextlib
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
import uuid

import fakesupervisor
import harness
from badinput import receive
from fakesupervisor import HANDOFF, HISTORY, RESULT, STATUS, UPGRADE, event, frame, result, state
from test_metrics import MetricsCase, samples
from test_resources import limited

OPENMETRICS = "application/openmetrics-text"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Exporter:
    """A process; where it listens it says itself."""

    def __init__(self, s, *args, listen="127.0.0.1:0"):
        self.log = s.path("exporter.log")
        with open(self.log, "ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(
                [harness.program("handoff-exporter"), "--listen", listen, *args],
                env=s.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, restore_signals=False)

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
        self.assert_openmetrics(text)
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
        def run(*args):
            return subprocess.run([harness.program("handoff-exporter"), *args], capture_output=True, text=True,
                                  timeout=60, check=False)
        for address in ("x", "1:2:3", ":80", "127.0.0.1:", "127.0.0.1:8x", "127.0.0.1:-1", "127.0.0.1:70000",
                        "[::1", "[::1]", "::1]:80", "[::1:80", "h" * 256 + ":80"):
            self.assertEqual(run("--listen", address).returncode, 2, address)
        for args in (["x"], ["-q"]):
            self.assertEqual(run(*args).returncode, 2, args)
        for args, says in ((["-h"], "usage: handoff-exporter"), (["--version"], "handoff-exporter ")):
            p = run(*args)
            self.assertEqual((p.returncode, p.stdout.startswith(says)), (0, True), args)
        p = run("--listen", "no address:80")
        self.assertEqual(p.returncode, 1)
        self.assertIn("cannot listen on no address, port 80: ", p.stderr)
        s = self.kvd(start=False)
        x = self.exporter(s)
        p = subprocess.run([harness.program("handoff-exporter"), "-l", x.url[7:]], capture_output=True,
                           text=True, timeout=60, check=False)
        self.assertEqual(p.returncode, 1, p.stderr)
        self.assertIn("--listen", p.stderr)


class Played(fakesupervisor.Case):
    """Beside supervisors that are played: what if they, a file, a pipe do exactly this?"""

    def path(self, name):
        return os.path.join(self.dir, name)

    def exporter(self, *args, **kwargs):
        x = Exporter(self, *args, **kwargs)
        self.addCleanup(lambda: x.process.poll() is None and x.end())
        return x

    def remembers(self, records):
        """A supervisor with these records: {number: {key: value}}, as far as they differ; the list may change."""
        def handle(connection, kind, fields):
            if kind != HISTORY:
                connection.send(state("kvd"))
                return
            now = dict(records)
            for n in sorted((n for n in now if n < fields.get(1, 1 << 60)), reverse=True)[:fields[2]]:
                connection.send(self.record(n, **now[n]))
            connection.send(result(0, "history", ""))
        return self.supervisor(handle)

    def record(self, number, **more):
        """asked long after any exporter was started"""
        keys = {"id": 0, "asked_ms": 2, "outcome": 4, "message": 6, "steps": 7, "us": 8, "total_us": 19, "trace": 21}
        fields = {0: number.to_bytes(16, "big"), 1: number, 2: 4 * 10**12, 4: "committed"}
        fields.update({keys[k]: v for k, v in more.items()})
        return frame(HANDOFF, fields)

    def numbers(self, text):
        """Of the handoffs, each in a line of its own."""
        self.assertTrue(not text or text.endswith("\n"), text[-100:])
        return [int(next(a["value"]["intValue"] for a in self.root(line)["attributes"] if a["key"] == "handoff.number"))
                for line in text.splitlines()]

    def root(self, line):
        return json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]

    def wait_text(self, path, numbers, begin=""):
        """Until these are in the file, behind what was there."""
        def there():
            text = harness.read_file(path)
            return text.startswith(begin) and text.count("\n") >= begin.count("\n") + len(numbers)
        harness.wait_until(there, "%s in %s" % (numbers, path))
        self.assertEqual(self.numbers(harness.read_file(path)[len(begin):]), numbers)

    def wait_answer(self, x):
        """Until what a supervisor says is told."""
        harness.wait_until(lambda: x.get("/ready/kvd")[0::2] == (503, "kvd: the service is not served\n"), "it answers")

    # what a supervisor says

    def test_no_status(self):
        """Garbage, half of an answer, another one, none: its service is not well, and that is all."""
        whole = state("kvd")
        said = [b""]
        fake = self.supervisor(lambda connection, *_: (connection.send(said[0]), said[0] or connection.wait_eof()))
        x = self.exporter()
        for said[0] in (b"HTTP/1.0 200 OK\r\n\r\n" * 9, b"\0" * 64, whole[:-1], whole[:3], b"", frame(80, {}),
                        result(2, "refused", "no"), event("drain"), frame(82, {1: "kvd"})):
            self.assertEqual(x.get("/health")[0::2], (503, "kvd: the supervisor does not answer\n"), said)
            self.assertIn('handoff_up{service="kvd"} 0\n', x.get("/metrics")[2])
        said[0] = event("drain") + whole
        self.wait_answer(x)
        fake.die()
        self.assertEqual(x.get("/health/kvd")[0::2], (503, "kvd: the supervisor does not answer\n"))
        self.assertEqual(x.end(signal.SIGINT), 0)

    def test_the_client_goes(self):
        """Its question is given up."""
        asked = []
        self.supervisor(lambda connection, kind, _: (asked.append(kind), connection.wait_eof()))
        x = self.exporter()
        with socket.create_connection(("127.0.0.1", int(x.url.rpartition(":")[2]))) as c:
            c.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            harness.wait_until(lambda: asked, "the supervisor is asked")
        self.assertEqual(x.get("/health")[0], 503)

    def test_stopped_while_it_asks(self):
        asked = []
        self.supervisor(lambda connection, kind, _: (asked.append(kind), connection.wait_eof()))
        x = self.exporter("--spans", self.path("spans"))
        with socket.create_connection(("127.0.0.1", int(x.url.rpartition(":")[2]))) as c:
            c.settimeout(harness.PATIENCE)
            c.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            harness.wait_until(lambda: {STATUS, HISTORY} <= set(asked), "the supervisor is asked")
            self.assertEqual(x.end(), 0)

    def test_the_directory_vanishes(self):
        run = self.path("run")
        self.supervisor(fakesupervisor.answer(state("kvd")))
        x = self.exporter()
        self.assertEqual(x.get("/ready/kvd")[0], 503)
        os.rename(run, run + "-")
        self.assertEqual(x.get("/ready/kvd")[0], 404)
        with open(run, "w", encoding="utf-8"):
            pass
        self.assertEqual(x.get("/ready/kvd")[0::2], (
            503, "too many requests, or the runtime directory cannot be read\n"))
        os.unlink(run)
        os.rename(run + "-", run)
        self.wait_answer(x)

    def test_no_descriptors(self):
        """Who connects waits; who asks is told so, and not that a supervisor is silent."""
        self.supervisor(fakesupervisor.answer(state("kvd")))
        x = self.exporter()
        idle = set(harness.descriptors(x.process.pid))
        self.wait_answer(x)
        harness.wait_until(lambda: set(harness.descriptors(x.process.pid)) == idle, "nothing is asked")
        free = min(set(range(1000)) - idle)
        with limited(x.process.pid, "nofile", free):
            with socket.create_connection(("127.0.0.1", int(x.url.rpartition(":")[2]))) as c:
                c.settimeout(harness.PATIENCE)
                c.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
                harness.wait_until(lambda: "cannot be accepted: Too many open files" in harness.read_file(x.log),
                                   "it says so")
                with limited(x.process.pid, "nofile", free + 1):
                    with c.makefile("rb") as answer:
                        self.assertIn(b"too many requests, or the runtime directory", answer.read())
        self.wait_answer(x)

    def test_ipv6(self):
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
            except OSError as e:
                self.skipTest("no IPv6: %s" % e)
        self.supervisor(fakesupervisor.answer(state("kvd")))
        x = self.exporter(listen="[::1]:0")
        x.url = x.url.replace("127.0.0.1", "[::1]")
        self.assertEqual(x.get("/health")[0], 503)
        self.assertIn("listens on ::1, port ", harness.read_file(x.log))

    # traces

    def test_the_history_begins_anew(self):
        """Of a service that was removed and installed again."""
        records = {n: {} for n in range(1, 20)}
        self.remembers(records)
        path = self.path("spans")
        self.exporter("--spans", path)
        self.wait_text(path, list(range(1, 20)))
        before = harness.read_file(path)
        records.clear()
        records[2] = {"outcome": "under way"}
        records[1] = {}
        self.wait_text(path, [1], before)
        before = harness.read_file(path)
        records[2] = {"outcome": "aborted"}
        records[3] = {}
        self.wait_text(path, [2, 3], before)

    def test_a_history_without_end(self):
        """It is asked as often as the whole of one needs, and no more."""
        for low in (1, 10**6):   # the same again and again; always older ones
            def handle(connection, kind, fields, low=low):
                before = fields.get(1, 10**9)
                for n in range(8):
                    connection.send(self.record(max(low + 8 - n, before - 1 - n if low > 1 else 0)))
                connection.send(result(0, "history", ""))
            fake = self.supervisor(handle, name="kvd%d" % low)
            path = self.path("spans%d" % low)
            x = self.exporter("--spans", path)

            def asked(fake=fake):
                return [1 in fields for _, fields in list(fake.requests)]
            harness.wait_until(lambda: asked().count(False) >= 2, "it is asked anew")
            first = asked()[:asked().index(False, 1)]
            self.assertLessEqual(len(first), 2 if low == 1 else 16)
            self.assertEqual(x.end(), 0)
            numbers = self.numbers(harness.read_file(path))
            self.assertEqual(numbers, sorted(set(numbers)))
            fake.close()
            os.unlink(fake.path)

    def test_no_history(self):
        """Half of one: nothing is written, and nothing is lost."""
        said = [b"", self.record(3)[:-1], self.record(3) + b"\0" * 64, state("kvd")]
        whole = self.record(3) + self.record(2, outcome="committee") + result(0, "history", "")
        self.supervisor(lambda connection, *_: connection.send(said.pop(0) if said else whole))
        path = self.path("spans")
        self.exporter("--spans", path)
        self.wait_text(path, [2, 3])

    def test_whose_trace(self):
        """A trace parent that is none begins a trace of its own; a record without steps or times is a span."""
        good = "00-%s-%s-01" % (TRACE, PARENT)
        bad = (good[:-4], good.replace("-", "+", 1), good[:35] + "+" + good[36:], good[:52] + "+01", good.upper(),
               "00-%s-%s-01" % ("0" * 32, PARENT), "00-%s-%s-01" % (TRACE, "0" * 16))
        steps = {"steps": ["phase ", "asked", "phase drain", "sealed", "phase take"], "us": [1, 2, 3, 4, 5]}
        self.remembers({1: dict(steps, trace=good), **{n + 2: dict(steps, trace=t) for n, t in enumerate(bad)},
                        9: {"message": "x" * 1000, "outcome": "rolled back"}, 10: {"id": b"\1" * 8 + b"\0" * 8}})
        path = self.path("spans")
        self.exporter("--spans", path)
        self.wait_text(path, list(range(1, 11)))
        roots = [self.root(line) for line in harness.read_file(path).splitlines()]
        self.assertEqual((roots[0]["traceId"], roots[0]["parentSpanId"]), (TRACE, PARENT))
        self.assertEqual([(r["traceId"], r.get("parentSpanId")) for r in roots[1:9]],
                         [("%032x" % n, None) for n in range(2, 10)])
        self.assertEqual((roots[8]["status"]["code"], roots[9]["spanId"]), (2, "%016x" % 1))
        self.assertEqual(int(roots[0]["endTimeUnixNano"]) - int(roots[0]["startTimeUnixNano"]), 5000)

    # what they are written to

    LONG = {"message": "\1" * 1000, "outcome": "aborted"}   # in JSON more than PIPE_BUF

    def read_some(self, pipe):
        """What comes next. It ends whenever its writer closes it, and goes on with the next one."""
        def some():
            with contextlib.suppress(BlockingIOError):
                return os.read(pipe, 1 << 20)
            return b""
        return harness.wait_until(some, "the pipe is written").decode()

    def test_a_reader_is_replaced(self):
        """In a pipe too small for a line: each reader gets whole lines."""
        records = {}
        self.remembers(records)
        path = self.path("pipe")
        os.mkfifo(path)
        self.exporter("--spans", path)
        first = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(lambda: os.close(first))
        fcntl.fcntl(first, fcntl.F_SETPIPE_SZ, 4096)
        records[1] = self.LONG
        self.assertEqual(self.numbers(self.read_some(first)), [1])
        second = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(lambda: os.close(second))
        fcntl.fcntl(second, fcntl.F_SETPIPE_SZ, 4096)
        with open(os.devnull, "rb") as null:
            os.dup2(null.fileno(), first)   # the first has gone, and its number stays
        records[2] = {}
        records[3] = self.LONG
        got = ""
        while got.count("\n") < 2:
            got += self.read_some(second)
        self.assertEqual(self.numbers(got), [2, 3])

    def test_a_full_disk(self):
        """It takes half of a line; when there is room again that has an end, and the whole line follows."""
        records = {}
        self.remembers(records)
        path = self.path("spans")
        with open(path, "w", encoding="utf-8") as f:
            f.write("x" * 9999 + "\n")
        x = self.exporter("--spans", path)
        with limited(x.process.pid, "fsize", 10100):
            records[1] = {}
            harness.wait_until(lambda: "cannot be written: File too large" in harness.read_file(x.log), "it is full")
            self.assertEqual(os.stat(path).st_size, 10100)
        harness.wait_until(lambda: harness.read_file(path).count("\n") == 3, "the rest")
        _, half, whole = harness.read_file(path).splitlines()
        self.assertEqual((half, self.numbers(whole + "\n")), (whole[:100], [1]))

    def test_killed_in_a_line(self):
        """What its exporter has left of a line counts as nothing, and the next one writes it whole."""
        self.remembers({1: {}, 2: {}})
        path = self.path("spans")
        x = self.exporter("--spans", path)
        self.wait_text(path, [1, 2])
        self.assertEqual(x.end(), 0)
        first, second = harness.read_file(path).splitlines()
        os.truncate(path, os.stat(path).st_size - 20)
        self.exporter("--spans", path)
        harness.wait_until(lambda: harness.read_file(path).count("\n") == 3, "it is written again")
        self.assertEqual(harness.read_file(path).splitlines(), [first, second[:-19], second])

    def test_rotated_in_a_line(self):
        """The end of what is not there any more is not looked for in the next file."""
        self.remembers({1: {}})
        path = self.path("spans")
        with open(path, "w", encoding="utf-8") as f:
            f.write("half")
        self.env["HANDOFF_RUNTIME_DIR"] = self.path("later")
        self.exporter("--spans", path)
        os.rename(path, path + ".1")
        os.symlink("run", self.path("later"))
        self.wait_text(path, [1])
        self.assertEqual(harness.read_file(path + ".1"), "half")

    def test_nowhere(self):
        """A device that takes nothing, a directory: it is said, and the exporter answers."""
        self.remembers({1: {}})
        for path, says in (("/dev/full", "cannot be written: No space left"), (self.dir, "cannot be opened: Is a")):
            x = self.exporter("--spans", path)
            harness.wait_until(lambda x=x, says=says: says in harness.read_file(x.log), says)
            self.assertEqual(x.get("/ready")[0], 503)
            self.assertEqual(x.end(), 0)


class Log(ExporterCase):
    def test_its_errors_are_its_own(self):
        """What cannot be listed is said by the parts of handoffctl, and in the exporter's name."""
        s = self.service("kvd-v1", start=False)
        s.env["HANDOFF_RUNTIME_DIR"] = s.conf
        x = self.exporter(s)
        self.assertEqual(x.get("/metrics")[0], 503)
        self.assertIn("handoff-exporter: %s cannot be listed: Not a directory" % s.conf, harness.read_file(x.log))
        self.assertNotIn("handoffctl", harness.read_file(x.log))


class Prometheus(ExporterCase):
    """A real one scrapes it, in OpenMetrics: units are in no other format."""

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

        def get(path):
            try:
                with urllib.request.urlopen("http://127.0.0.1:%d/api/v1/%s" % (port, path), timeout=60) as r:
                    return json.load(r)["data"]
            except (OSError, urllib.error.URLError):
                return None

        def scraped():
            data = get("query?query=handoff_serving")
            rows = data["result"] if data else []
            return [(r["metric"]["service"], r["value"][1]) for r in rows] == [("kvd", "1")]
        harness.wait_until(scraped, "Prometheus has a row", 60)
        metric = "targets/metadata?metric=handoff_serving_since_timestamp_seconds"
        [told] = harness.wait_until(lambda: get(metric), "Prometheus knows the metric")
        self.assertEqual((told["type"], told["unit"]), ("gauge", "seconds"))


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

    def test_no_parent(self):
        """What an operator's own program said beside the protocol's commands and is no traceparent: a
        trace of its own."""
        s = self.kvd()
        path = s.path("spans.json")
        self.exporter(s, "--spans", path)
        self.use(s, "kvd-v2")
        handoff = uuid.uuid4().bytes
        with socket.socket(socket.AF_UNIX) as c:
            c.settimeout(harness.PATIENCE)
            c.connect(s.path("run", s.name, "control.sock"))
            c.sendall(frame(UPGRADE, {0: handoff, 21: "00-%s-%s-01" % (TRACE, "0" * 16)}))
            while receive(c)[0] != RESULT:
                pass
        [root, *_] = self.spans(self.wait_lines(path, 1)[0])
        self.assertEqual((root["traceId"], root.get("parentSpanId")), (handoff.hex(), None))

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
