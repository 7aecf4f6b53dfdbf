"""Each rule of the protocol, taken by real processes. tests/model/rules.md names the test beside
the rule; handoffd --debug and the library say in the log which rule they have taken."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import unittest

import harness
from attacks import used_s
from badinput import (ABORT, BEGIN, COMMIT, D_STATUS, DRAINED, HELLO_ACK, PREPARE, READY, RESUME,
                      SEAL_COMPLETE, SEAL_REQUEST, Case, frame, receive)
from handoffs import HandoffCase, faults
from played import PlayedCase, Told

NEW, OLD = "kvd-v2", "kvd-v1"
# Nothing expires unless its expiry is the point.
PATIENT = {"start-timeout": "5min", "drain-grace": "60s", "deadline": "2min",
           "commit-timeout": "60s", "exit-timeout": "60s", "self-fence": "60s",
           "presumed-dead": "61s"}
SOON = {"self-fence": "2s", "presumed-dead": "3s", "heartbeat": "500ms"}
FENCE_MS = 3000  # of a daemon whose supervisor is silent: after steps that take no time


def phase(name):
    """The number that a Hello has for a state of a daemon."""
    with open(os.path.join(harness.TOP, "src/proto/daemon.h"), encoding="utf-8") as f:
        names = [x.split("(")[1].split(",")[0].strip(" )\\\n") for x in f
                 if x.lstrip().startswith("X(")]
    return names.index(name)


class Rules:
    """What was taken, as the log has it."""

    def took(self, who, *rules):
        for rule in rules:
            harness.wait_until(lambda: 'rule "%s": ' % rule in who.log(), "rule " + rule)


class RuleCase(Rules, HandoffCase, Case):
    """A service whose supervisor and kvd say each step."""

    def kvd(self, *names, **timers):
        return super().kvd(*names, options=dict(PATIENT, **self.named(timers)), start=False)

    @staticmethod
    def named(timers):
        return {k.replace("_", "-"): v for k, v in timers.items()}

    def started(self, *names, **timers):
        s = self.kvd(*names, **timers)
        s.arguments.append("--debug")
        s.configure()
        s.flags = ["--debug"]
        s.start()
        return s

    def use(self, s, binary, *names):
        s.install(binary)
        s.arguments = faults(*names) + ["--debug"]
        s.configure()

    def stopped(self, s):
        """The daemon that has stopped itself at a fault's point."""
        return harness.wait_until(lambda: [p.pid for p in self.daemons(s) if p.state == "T"],
                                  "a daemon has stopped itself")[0]

    def go(self, pid):
        os.kill(pid, signal.SIGCONT)

    def kill(self, pid):
        with contextlib.suppress(ProcessLookupError):  # who was late is killed already
            os.kill(pid, signal.SIGKILL)

    def said_gone(self, s, pid):
        harness.wait_until(lambda: "pid %d was killed by signal 9" % pid in s.log(), "its death")

    def successor(self, s):
        return s.wait_status(lambda x: x["successor_pid"], "a successor")["successor_pid"]

    def puppet_o(self, **timers):
        """A service whose incumbent is a puppet that serves."""
        s = self.kvd(**timers)
        s.flags = ["--debug"]
        os.rename(self.puppets(s), s.binary)
        s.launch()
        p = self.puppet()
        p.serve(s.data_dir)
        s.wait_state("idle")
        return s, p

    def upgrade_to_kvd(self, s, *names):
        """Of a service whose incumbent is a puppet."""
        s.arguments = faults(*names) + ["--debug"]
        s.configure()
        return s.start_upgrade("--binary", harness.program(NEW))

    def upgrade_to_puppet(self, s, path=None):
        """The upgrade and the successor, which is warm."""
        u = s.start_upgrade("--binary", path or self.puppets(s))
        p = self.puppet()
        p.send(p.hello(s.data_dir, role=1))
        p.id = p.receive(HELLO_ACK)[0]
        p.receive(16)
        p.send(frame(17, {1: 1}))
        return u, p

    @staticmethod
    def say(p, kind, **fields):
        keys = {"serving": 1, "connections": 1, "accept_closed": 2}
        p.send(frame(kind, {0: p.id, **{keys[k]: v for k, v in fields.items()}}))

    def prepared(self, p):
        """The pid of the successor."""
        said = p.receive(PREPARE)
        p.id = said[0]
        return said[1]

    def seal(self, p, **epoch):
        """A puppet that is the incumbent, up to the seal."""
        self.prepared(p)
        self.sealed(p, **epoch)

    def sealed(self, p, epoch=None):
        self.say(p, DRAINED, connections=0, accept_closed=True)
        p.receive(SEAL_REQUEST)
        p.send(frame(SEAL_COMPLETE, {0: p.id, 1: [], 2: bytes(32), **({5: epoch} if epoch else {})}))

    def ready(self, p):
        """A puppet that is the successor, up to its Commit, which it does not answer."""
        begin = p.receive(BEGIN)
        p.send(frame(READY, {0: p.id, 1: [], 2: True, 3: begin.get(2, []),
                             4: begin.get(3, bytes(32))}))
        p.receive(COMMIT)

    def again(self, s, p, state):
        """A puppet comes back over daemon.sock, in this state."""
        p.connect()
        p.send(p.hello(s.data_dir, role=2, phase=phase(state), locked=state == "SERVE",
                       id=p.id, sockets=0))
        p.receive(HELLO_ACK)

    def unknown(self, s, *launcher):
        """A puppet that no supervisor has started, and that has the lock."""
        open(os.path.join(s.data_dir, ".handoff.lock"), "ab").close()
        here, there = socket.socketpair()
        with here, there:
            p = subprocess.Popen([*launcher, os.path.join(os.path.dirname(__file__), "puppet.py")],
                                 pass_fds=[there.fileno()], stdin=subprocess.DEVNULL,
                                 start_new_session=True,
                                 env=dict(s.env, HANDOFF_FD=str(there.fileno()), HANDOFF_ROLE="first",
                                          HANDOFF_DIR=s.path("run", s.name)))
        self.addCleanup(p.wait, harness.PATIENCE)
        other = self.puppet()
        other.id = bytes(16)
        other.lock(s.data_dir)
        return other

    def ends(self, u, s, code, outcome):
        u.wait()
        self.assert_outcome(u, code, outcome, s.log())


