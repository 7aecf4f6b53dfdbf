"""handoffctl against a supervisor that is played here: each request, exit code and failure."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import unittest
import uuid

import harness
from fakesupervisor import (
    ABORT, BINARY, CORRELATION, Case, DEADLINE, DEFAULTS, DRAIN, EVENT, HANDOFF, HISTORY, OUTCOME, PLAN, REASON, REEXEC,
    RESTART, RESULT, STATUS, STOP, TENANT, TIMERS, TRACE, UPGRADE, answer, event, frame, result, state)


class Upgrade(Case):
    def test_committed_in_text(self):
        def handle(connection, kind, fields):
            self.assertEqual((kind, set(fields)), (UPGRADE, {0}))
            connection.send(event("starting", 10, "pid 5"), event("drain", 1500),
                            event("take", 2100000, "done"),
                            result(0, "committed", "kvd is served by the new one.", fields[0],
                                   pause_us=412, serving_us=31000, total_us=2150000, pid=5,
                                   build="ab12", version="2.0"))
        self.supervisor(handle)
        code, out, err = self.ctl("upgrade", "kvd")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out.splitlines(), [
            "     0.01 ms  starting    pid 5",
            "     1.50 ms  drain",
            "      2.10 s  take        done",
            "committed: kvd is served by the new one.",
            "  pause 0.41 ms, serving after 31 ms, total 2.15 s, pid 5, version 2.0, build ab12"])

    def test_records_that_are_refused(self):
        for command in ("history", "explain"):
            self.supervisor(answer(result(4, "refused", "busy")), name=command)
            code, out, err = self.ctl(command, command)
            self.assertEqual((code, out), (4, ""))
            self.assertIn("busy", err)

    def test_a_stall_that_nobody_knows(self):
        """A supervisor that was started again in the middle does not have the limit."""
        self.supervisor(answer(result(0, "committed", "yes")))
        code, _out, err = self.ctl("upgrade", "kvd", "--max-stall", "1s")
        self.assertEqual(code, 0)
        self.assertIn("whether --max-stall was met is not known", err)

    def test_json_contract(self):
        def handle(connection, _kind, fields):
            self.handoff = fields[0]
            connection.send(event("drain", 1234, "text é", fields[0]),
                            frame(EVENT, {1: "seal", 2: 2000, 6: 3, 7: 1, 8: 4, 9: 2, 10: 0}),
                            result(0, "committed", "yes", fields[0], pause_us=1, serving_us=2,
                                   total_us=3, pid=4, build="b", version="v"))
        self.supervisor(handle)
        code, lines = self.json("upgrade", "kvd")
        self.assertEqual(code, 0)
        self.assertEqual(lines, [
            {"event": "phase", "phase": "drain", "us": 1234, "ms": 1, "text": "text é", "connections_left": None,
             "shards_sealed": None, "shards": None, "connections_moved": None, "connections_stayed": None},
            {"event": "phase", "phase": "seal", "us": 2000, "ms": 2, "text": None, "connections_left": 3,
             "shards_sealed": 1, "shards": 4, "connections_moved": 2, "connections_stayed": 0},
            {"event": "result", "outcome": "committed", "handoff": str(uuid.UUID(bytes=self.handoff)),
             "message": "yes", "pause_us": 1, "serving_us": 2, "total_us": 3, "stall_us": None,
             "connections_moved": None, "connections_stayed": None,
             "pid": 4, "build": "b", "version": "v", "code": 0}])

    def test_what_is_asked_for(self):
        real = os.path.join(self.dir, "real")
        os.mkdir(real)
        with open(os.path.join(real, "v2"), "w", encoding="ascii"):
            pass
        os.symlink("v2", os.path.join(real, "current"))
        os.symlink("real", os.path.join(self.dir, "link"))
        fake = self.supervisor(answer(result(0, "committed", "yes")))
        code, _out, err = self.ctl(
            "--deadline", "3s", "upgrade", "--drain-grace=500ms", "kvd", "--binary", "link/current",
            "--reason", "release 2 – über", "--trace-parent", harness.TRACE_PARENT, "--correlation-id=c",
            "--tenant", "t")
        self.assertEqual((code, err), (0, ""))
        kind, fields = fake.requests[0]
        self.assertEqual(kind, UPGRADE)
        self.assertEqual(uuid.UUID(bytes=fields.pop(0)).version, 4)
        self.assertEqual(fields, {
            # no symbolic link is resolved: the next start follows them
            BINARY: os.path.join(os.path.realpath(self.dir), "link/current"), DEADLINE: 3000, DRAIN: 500,
            REASON: "release 2 – über", TRACE: harness.TRACE_PARENT, CORRELATION: "c", TENANT: "t"})

    def test_path_of_the_binary(self):
        """An absolute one as it is; a relative one by the shell's idea of where it is, if that is true."""
        real = os.path.join(os.path.realpath(self.dir), "real")
        os.mkdir(real)
        with open(os.path.join(real, "v2"), "w", encoding="ascii"):
            pass
        link = os.path.join(self.dir, "link")
        os.symlink("real", link)
        for path, before, expected in (
                (link + "/../link//v2", "true", link + "/../link//v2"),
                ("v2", 'cd "%s"' % link, link + "/v2"),
                ("../link/v2", 'cd "%s"' % link, link + "/../link/v2"),
                ("v2", 'cd "%s"; unset PWD' % link, real + "/v2"),
                ("v2", 'cd "%s"; PWD="%s"' % (link, self.dir), real + "/v2"),
                (link[1:] + "/v2", "cd /", link + "/v2")):
            with self.subTest(path=path, before=before):
                fake = self.supervisor(answer(result(0, "committed", "yes")))
                code, _out, err = self.ctl("upgrade", "kvd", "--binary", path,
                                           launcher=("sh", "-c", before + '; exec "$@"', "sh"))
                self.assertEqual((code, err), (0, ""))
                self.assertEqual(fake.requests[0][1][BINARY], expected)
                fake.close()

    def test_exit_codes_of_results(self):
        for code, outcome in ((1, "aborted"), (1, "rolled back"), (2, "refused"), (4, "refused"),
                              (5, "aborted"), (6, "unknown"), (8, "refused")):
            with self.subTest(code=code, outcome=outcome):
                fake = self.supervisor(answer(result(code, outcome, "Why; what to do.")))
                self.assertEqual(self.ctl("upgrade", "kvd"),
                                 (code, "", "handoffctl: %s: Why; what to do.\n" % outcome))
                got, lines = self.json("upgrade", "kvd")
                self.assertEqual((got, lines[-1]["code"], lines[-1]["outcome"], lines[-1]["pid"]),
                                 (code, code, outcome, None))
                fake.close()

    def test_control_characters_do_not_reach_the_terminal(self):
        self.supervisor(answer(event("dr\033ain", 0, "a\033[31mb\x9bc\nd"),
                               result(1, "abor\rted", "x\x07y")))
        code, out, err = self.ctl("upgrade", "kvd")
        self.assertEqual((code, out), (1, "     0.00 ms  dr?ain      a?[31mb?c?d\n"))
        self.assertEqual(err, "handoffctl: abor?ted: x?y\n")

    def test_one_byte_at_a_time(self):
        def handle(connection, _kind, _fields):
            for byte in event("drain", 5) + event("seal", 6) + result(0, "committed", "yes"):
                connection.send(bytes([byte]))
        self.supervisor(handle)
        code, lines = self.json("upgrade", "kvd")
        self.assertEqual((code, [x.get("phase") for x in lines]), (0, ["drain", "seal", None]))



