"""Upgrades: they commit under load, and whatever goes wrong, one daemon serves on."""

import contextlib
import glob
import os
import shutil
import signal
import socket
import threading
import unittest

import harness
from handoffs import HandoffCase, faults

NEW, OLD = "kvd-v2", "kvd-v1"


class Good(HandoffCase):
    def test_many_under_load(self):
        s = self.kvd(options={"deadline": "10s", "start-timeout": "30s"})
        load = s.load()
        epoch = s.status()["epoch"]
        self.upgrade(s, OLD)
        before = self.kinds(s)
        for i in range(20):
            u = self.upgrade(s, (NEW, OLD)[i % 2])
            self.assertEqual(u.phases()[-6:], ["drain", "seal", "ready", "commit", "take", "exit"])
            self.assertGreater(u.result["pause_us"], 0)
            self.assertGreaterEqual(u.result["serving_us"], u.result["pause_us"])
            self.assertGreaterEqual(u.result["total_us"], u.result["serving_us"])
            version = ("2.0", "1.0")[i % 2]
            self.assertEqual(u.result["version"], version)
            with s.client() as c:
                info = c.info()
            self.assertEqual("%.1f" % info["kvd_version"], version)
            self.assertEqual(info["process_id"], u.result["pid"])
            self.assertEqual(info["epoch"], epoch + 2 + i)
            load.wait_ok(100)
        self.assert_same_descriptors(s, before)
        s.assert_no_zombies()
        self.assert_nothing_failed(load)
        self.assert_serves(s, "1.0")

    def test_idle(self):
        s = self.kvd()
        with s.client() as c:
            c.set("a", "1")
        for binary in (NEW, OLD, NEW):
            self.assert_clean_upgrade(s, binary)
        with s.client() as c:
            self.assertEqual(c.get("a"), b"1")

    def test_pipelines(self):
        """What a connection has sent before the drain is answered, in order, or not done."""
        s = self.kvd()
        done, answered, stop = [], [], threading.Event()

        def work(n):
            while not stop.is_set():
                # a connection that stays ends with its daemon
                with socket.create_connection(("127.0.0.1", s.port)) as c, \
                        contextlib.suppress(ConnectionError):
                    c.settimeout(harness.PATIENCE)
                    while not stop.is_set():
                        c.sendall(b"INCR p%d\r\n" % n * 50)
                        replies = b""
                        while replies.count(b"\r\n") < 50:
                            got = c.recv(65536)
                            replies += got
                            if not got:
                                break
                        lines = [int(x[1:]) for x in replies.split(b"\r\n")[:-1]]
                        answered.append((n, lines))
                        if len(lines) < 50:
                            break
                        done.append(n)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        try:
            for i in range(6):
                harness.wait_until(lambda goal=10 * i + 10: all(done.count(n) >= goal for n in range(4)),
                                   "pipelines are answered")
                self.upgrade(s, (NEW, OLD)[i % 2])
        finally:
            stop.set()
            for t in threads:
                t.join(harness.PATIENCE)
        for n in range(4):
            seen = [x for m, lines in answered for x in lines if m == n]
            self.assertEqual(seen, sorted(set(seen)), "replies in order, each once")
            with s.client() as c:
                self.assertGreaterEqual(int(c.get("p%d" % n)), seen[-1])

    def test_options(self):
        s = self.kvd()
        other = s.path("bin", "other")
        s.install(NEW)
        os.rename(s.binary, other)
        s.install(OLD)
        self.assert_outcome(s.upgrade("--binary", other, "--reason", "a test"), 0, "committed")
        self.assertEqual(self.version(s), "2.0")
        self.assertEqual(s.status()["binary"], other)
        self.assertIn("a test", s.log())
        # it holds until the next upgrade without it, over a crash too
        killed = s.daemon_pid()
        os.kill(killed, signal.SIGKILL)
        s.wait_status(lambda x: x["state"] == "idle" and x["pid"] != killed, "it is back")
        self.assertEqual(s.status()["version"], "2.0")
        self.assert_outcome(s.upgrade(), 0, "committed")
        self.assertEqual(self.version(s), "1.0")
        os.unlink(other)

    def test_deadline_and_drain_grace(self):
        s = self.kvd("drain:delay=500")
        self.use(s, NEW)
        u = s.upgrade("--drain-grace", "200ms")
        self.assert_outcome(u, 1, "aborted")
        self.assertIn("drain-grace", u.result["message"])
        u = s.upgrade("--deadline", "300ms")
        self.assert_outcome(u, 1, "aborted")
        self.assert_serves(s, "1.0")
        self.assertEqual(s.status()["timers"]["deadline"], 2000)
        self.assert_outcome(s.upgrade(), 0, "committed")

    def test_configuration_is_read_again(self):
        s = self.kvd()
        port = harness.free_port()
        s.listen["more"] = "tcp:127.0.0.1:%d" % port
        s.configure(drain_grace="900ms")
        self.assertEqual(s.status()["timers"]["drain-grace"], 1000)
        self.assert_outcome(s.upgrade(), 0, "committed")
        self.assertEqual(s.status()["timers"]["drain-grace"], 900)
        with s.client("more") as c:
            self.assertTrue(c.ping())
        del s.listen["more"]
        s.configure()
        self.assert_outcome(s.upgrade(), 0, "committed")
        with socket.socket() as c:
            self.assertNotEqual(c.connect_ex(("127.0.0.1", port)), 0)

    def test_wrong_configuration_changes_nothing(self):
        s = self.kvd()
        pid = s.daemon_pid()
        with open(s.conf, "a", encoding="utf-8") as f:
            f.write("nonsense\n")
        u = s.upgrade()
        self.assertEqual(u.code, 2, u.lines)
        self.assertEqual(s.daemon_pid(), pid)
        s.configure()
        self.assert_clean_upgrade(s, NEW)

    def test_plan_leaves_the_incumbent_alone(self):
        s = self.kvd()
        pid = s.daemon_pid()

        def wakeups():
            return [x for t in sorted(os.listdir("/proc/%d/task" % pid))
                    for x in harness.read_file("/proc/%d/task/%s/status" % (pid, t)).splitlines()
                    if "ctxt_switches" in x]
        before = self.at_rest(wakeups)
        self.use(s, NEW)
        p = s.ctl("plan", "kvd")
        self.assertEqual((p.returncode, wakeups()), (0, before), p.stderr)
        self.assertRegex(p.stdout, r"version +2\.0\n")
        self.use(s, NEW, "hello:die")
        p = s.ctl("plan", "kvd")
        self.assertEqual((p.returncode, wakeups()), (1, before), p.stdout)
        self.assert_serves(s, "1.0")
        self.assertIsNone(s.status()["last"])
        self.assert_clean_upgrade(s, NEW)

    def at_rest(self, read):
        """What read() returns once it has been the same ten times in a row: a daemon that has
        just begun to serve may still have something to finish."""
        seen = []

        def same():
            seen.append(read())
            return len(seen) > 10 and all(x == seen[-1] for x in seen[-10:])
        harness.wait_until(same, "the daemon is at rest")
        return seen[-1]

    def test_a_plan_is_over_when_it_is_over(self):
        """What is started later is no candidate: not after the plan, and not in it."""
        s = self.kvd()
        self.use(s, NEW)
        self.assertEqual(s.ctl("plan", "kvd").returncode, 0)
        self.kill_and_wait(s)
        self.use(s, NEW, "hello:delay=300")
        plan = harness.Upgrade([harness.program("handoffctl"), "--json", "plan", "kvd"], s.env,
                               s.path("plan.err"))
        s.background.append(plan)
        plan.wait_phase("warm")
        self.kill_and_wait(s)
        plan.wait()
        self.use(s, OLD)
        self.assert_clean_upgrade(s, NEW)

    def kill_and_wait(self, s):
        """The daemon dies; another serves."""
        pid = s.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        s.wait_status(lambda x: x["state"] == "idle" and x["pid"] not in (None, pid), "it is back")
        self.assert_serves(s, "1.0")


