"""What the tests of bad input share: a second client that must notice nothing, frames by a
foreign codec, and daemons that a test plays (puppet.py)."""

import contextlib
import functools
import os
import re
import socket
import struct
import subprocess

import cbor2

import harness
from fakesupervisor import frame

HERE = os.path.dirname(os.path.abspath(__file__))
NOBODY = 65534
HELLO, HELLO_ACK, PREPARE, DRAINED, SEAL_REQUEST = 1, 2, 3, 4, 5
SEAL_PROGRESS, SEAL_COMPLETE, BEGIN, READY, COMMIT, ABORT, RESUME = 6, 7, 9, 10, 11, 12, 13
HEARTBEAT, D_STATUS, SOCKETS, SOCKETS_ACK = 14, 15, 16, 17
ROOT = os.geteuid() == 0
CAP_SYS_PTRACE = 19
LINE = re.compile(r"^\S+ handoffd\[[^]]*\]: (.*)$", re.M)


@functools.lru_cache
def mount_namespaces():
    """True if a mount namespace with a tmpfs in it can be had."""
    return ROOT and subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   check=False).returncode == 0


def looks_at_others():
    """True if what root alone may read in /proc of another user's process can be read."""
    caps = re.search(r"^CapEff:\s*(\w+)$", harness.read_file("/proc/self/status"), re.M)[1]
    return ROOT and int(caps, 16) >> CAP_SYS_PTRACE & 1


def vectors():
    """The bad ones of tests/wire/vectors.txt: (what is wrong, frame, the line about it)."""
    name = hexa = line = None
    with open(os.path.join(harness.TOP, "tests/wire/vectors.txt"), encoding="utf-8") as f:
        for text in list(f) + [""]:
            word, _, rest = text.strip().partition(" ")
            if word == "bad":
                name, hexa, line = rest, "", None
            elif word == "hex" and name:
                hexa += rest.replace(" ", "")
            elif word == "header" and rest == "refused":
                line = "a frame length that no frame can have (not this protocol?)"
            elif word == "header" and name:
                line = "protocol version %s in a frame, known are 1 to 1" % rest.split()[1]
            elif word == "error":
                line = rest
            elif not word and name:
                yield name, bytes.fromhex(hexa), line
                name = None


def receive_exactly(sock, n):
    """n bytes and the descriptors that came with them."""
    data, fds = b"", []
    while len(data) < n:
        more, came, _, _ = socket.recv_fds(sock, n - len(data), 64)
        fds += came
        if not more:
            raise EOFError
        data += more
    return data, fds


def receive(sock):
    """The next frame: type, fields, descriptors. EOFError at the end."""
    head, fds = receive_exactly(sock, 6)
    body, more = receive_exactly(sock, struct.unpack("<I", head[:4])[0] - 2)
    kind, fields = cbor2.loads(body)
    return kind, fields, fds + more


def wait_end(sock):
    """Until the other side has closed it; what it said before that."""
    said = []
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            said.append(receive(sock))
    return said


class Puppet:
    """One running puppet.py: its pid, role, and the supervisor's channel as .channel."""

    def __init__(self, control):
        self.control = control
        self.control.settimeout(harness.PATIENCE)
        text, self.channel = self._hear()
        pid, self.role = text.split()
        self.pid = int(pid)

    def _hear(self):
        data, fds, _, _ = socket.recv_fds(self.control, 200, 1)
        sock = socket.socket(fileno=fds[0]) if fds else None
        if sock:
            sock.settimeout(harness.PATIENCE)
        return data.decode().strip(), sock

    def order(self, line):
        self.control.sendall(line.encode() + b"\n")

    def connect(self):
        """To daemon.sock, as this process: the new channel."""
        if self.channel:
            self.channel.close()
        self.order("connect")
        _, self.channel = self._hear()

    def drop(self):
        """Closes the channel, here and there."""
        self.order("drop")
        self._hear()
        self.channel.close()

    def lock(self, data_dir):
        self.order("lock " + os.path.join(data_dir, ".handoff.lock"))
        self._hear()

    def exit(self, code):
        self.order("exit %d" % code)

    def send(self, *frames, fds=()):
        """The descriptors go with the first byte."""
        with contextlib.suppress(ConnectionError):  # refused already: the log says why
            socket.send_fds(self.channel, [b"".join(frames)], fds)

    def receive(self, kind):
        """Up to a message of this kind (heartbeats and sockets in between are nothing)."""
        while True:
            got, fields, fds = receive(self.channel)
            for fd in fds:
                os.close(fd)
            if got == kind:
                return fields

    def hello(self, data_dir=None, **more):
        keys = {"id": 0, "role": 1, "pid": 2, "build": 3, "low": 4, "high": 5, "caps": 6, "dev": 7,
                "ino": 8, "software": 9, "phase": 10, "locked": 11, "sockets": 12, "epoch": 13}
        fields = {1: 0, 2: self.pid, 3: b"\xab\xcd", 4: 1, 5: 1, 6: 0}
        if data_dir:
            st = os.stat(data_dir)
            fields.update({7: st.st_dev, 8: st.st_ino})
        fields.update({keys[k]: v for k, v in more.items()})
        return frame(HELLO, fields)

    def sockets(self, data_dir=None):
        """Hello and the sockets: these, the caller's."""
        self.send(self.hello(data_dir, role=1 if self.role == "successor" else 0))
        self.receive(HELLO_ACK)
        _, _, fds = receive(self.channel)
        self.send(frame(SOCKETS_ACK, {1: 1}))
        return fds

    def warm(self, data_dir=None):
        """The same, without them."""
        for fd in self.sockets(data_dir):
            os.close(fd)

    def serve(self, data_dir=None):
        """A whole cold start."""
        self.warm(data_dir)
        self.take()

    def take(self):
        """From Begin on."""
        self.receive(BEGIN)
        self.send(frame(READY, {1: [], 2: True, 3: [], 4: bytes(32)}))
        self.receive(COMMIT)
        self.send(frame(D_STATUS, {1: True}))
        self.receive(COMMIT)

    def close(self):
        for s in (self.control, self.channel):
            if s:
                s.close()


