"""The descriptor store and the journal of a real systemd: whoever dies, clients wait in the queue
and are not refused, and a daemon's lines are its own."""

import contextlib
import json
import os
import signal
import subprocess

import harness
import systemd
from handoffs import TIMERS, faults


class Store(systemd.TestCase):
    """kill -9 of the supervisor, of the daemon, of both, under load."""

    def kill(self, *pids):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it may just have gone by itself
                os.kill(pid, signal.SIGKILL)

    def refused(self, load):
        r = load.stop()
        self.assertEqual((r["lost_writes"], r["wrong_values"]), (0, 0), r)
        return [r[k][x] for k in ("fresh", "keepalive") for x in ("refused", "connect_error")]

    def test_both_die_under_load(self):
        u = self.unit()
        load = u.load()
        for _ in range(3):
            load.wait_ok(100)
            supervisor, daemon = u.pid(), u.daemon_pid()
            self.kill(supervisor, daemon)
            harness.wait_until(lambda s=supervisor: u.pid() not in (0, s), "another supervisor")
            u.wait_status(lambda s, d=daemon: s["state"] == "idle" and s["pid"] not in (None, d),
                          "another daemon")
        load.wait_ok(100)
        self.assertEqual(self.refused(load), [0] * 4)
        u.wait_journal("1 of 1 listeners came back from the service manager")

    def test_all_die_in_a_handoff(self):
        for point, phase in (("begin", "ready"), ("take", "take")):
            with self.subTest(phase=phase):
                u = self.unit(binary="kvd-v1", options=dict(TIMERS))
                load = u.load()
                u.install("kvd-v2")
                u.arguments = faults(point + ":delay=500")
                u.configure()
                up = u.start_upgrade()
                up.wait_phase(phase)
                status = u.status()
                u.arguments = []
                u.configure()
                self.kill(u.pid(), *filter(None, (status["pid"], status["successor_pid"])))
                up.wait()
                u.wait_state("idle")
                # the supervisor goes first: it decides nothing after that
                allowed = ("aborted", "committed") if phase == "ready" else ("committed",)
                self.assertIn(up.result["outcome"], allowed, u.log())
                load.wait_ok(100)
                self.assertEqual(self.refused(load), [0] * 4)

    def test_the_daemons_lines_are_its_own(self):
        u = self.unit()
        daemon, before = u.daemon_pid(), u.pid()

        def lines():
            out = subprocess.run(["journalctl", "-o", "json", "-u", u.unit, "_PID=%d" % daemon],
                                 stdout=subprocess.PIPE, text=True, check=False).stdout
            return [json.loads(x) for x in out.splitlines()]
        harness.wait_until(lambda: any("serves" in x["MESSAGE"] for x in lines()), "its lines")
        self.kill(before)
        u.wait_adopted(daemon, before)
        # written when no supervisor was there
        found = harness.wait_until(
            lambda: [x for x in lines() if "the supervisor is gone" in x["MESSAGE"]], "its line")
        self.assertEqual([found[0][x] for x in ("_PID", "_SYSTEMD_UNIT", "SYSLOG_IDENTIFIER")],
                         [str(daemon), u.unit, u.name])
