"""Clients that stay connected over upgrades, and notice whatever should not be noticed."""

import socket
import threading

import harness


class Wire:
    """One connection that speaks RESP by hand: what it sends and reads is up to the test."""

    def __init__(self, s):
        self.sock = socket.create_connection(("127.0.0.1", s.port), harness.PATIENCE)
        self.file = self.sock.makefile("rb")

    def send(self, data):
        self.sock.sendall(data)

    def ask(self, *words):
        self.send(command(*words))
        return self.reply()

    def reply(self):
        """The next reply: bytes, a number, or a list; EOFError when there is none any more."""
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("the connection has ended: %r" % line)
        kind, rest = line[:1], line[1:-2]
        if kind == b":":
            return int(rest)
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind == b"$" and int(rest) >= 0:
            data = self.file.read(int(rest) + 2)
            if len(data) != int(rest) + 2:
                raise EOFError("it has ended within a reply")
            return data[:-2]
        return rest if kind in b"+-" else None

    def close(self):
        self.file.close()
        self.sock.close()


def command(*words):
    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    return b"*%d\r\n%s" % (len(words), b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))


class Counter(threading.Thread):
    """
    Counts a key of its own up, several requests in flight, each cut at another byte. Every reply
    must be the number after the one before: none twice, none missing, none out of order.
    """

    def __init__(self, s, number, depth):
        super().__init__(daemon=True)
        self.wire = Wire(s)
        self.key = "counter%d" % number
        self.depth = depth
        self.sent = self.acked = self.rounds = 0
        self.wrong = self.lost = None
        self.stopping = threading.Event()
        self.start()

    def run(self):
        text = command("incr", self.key)
        try:
            while not self.stopping.is_set():
                self.sent += self.depth
                cut = 1 + self.rounds % (len(text) - 1)
                self.wire.send(text * (self.depth - 1) + text[:cut])
                self.wire.send(text[cut:])
                for _ in range(self.depth):
                    value = self.wire.reply()
                    if value != self.acked + 1:
                        self.wrong = "%s: %r after %d" % (self.key, value, self.acked)
                        return
                    self.acked = value
                self.rounds += 1
        except (EOFError, ConnectionError) as e:
            self.lost = repr(e)
        except OSError as e:  # no reply for PATIENCE seconds: silent for ever
            self.wrong = repr(e)


class Crowd:
    """Many of them."""

    def __init__(self, test, s, n=12, first=0):
        self.test, self.s = test, s
        self.all = [Counter(s, first + i, 1 + i % 4 * 3) for i in range(n)]
        test.addCleanup(self.close)

    def progress(self, rounds=3):
        """Each that is still connected has gone on."""
        goal = [c.rounds + rounds for c in self.all]
        harness.wait_until(lambda: all(c.rounds >= g or c.lost or c.wrong
                                       for c, g in zip(self.all, goal)), "all go on")

    def end(self):
        """How many have lost their connection; and that nothing else went wrong."""
        self.progress()
        for c in self.all:
            c.stopping.set()
        for c in self.all:
            c.join(harness.PATIENCE * 2)
        self.test.assertEqual([c.wrong for c in self.all if c.wrong], [], self.s.log())
        with self.s.client() as r:
            for c in self.all:
                value = int(r.get(c.key) or 0)
                self.test.assertTrue(c.acked <= value <= c.sent, (c.key, c.acked, value, c.sent))
        return len([c for c in self.all if c.lost])

    def close(self):
        for c in self.all:
            c.stopping.set()
            c.join(harness.PATIENCE * 2)
            c.wire.close()