class Second:
    """The client that must notice nothing: one connection, kept open."""

    def __init__(self, service):
        host, port = service.listen["resp"][len("tcp:"):].rsplit(":", 1)
        self.sock = socket.create_connection((host, int(port)), harness.PATIENCE)
        self.file = self.sock.makefile("rb")
        self.n = 0

    def ask(self, line):
        self.sock.sendall(line.encode() + b"\r\n")
        answer = self.file.readline()
        if answer.startswith(b"$") and answer != b"$-1\r\n":
            answer = self.file.readline()
        return answer.decode().strip()

    def use(self):
        self.n += 1
        said = (self.ask("SET second %d" % self.n), self.ask("GET second"))
        if said != ("+OK", str(self.n)):
            raise AssertionError("the second client heard %s" % (said,))

    def close(self):
        self.file.close()
        self.sock.close()


class Case(harness.TestCase):
    """A service, what its supervisor says, and a second client."""

    @staticmethod
    def count(s):
        """handoffd's descriptors, without those of clients that have just gone: it has seen
        them go when it has answered twice. Nor while it copies an executable."""
        with socket.socket(socket.AF_UNIX) as c:
            c.connect(s.path("run", s.name, "control.sock"))

            def quiet():
                s.wait_copied()
                for _ in range(2):
                    c.sendall(frame(66, {}))
                    receive(c)
                return not s.copying()
            harness.wait_until(quiet, "nothing is under way")
            return len(harness.descriptors(s.supervisor.pid)) - 1

    def second(self, s):
        c = Second(s)
        self.addCleanup(c.close)
        c.use()
        return c

    @contextlib.contextmanager
    def unharmed(self, s, same_daemon=True):
        """What happens inside costs no second client anything and leaves no descriptor."""
        before, pid = self.count(s), s.daemon_pid()
        client = self.second(s)
        yield client
        if not same_daemon:
            client = self.second(s)
        client.use()
        self.assertEqual(s.status()["state"], "idle")
        if same_daemon:
            self.assertEqual(s.daemon_pid(), pid)
        self.assert_count(s, before)

    def assert_count(self, s, before):
        """Not more: an executable may have been about to be copied when it was counted before."""
        try:
            harness.wait_until(lambda: self.count(s) <= before, "descriptors")
        except AssertionError:
            self.assertLessEqual(self.count(s), before, harness.descriptors(s.supervisor.pid))

    @staticmethod
    def mark(s):
        return len(s.log())

    @staticmethod
    def lines(s, since=0):
        """handoffd's lines without their time."""
        return LINE.findall(s.log()[since:])

    def wait_line(self, s, line, since=0):
        """Until handoffd has said exactly this."""
        try:
            harness.wait_until(lambda: line in self.lines(s, since), "the line")
        except AssertionError:
            self.assertIn(line, self.lines(s, since))

    def wait_text(self, s, text, since=0):
        """Until the log has a line that is exactly this: the daemon's, or one before the log."""
        try:
            harness.wait_until(lambda: text in s.log()[since:].splitlines(), "the line")
        except AssertionError:
            self.assertIn(text, s.log()[since:].splitlines())

    # The control socket

    def control(self, s, name="control.sock"):
        c = socket.socket(socket.AF_UNIX)
        self.addCleanup(c.close)
        c.connect(s.path("run", s.name, name))  # waits while the queue is full
        c.settimeout(harness.PATIENCE)
        return c

    # Upgrades that fail

    def refused(self, s, *args, code=1, message=None):
        """An upgrade that is refused or aborted with this message."""
        u = s.upgrade(*args)
        self.assertEqual((u.code, u.result["message"] if u.result else u.lines),
                         (code, message), s.log())
        return u

    # Daemons that the test plays

    def puppets(self, s):
        """Puppets may come: the path of their program."""
        path = s.path("bin", "puppet")
        with open(os.path.join(HERE, "puppet.py"), "rb") as f:
            data = f.read()
        with open(path, "wb") as f:
            f.write(data)
        os.chmod(path, 0o755)
        self.listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listener.close)
        self.listener.settimeout(harness.PATIENCE)
        self.listener.bind(s.path("puppet.sock"))
        os.chmod(s.path("puppet.sock"), 0o666)  # a puppet may be another user's
        self.listener.listen(8)
        return path

    def puppet(self):
        p = Puppet(self.listener.accept()[0])
        self.addCleanup(p.close)
        return p

    def puppet_service(self, **kwargs):
        """A service whose daemon is a puppet that serves: both."""
        s = self.service(start=False, **kwargs)
        os.rename(self.puppets(s), s.binary)
        s.launch()
        p = self.puppet()
        p.serve(s.data_dir)
        s.wait_state("idle")
        return s, p
