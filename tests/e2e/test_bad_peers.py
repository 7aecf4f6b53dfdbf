"""Peers that are not who they say, or take more than their part."""

import contextlib
import grp
import os
import re
import socket
import subprocess
import time
import unittest

import harness
from badinput import ABORT, HEARTBEAT, NOBODY, ROOT, Case, frame, receive, wait_end

STATUS = frame(66, {})
STATE = 82
DENIED = "permission denied: root, the supervisor's user, or the group named by 'operators' " \
    "may do this"


def as_user(uid, groups=()):
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid),
            *(["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"])]


class AnotherUser(Case):
    def setUp(self):
        if not ROOT:
            self.skipTest("needs root, to be another user")
        self.s = self.service()
        # Only the directory above is the test's own: what is below has handoffd's modes.
        os.chmod(self.s.dir, 0o711)
        os.chmod(self.s.path("run"), 0o711)

    def ctl(self, *args, uid=NOBODY, groups=()):
        return subprocess.run([*as_user(uid, groups), harness.program("handoffctl"), *args],
                              env=self.s.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=harness.PATIENCE,
                              check=False, cwd="/")

    def connect_as(self, uid, name):
        """0 or the errno of a connect by that user, in a process of its own."""
        code = ("import socket, sys\n"
                "try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
                "except OSError as e: sys.exit(e.errno)\n")
        return subprocess.run([*as_user(uid), "/usr/bin/python3", "-IS", "-c", code,
                               self.s.path("run", "kvd", name)], check=False).returncode

    def test_may_look(self):
        with self.unharmed(self.s):
            p = self.ctl("status", "kvd")
            self.assertEqual((p.returncode, p.stderr), (0, ""))
            self.assertIn("idle", p.stdout)
            p = self.ctl("history", "kvd")
            self.assertEqual((p.returncode, p.stderr), (0, ""))

    def test_may_not_act(self):
        with self.unharmed(self.s):
            for args in (["upgrade"], ["rollback"], ["plan"], ["abort"], ["restart"], ["reexec"], ["stop"]):
                with self.subTest(args):
                    p = self.ctl(args[0], "kvd")
                    self.assertEqual(p.returncode, 8)
                    self.assertIn(DENIED, p.stdout + p.stderr)

    def test_operators_may(self):
        """The group of the configuration; it is read again with each upgrade that commits."""
        self.s.configure(operators="nogroup")
        self.assertEqual(self.s.upgrade().code, 0, self.s.log())
        with self.unharmed(self.s, same_daemon=False):
            p = self.ctl("upgrade", "kvd")
            self.assertEqual(p.returncode, 0, p.stderr + self.s.log())

    def test_operators_may_by_another_group(self):
        """As usermod -aG makes them: one of several groups, and not the first."""
        operators = grp.getgrnam("adm").gr_gid
        self.s.configure(operators="adm")
        self.assertEqual(self.s.upgrade().code, 0, self.s.log())
        with self.unharmed(self.s, same_daemon=False):
            p = self.ctl("upgrade", "kvd", groups=(operators + 1, operators, operators + 2))
            self.assertEqual(p.returncode, 0, p.stderr + self.s.log())
        with self.unharmed(self.s):
            p = self.ctl("upgrade", "kvd", groups=(operators + 1, operators + 2))
            self.assertEqual(p.returncode, 8, p.stderr)
            self.assertIn(DENIED, p.stdout + p.stderr)

    def test_daemon_sock_is_not_theirs(self):
        with self.unharmed(self.s):
            since = self.mark(self.s)
            self.assertEqual(self.connect_as(NOBODY, "daemon.sock"), 13)
            self.assertEqual(self.connect_as(NOBODY, "control.sock"), 0)
            self.s.status()
            self.assertEqual(self.lines(self.s, since), [])

    def test_they_cannot_make_or_remove_a_socket(self):
        with self.unharmed(self.s):
            for name in ("control.sock", "daemon.sock", "journal", "new"):
                path = self.s.path("run", "kvd", name)
                for command in (["rm", "-f", path], ["mv", path, path + ".x"],
                                ["ln", "-s", "/tmp", path + ".y"]):
                    p = subprocess.run([*as_user(NOBODY), *command], stderr=subprocess.DEVNULL,
                                       check=False)
                    if command[0] != "rm" or os.path.lexists(path):
                        self.assertNotEqual(p.returncode, 0, command)
            self.assertEqual(self.connect_as(NOBODY, "control.sock"), 0)

    def test_a_hundred_that_say_nothing(self):
        """One user gets 16 places, and operators always find one."""
        code = ("import socket, sys\n"
                "kept = []\n"
                "for i in range(100):\n"
                "    kept.append(socket.socket(socket.AF_UNIX))\n"
                "    kept[-1].connect(sys.argv[1])\n"
                "print('here', flush=True)\n"
                "sys.stdin.read()\n")
        with self.unharmed(self.s) as client:
            since = self.mark(self.s)
            p = subprocess.Popen([*as_user(NOBODY), "/usr/bin/python3", "-IS", "-c", code,
                                  self.s.path("run", "kvd", "control.sock")],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            try:
                p.stdout.readline()
                client.use()
                self.assertEqual(self.ctl("status", "kvd", uid=NOBODY - 1).returncode, 0)
                self.assertEqual(self.s.status()["state"], "idle")
                line = "warning: no place for another connection to control.sock: uid %d is turned away" \
                    % NOBODY
                # twenty lines at once, then one a second, with the number of the others
                more = r"warning: (\d+) more lines like the next one were left out"
                harness.wait_until(lambda: self.ctl("status", "kvd").returncode == 3 and
                                   re.search(more, self.s.log()[since:]), "others are counted")
                said = self.lines(self.s, since)
                left_out = sum(int(x) for x in re.findall(more, self.s.log()[since:]))
                self.assertGreaterEqual(said.count(line) + left_out, 84)
                self.assertLess(said.count(line), 84)
                # Their own user's next one is turned away, too, and told so.
                code = self.ctl("status", "kvd")
                self.assertEqual(code.returncode, 3, code.stdout)
                self.assertIn("the supervisor of kvd closed the connection without an answer",
                              code.stderr)
            finally:
                p.stdin.close()
                p.stdout.close()
                p.wait()

    def test_the_same_data_by_another_user(self):
        """A supervisor of somebody else's finds no way in."""
        p = subprocess.run([*as_user(NOBODY), harness.program("handoffd"), "-c", self.s.conf],
                           env=self.s.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=harness.PATIENCE,
                           check=False, cwd="/")
        self.assertEqual(p.returncode, 2, p.stdout)
        self.assertIn("may not write it (Permission denied); chown or chmod it", p.stdout)


class Daemons(Case):
    """daemon.sock: who is at the other end says the kernel."""

    def turned_away(self, s, c, pid, why):
        said = wait_end(c)
        self.assertEqual([(k, f[1]) for k, f, _ in said], [(ABORT, why)])
        self.wait_line(s, "warning: pid %d is turned away from daemon.sock: %s" % (pid, why))

    def test_one_that_claims_to_be_the_incumbent(self):
        s = self.service()
        with self.unharmed(s):
            for _ in range(3):
                c = self.control(s, "daemon.sock")
                # All is right in its Hello but who sends it.
                st = os.stat(s.data_dir)
                hello = frame(1, {1: 2, 2: s.daemon_pid(), 3: b"x", 4: 1, 5: 1, 6: 0,
                                  7: st.st_dev, 8: st.st_ino, 10: 6, 11: True, 12: 1, 13: 1})
                with contextlib.suppress(ConnectionError):  # it may be away by then
                    c.sendall(hello)
                self.turned_away(s, c, os.getpid(),
                                 "it is not a daemon of this service that this supervisor knows")
                c.close()

    def test_the_incumbent_twice(self):
        s, p = self.puppet_service()
        before, first = self.count(s), p.channel
        p.channel = None
        p.connect()
        self.turned_away(s, p.channel, p.pid, "that daemon is registered already")
        self.assertEqual(s.status()["state"], "idle")
        # The first channel is the one that counts.
        first.sendall(frame(HEARTBEAT, {1: 1}))
        self.assertEqual(s.status()["state"], "idle")
        self.assert_count(s, before)
        p.channel.close()
        p.channel = first
        since = self.mark(s)
        p.send(b"\0" * 6)
        self.wait_line(s, "warning: pid %d sent what is not the protocol: a frame length that no "
                       "frame can have (not this protocol?); its channel is closed" % p.pid, since)

    def test_a_flood_at_daemon_sock(self):
        s = self.service()
        with self.unharmed(s, same_daemon=False) as client:
            for i in range(500):
                c = self.control(s, "daemon.sock")
                c.close()
                if i % 100 == 0:
                    client.use()
            self.assertEqual(s.upgrade("--binary", harness.program("kvd-v2")).code, 0, s.log())


class Clients(Case):
    def test_one_that_never_reads(self):
        """It is cut off when its answers fill what is kept for it, and others are served."""
        s = self.service()
        with self.unharmed(s) as client:
            since = self.mark(s)
            c = self.control(s)
            c.setblocking(False)
            data, sent = STATUS * 10000, 0
            while sent < len(data):
                try:
                    sent += c.send(data[sent:sent + 4096])
                except BlockingIOError:
                    time.sleep(0.001)
                except ConnectionError:
                    break
                if sent % (4096 * 20) == 0:
                    client.use()
            self.wait_line(s, "warning: uid %d (pid %d) does not read its answers from "
                           "control.sock: closed" % (os.geteuid(), os.getpid()), since)
            c.close()

    def test_one_that_asks_without_pause(self):
        """A turn for everybody: it reads its answers, so it is no offence."""
        s = self.service()
        with self.unharmed(s) as client:
            c = self.control(s)
            for _ in range(20):
                c.sendall(STATUS * 100)
                self.assertEqual(s.status()["state"], "idle")
                client.use()
                for _ in range(100):
                    self.assertEqual(receive(c)[0], STATE)
            c.close()

    def test_a_flood_of_connects(self):
        s = self.service()
        with self.unharmed(s) as client:
            for i in range(3000):
                with socket.socket(socket.AF_UNIX) as c:
                    c.connect(s.path("run", "kvd", "control.sock"))
                    if i % 3 == 0:
                        c.sendall(STATUS)
                if i % 500 == 0:
                    client.use()
                    self.assertIsNotNone(s.status())

    def test_more_than_there_are_places(self):
        """Sixty-four of the supervisor's own user; who is turned away is told by the end."""
        s = self.service()
        with self.unharmed(s) as client:
            since = self.mark(s)
            kept = [self.control(s) for _ in range(70)]
            for c in kept[64:]:
                self.assertEqual(wait_end(c), [])
            line = "warning: no place for another connection to control.sock: uid %d is turned away" \
                % os.geteuid()
            self.assertEqual(self.lines(s, since).count(line), 6)
            client.use()
            for c in kept:
                c.close()

    def test_an_operator_that_leaves(self):
        """An upgrade goes on without who asked for it."""
        s = self.service()
        before = self.count(s)
        c = self.control(s)
        c.sendall(frame(64, {0: b"\1" * 16, 1: harness.program("kvd-v2")}))
        c.close()
        self.wait_line(s, "info: handoff 01010101 committed: the successor (pid %d) serves" %
                       s.wait_status(lambda x: x["state"] == "idle" and x["pid"] and
                                     "01010101" in str(x), "the commit")["pid"])
        self.second(s)
        self.assert_count(s, before)


if __name__ == "__main__":
    unittest.main()
