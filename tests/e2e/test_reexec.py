"""Another handoffd goes on in the process of the one that runs: nobody notices, or nothing has
happened."""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
import unittest
import uuid

import harness
from attacks import as_user
from badinput import NOBODY, ROOT, SOCKETS, Case, receive
from fakesupervisor import frame
from handoffs import HandoffCase, faults
from moving import Wire

NEXT, OTHER = "handoffd-next", "handoffd-other"
UPGRADE, OUTCOME, WATCH, RESULT, EVENT = 64, 70, 73, 81, 80
# A new handoffd may take its time on this machine, unless that is the point.
PATIENT = {"self-fence": "60s", "presumed-dead": "61s"}
# It says yes, or waits for a word before it does, and then is another one.
GATE = """#!/bin/sh
case "$*" in *--check-carried*) : >'%s'; read word <'%s' || exit 1; [ "$word" = yes ] || exit 1 ;; esac
exec '%s' "$@"
"""
# It says yes, and then a file of the runtime directory is lost.
LOSES = """#!/bin/sh
case "$*" in *--check-carried*) ;; *) rm '%s' || exit 9 ;; esac
exec '%s' "$@"
"""


class Own(harness.Service):
    """A service whose handoffd lies where a package puts it, and can be replaced there."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **dict(kwargs, start=False))
        self.handoffd = self.path("bin", "handoffd")
        self.put(harness.program("handoffd"))

    def put(self, source):
        shutil.copy(source, self.handoffd + ".new")
        os.rename(self.handoffd + ".new", self.handoffd)

    def write(self, text, mode=0o755):
        with open(self.handoffd + ".new", "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(self.handoffd + ".new", mode)
        os.rename(self.handoffd + ".new", self.handoffd)

    def gate(self):
        """The next one waits when it is asked whether it can go on; open_gate() lets it."""
        os.mkfifo(self.path("gate"))
        self.write(GATE % (self.path("asked"), self.path("gate"), harness.program(NEXT)))

    def at_gate(self):
        harness.wait_until(lambda: os.path.exists(self.path("asked")), "the next one is asked")

    def open_gate(self, word):
        with open(self.path("gate"), "w", encoding="utf-8") as f:
            f.write(word + "\n")

    def launch(self):
        self.assert_no_end_of_its_own()
        with open(self.log_path, "ab") as log:
            self.supervisor = subprocess.Popen(
                [self.handoffd, "-c", self.conf] + self.flags, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=self.env, cwd=self.dir, start_new_session=True)

    def start_reexec(self, *args):
        u = harness.Upgrade([harness.program("handoffctl"), "--json", "reexec", self.name, *args],
                            self.env, self.path("reexec.%d.err" % len(self.background)))
        self.background.append(u)
        return u

    def reexec(self, *args):
        u = self.start_reexec(*args)
        u.wait()
        return u

    def operator(self):
        """A connection to control.sock."""
        c = socket.socket(socket.AF_UNIX)
        c.settimeout(harness.PATIENCE)
        c.connect(self.path("run", self.name, "control.sock"))
        return c


def wait_read(sock):
    """Until the other side has read all that was sent."""
    def unread():
        return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    harness.wait_until(lambda: unread() == 0, "it is read")


def wait_result(sock):
    """The fields of the Result, behind whatever events."""
    while True:
        kind, fields, _ = receive(sock)
        if kind == RESULT:
            return fields


class ReexecCase(HandoffCase):
    def own(self, **kwargs):
        start = kwargs.pop("start", True)
        options = dict(PATIENT, **kwargs.pop("options", {}))
        s = Own("kvd-v1", options=options, **kwargs)
        self.addCleanup(s.finish)
        if start:
            s.start()
        return s

    def assert_replaced(self, s, u):
        self.assertIsNotNone(u.result, u.errors() + s.log())
        self.assertEqual((u.code, u.result["outcome"]), (0, "replaced"), "%s\n%s" % (u.result, s.log()))

    def assert_refused(self, s, u, *words):
        self.assertIsNotNone(u.result, u.errors() + s.log())
        self.assertEqual((u.code, u.result["outcome"]), (1, "refused"), "%s\n%s" % (u.result, s.log()))
        for w in words:
            self.assertIn(w, u.result["message"])

    def only_the_daemon(self, s):
        """In a moment it is the only child: a copy of its executable may be being made."""
        daemon = s.wait_status(lambda x: x["binary_kept"] and x["sha256"], "it is copied and hashed")["pid"]
        harness.wait_until(lambda: [p.pid for p in harness.children(s.supervisor.pid)] == [daemon],
                           "no other child")

    def same(self, s):
        """What must not change."""
        x = s.status()
        return {k: x[k] for k in ("supervisor_pid", "pid", "epoch", "since_ms", "binary", "listeners",
                                  "last", "state", "previous", "timers", "refused", "warning")}


class Replaced(ReexecCase):
    def test_under_load(self):
        s = self.own()
        load = s.load()
        before = self.same(s)
        for source in (NEXT, "handoffd") * 3:
            s.put(harness.program(source))
            self.assert_replaced(s, s.reexec("--reason", "a package"))
            load.wait_ok(20)
            self.assertEqual(self.same(s), before)
        self.assertEqual(before["supervisor_pid"], s.supervisor.pid)
        self.assertIsNone(s.supervisor.poll())
        self.assertIn("asks for another handoffd in place of this one: a package", s.log())
        self.upgrade(s, "kvd-v2")
        self.assert_replaced(s, s.reexec())
        self.assertEqual(self.version(s), "2.0")
        self.assert_nothing_failed(load)

    def test_a_package_upgrade(self):
        s = self.own()
        self.upgrade(s, "kvd-v2")
        counts = [x for x in s.ctl("metrics").stdout.splitlines() if x.startswith("handoff_handoffs_total")]
        before, own = self.same(s), s.status()["supervisor_version"]
        self.assertNotEqual(own, "999.9")
        s.put(harness.program(NEXT))
        self.assertEqual(s.status()["supervisor_version"], own)
        u = s.reexec()
        self.assert_replaced(s, u)
        self.assertIn("handoffd %s goes on as handoffd 999.9" % own, u.result["message"])
        self.assertEqual(s.status()["supervisor_version"], "999.9")
        self.assertIn("handoffd 999.9", s.ctl("status", s.name).stdout)
        self.assertEqual(self.same(s), before)
        self.assertEqual([x for x in s.ctl("metrics").stdout.splitlines()
                          if x.startswith("handoff_handoffs_total")], counts)
        # also the previous executable, of which there may be no copy yet
        self.assertEqual(s.ctl("rollback", s.name).returncode, 0, s.log())
        self.assertEqual(self.version(s), "1.0")

    def test_what_was_counted(self):
        """A scraper sees nothing fall, and who asks again for an outcome is told it."""
        s = self.own(start=False, arguments=faults("drain:stop"),
                     options=dict.fromkeys(("drain-grace", "deadline", "commit-timeout"), "40s"),
                     text=lambda s: s._configuration().replace("{ address", "{ backlog = 1 address"))
        s.start()
        self.use(s, "kvd-v2", "ready:unhealthy")
        aborted = s.start_upgrade()
        os.kill(self.stopped(s), signal.SIGCONT)
        aborted.wait()
        self.assert_outcome(aborted, 1, "aborted")
        self.use(s, "kvd-v2", "receive:reject", "take:stop")
        with contextlib.ExitStack() as clients:
            for _ in range(2):   # of which one moves
                w = Wire(s)
                clients.callback(w.close)
                w.ask("ping")
            u = s.start_upgrade("--max-stall", "10ms")
            stopped = self.stopped(s)
            for _ in range(8):   # more than the queue holds
                c = clients.enter_context(socket.socket())
                c.setblocking(False)
                c.connect_ex(("127.0.0.1", s.port))
            time.sleep(0.01)   # more than --max-stall
            os.kill(stopped, signal.SIGCONT)
            stopped = self.stopped(s)
            s.status()   # it has looked at the queues behind its Commit
            os.kill(stopped, signal.SIGCONT)
            u.wait()
        self.assert_outcome(u, 7, "committed")
        self.use(s, "kvd-v2")
        self.assertEqual(s.ctl("restart", s.name).returncode, 0, s.log())
        before = self.counted(s)
        outcomes = [self.outcome(s, x) for x in (aborted, u)]
        self.assertEqual([x[1] for x in outcomes], [1, 7])
        for name in ("cold_starts_total", "last_pause_seconds", "last_duration_seconds",
                     "last_stall_seconds"):
            self.assertRegex(before[0], r'handoff_%s{service="kvd"} [0-9.]*[1-9]' % name)
        for name, label in (("handoffs_total", "outcome"), ("connections_total", "fate"),
                            ("last_queue_connections", "listener"),
                            ("last_dropped_connections", "listener")):
            self.assertRegex(before[0], r'handoff_%s{service="kvd",%s="\w+"} [1-9]' % (name, label))
        for source in (NEXT, "handoffd"):
            s.put(harness.program(source))
            self.assert_replaced(s, s.reexec())
            self.assertEqual(self.counted(s), before)
            self.assertEqual([self.outcome(s, x) for x in (aborted, u)], outcomes)

    def stopped(self, s):
        """The pid of the daemon that has stopped itself."""
        return harness.wait_until(lambda: [p.pid for p in self.daemons(s) if p.state == "T"],
                                  "one is stopped")[0]

    def outcome(self, s, u):
        """The Result of it, for who asks again."""
        with s.operator() as c:
            c.sendall(frame(OUTCOME, {0: uuid.UUID(u.result["handoff"]).bytes}))
            return wait_result(c)

    def counted(self, s):
        """All metrics, and the status but for the version."""
        s.wait_status(lambda x: x["binary_kept"] and x["previous_kept"] and x["sha256"],
                      "it is copied and hashed")
        return s.ctl("metrics").stdout, dict(s.status(), supervisor_version=None)

    def test_nothing_is_left_open(self):
        s = self.own()

        def open_now():
            """What it is, without the numbers; asked when no child copies the executable."""
            return sorted(x.split(":[")[0] for x in harness.descriptors(s.supervisor.pid).values())
        self.only_the_daemon(s)
        # one pidfd and one epoll; listener, channel, control.sock and daemon.sock: no operator's
        harness.wait_until(lambda: (open_now().count("anon_inode"), open_now().count("socket")) == (2, 4),
                           "at rest")
        before = open_now()
        for _ in range(20):
            self.assert_replaced(s, s.reexec())
        self.only_the_daemon(s)
        harness.wait_until(lambda: open_now() == before, "%s again" % before)

    def test_paths_of_listeners(self):
        """A path is still its own: it goes when the service is stopped."""
        path = None
        s = self.own(start=False)
        path = s.path("kvd.sock")
        s.listen["local"] = "unix:" + path
        s.configure()
        s.start()
        self.assert_replaced(s, s.reexec())
        with s.client("local") as c:
            self.assertTrue(c.ping())
        self.upgrade(s, "kvd-v2")
        with s.client("local") as c:
            self.assertTrue(c.ping())
        self.assertEqual(s.stop(), 0)
        self.assertFalse(os.path.exists(path))

    def test_the_daemon_dies_afterwards(self):
        """It is still this process's child, and so are its helpers."""
        s = self.own()
        self.assert_replaced(s, s.reexec())
        pid = s.daemon_pid()
        os.kill(pid, 9)
        s.wait_status(lambda x: x["state"] == "idle" and x["pid"] not in (None, pid), "it is back")
        self.assertIn("the daemon (pid %d) was killed by signal 9" % pid, s.log())
        self.assert_replaced(s, s.reexec())


