"""What tests of whole handoffs share: short timers, faults, and what must hold afterwards."""

import collections
import contextlib
import os
import signal

import harness

# Short, and yet long enough for a loaded machine. Hangs cost a test their sum.
TIMERS = {"start-timeout": "2500ms", "drain-grace": "1s", "deadline": "2s", "commit-timeout": "1s",
          "exit-timeout": "1s", "heartbeat": "200ms", "self-fence": "1s", "presumed-dead": "1500ms",
          "stop-timeout": "2s"}

# Where a test stops a daemon and lets it go on: nobody gives up on it meanwhile.
PATIENT = dict.fromkeys(("start-timeout", "deadline", "commit-timeout", "exit-timeout", "presumed-dead"), "10min")


def faults(*names):
    """Arguments of kvd that make it misbehave."""
    return [a for name in names for a in ("--fault", name)]


class HandoffCase(harness.TestCase):
    """Tests with one kvd service below a supervisor."""

    def kvd(self, *names, **kwargs):
        """A running service, version 1, with these faults."""
        options = dict(TIMERS, **kwargs.pop("options", {}))
        return self.service("kvd-v1", arguments=faults(*names), options=options, **kwargs)

    def use(self, s, binary, *names):
        """What the next upgrade runs: kvd-v1 or kvd-v2, with these faults."""
        s.install(binary)
        s.arguments = faults(*names)
        s.configure()

    def version(self, s):
        """The version that answers clients now."""
        with s.client() as c:
            return "%.1f" % c.info()["kvd_version"]

    def upgrade(self, s, binary, *names, old="an upgrade"):
        """An upgrade that must commit; what runs then may have faults for later."""
        self.use(s, binary, *names)
        u = s.upgrade()
        self.assert_outcome(u, 0, "committed", old)
        return u

    def await_stop(self, s, u):
        """Until a daemon of this upgrade has come to its fault "POINT:stop"; it waits for let_go()."""
        u.stopped = harness.wait_until(
            lambda: next((p for p in self.daemons(s) if p.state == "T"), None), "kvd is stopped").pid
        self.addCleanup(self.let_go, u)

    def let_go(self, u):
        with contextlib.suppress(ProcessLookupError):
            os.kill(u.stopped, signal.SIGCONT)

    def calm(self, load):
        """Until what has queued up in a stall is answered: who asks then asks in time."""
        load.stats()  # what was printed before this is of the past
        load.wait_line(lambda x: x["event"] == "progress" and x["window"]["ok"] > 20 and
                       x["window"]["max_us"] < 100000, "calm")

    def assert_outcome(self, u, code, outcome, message=""):
        self.assertIsNotNone(u.result, "%s\n%s\n%s" % (u.lines, u.errors(), message))
        self.assertEqual((u.code, u.result["outcome"]), (code, outcome),
                         "%s\n%s" % (u.result, message))
        self.assertEqual(u.result["code"], code)

    def daemons(self, s):
        """Every kvd of the service, whatever path it was started from."""
        return [p for p in s.leftovers() if "--data-dir " + s.data_dir in p.command]

    def assert_serves(self, s, version):
        """This version serves, alone, and the supervisor knows it."""
        status = s.wait_state("idle")
        self.assertEqual(status["version"], version, s.log())
        self.assertEqual(self.version(s), version, s.log())
        harness.wait_until(lambda: [p.pid for p in self.daemons(s)] == [status["pid"]],
                           lambda: "one daemon is left: %s" % self.daemons(s))

    def assert_clean_upgrade(self, s, binary):
        """What failed before leaves nothing behind that makes the next one fail."""
        self.upgrade(s, binary)
        self.assert_serves(s, "1.0" if binary == "kvd-v1" else "2.0")

    def kinds(self, s):
        """What handoffd has open, without numbers that change with each run."""
        found = harness.descriptors(s.supervisor.pid).values()
        return collections.Counter(
            "socket" if x.startswith("socket:") else x.replace(" (deleted)", "") for x in found)

    def assert_same_descriptors(self, s, before):
        """handoffd has no more descriptors of any kind than before. (Fewer may be: a
        connection of handoffctl was on its way out then.)"""
        harness.wait_until(lambda: not self.kinds(s) - before,
                           lambda: "more descriptors: %s, before: %s" % (self.kinds(s), before))