class Stdout(Case):
    """It does not take what is printed: who acted tells the outcome, who only asked has failed."""

    ACT = ("upgrade", "rollback", "abort", "restart", "reexec", "stop")
    ASK = ("plan", "status", "list", "metrics", "history", "explain", "completion", "--help", "--version")
    OPERAND = {"completion": ("bash",), "list": (), "metrics": (), "--help": (), "--version": ()}

    def setUp(self):
        super().setUp()

        def handle(connection, kind, _fields):
            some = {STATUS: [], HISTORY: [frame(HANDOFF, {0: bytes(16), 1: 1, 4: "committed"})]}
            connection.send(*some.get(kind, [event("drain", i, "x" * 100) for i in range(50)]),
                            state("kvd") if kind == STATUS else result(0, "committed", "yes"))
        self.supervisor(handle)

    def each(self, stdout, launcher=()):
        """(command, how, code, stderr) of each command, without --json and with it."""
        for command in self.ACT + self.ASK:
            for how in ((), ("--json",))[:1 if command in ("metrics", "completion") else 2]:
                p = self.start(*how, command, *self.OPERAND.get(command, ("kvd",)), stdout=stdout,
                               launcher=launcher)
                yield command, how, p.wait(harness.PATIENCE), p.stderr.read()

    def assert_told(self, stdout, why, launcher=()):
        for command, how, code, err in self.each(stdout, launcher):
            with self.subTest(command=command, how=how, why=why):
                acted = command in self.ACT
                outcome = "; the exit status tells the outcome" if acted else ""
                self.assertEqual((code, err), (
                    0 if acted else 1, f"handoffctl: not all could be printed: {why}{outcome}\n"))

    def test_full(self):
        with open("/dev/full", "wb") as full:
            self.assert_told(full, "No space left on device")

    def test_closed(self):
        """And the connection to the supervisor has not become stdout."""
        self.assert_told(subprocess.DEVNULL, "Bad file descriptor", ("sh", "-c", 'exec "$@" <&- >&-', "sh"))

    def test_nobody_reads(self):
        """A reader that has left wants no more: no error."""
        reader, writer = os.pipe()
        os.close(reader)
        for command, how, code, err in self.each(writer):
            self.assertEqual((code, err), (0, ""), (command, how))
        os.close(writer)


class Lost(Case):
    """The connection, or the supervisor, goes in the middle of an upgrade."""

    def test_outcome_is_asked_for_by_id(self):
        def handle(connection, kind, fields):
            if kind == UPGRADE:
                connection.send(event("drain", 5))
                return
            self.assertEqual((kind, fields), (OUTCOME, {0: fake.requests[0][1][0]}))
            if len(fake.requests) < 4:
                return  # lost again, twice
            connection.send(event("commit", 9), result(0, "committed", "yes", fields[0]))
        fake = self.supervisor(handle)
        code, out, err = self.ctl("upgrade", "kvd")
        self.assertEqual((code, len(fake.requests)), (0, 4))
        self.assertEqual(out, "     0.01 ms  drain\n     0.01 ms  commit\ncommitted: yes\n")
        self.assertIn("the connection to the supervisor was lost; waiting for it", err)

    def test_supervisor_restarts(self):
        def handle(connection, kind, fields):
            if kind == OUTCOME:
                connection.send(result(1, "aborted", "no", fields[0]))
                return
            connection.send(event("seal", 5))
            fake.die()
            os.unlink(fake.path)
            # its socket is away for some time
            threading.Timer(0.3, fake.listen).start()
        fake = self.supervisor(handle)
        code, lines = self.json("upgrade", "kvd")
        self.assertEqual([x["event"] for x in lines], ["phase", "note", "result"])
        self.assertEqual((code, lines[-1]["outcome"]), (1, "aborted"))

    def test_supervisor_does_not_know_it(self):
        def handle(connection, kind, _fields):
            if kind == OUTCOME:
                connection.send(result(6, "unknown", "This handoff is not known here."))
        self.supervisor(handle)
        code, lines = self.json("upgrade", "kvd")
        self.assertEqual((code, lines[-1]["outcome"]), (6, "unknown"))

    def test_as_execreload_it_gives_up(self):
        fake = self.supervisor(answer(event("drain", 5)))
        code, lines = self.json("upgrade", "kvd", env={"MAINPID": "77"})
        self.assertEqual((code, len(fake.requests)), (6, 1))
        self.assertEqual(lines[-1]["handoff"], str(uuid.UUID(bytes=fake.requests[0][1][0])))
        self.assertEqual((lines[-1]["event"], lines[-1]["outcome"], lines[-1]["code"]),
                         ("result", "unknown", 6))
        self.assertIn("the supervisor went away", lines[-1]["message"])

    def test_others_are_not_asked_again(self):
        for args, what in ((("plan",), "plan"), (("restart",), "restart"), (("stop",), "stop"),
                           (("abort",), "abort")):
            with self.subTest(args=args):
                fake = self.supervisor(answer(event("stopping", 5)))
                code, _out, err = self.ctl(*args, "kvd")
                self.assertEqual((code, len(fake.requests)), (6, 1))
                self.assertEqual(err, "handoffctl: unknown: the supervisor closed the connection "
                                 "before the result of the %s; see its log, and handoffctl status\n"
                                 % what)
                fake.close()

    BAD = {
        "length 0": (struct.pack("<IH", 0, 1), "a frame length that no frame can have"),
        "4 GiB - 1": (struct.pack("<IH", 0xffffffff, 1), "a frame length that no frame can have"),
        "too long": (struct.pack("<IH", 1 << 20, 1), "a frame longer than any message may be"),
        "text": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a frame length that no frame can have"),
        "version": (frame(RESULT, {1: 0, 2: "a", 3: "b"}, version=9), "protocol version 9"),
        "cut off": (result(0, "committed", "yes")[:-1], "the stream ends inside a frame"),
        "a Hello's place": (frame(STATUS, {}), "StatusRequest in place of a result"),
        "no code": (frame(RESULT, {2: "a", 3: "b"}), "exit-code"),
        "type": (frame(RESULT, {1: "0", 2: "a", 3: "b"}), "exit-code"),
        "unknown type": (frame(63, {}), "63"),
        "UTF-8": (frame(RESULT, {1: 0, 2: "a", 3: "b"})[:-1] + b"\xff", "message"),
    }

    def test_not_this_protocol(self):
        for name, (data, why) in self.BAD.items():
            with self.subTest(name):
                fake = self.supervisor(answer(event("drain", 5), data))
                code, lines = self.json("upgrade", "kvd")
                self.assertEqual((code, lines[0]["phase"], lines[-1]["outcome"]),
                                 (6, "drain", "unknown"))
                self.assertIn("does not speak this protocol: ", lines[-1]["message"])
                self.assertIn(why, lines[-1]["message"])
                self.assertEqual(len(fake.requests), 1)
                fake.close()


