"""What an operator can mend, and whom a supervisor takes for its daemon."""
import os
import re
import shutil
import subprocess
import sys
import time
import unittest

import harness


class Restart(harness.TestCase):
    def restart(self, service, code):
        r = service.ctl("--json", "restart", service.name)
        self.assertEqual(r.returncode, code, r.stdout + r.stderr)

    def test_it_reads_the_configuration_again_while_nobody_serves(self):
        service = self.service()
        service.arguments = ["--no-such-option"]
        service.configure()
        self.restart(service, 5)
        self.assertEqual(service.upgrade().code, 5)
        service.arguments = []
        service.configure()
        self.restart(service, 0)
        self.assertEqual(service.status()["state"], "idle")

    def test_a_start_that_hangs_is_ended_for_the_one_that_is_asked_for(self):
        """And who asked is told how that one went, not the one before."""
        service = self.service("kvd-v1", arguments=["--fault", "warmup:hang"], start=False,
                               options={"start-timeout": "60s"})
        service.launch()
        harness.wait_until(lambda: "hang at warmup" in service.log(), "a start that hangs")
        service.arguments = []
        service.configure()
        self.restart(service, 0)
        self.assertEqual(service.status()["state"], "idle")

    def test_a_mistake_in_it_costs_nothing(self):
        service = self.service()
        pid = service.daemon_pid()
        service.configure(deadline="soon")
        self.restart(service, 2)
        self.assertEqual(service.daemon_pid(), pid)
        service.configure(deadline=None)
        self.assertEqual(service.upgrade().code, 0)

    def test_it_may_move_the_data_directory(self):
        service = self.service()
        service.client().set("where", "before")
        service.data_dir = service.path("data2")
        os.mkdir(service.data_dir)
        service.configure()
        self.assertEqual(service.upgrade().code, 2)
        self.restart(service, 0)
        self.assertIsNone(service.client().get("where"))


