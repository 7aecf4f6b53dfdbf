"""Live connections over upgrades: whatever they are in the middle of, and whoever fails."""

import json
import os
import signal
import subprocess
import threading
import time
import unittest

import redis

import harness
from handoffs import HandoffCase, TIMERS
from moving import Crowd, Wire, command

OLD, NEW = "kvd-v1", "kvd-v2"
BIG = bytes(range(256)) * 4096 * 8  # 8 MiB: more than the kernel and kvd's limit hold
AFTER = "kept over upgrades"


class InTheMiddle(HandoffCase):
    """Nobody notices: three upgrades with the same connections."""

    def setUp(self):
        super().setUp()
        self.s = self.kvd()
        self.wires = []

    def wire(self):
        w = Wire(self.s)
        self.wires.append(w)
        self.addCleanup(w.close)
        return w

    def upgrades(self, between=lambda: None):
        for i in range(3):
            self.upgrade(self.s, (NEW, OLD)[i % 2])
            between()

    def test_idle(self):
        """The session survives: name, id, age, and the count of what it has asked."""
        w = self.wire()
        w.ask("client", "setname", "frida")
        number = w.ask("client", "id")
        self.upgrades()
        self.assertEqual(w.ask("client", "getname"), b"frida")
        self.assertEqual(w.ask("client", "id"), number)
        self.assertIn(b"name=frida", w.ask("client", "list"))
        other = self.wire()
        self.assertGreater(other.ask("client", "id"), number)

    def test_half_a_request(self):
        w, text = self.wire(), command("set", "key", AFTER)
        cuts = [1, len(text) // 2, len(text) - 1]
        w.send(text[:cuts[0]])

        def go_on():
            w.send(text[cuts[0]:cuts[1]])
            cuts.pop(0)
            cuts.append(len(text))
        self.upgrades(go_on)
        w.send(text[cuts[0]:])
        self.assertEqual(w.reply(), b"OK")
        self.assertEqual(w.ask("get", "key"), AFTER.encode())

    def test_pipeline_in_flight(self):
        """Thousands of requests of which no reply is read before the end."""
        w = self.wire()
        for _ in range(4):
            w.send(command("incr", "n") * 3000)
            self.upgrade(self.s, NEW)
        self.assertEqual([w.reply() for _ in range(12000)], list(range(1, 12001)))

    def test_unread_replies(self):
        """More replies than fit anywhere: they wait in memory, and move there."""
        w = self.wire()
        self.assertEqual(w.ask("set", "big", BIG), b"OK")
        w.send(command("get", "big") * 3 + command("incr", "n"))
        self.upgrades()
        for _ in range(3):
            self.assertTrue(w.reply() == BIG, "the value")
        self.assertEqual(w.reply(), 1)

    def test_behind_unread_replies(self):
        """What waits until the replies are out is answered, also if they go out all at once."""
        w, value = self.wire(), BIG[:6 << 20]  # the kernel holds some 4 MiB
        self.assertEqual(w.ask("set", "big", value), b"OK")
        w.send(command("get", "big") + command("ping"))
        self.use(self.s, NEW, "open:delay=300")
        u = self.s.start_upgrade()
        u.wait_phase("ready")
        self.assertTrue(w.reply() == value, "the value")
        self.assertEqual(w.reply(), b"PONG")
        u.wait()
        self.assert_outcome(u, 0, "committed")

    def test_large_request(self):
        w, text = self.wire(), command("set", "big", BIG)
        step = len(text) // 4
        w.send(text[:step])
        sent = [step]

        def go_on():
            w.send(text[sent[0]:sent[0] + step])
            sent[0] += step
        self.upgrades(go_on)
        w.send(text[sent[0]:])
        self.assertEqual(w.reply(), b"OK")
        self.assertTrue(w.ask("get", "big") == BIG, "the value")

    def test_last_words(self):
        """A connection that ends with its replies still does, and is seen to end."""
        w = self.wire()
        self.assertEqual(w.ask("set", "big", BIG), b"OK")
        w.send(command("get", "big") + command("quit"))
        self.upgrade(self.s, NEW)
        self.assertTrue(w.reply() == BIG, "the value")
        self.assertEqual(w.reply(), b"OK")
        self.assertRaises(EOFError, w.reply)

    def test_ended_while_the_old_one_has_a_copy(self):
        """In the probation both have the descriptor: the client sees the end all the same."""
        self.s.configure(probation="2s")
        w = self.wire()
        w.ask("ping")
        self.use(self.s, NEW)
        u = self.s.start_upgrade()
        u.wait_phase("probation")
        self.assertEqual(w.ask("quit"), b"OK")
        self.assertRaises(EOFError, w.reply)
        u.wait()
        self.assert_outcome(u, 0, "committed")

    def test_unix_socket_and_tcp(self):
        path = self.s.path("sock")
        self.s.listen["path"] = "unix:" + path
        self.upgrade(self.s, OLD)
        with self.s.client("path", single_connection_client=True) as c:
            c.client_setname("u")
            self.upgrades()
            self.assertEqual(c.client_getname(), "u")

    def test_under_load(self):
        crowd = Crowd(self, self.s, 20)
        for i in range(8):
            self.upgrade(self.s, (NEW, OLD)[i % 2])
            crowd.progress(1)
        self.assertEqual(crowd.end(), 0)

    def test_many(self):
        """More than any batch or window holds."""
        wires = [self.wire() for _ in range(700)]
        for i, w in enumerate(wires):
            w.send(command("incr", "n%d" % i)[:-1])
        self.upgrades()
        for w in wires:
            w.send(b"\n")
        self.assertEqual([w.reply() for w in wires], [1] * 700)
        self.assertIn("connections given away", self.s.log())

    def test_leaves_no_descriptors(self):
        wires = [self.wire() for _ in range(70)]
        self.upgrades()
        # the number of the upgrades that lie behind a daemon leaves no trace in it
        first = len(harness.descriptors(self.s.daemon_pid()))
        self.upgrades()
        pid = self.s.daemon_pid()   # which may not have heard yet that its commit is final
        harness.wait_until(lambda: len(harness.descriptors(pid)) <= first, "%d descriptors, as before" % first)
        for w in wires:
            self.assertEqual(w.ask("ping"), b"PONG")


class SomebodyFails(HandoffCase):
    """
    Counters run all the while. Where everything is taken back nobody is disconnected; where a
    process has died with what it had, some may be; and in no case is a request answered twice,
    an acknowledged one lost, a reply duplicated or out of order, or a connection silent.
    """

    def run_case(self, old=(), new=(), during=lambda u: None, **options):
        s = self.kvd(*old, options=options)
        self.s = s
        crowd = Crowd(self, s)
        crowd.progress(1)
        self.use(s, NEW, *new)
        u = s.start_upgrade()
        during(u)
        u.wait()
        return u, crowd

    def assert_blamed(self, s, role, or_timer=None):
        """History and explain name whose fault the last one was."""
        failed = json.loads(s.ctl("--json", "explain", "kvd").stdout)["failed"]
        if or_timer and failed["timer"] == or_timer:
            return
        self.assertEqual((failed["role"], failed["phase"]), (role, "seal"), "%s\n%s" % (failed, s.log()))
        self.assertIn("At fault was the %s, in the phase seal" % role, s.ctl("explain", "kvd").stdout)

    def assert_all_stay(self, u, crowd, *outcomes):
        self.assertIn(u.result["outcome"], outcomes or ["aborted"], self.s.log())
        self.assertEqual(crowd.end(), 0, self.s.log())

    def test_successor_dies(self):
        for point in ("receive", "begin", "open", "ready"):
            with self.subTest(point=point):
                self.assert_all_stay(*self.run_case(new=[point + ":die"]))

    def test_successor_hangs(self):
        for fault in ("receive:hang", "receive:stop", "open:hang"):
            with self.subTest(fault=fault):
                self.assert_all_stay(*self.run_case(new=[fault]))
                if fault == "receive:hang":   # the incumbent gives up by its own clock, or the supervisor does
                    self.assert_blamed(self.s, "successor", or_timer="deadline")

    def test_successor_lies(self):
        for fault in ("ready:unhealthy", "ready:badrev"):
            with self.subTest(fault=fault):
                self.assert_all_stay(*self.run_case(new=[fault]))

    def test_successor_dies_when_it_is_to_serve(self):
        """Once it may have touched them they are closed; before that nobody is."""
        for point in ("take", "commit"):
            with self.subTest(point=point):
                # with a probation the incumbent is there to come back
                u, crowd = self.run_case(new=[point + ":die"], probation="20s")
                lost = crowd.end()
                self.assertIn(u.result["outcome"], ("aborted", "rolled back"), self.s.log())
                if u.result["outcome"] == "aborted":
                    self.assertEqual(lost, 0, self.s.log())

    def test_successor_dies_in_the_probation(self):
        def kill(u):
            u.wait_phase("probation")
            os.kill(self.s.status()["successor_pid"], signal.SIGKILL)
        u, crowd = self.run_case(during=kill, probation="20s")
        self.assertEqual(u.result["outcome"], "rolled back", self.s.log())
        crowd.end()
        crowd = Crowd(self, self.s, first=100)   # nobody is refused afterwards
        self.assertEqual(crowd.end(), 0)

    def test_incumbent_cannot_seal(self):
        self.assert_all_stay(*self.run_case(old=["seal:fail"]))

    def test_incumbent_dies(self):
        """What it had given goes on with the successor, the rest is lost with it."""
        for point in ("give", "given", "seal"):
            with self.subTest(point=point):
                u, crowd = self.run_case(old=[point + ":die"])
                self.assertEqual(u.result["outcome"], "committed", self.s.log())
                lost = crowd.end()
                if point == "given":
                    self.assertEqual(lost, 0, self.s.log())
                elif point == "seal":
                    self.assertEqual(lost, len(crowd.all))

    def test_incumbent_hangs(self):
        for fault in ("give:stop", "given:hang"):
            with self.subTest(fault=fault):
                u, crowd = self.run_case(old=[fault])
                self.assertNotEqual(u.result["outcome"], "committed", self.s.log())
                crowd.end()
                self.assertEqual(self.version(self.s), "1.0")

    def test_incumbent_does_not_exit(self):
        self.assert_all_stay(*self.run_case(old=["exit:hang"]), "committed")

    def test_supervisor_dies(self):
        """In the seal: taken back, if it was in time. In the exit: finished. Nobody notices."""
        for old, new, phase, versions in (
                (["given:delay=300"], [], "seal", ("1.0", "2.0")),
                (["give:delay=300"], [], "seal", ("1.0", "2.0")),
                ([], ["open:delay=300"], "ready", ("1.0", "2.0")),
                (["exit:delay=500"], [], "exit", ("2.0",))):
            with self.subTest(phase=phase, old=old):
                def kill(u, phase=phase):
                    u.wait_phase(phase)
                    self.s.kill_supervisor()
                    self.s.start()
                _, crowd = self.run_case(old, new, kill)
                self.s.wait_state("idle")
                self.assertEqual(crowd.end(), 0, self.s.log())
                self.assertIn(self.version(self.s), versions)

    def test_operator_aborts(self):
        for old, new, phase in ((["given:delay=300"], [], "seal"), ([], ["open:hang"], "ready")):
            with self.subTest(phase=phase):
                def abort(u, phase=phase):
                    u.wait_phase(phase)
                    self.s.ctl("abort", self.s.name)
                # on a slow machine it comes too late
                self.assert_all_stay(*self.run_case(old, new, abort), "aborted", "committed")

    def test_some_are_not_wanted(self):
        """Every other one stays: it gets its replies, and ends when the old process does."""
        u, crowd = self.run_case(new=["receive:reject"])
        self.assertEqual(u.result["outcome"], "committed", self.s.log())
        self.assertEqual(crowd.end(), len(crowd.all) / 2, self.s.log())
        half = len(crowd.all) // 2
        self.assert_counted(half, half)
        self.assertIn("%d connections moved to the successor; %d could not, and ended with the "
                      "incumbent.\n" % (half, half), self.s.ctl("explain").stdout)
        text = self.s.ctl("metrics").stdout
        for fate in ("moved", "stayed"):
            self.assertIn('handoff_connections_total{service="kvd",fate="%s"} %d\n' % (fate, half), text)

    def assert_counted(self, moved, stayed):
        r = json.loads(self.s.ctl("--json", "explain").stdout)
        self.assertEqual((r["connections_moved"], r["connections_stayed"]), (moved, stayed), r)

    def test_too_much_state(self):
        s = self.s = self.kvd(options={"connection-state": "1"})
        small, large = Wire(s), Wire(s)
        self.addCleanup(small.close)
        self.addCleanup(large.close)
        small.ask("ping")
        large.send(command("set", "big", BIG)[:len(BIG) // 2])
        harness.wait_until(lambda: b"qbuf=%d" % (len(BIG) // 2) in small.ask("client", "list"),
                           "it has come")
        self.upgrade(s, NEW)
        self.assertEqual(small.ask("ping"), b"PONG")
        self.assertRaises((EOFError, ConnectionError), large.reply)
        self.assert_counted(1, 1)

    def test_no_state_at_all(self):
        """None moves then, so the drain answers what has come, as for daemons that move none."""
        s = self.s = self.kvd(options={"connection-state": "0", "drain-grace": "60s",
                                       "deadline": "90s"})
        w = Wire(s)
        self.addCleanup(w.close)
        self.assertEqual(w.ask("set", "big", BIG), b"OK")
        w.send(command("get", "big") + command("ping"))
        self.use(s, NEW)
        u = s.start_upgrade()
        u.wait_phase("drain")
        time.sleep(0.3)   # a drain that does not wait is over by then
        self.assertTrue(w.reply() == BIG, "the value")
        self.assertEqual(w.reply(), b"PONG")
        u.wait()
        self.assert_outcome(u, 0, "committed")
        self.assertRaises((EOFError, ConnectionError), w.reply)

    def test_none_moves(self):
        """How many there were when the incumbent had drained ended with it, if it was committed."""
        s = self.s = self.kvd(options={"connection-state": "0"})
        wires = [Wire(s) for _ in range(7)]
        for w in wires:
            self.addCleanup(w.close)
            self.assertEqual(w.ask("ping"), b"PONG")
        self.use(s, NEW, "ready:unhealthy")
        u = s.upgrade()
        self.assert_outcome(u, 1, "aborted")
        self.assertEqual((u.result["connections_moved"], u.result["connections_stayed"]), (None, None))
        self.assert_counted(None, None)
        self.use(s, NEW)
        u = s.upgrade()
        self.assert_outcome(u, 0, "committed")
        for w in wires:
            self.assertRaises((EOFError, ConnectionError), w.reply)
        self.assertEqual((u.result["connections_moved"], u.result["connections_stayed"]), (0, 7))
        self.assert_counted(0, 7)
        self.assertIn("No connection moved to the successor; 7 ended with the incumbent.\n", s.ctl("explain").stdout)
        self.assertIn('handoff_connections_total{service="kvd",fate="stayed"} 7\n', s.ctl("metrics").stdout)
        self.upgrade(s, "kvd-v1")   # with nobody there nothing is known
        self.assert_counted(None, None)

    def test_no_descriptors_in_the_successor(self):
        """What does not fit ends the attempt, and costs nobody a connection."""
        s = self.s = self.kvd()
        wires = [Wire(s) for _ in range(150)]
        for w in wires:
            self.addCleanup(w.close)
            self.assertEqual(w.ask("ping"), b"PONG")
        s.configure(limit_nofile="100:100")
        u = s.upgrade()
        self.assert_outcome(u, 1, "aborted")
        self.assert_blamed(s, "successor")
        for w in wires:
            self.assertEqual(w.ask("ping"), b"PONG")
        s.configure(limit_nofile=None)
        self.upgrade(s, NEW)
        for w in wires:
            self.assertEqual(w.ask("ping"), b"PONG")

    def test_clients_that_do_as_they_like(self):
        """While nobody serves some close, some flood, some stop to read; the others go on."""
        s = self.s = self.kvd("given:delay=300")
        wires = [Wire(s) for _ in range(30)]
        for w in wires:
            self.addCleanup(w.close)
            w.ask("ping")
        wires[0].ask("set", "big", BIG)
        crowd = Crowd(self, s, 4)
        self.use(s, NEW)
        u = s.start_upgrade()
        u.wait_phase("seal")
        for w in wires[:10]:
            w.close()
        for w in wires[10:20]:
            w.sock.setblocking(False)
            flood, sent = command("ping") * 50000, 0
            try:
                while sent < len(flood):
                    sent += w.sock.send(flood[sent:])
            except BlockingIOError:
                pass
            w.sent = sent
        for w in wires[20:]:
            w.send(command("get", "big") * 2)
        u.wait()
        self.assert_outcome(u, 0, "committed")
        self.assertEqual(crowd.end(), 0)
        for w in wires[10:20]:
            w.sock.settimeout(harness.PATIENCE)
            for _ in range(w.sent // len(command("ping"))):
                self.assertEqual(w.reply(), b"PONG")
        for w in wires[20:]:
            for _ in range(2):
                self.assertTrue(w.reply() == BIG, "the value")


class Tools(HandoffCase):
    """What people use, through 50 upgrades, without one error and without one reconnect."""

    UPGRADES = 50

    def setUp(self):
        super().setUp()
        self.s = self.service(OLD, options=dict(
            TIMERS, **{"deadline": "10s", "start-timeout": "30s", "drain-grace": "3s"}))
        self.stop = threading.Event()
        self.problems, self.threads, self.turns = [], [], []

    def background(self, work):
        def loop():
            try:
                while not self.stop.is_set():
                    work()
            except Exception as e:  # pylint: disable=broad-except
                self.problems.append(repr(e))
                self.stop.set()
        self.threads.append(threading.Thread(target=loop))
        self.threads[-1].start()

    def benchmarks(self, *more):
        """One run with each upgrade: at full speed all the time, on a machine that is slow, they
        would write more than a successor can read, and than a compaction between two gets done."""
        turn = threading.Semaphore(0)

        def work():
            turn.acquire()
            if not self.stop.is_set():
                self.benchmark(*more)
        self.turns.append(turn)
        self.background(work)

    def benchmark(self, *more):
        p = subprocess.run(["redis-benchmark", "-p", str(self.s.port), "-q", "-k", "1", "-c", "8",
                            "-n", "5000", "-r", "1000", "-t", "set,get,incr,mset", *more],
                           env=self.s.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=2 * harness.PATIENCE,
                           check=False)
        if p.returncode or any(x in p.stdout for x in ("closed", "reset", "refused", "Error")):
            raise AssertionError(p.stdout)

    def cli(self):
        """One redis-cli, fed line by line: it would say so if it had to connect again."""
        p = subprocess.Popen(["redis-cli", "-p", str(self.s.port)], env=self.s.env, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.wait)
        self.addCleanup(p.stdin.close)
        seen = [0]

        def work():
            p.stdin.write("incr cli\n")
            p.stdin.flush()
            seen[0] += 1
            line = p.stdout.readline().strip()
            if line != str(seen[0]):
                raise AssertionError("redis-cli: %r after %d" % (line, seen[0]))
        return work

    def test_fifty_upgrades(self):
        pool = redis.ConnectionPool(host="127.0.0.1", port=self.s.port, max_connections=6,
                                    socket_timeout=harness.PATIENCE)
        self.addCleanup(pool.disconnect)
        held = [redis.Redis(connection_pool=pool, single_connection_client=True)
                for _ in range(6)]
        ids = [r.client_id() for r in held]
        counts = [0] * 6

        def count(i):
            counts[i] += 1
            if held[i].incr("pool%d" % i) != counts[i]:
                raise AssertionError("pool%d: not %d" % (i, counts[i]))
        for i in range(6):
            self.background(lambda i=i: count(i))
        self.background(self.cli())
        self.benchmarks()
        self.benchmarks("-P", "16")
        try:
            for i in range(self.UPGRADES):
                for turn in self.turns:
                    turn.release()
                self.upgrade(self.s, (NEW, OLD)[i % 2], old="upgrade %d" % i)
                self.assertEqual(self.problems, [], self.s.log()[-3000:])
        finally:
            self.stop.set()
            for turn in self.turns:
                turn.release()
            for t in self.threads:
                t.join(3 * harness.PATIENCE)
        self.assertEqual(self.problems, [], self.s.log()[-3000:])
        self.assertEqual([r.client_id() for r in held], ids)
        for r in held:
            r.close()


if __name__ == "__main__":
    unittest.main()