class Interrupt(Case):
    def setUp(self):
        super().setUp()
        self.begun = threading.Event()
        self.abort_asked = threading.Event()
        self.ids = {}

    def fake(self, on_abort, on_end):
        def handle(connection, kind, fields):
            self.ids[kind] = fields[0]
            if kind == ABORT:
                self.abort_asked.set()
                connection.send(on_abort)
                return
            connection.send(event("drain", 5))
            self.begun.set()
            self.abort_asked.wait(harness.PATIENCE)
            if on_end:
                connection.send(on_end)
            connection.wait_eof()
        return self.supervisor(handle)

    def interrupted(self, *args, sig=signal.SIGINT):
        p = self.start(*args)
        self.assertTrue(self.begun.wait(harness.PATIENCE))
        p.send_signal(sig)
        self.assertTrue(self.abort_asked.wait(harness.PATIENCE))
        return p

    def end(self, p):
        out, err = p.communicate(timeout=harness.PATIENCE)
        return p.returncode, out, err

    def test_abort_and_its_outcome(self):
        for sig in (signal.SIGINT, signal.SIGTERM):
            for command in ("upgrade", "plan"):
                with self.subTest(sig=sig, command=command):
                    self.begun.clear()
                    self.abort_asked.clear()
                    fake = self.fake(result(0, "done", "It is being aborted."),
                                     result(1, "aborted", "No."))
                    code, _out, err = self.end(self.interrupted(command, "kvd", sig=sig))
                    self.assertEqual(code, 1)
                    self.assertIn("asking for the abort, waiting for the outcome; once more Ctrl-C",
                                  err)
                    self.assertTrue(err.endswith("handoffctl: aborted: No.\n"))
                    kinds = [k for k, _ in fake.requests]
                    self.assertEqual(kinds[1], ABORT)
                    self.assertEqual(self.ids[ABORT], fake.requests[0][1][0])
                    fake.close()

    def test_too_late(self):
        self.fake(result(1, "refused", "It is committed already."), None)
        p = self.interrupted("upgrade", "kvd")
        line = ""
        while "no abort" not in line:
            line = p.stderr.readline()
            self.assertTrue(line, "it ended")
        self.assertEqual(line, "handoffctl: no abort: It is committed already.\n")
        # still waiting: the second one leaves
        self.assertIsNone(p.poll())
        p.send_signal(signal.SIGINT)
        code, _out, err = self.end(p)
        self.assertEqual((code, err), (6, "handoffctl: unknown: left; the handoff goes on; "
                                       "see handoffctl status\n"))

    def test_nobody_to_be_asked_for_the_abort(self):
        fake = self.fake(None, None)
        p = self.start("upgrade", "kvd")
        self.assertTrue(self.begun.wait(harness.PATIENCE))
        fake.die()
        p.send_signal(signal.SIGINT)
        self.assertIn("asking for the abort", p.stderr.readline())
        self.assertEqual(p.stderr.readline(), "handoffctl: the abort could not be asked for: Connection refused\n")
        p.send_signal(signal.SIGINT)
        self.assertEqual(self.end(p)[0], 6)

    def test_committed_all_the_same(self):
        self.fake(result(1, "refused", "Too late."), result(0, "committed", "yes"))
        code, out, _err = self.end(self.interrupted("upgrade", "kvd"))
        self.assertEqual((code, out.splitlines()[-1]), (0, "committed: yes"))

    def test_while_the_supervisor_is_away(self):
        def handle(connection, kind, fields):
            if kind == UPGRADE:
                connection.send(event("drain", 5))
                fake.die()
            elif kind == ABORT:
                self.ids[ABORT] = fields[0]
                self.abort_asked.set()
                connection.send(result(0, "done", "yes"))
            else:
                self.abort_asked.wait(harness.PATIENCE)
                connection.send(result(1, "aborted", "No.", fields[0]))
        fake = self.supervisor(handle)
        p = self.start("upgrade", "kvd")
        self.assertIn("was lost", p.stderr.readline())
        p.send_signal(signal.SIGINT)
        self.assertIn("asking for the abort", p.stderr.readline())
        fake.listen()
        code, _out, err = self.end(p)
        self.assertEqual((code, err), (1, "handoffctl: aborted: No.\n  why, and what to do: "
                                       "handoffctl explain kvd %s\n" % self.ids[ABORT].hex()[:8]))
        self.assertEqual(self.ids[ABORT], fake.requests[0][1][0])

    def test_restart_goes_on(self):
        def handle(connection, _kind, _fields):
            connection.send(event("stopping", 5))
            self.begun.set()
            connection.wait_eof()
        self.supervisor(handle)
        p = self.start("restart", "kvd")
        self.assertTrue(self.begun.wait(harness.PATIENCE))
        p.send_signal(signal.SIGINT)
        code, _out, err = self.end(p)
        self.assertEqual((code, err), (6, "handoffctl: unknown: left; the restart goes on; "
                                       "see handoffctl status\n"))