class Handoff(RuleCase):
    def test_cold_start(self):
        s = self.started()
        self.took(s, "COLD listeners", "COLD spawn", "COLD pid", "COLD Hello", "COLD Ready",
                  "COLD Status", "START warm-up done", "WBEGIN Begin(nothing sealed)", "OPEN",
                  "READY Commit", "SERVE Commit(final)")

    def test_upgrade(self):
        s = self.started()
        self.use(s, NEW)
        self.ends(s.start_upgrade(), s, 0, "committed")
        self.took(s, "IDLE start", "WARM Hello, O alive", "SERVE Prepare", "DRAIN Drained",
                  "DRAINED SealRequest", "SEAL SealComplete", "WBEGIN Begin(rev)",
                  "READY Ready, healthy, rev == sealed rev", "TAKE Status of N",
                  "PROBATION T_prob", "TELL_O O connected", "SEALED Commit", "OEXIT O dead")

    def test_restart_and_stop(self):
        s = self.started()
        self.assertEqual(s.ctl("restart", "kvd").returncode, 0)
        self.took(s, "restart asked for")
        self.assertEqual(s.stop(), 0)
        self.took(s, "stop")

    def test_reexec(self):
        s = self.started()
        self.assertEqual(s.ctl("reexec", "kvd").returncode, 0, s.log())
        self.took(s, "re-exec asked for")
        self.assertEqual(s.upgrade().code, 0)

    def test_the_daemon_dies(self):
        s = self.started()
        pid = s.daemon_pid()
        self.kill(pid)
        s.wait_status(lambda x: x["state"] == "idle" and x["pid"] not in (None, pid), "it is back")
        self.took(s, "IDLE incumbent dead")

    def test_starts_that_fail(self):
        s = self.kvd("start:die")
        s.flags = ["--debug"]
        with socket.create_server(("127.0.0.1", s.port)):
            s.launch()
            self.took(s, "COLD bind")
        self.took(s, "COLD child dead")
        self.use(s, OLD, "start:hang")
        s.configure(start_timeout="1s")
        s.ctl("restart", "kvd")
        self.took(s, "COLD child hangs")
        self.use(s, OLD)
        s.configure(start_timeout="60s")
        s.ctl("restart", "kvd")
        self.assert_serves(s, "1.0")


class WarmUp(RuleCase):
    def test_the_successor_fails(self):
        s = self.started()
        self.use(s, NEW, "start:die")
        self.ends(s.start_upgrade(), s, 1, "aborted")
        self.took(s, "WARM N dead", "ABORT N dead", "ABORT O untouched")
        self.use(s, NEW, "start:hang")
        s.configure(start_timeout="1s")
        self.ends(s.start_upgrade(), s, 1, "aborted")
        self.took(s, "WARM T_warm")

    def test_an_operator_aborts(self):
        s = self.started()
        self.use(s, NEW, "warmup:stop")
        u = s.start_upgrade()
        self.stopped(s)
        self.assertEqual(s.ctl("abort", "kvd").returncode, 0)
        self.ends(u, s, 1, "aborted")
        self.took(s, "WARM asked")

    def test_the_incumbent_dies(self):
        s = self.started()
        pid = s.daemon_pid()
        self.use(s, NEW, "warmup:stop")
        u = s.start_upgrade()
        successor = self.stopped(s)
        self.kill(pid)
        self.said_gone(s, pid)
        self.go(successor)
        self.ends(u, s, 0, "committed")
        self.took(s, "WARM Hello, O dead")

    def test_the_incumbent_is_away(self):
        """It lives and has no channel: it would not hear Prepare. Then it registers again."""
        s, o = self.puppet_o(**SOON)
        u = self.upgrade_to_kvd(s, "warmup:stop")
        successor = self.stopped(s)
        o.id = bytes(16)
        o.drop()
        self.go(successor)
        self.ends(u, s, 1, "aborted")
        self.took(s, "WARM Hello, O away")
        self.again(s, o, "SERVE")
        self.took(s, "IDLE registers again")
        s.wait_state("idle")

    def test_the_incumbent_registers_again(self):
        """The Final before may have gone into the channel that it had lost: it hears another."""
        s, o = self.puppet_o(**SOON)
        u = self.upgrade_to_kvd(s, "warmup:stop")
        successor = self.stopped(s)
        o.id = bytes(16)
        o.drop()
        self.again(s, o, "SERVE")
        self.took(s, "WARM registers again")
        self.assertTrue(o.receive(COMMIT)[1])
        self.kill(successor)
        self.ends(u, s, 1, "aborted")
        self.took(s, "ABORT O untouched")


