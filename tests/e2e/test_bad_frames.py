"""Frames that nobody should send: to control.sock, and on the channel of a daemon."""

import os
import socket
import struct
import time
import uuid

import cbor2

import harness
from badinput import (ABORT, BEGIN, COMMIT, D_STATUS, DRAINED, HEARTBEAT, HELLO, HELLO_ACK,
                      PREPARE, READY, SOCKETS, SOCKETS_ACK, Case, frame, receive, vectors,
                      wait_end)

STATUS_REQUEST, ABORT_REQUEST, STOP_REQUEST, OUTCOME_REQUEST = 66, 67, 69, 70
RESULT, STATE = 81, 82
STATUS = frame(STATUS_REQUEST, {})
UNKNOWN = uuid.UUID("0198f2a4-5b6c-7d8e-9f00-112233445566").bytes
LOST = "more than 64 descriptors with a frame"
NO_FDS = "descriptors, where no message has any"
INSIDE = "the stream ends inside a frame"
LONGEST = "a frame longer than any message may be"


def raw(kind, item, version=1):
    """A frame whose map is given as bytes."""
    data = b"\x82" + cbor2.dumps(kind) + item
    return struct.pack("<IH", len(data) + 2, version) + data


def records():
    """Types that only lie on the disk, as messages that would be right there."""
    return {
        "a journal": frame(128, {0: UNKNOWN, 1: "boot", 2: 0, 3: 0, 4: False, 9: "/bin/x"}),
        "a current binary": frame(129, {1: "/bin/x"}),
        "a lock's owner": frame(130, {1: 1, 2: 1, 3: "boot", 4: b"x", 5: 1}),
    }


def lengths():
    """Headers alone, with the line about each; vectors.txt has the others."""
    return {struct.pack("<IH", 82 * 1024 + 3, 1): LONGEST,
            struct.pack("<IH", 1 << 20, 1): LONGEST}