class Others(Case):
    def test_requests(self):
        self.env["HOME"] = self.dir
        with open(os.path.join(self.dir, "v2"), "w", encoding="ascii"):
            pass
        for args, kind, fields in (
                (("abort", "--reason", "r"), ABORT, {REASON: "r"}), (("abort",), ABORT, {}),
                (("restart", "--reason", "r"), RESTART, {REASON: "r"}), (("stop",), STOP, {}),
                (("reexec", "--reason", "r"), REEXEC, {REASON: "r"}),
                (("plan", "--binary", "v2"), PLAN,
                 {BINARY: os.path.join(os.path.realpath(self.dir), "v2")})):
            with self.subTest(args=args):
                fake = self.supervisor(answer(event("stopping", 1500000, "t"),
                                              result(0, "done", "It is done.")))
                self.assertEqual(self.ctl(*args, "kvd"),
                                 (0, "      1.50 s  stopping    t\ndone: It is done.\n", ""))
                got = dict(fake.requests[0][1])
                got.pop(0, None) if kind == PLAN else None
                self.assertEqual((fake.requests[0][0], got), (kind, fields))
                fake.close()

    def test_results_of_others(self):
        for command in ("plan", "abort", "restart", "reexec", "stop"):
            for code in (1, 4, 5, 8):
                with self.subTest(command=command, code=code):
                    fake = self.supervisor(answer(result(code, "refused", "Why.")))
                    self.assertEqual(self.ctl(command, "kvd"),
                                     (code, "", "handoffctl: refused: Why.\n"))
                    fake.close()


FULL = dict(pid=4711, build="ab12", version="2.0", epoch=7, since_ms=1700000000000,
            binary="/opt/kvd", listeners=["resp tcp:127.0.0.1:6380", "admin unix:/run/a"],
            last_id=bytes(range(16)), outcome="committed", message="All is well.",
            refused="because", successor_pid=12, warning="careful", left=2, id=bytes(range(16, 32)))


class Status(Case):
    def test_text(self):
        self.supervisor(answer(state("kvd", "handoff", **FULL)))
        code, out, err = self.ctl("status", "kvd", env={"TZ": "UTC"})
        self.assertEqual((code, err), (0, ""))
        out = re.sub(r"\(\d+ days\)", "(N days)", out)
        self.assertEqual(out.splitlines(), [
            "kvd: handoff",
            "  daemon        pid 4711, version 2.0, build ab12, epoch 7",
            "  serves since  2023-11-14 22:13:20 (N days)",
            "  binary        /opt/kvd",
            "  supervisor    pid 77",
            "  handoff       10111213-1415-1617-1819-1a1b1c1d1e1f under way, successor pid 12",
            "  last handoff  committed (00010203-0405-0607-0809-0a0b0c0d0e0f): All is well.",
            "  leftovers     2 processes of earlier daemons are being ended",
            "  refuses       because",
            "  warning       careful",
            "  listeners     resp tcp:127.0.0.1:6380",
            "                admin unix:/run/a",
            "  timers        start-timeout  5min",
            "                drain-grace    2s",
            "                deadline       10s",
            "                commit-timeout 5s",
            "                exit-timeout   10s",
            "                probation      0",
            "                heartbeat      1s",
            "                self-fence     4s",
            "                presumed-dead  5s",
            "                stop-timeout   30s"])

    def test_json(self):
        fake = self.supervisor(answer(state("kvd", "handoff", **FULL)))
        code, lines = self.json("status", "kvd")
        self.assertEqual((code, fake.requests), (0, [(STATUS, {})]))
        self.assertEqual(lines, [{
            "service": "kvd", "state": "handoff", "serves": None, "pid": 4711, "build": "ab12",
            "version": "2.0", "epoch": 7, "since_ms": 1700000000000, "supervisor_pid": 77,
            "supervisor_version": None, "binary": "/opt/kvd",
            "binary_kept": None, "binary_changed": None, "sha256": None, "previous": None, "previous_kept": None,
            "listeners": ["resp tcp:127.0.0.1:6380", "admin unix:/run/a"], "queues": [],
            "handoff": "10111213-1415-1617-1819-1a1b1c1d1e1f", "successor_pid": 12,
            "last": {"handoff": "00010203-0405-0607-0809-0a0b0c0d0e0f", "outcome": "committed",
                     "message": "All is well."},
            "refused": "because", "warning": "careful", "leftovers": 2,
            "timers": dict(zip(TIMERS, DEFAULTS))}])

    def test_json_of_nothing_known(self):
        self.supervisor(answer(state("kvd", "cold start", epoch=2**64 - 1)))
        _code, lines = self.json("status", "kvd")
        self.assertEqual(lines, [{
            "service": "kvd", "state": "cold start", "serves": None, "pid": None, "build": None,
            "version": None, "epoch": 2**63 - 1, "since_ms": None, "supervisor_pid": 77,
            "supervisor_version": None, "binary": None,
            "binary_kept": None, "binary_changed": None, "sha256": None, "previous": None, "previous_kept": None,
            "listeners": [], "queues": [], "handoff": None, "successor_pid": None, "last": None,
            "refused": None, "warning": None, "leftovers": 0, "timers": dict(zip(TIMERS, DEFAULTS))}])

    def test_many_listeners_and_other_timers(self):
        names = ["listener-%d tcp:127.0.0.1:%d" % (i, i) for i in range(1000)]
        # a newer supervisor may know more timers, an older one fewer
        for timers in (DEFAULTS[:3], DEFAULTS + [1, 2]):
            fake = self.supervisor(answer(state("kvd", listeners=names, timers=timers)))
            code, lines = self.json("status", "kvd")
            self.assertEqual((code, lines[0]["listeners"]), (0, names))
            self.assertEqual(lines[0]["timers"], dict(zip(TIMERS, timers)))
            fake.close()

    def test_answers_that_are_none(self):
        socket_path = os.path.join(self.dir, "run/kvd/control.sock")
        for name, frames, code, err in (
                ("refusal", (result(8, "refused", "Not you."),), 8, "Not you."),
                ("garbage", (b"HTTP/1.1 400\r\n",), 3, "what answers at %s does not speak this "
                 "protocol: a frame length that no frame can have (not this protocol?); is that "
                 "the socket of a handoffd, and of this version?" % socket_path),
                ("nothing", (), 3, "the supervisor of kvd closed the connection without an answer "
                 "(at %s); try again, and see its log" % socket_path)):
            with self.subTest(name):
                fake = self.supervisor(answer(*frames))
                self.assertEqual(self.ctl("status", "kvd"), (code, "", "handoffctl: %s\n" % err))
                self.assertEqual(self.json("status", "kvd"),
                                 (code, [{"event": "error", "code": code, "message": err}]))
                fake.close()