class Drain(RuleCase):
    def test_the_successor_dies(self):
        s = self.started("drain:stop")
        self.use(s, NEW)
        u = s.start_upgrade()
        o = self.stopped(s)
        self.kill(self.successor(s))
        self.took(s, "DRAIN N dead", "ABORT O connected")
        self.go(o)
        self.ends(u, s, 1, "aborted")
        self.took(s, "DRAINED Resume", "RESUMING Status of O")
        self.assert_serves(s, "1.0")

    def test_the_incumbent_dies(self):
        s = self.started("drain:die")
        self.use(s, NEW)
        self.ends(s.start_upgrade(), s, 0, "committed")
        self.took(s, "DRAIN O dead")

    def test_the_incumbent_is_late(self):
        s = self.started("drain:stop")
        self.use(s, NEW)
        u = s.start_upgrade("--drain-grace", "500ms")
        o = self.stopped(s)
        self.took(s, "DRAIN T_drain")
        self.go(o)
        self.ends(u, s, 1, "aborted")
        self.assert_serves(s, "1.0")

    def test_an_operator_aborts(self):
        s = self.started("drain:stop")
        self.use(s, NEW)
        u = s.start_upgrade()
        o = self.stopped(s)
        u.process.send_signal(signal.SIGINT)
        self.took(s, "DRAIN asked")
        self.go(o)
        self.ends(u, s, 1, "aborted")
        self.assert_serves(s, "1.0")

    def test_the_incumbent_serves_again(self):
        s, o = self.puppet_o()
        u = self.upgrade_to_kvd(s)
        self.prepared(o)
        self.say(o, D_STATUS, serving=True)
        o.receive(RESUME)
        self.say(o, D_STATUS, serving=True)
        self.ends(u, s, 1, "aborted")
        self.took(s, "DRAIN Status of O")


class Seal(RuleCase):
    def test_the_successor_dies(self):
        s = self.started("seal:stop")
        self.use(s, NEW)
        u = s.start_upgrade()
        o = self.stopped(s)
        self.kill(self.successor(s))
        self.took(s, "SEAL N dead")
        self.go(o)
        self.ends(u, s, 1, "aborted")
        self.took(s, "SEALED Resume", "REOPEN")
        self.assert_serves(s, "1.0")

    def test_the_incumbent_dies(self):
        s = self.started("seal:die")
        self.use(s, NEW)
        self.ends(s.start_upgrade(), s, 0, "committed")
        self.took(s, "SEAL O dead")

    def test_the_incumbent_is_late(self):
        s = self.started("seal:stop", drain_grace="1s")
        self.use(s, NEW)
        u = s.start_upgrade("--deadline", "2s")
        o = self.stopped(s)
        self.took(s, "SEAL T_seal")
        self.go(o)
        self.ends(u, s, 1, "aborted")
        self.assert_serves(s, "1.0")

    def test_an_operator_aborts(self):
        s = self.started("seal:stop")
        self.use(s, NEW)
        u = s.start_upgrade()
        o = self.stopped(s)
        u.process.send_signal(signal.SIGINT)
        self.took(s, "SEAL asked")
        self.go(o)
        self.ends(u, s, 1, "aborted")
        self.assert_serves(s, "1.0")

    def test_the_incumbent_cannot(self):
        s = self.started("seal:fail")
        self.use(s, NEW)
        self.ends(s.start_upgrade(), s, 1, "aborted")
        self.took(s, "DRAINED SealRequest failed", "SEAL SealFailed")
        self.assert_serves(s, "1.0")

    def test_the_incumbent_serves_again(self):
        s, o = self.puppet_o()
        u = self.upgrade_to_kvd(s)
        self.prepared(o)
        self.say(o, DRAINED, connections=0, accept_closed=True)
        o.receive(SEAL_REQUEST)
        self.say(o, D_STATUS, serving=True)
        o.receive(RESUME)
        self.say(o, D_STATUS, serving=True)
        self.ends(u, s, 1, "aborted")
        self.took(s, "SEAL Status of O")