class Waiting(ReexecCase):
    """Who has asked for something is answered, by whoever goes on."""

    def test_an_upgrade_waits(self):
        for word, who in (("yes", "999.9"), ("no", None)):
            with self.subTest(word):
                s = self.own()
                own = s.status()["supervisor_version"]
                s.gate()
                u = s.start_reexec()
                s.at_gate()
                with s.operator() as c, s.operator() as watcher:
                    watcher.sendall(frame(WATCH, {}))
                    self.assertEqual(receive(watcher)[0], EVENT)
                    c.sendall(frame(UPGRADE, {0: uuid.uuid4().bytes}))
                    wait_read(c)
                    self.assertEqual(s.status()["state"], "idle")   # who only looks need not wait
                    s.open_gate(word)
                    self.assertEqual(wait_result(c)[1], 0, s.log())
                    u.wait()
                    self.assertEqual(u.code, 0 if word == "yes" else 1, u.result)
                    self.assertEqual(s.status()["supervisor_version"], who or own)
                    receive(watcher)   # it still watches

    def test_half_a_request(self):
        s = self.own()
        request = frame(UPGRADE, {0: uuid.uuid4().bytes})
        with s.operator() as c, s.operator() as d:
            c.sendall(request[:3])
            d.sendall(request[:20])
            wait_read(c)
            wait_read(d)
            self.assert_replaced(s, s.reexec())
            c.sendall(request[3:])
            d.sendall(request[20:])
            outcomes = wait_result(c)[1], wait_result(d)[1]
            # the same id: its outcome is not asked for; and either may be heard first
            self.assertIn(outcomes, ((0, 0), (0, 4), (4, 0)), s.log())

    def test_twice_at_once(self):
        s = self.own()
        for u in [s.start_reexec() for _ in range(4)]:
            u.wait()
            self.assert_replaced(s, u)
        self.upgrade(s, "kvd-v2")

    def test_a_handoff_is_under_way(self):
        s = self.own()
        self.use(s, "kvd-v2", "start:hang")
        u = s.start_upgrade()
        u.wait_phase("warm")
        r = s.reexec()
        self.assertEqual((r.code, r.result["outcome"]), (4, "refused"), r.result)
        s.ctl("abort", s.name)
        u.wait()
        self.assert_outcome(u, 1, "aborted")
        self.assert_replaced(s, s.reexec())