class Places(Case):
    """Who is meant, and is there anybody?"""

    def setUp(self):
        super().setUp()
        self.run = os.path.join(self.dir, "run")

    def test_the_only_one(self):
        self.supervisor(answer(state("kvd", pid=1)))
        self.supervisor(answer(), name="crashed").die()
        os.mkdir(os.path.join(self.run, "empty"))
        code, lines = self.json("status")
        self.assertEqual((code, lines[0]["service"]), (0, "kvd"))

    def test_several(self):
        for name in ("b", "a"):
            self.supervisor(answer(state(name)), name=name)
        self.assertEqual(self.ctl("upgrade"), (2, "", "handoffctl: several services are here: a, b; "
                                               "say which: handoffctl upgrade NAME\n"))

    def test_who_acts_does_not_hit_another_than_the_dead(self):
        alive = self.supervisor(answer(state("kvd", pid=1)))
        self.supervisor(answer(), name="crashed").die()
        for command in ("upgrade", "rollback", "abort", "restart", "reexec", "stop"):
            with self.subTest(command):
                self.assertEqual(self.ctl(command), (
                    2, "", "handoffctl: several services are here: crashed (no supervisor answers), kvd; "
                    "say which: handoffctl %s NAME\n" % command))
        self.assertEqual(alive.requests, [])

    def test_who_acts_does_not_hit_another_than_the_stopped(self):
        """Of which a directory is left: the state's where systemd has removed the other. Files are no services."""
        def handle(connection, kind, _fields):
            connection.send(state("kvd", pid=1) if kind == STATUS else result(0, "stopped", "it has ended"))
        alive = self.supervisor(handle)
        for place in ("run", "state"):
            os.makedirs(os.path.join(self.dir, place, "stopped"))
            with open(os.path.join(self.dir, place, "file"), "w", encoding="ascii"):
                pass
            for command in ("upgrade", "rollback", "abort", "restart", "reexec", "stop"):
                with self.subTest(place=place, command=command):
                    self.assertEqual(self.ctl(command), (
                        2, "", "handoffctl: several services are here: kvd, stopped (no supervisor answers); "
                        "say which: handoffctl %s NAME\n" % command))
            code, lines = self.json("status")
            self.assertEqual((code, lines[0]["service"]), (0, "kvd"))
            os.rmdir(os.path.join(self.dir, place, "stopped"))
        self.assertEqual({kind for kind, _ in alive.requests}, {STATUS})
        self.assertEqual(self.ctl("stop")[0], 0)

    def test_who_acts_wants_to_see_all(self):
        """There may be another one where nothing can be listed."""
        alive = self.supervisor(answer(state("kvd", pid=1)))
        path = os.path.join(self.dir, "state")
        with open(path, "w", encoding="ascii"):
            pass
        self.assertEqual(self.ctl("stop"), (
            2, "", "handoffctl: %s cannot be listed: Not a directory; name the service\n" % path))
        self.assertEqual(alive.requests, [])

    def test_none(self):
        err = ("no supervisor runs here (there is no %s/NAME/control.sock); start one: "
               "systemctl start handoff@NAME, or handoffd -c FILE" % self.run)
        for command in ("upgrade", "plan", "status", "abort", "restart", "stop"):
            with self.subTest(command):
                self.assertEqual(self.ctl(command), (3, "", "handoffctl: %s\n" % err))
                self.assertEqual(self.json(command),
                                 (3, [{"event": "error", "code": 3, "message": err}]))

    def test_no_socket(self):
        for command in ("upgrade", "plan", "status", "abort", "restart", "stop"):
            with self.subTest(command):
                self.assertEqual(self.ctl(command, "kvd"), (
                    3, "", "handoffctl: no supervisor of kvd runs here (there is no "
                    "%s/kvd/control.sock); start it: systemctl start handoff@NAME, or handoffd -c FILE; "
                    "those that run: handoffctl list\n" % self.run))

    def test_stale_socket(self):
        self.supervisor(answer()).die()
        for command in ("upgrade", "plan", "status", "abort", "restart", "stop"):
            with self.subTest(command):
                self.assertEqual(self.ctl(command, "kvd"), (
                    3, "", "handoffctl: the supervisor of kvd is gone (nobody answers at "
                    "%s/kvd/control.sock; its daemon may still serve); systemd starts it again, and --wait "
                    "waits for that; else start it: handoffd -c FILE\n"
                    % self.run))
        code, _out, err = self.ctl("status")
        self.assertEqual((code, err), (3, "handoffctl: no supervisor runs here (nobody answers at "
                                       "%s/kvd/control.sock; its daemon may still serve); systemd "
                                       "starts it again; else start it: handoffd -c FILE\n" % self.run))

    def test_by_socket(self):
        fake = self.supervisor(answer(state("kvd")))
        for args in (("-S", fake.path), ("-S" + fake.path,), ("--socket", fake.path),
                     ("--socket=run/kvd/control.sock",)):
            code, lines = self.json("status", *args, env={"HANDOFF_RUNTIME_DIR": "/nonexistent"})
            self.assertEqual((code, lines[0]["service"]), (0, "kvd"))

    def test_path_too_long(self):
        path = "/" + "x" * 107
        self.assertEqual(self.ctl("status", "-S", path), (
            2, "", "handoffctl: %s is longer than the 107 bytes that a socket's path may have; "
            "use a shorter one\n" % path))

    def test_permission(self):
        fake = self.supervisor(answer(state("kvd")))
        os.chmod(fake.path, 0)
        os.chmod(self.dir, 0o755)
        copy = os.path.join(self.dir, "handoffctl")
        shutil.copy(harness.program("handoffctl"), copy)
        user = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
        for args in (("status", "kvd"), ("upgrade", "kvd"), ("stop",)):
            with self.subTest(args=args):
                p = subprocess.run([copy, *args], env=self.env, cwd="/", stdin=subprocess.DEVNULL,
                                   capture_output=True, text=True, check=False, **user)
                self.assertEqual((p.returncode, p.stdout, p.stderr), (
                    8, "", "handoffctl: permission denied: %s; be root, or in the group `operators` "
                    "of its configuration\n" % fake.path))

    def test_no_directory(self):
        path = os.path.join(self.dir, "file")
        with open(path, "w", encoding="ascii"):
            pass
        self.assertEqual(self.ctl("status", env={"HANDOFF_RUNTIME_DIR": path}), (
            3, "", "handoffctl: %s cannot be listed: Not a directory; name the service\n" % path))

    def test_no_supervisor_and_no_history(self):
        """What it remembers lies where it cannot be read."""
        path = os.path.join(self.dir, "kvd", "history")
        os.mkdir(os.path.dirname(path))
        os.symlink("history", path)
        self.assertEqual(self.ctl("history", "kvd", env={"HANDOFF_STATE_DIR": self.dir}), (
            3, "", "handoffctl: no supervisor of kvd runs here, and what it remembers cannot be read: %s: "
            "Too many levels of symbolic links\n" % path))

    def test_no_runtime_directory(self):
        if os.getuid() == 0:
            os.chmod(self.dir, 0o755)
        copy = os.path.join(self.dir, "handoffctl")
        shutil.copy(harness.program("handoffctl"), copy)
        user = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
        env = {k: v for k, v in self.env.items()
               if k not in ("HANDOFF_RUNTIME_DIR", "XDG_RUNTIME_DIR")}
        # a user without a place of his own may still be an operator of root's services
        p = subprocess.run([copy, "status", "no-such-service"], env=env, cwd="/",
                           capture_output=True, text=True, check=False, **user)
        self.assertEqual((p.returncode, p.stderr), (
            3, "handoffctl: no supervisor of no-such-service runs here (there is no "
            "/run/handoff/no-such-service/control.sock); start it: systemctl start handoff@NAME, or "
            "handoffd -c FILE; those that run: handoffctl list\n"))


