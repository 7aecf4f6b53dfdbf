"""kvload itself: it must notice what the other tests rely on it to notice."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import harness
from fakeserver import FakeServer


def nth(what, n, command=None):
    """Misbehaves once: at the first request from number n on (with this command)."""
    state = {"done": False}

    def misbehave(i, args):
        if state["done"] or i < n or (command and args[0] != command):
            return None
        state["done"] = True
        return what
    return misbehave


class Web(BaseHTTPRequestHandler):
    """What it does is in the path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(503 if self.path == "/503" else 200)
        if self.path == "/close":
            self.send_header("Connection", "close")
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3\r\nabc\r\n0\r\n\r\n")
            return
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"abc")

    def log_message(self, *_args):
        pass


class Kvload(unittest.TestCase):
    FRESH = ("--keepalive", "0", "--fresh-rate", "300")
    KEEPALIVE = ("--fresh-rate", "0", "--keepalive", "4", "--keepalive-rate", "800")

    def server(self, *args, **kwargs):
        s = FakeServer(*args, **kwargs)
        self.addCleanup(s.close)
        return s

    def run_kvload(self, target, *args):
        """The exit code, the last line's JSON, stderr."""
        p = subprocess.run([harness.program("kvload"), "--target", target, "--json", *args],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
        lines = p.stdout.splitlines()
        return p.returncode, json.loads(lines[-1]) if lines else None, p.stderr

    def load(self, server, *args):
        return self.run_kvload(server.address, "--duration", "1", "--keys", "200", "--verify",
                               "--seed", "7", *args)

    def test_nothing_to_find(self):
        code, r, err = self.load(self.server(), "--fresh-rate", "200", "--keepalive", "8",
                                 "--keepalive-rate", "500")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(r["failed"], 0)
        self.assertEqual(r["verify"]["good"], 200)
        self.assertGreaterEqual(r["keepalive"]["ok"], 490)
        self.assertEqual(r["keepalive"]["connections"], 8)
        self.assertGreaterEqual(r["fresh"]["ok"], r["fresh"]["connections"])
        self.assertGreaterEqual(r["fresh"]["connections"], 195)
        self.assertEqual(r["requests"], r["ok"])
        self.assertGreater(r["checked_reads"], 100)
        self.assertGreater(r["acked_writes"], 100)

    def test_forgotten_write(self):
        for args in (self.FRESH, self.KEEPALIVE):
            s = self.server(nth("forget", 100, b"SET"))
            code, r, err = self.load(s, *args)
            self.assertEqual(s.done, ["forget"])
            self.assertEqual((code, r["lost_writes"], r["failed"]), (1, 1, 0), err)
            self.assertIn("was acknowledged", err)

    def test_forgotten_at_the_end_is_found_by_verify(self):
        s = self.server()
        state = os.path.join(self.directory(), "state")
        code, r, _ = self.load(s, *self.KEEPALIVE, "--state", state)
        self.assertEqual(code, 0)
        code, r, _ = self.run_kvload(s.address, "verify", "--state", state)
        self.assertEqual((code, r["verify"]["good"]), (0, 200))
        del s.data[next(k for k, v in s.data.items() if v.startswith(b"k"))]
        counter = next(k for k, v in s.data.items() if not v.startswith(b"k"))
        s.data[counter] = b"%d" % (int(s.data[counter]) - 1)
        code, r, err = self.run_kvload(s.address, "verify", "--state", state)
        self.assertEqual((code, r["lost_writes"], r["verify"]["lost"]), (1, 2, 2), err)

    def test_value_that_nobody_wrote(self):
        for what in ("other_value", "damaged_value"):
            s = self.server(nth(what, 100, b"SET"))
            code, r, _ = self.load(s, *self.FRESH)
            self.assertEqual(s.done, [what])
            self.assertEqual((code, r["wrong_values"], r["lost_writes"]), (1, 1, 0))

    def test_fresh_connection_fails(self):
        for what, counter in (("reset", "reset"), ("end", "eof"), ("error", "error_reply"),
                              ("garbage", "error_reply")):
            s = self.server(nth(what, 50))
            code, r, err = self.load(s, *self.FRESH)
            self.assertEqual(s.done, [what])
            self.assertEqual((code, r["fresh"][counter], r["failed"]), (1, 1, 1), (what, err))
            self.assertEqual(r["lost_writes"], 0)

    def test_refused(self):
        s = self.server()
        s.close()
        code, r, err = self.run_kvload(s.address, "--duration", "1")
        self.assertEqual((code, r), (1, None))
        self.assertIn("Connection refused", err)

    def test_refused_in_the_middle(self):
        box = []

        def misbehave(n, args):
            if n == 100:
                box[0].listener.shutdown(2)
            return None
        box.append(self.server(misbehave))
        code, r, _ = self.load(box[0], *self.FRESH)
        self.assertEqual(code, 1)
        self.assertGreater(r["fresh"]["refused"], 50)
        self.assertIn("Connection refused", r["verify"]["error"])

    def test_fresh_timeout(self):
        s = self.server(nth("silence", 50))
        code, r, err = self.load(s, *self.FRESH, "--timeout", "2")
        self.assertEqual((code, r["fresh"]["timeout"], r["failed"]), (1, 1, 1), err)

    def test_write_that_comes_late_is_no_loss(self):
        for args in (self.FRESH, self.KEEPALIVE):
            s = self.server(nth("silence_applied", 50, b"SET"))
            code, r, err = self.load(s, *args, "--timeout", "1", "--duration", "4",
                                     "--keys", "20")
            self.assertEqual(s.done, ["silence_applied"])
            self.assertEqual((code, r["lost_writes"], r["wrong_values"]), (1, 0, 0), err)
            # What waited behind it on its connection may have waited too long as well.
            self.assertEqual(r["fresh"]["timeout"] + r["keepalive"]["timeout"], r["failed"])
            # On a slow machine another one may be late, too.
            self.assertGreaterEqual(r["unknown_writes"], 1)
            self.assertEqual((r["unknown_applied"], r["unknown_open"]), (r["unknown_writes"], 0))

    def test_unknown_writes_are_settled(self):
        for what, applied in (("end", 0), ("end_applied", 1), ("reset", 0), ("reset_applied", 1)):
            for command in (b"SET", b"INCR"):
                s = self.server(nth(what, 100, command))
                code, r, err = self.load(s, *self.KEEPALIVE)
                k = r["keepalive"]
                self.assertEqual(s.done, [what])
                self.assertEqual((code, r["failed"], r["lost_writes"]), (0, 0, 0), err)
                self.assertEqual((k["unknown_writes"], k["lost"], k["closed_idle"]), (1, 1, 0))
                self.assertEqual((r["unknown_applied"], r["unknown_not_applied"]),
                                 (applied, 1 - applied))
                self.assertEqual((k["connections"], r["unknown_open"]), (5, 0))

    def test_unanswered_read(self):
        s = self.server(nth("end", 100, b"GET"))
        code, r, err = self.load(s, *self.KEEPALIVE)
        self.assertEqual((code, r["keepalive"]["unanswered_reads"], r["failed"]), (0, 1, 0), err)

    def test_end_while_idle(self):
        # 200 ms between two requests of a connection: the end is seen before the next one
        s = self.server(nth("answer_and_end", 20))
        code, r, err = self.load(s, "--fresh-rate", "0", "--keepalive", "4", "--keepalive-rate",
                                 "20", "--duration", "2")
        self.assertEqual(s.done, ["answer_and_end"])
        self.assertEqual((code, r["failed"], r["keepalive"]["lost"]), (0, 0, 0), err)
        self.assertEqual((r["keepalive"]["closed_idle"], r["keepalive"]["connections"]), (1, 5))

    def test_stall_is_seen_by_everyone_who_was_due(self):
        s = self.server(nth("stall", 200))
        code, r, err = self.load(s, *self.KEEPALIVE)
        self.assertEqual((code, s.done), (0, ["stall"]), err)
        # of 400 ms: what was answered just before it may be heard a while later
        self.assertGreaterEqual(r["stall_us"], 300000)
        self.assertGreaterEqual(r["keepalive"]["max_us"], 300000)
        self.assertGreaterEqual(r["keepalive"]["requests"], 795)
        # 800/s for 1 s: some 320 requests became due in those 400 ms, 240 of them more than
        # 100 ms before its end: 30 of 100. Four connections that wait would be 4 of 800.
        self.assertGreaterEqual(r["keepalive"]["p90_us"], 100000)

    def test_fresh_stall(self):
        s = self.server(nth("stall", 150))
        code, r, err = self.load(s, *self.FRESH)
        self.assertEqual(code, 0, err)
        self.assertGreaterEqual(r["stall_us"], 300000)
        self.assertGreaterEqual(r["fresh"]["p90_us"], 50000)

    def test_full_accept_queue(self):
        # A unix listener answers EAGAIN at once; whoever connects has to come again.
        s = self.server(path=os.path.join(self.directory(), "s"), backlog=2, late_accept=100)
        code, r, err = self.load(s, *self.FRESH)
        self.assertEqual((code, r["failed"]), (0, 0), err)
        self.assertGreaterEqual(r["fresh"]["connections"], 295)
        self.assertGreaterEqual(r["fresh"]["max_us"], 250000)
        self.assertGreaterEqual(r["fresh"]["p90_us"], 50000)

    def http(self, path, *args):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return self.run_kvload("127.0.0.1:%d" % server.server_port, "--http", path, "--duration",
                               "1", *args)

    def test_http(self):
        for path in ("/", "/chunked"):
            code, r, err = self.http(path, "--fresh-rate", "50", "--keepalive", "4",
                                     "--keepalive-rate", "100")
            self.assertEqual((code, r["failed"], err), (0, 0, ""))
            self.assertEqual(r["keepalive"]["connections"], 4)
            self.assertGreaterEqual(r["keepalive"]["ok"], 90)
            self.assertEqual(r["keepalive"]["ok"] + r["fresh"]["ok"], r["requests"])

    def test_http_error(self):
        code, r, err = self.http("/503", "--fresh-rate", "0", "--keepalive", "4", "--keepalive-rate", "100")
        self.assertEqual((code, r["failed"]), (1, r["requests"]), r)
        self.assertEqual(r["keepalive"]["error_reply"], r["requests"])
        self.assertIn("HTTP/1.1 503", err)

    def test_http_connection_that_the_server_ends(self):
        """The reply says so: the next request goes over another connection, and none fails."""
        code, r, err = self.http("/close", "--fresh-rate", "20", "--keepalive", "2",
                                 "--keepalive-rate", "50")
        self.assertEqual((code, r["failed"], err), (0, 0, ""))
        self.assertGreaterEqual(r["keepalive"]["connections"], r["keepalive"]["ok"])
        self.assertEqual(r["keepalive"]["closed_idle"], r["keepalive"]["ok"])

    def test_http_usage(self):
        for args in (["--http", "none"], ["--http", "/a b"], ["--http", "/", "--verify"],
                     ["--http", "/", "--state", "x"]):
            code, r, err = self.run_kvload("127.0.0.1:1", *args)
            self.assertEqual((code, r), (2, None), err)

    def test_signals(self):
        s = self.server()
        p = subprocess.Popen([harness.program("kvload"), "--target", s.address, "--json",
                              "--report-every", "0.1"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.kill)
        events = [json.loads(p.stdout.readline())["event"]]
        p.send_signal(signal.SIGUSR1)
        while events[-1] != "stats":
            events.append(json.loads(p.stdout.readline())["event"])
        p.send_signal(signal.SIGINT)
        last = [json.loads(x) for x in p.stdout][-1]
        self.assertEqual(p.wait(60), 0)
        self.assertEqual((events[0], last["event"], last["failed"]), ("progress", "result", 0))
        self.assertGreater(last["ok"], 0)

    def test_usage(self):
        for args in (["--target", "nonsense"], ["--keys", "x"], ["--keepalive", "1.5"], ["--no"],
                     ["verify"], ["--fresh-rate", "0", "--keepalive", "0"], ["--duration", "0"],
                     ["--keys", "5"], ["surplus"]):
            code, _, err = self.run_kvload("127.0.0.1:1", *args)
            self.assertEqual(code, 2, args)
            self.assertNotEqual(err, "")

    def test_help_names_every_key(self):
        text = subprocess.run([harness.program("kvload"), "--help"], stdout=subprocess.PIPE,
                              text=True, check=True).stdout
        _, r, _ = self.load(self.server(), *self.FRESH)
        keys = set(r) | set(r["fresh"]) | set(r["window"]) | set(r["verify"])
        self.assertEqual([k for k in sorted(keys) if k not in text], [])

    def directory(self):
        d = tempfile.TemporaryDirectory()
        self.addCleanup(d.cleanup)
        return d.name


if __name__ == "__main__":
    unittest.main()
