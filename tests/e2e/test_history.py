"""handoffctl history: every attempt, durable and bounded."""

import contextlib
import json
import os
import shutil
import subprocess
import time
import unittest

import harness
from badinput import mount_namespaces
from handoffs import PATIENT, HandoffCase

NEW, OLD = "kvd-v2", "kvd-v1"
SLOTS, SLOT_SIZE = 128, 16384


class HistoryCase(HandoffCase):
    def history(self, s, *args):
        p = s.ctl("--json", "history", "kvd", *args)
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
        return [json.loads(line) for line in p.stdout.splitlines()]

    def steps(self, record, who="phase"):
        return [x["what"] for x in record["steps"] if x["who"] == who]

    def file(self, s):
        return s.path("state", "kvd", "history")


class History(HistoryCase):
    def test_committed_and_aborted(self):
        s = self.kvd()
        self.assertEqual(self.history(s), [])
        old = s.daemon_pid()
        before = time.time() * 1000
        self.use(s, NEW)
        u = s.upgrade("--reason", "release 2", "--trace-parent", harness.TRACE_PARENT,
                      "--correlation-id", "deploy-17", "--tenant", "blue")
        self.assert_outcome(u, 0, "committed")
        [r] = self.history(s)
        want = {"handoff": u.result["handoff"], "number": 1, "outcome": "committed", "code": 0,
                "uid": os.getuid(), "reason": "release 2", "trace_parent": harness.TRACE_PARENT,
                "correlation_id": "deploy-17", "tenant": "blue", "failed": None,
                "message": u.result["message"], "pause_us": u.result["pause_us"],
                "serving_us": u.result["serving_us"], "total_us": u.result["total_us"]}
        self.assertEqual({k: r[k] for k in want}, want)
        self.assertTrue(before - 1000 <= r["asked_ms"] <= time.time() * 1000 + 1000, r)
        self.assertEqual((r["from"]["pid"], r["from"]["version"]), (old, "1.0"))
        self.assertEqual((r["to"]["pid"], r["to"]["version"], r["to"]["build"]),
                         (u.result["pid"], "2.0", u.result["build"]))
        self.assertEqual(r["to"]["binary"], s.binary)
        self.assertEqual(self.steps(r), u.phases())
        self.assertEqual(self.steps(r, "incumbent"), ["Drained", "SealComplete", "exited with 0"])
        self.assertEqual(self.steps(r, "successor"), ["Hello", "Ready", "Status"])
        times = [x["us"] for x in r["steps"]]
        self.assertEqual(times, sorted(times))
        self.use(s, NEW, "ready:unhealthy")
        u = s.upgrade()
        self.assert_outcome(u, 1, "aborted")
        [_, r] = self.history(s)
        self.assertEqual((r["number"], r["outcome"], r["code"], r["message"], r["reason"]),
                         (2, "aborted", 1, u.result["message"], None))
        self.assertEqual({k: r["failed"][k] for k in ("role", "phase", "timer")},
                         {"role": "successor", "phase": "ready", "timer": None})
        self.assertIn("unhealthy", r["failed"]["cause"])

    def test_plans_and_refusals_are_no_handoffs(self):
        s = self.kvd()
        self.assertEqual(s.ctl("plan", "kvd").returncode, 0)
        self.assertEqual(s.upgrade("--binary", s.conf).code, 2)
        self.assertEqual(self.history(s), [])

    def test_bounds_and_since(self):
        s = self.kvd()
        for _ in range(3):
            self.upgrade(s, NEW)
        self.assertEqual([r["number"] for r in self.history(s, "-n", "2")], [2, 3])
        self.assertEqual(len(self.history(s, "--since", "1h")), 3)
        self.assertEqual(len(self.history(s, "--since", "2001-01-01")), 3)
        self.assertEqual(self.history(s, "--since", "2100-01-01 08:00"), [])
        p = s.ctl("history", "kvd")
        self.assertEqual(len(p.stdout.splitlines()), 3, p.stdout)
        self.assertIn("committed", p.stdout)
        self.assertIn("1.0 -> 2.0", p.stdout)
        for bad in (["-n", "0"], ["-n", "x"], ["--since", "yesterday"], ["--since", "2h3"]):
            self.assertEqual(s.ctl("history", "kvd", *bad).returncode, 2, bad)

    def test_it_is_a_ring(self):
        """The file as it is after 200 handoffs: the last 128 are there, and no more space is
        taken."""
        s = self.kvd()
        self.upgrade(s, NEW)
        s.stop()
        with open(self.file(s), "rb") as f:
            f.seek(SLOT_SIZE)
            slot = f.read(SLOT_SIZE)
        with open(self.file(s), "wb") as f:
            for number in range(73, 201):
                f.seek(number % SLOTS * SLOT_SIZE)
                f.write(numbered(slot, number))
        s.start()
        size = os.stat(self.file(s)).st_size
        self.assertEqual([r["number"] for r in self.history(s)], list(range(73, 201)))
        self.upgrade(s, OLD)
        self.assertEqual(os.stat(self.file(s)).st_size, max(size, SLOTS * SLOT_SIZE))
        records = self.history(s)
        self.assertEqual([r["number"] for r in records], list(range(74, 202)))
        self.assertEqual(records[-1]["to"]["version"], "1.0")

    def test_survives_restarts_and_a_reboot(self):
        s = self.kvd()
        self.upgrade(s, NEW)
        s.kill_supervisor()
        s.start()
        self.upgrade(s, OLD)
        s.stop()
        for name in os.listdir(s.path("run", "kvd")):  # what a tmpfs loses
            os.unlink(s.path("run", "kvd", name))
        s.start()
        self.assertEqual([(r["number"], r["outcome"]) for r in self.history(s)],
                         [(1, "committed"), (2, "committed")])


    def test_a_rollback_is_told_from_an_upgrade(self):
        s = self.kvd()
        self.upgrade(s, NEW)
        self.assertEqual(s.ctl("rollback", "kvd").returncode, 0)
        self.assertEqual([(r["kind"], r["to"]["version"]) for r in self.history(s)],
                         [("upgrade", "2.0"), ("rollback", "1.0")])
        first, second = s.ctl("history", "kvd").stdout.splitlines()
        self.assertNotIn("rollback", first)
        self.assertIn("rollback", second)
        self.assertIn("The rollback ", s.ctl("explain", "kvd").stdout)