class Descriptors(ReexecCase, Case):
    def test_half_a_frame(self):
        """A daemon does not keep this from happening with a descriptor that is on its way."""
        s = self.own(start=False)
        os.rename(self.puppets(s), s.binary)
        s.launch()
        p = self.puppet()
        p.serve(s.data_dir)
        s.wait_state("idle")

        def have():
            return list(harness.descriptors(s.supervisor.pid).values()).count(os.devnull)
        before = have()
        data = frame(SOCKETS, {1: 1, 2: 1, 3: ["resp"]})
        with open(os.devnull, "rb") as null:
            p.send(data[:8], fds=[null.fileno()])
        wait_read(p.channel)
        for source in (NEXT, "handoffd"):
            s.put(harness.program(source))
            self.assert_replaced(s, s.reexec())
            self.assertEqual(have(), before + 1)
        since = self.mark(s)
        p.send(data[8:])
        self.wait_line(s, "warning: pid %d is refused: sockets that were not announced" % p.pid, since)
        harness.wait_until(lambda: have() == before, "what is refused is closed behind the line")


class Refused(ReexecCase):
    """It cannot go on: this one does."""

    def after(self, s, before):
        self.assertEqual(self.same(s), before)
        self.only_the_daemon(s)

    def test_unusable(self):
        s = self.own()
        load = s.load()
        before = self.same(s)
        for text, words in (("#!/bin/sh\nkill -SEGV $$\n", "killed by signal 11"),
                            ("#!/bin/sh\nexit 3\n", "exited with 3"),
                            ("#!/bin/sh\necho no room; exit 1\n", "no room"),
                            ("#!/nowhere/sh\n", "cannot be executed: No such file"),
                            ("", "cannot be executed: Exec format error")):
            with self.subTest(words):
                s.write(text)
                self.assert_refused(s, s.reexec(), words, s.handoffd, "nothing has changed")
                self.after(s, before)
        s.put(harness.program(OTHER))
        self.assert_refused(s, s.reexec(), "is of version 1, handoffd", "takes version 999")
        self.after(s, before)
        os.chmod(s.handoffd, 0o644)
        self.assert_refused(s, s.reexec(), "cannot be executed: Permission denied")
        os.remove(s.handoffd)
        self.assert_refused(s, s.reexec(), "cannot be executed: No such file")
        self.after(s, before)
        self.upgrade(s, "kvd-v2")
        s.put(harness.program("handoffd"))
        self.assert_replaced(s, s.reexec())
        self.assert_nothing_failed(load)

    def test_hangs(self):
        s = self.own(options={"heartbeat": "200ms", "self-fence": "1s", "presumed-dead": "1500ms"})
        before = self.same(s)
        s.write("#!/bin/sh\nexec sleep 1000\n")
        self.assert_refused(s, s.reexec(), "did not say within presumed-dead")
        self.after(s, before)
        s.put(harness.program("handoffd"))
        self.assertEqual(self.upgrade(s, "kvd-v2").code, 0)

    def test_vanishes_behind_its_word(self):
        """It says yes, and cannot be executed any more."""
        s = self.own()
        s.gate()
        u = s.start_reexec()
        s.at_gate()
        os.remove(s.handoffd)
        s.open_gate("yes")
        u.wait()
        self.assert_refused(s, u, "No such file")
        self.upgrade(s, "kvd-v2")

    def test_what_is_handed_over_is_for_one_process(self):
        """Another one does not take it, nor what is none of it."""
        s = self.own()
        s.write('#!/bin/sh\nfor fd; do :; done; cat "/proc/self/fd/$fd" >"%s"; exit 1\n' % s.path("carried"))
        before = self.same(s)
        self.assert_refused(s, s.reexec(), "it exited with 1 when it was asked")
        for name, words in (("carried", "HANDOFF_CARRIED=%d is not meant for this process: No such process"),
                            ("kvd.conf", "what an earlier handoffd hands over cannot be read: a record is torn")):
            with open(s.path(name), "rb") as f:
                p = subprocess.run([harness.program("handoffd"), "-c", s.conf], pass_fds=[f.fileno()], text=True,
                                   env=dict(s.env, HANDOFF_CARRIED=str(f.fileno())), stdin=subprocess.DEVNULL,
                                   capture_output=True, timeout=harness.PATIENCE, check=False)
                self.assertEqual((p.returncode, p.stderr), (
                    1, "handoffd: %s\n" % (words % f.fileno() if "%" in words else words)))
        self.after(s, before)

    def test_what_it_needs_is_lost_before_it_begins(self):
        """It ends, and the one that is started next adopts the daemon."""
        for name, words in (("journal", "error: the journal is not the one that an earlier handoffd has handed over"),
                            ("config", "handoffd: the configuration that is in use cannot be read: it is not there")):
            with self.subTest(name):
                s = self.own()
                pid, client = s.daemon_pid(), s.load()
                s.write(LOSES % (s.path("run", s.name, name), harness.program("handoffd")))
                s.reexec()
                s.ended(1)
                self.assertIn(words, s.log())
                s.put(harness.program("handoffd"))
                s.start()
                self.assertEqual(s.daemon_pid(), pid)
                self.assert_nothing_failed(client)

    def test_replaced_behind_its_word(self):
        """Whoever is executed has been asked."""
        s = self.own()
        s.gate()
        u = s.start_reexec()
        s.at_gate()
        s.put(harness.program("handoffd"))
        s.open_gate("yes")
        u.wait()
        self.assert_refused(s, u, "replaced while it was asked", "nothing has changed")
        self.assert_replaced(s, s.reexec())

    def test_no_rights(self):
        if not ROOT:
            self.skipTest("needs root, to be another user")
        s = self.own()
        os.chmod(s.dir, 0o711)
        os.chmod(s.path("run"), 0o711)
        p = subprocess.run([*as_user(NOBODY), harness.program("handoffctl"), "reexec", s.name], env=s.env,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True, timeout=harness.PATIENCE, check=False, cwd="/")
        self.assertEqual(p.returncode, 8, p.stdout + p.stderr)
        self.assertNotIn("goes on as", s.log())