class Ready(RuleCase):
    def test_the_successor_dies(self):
        s = self.started()
        self.use(s, NEW, "begin:die")
        self.ends(s.start_upgrade(), s, 1, "aborted")
        self.took(s, "READY N dead")
        self.assert_serves(s, "1.0")

    def test_the_successor_is_late(self):
        s = self.started(drain_grace="1s")
        self.use(s, NEW, "begin:hang")
        self.ends(s.start_upgrade("--deadline", "2s"), s, 1, "aborted")
        self.took(s, "READY T_ready")
        self.assert_serves(s, "1.0")

    def test_the_successor_is_not_what_was_sealed(self):
        s = self.started()
        self.use(s, NEW, "ready:unhealthy")
        self.ends(s.start_upgrade(), s, 1, "aborted")
        self.took(s, "READY other Ready")
        self.assert_serves(s, "1.0")

    def owner(self, s):
        """Somebody has the lock on its data, and dies: the epoch that is left there."""
        env = {k: v for k, v in harness.environment(s.dir).items() if not k.startswith("HANDOFF_")}
        with subprocess.Popen([harness.program(OLD), "--data-dir", s.data_dir, "--listen",
                               "unix:" + s.path("owner")], env=env, stderr=subprocess.PIPE, text=True) as p:
            said = next(x for x in p.stderr if " serves: epoch " in x)
            p.kill()
        return int(said.split(" serves: epoch ")[1].split(",")[0])

    def test_the_lock_was_anothers_since_the_seal(self):
        """No revision shows it, if the successor opens what it has in its cache."""
        s, o = self.puppet_o()
        epoch = self.owner(s)
        u = self.upgrade_to_kvd(s)
        n = self.prepared(o)
        os.kill(n, signal.SIGSTOP)
        self.sealed(o, epoch=epoch)
        self.took(s, "SEAL SealComplete")
        self.assertEqual(self.owner(s), epoch + 1)
        self.go(n)
        o.receive(RESUME)
        self.say(o, D_STATUS, serving=True)
        self.ends(u, s, 1, "aborted")
        self.took(s, "READY N dead")
        self.assertIn("another process has had the lock since the incumbent has sealed", s.log())

    def test_an_operator_aborts(self):
        s = self.started()
        self.use(s, NEW, "begin:stop")
        u = s.start_upgrade()
        self.stopped(s)
        self.assertEqual(s.ctl("abort", "kvd").returncode, 0)
        self.ends(u, s, 1, "aborted")
        self.took(s, "READY asked")
        self.assert_serves(s, "1.0")

    def test_the_incumbent_serves_again(self):
        s, o = self.puppet_o()
        u = self.upgrade_to_kvd(s, "begin:stop")
        self.seal(o)
        self.stopped(s)
        self.say(o, D_STATUS, serving=True)
        o.receive(RESUME)
        self.say(o, D_STATUS, serving=True)
        self.ends(u, s, 1, "aborted")
        self.took(s, "READY Status of O")


class Take(RuleCase):
    def test_the_successor_dies(self):
        s = self.started()
        u, n = self.upgrade_to_puppet(s)
        self.ready(n)
        n.exit(1)
        self.ends(u, s, 1, "aborted")
        self.took(s, "TAKE N dead")
        self.assert_serves(s, "1.0")

    def test_the_successor_says_nothing(self):
        s = self.started(commit_timeout="1s")
        u, n = self.upgrade_to_puppet(s)
        self.ready(n)
        self.ends(u, s, 1, "aborted")
        self.took(s, "TAKE T_take")
        self.assert_serves(s, "1.0")

    def test_a_successor_that_says_too_much(self):
        """Unhealthy, and that it serves, in one breath: a client may have met it."""
        s = self.started()
        u, n = self.upgrade_to_puppet(s)
        begin = n.receive(BEGIN)
        n.send(frame(READY, {0: n.id, 1: [], 2: False, 3: begin[2], 4: begin[3]}),
               frame(D_STATUS, {0: n.id, 1: True}))
        self.ends(u, s, 1, "rolled back")
        self.took(s, "ABORT Status in N's socket")
        self.assert_serves(s, "1.0")

    def test_the_incumbent_dies(self):
        s = self.started()
        o = s.daemon_pid()
        u, n = self.upgrade_to_puppet(s)
        self.ready(n)
        self.kill(o)
        self.said_gone(s, o)
        self.say(n, D_STATUS, serving=True)
        self.ends(u, s, 0, "committed")
        self.took(s, "TELL_O O dead")


