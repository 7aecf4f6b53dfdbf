"""handoffctl explain: cause first, who, in which phase, by which limit, and what to do."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import unittest

import harness
from handoffs import HandoffCase

NEW = "kvd-v2"
NOBODY = 65534


class ExplainCase(HandoffCase):
    def explain(self, s, *args):
        """What people read, and what scripts read."""
        people = s.ctl("explain", "kvd", *args)
        self.assertEqual(people.returncode, 0, people.stderr)
        scripts = s.ctl("--json", "explain", "kvd", *args)
        self.assertEqual(scripts.returncode, 0, scripts.stdout)
        return people.stdout, json.loads(scripts.stdout)

    def assert_failed(self, s, role, phase, timer=None):
        text, record = self.explain(s)
        failed = record["failed"]
        self.assertEqual((failed["role"], failed["phase"], failed["timer"]), (role, phase, timer),
                         "%s\n%s" % (record, s.log()))
        lines = text.splitlines()
        self.assertEqual(lines[0], "Cause: %s." % failed["cause"])
        self.assertIn("At fault was the %s, in the phase %s" % (role, phase), lines[1])
        if timer:
            self.assertIn("the time limit %s was over" % timer, lines[1])
        self.assertIn("What to do:", lines)
        return text, record


class Explain(ExplainCase):
    def test_committed(self):
        s = self.kvd()
        p = s.ctl("explain", "kvd")
        self.assertEqual(p.returncode, 1)
        self.assertIn("no handoff is remembered", p.stderr)
        self.use(s, NEW)
        u = s.upgrade("--reason", "release 2")
        text, record = self.explain(s)
        self.assertTrue(text.startswith("The handoff %s was committed: " % u.result["handoff"]), text)
        for words in ("Nobody accepted for", "by uid %d, reason: release 2." % os.getuid(), "version 2.0",
                      "incumbent: Drained", "successor: Ready", "\n  Nothing.\n"):
            self.assertIn(words, text)
        self.assertEqual((record["handoff"], record["log"]), (u.result["handoff"], None))

    def test_by_id(self):
        s = self.kvd()
        first = self.upgrade(s, NEW).result["handoff"]
        second = self.upgrade(s, "kvd-v1").result["handoff"]
        for given, meant in ((first, first), (first[:8], first), (second[:13], second),
                             (first.upper(), first)):
            self.assertEqual(self.explain(s, given)[1]["handoff"], meant)
        self.assertEqual(self.explain(s)[1]["handoff"], second)
        p = s.ctl("explain", first[:8])   # of the only service
        self.assertIn(first, p.stdout)
        p = s.ctl("explain", "kvd", "00000000")
        self.assertEqual(p.returncode, 1)
        self.assertIn("no handoff 00000000 is remembered", p.stderr)
        self.assertEqual(s.ctl("explain", "kvd", "12345").returncode, 2)

    def test_the_successor_is_unhealthy(self):
        s = self.kvd()
        self.use(s, NEW, "ready:unhealthy")
        self.assert_outcome(s.upgrade(), 1, "aborted")
        text, record = self.assert_failed(s, "successor", "ready")
        self.assertIn("kvd[%d]" % record["to"]["pid"], record["log"])
        self.assertNotIn("handoffd[kvd]", record["log"])
        self.assertIn("The last lines that the daemons wrote:\n", text)

    def test_where_it_is_said(self):
        """A failed upgrade names the command that explains it."""
        s = self.kvd()
        self.use(s, NEW, "begin:die")
        p = s.ctl("upgrade", "kvd")
        self.assertEqual(p.returncode, 1)
        where = p.stderr.splitlines()[-1]
        self.assertRegex(where, "^  why, and what to do: handoffctl explain kvd [0-9a-f]{8}$")
        p = s.ctl(*where.split()[-3:])
        self.assertIn("the successor died while it opened the state", p.stdout)

    def test_nobody_serves(self):
        """The last handoff was well, and nothing is now: that comes first."""
        s = self.kvd()
        self.upgrade(s, NEW)
        os.rename(s.data_dir, s.data_dir + ".away")
        os.kill(s.daemon_pid(), 9)
        s.wait_state("cold")
        harness.wait_until(lambda: s.status()["warning"], "it is known why")
        p = s.ctl("explain", "kvd")
        self.assertRegex(p.stderr, "^handoffctl: kvd is NOT served now: .+; see 'handoffctl status kvd', "
                         "and its log\n$")
        self.assertIn("committed", p.stdout)
        self.assertIn("kvd: cold, NOT served\n", s.ctl("status", "kvd").stdout)
        os.rename(s.data_dir + ".away", s.data_dir)
        s.wait_state("idle")
        self.assertEqual(s.ctl("explain", "kvd").stderr, "")
        self.assertIn("kvd: idle, served\n", s.ctl("status", "kvd").stdout)

    def test_the_successor_dies(self):
        s = self.kvd()
        self.use(s, NEW, "begin:die")
        self.assert_outcome(s.upgrade(), 1, "aborted")
        _, record = self.assert_failed(s, "successor", "ready")
        self.assertIn("the successor died while it opened the state", record["failed"]["cause"])
        ends = [x["what"] for x in record["steps"] if x["who"] == "successor"]
        self.assertIn("killed", ends[-1])

    def test_the_advice_names_the_service(self):
        """A command that is copied from it must not hit another one."""
        s = self.kvd()
        self.use(s, NEW, "warmup:die")
        self.assert_outcome(s.upgrade(), 1, "aborted")
        self.assertIn("try with 'handoffctl plan kvd', which", s.ctl("explain").stdout)
        door = s.path("run", "kvd", "control.sock")
        self.assertIn("try with 'handoffctl plan -S %s', which" % door, s.ctl("explain", "-S", door).stdout)

    def test_time_limits(self):
        s = self.kvd()
        self.use(s, NEW, "warmup:hang")
        self.assert_outcome(s.upgrade(), 1, "aborted")
        text, _ = self.assert_failed(s, "successor", "warm", "start-timeout")
        self.assertIn("raise start-timeout", text)

    def test_the_incumbent_is_late(self):
        # it is busy, and comes back by itself: not one that hangs
        s = self.kvd("drain:delay=5000", options={"start-timeout": "1min", "self-fence": "20s", "presumed-dead": "30s"})
        self.use(s, NEW)
        self.assert_outcome(s.upgrade(), 1, "aborted")
        text, _ = self.assert_failed(s, "incumbent", "drain", "drain-grace")
        self.assertIn("--drain-grace", text)

    def test_the_supervisor_wakes_late(self):
        """What lies in its sockets is read before the clock: not the successor took the time."""
        s = self.kvd("seal:delay=2000", options={"deadline": "4s", "drain-grace": "1s", "self-fence": "40s",
                                                 "presumed-dead": "50s"})
        pid, lock = s.daemon_pid(), os.stat(os.path.join(s.data_dir, ".handoff.lock")).st_ino

        def has_sealed():
            held = re.search(r" FLOCK .* %d [^ ]+:%d " % (pid, lock), harness.read_file("/proc/locks"))
            return not held and harness.Process(pid).state == "S"
        self.use(s, NEW, "begin:delay=30000")   # which never gets to it
        u = s.start_upgrade()
        u.wait_phase("seal")
        over = time.monotonic() + 5
        os.kill(s.supervisor.pid, signal.SIGSTOP)
        harness.wait_until(has_sealed, "the seal")
        os.kill(pid, signal.SIGSTOP)   # else it serves again by itself, and says so
        time.sleep(max(0, over - time.monotonic()))
        os.kill(s.supervisor.pid, signal.SIGCONT)
        u.wait_phase("resume")
        os.kill(pid, signal.SIGCONT)
        u.wait()
        self.assert_outcome(u, 1, "aborted")
        text, _ = self.assert_failed(s, "incumbent", "seal", "deadline")
        self.assertIn("within deadline: that was over when the incumbent had sealed", text)
        self.assertIn("Closing the data took longer", text)

    def test_an_operator_asked(self):
        s = self.kvd()
        self.use(s, NEW, "warmup:hang")
        u = s.start_upgrade()
        u.wait_phase("warm")
        s.ctl("abort", "kvd", "--reason", "not now")
        u.wait()
        text, record = self.assert_failed(s, "operator", "warm")
        self.assertIn("not now", record["failed"]["cause"])
        self.assertIn("Nothing is wrong", text)

    def test_the_supervisor_died(self):
        s = self.kvd()
        self.use(s, NEW, "warmup:hang")
        u = s.start_upgrade("--reason", "release 3")
        u.wait_phase("warm")
        s.kill_supervisor()
        s.start()
        u.wait()
        text, _ = self.assert_failed(s, "supervisor", "adopt")
        self.assertIn("reason: release 3", text)
        self.assertIn("supervisor: started again", text)

    def test_under_way(self):
        s = self.kvd()
        self.use(s, NEW, "warmup:hang")
        u = s.start_upgrade()
        u.wait_phase("warm")
        text, record = self.explain(s)
        self.assertEqual(record["outcome"], "under way")
        self.assertIn("is under way", text)
        u.process.send_signal(signal.SIGINT)
        u.wait()


class Output(ExplainCase):
    """Where the last lines come from."""

    def aborted(self, **options):
        s = self.kvd(options=options)
        self.use(s, NEW, "ready:unhealthy")
        self.assert_outcome(s.upgrade(), 1, "aborted")
        return s

    def test_a_file(self):
        s = self.kvd(start=False)
        out = s.path("kvd.out")
        with open(out, "w", encoding="utf-8") as f:
            f.write("of the last week\n")
        s.configure(output=out)
        s.start()
        self.use(s, NEW, "ready:unhealthy")
        self.assert_outcome(s.upgrade(), 1, "aborted")
        _, record = self.explain(s)
        self.assertIn("kvd[%d]" % record["to"]["pid"], record["log"])
        self.assertNotIn("of the last week", record["log"])

    def test_a_busy_incumbent(self):
        """It writes far more behind what the successor said: that is there all the same."""
        s = self.kvd(start=False)
        out = s.path("kvd.out")
        s.configure(output=out)
        s.start()
        old = s.daemon_pid()
        self.use(s, NEW, "warmup:hang")
        u = s.start_upgrade()
        new = s.wait_status(lambda x: x["successor_pid"], "there is a successor")["successor_pid"]
        harness.wait_until(lambda: "kvd[%d]" % new in harness.read_file(out), "the successor writes")
        with open(out, "a", encoding="utf-8") as f:
            f.write("by nobody\n")
            f.write("".join("kvd[%d] request %d\n" % (old, i) for i in range(4000)))
        os.kill(new, signal.SIGKILL)
        u.wait()
        self.assert_outcome(u, 1, "aborted")
        log = self.explain(s)[1]["log"]
        self.assertIn("kvd[%d]" % new, log)
        self.assertIn("by nobody", log)
        self.assertNotIn("request", log)

    def test_a_file_that_is_not_the_incumbents(self):
        """The successor had another: what the incumbent's has is not the cause."""
        s = self.kvd(start=False)
        s.configure(output=s.path("kvd.out"))
        s.start()
        s.configure(output=s.path("new.out"))
        self.use(s, NEW, "ready:unhealthy")
        self.assert_outcome(s.upgrade(), 1, "aborted")
        self.assertIn("kvd", harness.read_file(s.path("new.out")))
        self.assertEqual(self.explain(s)[1]["log"], None)

    def test_the_journal(self):
        """Its last lines, as many as fit, and none that is cut."""
        s = self.aborted(output="/dev/null")
        fake = s.path("bin", "journalctl")
        lines = ["%04d %s" % (i, "x" * 300) for i in range(30)]
        with open(fake, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\ncat <<'E'\n%s\nE\n" % "\n".join(lines))
        os.chmod(fake, 0o755)
        s.env["PATH"] = "%s:%s" % (s.path("bin"), os.environ["PATH"])
        self.assertEqual(self.explain(s)[1]["log"].splitlines(), lines[-6:])

    def test_what_is_no_file_costs_nothing(self):
        s = self.aborted(output="/dev/null")
        self.assertEqual(self.explain(s)[1]["log"], None)

    @unittest.skipIf(os.getuid() != 0, "needs root, to be another user")
    def test_not_for_everybody(self):
        s = self.aborted()
        control = s.path("run", "kvd", "control.sock")
        os.chmod(s.dir, 0o711)
        ctl = s.path("handoffctl")
        shutil.copy(harness.program("handoffctl"), ctl)
        p = subprocess.run(["setpriv", "--reuid=%d" % NOBODY, "--regid=%d" % NOBODY, "--clear-groups",
                            ctl, "--json", "explain", "-S", control], env=s.env, text=True, check=False,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=harness.PATIENCE)
        record = json.loads(p.stdout)
        self.assertEqual((record["outcome"], record["log"]), ("aborted", None))
        self.assertIsNotNone(self.explain(s)[1]["log"])


if __name__ == "__main__":
    unittest.main()