class Control(Case):
    def setUp(self):
        self.s = self.service()
        self.line = "warning: uid 0 (pid %d) sent what is not the protocol to control.sock: %%s" \
            % os.getpid()
        if os.geteuid():
            self.line = self.line.replace("uid 0", "uid %d" % os.geteuid())

    def refuse(self, data, why, fds=(), end=False):
        """handoffd ends the connection, unanswered, and says why."""
        since = self.mark(self.s)
        c = self.control(self.s)
        socket.send_fds(c, [data], fds)
        if end:
            c.shutdown(socket.SHUT_WR)
        self.assertEqual(wait_end(c), [])
        c.close()
        self.wait_line(self.s, self.line % why, since)

    def test_bad_vectors(self):
        n = 0
        with self.unharmed(self.s) as client:
            for name, data, why in vectors():
                with self.subTest(name):
                    self.refuse(data, why)
                n += 1
                if n % 20 == 0:
                    client.use()
            for data, why in lengths().items():
                self.refuse(data, why)
        self.assertGreater(n, 250)

    def test_records_of_the_disk(self):
        with self.unharmed(self.s):
            for name, data in records().items():
                with self.subTest(name):
                    self.refuse(data, "a record of the disk, not a message")

    def test_cut_off_at_every_byte(self):
        data = frame(OUTCOME_REQUEST, {0: UNKNOWN})
        with self.unharmed(self.s):
            for n in range(1, len(data)):
                self.refuse(data[:n], INSIDE, end=True)
            since = self.mark(self.s)
            c = self.control(self.s)  # nothing at all is no offence
            c.close()
            self.assertIsNotNone(self.s.status())
            self.assertEqual(self.lines(self.s, since), [])

    def test_descriptors(self):
        with self.unharmed(self.s):
            for n in (1, 2, 64):
                self.refuse(STATUS, NO_FDS, [0] * n)
            for n in (65, 66, 200):
                self.refuse(STATUS, NO_FDS, [0] * n)
            sockets = frame(SOCKETS, {1: 1, 2: 1, 3: ["a", "b"]})
            self.refuse(sockets, "Sockets: 0 descriptors came, 2 were announced")
            self.refuse(sockets, NO_FDS, [0])

    def test_descriptors_in_the_middle(self):
        with self.unharmed(self.s):
            since = self.mark(self.s)
            c = self.control(self.s)
            c.sendall(STATUS[:4])
            socket.send_fds(c, [STATUS[4:]], [0, 1])
            self.assertEqual(wait_end(c), [])
            self.wait_line(self.s, self.line % NO_FDS, since)

    def test_no_requests(self):
        """Messages of daemons, and of the supervisor itself."""
        known = {
            "Hello": frame(HELLO, {1: 0, 2: 1, 3: b"x", 4: 1, 5: 1, 6: 0}),
            "Commit": frame(COMMIT, {1: True}), "Heartbeat": frame(HEARTBEAT, {1: 1}),
            "Status": frame(D_STATUS, {1: True}),
            "Ready": frame(READY, {1: [], 2: True, 3: [], 4: bytes(32)}),
            "Result": frame(RESULT, {1: 0, 2: "committed", 3: ""}),
            "State": frame(STATE, {1: "kvd", 2: "idle", 3: 1, 10: [], 17: []}),
        }
        with self.unharmed(self.s):
            for name, data in known.items():
                since = self.mark(self.s)
                c = self.control(self.s)
                c.sendall(data)
                self.assertEqual(wait_end(c), [])
                self.wait_line(self.s, "warning: uid %d (pid %d) sent %s to control.sock, which is "
                               "no request" % (os.geteuid(), os.getpid(), name), since)

    def test_another_handoff(self):
        with self.unharmed(self.s):
            for data, code, message in (
                    (frame(ABORT_REQUEST, {0: UNKNOWN}), 1,
                     "no such handoff is under way: nothing to abort"),
                    (frame(OUTCOME_REQUEST, {0: UNKNOWN}), 6,
                     "this supervisor knows nothing of that handoff: see 'handoffctl status kvd'"),
                    (frame(64, {0: bytes(16)}), 2, "a handoff needs an id")):
                c = self.control(self.s)
                c.sendall(data)
                kind, fields, _ = receive(c)
                self.assertEqual((kind, fields[1], fields[3]), (RESULT, code, message))
                c.close()

    def test_unknown_keys_are_no_offence(self):
        with self.unharmed(self.s):
            c = self.control(self.s)
            c.sendall(frame(STATUS_REQUEST, {90: ["later", {1: True}], 91: -7}))
            self.assertEqual(receive(c)[0], STATE)
            c.close()

    def test_one_byte_at_a_time_for_ever(self):
        """The time limit is for the whole request, and nobody else waits for it."""
        with self.unharmed(self.s) as client:
            since = self.mark(self.s)
            c, begin = self.control(self.s), time.monotonic()
            again = self.control(self.s)  # the second request has no more time than the first
            again.sendall(STATUS)
            self.assertEqual(receive(again)[0], STATE)
            slow = frame(65, {0: UNKNOWN, 1: "x" * 4000})
            ended = set()
            for n in range(len(slow)):
                for x in {c, again} - ended:
                    try:
                        x.sendall(slow[n:n + 1])
                    except ConnectionError:
                        ended.add(x)
                if ended == {c, again}:
                    break
                if n % 20 == 0:
                    client.use()
                    at = time.monotonic()
                    self.assertIsNotNone(self.s.status())
                    self.assertLess(time.monotonic() - at, 5)
                time.sleep(0.02)
            self.assertEqual(len(ended), 2, "they were never cut off")
            self.assertGreater(time.monotonic() - begin, 5)
            line = "warning: uid %d (pid %d) sent no whole request to control.sock " \
                "for 10 s: closed" % (os.geteuid(), os.getpid())
            self.wait_line(self.s, line, since)
            self.assertEqual(self.lines(self.s, since).count(line), 2)


