"""A configuration that became wrong while the service runs, and one that is wrong from the start.

That data-dir lies on NFS cannot be had with real processes and without a server: the unit
tests of the configuration and of the lock file replace statfs(2) for it."""

import glob
import os
import pwd
import re
import socket
import subprocess
import unittest

import harness
from badinput import NOBODY, ROOT, Case

BAD = sorted(glob.glob(os.path.join(harness.TOP, "tests/conf/bad/*.conf")))


class Upgrade(Case):
    """exit 2, the exact line, and the old one serves."""

    def setUp(self):
        self.s = self.service()

    def line_of(self, name):
        """The number of the configuration's line that begins with this word."""
        with open(self.s.conf, encoding="utf-8") as f:
            return next(n for n, x in enumerate(f, 1) if x.split()[0] == name)

    def refuse(self, why, option="command", line=None):
        """Upgrade and plan are refused with FILE:LINE: WHY, and so is the check alone."""
        if line is None:
            line = self.line_of(option)
        message = "%s:%d: %s" % (self.s.conf, line, why)
        with self.unharmed(self.s):
            u = self.refused(self.s, code=2, message=message)
            self.assertEqual(u.result["outcome"], "refused")
            p = self.s.ctl("plan", self.s.name)
            self.assertEqual((p.returncode, p.stderr.count(message) + p.stdout.count(message)),
                             (2, 1), p.stdout + p.stderr)
            self.check(why, line)

    def check(self, why, line):
        """What `handoffd --check` says."""
        p = subprocess.run([harness.program("handoffd"), "-c", self.s.conf, "--check"],
                           env=self.s.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True, check=False)
        self.assertEqual((p.returncode, p.stderr),
                         (2, "handoffd: %s:%d: %s\n" % (self.s.conf, line, why)))

    def again(self):
        """With a right configuration all is well."""
        self.s.configure()
        with self.unharmed(self.s, same_daemon=False):
            self.assertEqual(self.s.upgrade().code, 0, self.s.log())

    def test_every_bad_file(self):
        self.assertGreaterEqual(len(BAD), 7)
        for path in BAD:
            with self.subTest(os.path.basename(path)):
                text = harness.read_file(path)
                line, why = re.match(r"# expect: (\d+): (.*)\n", text).groups()
                with open(self.s.conf, "w", encoding="utf-8") as f:
                    f.write(text)
                self.refuse(why, line=int(line))
        self.again()

    def test_no_file(self):
        os.rename(self.s.conf, self.s.conf + ".x")
        with self.unharmed(self.s):
            u = self.s.upgrade()
            self.assertEqual(u.code, 2)
            self.assertTrue(u.result["message"].startswith(self.s.conf), u.result)
            self.assertIn("No such file or directory", u.result["message"])
        self.again()

    def test_another_service(self):
        text = harness.read_file(self.s.conf).replace("service kvd {", "service other {")
        with open(self.s.conf, "w", encoding="utf-8") as f:
            f.write(text)
        with self.unharmed(self.s):
            self.refused(self.s, code=2, message="%s: the service is called other there, this "
                         "supervisor runs kvd" % self.s.conf)
        self.again()

    def test_path_over_107_bytes(self):
        path = "/" + "x" * 107
        self.s.listen["long"] = "unix:" + path
        self.s.configure()
        self.refuse("address = unix:%s: a path of 108 bytes is too long; a unix socket takes at "
                    "most 107" % path, line=5)
        del self.s.listen["long"]
        self.again()

    def test_no_such_user(self):
        self.s.configure(user="nobody-of-this-name")
        self.refuse("user = nobody-of-this-name: no such user; create it with adduser --system, or "
                    "name one that exists", "user")
        self.s.configure(user=None)
        self.again()

    def test_data_dir_missing(self):
        other = self.s.path("nowhere")
        self.s.configure(data_dir=other)
        self.refuse("data-dir %s does not exist; create it: install -d -m 0700 -o USER %s" %
                    (other, other), "data-dir")
        self.s.configure(data_dir=self.s.data_dir)
        self.again()

    def test_data_dir_gone_while_it_is_in_use(self):
        """The incumbent goes on in the directory that it has open."""
        os.rename(self.s.data_dir, self.s.data_dir + ".x")
        self.refuse("data-dir %s does not exist; create it: install -d -m 0700 -o USER %s" %
                    (self.s.data_dir, self.s.data_dir), "data-dir")
        os.mkdir(self.s.data_dir)
        with self.unharmed(self.s):
            self.refused(self.s, code=2, message="data-dir %s is not the directory that the "
                         "running daemon has open; an upgrade keeps the data where it is (use "
                         "'handoffctl restart kvd' to move)" % self.s.data_dir)
        os.rmdir(self.s.data_dir)
        os.rename(self.s.data_dir + ".x", self.s.data_dir)
        self.again()

    def test_data_dir_symlink(self):
        link = self.s.path("link")
        os.symlink(self.s.data_dir, link)
        self.s.configure(data_dir=link)
        self.refuse("data-dir %s is a symbolic link; write the directory that it leads to, so "
                    "that it cannot change under a lock" % link, "data-dir")

    def test_data_dir_file(self):
        self.s.configure(data_dir=self.s.conf)
        self.refuse("data-dir %s is not a directory; name one" % self.s.conf, "data-dir")

    def test_another_user(self):
        if not ROOT:
            self.skipTest("needs root, to be another user")
        for d in (self.s.dir, self.s.path("bin")):
            os.chmod(d, 0o755)
        os.chmod(self.s.data_dir, 0o777)
        self.s.configure(user=pwd.getpwuid(NOBODY).pw_name)
        with self.unharmed(self.s):
            self.refused(self.s, code=2, message="%s: user is another than the running daemon's, "
                         "whose files and lock the successor could not open; use 'handoffctl "
                         "restart kvd' (clients notice)" % self.s.conf)

    def test_data_dir_unwritable(self):
        if not ROOT:
            self.skipTest("needs root, to be another user")
        # The whole way down is open to the daemon's user, but not the directory.
        for d in (self.s.dir, self.s.path("bin")):
            os.chmod(d, 0o755)
        os.chmod(self.s.data_dir, 0o755)
        name = pwd.getpwuid(NOBODY).pw_name
        self.s.configure(user=name)
        self.refuse("data-dir %s: %s may not write it (Permission denied); chown or chmod it" %
                    (self.s.data_dir, name), "data-dir")

    def test_data_dir_of_another(self):
        other = self.s.path("other")
        os.mkdir(other)
        self.s.configure(data_dir=other)
        with self.unharmed(self.s):
            self.refused(self.s, code=2, message="data-dir %s is not the directory that the "
                         "running daemon has open; an upgrade keeps the data where it is (use "
                         "'handoffctl restart kvd' to move)" % other)

    def test_daemon_opens_another_than_configured(self):
        """The configuration is right, the command line is not."""
        other = self.s.path("other")
        os.mkdir(other)
        self.s.configure(command=[self.s.binary, "--data-dir", other])
        with self.unharmed(self.s):
            self.refused(self.s, message="the successor ended before it was ready: the daemon "
                         "opened another directory than data-dir %s; the incumbent (pid %d) "
                         "serves, no client met the successor" %
                         (self.s.data_dir, self.s.daemon_pid()))
        self.s.configure(command=[self.s.binary, "--data-dir", other], data_dir=None)
        text = harness.read_file(self.s.conf)
        self.assertNotIn("data-dir =", text)

    def test_no_data_dir_in_the_configuration(self):
        self.s.configure(command=[self.s.binary, "--data-dir", self.s.data_dir], data_dir=None)
        self.s.options.pop("data-dir", None)
        text = "".join(x for x in harness.read_file(self.s.conf).splitlines(True)
                       if not x.strip().startswith("data-dir"))
        with open(self.s.conf, "w", encoding="utf-8") as f:
            f.write(text)
        with self.unharmed(self.s):
            self.refused(self.s, message="the successor ended before it was ready: the daemon has "
                         "a data directory, the configuration names none: add data-dir; the "
                         "incumbent (pid %d) serves, no client met the successor" %
                         self.s.daemon_pid())

    def test_no_such_command(self):
        self.s.configure(command="/nowhere/kvd")
        self.refuse("command: /nowhere/kvd: no such file; install it, or correct command")

    def test_no_such_working_dir(self):
        self.s.configure(working_dir="/nowhere")
        self.refuse("working-dir /nowhere: No such file or directory; create it, and let "
                    "handoffd's user enter it", "working-dir")

    def test_address_in_use(self):
        """No listener of the refused configuration stays open."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen(1)
            port, free = taken.getsockname()[1], harness.free_port()
            self.s.listen["free"] = "tcp:127.0.0.1:%d" % free
            self.s.listen["more"] = "tcp:127.0.0.1:%d" % port
            self.s.configure()
            with self.unharmed(self.s):
                self.refused(self.s, code=2, message="listener more (tcp:127.0.0.1:%d): address "
                             "in use: find its owner with: ss -tlnp sport = :%d" % (port, port))
                with socket.socket() as s:
                    self.assertNotEqual(s.connect_ex(("127.0.0.1", free)), 0)
        before = self.count(self.s)
        self.assertEqual(self.s.upgrade().code, 0, self.s.log())
        self.assert_count(self.s, before + 2)
        socket.create_connection(("127.0.0.1", free)).close()

    def test_unix_address_in_use(self):
        path = self.s.path("taken.sock")
        with socket.socket(socket.AF_UNIX) as taken:
            taken.bind(path)
            taken.listen(1)
            self.s.listen["more"] = "unix:" + path
            self.s.configure()
            with self.unharmed(self.s):
                u = self.s.upgrade()
                self.assertEqual(u.code, 2, u.result)
                self.assertTrue(u.result["message"].startswith("listener more (unix:%s): " % path),
                                u.result)
            with socket.socket(socket.AF_UNIX) as c:
                c.connect(path)  # nobody has removed it


class Usage(unittest.TestCase):
    def test_mistakes(self):
        for args, what in (((), "no configuration given: handoffd -c FILE"), (("kvd",), "it takes no arguments but options"),
                           (("--reap", "a/b"), "--reap takes the name of a service"),
                           (("--log-format", "xml"), "--log-format is text or json")):
            p = subprocess.run([harness.program("handoffd"), *args], stdin=subprocess.DEVNULL, capture_output=True,
                               text=True, check=False)
            self.assertEqual((p.returncode, p.stdout, p.stderr),
                             (2, "", "handoffd: %s; 'handoffd --help' explains\n" % what))


class Reap(Case):
    def test_not_what_is_no_units(self):
        """By hand, with or without a systemd: who runs without a unit goes on. A broken file costs its stop-timeout."""
        s = self.service()
        with open(s.path("broken.conf"), "w", encoding="utf-8") as f:
            f.write("service {")
        with self.unharmed(s):
            for more in ([], ["-c", s.conf], ["-c", s.path("broken.conf"), "--debug"]):
                p = subprocess.run([harness.program("handoffd"), "--reap", s.name, *more], env=s.env, timeout=120,
                                   capture_output=True, text=True, check=False)
                if p.returncode:
                    self.assertIn("nothing is ended", p.stderr)
                else:
                    self.assertIn("a supervisor that is not handoff@%s runs there" % s.name, p.stderr)
                self.assertEqual("stop-timeout is taken for 30 s" in p.stderr, "--debug" in more, p.stderr)


class Start(Case):
    """A configuration that is wrong before there is a daemon."""

    def test_every_bad_file(self):
        s = self.service(start=False)
        for path in BAD:
            with self.subTest(os.path.basename(path)):
                line, why = re.match(r"# expect: (\d+): (.*)\n", harness.read_file(path)).groups()
                for more in ([], ["--check"]):
                    p = subprocess.run([harness.program("handoffd"), "-c", path, *more], env=s.env,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                       check=False)
                    self.assertEqual((p.returncode, p.stdout, p.stderr),
                                     (2, "", "handoffd: %s:%s: %s\n" % (path, line, why)))
        self.assertEqual(os.listdir(s.path("run")), [])

    def test_address_in_use_is_tried_again(self):
        s = self.service(start=False)
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", s.port))
            taken.listen(1)
            s.launch()
            why = "listener resp (tcp:127.0.0.1:%d): address in use: find its owner with: " \
                "ss -tlnp sport = :%d" % (s.port, s.port)
            line = "error: the listening sockets could not be bound: %s; the service is NOT " \
                "served, a start is tried again in a moment" % why
            harness.wait_until(lambda: self.lines(s).count(line) >= 3, "the third time")
            status = s.status()
            self.assertEqual((status["state"], status["pid"]), ("cold", None))
            self.assertIn(why, str(status))
            # The pauses grow: not a busy loop.
            self.assertLess(self.lines(s).count(line), 10)
            u = s.upgrade()
            self.assertEqual((u.code, u.result["message"]), (
                5, "the daemon is being started, the service is NOT served yet; the warning of "
                "'handoffctl status kvd' and its log say what hinders it; 'handoffctl restart kvd' reads "
                "the configuration again and tries at once, 'handoffctl rollback kvd' starts the previous "
                "executable"))
        s.wait_state("idle")
        with self.unharmed(s):
            pass

    def test_data_dir_goes_away(self):
        """At each start the daemon says so; when the directory is back, it serves."""
        s = self.service()
        before, pid = self.count(s), s.daemon_pid()
        os.rename(s.data_dir, s.data_dir + ".x")
        since = self.mark(s)
        os.kill(pid, 9)
        harness.wait_until(lambda: any(x.startswith("error: the daemon ended before it was ready")
                                       for x in self.lines(s, since)), "a start that fails")
        self.wait_text_like(s, "data directory %s: No such file or directory" % s.data_dir, since)
        os.rename(s.data_dir + ".x", s.data_dir)
        s.wait_state("idle")
        self.second(s)
        self.assert_count(s, before)

    def wait_text_like(self, s, text, since):
        harness.wait_until(lambda: text in s.log()[since:], text, 20)


if __name__ == "__main__":
    unittest.main()
