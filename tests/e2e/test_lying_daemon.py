"""A daemon that lies, floods, sends half frames for ever, closes and comes back in a loop: it
costs its own handoff, and nobody else anything. SECURITY.md names these tests."""

import contextlib
import fcntl
import os
import select
import socket
import unittest

import harness
from badinput import (BEGIN, COMMIT, D_STATUS, DRAINED, HEARTBEAT, HELLO_ACK, PREPARE,
                      READY, RESUME, SEAL_COMPLETE, SEAL_PROGRESS, SEAL_REQUEST, SOCKETS, SOCKETS_ACK, Case,
                      Second, frame)

# nobody is given up, however loaded the machine is
PATIENT = {"commit-timeout": "60s", "self-fence": "60s", "presumed-dead": "61s"}
ENOUGH = 50  # turns of a loop in which clients and operators are served


class Successor(Case):
    """Below a supervisor whose incumbent is a kvd that serves."""

    def setUp(self):
        self.s = self.service("kvd-v1", options={"start-timeout": "60s"})
        self.client = self.second(self.s)
        self.path = self.puppets(self.s)

    def begin(self):
        """The upgrade, and the puppet that is to be the successor."""
        u = self.s.start_upgrade("--binary", self.path)
        return u, self.puppet()

    def greet(self, p):
        p.send(p.hello(self.s.data_dir, role=1))
        p.id = p.receive(HELLO_ACK)[0]

    def warm(self, p):
        self.greet(p)
        p.receive(SOCKETS)
        p.send(frame(SOCKETS_ACK, {1: 1}))

    def flood(self, p, data, turns=ENOUGH):
        """As fast as it is taken, while everybody else is served."""
        p.channel.setblocking(False)
        for _ in range(turns):
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while select.select([], [p.channel], [], 0)[1]:
                    p.channel.send(data)
            self.client.use()
            self.assertIsNotNone(self.s.status())
        p.channel.settimeout(harness.PATIENCE)

    def over(self, u, p, codes=(1,)):
        """The attempt is over, whoever ended it, and all is as it was before."""
        if harness.is_alive(p.pid) and u.process.poll() is None:
            self.s.ctl("abort", "kvd")
        u.wait()
        self.assertIn(u.code, codes, "%s\n%s" % (u.lines, self.s.log()))
        self.client.use()
        harness.wait_until(lambda: not harness.is_alive(p.pid), "it is ended")
        p.close()
        u = self.s.upgrade()
        self.assertEqual(u.code, 0, self.s.log())

    def test_floods(self):
        """Heartbeats, statuses, bytes without sense: read slowly, while others are served."""
        u, p = self.begin()
        self.greet(p)
        self.flood(p, frame(HEARTBEAT, {1: 1}) * 100)
        self.over(u, p)

    def test_floods_with_what_it_may_not_say(self):
        u, p = self.begin()
        self.greet(p)
        p.receive(SOCKETS)
        data = frame(D_STATUS, {0: p.id, 1: True}) + frame(DRAINED, {0: p.id, 1: 0, 2: True}) + \
            frame(SEAL_COMPLETE, {0: p.id, 1: [7] * 1000, 2: bytes(32)}) + \
            frame(READY, {0: p.id, 1: [], 2: True, 3: [1], 4: bytes(32)}) + \
            frame(RESUME, {0: p.id, 1: "x" * 1000}) + frame(D_STATUS, {0: b"\1" * 16, 1: True})
        self.flood(p, data)
        self.assertNotIn("has not taken the listener", self.s.log())
        self.over(u, p)

    def test_floods_with_descriptors(self):
        """Sixty-four with each frame, where none belongs: they are closed, and so is its
        channel."""
        before = self.count(self.s)
        u, p = self.begin()
        with open(os.devnull, "rb") as null, contextlib.suppress(ConnectionError):
            for _ in range(ENOUGH):
                socket.send_fds(p.channel, [frame(HEARTBEAT, {1: 1})], [null.fileno()] * 64)
                self.client.use()
        self.over(u, p)
        self.client.close()
        self.client = self.second(self.s)
        self.assert_count(self.s, before)

    def test_reads_nothing_any_more(self):
        """Its half of the channel only. What is sent to it cannot be sent, and no end is read."""
        self.s.configure(start_timeout="5min")
        u, p = self.begin()
        self.greet(p)
        p.channel.shutdown(socket.SHUT_RD)
        u.wait()   # a heartbeat has met EPIPE
        self.s.configure(start_timeout="60s")
        self.over(u, p)

    def test_half_a_frame_for_ever(self):
        """Its warm-up ends with start-timeout, as that of any other that says nothing."""
        self.s.configure(start_timeout="5s")
        u, p = self.begin()
        data = p.hello(self.s.data_dir, role=1, software="x" * 64)
        for i in range(ENOUGH):
            p.send(data[i:i + 1])
            self.client.use()
        u.wait()
        self.s.configure(start_timeout="60s")
        self.over(u, p)

    def test_comes_back_in_a_loop(self):
        """By daemon.sock, beside its channel: turned away each time, less and less at once."""
        u, p = self.begin()
        self.greet(p)
        first = p.channel
        for _ in range(ENOUGH):
            p.channel = None
            p.connect()
            with contextlib.suppress(ConnectionError):
                p.channel.sendall(p.hello(self.s.data_dir, role=2, phase=6))
            p.channel.close()
            self.client.use()
        p.channel = first
        self.over(u, p)

    def test_lies_about_whom_it_is(self):
        """Another's pid, the incumbent's role, another directory's inode."""
        lies = [{"pid": self.s.daemon_pid()}, {"pid": 1}, {"role": 2, "phase": 6},
                {"role": 0}, {"dev": 1, "ino": 1}]
        for lie in lies:
            with self.subTest(lie):
                u, p = self.begin()
                p.send(p.hello(self.s.data_dir, **{"role": 1, **lie}))
                self.client.use()
                self.over(u, p)
                self.client.close()
                self.client = self.second(self.s)

    def test_lies_about_what_it_opened(self):
        """Ready before its turn, Ready with more revisions than there are, Ready and then gone."""
        for name, lie in (("another state", {3: [1, 2, 3, 4], 4: bytes(32)}),
                          ("a thousand shards", {3: [1] * 1000, 4: bytes(32)}),
                          ("no shard", {3: [], 4: b"\xff" * 32})):
            with self.subTest(name):
                u, p = self.begin()
                self.warm(p)
                p.receive(BEGIN)
                p.send(frame(READY, {0: p.id, 1: [], 2: True, **lie}))
                self.over(u, p)
                self.client.close()
                self.client = self.second(self.s)

    def test_says_that_it_serves_and_does_not(self):
        """The one lie that nothing can save from: it is told to serve, and says that it does. It
        costs this service, its own, until it is replaced; that is an upgrade like any other."""
        u, p = self.begin()
        self.warm(p)
        begin = p.receive(BEGIN)
        p.send(frame(READY, {0: p.id, 1: [], 2: True, 3: begin[2], 4: begin[3]}))
        p.receive(COMMIT)
        p.send(frame(D_STATUS, {0: p.id, 1: True}))
        u.wait()
        self.assertEqual(u.code, 0, self.s.log())
        self.assertEqual(self.s.status()["pid"], p.pid)
        u = self.s.start_upgrade()
        p.receive(PREPARE)
        p.exit(0)
        u.wait()
        self.assertEqual(u.code, 0, self.s.log())
        with contextlib.closing(Second(self.s)) as client:
            client.use()

    def test_what_cannot_be_read_may_have_been_that_it_serves(self):
        """Once it was told to: its word may be among that, so that it is not ended for it. It
        comes back, and says it again."""
        self.s.options.update(PATIENT)
        self.s.configure()
        u, p = self.begin()
        self.warm(p)
        begin = p.receive(BEGIN)
        p.send(frame(READY, {0: p.id, 1: [], 2: True, 3: begin[2], 4: begin[3]}))
        p.receive(COMMIT)
        p.send(b"\xff" * 64)
        harness.wait_until(lambda: "pid %d sent what is not the protocol" % p.pid in self.s.log(),
                           "its channel is closed")
        p.drop()
        p.connect()
        p.send(p.hello(self.s.data_dir, role=2, phase=6, sockets=0))
        p.receive(HELLO_ACK)
        p.send(frame(D_STATUS, {0: p.id, 1: True}))
        u.wait()
        self.assertEqual(u.code, 0, self.s.log())
        self.assertEqual(self.s.status()["pid"], p.pid)