class Probation(RuleCase):
    """The incumbent stays sealed behind the successor's Status, ready to come back."""

    def test_it_ends(self):
        s = self.started(probation="1s")
        load = s.load()
        self.use(s, NEW)
        u = s.start_upgrade()
        o = s.daemon_pid()
        u.wait_phase("probation")
        self.assertTrue(harness.is_alive(o))
        load.wait_ok(20)
        self.ends(u, s, 0, "committed")
        self.assert_nothing_failed(load)
        self.assert_serves(s, "2.0")

    def test_the_supervisor_sleeps_in_it(self):
        """It stays awake for a moment behind what it has sent, not for as long as it waits."""
        s = self.started(probation="3s")
        self.use(s, NEW)
        u = s.start_upgrade()
        u.wait_phase("probation")
        cpu = used_s(s.supervisor.pid)
        self.ends(u, s, 0, "committed")
        self.assertLess(used_s(s.supervisor.pid) - cpu, 1)

    def test_the_successor_dies(self):
        """That is told as what it is: a client may have met it; the exit code says who serves."""
        s = self.started(probation="1h")
        o = s.daemon_pid()
        self.use(s, NEW)
        u = s.start_upgrade()
        u.wait_phase("probation")
        with s.client() as c:
            self.assertEqual("%.1f" % c.info()["kvd_version"], "2.0")
            c.set("written", "in probation")
        self.kill(self.successor(s))
        self.ends(u, s, 1, "rolled back")
        self.took(s, "PROBATION N dead")
        self.assertEqual(u.result["message"], "the successor died in its probation; the incumbent "
                         "(pid %d) serves again, a client may have met the successor" % o)
        self.assert_serves(s, "1.0")
        with s.client() as c:
            self.assertEqual(c.get("written"), b"in probation")
        self.assertEqual(s.status()["last"]["outcome"], "rolled back")
        s.configure(probation="0")
        self.assert_clean_upgrade(s, NEW)

    def test_a_stop_does_not_wait_for_its_end(self):
        s = self.started(probation="1h")
        self.use(s, NEW)
        u = s.start_upgrade()
        u.wait_phase("probation")
        p = s.ctl("stop", "kvd")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.ends(u, s, 0, "committed")
        s.ended()
        s.assert_nothing_left()
        self.assertIn('rule "stop": PROBATION ', s.log())

    def test_the_supervisor_dies(self):
        """The next one finds the commit in the journal, and begins the probation anew."""
        s = self.started(probation="2s")
        self.use(s, NEW)
        u = s.start_upgrade()
        u.wait_phase("probation")
        s.kill_supervisor()
        s.start()
        self.ends(u, s, 0, "committed")
        self.assert_serves(s, "2.0")

    def test_an_abort_is_too_late(self):
        s = self.started(probation="1h")
        self.use(s, NEW)
        u = s.start_upgrade()
        u.wait_phase("probation")
        p = s.ctl("abort", "kvd")
        self.assertEqual(p.returncode, 1)
        self.assertIn("too late", p.stderr)
        self.assertEqual(s.status()["state"], "probation")
        self.kill(s.daemon_pid())  # an incumbent that is dead has not to be told
        s.stop()
        self.ends(u, s, 0, "committed")


class Exit(RuleCase):
    def both_puppets(self, **timers):
        """The incumbent has lost its channel, the successor serves: it waits to be told."""
        s, o = self.puppet_o(**timers)
        u, n = self.upgrade_to_puppet(s, s.binary)
        self.seal(o)
        self.ready(n)
        o.drop()
        self.count(s)  # asks for the status: the end of the channel has been read
        self.say(n, D_STATUS, serving=True)
        return s, o, u, n

    def test_the_successor_dies(self):
        s, o, u, n = self.both_puppets()
        s.wait_state("exit")
        n.exit(1)
        self.took(s, "TELL_O N dead")
        self.again(s, o, "SEALED")
        o.receive(RESUME)
        self.say(o, D_STATUS, serving=True)
        self.ends(u, s, 1, "rolled back")

    def test_the_incumbent_does_not_come_back(self):
        s, o, u, n = self.both_puppets(**SOON)
        self.took(s, "TELL_O T_reg")
        self.ends(u, s, 0, "committed")

    def test_the_incumbent_serves_again(self):
        s, o = self.puppet_o()
        u, n = self.upgrade_to_puppet(s, s.binary)
        self.seal(o)
        self.ready(n)
        self.say(n, D_STATUS, serving=True)
        o.receive(COMMIT)
        self.say(o, D_STATUS, serving=True)
        o.receive(RESUME)
        self.say(o, D_STATUS, serving=True)
        self.ends(u, s, 1, "rolled back")
        self.took(s, "OEXIT Status of O")

    def test_the_incumbent_registers_again(self):
        s, o = self.puppet_o()
        u, n = self.upgrade_to_puppet(s, s.binary)
        self.seal(o)
        self.ready(n)
        self.say(n, D_STATUS, serving=True)
        o.receive(COMMIT)
        o.drop()
        self.again(s, o, "SEALED")
        o.receive(COMMIT)
        self.took(s, "OEXIT O registers again")
        o.exit(0)
        self.ends(u, s, 0, "committed")

    def test_the_incumbent_does_not_exit(self):
        s = self.started("exit:stop", exit_timeout="1s")
        self.use(s, NEW)
        self.ends(s.start_upgrade(), s, 0, "committed")
        self.took(s, "OEXIT T_oexit")
        self.assert_serves(s, "2.0")