class WhoIsIt(harness.TestCase):
    def test_a_copied_lock_names_another_services_daemon(self):
        one = self.service()
        two = self.service(start=False)
        shutil.copy(os.path.join(one.data_dir, ".handoff.lock"), two.data_dir)
        two.start()
        self.assertNotEqual(one.daemon_pid(), two.daemon_pid())
        two.stop()
        self.assertEqual(one.client().ping(), True)

    def test_a_lost_journal_is_made_up_for_by_the_lock(self):
        service = self.service()
        pid = service.daemon_pid()
        service.kill_supervisor()
        os.remove(service.path("run", service.name, "journal"))
        service.start()
        self.assertEqual(service.daemon_pid(), pid)
        self.assertEqual(service.upgrade().code, 0)

    def test_so_it_is_for_a_daemon_of_another_user(self):
        """The unit leaves root no capability to look at it; nothing is started beside it."""
        if os.geteuid():
            self.skipTest("needs root, to be another user")
        service = self.service(start=False, options={"user": "nobody"})
        service.launcher = harness.bounded()
        os.chmod(service.dir, 0o755)
        shutil.chown(service.data_dir, "nobody")
        service.start()
        pid = service.daemon_pid()
        service.kill_supervisor()
        os.remove(service.path("run", service.name, "journal"))
        service.start()
        self.assertEqual(service.daemon_pid(), pid)
        self.assertIn("adopting what runs", service.log())

    def test_so_it_is_on_an_overlay(self):
        """Files there have another device than the file system, whose the kernel's list names."""
        if os.geteuid():
            self.skipTest("needs root, to mount")
        mounts = """
            data=$1; shift
            mount -t tmpfs none "$data" && mkdir "$data/low" "$data/top" &&
            mount -t tmpfs none "$data/top" && mkdir "$data/top/up" "$data/top/work" &&
            mount -t overlay -o "lowerdir=$data/low,upperdir=$data/top/up,workdir=$data/top/work" \
                none "$data" || exit 1
            [ $# = 0 ] || exec "$@" """
        service = self.service(start=False)
        launcher = ["unshare", "--mount", "sh", "-c", mounts, "sh", service.data_dir]
        if subprocess.run(launcher, stderr=subprocess.DEVNULL, check=False).returncode:
            self.skipTest("no overlay can be mounted here")
        service.launcher = launcher
        service.start()
        pid = service.daemon_pid()
        service.kill_supervisor()
        os.remove(service.path("run", service.name, "journal"))
        service.launcher = ["nsenter", "--mount", "--target", str(pid)]
        service.start()
        self.assertEqual(service.daemon_pid(), pid)
        self.assertIn("adopting what runs", service.log())

    def test_who_has_the_lock_and_registers_is_no_stranger(self):
        """The journal is lost, and nothing else says that it is of this service."""
        service = self.service()
        pid = service.daemon_pid()
        service.kill_supervisor()
        service.lose_journal("elsewhere")
        service.start()
        self.assertEqual(service.daemon_pid(), pid)
        self.assertIn("warning: pid %d has the lock on the data, and no journal named it: it is adopted" % pid,
                      service.log())
        self.assertIsNone(service.status().get("since_ms"))
        self.assertNotIn("serves since", service.ctl("status", service.name).stdout)
        service.kill_supervisor()   # by now it is named again
        service.start()
        self.assertEqual(service.daemon_pid(), pid)
        self.assertEqual(service.log().count("it is adopted"), 1)
        self.assertEqual(service.upgrade().code, 0)

    def test_so_it_is_among_many_locks_of_others(self):
        """Any user may have them, and the kernel's list has what is younger first, by processors."""
        code = """if True:
            import fcntl, os, sys, tempfile
            files = [tempfile.TemporaryFile() for _ in range(8)]
            for cpu in os.sched_getaffinity(0):
                os.sched_setaffinity(0, [cpu])
                for f in files:
                    for i in range(1000):
                        fcntl.lockf(f, fcntl.LOCK_EX, 1, 2 * (1000 * cpu + i))
            print(flush=True)
            sys.stdin.read()
            """
        service = self.service()
        pid = service.daemon_pid()
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as others:
            others.stdout.readline()
            service.kill_supervisor()
            service.lose_journal("elsewhere")
            service.start()
            others.stdin.close()
        self.assertEqual(service.daemon_pid(), pid)
        self.assertIn("it is adopted", service.log())

    def test_another_supervisors_daemon_on_the_same_data_is_left_alone(self):
        one = self.service()
        pid = one.daemon_pid()
        two = self.service(start=False)
        two.data_dir = one.data_dir
        two.configure()
        two.launch()
        two.wait_state("cold")
        two.stop()
        self.assertEqual(one.daemon_pid(), pid)
        self.assertEqual(one.client().ping(), True)

    def wait_for_the_lock(self, one, **options):
        """Another service with the same data-dir, and who is in its way, as it says."""
        two = self.service(start=False, options=options)
        two.data_dir = one.data_dir
        two.configure()
        two.launch()
        who = "pid %d (%s) has the lock on %s, and pid" % (
            one.daemon_pid(), harness.Process(one.daemon_pid()).comm, one.data_dir)
        status = two.wait_status(lambda s: who in (s["warning"] or ""), "who has the lock")
        return two, who, status

    def test_a_start_that_waits_for_anothers_lock_says_whose(self):
        one = self.service()
        two, who, status = self.wait_for_the_lock(one)
        self.assertEqual(two.log().count("warning: " + who), 1)
        self.assertIn("; pid %d is being started, for " % status["successor_pid"],
                      two.ctl("status", two.name).stdout)
        self.assertIn("say what hinders it", two.upgrade().result["message"])
        one.stop()
        self.assertIsNone(two.wait_state("idle")["warning"])
        self.assertEqual(two.daemon_pid(), status["successor_pid"])
        self.assertTrue(two.client().ping())

    def test_a_start_that_was_ended_for_it_says_whose(self):
        one = self.service()
        two, who, _ = self.wait_for_the_lock(one, **{"start-timeout": "3s"})
        why = re.compile("did not open its state within start-timeout: pid [0-9]+ was killed.*: " +
                         re.escape(who))
        harness.wait_until(lambda: why.search(two.log()), "the end of that start")
        self.assertEqual(two.log().count("warning: " + who), 1)
        self.assertTrue(one.client().ping())

    def test_a_long_first_start_that_nothing_hinders(self):
        service = self.service(arguments=["--fault", "warmup:hang"], start=False)
        service.launch()
        harness.wait_until(lambda: "hang at warmup" in service.log(), "a start that takes long")
        status = service.status()
        self.assertIn("nothing is known to hinder it", status["refused"])
        self.assertIsNone(status["warning"])
        self.assertEqual(service.upgrade().code, 5)

    def test_behind_a_launcher(self):
        """The daemon is what env made of itself: it is started again through env, too."""
        def text(s):
            return """service kvd {
    command = {"/usr/bin/env", "%s", "--data-dir", "%s"}
    data-dir = "%s"
    listen resp { address = "%s" }
}
""" % (s.binary, s.data_dir, s.data_dir, s.listen["resp"])
        service = self.service(text=text)
        service.kill_supervisor()
        service.start()
        before = service.daemon_pid()
        os.kill(before, 9)
        service.wait_status(lambda s: s["state"] == "idle" and s["pid"] != before, "a new daemon")
        self.assertEqual(service.upgrade().code, 0)

    def test_who_is_refused_asks_less_and_less_often(self):
        """A supervisor that does not know the daemon: no loop of connections and log lines."""
        service = self.service()
        data = service.data_dir
        service.kill_supervisor()
        os.remove(service.path("run", service.name, "journal"))
        service.data_dir = service.path("data2")   # whose lock it has not
        os.mkdir(service.data_dir)
        service.configure()
        begin = time.monotonic()
        service.launch()
        harness.wait_until(lambda: service.log().count("is turned away") >= 8, "many tries")
        self.assertGreater(time.monotonic() - begin, 0.3)   # 10 + 20 + 40 + ... ms
        self.assertEqual(service.client().ping(), True)
        service.kill_supervisor()
        os.kill(service.daemons()[0].pid, 15)
        service.data_dir = data
        service.configure()
        service.start()


if __name__ == "__main__":
    unittest.main()