class WithoutSupervisor(HistoryCase):
    """It is not gone with the supervisor: its file is read."""

    def test_stopped_and_killed(self):
        s = self.kvd()
        self.assertEqual(s.ctl("history", "other").returncode, 3)
        for _ in range(3):
            self.upgrade(s, NEW)
        want = self.history(s)
        # a child that has just been forked to copy or to hash still has the listening sockets
        s.wait_status(lambda x: x["binary_kept"] and x["previous_kept"] is not False and x["sha256"], "at rest")
        s.kill_supervisor()
        self.assertEqual(self.history(s), want)
        s.start()
        s.stop()
        self.assertEqual(self.history(s), want)
        self.assertEqual(self.history(s, "-n", "2"), want[1:])
        self.assertEqual(self.history(s, "--since", "2100-01-01"), [])
        p = s.ctl("history", "kvd")
        self.assertEqual((p.returncode, len(p.stdout.splitlines())), (0, 3), p.stderr)
        self.assertIn("no supervisor of kvd runs here; this is from " + self.file(s), p.stderr)
        for args in ([], [want[0]["handoff"][:8]]):
            p = s.ctl("explain", "kvd", *args)
            self.assertEqual(p.returncode, 0, p.stderr)
            self.assertIn("was committed", p.stdout)
        self.assertEqual(s.ctl("explain", "kvd", "00000000").returncode, 1)

    def test_one_that_had_not_ended(self):
        """What it came to the next supervisor says, which has the journal."""
        s = self.kvd()
        self.use(s, NEW, "warmup:hang")
        u = s.start_upgrade("--reason", "half")
        u.wait_phase("warm")
        s.kill_supervisor()
        [r] = self.history(s)
        self.assertEqual((r["outcome"], r["code"], r["reason"]), ("unknown", 6, "half"))
        s.start()
        u.wait()
        [r] = self.history(s)
        self.assertEqual((r["handoff"], r["outcome"]), (u.result["handoff"], "aborted"))

    def test_damaged_and_not_there(self):
        s = self.kvd()
        for _ in range(2):
            self.upgrade(s, NEW)
        s.stop()
        with open(self.file(s), "r+b") as f:
            f.seek(SLOT_SIZE + 100)
            f.write(b"torn")
        self.assertEqual([r["number"] for r in self.history(s)], [2])
        os.truncate(self.file(s), 5)
        self.assertEqual(self.history(s), [])
        os.unlink(self.file(s))
        p = s.ctl("history", "kvd")
        self.assertEqual((p.returncode, p.stdout), (3, ""))
        self.assertIn("no supervisor of kvd runs here", p.stderr)
        os.mkfifo(self.file(s))     # must not hold it up
        self.assertNotEqual(s.ctl("history", "kvd").stdout, None)

    @unittest.skipIf(os.getuid() != 0, "needs root, to be another user")
    def test_who_may_not_read_it(self):
        s = self.kvd()
        self.upgrade(s, NEW)
        s.stop()
        os.chmod(s.dir, 0o755)
        ctl = s.path("handoffctl")
        shutil.copy(harness.program("handoffctl"), ctl)
        p = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", ctl, "history", "kvd"],
                           env=s.env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=harness.PATIENCE, check=False)
        self.assertEqual((p.returncode, p.stdout), (3, ""), p.stderr)
        self.assertIn("%s: Permission denied" % self.file(s), p.stderr)