class Back(RuleCase):
    """The attempt has come to nothing: the incumbent is to serve again."""

    def test_both_die(self):
        s = self.started("drain:die")
        self.use(s, NEW, "ready:unhealthy")
        u = s.start_upgrade()
        u.wait_phase("ready")
        self.use(s, OLD)
        self.took(s, "ABORT O dead")
        u.wait()
        self.assertEqual(u.result["outcome"], "aborted", s.log())

    def nobody_is_left(self):
        """Both have died, and the old binary is started: it is a puppet that waits."""
        s, o = self.puppet_o()
        u, n = self.upgrade_to_puppet(s, s.binary)
        self.prepared(o)
        o.exit(3)
        n.receive(BEGIN)
        n.exit(4)
        return s, u, self.puppet(), n.id

    def ask_outcome(self, s, handoff):
        c = self.control(s)
        c.sendall(frame(70, {0: handoff}))
        return c

    def record(self, s):
        return json.loads(s.ctl("--json", "history", "kvd", "-n", "1").stdout)

    def test_both_die_and_no_start_succeeds(self):
        """Who asks before that is known waits for it, like who has asked for the upgrade."""
        s, u, cold, handoff = self.nobody_is_left()
        c = self.ask_outcome(s, handoff)
        s.wait_status(lambda x: x["state"] == "cold" and not x["leftovers"], "nothing is in its way")
        cold.exit(5)
        u.wait()
        self.assertEqual((u.code, u.result["outcome"]), (5, "aborted"), s.log())
        kind, said, _ = receive(c)
        while kind == 80:
            kind, said, _ = receive(c)
        self.assertEqual((kind, said[1]), (81, 5), said)
        r = self.record(s)
        self.assertEqual((r["code"], r["stall_us"]), (5, u.result["stall_us"]), r)
        self.assertGreater(r["stall_us"], 0)

    def test_both_die_and_a_stop_ends_the_start(self):
        """Nothing is tried again then, and nobody is told so."""
        s, u, _, _ = self.nobody_is_left()
        s.wait_status(lambda x: x["state"] == "cold" and not x["leftovers"], "nothing is in its way")
        self.assertEqual(s.stop(), 0)
        u.wait()
        self.assertEqual((u.code, u.result["outcome"]), (5, "aborted"), s.log())
        self.assertTrue(u.result["message"].endswith("; that failed, and the service is being stopped"), u.result)

    def all_are_dead(self):
        """The next supervisor starts a daemon; whoever asks for the outcome waits for that."""
        s, u, cold, handoff = self.nobody_is_left()
        s.kill_supervisor()
        self.kill(cold.pid)
        harness.wait_until(lambda: not harness.is_alive(cold.pid), "its end")
        s.launch()
        cold = self.puppet()
        c = self.ask_outcome(s, handoff)
        s.wait_status(lambda x: x["state"] == "cold" and not x["leftovers"], "nothing is in its way")
        self.assertEqual(self.record(s)["outcome"], "under way")
        return s, u, cold, c

    def is_told(self, s, u, c, code):
        _, said, _ = receive(c)
        self.assertEqual((said[1], said[2]), (code, "aborted"), said)
        u.wait()
        self.assertEqual((u.code, u.result["outcome"]), (code, "aborted"), u.lines)
        harness.wait_until(lambda: self.record(s)["outcome"] == "aborted", "the record's end")
        self.assertEqual(self.record(s)["code"], code)

    def test_both_die_and_the_supervisor(self):
        s, u, cold, c = self.all_are_dead()
        cold.serve(s.data_dir)
        self.is_told(s, u, c, 1)
        s.wait_state("idle")

    def test_both_die_and_the_supervisor_and_no_start_succeeds(self):
        s, u, cold, c = self.all_are_dead()
        cold.exit(5)
        self.is_told(s, u, c, 5)
        self.puppet().serve(s.data_dir)
        s.wait_state("idle")
        self.assertEqual(self.record(s)["code"], 5)  # as it was when it ended

    def test_the_incumbent_is_away(self):
        s, o = self.puppet_o(**SOON)
        u = self.upgrade_to_kvd(s)
        n = self.prepared(o)
        o.drop()
        self.kill(n)
        self.took(s, "ABORT T_reg")
        self.said_gone(s, o.pid)
        self.puppet().serve(s.data_dir)  # the old binary, once more
        self.ends(u, s, 1, "aborted")

    def test_the_incumbent_registers_again(self):
        s, o = self.puppet_o()
        u = self.upgrade_to_kvd(s)
        self.kill(self.prepared(o))
        o.receive(RESUME)
        o.drop()
        self.again(s, o, "DRAINED")
        o.receive(RESUME)
        self.took(s, "RESUMING O registers again")
        self.say(o, D_STATUS, serving=True)
        self.ends(u, s, 1, "aborted")

    def test_the_incumbent_dies(self):
        s = self.started("resume:die")
        self.use(s, NEW, "ready:unhealthy")
        u = s.start_upgrade()
        u.wait()
        self.assertEqual(u.result["outcome"], "aborted", s.log())
        self.took(s, "RESUMING O dead")

    def test_the_incumbent_hangs(self):
        s = self.started("resume:stop", start_timeout="3s")
        self.use(s, NEW, "ready:unhealthy")
        u = s.start_upgrade()
        u.wait()
        self.assertEqual(u.result["outcome"], "aborted", s.log())
        self.took(s, "RESUMING T_resume")


