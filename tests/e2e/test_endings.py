"""How the nearest existing systems of this kind end badly: each story with real processes, and
how it ends here. A test reads like the report of the bug that it would be."""

import contextlib
import fcntl
import os
import selectors
import signal
import socket
import subprocess
import time
import unittest

import harness
from badinput import (D_STATUS, DRAINED, HELLO_ACK, NOBODY, PREPARE, ROOT, SEAL_COMPLETE,
                      SEAL_REQUEST, SOCKETS, Case, frame, receive)
from handoffs import HandoffCase, faults
from played import PlayedCase

NEW, OLD = "kvd-v2", "kvd-v1"
# None expires where its expiry is not the story's point, on a slow machine neither.
TIMERS = {"start-timeout": "60s", "drain-grace": "10s", "deadline": "20s", "commit-timeout": "10s",
          "exit-timeout": "10s", "self-fence": "3s", "presumed-dead": "4s", "stop-timeout": "10s"}


class Story(HandoffCase, Case):
    """A kvd under load, and an upgrade in which something goes wrong."""

    def kvd(self, *names, options=None, **kwargs):
        return super().kvd(*names, options=dict(TIMERS, **(options or {})), **kwargs)

    def at(self, s, point, count=1):
        """Until kvd has come to a fault's point for the nth time."""
        harness.wait_until(lambda: s.log().count(" at %s\n" % point) >= count, "kvd is at " + point)

    def stopped(self, s):
        """The daemon that has stopped itself at a fault's point: its line comes before that."""
        return harness.wait_until(lambda: [p.pid for p in self.daemons(s) if p.state == "T"],
                                  "a daemon has stopped itself")[0]

    def begun(self, s, binary, *names):
        self.use(s, binary, *names)
        return s.start_upgrade()

    def ends(self, u, s, code, outcome, version):
        u.wait()
        self.assert_outcome(u, code, outcome, s.log())
        self.assert_serves(s, version)

    def assert_woken_upgrade(self, s, binary):
        """A clean one, whose incumbent stops itself once more."""
        u = self.begun(s, binary)
        os.kill(self.stopped(s), signal.SIGCONT)
        self.ends(u, s, 0, "committed", "2.0")

    def killed(self, pid):
        os.kill(pid, signal.SIGKILL)
        harness.wait_until(lambda: not harness.is_alive(pid), "it is dead")


class Supervisor(Story):
    def test_killed_after_begin_while_the_successor_takes_long_to_open(self):
        """Elsewhere: the successor goes on opening, with the lock, and nobody decides. Here it
        ends with its supervisor, and the incumbent has the lock back and serves."""
        s = self.kvd(options={"deadline": "60s"})
        load = s.load()
        u = self.begun(s, NEW, "open:delay=3000")
        self.at(s, "open")
        s.kill_supervisor()
        load.wait_ok(200)  # nobody but the daemons is there to bring that about
        self.assertEqual(self.version(s), "1.0")
        s.start()
        self.ends(u, s, 1, "aborted", "1.0")
        self.assert_clean_upgrade(s, NEW)
        self.assert_nothing_failed(load)

    def test_restarted_while_the_incumbent_runs(self):
        """Elsewhere: the new one finds the lock taken, or starts a second daemon."""
        s = self.kvd()
        load = s.load()
        pid = s.daemon_pid()
        for _ in range(3):
            s.kill_supervisor()
            s.start()
            self.assertEqual(s.daemon_pid(), pid)
        self.assert_clean_upgrade(s, NEW)
        self.assert_nothing_failed(load)

    def test_a_second_one_for_the_same_service(self):
        """Elsewhere: it unlinks the sockets of the first. Here it says who is there, and exits."""
        s = self.kvd()
        load = s.load()
        pid = s.daemon_pid()
        p = subprocess.run([harness.program("handoffd"), "-c", s.conf], env=s.env, cwd=s.dir,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=harness.PATIENCE,
                           check=False)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("supervisor", p.stdout)
        self.assertEqual(s.daemon_pid(), pid)
        self.assert_clean_upgrade(s, NEW)
        self.assert_nothing_failed(load)

    def test_stopped_in_the_middle_of_the_seal(self):
        """Elsewhere: the incumbent stays sealed for as long as the supervisor is away. Here it
        comes back by itself, and the supervisor, when it goes on, tells what is true."""
        s = self.kvd("seal:delay=300")
        load = s.load()
        u = self.begun(s, NEW)
        self.at(s, "seal")
        s.supervisor.send_signal(signal.SIGSTOP)
        try:
            load.wait_ok(200)
        finally:
            s.supervisor.send_signal(signal.SIGCONT)
        u.wait()
        # if it was stopped when all was done but the telling, the successor may serve
        self.assertIn(u.result["outcome"], ("aborted", "committed", "rolled back"), s.log())
        self.assert_serves(s, "2.0" if u.result["outcome"] == "committed" else "1.0")
        self.upgrade(s, OLD)
        self.assert_clean_upgrade(s, NEW)
        self.assert_nothing_failed(load)