def numbered(slot, number):
    """The same record with another number in its header: proto/slot.h."""
    import zlib
    n = int.from_bytes(slot[16:20], "little")
    body = number.to_bytes(8, "little") + slot[16:20 + n]
    head = b"HNDF" + zlib.crc32(body).to_bytes(4, "little")
    return head + body + bytes(SLOT_SIZE - len(head) - len(body))


class Damage(HistoryCase):
    def test_supervisor_dies_in_each_phase(self):
        """Who had asked is known still, and the outcome is that of the supervisor that follows."""
        s = self.kvd(options=PATIENT)
        for point, phase in (("warmup", "warm"), ("begin", "ready"), ("take", "take")):
            with self.subTest(phase):
                self.use(s, NEW, point + ":stop")
                u = s.start_upgrade("--reason", "at " + phase)
                u.wait_phase(phase)
                self.await_stop(s, u)
                s.kill_supervisor()
                self.let_go(u)
                s.start()
                u.wait()
                r = self.history(s)[-1]
                self.assertEqual((r["handoff"], r["reason"], r["uid"]),
                                 (u.result["handoff"], "at " + phase, os.getuid()))
                self.assertEqual(r["outcome"], u.result["outcome"])
                self.assertEqual(r["message"], u.result["message"])
                self.assertEqual(r["from"]["version"] is not None, True, r)

    def test_a_record_that_was_begun_is_settled(self):
        """A loss of power in a handoff: the journal, on tmpfs, is gone with it."""
        s = self.kvd(options=PATIENT)
        self.use(s, NEW, "warmup:stop")
        u = s.start_upgrade("--reason", "last words")
        self.await_stop(s, u)
        s.kill_supervisor()
        for p in s.daemons():
            with contextlib.suppress(ProcessLookupError):   # the successor ends with its supervisor
                os.kill(p.pid, 9)
        harness.wait_until(lambda: not s.daemons(), "the daemons have ended")
        for name in os.listdir(s.path("run", "kvd")):
            os.unlink(s.path("run", "kvd", name))
        s.arguments = []   # the next one is not stopped
        s.configure()
        s.start()
        u.close()
        [r] = self.history(s)
        self.assertEqual((r["outcome"], r["reason"]), ("unknown", "last words"))

    def test_a_torn_record_costs_itself_alone(self):
        s = self.kvd()
        for _ in range(3):
            self.upgrade(s, NEW)
        s.stop()
        with open(self.file(s), "r+b") as f:
            f.seek(3 * SLOT_SIZE + 100)
            f.write(b"torn")
        s.start()
        self.assertEqual([r["number"] for r in self.history(s)], [1, 2])
        self.upgrade(s, OLD)
        self.assertEqual([r["number"] for r in self.history(s)], [1, 2, 3])

    def test_garbage_and_no_file(self):
        s = self.kvd()
        s.stop()
        with open(self.file(s), "wb") as f:
            f.write(os.urandom(3 * SLOT_SIZE))
        s.start()
        self.assertEqual(self.history(s), [])
        self.upgrade(s, NEW)
        self.assertEqual(len(self.history(s)), 1)
        s.stop()
        os.unlink(self.file(s))
        os.mkdir(self.file(s))
        s.start()
        self.upgrade(s, OLD)
        self.assertEqual(self.history(s), [])
        self.assertIn("handoffs are not remembered", s.log())

    @unittest.skipUnless(mount_namespaces(), "needs root and mount namespaces")
    def test_a_full_disk_costs_the_record_alone(self):
        s = self.kvd(start=False)
        state = s.path("state")
        s.launcher = ["unshare", "-m", "sh", "-ec", 'mount -t tmpfs -o size=160k none "$0"; exec "$@"',
                      state]
        s.start()
        for _ in range(14):
            self.upgrade(s, NEW)
        numbers = [r["number"] for r in self.history(s)]
        self.assertTrue(3 < len(numbers) < 14, numbers)
        self.assertIn("this handoff is not remembered, all else goes on", s.log())


if __name__ == "__main__":
    unittest.main()
