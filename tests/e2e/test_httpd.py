"""The HTTP server of the examples: alone, and under clients that should not notice its upgrades."""

import hashlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import unittest
import zlib

import harness
from handoffs import HandoffCase

OLD, NEW = "httpd", "httpd-v2"
EXAMPLE = os.path.join(harness.TOP, "examples", "httpd", "httpd.conf")


def text(s):
    """The example, with this service's program, port and options."""
    conf = harness.read_file(EXAMPLE)
    conf = conf.replace('"/usr/local/bin/httpd"', '"%s"' % s.binary)
    conf = conf.replace("tcp:0.0.0.0:8080", "tcp:127.0.0.1:%d" % s.port)
    for name in s.options:
        conf = re.sub(r"(?m)^    %s = .*\n" % name, "", conf)
    conf = conf.replace(', "--max-connections", "10000"',
                        "".join(', "%s"' % a for a in s.arguments))
    return conf.replace("\n}\n", "\n%s}\n" % "".join(
        '    %s = "%s"\n' % o for o in s.options.items() if o[1] is not None))


def pattern(n):
    """What /bytes/n has."""
    return (bytes(range(251)) * (n // 251 + 1))[:n]


def checksum(data):
    return "%d %08x\n" % (len(data), zlib.adler32(data))


class Wire:
    """One connection that speaks HTTP by hand: what it sends and reads is up to the test."""

    def __init__(self, port, receive=None):
        self.sock = socket.socket()
        self.sock.settimeout(harness.PATIENCE)
        if receive:  # a small window: what is not read stays with the server
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.sock.connect(("127.0.0.1", port))
        self.file = self.sock.makefile("rb")

    def send(self, data):
        self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def get(self, path, *headers):
        self.send("\r\n".join(["GET %s HTTP/1.1" % path, "Host: here", *headers, "", ""]))

    def line(self):
        line = self.file.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the connection has ended: %r" % line)
        return line.strip().decode()

    def head(self):
        """The status, and the headers in self.headers."""
        status = int(self.line().split()[1])
        self.headers = dict(x.lower().split(": ", 1) for x in iter(self.line, ""))
        return status

    def body(self, n=None):
        n = int(self.headers["content-length"]) if n is None else n
        data = self.file.read(n)
        if len(data) != n:
            raise EOFError("it has ended within a reply")
        return data

    def reply(self, status=200):
        """The body of the next reply, as text."""
        found = self.head()
        data = self.body().decode()
        if found != status:
            raise AssertionError("%d %s" % (found, data))
        return data

    def ask(self, path="/", *headers):
        self.get(path, *headers)
        return self.reply()

    def event(self):
        """The id of a stream's next event; None when its end was said."""
        chunk = self.body(int(self.line(), 16)).decode()
        self.line()
        if not chunk:
            return None
        return int(re.match(r"id: (\d+)\ndata: httpd [0-9.]+\n\n$", chunk)[1])

    def close(self):
        self.file.close()
        self.sock.close()


class Alone(harness.TestCase):
    """Without a supervisor."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="handoff-test-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.env = {k: v for k, v in harness.environment(self.dir).items()
                    if not k.startswith("HANDOFF_")}

    def start(self, *arguments):
        self.port = harness.free_port()
        self.launch("--listen", "127.0.0.1:%d" % self.port, *arguments)

    def launch(self, *arguments, **options):
        self.process = subprocess.Popen(
            [harness.program(OLD), *arguments], env=self.env, stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, **options)
        self.addCleanup(self.end)
        self.assertIn(b"serves", self.process.stderr.readline())

    def end(self):
        """In order, and with nothing that a sanitizer would complain of."""
        self.process.terminate()
        try:
            self.assertEqual(self.process.wait(harness.PATIENCE), 0)
        finally:
            self.process.kill()
            self.process.stderr.close()
        self.assertEqual(os.listdir(self.dir), [])

    def wire(self, **options):
        w = Wire(self.port, **options)
        self.addCleanup(w.close)
        return w

    def test_keep_alive(self):
        self.start()
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=harness.PATIENCE)
        self.addCleanup(c.close)
        first = None
        for method, path, data, status, body in (
                ("GET", "/", None, 200, b"httpd 1.0\n"),
                ("HEAD", "/", None, 200, b""),
                ("GET", "/bytes/300000", None, 200, pattern(300000)),
                ("PUT", "/upload", b"abc", 200, checksum(b"abc").encode()),
                ("POST", "/upload", iter([b"a" * 70000, b"bc"]), 200,
                 checksum(b"a" * 70000 + b"bc").encode()),
                ("GET", "/nothing", None, 404, b"Not Found\n"),
                ("DELETE", "/upload", None, 405, b"Method Not Allowed\n"),
                ("GET", "/bytes/0", None, 200, b"")):
            with self.subTest(method=method, path=path):
                c.request(method, path, data)
                r = c.getresponse()
                self.assertEqual((r.status, r.read()), (status, body))
                first = first or c.sock
                self.assertIs(c.sock, first)

    def test_continue(self):
        self.start()
        w = self.wire()
        w.send("PUT /upload HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        self.assertEqual(w.head(), 100)
        w.send("abc")
        self.assertEqual(w.reply(), checksum(b"abc"))

    def test_last_event_id(self):
        self.start()
        w = self.wire()
        w.get("/events/1", "Last-Event-ID: 6")
        self.assertEqual(w.head(), 200)
        self.assertEqual([w.event() for _ in range(5)], [7, 8, 9, 10, 11])

    def test_half_closed(self):
        """Who sends no more is still answered, in full, and then sees the end."""
        self.start()
        w = self.wire()
        w.get("/bytes/5000000")
        w.get("/")
        w.sock.shutdown(socket.SHUT_WR)
        self.assertEqual(w.head(), 200)
        self.assertTrue(w.body() == pattern(5000000))
        self.assertEqual(w.reply(), "httpd 1.0\n")
        self.assertRaises(EOFError, w.line)

    def test_silent(self):
        self.start("--idle", "1")
        w = self.wire()
        w.send("GET / HT")
        self.assertRaises(EOFError, w.line)

    def test_full(self):
        self.start("--max-connections", "2")
        wires = [self.wire() for _ in range(2)]
        for w in wires:
            self.assertEqual(w.ask(), "httpd 1.0\n")
        third = self.wire()
        self.assertEqual(third.head(), 503)
        self.assertEqual(wires[0].ask(), "httpd 1.0\n")

    def test_stop(self):
        """A reply that is under way comes whole, a stream's end is said; idle ones are closed."""
        self.start("--leave", "200")
        idle, stream, download = self.wire(), self.wire(), self.wire(receive=4096)
        self.assertEqual(idle.ask(), "httpd 1.0\n")
        stream.get("/events/1")
        self.assertEqual(stream.head(), 200)
        download.get("/bytes/20000000")
        self.assertEqual(download.head(), 200)
        self.process.terminate()
        self.assertRaises(EOFError, idle.line)
        ids = list(iter(stream.event, None))
        self.assertEqual(ids, list(range(1, len(ids) + 1)))
        self.assertTrue(download.body() == pattern(20000000))
        for w in stream, download:
            w.sock.shutdown(socket.SHUT_WR)  # else the server would wait a little for that
        self.assertEqual(self.process.wait(harness.PATIENCE), 0)

    def test_a_socket_that_it_is_started_with(self):
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
            self.launch("--listen", "fd:%d" % s.fileno(), pass_fds=[s.fileno()])
        self.assertIn("httpd 1.0", self.wire().ask())

    def test_options(self):
        for arguments, code in ((["--help"], 0), (["--version"], 0), (["--idle", "x"], 2),
                                (["--fault", "x"], 2), (["--what"], 2), (["what"], 2),
                                ([], 1), (["--listen", "nowhere"], 1),
                                (["--listen", "fd:0"], 1), (["--listen", "fd:99"], 1),
                                (["--listen", "fd:x"], 1)):
            with self.subTest(arguments=arguments):
                p = subprocess.run([harness.program(OLD), *arguments], text=True, check=False,
                                   env=self.env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   timeout=harness.PATIENCE)
                self.assertEqual(p.returncode, code, p.stderr)
                self.assertTrue(p.stderr or p.stdout)


class Below(HandoffCase):
    """What tests of httpd below a supervisor share."""

    def httpd(self, *arguments, **options):
        options = {k.replace("_", "-"): v for k, v in options.items()}
        self.s = self.service(OLD, arguments=arguments, options=options, text=text, name="httpd")
        return self.s

    def wire(self, **options):
        w = Wire(self.s.port, **options)
        self.addCleanup(w.close)
        return w

    def stream(self, ms=2):
        w = self.wire()
        w.get("/events/%d" % ms)
        self.assertEqual(w.head(), 200)
        return w

    def start_upgrade(self, binary, *arguments):
        self.s.install(binary)
        self.s.arguments = list(arguments)
        self.s.configure()
        return self.s.start_upgrade()

    def upgrades(self, between=lambda: None):
        for i in range(3):
            self.upgrade(self.s, (NEW, OLD)[i % 2], old=self.s.log())
            between()


class InTheMiddle(Below):
    """Nobody notices: three upgrades with the same connections."""

    def setUp(self):
        super().setUp()
        self.httpd()

    def test_keep_alive(self):
        c = http.client.HTTPConnection("127.0.0.1", self.s.port, timeout=harness.PATIENCE)
        self.addCleanup(c.close)
        seen, sockets = [], []

        def ask():
            c.request("GET", "/")
            r = c.getresponse()
            seen.append(r.read())
            sockets.append(c.sock)
        ask()
        self.upgrades(ask)
        self.assertEqual(seen, [b"httpd 1.0\n", b"httpd 2.0\n", b"httpd 1.0\n", b"httpd 2.0\n"])
        self.assertEqual(len(set(sockets)), 1)

    def test_head(self):
        w, head = self.wire(), b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
        parts = [head[:1], head[1:20], head[20:-1], head[-1:]]
        w.send(parts.pop(0))
        self.upgrades(lambda: w.send(parts.pop(0)))
        self.assertEqual(w.reply(), "httpd 2.0\n")

    def test_upload(self):
        w, data = self.wire(), os.urandom(4 << 20)
        w.send("PUT /upload HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(data))
        parts = [data[i << 20:(i + 1) << 20] for i in range(4)]
        w.send(parts.pop(0))
        self.upgrades(lambda: w.send(parts.pop(0)))
        self.assertEqual(w.reply(), checksum(data))

    def test_chunked_upload(self):
        """Cut in a chunk's data, in the line before it, and in the trailer."""
        w, one, two = self.wire(), os.urandom(300000), os.urandom(100000)
        body = b"%x\r\n%s\r\n%x;some=thing\r\n%s\r\n0\r\nTrailer: here\r\n\r\n" % (
            len(one), one, len(two), two)
        cuts = [0, len(one) // 2, body.index(b";some") + 3, len(body) - 10, len(body)]
        parts = [body[a:b] for a, b in zip(cuts, cuts[1:])]
        w.send("POST /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        w.send(parts.pop(0))
        self.upgrades(lambda: w.send(parts.pop(0)))
        self.assertEqual(w.reply(), checksum(one + two))
        self.assertEqual(w.ask(), "httpd 2.0\n")

    def test_download(self):
        """Some of it is read before each upgrade, most of it was not even made then."""
        size = 40 << 20
        w, got = self.wire(), hashlib.sha256()
        w.get("/bytes/%d" % size)
        w.get("/")
        self.assertEqual(w.head(), 200)
        self.upgrades(lambda: got.update(w.body(1 << 20)))
        got.update(w.body(size - (3 << 20)))
        self.assertEqual(got.hexdigest(), hashlib.sha256(pattern(size)).hexdigest())
        self.assertEqual(w.reply(), "httpd 2.0\n")

    def test_pipeline(self):
        """More requests than anybody has read yet; each reply has a length of its own."""
        w, n = self.wire(receive=4096), 4 * 500
        asked = iter(range(n))

        def ask():
            w.send("".join("GET /bytes/%d HTTP/1.1\r\n\r\n" % next(asked) for _ in range(n // 4)))
        ask()
        self.upgrades(ask)
        for i in range(n):
            self.assertEqual(w.head(), 200)
            self.assertEqual(w.body(), pattern(i))

    def test_events(self):
        """Not one is missing, and none comes twice, over all the processes."""
        w, ids = self.stream(), []

        def some():
            ids.extend(w.event() for _ in range(20))
        some()
        self.upgrades(some)
        self.assertEqual(ids, list(range(1, 81)))
        while b"2.0" not in w.file.readline():  # the last of them goes on with it
            pass

    def test_rollback(self):
        """... is a handoff like any other."""
        w, stream = self.wire(), self.stream()
        self.upgrade(self.s, NEW)
        self.assertEqual(w.ask(), "httpd 2.0\n")
        self.s.wait_copied()
        p = self.s.ctl("rollback", self.s.name)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(w.ask(), "httpd 1.0\n")
        self.assertEqual([stream.event() for _ in range(50)], list(range(1, 51)))

    def test_last_words(self):
        """A connection that ends with its reply still does, and is seen to end, also while the
        old process has a copy of it."""
        self.s.configure(probation="2s")
        w = self.wire()
        w.get("/bytes/8000000", "Connection: close")
        self.assertEqual(w.head(), 200)
        u = self.start_upgrade(NEW)
        u.wait_phase("probation")
        self.assertTrue(w.body() == pattern(8000000))
        self.assertRaises(EOFError, w.line)
        u.wait()
        self.assert_outcome(u, 0, "committed")

    def test_leaves_no_descriptors(self):
        wires = [self.wire() for _ in range(70)]
        self.upgrades()
        for w in wires:  # who answers has had Final before, or has room for one descriptor less
            w.ask()
        first = len(harness.descriptors(self.s.daemon_pid()))
        self.upgrades()
        pid = self.s.daemon_pid()
        harness.wait_until(lambda: len(harness.descriptors(pid)) <= first,
                           "%d descriptors, as before" % first)
        for w in wires:
            self.assertEqual(w.ask(), "httpd 2.0\n")


class Client(threading.Thread):
    """Asks on one connection, again and again; every fourth time it uploads something."""

    def __init__(self, port, number):
        super().__init__(daemon=True)
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=harness.PATIENCE)
        self.http.connect()
        self.sock = self.http.sock
        self.number, self.rounds, self.problem = number, 0, None
        self.stopping = threading.Event()
        self.start()

    def once(self):
        size = 1000 * self.number + self.rounds % 1000
        if self.rounds % 4:
            self.http.request("GET", "/bytes/%d" % size)
            expected = pattern(size)
        else:
            self.http.request("PUT", "/upload", iter([pattern(size), b"end"]))
            expected = checksum(pattern(size) + b"end").encode()
        r = self.http.getresponse()
        if (r.status, r.read()) != (200, expected):
            self.problem = "another reply than expected: %d" % r.status
        elif self.http.sock is not self.sock:
            self.problem = "it had to connect again"

    def run(self):
        try:
            while not self.problem and not self.stopping.is_set():
                self.once()
                self.rounds += 1
        except (OSError, http.client.HTTPException) as e:
            self.problem = repr(e)


class Crowd:
    """Many of them, and streams of events."""

    def __init__(self, test, n=8):
        self.test = test
        self.clients = [Client(test.s.port, i) for i in range(n)]
        self.streams = [test.stream(5) for _ in range(3)]
        self.seen = [0] * len(self.streams)
        test.addCleanup(self.close)

    def progress(self):
        """Each goes on, and each stream with the event behind the last one."""
        goal = [c.rounds + 2 for c in self.clients]
        harness.wait_until(lambda: all(c.rounds >= g or c.problem
                                       for c, g in zip(self.clients, goal)), "all go on")
        for i, w in enumerate(self.streams):
            for _ in range(5):
                self.seen[i] += 1
                self.test.assertEqual(w.event(), self.seen[i], self.test.s.log())

    def end(self):
        """Nobody has noticed anything."""
        self.progress()
        self.stop()
        self.test.assertEqual([c.problem for c in self.clients if c.problem], [],
                              self.test.s.log())

    def stop(self):
        for c in self.clients:
            c.stopping.set()
        for c in self.clients:
            c.join(harness.PATIENCE * 2)

    def close(self):
        self.stop()
        for c in self.clients:
            c.http.close()


class UnderLoad(Below):
    def test_upgrades(self):
        self.httpd()
        crowd = Crowd(self, 12)
        for i in range(8):
            self.upgrade(self.s, (NEW, OLD)[i % 2])
            crowd.progress()
        crowd.end()

    def test_supervisor_is_killed(self):
        """There is no lock on data by which a new one could find the daemon: it registers."""
        self.httpd()
        crowd = Crowd(self)
        pid = self.s.daemon_pid()
        self.s.kill_supervisor()
        crowd.progress()
        self.s.start()
        self.assertEqual(self.s.daemon_pid(), pid)
        self.upgrade(self.s, NEW)
        crowd.end()


class SomebodyFails(Below):
    """What had moved comes back, in the middle of what it was in."""

    def run_case(self, *arguments, during=lambda u: None, **options):
        self.httpd(**options)
        self.crowd = Crowd(self, 6)
        self.download = self.wire(receive=4096)
        self.upload = self.wire()
        self.download.get("/bytes/8000000")
        self.upload.send("PUT /upload HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc")
        u = self.start_upgrade(NEW, *arguments)
        during(u)
        u.wait()
        return u

    def assert_nobody_noticed(self, u, *outcomes):
        self.assertIn(u.result["outcome"], outcomes or ["aborted"], self.s.log())
        self.crowd.end()
        self.assertEqual(self.download.head(), 200)
        self.assertTrue(self.download.body() == pattern(8000000))
        self.upload.send("def")
        self.assertEqual(self.upload.reply(), checksum(b"abcdef"))
        self.s.configure(deadline=None)
        self.upgrade(self.s, NEW)
        self.assertEqual(self.upload.ask(), "httpd 2.0\n")

    def test_unhealthy(self):
        self.assert_nobody_noticed(self.run_case("--fault", "unhealthy"))

    def test_dies(self):
        self.assert_nobody_noticed(self.run_case("--fault", "die"))

    def test_hangs(self):
        self.assert_nobody_noticed(self.run_case("--fault", "hang", deadline="2s"))

    def test_operator_aborts(self):
        def abort(u):
            u.wait_phase("ready")
            self.s.ctl("abort", self.s.name)
        self.assert_nobody_noticed(self.run_case("--fault", "hang", during=abort, deadline="60s"))

    def test_supervisor_dies(self):
        """The successor ends with it, and the incumbent goes on before anybody else is there."""
        def kill(u):
            u.wait_phase("ready")
            self.s.kill_supervisor()
            self.crowd.progress()
            self.s.start()
        u = self.run_case("--fault", "hang", during=kill, deadline="60s")
        # handoffctl does not wait for ever for another supervisor
        self.assert_nobody_noticed(u, "aborted", "unknown")

    def test_daemon_dies(self):
        """Its connections die with it; who comes waits in the queue of the listening socket."""
        self.httpd()
        w = self.wire()
        self.assertEqual(w.ask(), "httpd 1.0\n")
        pid = self.s.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        harness.wait_until(lambda: not harness.is_alive(pid), "its end")
        self.assertEqual(self.wire().ask(), "httpd 1.0\n")
        self.assertRaises((EOFError, ConnectionError), w.ask)
        self.s.wait_state("idle")
        self.upgrade(self.s, NEW)

    def test_rolled_back(self):
        """The successor may have touched them: they are closed, and nobody is refused."""
        def kill(u):
            harness.wait_until(lambda: "httpd 2.0 serves" in self.s.log(), "it has taken them")
            os.kill(self.s.status()["successor_pid"], signal.SIGKILL)
        u = self.run_case(during=kill, probation="60s")
        self.assertEqual(u.result["outcome"], "rolled back", self.s.log())
        self.assertRaises((EOFError, ConnectionError), lambda: self.upload.ask())
        self.crowd.stop()
        self.assertEqual(self.wire().ask(), "httpd 1.0\n")
        Crowd(self).end()
        self.s.configure(probation=None)
        self.upgrade(self.s, NEW)


class WhatStays(Below):
    """The old process finishes it, and says with the reply that it was the last one."""

    def setUp(self):
        super().setUp()
        self.options = {"exit_timeout": "240s"}

    def assert_last_reply(self, w, version):
        self.assertEqual(w.ask(), "httpd %s\n" % version)
        self.assertEqual(w.headers.get("connection"), "close")
        self.assertRaises(EOFError, w.line)

    def test_too_much_state(self):
        """24 times 64 KiB unsent at least, of which 1 MiB may move: all downloads come whole."""
        self.httpd("--leave", "200", connection_state="1", **self.options)
        wires = [self.wire(receive=65536) for _ in range(24)]
        for w in wires:
            w.get("/bytes/8000000")
            self.assertEqual(w.head(), 200)
        u = self.start_upgrade(NEW)
        u.wait_phase("exit")
        stayed = 0
        for w in wires:
            self.assertTrue(w.body() == pattern(8000000), self.s.log())
            version = w.ask()
            self.assertIn(version, ("httpd 1.0\n", "httpd 2.0\n"))
            stayed += version == "httpd 1.0\n"
            self.assertEqual(w.headers.get("connection") == "close", version == "httpd 1.0\n")
        self.assertTrue(0 < stayed < 24, stayed)
        for w in wires:
            w.close()
        u.wait()
        self.assert_outcome(u, 0, "committed")

    def test_not_wanted(self):
        """The successor has no place for all."""
        self.httpd("--leave", "200", **self.options)
        wires = [self.wire() for _ in range(6)]
        for w in wires:
            self.assertEqual(w.ask(), "httpd 1.0\n")
        u = self.start_upgrade(NEW, "--max-connections", "4")
        u.wait_phase("exit")
        stayed = 0
        for w in wires:
            w.get("/")
            if w.reply() == "httpd 1.0\n":
                stayed += 1
                self.assertEqual(w.headers.get("connection"), "close")
                self.assertRaises(EOFError, w.line)
                w.close()
            else:
                self.assertNotIn("connection", w.headers)
        self.assertEqual(stayed, 2)
        u.wait()
        self.assert_outcome(u, 0, "committed")

    def test_no_state_at_all(self):
        """None moves. A stream ends in order, and its client goes on with the next event."""
        self.httpd("--leave", "200", connection_state="0", **self.options)
        idle, stream, upload = self.wire(), self.stream(), self.wire()
        self.assertEqual(idle.ask(), "httpd 1.0\n")
        self.assertEqual(stream.event(), 1)
        upload.send("PUT /upload HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc")
        u = self.start_upgrade(NEW)
        u.wait_phase("exit")
        ids = list(iter(stream.event, None))
        self.assertEqual(ids, list(range(2, len(ids) + 2)))
        self.assertRaises(EOFError, stream.line)
        stream.close()
        upload.send("def")
        self.assertEqual(upload.reply(), checksum(b"abcdef"))
        self.assertEqual(upload.headers.get("connection"), "close")
        upload.close()
        self.assert_last_reply(idle, "1.0")
        idle.close()
        again = self.wire()
        again.get("/events/1", "Last-Event-ID: %d" % (len(ids) + 1))
        self.assertEqual(again.head(), 200)
        self.assertEqual(again.event(), len(ids) + 2)
        u.wait()
        self.assert_outcome(u, 0, "committed")


if __name__ == "__main__":
    unittest.main()
