"""A supervisor that a test plays, over a real daemon: the test says what is sent, and when."""

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile

import harness
from badinput import (BEGIN, COMMIT, D_STATUS, DRAINED, HEARTBEAT, HELLO, HELLO_ACK, PREPARE,
                      READY, RESUME, SEAL_COMPLETE, SEAL_REQUEST, SOCKETS, SOCKETS_ACK, Case,
                      frame, receive)

HANDOFF = b"\7" * 16


class Played:
    """The supervisor of one daemon: its directory, its listening socket, its end of the channel."""

    def __init__(self, faults=(), role="first"):
        self.dir = tempfile.mkdtemp(prefix="handoff-test-")
        self.data_dir = os.path.join(self.dir, "data")
        self.log_path = os.path.join(self.dir, "kvd.log")
        os.mkdir(self.data_dir)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.door = None
        self.id = HANDOFF if role == "successor" else None
        mine, its = socket.socketpair()
        self.channel = mine
        self.channel.settimeout(harness.PATIENCE)
        env = harness.environment(self.dir, HANDOFF_FD=str(its.fileno()), HANDOFF_ROLE=role,
                                  HANDOFF_DIR=self.dir)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(faults), env=env, stdin=subprocess.PIPE, stdout=self.stdout(log),
                stderr=log, pass_fds=[its.fileno()], start_new_session=True, text=True)
        its.close()

    def command(self, faults):
        return [harness.program("kvd-v1"), "--data-dir", self.data_dir, "--debug",
                *[a for f in faults for a in ("--fault", f)]]

    def stdout(self, log):
        return log

    def log(self):
        return harness.read_file(self.log_path)

    def send(self, kind, fields=(), fds=()):
        fields = dict(fields)
        if self.id:
            fields.setdefault(0, self.id)
        socket.send_fds(self.channel, [frame(kind, fields)], fds)

    def receive(self, kind, besides=()):
        """The next message of this kind; heartbeats in between are nothing, nor are others that
        may come or not."""
        while True:
            got, fields, fds = receive(self.channel)
            for fd in fds:
                os.close(fd)
            if got == kind:
                return fields
            if got != HEARTBEAT and got not in besides:
                raise AssertionError("message %d came, %d was awaited\n%s" %
                                     (got, kind, self.log()))

    def greet(self, fence_ms=0, deadline_ms=60000, beat_ms=0):
        """Hello, its answer, the listening socket. No fence: the daemon waits for ever."""
        hello = self.receive(HELLO)
        ack = {1: 1, 2: 0, 3: deadline_ms, 4: deadline_ms, 5: beat_ms, 6: fence_ms,
               7: 0 if hello[1] == 2 else 1}
        self.send(HELLO_ACK, ack)
        if hello[1] == 2:
            if hello[12]:
                self.receive(SOCKETS)
                self.send(SOCKETS_ACK, {1: 1})
            return hello
        self._sockets()
        return hello

    def _sockets(self):
        data = frame(SOCKETS, {1: 1, 2: 1, 3: ["resp"]})
        socket.send_fds(self.channel, [data], [self.listener.fileno()])
        self.receive(SOCKETS_ACK)

    def serve(self, **timers):
        """A whole cold start."""
        self.greet(**timers)
        self.send(BEGIN, {1: False})
        self.receive(READY)
        self.send(COMMIT, {1: False})
        self.receive(D_STATUS)
        return self

    def drain(self, deadline_ms=60000):
        self.id = self.id or HANDOFF
        self.send(PREPARE, {1: 1, 2: deadline_ms, 3: deadline_ms})

    def drained(self, **timers):
        self.drain(**timers)
        self.receive(DRAINED)

    def seal(self):
        """From serving to sealed: what was sealed."""
        self.drained()
        self.send(SEAL_REQUEST)
        return self.receive(SEAL_COMPLETE)

    def resume(self):
        self.send(RESUME, {1: "a test"})

    def open_door(self):
        """From now on it can be found again."""
        path = os.path.join(self.dir, "daemon.sock")
        if self.door is None:
            self.door = socket.socket(socket.AF_UNIX)
            self.door.settimeout(harness.PATIENCE)
            self.door.bind(path)
            self.door.listen(1)

    def lost(self):
        """The channel ends, as at this supervisor's death; it can be found again."""
        self.open_door()
        self.channel.close()

    def found(self):
        """It has come back, by daemon.sock: its Hello is answered."""
        self.channel = self.door.accept()[0]
        self.channel.settimeout(harness.PATIENCE)
        self.id = None
        return self.greet()

    def answers(self):
        """A client is served."""
        with socket.create_connection(self.listener.getsockname(), harness.PATIENCE) as c:
            c.sendall(b"PING\r\n")
            return c.recv(100) == b"+PONG\r\n"

    def lock_is_free(self):
        """Nobody has the flock on the data directory."""
        with open(os.path.join(self.data_dir, ".handoff.lock"), "rb") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def close(self):
        for s in (self.channel, self.listener, self.door):
            if s:
                s.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.stdin.close()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Told(Played):
    """The daemon does what it is told, call by call (tests/lib/puppet.c): the test is both."""

    def command(self, faults):
        return [harness.program("puppet")]

    def stdout(self, log):
        return subprocess.PIPE

    def tell(self, line):
        """One call of the library; it has not answered yet."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self, wanted):
        """What the call has returned begins so."""
        said = self.process.stdout.readline().strip()
        if not said.startswith(wanted):
            raise AssertionError("%s: %s was awaited\n%s" % (said, wanted, self.log()))

    def call(self, line, wanted="0"):
        """One call, from beginning to end."""
        self.tell(line)
        self.hear(wanted)

    def serves(self, **timers):
        """A whole cold start."""
        self.call("open trace data=%s" % self.data_dir)
        self.tell("begin")
        self.greet(**timers)
        self.send(BEGIN, {1: False})
        self.hear("0 sealed=0")
        self.tell("ready")
        self.receive(READY)
        self.send(COMMIT, {1: False})
        self.receive(D_STATUS)
        self.hear("0")
        return self

    def close(self):
        self.process.stdout.close()
        super().close()


class PlayedCase(Case):
    """Tests whose supervisor is the test."""

    def played(self, *args, kind=Played, **kwargs):
        p = kind(*args, **kwargs)
        self.addCleanup(p.close)
        return p