class List(Case):
    def test_table_and_json(self):
        hung = threading.Event()
        self.addCleanup(hung.set)

        def never(_connection, _kind, _fields):
            hung.wait(harness.PATIENCE)
        self.supervisor(answer(state("kvd", pid=4711, version="2.0", outcome="committed")))
        self.supervisor(never, name="hung")
        self.supervisor(never, name="hung2")
        self.supervisor(answer(b"\0" * 50), name="odd")
        self.supervisor(answer(), name="closes")
        self.supervisor(answer(), name="crashed").die()
        self.supervisor(answer(state("web", "starting")), name="web")
        begin = time.monotonic()
        code, out, err = self.ctl("list")
        self.assertLess(time.monotonic() - begin, 20)  # 2 s for all together
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out.splitlines(), [
            "SERVICE  STATE              PID   VERSION  LAST",
            "closes   connection lost    -     -        -",
            "crashed  no supervisor      -     -        -",
            "hung     no answer          -     -        -",
            "hung2    no answer          -     -        -",
            "kvd      idle               4711  2.0      committed",
            "odd      not this protocol  -     -        -",
            "web      starting           -     -        -"])
        code, lines = self.json("list")
        self.assertEqual((code, len(lines)), (0, 1))
        self.assertEqual([(x["service"], x["state"], x["pid"]) for x in lines[0]],
                         [("closes", "connection lost", None), ("crashed", "no supervisor", None),
                          ("hung", "no answer", None), ("hung2", "no answer", None),
                          ("kvd", "idle", 4711), ("odd", "not this protocol", None),
                          ("web", "starting", None)])
        self.assertEqual(len({tuple(x) for x in lines[0]}), 1)  # one shape

    def test_nothing(self):
        self.assertEqual(self.ctl("list"), (0, "SERVICE  STATE  PID  VERSION  LAST\n", ""))
        self.assertEqual(self.json("list"), (0, [[]]))


class Patience(Case):
    """What waits for something that does not come: all at once, since each takes its time."""

    def test_limits(self):
        quiet = threading.Event()
        self.addCleanup(quiet.set)

        def never(_connection, _kind, _fields):
            quiet.wait(2 * harness.PATIENCE)

        def silent_but_alive(connection, kind, _fields):
            if kind == STATUS:
                asked.set()
                connection.send(state("alive"))
                return
            connection.send(event("warm", 5))
            asked.wait(harness.PATIENCE)
            connection.send(result(0, "committed", "yes"))

        def gone(connection, _kind, _fields):
            connection.send(event("drain", 5))
            dead.die()

        def copied(connection, kind, _fields):
            """Somebody else has a copy of its end of the connection, which does not end therefore."""
            held.die()
            never(connection, kind, _fields)
        asked = threading.Event()
        self.supervisor(never, name="hung")
        self.supervisor(silent_but_alive, name="alive")
        dead = self.supervisor(gone, name="dead")
        held = self.supervisor(copied, name="held")
        full = self.supervisor(never, name="full", listen=False)
        full.listener = socket.socket(socket.AF_UNIX)
        full.listener.bind(full.path)
        full.listener.listen(0)
        waiting = socket.socket(socket.AF_UNIX)
        waiting.connect(full.path)  # the one place in its queue
        self.addCleanup(waiting.close)
        running = {args: self.start(*args) for args in (
            ("status", "hung"), ("upgrade", "hung"), ("upgrade", "alive"), ("upgrade", "dead"),
            ("upgrade", "held"), ("status", "full"), ("upgrade", "full"))}
        ends = {args: (*p.communicate(timeout=2 * harness.PATIENCE), p.returncode)
                for args, p in running.items()}
        for args, code, text in (
                (("status", "hung"), 3, "the supervisor of hung does not answer (at "),
                (("status", "full"), 3, "the supervisor of full does not answer (at "),
                (("upgrade", "full"), 3, "the supervisor of full does not answer (at "),
                (("upgrade", "hung"), 6, "unknown: the supervisor has not answered for 20 s; it may "
                 "be stopped or hang; the handoff goes on when it does"),
                (("upgrade", "dead"), 6, "unknown: the supervisor went away and did not come back "
                 "within 15 s; start it again"),
                (("upgrade", "held"), 6, "unknown: nobody is at %s any more (Connection refused), and the "
                 "connection to the supervisor is silent; start it again: it finishes the handoff" % held.path),
                (("upgrade", "alive"), 0, "")):
            with self.subTest(args=args):
                self.assertEqual(ends[args][2], code, ends[args])
                self.assertIn(text, ends[args][1])
                self.assertEqual(len(ends[args][1].splitlines()),
                                 {0: 0, 3: 1, 6: 1}[code] + (args == ("upgrade", "dead")))