class Successor(Case):
    """What a new binary may say instead of the protocol: the handoff is aborted."""

    def setUp(self):
        self.s = self.service(options={"start-timeout": "20s"})
        self.path = self.puppets(self.s)

    def refuse(self, play, line, why):
        """An upgrade to a puppet: play(puppet); handoffd says line, handoffctl why."""
        with self.unharmed(self.s):
            since = self.mark(self.s)
            u = self.s.start_upgrade("--binary", self.path)
            p = self.puppet()
            play(p)
            u.wait()
            incumbent = self.s.daemon_pid()
            self.assertEqual((u.code, u.result["outcome"], u.result["message"]),
                             (1, "aborted", "the successor ended before it was ready%s; the "
                              "incumbent (pid %d) serves, no client met the successor" %
                              (why % p.pid if "%d" in why else why, incumbent)), self.s.log())
            if line:
                self.wait_line(self.s, "warning: " + line % p.pid, since)
            harness.wait_until(lambda: not harness.is_alive(p.pid), "the puppet is gone")
            p.close()

    def bad(self, data, why, fds=()):
        self.refuse(lambda p: p.send(data, fds=fds),
                    "pid %d sent what is not the protocol: " + why + "; its channel is closed",
                    ": what it sent is not the protocol (" + why + ")")

    def test_one_of_each_kind(self):
        wanted = {"length 0", "length 1", "length 5", "length over the limit of 1 MiB",
                  "length 4 GiB - 1", "version 2", "a byte behind the end", "a key twice",
                  "keys out of order", "the outer array", "0 in two", "a hundred arrays",
                  "Hello, pid", "type 36"}
        seen = set()
        for name, data, why in vectors():
            if name in wanted and name not in seen:
                seen.add(name)
                with self.subTest(name):
                    self.bad(data, why)
        self.assertEqual(seen, wanted)

    def test_others(self):
        hello = frame(HELLO, {1: 1, 2: 1, 3: b"x", 4: 1, 5: 1, 6: 0})
        for data, why in lengths().items():
            self.bad(data, why)
        self.bad(records()["a journal"], "a record of the disk, not a message")
        self.bad(hello, "Hello: 1 descriptors came, 0 were announced", [0])
        self.bad(hello, LOST, [0] * 65)
        self.bad(frame(SOCKETS, {1: 1, 2: 1, 3: ["resp"]}),
                 "Sockets: 0 descriptors came, 1 were announced")
        self.bad(b"GET / HTTP/1.1\r\n\r\n",
                 "a frame length that no frame can have (not this protocol?)")
        self.bad(raw(HELLO, b"\xa1\x09\x62\xc3\x28"),
                 "Hello: software-version: text that is not UTF-8")
        self.bad(raw(SOCKETS, b"\xa1\x03\x9a\xff\xff\xff\xff"),
                 "Sockets: names: a length beyond the end of the frame")
        self.bad(raw(HELLO, b"\xa1\x09\x7b" + b"\xff" * 8),
                 "Hello: software-version: a length beyond the end of the frame")

    def test_cut_off(self):
        data = frame(HELLO, {1: 1, 2: 1, 3: b"", 4: 1, 5: 1, 6: 0})
        for n in range(1, len(data)):
            self.refuse(lambda p, n=n: (p.send(data[:n]), p.drop()),
                        "pid %d sent what is not the protocol: " + INSIDE + "; its channel is "
                        "closed", ": what it sent is not the protocol (" + INSIDE + ")")

    def test_out_of_turn(self):
        data_dir = self.s.data_dir
        for play, why in (
                (lambda p: p.send(frame(READY, {1: [], 2: True, 3: [], 4: bytes(32)})),
                 "a message before Hello"),
                (lambda p: p.send(frame(STOP_REQUEST, {})),
                 "an operator's request on a daemon's channel"),
                (lambda p: p.send(p.hello(data_dir, role=1), p.hello(data_dir, role=1)),
                 "a second Hello"),
                (lambda p: p.send(p.hello(data_dir, role=1), frame(SOCKETS_ACK, {1: 7})),
                 "an acknowledgement of sockets that were not sent")):
            self.refuse(play, "pid %d is refused: " + why, ": " + why)

    def test_sockets_from_a_successor(self):
        def play(p):
            p.send(p.hello(self.s.data_dir, role=1))
            p.receive(HELLO_ACK)
            p.send(frame(SOCKETS, {1: 1, 2: 1, 3: ["resp"]}), fds=[0])
        self.refuse(play, "pid %d is refused: sockets that were not announced",
                    ": sockets that were not announced")

    def test_messages_of_another_state_or_handoff_are_dropped(self):
        """They are no error of the frame: late ones are lawful. Nothing follows from them."""
        with self.unharmed(self.s):
            u = self.s.start_upgrade("--binary", self.path)
            p = self.puppet()
            p.send(p.hello(self.s.data_dir, role=1))
            ack = p.receive(HELLO_ACK)
            p.receive(SOCKETS)
            mine = ack[0]
            p.send(frame(D_STATUS, {0: mine, 1: True}), frame(D_STATUS, {0: UNKNOWN, 1: True}),
                   frame(READY, {0: mine, 1: [], 2: True, 3: [], 4: bytes(32)}),
                   frame(DRAINED, {0: mine, 1: 0, 2: True}), frame(COMMIT, {0: mine, 1: True}),
                   frame(ABORT, {0: mine, 1: "no"}), frame(PREPARE, {0: mine, 1: 1, 2: 1, 3: 1}))
            self.assertIsNotNone(self.s.status())
            self.assertEqual(self.s.status()["state"], "warm")
            p.send(frame(SOCKETS_ACK, {1: 1}))
            begin = p.receive(BEGIN)
            p.send(frame(READY, {0: UNKNOWN, 1: [], 2: True, 3: begin[2], 4: begin[3]}))
            self.assertEqual(self.s.status()["state"], "ready")
            # Its own Ready, of another state than was sealed.
            p.send(frame(READY, {0: mine, 1: [], 2: True, 3: begin[2], 4: bytes(32)}))
            u.wait()
            self.assertEqual((u.code, u.result["message"]), (
                1, "the successor opened another state than was sealed, or is unhealthy: the "
                "fingerprint differs; the incumbent (pid %d) serves, no client met the successor"
                % self.s.daemon_pid()))

    def test_one_byte_at_a_time_for_ever(self):
        self.s.configure(start_timeout="1500ms")
        with self.unharmed(self.s) as client:
            u = self.s.start_upgrade("--binary", self.path)
            p = self.puppet()
            data = p.hello(self.s.data_dir, role=1, software="x" * 60)
            n = 0
            while harness.is_alive(p.pid) and n < len(data) - 1:
                p.send(data[n:n + 1])
                client.use()
                n += 1
                time.sleep(0.05)
            u.wait()
            self.assertEqual((u.code, u.result["message"]), (
                1, "the successor did not finish its start within start-timeout; the incumbent "
                "(pid %d) serves, no client met the successor" % self.s.daemon_pid()))
            p.close()


