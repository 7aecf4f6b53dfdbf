"""A supervisor that is played by a test, and handoffctl run against it.

The frames are made by a foreign codec, so that both sides of the wire are compared."""

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import unittest

import cbor2

import harness

UPGRADE, PLAN, STATUS, ABORT, RESTART, STOP, OUTCOME = range(64, 71)
HISTORY, REEXEC = 72, 74
EVENT, RESULT, STATE, HANDOFF, PLANNED = range(80, 85)
BINARY, DEADLINE, DRAIN = 1, 2, 3
REASON, TRACE, CORRELATION, TENANT = 20, 21, 22, 23
TIMERS = ("start-timeout", "drain-grace", "deadline", "commit-timeout", "exit-timeout",
          "probation", "heartbeat", "self-fence", "presumed-dead", "stop-timeout")
DEFAULTS = [300000, 2000, 10000, 5000, 10000, 0, 1000, 4000, 5000, 30000]


def frame(kind, fields, version=1):
    item = cbor2.dumps([kind, dict(sorted(fields.items()))], canonical=True)
    return struct.pack("<IH", len(item) + 2, version) + item


def event(phase, us=0, text=None, id=None):
    fields = {1: phase, 2: us}
    if id is not None:
        fields[0] = id
    if text is not None:
        fields[3] = text
    return frame(EVENT, fields)


def result(code, outcome, message, id=None, **more):
    keys = {"pause_us": 4, "serving_us": 5, "total_us": 6, "pid": 7, "build": 8, "version": 9}
    fields = {1: code, 2: outcome, 3: message, **{keys[k]: v for k, v in more.items()}}
    if id is not None:
        fields[0] = id
    return frame(RESULT, fields)


def state(service, name="idle", **more):
    keys = {"pid": 4, "build": 5, "version": 6, "epoch": 7, "since_ms": 8, "binary": 9,
            "last_id": 11, "outcome": 12, "message": 13, "refused": 14, "successor_pid": 15,
            "warning": 16, "left": 18, "id": 0}
    fields = {1: service, 2: name, 3: 77, 10: more.pop("listeners", []),
              17: more.pop("timers", DEFAULTS)}
    fields.update({keys[k]: v for k, v in more.items()})
    return frame(STATE, fields)


class Connection:
    """The supervisor's end of one connection."""

    def __init__(self, sock):
        self.sock = sock

    def _exactly(self, n):
        data = b""
        while len(data) < n:
            more = self.sock.recv(n - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def receive(self):
        """The next request: its type and its fields. EOFError at the end."""
        length, version = struct.unpack("<IH", self._exactly(6))
        assert version == 1
        kind, fields = cbor2.loads(self._exactly(length - 2))
        return kind, fields

    def send(self, *frames):
        self.sock.sendall(b"".join(frames))

    def wait_eof(self):
        with contextlib.suppress(OSError):
            while self.sock.recv(1):
                pass


class Supervisor:
    """A listening control.sock; handle(connection, kind, fields) plays the rest, in a thread of
    its own for each request. Its failures are the test's."""

    def __init__(self, directory, name, handle, listen=True):
        self.path = os.path.join(directory, "run", name, "control.sock")
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self.handle = handle
        self.requests = []
        self.failures = []
        self.open = []
        self.listener = None
        if listen:
            self.listen()

    def listen(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                self.open.append(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        connection = Connection(sock)
        try:
            kind, fields = connection.receive()
            self.requests.append((kind, fields))
            self.handle(connection, kind, fields)
        except (EOFError, ConnectionError, BrokenPipeError):
            pass  # a client that only knocked, or left
        except BaseException as e:  # pylint: disable=broad-except
            self.failures.append(repr(e))
        finally:
            sock.close()

    def die(self):
        """The listening socket goes; its path stays, as after a crash."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def close(self):
        self.die()
        for s in self.open:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)


def answer(*frames):
    """A supervisor that says this to every request, and closes."""
    def handle(connection, _kind, _fields):
        connection.send(*frames)
    return handle


class Case(unittest.TestCase):
    """handoffctl in a directory with played supervisors."""

    maxDiff = None

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="handoff-ctl-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.env = harness.environment(self.dir, HANDOFF_RUNTIME_DIR=os.path.join(self.dir, "run"),
                                       HANDOFF_STATE_DIR=os.path.join(self.dir, "state"))
        for name in ("MAINPID", "NO_COLOR"):
            self.env.pop(name, None)
        os.mkdir(os.path.join(self.dir, "run"))
        self.fakes = []

    def tearDown(self):
        for f in self.fakes:
            f.close()
        self.assertEqual([x for f in self.fakes for x in f.failures], [])
        reports = [x for x in os.listdir(self.dir) if x.startswith("sanitizer")]
        self.assertEqual("".join(harness.read_file(os.path.join(self.dir, x)) for x in reports), "")

    def supervisor(self, handle, name="kvd", **kwargs):
        self.fakes.append(Supervisor(self.dir, name, handle, **kwargs))
        return self.fakes[-1]

    def start(self, *args, **kwargs):
        env = dict(self.env, **kwargs.pop("env", {}))
        kwargs.setdefault("stdout", subprocess.PIPE)
        launcher = kwargs.pop("launcher", ())
        p = subprocess.Popen([*launcher, harness.program("handoffctl"), *args], env=env, cwd=self.dir,
                             stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **kwargs)
        self.addCleanup(self._end, p)
        return p

    @staticmethod
    def _end(p):
        if p.poll() is None:
            p.kill()
            p.wait()
        for f in (p.stdout, p.stderr):
            if f:
                f.close()

    def ctl(self, *args, **kwargs):
        """Runs it: exit code, stdout, stderr."""
        p = self.start(*args, **kwargs)
        out, err = p.communicate(timeout=harness.PATIENCE)
        return p.returncode, out, err

    def json(self, *args, **kwargs):
        """Runs it with --json: exit code and the objects."""
        code, out, err = self.ctl("--json", *args, **kwargs)
        self.assertEqual(err, "")
        return code, [json.loads(x) for x in out.splitlines()]