class Killed(ReexecCase):
    """Whoever dies, somebody serves, and a supervisor that is started again goes on."""

    def adopt(self, s, load, pid):
        load.wait_ok(20)
        s.put(harness.program("handoffd"))
        s.start()
        self.assertEqual(s.daemon_pid(), pid)
        self.upgrade(s, "kvd-v2")
        self.assert_nothing_failed(load)

    def test_the_supervisor_while_another_one_is_asked(self):
        s = self.own()
        load, pid = s.load(), s.daemon_pid()
        s.gate()
        u = s.start_reexec()
        s.at_gate()
        s.kill_supervisor()
        u.wait()
        self.assertEqual(u.code, 6)
        harness.wait_until(lambda: not [p for p in s.leftovers() if "--check-carried" in p.command],
                           "it ends with who has asked")
        self.adopt(s, load, pid)

    def test_the_supervisor_afterwards(self):
        s = self.own()
        load, pid = s.load(), s.daemon_pid()
        self.assert_replaced(s, s.reexec())
        s.kill_supervisor()
        self.adopt(s, load, pid)

    def test_the_next_one_dies_at_once(self):
        """It has said yes: then it is as if the supervisor had died."""
        s = self.own()
        load, pid = s.load(), s.daemon_pid()
        s.write("#!/bin/sh\ncase \"$*\" in *--check-carried*) exit 0 ;; esac\nexit 1\n")
        u = s.reexec()
        self.assertEqual(u.code, 6)
        s.ended(1)
        self.adopt(s, load, pid)

    def test_the_daemon_while_another_one_is_asked(self):
        s = self.own()
        pid = s.daemon_pid()
        s.gate()
        u = s.start_reexec()
        s.at_gate()
        os.kill(pid, 9)
        s.wait_status(lambda x: x["state"] == "idle" and x["pid"] not in (None, pid), "it is back")
        s.open_gate("yes")
        u.wait()
        self.assert_replaced(s, u)   # whoever serves by then
        self.upgrade(s, "kvd-v2")

    def test_a_stop_while_another_one_is_asked(self):
        s = self.own()
        s.gate()
        u = s.start_reexec()
        s.at_gate()
        self.assertEqual(s.stop(), 0)
        u.wait()
        self.assertEqual(u.code, 5, u.result)

    def test_a_stop_as_it_says_yes(self):
        """Both are there in one turn: the signal does not end with this life."""
        s = self.own()
        self.only_the_daemon(s)
        s.gate()
        u = s.start_reexec()
        s.at_gate()
        os.kill(s.supervisor.pid, signal.SIGSTOP)
        s.open_gate("yes")
        harness.wait_until(lambda: harness.zombies(s.supervisor.pid), "it has said yes")
        os.kill(s.supervisor.pid, signal.SIGTERM)
        os.kill(s.supervisor.pid, signal.SIGCONT)
        s.ended()
        u.wait()


if __name__ == "__main__":
    unittest.main()