class Wait(Case):
    """--wait: somebody else may have waited for the same end of a handoff, and be the quicker one."""

    def busy(self, times):
        """A supervisor that would begin an upgrade, and is then asked for another one so often."""
        left = [times]

        def handle(connection, kind, _fields):
            if kind == STATUS:
                connection.send(state("kvd"))
                return
            left[0] -= 1
            connection.send(result(4, "refused", "another handoff is under way") if left[0] >= 0 else
                            result(0, "committed", "yes"))
        return self.supervisor(handle)

    def test_another_one_is_quicker(self):
        s = self.busy(2)
        code, out, err = self.ctl("upgrade", "kvd", "--wait", "10min")
        self.assertEqual((code, err), (0, ""))
        self.assertIn("committed: yes", out)
        self.assertEqual([kind for kind, _ in s.requests], [STATUS, UPGRADE] * 3)

    def test_the_time_is_over(self):
        self.busy(10 ** 6)
        for args in ((), ("--wait", "10ms")):
            code, _out, err = self.ctl("upgrade", "kvd", *args)
            self.assertEqual((code, err.splitlines()[-1]), (4, "handoffctl: refused: another handoff is under way"))


def no_trace():
    """Each a step away from a traceparent."""
    version, trace, parent, flags = good = harness.TRACE_PARENT.split("-")
    parts = [("ff", trace, parent, flags), (version, "0" * 32, parent, flags), (version, trace, "0" * 16, flags),
             (version, trace.upper(), parent, flags), (version, trace[:31], parent, flags),
             (version, trace, parent + "0", flags), (version, trace, parent, "0g"), (*good, "more"),
             ("01", trace, parent, flags + "0"), (version, trace, parent), (trace, version, parent, flags)]
    return ["garbage", "-", " " + harness.TRACE_PARENT, harness.TRACE_PARENT.replace("-", "_"),
            *map("-".join, parts)]


NO_TRACE = no_trace()


class Usage(Case):
    WRONG = {
        (): "usage: handoffctl [--json] COMMAND [NAME] [OPTION]...\nTry `handoffctl --help`.",
        ("upgrad",): "there is no command 'upgrad'; did you mean upgrade?",
        ("frobnicate",): "there is no command 'frobnicate'; handoffctl --help shows them all",
        ("--reason", "x"): "which command? handoffctl --help shows them all",
        ("upgrade", "--bniary", "x"): "there is no option --bniary; did you mean --binary?",
        ("upgrade", "--bin", "x"): "there is no option --bin; handoffctl --help shows them all",
        ("upgrade", "-x"): "there is no option -x; handoffctl --help shows them all",
        ("upgrade", "--deadline"): "--deadline needs a value: --deadline DURATION",
        ("upgrade", "--deadline", "5"): None, ("upgrade", "--deadline", "-1s"): None,
        ("upgrade", "--deadline", "1.5s"): None, ("upgrade", "--deadline", "25h"): None,
        ("upgrade", "--deadline", "9ms"): None, ("upgrade", "--deadline", "5 s"): None,
        ("upgrade", "--drain-grace", "0"): "--drain-grace 0: not a duration that it takes; write a "
        "number with ms, s, min or h, from 1ms to 24h, as in 500ms or 10s",
        ("upgrade", "--deadline", "1s", "--drain-grace", "2s"):
        "--drain-grace is longer than --deadline; it is a part of it",
        ("upgrade", "--reason", "a", "--reason", "b"):
        "--reason is there twice; one of them must go",
        ("upgrade", "--reason", ""): "--reason: empty; leave it out instead",
        ("upgrade", "--reason", "x" * 1025): "--reason: 1025 bytes; at most 1024 go over the wire",
        ("upgrade", "--tenant", b"\xff"): "--tenant: not UTF-8; the protocol takes no other text",
        ("status", "--deadline", "3s"):
        "status has no option --deadline; see handoffctl status --help",
        **{("upgrade", "--trace-parent", x): "--trace-parent %.60s: write a W3C traceparent in lower case, "
           "00-TRACE-PARENT-FLAGS of 32, 16 and 2 hexadecimal digits, neither id all zeros" % x
           for x in NO_TRACE},
        ("upgrade", "--json=yes"): "--json takes no value",
        ("upgrade", "a", "b"): "'b' is one word too many after upgrade a; one service at a time",
        ("explain", "kvd", "f"): "'f' is no ID; write the one that handoffctl history shows, or its beginning, "
        "eight characters at least",
        ("explain", "kvd", ""): "'' is no ID; write the one that handoffctl history shows, or its beginning, "
        "eight characters at least",
        ("explain", "kvd", "4df3c158", "b"): "'b' is one word too many after explain kvd; one service at a time",
        ("list", "kvd"): "list takes no NAME ('kvd')",
        ("status", "../x"): "'../x' is no service's name; use letters, digits, _ . @ -, at most "
        "64, a letter, digit or _ first",
        ("status", "-S", "/x", "kvd"): "-S names the service by its socket; leave 'kvd' out",
        ("upgrade", "--wait", "3s"): "--wait needs to know for whom: handoffctl upgrade NAME",
        ("upgrade", "--binary", "no/such"): "--binary no/such: No such file or directory; give the "
        "path of an executable file",
        ("plan", "--binary", "."): "--binary .: Is a directory; give the path of an executable file",
    }

    def test_mistakes(self):
        for args, text in self.WRONG.items():
            with self.subTest(args=args):
                if text is None:
                    text = ("--deadline %s: not a duration that it takes; write a number with ms, s, "
                            "min or h, from 10ms to 24h, as in 500ms or 10s" % args[-1])
                prefix = "handoffctl: " if args else ""
                self.assertEqual(self.ctl(*args), (2, "", "%s%s\n" % (prefix, text)))
                if args:
                    code, lines = self.json(*args) if b"\xff" not in args else (2, None)
                    if lines is not None:
                        self.assertEqual((code, lines), (2, [
                            {"event": "error", "code": 2, "message": text}]))

    def test_another_format(self):
        """What prints one has no --json, says so, and offers it to no shell."""
        for command, prints in (("metrics",), "Prometheus"), (("completion", "bash"), "a shell"):
            with self.subTest(command=command):
                code, lines = self.json(*command)
                self.assertEqual((code, lines), (2, [{
                    "event": "error", "code": 2,
                    "message": "%s has no option --json: it prints what %s reads" % (command[0], prints)}]))
                self.assertNotIn("--json", self.ctl(command[0], "--help")[1])

    def test_bytes_that_are_no_text(self):
        p = subprocess.run([harness.program("handoffctl"), "--json", b"x\xff\x1b"], env=self.env,
                           capture_output=True, check=False)
        self.assertEqual(json.loads(p.stdout.decode())["message"],
                         "there is no command 'x?\x1b'; handoffctl --help shows them all")

    def test_help(self):
        code, out, err = self.ctl("--help")
        self.assertEqual((code, err), (0, ""))
        commands = re.findall(r"^    ([a-z]+) +\S", out.split("Commands:")[1].split("\n\n")[0], re.M)
        self.assertEqual(commands[0], "upgrade")   # the rest: Manual, below
        for c in commands:
            code, one, err = self.ctl(c, "--help")
            self.assertEqual((code, err), (0, ""))
            self.assertTrue(one.startswith("usage: handoffctl " + c))
            self.assertIn("handoffctl %s" % c, one.split("Example")[1])
        for line in out.splitlines():
            self.assertLessEqual(len(line), 100)
        code, out, _err = self.ctl("--version")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"^handoffctl \d+\.\d+\.\d+\n$")


