"""What is asked for, by a signal or an operator, while that which decides lies unread in a socket."""

import contextlib
import os
import signal
import socket
import unittest

import harness
from badinput import BEGIN, COMMIT, D_STATUS, READY, frame, receive
from test_rules import RuleCase

STATUS_REQUEST, RESTART, STOP, RESULT = 66, 68, 69, 81
STARTED = frame(READY, {1: [], 2: True, 3: [], 4: bytes(32)})
SERVES = frame(D_STATUS, {1: True})


class AskedCase(RuleCase):
    def starting(self, **timers):
        """A service whose daemon has died, and the puppet that is being started."""
        s, first = self.puppet_o(**timers)
        first.exit(0)
        return s, self.puppet()

    def told_to_serve(self):
        """... which has been told to serve, and has not said yet that it does."""
        s, p = self.starting()
        p.warm(s.data_dir)
        p.receive(BEGIN)
        p.send(STARTED)
        p.receive(COMMIT)
        return s, p

    def operator(self, s):
        """A connection to control.sock that has been let in."""
        c = self.control(s)
        c.sendall(frame(STATUS_REQUEST, {}))
        receive(c)
        return c

    @contextlib.contextmanager
    def deaf(self, s):
        """What comes meanwhile handoffd finds all at once, the first thing first."""
        s.supervisor.send_signal(signal.SIGSTOP)
        harness.wait_until(lambda: harness.Process(s.supervisor.pid).state == "T", "it is stopped")
        yield
        s.supervisor.send_signal(signal.SIGCONT)

    @staticmethod
    def result(c):
        """Exit code, outcome, pid."""
        while True:
            kind, fields, _ = receive(c)
            if kind == RESULT:
                return fields[1], fields[2], fields.get(7)


class Stop(AskedCase):
    """Who has the lock and comes to register is a daemon of this service, also for a stop."""

    def ended(self, s, other, *signals):
        s.ended()
        for name in signals:
            self.assertRegex(s.log(), r"\(pid %d\) is sent %s" % (other.pid, name))
        s.assert_nothing_left()

    def test_who_was_found_is_ended(self):
        s, _ = self.starting()
        other = self.unknown(s)
        with self.deaf(s):
            other.connect()
            s.supervisor.terminate()
        self.ended(s, other, "SIGTERM")
        self.took(s, "COLD found", "stop")

    def test_who_comes_behind_it_is_ended(self):
        s, _ = self.starting()
        other, operator = self.unknown(s), self.operator(s)
        with self.deaf(s):
            operator.sendall(frame(STOP, {}))
            other.connect()
        self.ended(s, other, "SIGTERM")
        self.assertEqual(self.result(operator)[:2], (0, "stopped"))

    def test_who_comes_where_nothing_can_be_started_is_ended(self):
        s = self.kvd()
        os.rename(self.puppets(s), s.binary)
        with socket.create_server(("127.0.0.1", s.port)):
            s.launch()
            s.wait_state("cold")
            other, operator = self.unknown(s), self.operator(s)
            with self.deaf(s):
                operator.sendall(frame(STOP, {}))
                other.connect()
            self.ended(s, other, "SIGTERM")

    def test_who_ignores_it_is_killed(self):
        s, _ = self.starting(stop_timeout="1s")
        other = self.unknown(s, "sh", "-c", "trap '' TERM; exec \"$0\"")
        with self.deaf(s):
            other.connect()
            s.supervisor.terminate()
        self.ended(s, other, "SIGTERM", "SIGKILL")

    def test_who_does_not_come_is_left_alone_and_named(self):
        s, _ = self.starting()
        other = self.unknown(s)
        self.assertEqual(s.stop(), 0)
        self.assertTrue(harness.is_alive(other.pid))
        self.assertIn("pid %d has the lock on the data and goes on" % other.pid, s.log())
        other.exit(0)

    def test_a_start_that_hangs_and_may_serve_is_not_waited_for(self):
        s, p = self.told_to_serve()
        self.assertEqual(s.stop(), 0)
        self.ended(s, p, "SIGTERM")


class Restart(AskedCase):
    """Who asks is told of the life that was asked for, not of the one before."""

    def restarted(self, s, said):
        """It waits for the next life; that one's pid."""
        after = self.puppet()
        after.serve(s.data_dir)
        self.assertEqual(said(), (0, "restarted", after.pid), s.log())
        s.wait_state("idle")
        self.assertEqual(s.daemon_pid(), after.pid)

    def test_a_start_that_may_serve_is_ended_for_it(self):
        s, p = self.told_to_serve()
        operator = self.operator(s)
        operator.sendall(frame(RESTART, {}))
        harness.wait_until(lambda: "asks for a restart of the daemon" in s.log(), "it is asked for")
        p.send(SERVES)
        self.restarted(s, lambda: self.result(operator))
        self.took(s, "restart asked for")

    def test_a_start_that_has_just_come_to_serve_is_restarted(self):
        s, p = self.told_to_serve()
        operator = self.operator(s)
        with self.deaf(s):
            operator.sendall(frame(RESTART, {}))
            p.send(SERVES)
        self.restarted(s, lambda: self.result(operator))

    def test_a_start_that_says_so_too_early(self):
        """It is ended, and what it has said since counts for nothing."""
        s, p = self.starting()
        p.warm(s.data_dir)
        p.receive(BEGIN)
        operator = self.operator(s)
        with self.deaf(s):
            operator.sendall(frame(RESTART, {}))
            p.send(STARTED, SERVES)
        self.restarted(s, lambda: self.result(operator))

    def test_a_stop_comes_first(self):
        """The start before was ended on request: that hinders nothing. Nothing is started any more."""
        s, _ = self.starting()
        operator = self.operator(s)
        operator.sendall(frame(RESTART, {}))
        self.puppet()
        self.assertIsNone(s.status()["warning"])
        s.supervisor.terminate()
        self.assertEqual(self.result(operator)[:2], (5, "stopped"))
        s.ended()


if __name__ == "__main__":
    unittest.main()