class BadSuccessor(HandoffCase):
    """Whatever N does before it serves: aborted, O serves on, nobody failed, and the next
    upgrade commits."""

    def attempts(self, cases, **kwargs):
        s = self.kvd(**kwargs)
        load = s.load()
        self.upgrade(s, OLD)
        before = self.kinds(s)
        for fault, reason in cases:
            with self.subTest(fault=fault):
                pid = s.daemon_pid()
                self.use(s, NEW, *([fault] if fault else []))
                u = s.upgrade()
                self.assert_outcome(u, 1, "aborted", s.log())
                self.assertRegex(u.result["message"], reason)
                self.assertEqual(u.result["pid"], pid)
                self.assert_serves(s, "1.0")
                self.assert_same_descriptors(s, before)
                self.calm(load)
        self.assert_clean_upgrade(s, NEW)
        s.assert_no_zombies()
        self.assert_nothing_failed(load)

    def test_dies(self):
        points = ["start", "warmup", "hello", "begin", "open", "ready"]
        self.attempts([(p + ":die", r"the successor (died|ended).*killed") for p in points])

    def test_dies_when_it_is_to_serve(self):
        s = self.kvd()
        load = s.load()
        self.use(s, NEW, "take:die")
        u = s.upgrade()
        # no Status has come; whether a client can have met it, a lost channel does not tell
        self.assertIn((u.code, u.result["outcome"]), [(1, "aborted"), (1, "rolled back")])
        self.assert_serves(s, "1.0")
        self.assert_clean_upgrade(s, NEW)
        self.assert_nothing_failed(load)

    def test_exits(self):
        self.attempts([("start:exit0", "exited with 0"), ("hello:exit1", "exited with 1"),
                       ("start:fork", "exited with 0"), ("open:exit0", "exited with 0")])

    def test_lies(self):
        self.attempts([("ready:unhealthy", "--fault=ready:unhealthy"),
                       ("ready:badrev", "shard 0 is at revision"),
                       ("ready:badfp", "fingerprint differs")])

    def test_hangs_early(self):
        self.attempts([(p, "within start-timeout") for p in ("start:hang", "hello:hang",
                                                             "warmup:stop")])

    def test_hangs_late(self):
        self.attempts([("begin:hang", "not ready within deadline"),
                       ("open:delay=3000", "not ready within deadline"),
                       ("ready:stop", "silent for presumed-dead|within deadline")])

    def test_hangs_when_it_is_to_serve(self):
        """Its Commit may have come, and been answered, just before it hangs; seldom, and then
        it counts as serving: once more."""
        for fault in ("take:hang", "take:stop"):
            with self.subTest(fault=fault):
                for _ in range(5):
                    s = self.kvd()
                    load = s.load()
                    self.use(s, NEW, fault)
                    u = s.upgrade()
                    if u.result["outcome"] != "committed":
                        break
                    load.stop()
                    s.stop()
                self.assert_outcome(u, 1, "aborted", s.log())
                self.assertRegex(u.result["message"], "did not serve within commit-timeout")
                self.assert_serves(s, "1.0")
                self.assert_clean_upgrade(s, NEW)
                self.assert_nothing_failed(load)

    def test_flipped_byte(self):
        s = self.kvd()
        with s.client() as c:
            for i in range(200):
                c.set("key%d" % i, "value%d" % i)
        log = max(glob.glob(os.path.join(s.data_dir, "**"), recursive=True),
                  key=lambda p: os.path.getsize(p) if os.path.isfile(p) else 0)

        def flip():
            with open(log, "r+b") as f:
                f.seek(os.path.getsize(log) // 2)
                byte = f.read(1)
                f.seek(-1, os.SEEK_CUR)
                f.write(bytes([byte[0] ^ 1]))
        flip()
        self.use(s, NEW)
        self.assert_outcome(s.upgrade(), 1, "aborted")
        flip()  # what was right before the incumbent's resume is right again
        self.assert_serves(s, "1.0")
        with s.client() as c:
            self.assertEqual(c.dbsize(), 200)
        self.assert_clean_upgrade(s, NEW)

    def test_serves_no_more_after_commit(self):
        """A daemon that says it serves and hangs then is believed; stop ends it all the same."""
        s = self.kvd()
        self.use(s, NEW, "commit:hang")
        self.assert_outcome(s.upgrade(), 0, "committed")
        self.assertEqual(s.stop(), 0)
        s.assert_nothing_left()


class BadIncumbent(HandoffCase):
    """Whatever O does: one daemon serves in the end, and what is told is true."""

    def setUp(self):
        super().setUp()
        self.s = self.kvd()
        self.load = self.s.load()

    def attempt(self, old, new, code, outcome, reason, version):
        """Upgrades from a daemon with faults to one with others."""
        s = self.s
        self.upgrade(s, OLD, *old)
        before = self.kinds(s)
        self.use(s, NEW, *new)
        u = s.upgrade()
        self.assert_outcome(u, code, outcome, s.log())
        self.assertRegex(u.result["message"], reason)
        self.assert_serves(s, version)
        self.assert_same_descriptors(s, before)
        self.calm(self.load)
        return u

    def finish(self, failed=False):
        self.load.wait_ok(50)
        self.s.assert_no_zombies()
        if not failed:
            self.assert_nothing_failed(self.load)
            return
        # An incumbent that was killed while it served resets fresh connections; but what it
        # had acknowledged is there.
        r = self.load.stop()
        self.assertEqual((r["lost_writes"], r["wrong_values"]), (0, 0), r)

    def test_dies_and_the_successor_serves(self):
        for fault in ("drain:die", "seal:die", "drain:exit1", "exit:die"):
            with self.subTest(fault=fault):
                self.attempt([fault], [], 0, "committed", "serves", "2.0")
        self.finish(failed=True)

    def test_killed_in_the_warm_up(self):
        s = self.s
        self.use(s, NEW, "warmup:delay=500")
        u = s.start_upgrade()
        u.wait_phase("warm")
        os.kill(s.daemon_pid(), signal.SIGKILL)
        u.wait()
        self.assert_outcome(u, 0, "committed", s.log())
        self.assert_serves(s, "2.0")
        self.finish(failed=True)

    def test_cannot_seal(self):
        for fault, reason in [("seal:fail", "could not seal: --fault=seal:fail"),
                              ("seal:badrev", "revision"), ("seal:badfp", "fingerprint")]:
            with self.subTest(fault=fault):
                self.attempt([fault], [], 1, "aborted", reason, "1.0")
                s = self.s
                s.stop()  # this incumbent never lets go
                self.use(s, OLD)
                s.start()
        self.finish(failed=True)

    def test_late(self):
        self.attempt(["drain:delay=1600"], [], 1, "aborted", "within drain-grace", "1.0")
        self.assert_outcome(self.s.upgrade("--drain-grace", "20s", "--deadline", "30s"), 0,
                            "committed")
        self.calm(self.load)
        self.attempt(["seal:delay=2800"], [], 1, "aborted", "within deadline", "1.0")
        self.assert_outcome(self.s.upgrade("--deadline", "30s"), 0, "committed")
        self.calm(self.load)
        self.assert_clean_upgrade(self.s, OLD)
        self.finish()

    def test_hangs(self):
        """It cannot be brought back: the old binary is started again, since it is the one
        that has proved itself."""
        for fault in ("drain:hang", "seal:stop"):
            with self.subTest(fault=fault):
                self.attempt([fault], [], 1, "aborted", "both daemons .*died, the old binary",
                             "1.0")
                s = self.s
                self.use(s, OLD)
                s.stop()
                s.start()
        self.finish(failed=True)

    def test_does_not_exit(self):
        for fault in ("exit:hang", "exit:stop"):
            with self.subTest(fault=fault):
                self.attempt([fault], [], 0, "committed", "serves", "2.0")
        self.finish()

    def test_both_die(self):
        self.attempt(["drain:die"], ["begin:die"], 1, "aborted",
                     "both daemons .*died, the old binary", "1.0")
        self.attempt(["drain:die"], ["ready:unhealthy"], 1, "aborted", "both daemons .*died",
                     "1.0")
        self.attempt(["resume:die"], ["ready:unhealthy"], 1, "aborted", "both daemons .*died",
                     "1.0")
        self.assert_clean_upgrade(self.s, NEW)
        self.finish(failed=True)

    def test_both_die_at_the_end(self):
        """The incumbent was told to exit: nobody can go back to it, its death ends the attempt."""
        self.use(self.s, OLD, "exit:hang")
        self.s.configure(exit_timeout="60s")
        self.assert_outcome(self.s.upgrade(), 0, "committed")
        self.use(self.s, NEW)
        u = self.s.start_upgrade()
        u.wait_phase("exit")
        status = self.s.status()
        os.kill(status["successor_pid"], signal.SIGKILL)
        harness.wait_until(lambda: "pid %d was killed" % status["successor_pid"] in self.s.log(),
                           "its death is known")
        os.kill(status["pid"], signal.SIGKILL)
        u.wait()
        self.assert_outcome(u, 0, "committed", self.s.log())
        self.assertRegex(u.result["message"], "the successor died when the incumbent was to exit; "
                         "both daemons have died, the new binary is started again")
        self.assert_serves(self.s, "2.0")
        self.finish(failed=True)

    def test_a_helper_keeps_the_lock(self):
        """Descriptors that a forked helper has: an orderly seal unlocks for all of them; after
        a death the successor waits for it."""
        self.attempt(["seal:helper=3000"], [], 0, "committed", "serves", "2.0")
        self.attempt(["drain:helper=700", "drain:die"], [], 0, "committed", "serves", "2.0")
        self.finish(failed=True)


class People(HandoffCase):
    """What operators do in each phase."""

    # phase: faults of the old daemon and of the new one that hold it open: longer than a loaded
    # machine takes for an operator's command, and shorter than each timer
    HELD = {"warm": ([], ["warmup:delay=1500"]), "drain": (["drain:delay=1500"], []),
            "seal": (["seal:delay=1500"], []), "ready": ([], ["begin:delay=1500"]),
            "take": ([], ["take:delay=1500"]), "exit": (["exit:delay=1500"], [])}
    LONGER = {"start-timeout": "20s", "drain-grace": "5s", "deadline": "10s",
              "commit-timeout": "5s", "exit-timeout": "5s"}

    def kvd(self, *names):
        return super().kvd(*names, options=self.LONGER)

    def held(self, s, phase, load=None):
        """An upgrade that has reached the phase, and stays there for a while."""
        old, new = self.HELD[phase]
        if s.arguments != faults(*old):
            self.upgrade(s, OLD, *old)
            if load is not None:
                self.calm(load)
        self.use(s, NEW, *new)
        point = (old + new)[0].split(":")[0]
        count = s.log().count("fault: delay at " + point)
        u = s.start_upgrade()
        u.wait_phase(phase)
        harness.wait_until(lambda: s.log().count("fault: delay at " + point) > count,
                           "kvd is at " + point)
        return u

    def test_abort(self):
        s = self.kvd()
        load = s.load()
        for phase in ("warm", "drain", "seal", "ready"):
            with self.subTest(phase=phase):
                u = self.held(s, phase, load)
                p = s.ctl("abort", "kvd", "--reason", "not today")
                u.wait()
                self.assertEqual(p.returncode, 0, p.stderr)
                self.assert_outcome(u, 1, "aborted")
                self.assertIn("not today", u.result["message"])
                self.assert_serves(s, "1.0")
                self.calm(load)
        for phase in ("take", "exit"):
            with self.subTest(phase=phase):
                u = self.held(s, phase, load)
                p = s.ctl("abort", "kvd")
                u.wait()
                self.assertEqual(p.returncode, 1, p.stdout)
                self.assertIn("too late: the commit is decided", p.stderr)
                self.assert_outcome(u, 0, "committed")
                self.calm(load)
        p = s.ctl("abort", "kvd")
        self.assertEqual(p.returncode, 1)
        self.assert_clean_upgrade(s, OLD)
        self.assert_nothing_failed(load)

    def test_ctrl_c(self):
        s = self.kvd()
        for phase in ("warm", "ready"):
            with self.subTest(phase=phase):
                u = self.held(s, phase)
                u.process.send_signal(signal.SIGINT)
                u.wait()
                self.assert_outcome(u, 1, "aborted")
                self.assertIn("interrupted by its operator", u.result["message"])
                self.assert_serves(s, "1.0")
        u = self.held(s, "exit")
        u.process.send_signal(signal.SIGINT)
        u.wait()
        self.assert_outcome(u, 0, "committed")

    def test_two_at_once(self):
        s = self.kvd()
        u = self.held(s, "warm")
        second = s.upgrade()
        self.assertEqual(second.code, 4, second.lines)
        self.assertEqual(s.ctl("plan", "kvd").returncode, 4)
        self.assertEqual(s.ctl("restart", "kvd").returncode, 4)
        u.wait()
        self.assert_outcome(u, 0, "committed")

    def test_stop(self):
        for phase, (old, new) in self.HELD.items():
            with self.subTest(phase=phase):
                s = self.kvd(*old)
                u = self.held(s, phase)
                p = s.ctl("stop", "kvd")
                u.wait()
                committed = phase in ("take", "exit")
                self.assert_outcome(u, 0 if committed else 1,
                                    "committed" if committed else "aborted", s.log())
                self.assertEqual(p.returncode, 0, p.stderr)
                s.ended()
                s.assert_nothing_left()
                if committed:  # nobody is ended by force, then
                    self.assertNotIn("SIGKILL", s.log().split("asks for a stop")[1])

    def test_sigterm(self):
        s = self.kvd()
        u = self.held(s, "ready")
        self.assertEqual(s.stop(), 0)
        u.wait()
        self.assert_outcome(u, 1, "aborted", s.log())
        s.assert_nothing_left()

    def test_restart(self):
        s = self.kvd()
        with s.client() as c:
            c.set("a", "1")
        before = s.status()
        p = s.ctl("restart", "kvd")
        self.assertEqual(p.returncode, 0, p.stderr)
        after = s.status()
        self.assertNotEqual(after["pid"], before["pid"])
        self.assertEqual(after["epoch"], before["epoch"] + 1)
        with s.client() as c:
            self.assertEqual(c.get("a"), b"1")

    def test_restart_without_a_name_beside_a_stopped_service(self):
        """What was meant for that one does not hit the other, until it is removed for good."""
        s = self.kvd()
        other = self.service("kvd-v1", name="kvd2", start=False)
        other.env = s.env
        other.start()
        other.stop()
        pid = s.daemon_pid()
        for left in ("run", "state"):   # below systemd the state directory alone
            p = s.ctl("restart")
            self.assertEqual((p.returncode, p.stderr), (
                2, "handoffctl: several services are here: kvd, kvd2 (no supervisor answers); say which: "
                "handoffctl restart NAME\n"))
            self.assertEqual(s.daemon_pid(), pid)
            shutil.rmtree(s.path(left, "kvd2"))
        self.assertEqual(s.ctl("restart").returncode, 0)
        self.assertNotEqual(s.daemon_pid(), pid)

    def test_crash_loop(self):
        """Tried again and again with growing pauses; clients wait in the queue meanwhile."""
        s = self.kvd()
        away = s.data_dir + ".away"
        os.rename(s.data_dir, away)
        os.kill(s.daemon_pid(), signal.SIGKILL)
        harness.wait_until(lambda: s.log().count("tried again") >= 4, "four starts that fail")
        self.assertEqual(s.status()["state"], "cold")
        self.assertEqual(s.upgrade().code, 5)
        with socket.create_connection(("127.0.0.1", s.port)) as c:
            c.settimeout(harness.PATIENCE)
            c.sendall(b"PING\r\n")
            os.rename(away, s.data_dir)
            self.assertEqual(c.recv(100), b"+PONG\r\n")
        s.wait_state("idle")
        self.assert_clean_upgrade(s, NEW)


if __name__ == "__main__":
    unittest.main()