class Manual(Case):
    """handoffctl(1) says what --help says, and no more."""

    def test_manual_and_help(self):
        with open(os.path.join(harness.TOP, "man/handoffctl.1"), encoding="utf-8") as f:
            page = f.read()
        _code, general, _err = self.ctl("--help")
        commands = re.findall(r"^    ([a-z]+) +\S", general.split("Commands:")[1].split("\n\n")[0],
                              re.M)
        self.assertEqual(re.findall(r"^\.It Cm (\S+)", page, re.M), commands)
        options = set()
        for c in commands:
            _code, one, _err = self.ctl(c, "--help")
            options |= set(re.findall(r"^    (?:-., )?--(\S+)", one, re.M))
        self.assertEqual(set(re.findall(r"^\.It (?:Fl \S+ , )?Fl -(\S+)", page, re.M)), options)
        codes = re.findall(r"^    (\d)  ", general, re.M)
        exits = page.split(".Sh EXIT STATUS")[1].split(".Sh")[0]
        self.assertEqual(re.findall(r"^\.It (\d)$", exits, re.M), codes)


class Terminal(Case):
    def on_terminal(self, *args, **env):
        """Runs it with a terminal as stdout and stderr: exit code and what is written."""
        main, sub = pty.openpty()
        self.addCleanup(os.close, main)
        p = subprocess.Popen([harness.program("handoffctl"), *args], cwd=self.dir,
                             env=dict(self.env, **{"TERM": "xterm", **env}),
                             stdin=subprocess.DEVNULL, stdout=sub, stderr=sub)
        os.close(sub)
        text = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while select.select([main], [], [], harness.PATIENCE)[0]:
                more = os.read(main, 4096)
                if not more:
                    break
                text += more
                if re.search(rb"for \d\d+ ms", more):  # rewritten once at least
                    self.ticked.set()
        return p.wait(harness.PATIENCE), text.decode()

    def setUp(self):
        super().setUp()
        self.ticked = threading.Event()

        def handle(connection, _kind, _fields):
            connection.send(event("starting", 0, "pid 5"))
            self.ticked.wait(2)
            connection.send(event("drain", 250000, "two"), result(0, "committed", "yes", pause_us=5))
        self.supervisor(handle)

    def test_live(self):
        code, text = self.on_terminal("upgrade", "kvd")
        self.assertEqual(code, 0)
        self.assertIn("\033[2m     0.00 ms\033[0m  starting\033[2m  for ", text)
        self.assertIn("\r\033[K\033[2m     0.00 ms\033[0m  starting    pid 5\r\n", text)
        self.assertIn("\r\033[K\033[2m      250 ms\033[0m  drain       two\r\n", text)
        self.assertTrue(text.endswith("\033[32mcommitted\033[0m: yes\r\n  pause 0.01 ms\r\n"), text)

    def test_no_color(self):
        _code, text = self.on_terminal("upgrade", "kvd", NO_COLOR="1")
        self.assertEqual(re.findall(r"\033\[[0-9;]*m", text), [])
        self.assertIn("\r\033[K     0.00 ms  starting    pid 5\r\n", text)

    def test_dumb(self):
        _code, text = self.on_terminal("upgrade", "kvd", TERM="dumb")
        self.assertEqual(text, "     0.00 ms  starting    pid 5\r\n      250 ms  drain       two\r\n"
                         "committed: yes\r\n  pause 0.01 ms\r\n")

    def test_json(self):
        _code, text = self.on_terminal("--json", "upgrade", "kvd")
        self.assertEqual([json.loads(x)["event"] for x in text.splitlines()],
                         ["phase", "phase", "result"])


if __name__ == "__main__":
    unittest.main()
