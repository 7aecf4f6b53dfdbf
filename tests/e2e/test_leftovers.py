"""What a daemon leaves behind when it ends: it is ended too, and said, and nobody waits for it."""

import contextlib
import os
import shutil
import signal
import unittest

import harness
from handoffs import TIMERS, HandoffCase, faults

NEW, OLD = "kvd-v2", "kvd-v1"
LONG = 600000  # ms: none of them ends by itself
KINDS = ("helper", "deaf", "stray", "brood")
PATIENT = {"self-fence": "60s", "presumed-dead": "61s"}   # another handoffd may take its time


def leaving(*kinds, point="ready"):
    """Faults of a daemon that starts such helpers, with the lock's descriptor."""
    return ["%s:%s=%d" % (point, k, LONG) for k in kinds]


def session(pid):
    stat = harness.read_file("/proc/%d/stat" % pid)
    return int(stat[stat.rfind(")") + 2:].split()[3])


class Case(HandoffCase):
    def kvd(self, *names, **kwargs):
        # the lock comes free when a deaf helper has been killed: that is after a second
        options = {"deadline": "10s", "start-timeout": "20s", "exit-timeout": "5s",
                   **kwargs.pop("options", {})}
        return super().kvd(*names, options=options, **kwargs)

    def helpers(self, s):
        """All that is neither the supervisor nor a daemon that it knows."""
        status = s.status() or {}
        known = (s.supervisor.pid, status.get("pid"), status.get("successor_pid"))
        return [p for p in self.daemons(s) if p.pid not in known]

    def wait_helpers(self, s, n):
        """The pids of n helpers. Whoever forks them is there before them, and may have gone behind."""
        def there():
            found.append(sorted(p.pid for p in self.helpers(s)))
            return len(found[-1]) == n and found[-2:] == found[-1:] * 2
        found = []
        harness.wait_until(there, lambda: "%d helpers: %s\n%s" % (n, self.helpers(s), s.log()))
        return found[-1]

    def assert_ended(self, s, *pids):
        """They are gone, and nothing is known of them any more."""
        harness.wait_until(lambda: not any(harness.is_alive(p) for p in pids),
                           lambda: "%s end\n%s" % (pids, s.log()))
        s.wait_status(lambda x: x["leftovers"] == 0, "nothing is left")
        s.assert_no_zombies()

    def assert_said(self, s, daemon, name="kvd"):
        self.assertRegex(s.log(), r"helper %s \(pid \d+\) of the daemon that ended \(pid %d\) is ended"
                         % (name, daemon))


