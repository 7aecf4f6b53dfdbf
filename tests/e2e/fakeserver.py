"""A small RESP2 server that can misbehave: kvload's own tests drive it."""

import socket
import struct
import threading
import time


class FakeServer:
    """Serves PING, GET, SET and INCR on a loopback port, one thread a connection.

    misbehave(n, args) is asked before request number n (1, 2, ...; PINGs do not
    count) and returns None or one of the methods' names below, as in "forget".
    path: a unix socket instead. late_accept: connection number n waits for 300 ms in the
    accept queue, and all behind it.
    """

    def __init__(self, misbehave=None, path=None, backlog=4096, late_accept=None):
        self.data = {}
        self.forgotten = None  # a key whose SETs are not kept
        self.misbehave = misbehave or (lambda n, args: None)
        self.requests = 0
        self.done = []  # what was misbehaved
        self.lock = threading.Lock()
        self.connections = set()
        self.late_accept = late_accept
        if path is not None:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.listener.listen(backlog)
            self.address = "unix:" + path
        else:
            self.listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
            self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def close(self):
        """Ends the listener and every connection."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        except OSError:
            pass
        self.listener.close()
        for c in list(self.connections):
            try:
                c.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for t in self.threads:
            t.join(30)

    def _accept(self):
        accepted = 0
        while True:
            accepted += 1
            if accepted == self.late_accept:
                time.sleep(0.3)
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            if c.family != socket.AF_UNIX:
                c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections.add(c)
            t = threading.Thread(target=self._serve, args=(c,), daemon=True)
            self.threads.append(t)
            t.start()

    def _serve(self, c):
        f = c.makefile("rb")
        try:
            while True:
                args = self._read(f)
                if args is None:
                    break
                reply = self._answer(c, args)
                if reply is None:
                    break
                c.sendall(reply)
        except OSError:
            pass
        finally:
            self.connections.discard(c)
            f.close()
            c.close()

    @staticmethod
    def _read(f):
        head = f.readline()
        if not head.endswith(b"\r\n"):
            return None
        args = []
        for _ in range(int(head[1:])):
            size = int(f.readline()[1:])
            args.append(f.read(size + 2)[:-2])
        return args

    def _answer(self, c, args):
        if args[0] == b"PING":
            return b"+PONG\r\n"
        with self.lock:
            self.requests += 1
            what = self.misbehave(self.requests, args)
            if what is None:
                return self._apply(args)
            self.done.append(what)
            return getattr(self, what)(c, args)

    def _apply(self, args):
        if args[0] == b"SET":
            if args[1] != self.forgotten:
                self.data[args[1]] = args[2]
            return b"+OK\r\n"
        if args[0] == b"INCR":
            n = int(self.data.get(args[1], b"0")) + 1
            self.data[args[1]] = b"%d" % n
            return b":%d\r\n" % n
        if args[1] == self.forgotten:
            self.forgotten = None
        value = self.data.get(args[1])
        return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)

    # Ways to misbehave. None ends the connection.

    def forget(self, c, args):
        """Acknowledges a SET that it does not keep; nor those behind it, until somebody reads:
        the client sees one loss, however fast it is."""
        self.forgotten = args[1]
        return b"+OK\r\n"

    def stall(self, c, args):
        """Answers nobody for 400 ms (the lock is held)."""
        time.sleep(0.4)
        return self._apply(args)

    def reset(self, c, args):
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.close()

    def reset_applied(self, c, args):
        self._apply(args)
        self.reset(c, args)

    def end(self, c, args):
        """Ends the connection without a reply; not applied."""

    def end_applied(self, c, args):
        self._apply(args)

    def error(self, c, args):
        return b"-ERR no room for \"this\"\r\n"

    def garbage(self, c, args):
        return b"HTTP/1.1 400 Bad Request\r\n\r\n"

    def other_value(self, c, args):
        self._apply(args)
        self.data[args[1]] = b"nobody wrote this"
        return b"+OK\r\n"

    def damaged_value(self, c, args):
        self._apply(args)
        value = bytearray(args[2])
        value[-5] ^= 1
        self.data[args[1]] = bytes(value)
        return b"+OK\r\n"

    def answer_and_end(self, c, args):
        """A reply, then the end at a clean boundary."""
        c.sendall(self._apply(args))

    def silence(self, c, args):
        """No reply for longer than the client waits; not applied."""
        self.lock.release()
        try:
            c.recv(1)  # until the client gives up
        finally:
            self.lock.acquire()

    def silence_applied(self, c, args):
        """Applied only after the client has given up and gone on."""
        self.silence(c, args)
        self.lock.release()
        time.sleep(0.2)
        self.lock.acquire()
        self._apply(args)
