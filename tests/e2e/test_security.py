"""Attacks, each by a process that runs as the one it is about: a local user without rights, a
user of the daemon's uid, a daemon that was taken over. SECURITY.md names these tests: each shows
that the attack comes to nothing and that the service is served meanwhile."""

import contextlib
import os
import resource
import signal
import time
import unittest

import harness
from attacks import STRANGER, Attack, AttackCase, out_of_band, resident, used_s
from badinput import Second, frame, receive

STATUS, WATCH = frame(66, {}), frame(73, {})
# A TCP socket whose last close waits for an hour: nobody reads what it has sent. (The end of a
# process does not wait.)
LINGERING = """
listening = socket.create_server(("127.0.0.1", 0))
def send_lingering(where, data, flags=0):
    if os.fork():
        return os.wait()
    c = socket.create_connection(listening.getsockname())
    c.setblocking(False)
    try:
        while True:
            c.send(bytes(1 << 16))
    except BlockingIOError:
        pass
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    fds = struct.pack("i", c.fileno())
    where.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)], flags)
    os._exit(0)
"""


class SecurityCase(AttackCase):
    @contextlib.contextmanager
    def bounded(self, s, seconds=2.0, share=0.5, kilobytes=8192, descriptors=80):
        """For so long what happens costs the supervisor no more than this; operators and clients
        are served."""
        pid, begin = s.supervisor.pid, time.monotonic()
        cpu, memory, fds = used_s(pid), resident(pid), len(harness.descriptors(pid))
        most, slowest = 0, 0
        yield
        while time.monotonic() - begin < seconds:
            asked = time.monotonic()
            self.assertIsNotNone(s.status(), s.log())
            slowest = max(slowest, time.monotonic() - asked)
            most = max(most, len(harness.descriptors(pid)))
            with contextlib.closing(Second(s)) as client:
                client.use()
            time.sleep(0.05)
        took = time.monotonic() - begin
        self.assertLess(used_s(pid) - cpu, share * took)
        self.assertLess(resident(pid) - memory, kilobytes)
        self.assertLess(most - fds, descriptors)
        self.assertLess(slowest, harness.PATIENCE)