class Lock(Story):
    # who is away for as long as this takes is waited for
    LONG = {"drain-grace": "60s", "deadline": "2min", "self-fence": "60s", "presumed-dead": "61s"}
    THIEF = ("import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX | int(sys.argv[2])); "
             "print('has it', flush=True); sys.stdin.read()")

    def thief(self, s, flags=0, user=()):
        """Somebody who flocks the lock file, and keeps it until its input ends."""
        path = os.path.join(s.data_dir, ".handoff.lock")
        p = subprocess.Popen([*user, "/usr/bin/python3", "-IS", "-c", self.THIEF, path, str(flags)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.wait)
        self.addCleanup(p.stdin.close)
        self.addCleanup(p.kill)
        return p

    def test_a_foreign_user_wants_the_lock_at_the_seal(self):
        """Elsewhere the file is there for everybody to open, and whoever flocks it at the seal
        has stolen the service. Here nobody else can open it."""
        if not ROOT:
            self.skipTest("needs root, to be another user")
        s = self.kvd("seal:stop", options=self.LONG)
        for d in (s.dir, s.data_dir):
            os.chmod(d, 0o755)  # as careless as can be
        load = s.load()
        u = self.begun(s, NEW)
        o = self.stopped(s)
        nobody = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        self.assertIn("PermissionError", self.thief(s, fcntl.LOCK_NB, nobody).stdout.read())
        os.kill(o, signal.SIGCONT)
        self.ends(u, s, 0, "committed", "2.0")
        self.assert_nothing_failed(load)

    def test_somebody_with_rights_takes_the_lock_at_the_seal(self):
        """A backup, say, that is root. Elsewhere two of them write, or nobody ever serves again.
        Here the successor gives up, and the incumbent waits until it has the lock back."""
        # no connection moves: its successor may sleep while it seals
        s = self.kvd("seal:stop", options=dict(self.LONG, **{"connection-state": "0"}))
        load = s.load()
        u = self.begun(s, NEW)
        o = self.stopped(s)
        n = s.wait_status(lambda x: x["successor_pid"], "a successor")["successor_pid"]
        os.kill(n, signal.SIGSTOP)   # the thief is before it
        thief = self.thief(s)
        os.kill(o, signal.SIGCONT)
        self.assertEqual(thief.stdout.readline(), "has it\n")
        os.kill(n, signal.SIGCONT)
        s.wait_state("resume")       # the successor has not got it, and the incumbent is asked
        self.assertFalse(harness.is_alive(n))
        thief.stdin.close()
        self.ends(u, s, 1, "aborted", "1.0")
        s.configure(connection_state=None)
        self.assert_woken_upgrade(s, NEW)
        self.assert_nothing_failed(load)


class Successor(Story):
    def test_dies_right_after_ready(self):
        """What it had said by then nobody can know: a probation keeps the incumbent for that."""
        s = self.kvd(options={"probation": "60s"})
        load = s.load()
        u = self.begun(s, NEW, "take:die")
        u.wait()
        # what it had not read yet it has not answered; a lost channel does not tell
        self.assertIn((u.code, u.result["outcome"]), [(1, "aborted"), (1, "rolled back")], s.log())
        self.assert_serves(s, "1.0")
        s.configure(probation="0")
        self.assert_clean_upgrade(s, NEW)
        self.assert_nothing_failed(load)

    def test_dies_right_after_commit(self):
        """Elsewhere: the incumbent has gone by then. Here it goes when it is told to, and with a
        probation that is later."""
        s = self.kvd(options={"probation": "60s"})
        load = s.load()
        u = self.begun(s, NEW, "commit:die")
        self.ends(u, s, 1, "rolled back", "1.0")
        s.configure(probation="0")
        self.assert_clean_upgrade(s, NEW)
        self.assert_nothing_failed(load)

    def test_reports_that_it_is_unhealthy(self):
        s = self.kvd()
        load = s.load()
        u = self.begun(s, NEW, "ready:unhealthy")
        self.ends(u, s, 1, "aborted", "1.0")
        self.assertIn("--fault=ready:unhealthy", u.result["message"])
        self.assert_clean_upgrade(s, NEW)
        self.assert_nothing_failed(load)

    def test_says_nothing_after_hello_ack(self):
        """Elsewhere: the upgrade hangs, and with it every later one. Here the incumbent does not
        even know of it, and the attempt ends with its time."""
        s = self.kvd(options={"start-timeout": "5s"})
        load = s.load()
        u = s.start_upgrade("--binary", self.puppets(s))
        p = self.puppet()
        p.send(p.hello(s.data_dir, role=1))
        p.receive(HELLO_ACK)
        self.ends(u, s, 1, "aborted", "1.0")
        s.configure(start_timeout="60s")
        self.assert_clean_upgrade(s, NEW)
        self.assert_nothing_failed(load)

    def test_clears_o_nonblock_of_a_listener(self):
        """The flag belongs to the open file that all share. Elsewhere: the incumbent sleeps in
        its next accept(2), and its loop with it."""
        s = self.kvd(options={"start-timeout": "5min"})
        client = self.second(s)
        u = s.start_upgrade("--binary", self.puppets(s))
        p = self.puppet()
        p.send(p.hello(s.data_dir, role=1))
        p.receive(HELLO_ACK)
        kind, _, fds = receive(p.channel)
        self.assertEqual((kind, len(fds)), (SOCKETS, 1))
        fcntl.fcntl(fds[0], fcntl.F_SETFL, fcntl.fcntl(fds[0], fcntl.F_GETFL) & ~os.O_NONBLOCK)
        for _ in range(5):
            self.second(s)   # accepted ...
            client.use()     # ... and the loop goes on
        os.kill(p.pid, signal.SIGKILL)
        self.ends(u, s, 1, "aborted", "1.0")
        self.assertTrue(fcntl.fcntl(fds[0], fcntl.F_GETFL) & os.O_NONBLOCK)
        os.close(fds[0])
        client.use()
        self.assert_clean_upgrade(s, NEW)


class Incumbent(Story):
    """It was killed while it served: connections to it break, what it acknowledged is there."""

    def test_killed_in_drain_in_seal_and_idle(self):
        s = self.kvd("drain:die")
        with s.client() as c:
            c.set("a", "1")
        self.ends(self.begun(s, NEW, "seal:die"), s, 0, "committed", "2.0")
        self.ends(self.begun(s, OLD), s, 0, "committed", "1.0")
        pid = s.daemon_pid()
        self.killed(pid)
        s.wait_status(lambda x: x["state"] == "idle" and x["pid"] not in (None, pid), "it is back")
        with s.client() as c:
            self.assertEqual(c.get("a"), b"1")
        self.assert_clean_upgrade(s, NEW)

    def test_its_drain_hook_fails(self):
        """It ends in it: the successor serves. It says so, as it can only with the seal: it serves on."""
        s = self.kvd("drain:exit1")
        self.ends(self.begun(s, NEW, "drain:fail"), s, 0, "committed", "2.0")
        load = s.load()
        u = self.begun(s, OLD)
        self.ends(u, s, 1, "aborted", "2.0")
        self.assertIn("the incumbent could not seal", u.result["message"])
        self.assertIn("--fault=drain:fail", u.result["message"])
        self.assert_nothing_failed(load)

    def test_it_cannot_seal(self):
        s = self.kvd("seal:fail")
        load = s.load()
        u = self.begun(s, NEW)
        self.ends(u, s, 1, "aborted", "1.0")
        self.assertIn("--fault=seal:fail", u.result["message"])
        self.assert_nothing_failed(load)


class Peer(PlayedCase):
    """A real kvd below a supervisor that does not keep the rules."""

    def test_prepare_and_seal_request_and_then_nothing(self):
        """Elsewhere: the incumbent stays sealed for ever, with a peer that is there."""
        p = self.played().serve(fence_ms=3000)
        p.seal()
        p.receive(D_STATUS)  # by itself
        self.assertTrue(p.answers())
        self.assertFalse(p.lock_is_free())
        # in one breath: a request that is read before Drained was said counts for nothing
        p.drain()
        p.send(SEAL_REQUEST)
        p.receive(D_STATUS, besides=(DRAINED, SEAL_COMPLETE))
        self.assertTrue(p.answers())

    def test_a_frame_trickled_a_byte_at_a_time(self):
        """Elsewhere: a read that waits for the rest. Here clients are served between the bytes,
        and the frame counts when it is whole."""
        p = self.played().serve()
        p.id = b"\7" * 16
        data = frame(PREPARE, {0: p.id, 1: 1, 2: 60000, 3: 60000})
        for i in range(len(data) - 1):
            p.channel.sendall(data[i:i + 1])
            self.assertTrue(p.answers())
        p.channel.sendall(data[-1:])
        p.receive(DRAINED)

    def test_half_a_frame_and_then_its_end(self):
        p = self.played().serve()
        p.channel.sendall(frame(PREPARE, {0: b"\7" * 16, 1: 1, 2: 60000, 3: 60000})[:-1])
        p.lost()
        p.found()
        self.assertTrue(p.answers())

    def test_reads_nothing_any_more(self):
        """Its half of the channel only: what is said to it meets EPIPE, and no end is ever read.
        Elsewhere: waited for, for ever. Here the daemon looks for another channel."""
        p = self.played().serve()
        p.open_door()
        p.channel.shutdown(socket.SHUT_RD)
        p.id = b"\7" * 16
        p.resume()   # is answered
        deaf = p.channel
        p.found()
        deaf.close()
        self.assertTrue(p.answers())

    def test_silent_after_hello_ack(self):
        """A successor that is left alone gives up, and had neither the lock nor a client."""
        p = self.played(role="successor")
        p.greet(fence_ms=1000)
        p.process.wait(harness.PATIENCE)
        self.assertIn("the supervisor was silent", p.log())


class Slow(Story):
    """With the default limits of time: who needs long is waited for where nobody waits for it,
    and has ten seconds where clients do. All side by side."""

    # what: faults of the successor
    STORIES = {"5 s before Hello": ["warmup:delay=5000"],
               "4 s of opening": ["open:delay=4000"],
               "8 s of opening": ["open:delay=8000"],
               # longer than every limit but start-timeout; the last, as it is waited for
               "60 s before Hello": ["warmup:delay=60000"]}

    def test_all_of_them_commit(self):
        running = []
        for what, names in self.STORIES.items():
            s = self.service("kvd-v1")
            load = s.load("--timeout", "60")   # two seconds more than the longest pause is little for four at once
            running.append((what, s, load, self.begun(s, NEW, *names)))
        for what, s, load, u in running:
            with self.subTest(what):
                self.ends(u, s, 0, "committed", "2.0")
                self.assert_nothing_failed(load)

    # where somebody needs the answer: who stops, where, and whose silence it is then
    WAITED_FOR = {"drain": ("kvd-v1", "drain:stop"), "seal": ("kvd-v1", "seal:stop"),
                  "ready": (NEW, "open:stop"), "take": (NEW, "take:stop")}

    def test_eleven_seconds_without_a_heartbeat_where_it_is_needed(self):
        """Silence ends the attempt after presumed-dead, no other limit does, and nobody serves
        but the incumbent. Who was silent may go on then: it is too late for it."""
        limits = {"drain-grace": "2min", "deadline": "3min", "commit-timeout": "3min"}
        running = []
        for phase, (whose, name) in self.WAITED_FOR.items():
            s = self.service("kvd-v1", options=limits,
                             arguments=faults(name) if whose != NEW else [])
            running.append((phase, s, whose, self.begun(s, NEW, *[name] if whose == NEW else [])))
        for phase, s, whose, u in running:
            with self.subTest(phase):
                if whose != NEW:   # else it is ended
                    s.wait_state("resume")
                    os.kill(self.stopped(s), signal.SIGCONT)
                self.ends(u, s, 1, "aborted", "1.0")
                self.assertIn("silent for presumed-dead", u.result["message"])
                again = self.assert_clean_upgrade if whose == NEW else self.assert_woken_upgrade
                again(s, NEW)

    def test_eleven_seconds_without_a_heartbeat_where_it_is_not(self):
        """A daemon that serves, one in its warm-up, one that is sealed, one in its probation, a
        supervisor that has nothing to do: each is stopped for eleven seconds. Nobody takes it for
        dead, since nobody needs an answer."""
        idle, warm, sealed, above = [self.service("kvd-v1") for _ in range(4)]
        proved = self.service("kvd-v1", options={"probation": "1h"})
        pids = {s: s.daemon_pid() for s in (idle, sealed, above)}
        w = self.begun(warm, NEW, "warmup:stop")
        p = self.begun(proved, NEW)
        p.wait_phase("probation")
        u = self.begun(sealed, NEW, "open:delay=8000")
        self.at(sealed, "open")   # the lock was given up
        away = [pids[idle], pids[sealed], above.supervisor.pid,
                proved.status()["successor_pid"]]
        for pid in away:
            os.kill(pid, signal.SIGSTOP)
        away.append(self.stopped(warm))
        with self.second_of(warm) as client, self.second_of(above) as other:
            until = time.monotonic() + 11
            while time.monotonic() < until:
                client.use()
                other.use()
                time.sleep(0.2)
        self.assertEqual(proved.status()["state"], "probation")
        for pid in away:
            with contextlib.suppress(ProcessLookupError):  # a sealed one that was told to exit
                os.kill(pid, signal.SIGCONT)
        self.ends(w, warm, 0, "committed", "2.0")
        self.ends(u, sealed, 0, "committed", "2.0")
        for s in (idle, above):
            self.assertEqual(s.daemon_pid(), pids[s])
            self.assert_clean_upgrade(s, NEW)
        self.assertEqual(proved.ctl("stop", "kvd").returncode, 0)   # waits for no proof
        proved.ended()
        p.wait()
        self.assert_outcome(p, 0, "committed", proved.log())

    def second_of(self, s):
        return contextlib.closing(self.second(s))


class Queue(Story):
    CLIENTS = 200

    def test_hundreds_of_connects_in_a_long_seal_with_a_small_backlog(self):
        """Elsewhere: reset, or refused. Here who finds no place in the queue is kept waiting by
        TCP, which asks again, and every one of them is served in the end."""
        s = self.kvd("seal:delay=2000", text=self.small_backlog,
                     options={"deadline": "60s"})
        u = self.begun(s, NEW)
        self.at(s, "seal")
        waiting = selectors.DefaultSelector()
        for _ in range(self.CLIENTS):
            c = socket.socket()
            self.addCleanup(c.close)
            c.setblocking(False)
            c.connect_ex(("127.0.0.1", s.port))
            waiting.register(c, selectors.EVENT_WRITE)
            time.sleep(0.01)  # they come one after another, before and after the seal's end
        self.assertEqual(self.served(waiting), self.CLIENTS)
        self.ends(u, s, 0, "committed", "2.0")

    @staticmethod
    def small_backlog(s):
        return s._configuration().replace("listen resp {", "listen resp { backlog = 16 ")

    def served(self, waiting):
        """How many got their answer: each asks as soon as it is connected."""
        n, until = 0, time.monotonic() + 2 * harness.PATIENCE
        while waiting.get_map() and time.monotonic() < until:
            for key, events in waiting.select(1):
                c = key.fileobj
                if events & selectors.EVENT_WRITE:
                    self.assertEqual(c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
                    c.send(b"PING\r\n")
                    waiting.modify(c, selectors.EVENT_READ)
                else:
                    self.assertEqual(c.recv(100), b"+PONG\r\n")
                    n += 1
                    waiting.unregister(c)
                    c.close()
        return n


if __name__ == "__main__":
    unittest.main()