class Restart(RuleCase):
    """A supervisor that was killed, and its follower."""

    def test_the_incumbent_registers(self):
        s = self.started()
        s.kill_supervisor()
        s.start()
        self.took(s, "SERVE EOF of S", "O connects again", "restart IDLE registers")

    def test_the_incumbent_is_dead(self):
        s = self.started()
        pid = s.daemon_pid()
        s.kill_supervisor()
        self.kill(pid)
        harness.wait_until(lambda: not harness.is_alive(pid), "it is dead")
        s.start()
        self.took(s, "restart IDLE dead")

    def test_the_incumbent_is_silent(self):
        s = self.started(**SOON)
        pid = s.daemon_pid()
        os.kill(pid, signal.SIGSTOP)
        s.kill_supervisor()
        s.launch()
        self.took(s, "restart IDLE silent, it has served")
        self.assertEqual(s.status()["state"], "unregistered")
        self.go(pid)
        s.wait_state("idle")
        self.assertEqual(s.daemon_pid(), pid)

    def test_the_journal_has_lost_the_attempt(self):
        """A copy from before it was put back: the incumbent stands by, and nobody else knows. It
        is told to serve, and when it does, that its commit is final."""
        s, o = self.puppet_o(**SOON)
        journal = s.path("run", s.name, "journal")
        with open(journal, "rb") as f:
            before = f.read()
        self.upgrade_to_kvd(s)
        self.prepared(o)
        s.kill_supervisor()
        with open(journal, "wb") as f:
            f.write(before)
        s.launch()
        harness.wait_until(lambda: s.status() is not None, "the new supervisor")
        self.again(s, o, "DRAINED")
        o.receive(RESUME)
        self.took(s, "restart IDLE silent, it has served")
        u = s.upgrade()
        self.assertIn("stands by", u.result["message"])
        self.assertEqual((u.code, s.status()["serves"]), (5, False))
        self.say(o, D_STATUS, serving=True)
        self.assertTrue(o.receive(COMMIT)[1])
        self.took(s, "IDLE registers again")

    def test_nobody_is_named(self):
        """The journal is lost, and nothing else says whose the incumbent is."""
        s = self.started()
        pid = s.daemon_pid()
        s.kill_supervisor()
        s.lose_journal("elsewhere")
        s.start()
        self.took(s, "COLD found", "restart IDLE registers")
        self.assertEqual(s.daemon_pid(), pid)

    def test_one_is_found_while_a_restart_waits(self):
        """It serves, and it is not what was asked for."""
        s, _ = self.puppet_o()
        with subprocess.Popen([harness.program("handoffctl"), "restart", s.name], env=s.env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True) as restart:
            self.puppet()
            other = self.unknown(s)
            self.again(s, other, "SERVE")
            said = restart.communicate(timeout=harness.PATIENCE)[0]
        self.assertEqual(restart.returncode, 1, said)
        self.assertIn("pid %d was found" % other.pid, said)
        self.took(s, "COLD found", "restart IDLE registers")
        self.assertNotIn("NOT served", s.log())

    def test_a_start_that_never_ended(self):
        s = self.kvd(**SOON)
        s.flags = ["--debug"]
        os.rename(self.puppets(s), s.binary)
        s.launch()
        p = self.puppet()
        p.warm(s.data_dir)
        p.receive(BEGIN)
        s.kill_supervisor()
        s.launch()
        harness.wait_until(lambda: s.status() is not None, "the new supervisor")
        r = s.ctl("upgrade", s.name)
        self.assertEqual((r.returncode, "NOT served" in r.stderr), (5, True), r)
        self.assertIn("died while it started the daemon", r.stderr)
        self.took(s, "restart IDLE silent, cold start never ended")
        self.said_gone_or_killed(s, p.pid)
        self.puppet().serve(s.data_dir)
        s.wait_state("idle")

    def said_gone_or_killed(self, s, pid):
        """Not this supervisor's child: how it ended, nobody tells."""
        harness.wait_until(lambda: "pid %d is gone" % pid in s.log() or
                           "pid %d was killed" % pid in s.log(), "its death")

    def committed(self, locked=False, **timers):
        """A successor that has read its Commit; then the supervisor dies. locked: it has the
        flock (the test has it for the puppet), so that the incumbent stays sealed."""
        s = self.started(**timers)
        u, n = self.upgrade_to_puppet(s)
        if locked:
            s.wait_state("ready")
            lock = open(os.path.join(s.data_dir, ".handoff.lock"), "rb")
            self.addCleanup(lock.close)
            fcntl.flock(lock, fcntl.LOCK_EX)
        self.ready(n)
        s.kill_supervisor()
        return s, u, n

    def test_the_successor_registers(self):
        s, u, n = self.committed(locked=True)
        s.launch()
        harness.wait_until(lambda: s.status() is not None, "the new supervisor")
        self.again(s, n, "SERVE")
        self.ends(u, s, 0, "committed")
        self.took(s, "restart COMMITTED N registers")

    def test_the_successor_is_dead(self):
        s, u, n = self.committed()
        n.exit(1)
        harness.wait_until(lambda: not harness.is_alive(n.pid), "it is dead")
        s.launch()
        self.ends(u, s, 1, "rolled back")
        self.took(s, "restart COMMITTED N dead")
        self.assert_serves(s, "1.0")

    def test_the_successor_is_silent(self):
        s, u, n = self.committed(**SOON)
        s.launch()
        self.ends(u, s, 1, "rolled back")
        self.took(s, "restart COMMITTED N silent")
        self.assert_serves(s, "1.0")