class LocalUser(SecurityCase):
    """Somebody with an account, and no rights."""

    def setUp(self):
        super().setUp()
        self.s = self.opened(self.service())
        self.socket = self.s.path("run", "kvd", "control.sock")

    def test_no_lock_and_no_file(self):
        """Neither the supervisor's lock nor the data's can be opened, let alone held."""
        code = """
import fcntl
got = []
for path in sys.argv[1:]:
    try:
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        got.append(path)
    except OSError:
        pass
print("here", *got, flush=True)
"""
        os.chmod(self.s.data_dir, 0o755)  # as careless as can be
        paths = [self.s.path("run", "kvd", x) for x in os.listdir(self.s.path("run", "kvd"))]
        paths += [self.s.path("state", "kvd"), self.s.path("state", "kvd", "current")]
        paths += [self.s.path("data", x) for x in os.listdir(self.s.data_dir) if "lock" in x]
        self.assertGreater(len(paths), 5)
        with self.unharmed(self.s):
            a = Attack(STRANGER, code, *paths)
            self.addCleanup(a.close)
            self.assertEqual(a.wait_here(), [])
        self.upgrades(self.s)

    def test_flood_of_connections(self):
        """As fast as they can, by four processes: an operator's upgrade goes through."""
        code = """
here()
while not told_to_end():
    for i in range(50):
        try:
            connect().send(b"half")
        except ConnectionError:
            pass
"""
        floods = [self.attack(STRANGER + i % 2, code, self.socket) for i in range(4)]
        with self.bounded(self.s):
            self.upgrades(self.s)
        for f in floods:
            f.end()

    def test_places_that_are_kept(self):
        """All the places that two users get, for as long as they may be kept."""
        code = """
kept = [connect() for i in range(100)]
here()
sys.stdin.read()
"""
        floods = [self.attack(STRANGER + i, code, self.socket) for i in range(3)]
        with self.bounded(self.s):
            self.upgrades(self.s)
        for f in floods:
            f.end()

    def test_flood_of_requests(self):
        """Each user has twenty at once and then ten a second, on all connections together."""
        code = """
kept = [connect() for i in range(16)]
begin = time.monotonic()
n = 0
for c in kept:
    c.setblocking(False)
here()
while not told_to_end():
    for c in kept:
        try:
            c.send(bytes.fromhex(sys.argv[2]))
        except BlockingIOError:
            pass
        try:
            n += c.recv(1 << 20).count(b"idle")
        except BlockingIOError:
            pass
print(n, time.monotonic() - begin)
"""
        flood = self.attack(STRANGER, code, self.socket, (STATUS * 20).hex())
        with self.bounded(self.s):
            pass
        n, took = flood.end().split()
        self.assertGreaterEqual(int(n), 20)
        self.assertLessEqual(int(n), 20 + 10 * float(took) + 2)
        self.upgrades(self.s)

    def test_descriptors_are_not_taken(self):
        """Sixty-four with half a request, on each connection: none of them is in handoffd's
        table, not even for a moment."""
        code = """
null = os.open("/dev/null", os.O_RDONLY)
kept = [connect() for i in range(16)]
for c in kept:
    socket.send_fds(c, [b"\\1"], [null] * 64)
here()
while not told_to_end():
    kept.append(connect())
    try:
        socket.send_fds(kept.pop(0), [b"\\1"], [null] * 64)
    except OSError:
        pass
"""
        flood = self.attack(STRANGER, code, self.socket)
        with self.bounded(self.s, seconds=1, descriptors=60):
            pass
        flood.end()
        self.upgrades(self.s)

    def test_socket_that_lingers(self):
        """close(2) of the last copy of a socket waits as long as SO_LINGER says: an hour here.
        Read by handoffd, unread behind what ends the connection, and with one that is turned
        away."""
        code = LINGERING + """
kept = [connect() for i in range(20)]
send_lingering(kept[0], b"\\1")
kept[1].send(bytes(6))
send_lingering(kept[1], b"\\1")
send_lingering(kept[19], b"\\1")
here()
sys.stdin.read()
"""
        with self.unharmed(self.s):
            self.s.supervisor.send_signal(signal.SIGSTOP)  # so that its copy is the last
            try:
                attack = self.attack(STRANGER, code, self.socket)
            finally:
                self.s.supervisor.send_signal(signal.SIGCONT)
            begin = time.monotonic()
            self.assertIsNotNone(self.s.status())
            self.assertLess(time.monotonic() - begin, harness.PATIENCE)
            attack.end()
        self.upgrades(self.s)

    @unittest.skipUnless(out_of_band(), "this kernel has no MSG_OOB for unix sockets")
    def test_socket_that_lingers_out_of_band(self):
        """The same with a byte of MSG_OOB, which a look steps over and a read drops: before another
        byte, before the end, and alone, where nobody's time is up. Each ends its connection."""
        code = LINGERING + """
kept = [connect() for i in range(3)]
kept[2].send(bytes.fromhex(sys.argv[2]))
for c in kept:
    send_lingering(c, b"\\1", socket.MSG_OOB)
kept[0].send(b"\\1")
kept[1].shutdown(socket.SHUT_WR)
here()
for c in kept:
    try:
        while c.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
"""
        with self.unharmed(self.s):
            self.s.supervisor.send_signal(signal.SIGSTOP)  # so that its copy is the last
            try:
                attack = self.attack(STRANGER, code, self.socket, WATCH.hex())
            finally:
                self.s.supervisor.send_signal(signal.SIGCONT)
            self.assertIsNotNone(self.s.status())
            attack.end()
        self.upgrades(self.s)

    def test_no_descriptors_left(self):
        """At the limit on open files nobody is let in, and nothing turns without pause; then
        who has waited is served."""
        pid = self.s.supervisor.pid
        self.s.wait_status(lambda x: x["binary_kept"] and x["sha256"], "nothing is under way")
        self.s.wait_copied()
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE,
                         (min(set(range(999)) - set(harness.descriptors(pid))), before[1]))
        client, cpu, begin = self.second(self.s), used_s(pid), time.monotonic()
        code = "c = connect()\nhere()\nsys.stdin.read()\n"
        waiting = self.attack(STRANGER, code, self.socket)
        mine = self.control(self.s)
        mine.sendall(STATUS)
        harness.wait_until(lambda: self.s.log().count("no descriptors for visitors of ") >= 2,
                           "it has tried twice")
        client.use()
        self.assertLess(used_s(pid) - cpu, 0.2 * (time.monotonic() - begin))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        self.assertEqual(receive(mine)[0], 82)
        mine.close()
        waiting.end()
        self.upgrades(self.s)


if __name__ == "__main__":
    unittest.main()