class Leftovers(Case):
    def each(self, kinds=KINDS):
        for kind in kinds:
            with self.subTest(kind=kind):
                n = 20 if kind == "brood" else 1
                s = self.kvd(*leaving(kind))
                yield kind, s, s.daemon_pid(), self.wait_helpers(s, n)
                s.finish()

    def test_upgrade(self):
        """Committed at once, and the next one while they still go."""
        for _, s, old, pids in self.each():
            u = self.upgrade(s, NEW)
            self.assertLess(u.result["pause_us"], 900000, "nobody has waited for them")
            self.upgrade(s, OLD)
            self.assert_ended(s, *pids)
            self.assert_said(s, old)
            self.assert_serves(s, "1.0")

    def test_crash(self):
        """The lock's descriptor is theirs too: the next daemon gets it when they have ended."""
        for _, s, old, pids in self.each():
            os.kill(old, signal.SIGKILL)
            s.wait_status(lambda x, old=old: x["state"] == "idle" and x["pid"] != old, "it serves")
            self.assert_ended(s, *pids)
            self.assert_said(s, old)

    def test_crash_in_each_phase(self):
        """The handoff goes on with the successor, which waits for the lock."""
        for at in ("warm", "drain:die", "seal:die"):
            with self.subTest(at=at):
                s = self.kvd(*leaving("deaf", "stray"), *([at] if ":" in at else []))
                old, pids = s.daemon_pid(), self.wait_helpers(s, 2)
                self.use(s, NEW, *(["warmup:delay=500"] if at == "warm" else []))
                u = s.start_upgrade()
                if at == "warm":
                    u.wait_phase("warm")
                    os.kill(old, signal.SIGKILL)
                u.wait()
                self.assert_outcome(u, 0, "committed", s.log())
                self.assert_ended(s, *pids)
                self.assert_said(s, old)
                self.assert_serves(s, "2.0")

    def test_of_a_successor(self):
        """One that came to nothing leaves nothing either; the incumbent needs the lock that its
        helpers have."""
        s = self.kvd()
        pid = s.daemon_pid()
        self.use(s, NEW, "open:helper=%d" % LONG, "open:stray=%d" % LONG, "ready:die")
        u = s.upgrade()
        self.assert_outcome(u, 1, "aborted", s.log())
        self.assert_ended(s, *(p.pid for p in self.helpers(s)))
        self.assert_serves(s, "1.0")
        self.assertEqual(s.daemon_pid(), pid)

    def test_those_of_the_daemon_that_serves_stay(self):
        s = self.kvd(*leaving("helper", "stray"))
        old = self.wait_helpers(s, 2)
        self.upgrade(s, OLD, *leaving("helper", "stray"))
        self.assert_ended(s, *old)
        mine = self.wait_helpers(s, 2)
        for fault in ("warmup:die", "ready:unhealthy"):  # other daemons come and go
            self.use(s, NEW, fault)
            self.assertEqual(s.upgrade().code, 1)
        s.wait_status(lambda x: x["leftovers"] == 0, "nothing is left")
        self.assertEqual(sorted(p.pid for p in self.helpers(s)), sorted(mine))
        self.upgrade(s, NEW)
        self.assert_ended(s, *mine)

    def test_started_while_both_live(self):
        """In a session of its own, too, it goes with the daemon that has started it."""
        s = self.kvd(*leaving("stray", point="drain"))
        self.upgrade(s, NEW, *leaving("stray"))
        s.wait_status(lambda x: x["leftovers"] == 0, "nothing is left")
        mine = self.wait_helpers(s, 1)
        self.upgrade(s, OLD)
        self.assert_ended(s, *mine)

    def test_counted(self):
        for _ in range(10):
            s = self.kvd(*leaving("deaf"))
            pids = self.wait_helpers(s, 1)
            self.upgrade(s, NEW)
            text, count = s.ctl("status", "kvd").stdout, s.status()["leftovers"]
            self.assert_ended(s, *pids)
            if count and "leftovers" in text:
                break
            s.finish()  # too slow: it was over already; or too fast, and not seen yet
        self.assertEqual(count, 1)
        self.assertIn("1 process of earlier daemons is being ended", text)
        self.assertIn("is ended by force", s.log())
        harness.wait_until(lambda: "nothing is left of the daemon that ended" in s.log(), "it is said")

    def test_stop(self):
        """When handoffd has ended, so has everything."""
        for _, s, _, pids in self.each():
            self.assertEqual(s.stop(), 0)
            self.assertEqual([p for p in pids if harness.is_alive(p)], [], s.log())
            s.assert_nothing_left()

    def test_stop_while_they_go(self):
        """Of several daemons at once."""
        s = self.kvd(*leaving("deaf"))
        self.wait_helpers(s, 1)
        self.upgrade(s, NEW, *leaving("deaf", "stray"))
        self.assertEqual(s.stop(), 0)
        s.assert_nothing_left()

    def test_stop_after_stop_timeout(self):
        """A daemon that had to be killed leaves no more time to those it has left."""
        s = self.kvd(*leaving("deaf"), "exit:hang", options={"stop-timeout": "1s"})
        self.wait_helpers(s, 1)
        self.assertEqual(s.stop(), 0)
        s.assert_nothing_left()
        self.assertIn("is ended by force", s.log())


