"""What an operator says beside an upgrade comes with the messages to both daemons, and out of the
library: reason, trace parent, correlation id, tenant."""

import os
import socket
import unittest

import harness
from badinput import (BEGIN, COMMIT, DRAINED, D_STATUS, HELLO_ACK, PREPARE, READY, SEAL_COMPLETE,
                      SEAL_REQUEST, SOCKETS, SOCKETS_ACK, Case, frame)

REASON, TRACE, CORRELATION, TENANT = range(20, 24)   # the keys of each message that has them
SAID = {REASON: "release", TRACE: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        CORRELATION: "deploy-17", TENANT: "blue"}
OPTIONS = ["--reason", SAID[REASON], "--trace-parent", SAID[TRACE], "--correlation-id", SAID[CORRELATION],
           "--tenant", SAID[TENANT]]

# The daemon of tests/lib/puppet.c below a real supervisor; the test is behind its stdin and stdout.
TOLD = """#!/usr/bin/python3 -IS
import os, socket
c = socket.socket(socket.AF_UNIX)
c.connect(%r)
for fd in (0, 1):
    os.dup2(c.fileno(), fd)
os.execv(%r, ["puppet"])
"""


def context(fields):
    return {k: v for k, v in fields.items() if k in SAID}


class Told:
    """One daemon: a call of the library for each line, and what it returned."""

    def __init__(self, sock):
        sock.settimeout(harness.PATIENCE)
        self.sock, self.answers = sock, sock.makefile("r")

    def tell(self, line):
        self.sock.sendall(line.encode() + b"\n")

    def hear(self):
        return self.answers.readline().strip()

    def call(self, line):
        self.tell(line)
        return self.hear()

    def wait(self, event):
        """The next event of this kind, and what came with it; those before it are nothing."""
        said = ""
        while not said.startswith("1 %s " % event):
            said = self.call("wait %d" % (harness.PATIENCE * 1000))
            if said == "0" or said.startswith("-"):
                raise AssertionError("%s: %s was awaited" % (said, event))
        return said

    def close(self):
        self.answers.close()
        self.sock.close()


class Messages(Case):
    """On the wire: the test plays both daemons."""

    def handoff(self, *options):
        """{message: its context}"""
        s, old = self.puppet_service()
        u = s.start_upgrade(*options)
        new = self.puppet()
        new.send(new.hello(s.data_dir, role=1))
        said = {"HelloAck": new.receive(HELLO_ACK)}
        new.receive(SOCKETS)
        new.send(frame(SOCKETS_ACK, {1: 1}))
        said["PrepareHandoff"] = old.receive(PREPARE)
        handoff = said["PrepareHandoff"][0]
        old.send(frame(DRAINED, {0: handoff, 1: 0, 2: True}))
        old.receive(SEAL_REQUEST)
        old.send(frame(SEAL_COMPLETE, {0: handoff, 1: [], 2: bytes(32)}))
        said["Begin"] = new.receive(BEGIN)
        new.send(frame(READY, {0: handoff, 1: [], 2: True, 3: [], 4: bytes(32)}))
        new.receive(COMMIT)
        new.send(frame(D_STATUS, {0: handoff, 1: True}))
        old.receive(COMMIT)
        old.exit(0)
        u.wait()
        self.assertEqual((u.code, u.result["outcome"]), (0, "committed"), s.log())
        return {k: context(v) for k, v in said.items()}

    def test_all(self):
        self.assertEqual(self.handoff(*OPTIONS), dict.fromkeys(("HelloAck", "PrepareHandoff", "Begin"), SAID))

    def test_nothing(self):
        self.assertEqual(self.handoff(), dict.fromkeys(("HelloAck", "PrepareHandoff", "Begin"), {}))


class Library(Case):
    """What a daemon gets from libhandoff, as incumbent and as successor."""

    def daemon(self):
        d = Told(self.door.accept()[0])
        self.addCleanup(d.close)
        return d

    def begins(self, s):
        d = self.daemon()
        self.assertEqual(d.call("open data=%s" % s.data_dir), "0")
        d.tell("begin")
        return d

    def told_service(self):
        s = self.service(start=False)
        with open(s.binary + ".new", "w", encoding="utf-8") as f:
            f.write(TOLD % (s.path("told.sock"), harness.program("puppet")))
        os.chmod(s.binary + ".new", 0o755)
        os.rename(s.binary + ".new", s.binary)
        self.door = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.door.close)
        self.door.settimeout(harness.PATIENCE)
        self.door.bind(s.path("told.sock"))
        self.door.listen(2)
        s.launch()
        first = self.begins(s)
        self.assertIn("0 sealed=0", first.hear())
        self.assertEqual(first.call("ready"), "0")
        s.wait_state("idle")
        return s, first

    def test_incumbent_and_successor(self):
        s, old = self.told_service()
        self.assertEqual(old.call("context"), "reason=- trace=- corr=- tenant=-")
        u = s.start_upgrade(*OPTIONS)
        new = self.begins(s)
        want = "reason=%s trace=%s corr=%s tenant=%s" % tuple(SAID.values())
        self.assertIn(want, old.wait("drain"))
        self.assertEqual(old.call("drained"), "0")
        old.wait("seal")
        self.assertEqual(old.call("sealed"), "0")
        self.assertIn("0 sealed=1", new.hear())
        self.assertEqual(new.call("context"), want)
        self.assertEqual(new.call("ready"), "0")
        old.wait("commit")
        old.tell("quit")
        u.wait()
        self.assertEqual((u.code, u.result["outcome"]), (0, "committed"), s.log())


if __name__ == "__main__":
    unittest.main()