class Incumbent(Case):
    """A daemon that serves and sends what is not the protocol: it is not killed for it."""

    def setUp(self):
        self.s, self.p = self.puppet_service()
        self.before = self.count(self.s)

    def again(self):
        """Registers again, by daemon.sock."""
        since = self.mark(self.s)
        self.p.connect()
        self.p.send(self.p.hello(self.s.data_dir, role=2, phase=self.serving()))
        self.p.receive(HELLO_ACK)
        self.wait_line(self.s, "info: the daemon (pid %d) has registered: it serves" % self.p.pid,
                       since)

    @staticmethod
    def serving():
        """The number of the phase SERVE in a Hello."""
        with open(os.path.join(harness.TOP, "src/proto/daemon.h"), encoding="utf-8") as f:
            names = [x.split("(")[1].split(",")[0].strip(" )\\\n") for x in f
                     if x.lstrip().startswith("X(")]
        return names.index("SERVE")

    def test_bad_vectors(self):
        for name, data, why in vectors():
            with self.subTest(name):
                since = self.mark(self.s)
                self.p.send(data)
                self.wait_line(self.s, "warning: pid %d sent what is not the protocol: %s; its "
                               "channel is closed" % (self.p.pid, why), since)
                self.again()
        status = self.s.status()
        self.assertEqual((status["state"], status["pid"]), ("idle", self.p.pid))
        self.assert_count(self.s, self.before)

    def test_on_daemon_sock(self):
        """The first bytes of a registration."""
        for name, data, why, fds in (
                ("not a frame", b"\0" * 6,
                 "a frame length that no frame can have (not this protocol?)", ()),
                ("a descriptor", self.p.hello(self.s.data_dir, role=2),
                 "Hello: 1 descriptors came, 0 were announced", [0]),
                ("65 of them", self.p.hello(self.s.data_dir, role=2), LOST, [0] * 65)):
            with self.subTest(name):
                self.p.drop()
                self.s.wait_state("unregistered")
                since = self.mark(self.s)
                self.p.connect()
                self.p.send(data, fds=fds)
                self.wait_line(self.s, "warning: pid %d sent what is not the protocol: %s; its "
                               "channel is closed" % (self.p.pid, why), since)
        self.again()
        self.assert_count(self.s, self.before)

    def test_sockets_that_are_none(self):
        """What a daemon gives back is looked at before it is used."""
        self.s.kill_supervisor()
        self.s.launch()
        harness.wait_until(lambda: "adopting what runs" in self.s.log(), "the new supervisor")
        self.p.channel.close()
        self.p.connect()
        since = self.mark(self.s)
        self.p.send(self.p.hello(self.s.data_dir, role=2, phase=self.serving(), sockets=2))
        self.p.receive(HELLO_ACK)
        with open(os.devnull, "rb") as null, socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen(1)
            self.p.send(frame(SOCKETS, {1: 1, 2: 2, 3: ["resp"]}), fds=[null.fileno()])
            self.p.receive(SOCKETS_ACK)
            self.p.send(frame(SOCKETS, {1: 2, 2: 2, 3: ["resp"]}), fds=[other.fileno()])
            self.p.receive(SOCKETS_ACK)
        pid, address = self.p.pid, self.s.listen["resp"]
        self.wait_line(self.s, "warning: pid %d sent a socket that is not used: listener resp: "
                       "what came is not a socket (%s); it is closed" % (pid, address), since)
        self.wait_line(self.s, "warning: pid %d sent a socket that is not used: listener resp: "
                       "what came is of another address than configured (%s); it is closed" %
                       (pid, address), since)
        self.s.wait_state("idle")


if __name__ == "__main__":
    import unittest
    unittest.main()