class Successor(Rules, PlayedCase):
    """What a real daemon does on its own, below a supervisor that the test plays."""

    def exits(self, p):
        self.assertIsNotNone(p.process.wait(harness.PATIENCE), p.log())

    def test_the_supervisor_is_gone(self):
        p = self.played(role="successor")
        p.greet()
        p.channel.close()
        self.exits(p)
        self.took(p, "N EOF of S")

    def test_it_is_told_to_end(self):
        p = self.played(role="successor")
        p.greet()
        p.send(ABORT, {1: "a test"})
        self.exits(p)
        self.took(p, "N Abort")

    def test_silence_before_begin(self):
        p = self.played(role="successor")
        p.greet(fence_ms=500)
        self.exits(p)
        self.took(p, "WBEGIN T_nbegin")

    def test_the_lock_is_never_given_back(self):
        """A helper of the dead incumbent, say: it is tried for a while, and no longer."""
        p = self.played(role="successor")
        path = os.path.join(p.data_dir, ".handoff.lock")
        with open(path, "w", encoding="utf-8") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            p.greet(fence_ms=FENCE_MS)
            p.send(BEGIN, {1: False})
            self.exits(p)
        self.took(p, "WBEGIN T_ncommit")

    def test_silence_before_commit(self):
        p = self.played(role="successor")
        p.greet(fence_ms=FENCE_MS)
        p.send(BEGIN, {1: False})
        p.receive(READY)
        self.exits(p)
        self.took(p, "READY T_ncommit")
        self.assertTrue(p.lock_is_free())


class Incumbent(Rules, PlayedCase):
    def test_what_comes_with_the_decision(self):
        """A daemon that was away for a moment reads three messages at once: each counts."""
        p = self.played(faults=["take:stop"])
        p.greet()
        p.send(BEGIN, {1: False})
        p.receive(READY)
        harness.wait_until(lambda: harness.Process(p.process.pid).state == "T", "it has stopped")
        p.id = b"\7" * 16
        p.channel.sendall(frame(COMMIT, {1: False}) + frame(COMMIT, {1: True}) +
                          frame(PREPARE, {0: p.id, 1: 1, 2: 60000, 3: 60000}))
        os.kill(p.process.pid, signal.SIGCONT)
        p.receive(D_STATUS)
        p.receive(DRAINED)
        self.took(p, "SERVE Commit(final)", "SERVE Prepare")

    def test_it_serves_and_takes_part_in_nothing(self):
        p = self.played().serve()
        p.id = b"\3" * 16
        p.send(SEAL_REQUEST)
        self.assertIn("serves", p.receive(8)[1])
        p.resume()
        p.receive(D_STATUS)
        p.send(COMMIT, {1: False})
        self.assertTrue(p.receive(D_STATUS)[1])
        self.took(p, "SERVE SealRequest", "SERVE Resume", "SERVE Commit")
        self.assertTrue(p.answers())

    def test_drained_and_the_supervisor_is_gone(self):
        p = self.played().serve()
        p.drained()
        p.lost()
        p.found()
        self.took(p, "DRAINED EOF")
        self.assertTrue(p.answers())

    def test_drained_and_silence(self):
        p = self.played().serve(fence_ms=500)
        p.drained()
        p.receive(D_STATUS)
        self.took(p, "DRAINED T_odrained")
        self.assertTrue(p.answers())

    def test_sealed_and_the_supervisor_is_gone(self):
        p = self.played().serve()
        p.seal()
        p.lost()
        p.found()
        self.took(p, "SEALED EOF", "SEALED flock got")
        self.assertTrue(p.answers())

    def test_sealed_and_silence(self):
        p = self.played().serve(fence_ms=FENCE_MS)
        p.seal()
        p.receive(D_STATUS)
        self.took(p, "SEALED T_osealed")
        self.assertTrue(p.answers())

    def test_the_lock_comes_back_late(self):
        """Told to resume it waits for the lock, for as long as it takes."""
        p = self.played().serve()
        p.seal()
        with open(os.path.join(p.data_dir, ".handoff.lock"), "rb") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            p.resume()
            self.took(p, "SEALED Resume")
        p.receive(D_STATUS)
        self.took(p, "RELOCK")
        self.assertTrue(p.answers())


class Sealing(Rules, PlayedCase):
    """A seal that takes its time: what comes meanwhile is answered when it is over, and the lock
    was never given up."""

    def sealing(self, **timers):
        p = self.played(kind=Told).serves(**timers)
        p.drain()
        p.call("loop 60000", "1 drain")
        p.call("drained")
        p.receive(DRAINED)
        p.send(SEAL_REQUEST)
        p.call("loop 60000", "1 seal")
        return p

    def over(self, p):
        p.call("sealed")
        self.assertFalse(p.lock_is_free())
        p.call("loop 60000", "1 resume reopen=1")
        p.call("resumed")

    def test_told_to_resume(self):
        p = self.sealing()
        p.resume()
        p.call("poll 60000", "1")
        p.call("dispatch")
        self.took(p, "SEALING Resume")
        self.over(p)
        p.receive(D_STATUS)

    def test_the_supervisor_is_gone(self):
        p = self.sealing()
        p.lost()
        p.call("poll 60000", "1")
        p.call("dispatch")
        self.took(p, "SEALING EOF")
        self.over(p)

    def test_silence(self):
        p = self.sealing(fence_ms=FENCE_MS)
        p.call("poll 60000", "1")
        p.call("dispatch")
        self.took(p, "SEALING T_osealed")
        self.over(p)
        p.receive(D_STATUS)


if __name__ == "__main__":
    unittest.main()