class SupervisorDies(Case):
    """Their parent is another one now: those of the daemon's session are found all the same."""

    def test_then_an_upgrade(self):
        for kind in ("helper", "deaf", "brood"):
            with self.subTest(kind=kind):
                s = self.kvd(*leaving(kind))
                old, pids = s.daemon_pid(), self.wait_helpers(s, 20 if kind == "brood" else 1)
                s.kill_supervisor()
                s.start()
                self.upgrade(s, NEW)
                self.assert_ended(s, *pids)
                self.assert_said(s, old)
                self.assert_serves(s, "2.0")

    def test_the_report_waits_for_them(self):
        """All three die. A helper has the listening sockets: they cannot be bound before it is
        ended, and until then nobody knows how the upgrade ends."""
        s = self.kvd(*leaving("deaf"))
        old, pids = s.daemon_pid(), self.wait_helpers(s, 1)
        other = s.path("bin", "other")
        shutil.copy(harness.program(NEW), other)
        s.arguments = faults("warmup:hang")
        s.configure()
        u = s.start_upgrade("--binary", other)
        new = s.wait_status(lambda x: x["successor_pid"], "there is a successor")["successor_pid"]
        for pid in (s.supervisor.pid, old, new):
            os.kill(pid, signal.SIGKILL)
        s.ended(-signal.SIGKILL)
        s.arguments = []
        s.configure()
        s.start()
        u.wait()
        self.assert_outcome(u, 1, "aborted", s.log())
        self.assertIn("address in use", s.log())
        self.assert_ended(s, *pids)
        self.assert_serves(s, "1.0")

    def test_while_they_go(self):
        s = self.kvd(*leaving("deaf"))
        pids = self.wait_helpers(s, 1)
        self.upgrade(s, NEW)
        s.kill_supervisor()
        s.start()
        self.assert_ended(s, *pids)
        self.assert_serves(s, "2.0")

    def test_adopted_and_then_a_reexec(self):
        """What such a daemon leaves comes to another process, also in handoffd's next life."""
        s = self.kvd(*leaving("deaf"), options=PATIENT)
        old, pids = s.daemon_pid(), self.wait_helpers(s, 1)
        s.kill_supervisor()
        s.start()
        self.assertEqual(s.ctl("reexec", s.name).returncode, 0, s.log())
        os.kill(old, signal.SIGKILL)
        self.assert_ended(s, *pids)
        self.assert_said(s, old)

    def test_a_reexec_while_they_go(self):
        """Whose they are, handoffd's next life could not tell: they end before it."""
        s = self.kvd(*leaving("deaf"), options=PATIENT)
        old, pids = s.daemon_pid(), self.wait_helpers(s, 1)
        self.upgrade(s, NEW)
        self.assertEqual(s.ctl("reexec", s.name).returncode, 0, s.log())
        self.assert_ended(s, *pids)
        log = s.log()
        self.assertLess(log.index("nothing is left of the daemon that ended (pid %d)" % old),
                        log.index("goes on as handoffd"), log)

    def test_both_die(self):
        s = self.kvd(*leaving("deaf"))
        old, pids = s.daemon_pid(), self.wait_helpers(s, 1)
        s.kill_supervisor()
        os.kill(old, signal.SIGKILL)
        s.start()
        self.assert_ended(s, *pids)
        self.assert_said(s, old)

    def test_one_that_cannot_be_told_is_left_alone(self):
        """In a session of its own, and its parent was the supervisor that died: it may be
        anybody's."""
        s = self.kvd(*leaving("stray"))
        stray, = self.wait_helpers(s, 1)
        self.assertEqual(harness.Process(stray).parent, s.supervisor.pid)
        s.kill_supervisor()
        s.start()
        self.upgrade(s, NEW)
        s.wait_status(lambda x: x["leftovers"] == 0, "nothing is left")
        self.assertTrue(harness.is_alive(stray))
        os.kill(stray, signal.SIGKILL)


class OtherChildren(Case):
    def test_not_of_a_daemon(self):
        """What was handoffd's before its exec is not the service's."""
        s = self.service("kvd-v1", start=False, options=TIMERS)
        s.launcher = ["sh", "-c", 'setsid sleep 600 & exec "$@"', "sh"]
        s.start()
        sleeper, = [p.pid for p in harness.children(s.supervisor.pid) if p.comm == "sleep"]
        self.upgrade(s, NEW)
        self.assertEqual(s.stop(), 0)
        self.assertTrue(harness.is_alive(sleeper))
        os.kill(sleeper, signal.SIGKILL)


def delegated():
    """A cgroup of its own for a handoffd, marked as delegated, or the reason why there is none."""
    places = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
    if not any(os.path.exists(top + "/cgroup.procs") for top in places):
        with contextlib.suppress(OSError):
            harness.own_cgroups()
    for top in places:
        if not os.path.exists(top + "/cgroup.procs"):
            continue
        path = "%s/handoff-test-%d" % (top, os.getpid())
        try:
            os.mkdir(path)
            os.setxattr(path, "user.delegate", b"1")
        except OSError as e:
            return None, "no cgroup can be made here: %s" % e.strerror
        return path, None
    return None, "no cgroup can be made here: there is no version 2"