class Incumbent(Case):
    """A puppet that serves, and lies in the handoff to a real kvd. Its service is its own to
    spoil; the supervisor goes on, and so does the service once the daemon is another."""

    def setUp(self):
        self.s, self.o = self.puppet_service(options={
            "drain-grace": "60s", "deadline": "2min", "self-fence": "60s", "presumed-dead": "61s"})

    def upgrade(self):
        return self.s.start_upgrade("--binary", harness.program("kvd-v2"))

    def prepared(self):
        self.o.id = self.o.receive(PREPARE)[0]

    def mended(self, u, code):
        """The attempt ends so. A daemon that still lies is replaced; then all is as ever."""
        u.wait()
        self.assertEqual(u.code, code, "%s\n%s" % (u.lines, self.s.log()))
        if self.s.status()["pid"] == self.o.pid:
            self.s.install("kvd-v1")
            p = self.s.ctl("restart", "kvd")
            self.assertEqual(p.returncode, 0, p.stderr + self.s.log())
        with contextlib.closing(Second(self.s)) as client:
            client.use()
        u = self.s.upgrade("--binary", harness.program("kvd-v1"))
        self.assertEqual(u.code, 0, self.s.log())

    def test_says_sealed_and_keeps_the_lock(self):
        """The successor does not believe it: it has no lock, and so does not serve."""
        lock = os.path.join(self.s.data_dir, ".handoff.lock")
        with open(lock, "wb") as f:
            fcntl.flock(f, fcntl.LOCK_EX)  # the test has it for the puppet
            u = self.upgrade()
            self.prepared()
            self.o.send(frame(DRAINED, {0: self.o.id, 1: 0, 2: True}))
            self.o.receive(SEAL_REQUEST)
            self.o.send(frame(SEAL_COMPLETE, {0: self.o.id, 1: [1], 2: bytes(32)}))
            self.o.receive(RESUME)
            self.o.send(frame(D_STATUS, {0: self.o.id, 1: True}))
            u.wait()
        self.mended(u, 1)

    def test_tells_how_far_its_seal_is(self):
        """Who waits sees it; what is said outside of a seal nobody does."""
        u = self.upgrade()
        self.prepared()
        self.o.send(frame(SEAL_PROGRESS, {0: self.o.id, 1: 1, 2: 3, 3: 7}))
        self.o.send(frame(DRAINED, {0: self.o.id, 1: 0, 2: True}))
        self.o.receive(SEAL_REQUEST)
        self.o.send(frame(SEAL_PROGRESS, {0: self.o.id, 1: 2, 2: 3, 3: 7}))
        self.o.exit(1)
        self.mended(u, 0)
        self.assertEqual([x["text"] for x in u.lines if "shards sealed" in (x.get("text") or "")],
                         ["2 of 3 shards sealed"], u.lines)

    def test_says_sealed_in_the_drain(self):
        """What is said before it was asked for is not heard."""
        u = self.upgrade()
        self.prepared()
        self.o.send(frame(SEAL_COMPLETE, {0: self.o.id, 1: [1], 2: bytes(32)}))
        self.o.send(frame(DRAINED, {0: b"\1" * 16, 1: 0, 2: True}))
        self.o.send(frame(DRAINED, {0: self.o.id, 1: 0, 2: True}))
        self.o.receive(SEAL_REQUEST)
        self.o.exit(1)
        self.mended(u, 0)

    def test_floods_in_the_drain(self):
        u = self.upgrade()
        self.prepared()
        data = frame(HEARTBEAT, {1: 1}) * 50 + frame(D_STATUS, {0: b"\1" * 16, 1: True})
        self.o.channel.setblocking(False)
        for _ in range(ENOUGH):
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while select.select([], [self.o.channel], [], 0)[1]:
                    self.o.channel.send(data)
            self.assertIsNotNone(self.s.status())
        self.o.exit(1)
        self.mended(u, 0)

    def again(self):
        """A new channel, without a word on the old one."""
        self.o.drop()
        self.o.connect()
        self.o.send(self.o.hello(self.s.data_dir, role=2, phase=6, sockets=0))

    def test_closes_and_comes_back_in_a_loop(self):
        """While nothing is under way, and while an upgrade is."""
        for _ in range(ENOUGH):
            self.again()
            self.o.receive(HELLO_ACK)
        self.assertEqual(self.s.status()["pid"], self.o.pid)
        u = self.upgrade()

        def over():
            self.again()
            return u.process.poll() is not None
        harness.wait_until(over, "the attempt has ended")
        self.mended(u, 1)

    def test_half_a_hello_for_ever(self):
        """It has come back, and does not say who it is: it is no incumbent until it does."""
        self.o.drop()
        self.o.connect()
        data = self.o.hello(self.s.data_dir, role=2, phase=6, sockets=0)
        for i in range(len(data) - 1):
            self.o.send(data[i:i + 1])
        self.s.wait_state("unregistered")
        u = self.s.upgrade("--binary", harness.program("kvd-v2"))
        self.assertEqual(u.code, 1, u.lines)
        self.o.send(data[-1:])
        self.s.wait_state("idle")
        u = self.upgrade()
        self.prepared()
        self.o.exit(0)
        self.mended(u, 0)


if __name__ == "__main__":
    unittest.main()