class Cgroups(Case):
    def setUp(self):
        self.group, reason = delegated()
        if reason:
            self.skipTest(reason)
        self.addCleanup(self.remove)

    def remove(self):
        """Nothing of handoffd's is in it."""
        left = [x.name for x in os.scandir(self.group) if x.is_dir()]
        for x in left:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(self.group, x))
        os.rmdir(self.group)
        self.assertEqual(left, [])

    def kvd(self, *names, **kwargs):
        s = super().kvd(*names, start=False, **kwargs)
        s.launcher = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', self.group]
        s.start()
        return s

    def groups(self):
        """{name: its processes}"""
        return {x.name: sorted(map(int, harness.read_file(x.path + "/cgroup.procs").split()))
                for x in os.scandir(self.group) if x.is_dir()}

    def one_group(self, s):
        def look():
            groups = list(self.groups().values())
            return len(groups) == 1 and s.status()["pid"] in groups[0]
        harness.wait_until(look, lambda: "one group is left: %s" % self.groups())

    def test_upgrade(self):
        """Each has its own, and the old one's goes, with all that is in it."""
        s = self.kvd(*leaving(*KINDS))
        old, pids = s.daemon_pid(), self.wait_helpers(s, 23)
        self.assertEqual(list(self.groups().values()), [sorted([old] + pids)])
        self.upgrade(s, NEW, *leaving("stray"))
        self.assert_ended(s, *pids)
        self.assert_said(s, old)
        self.one_group(s)
        self.upgrade(s, OLD)
        self.one_group(s)
        self.assertEqual(s.stop(), 0)
        s.assert_nothing_left()
        self.assertEqual(self.groups(), {})

    def test_started_while_both_live(self):
        """In a session of its own, too, it is known whose it is."""
        s = self.kvd(*leaving("stray", point="drain"))
        self.upgrade(s, NEW, *leaving("stray"))
        self.one_group(s)
        self.wait_helpers(s, 1)

    def test_crash_and_failed_starts(self):
        s = self.kvd(*leaving("deaf", "stray"))
        old, pids = s.daemon_pid(), self.wait_helpers(s, 2)
        os.kill(old, signal.SIGKILL)
        s.wait_status(lambda x: x["state"] == "idle" and x["pid"] != old, "it serves")
        self.assert_ended(s, *pids)
        self.use(s, NEW, "open:stray=%d" % LONG, "ready:die")
        self.assertEqual(s.upgrade().code, 1)
        self.one_group(s)

    def test_supervisor_dies(self):
        """A stray is found too, since the group says whose it is."""
        s = self.kvd(*leaving("deaf", "stray"))
        pids = self.wait_helpers(s, 2)
        s.kill_supervisor()
        s.start()
        self.upgrade(s, NEW, *leaving("stray"))
        s.kill_supervisor()  # with a generation on its way out
        s.start()
        self.assert_ended(s, *pids)
        self.one_group(s)
        more = self.wait_helpers(s, 1)
        s.kill_supervisor()
        os.kill(self.serving(s, more), signal.SIGKILL)
        s.start()
        self.assert_ended(s, *more)
        self.one_group(s)

    def test_the_journal_is_lost(self):
        """The group of the one that serves is no leftover, known by its environment or not."""
        for path in (None, "elsewhere"):
            with self.subTest(path=path):
                s = self.kvd()
                pid = s.daemon_pid()
                s.kill_supervisor()
                s.lose_journal(path)
                s.start()
                self.assertEqual(s.daemon_pid(), pid)
                self.one_group(s)
                self.upgrade(s, NEW)
                self.one_group(s)
                s.finish()

    def serving(self, s, helpers):
        pid, = [p.pid for p in self.daemons(s) if p.pid not in helpers]
        return pid

    def test_no_more_groups(self):
        """As many as there may be: helpers are told by their session."""
        with open(self.group + "/cgroup.max.descendants", "w", encoding="ascii") as f:
            f.write("0")
        s = self.kvd(*leaving("helper"))
        pids = self.wait_helpers(s, 1)
        self.assertIn("the daemon (pid %d) gets no cgroup of its own: " % s.daemon_pid(), s.log())
        self.upgrade(s, NEW)
        self.assert_ended(s, *pids)

    def test_group_that_stays(self):
        """The daemon has made more below its own than is removed."""
        s = self.kvd()
        name, = self.groups()
        below = [os.path.join(self.group, name, *"0123456789"[:n]) for n in range(11)]
        os.makedirs(below[-1])
        self.upgrade(s, NEW)
        harness.wait_until(lambda: "warning: the cgroup %s cannot be removed" % name in s.log(), "it is told")
        self.upgrade(s, OLD)
        for path in reversed(below):
            os.rmdir(path)

    def test_not_delegated(self):
        """Nothing is made where nobody has allowed it."""
        os.removexattr(self.group, "user.delegate")
        s = self.kvd(*leaving("helper"))
        pids = self.wait_helpers(s, 1)
        self.assertEqual(self.groups(), {})
        self.upgrade(s, NEW)
        self.assert_ended(s, *pids)


if __name__ == "__main__":
    unittest.main()
