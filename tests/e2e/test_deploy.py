"""examples/deploy/, as its files stand. Commands are found by PATH, as on a host where they are
installed; ssh is played by a script that runs its command here."""

import concurrent.futures
import hashlib
import os
import re
import shutil
import signal
import subprocess
import unittest

import harness
from handoffs import HandoffCase

RECIPES = os.path.join(harness.TOP, "examples/deploy")


def recipe(*names):
    return os.path.join(RECIPES, *names)


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


class Recipe(HandoffCase):
    """What a host has: the programs, the recipes by their names, opt/NAME for each service's releases."""

    def host(self, *names):
        """Services of these names; in the first one's directory is what the host has."""
        first = None
        for name in names:
            s = self.service("kvd-v1", name=name, start=False)
            first = first or self.equip(s)
            s.env = dict(first.env, **{harness.MARK: s.dir})
            s.releases = first.path("opt", name)
            os.mkdir(s.releases)
            release = sha256(s.binary)
            shutil.copy(s.binary, os.path.join(s.releases, release))
            os.symlink(release, os.path.join(s.releases, "current"))
            s.configure(command=[os.path.join(s.releases, "current"), "--data-dir", s.data_dir])
            s.start()
            yield s

    def equip(self, s):
        tools = s.path("tools")
        os.mkdir(s.path("opt"))
        os.mkdir(tools)
        for program in ("handoffd", "handoffctl"):
            os.symlink(harness.program(program), os.path.join(tools, program))
        for name in ("rolling", "handover"):
            os.symlink(recipe(name + ".sh"), os.path.join(tools, name))
        self.write(os.path.join(tools, "deploy"),
                   'RELEASES="%s/$1" exec "%s" "$@"' % (s.path("opt"), recipe("deploy.sh")))
        self.write(os.path.join(tools, "ssh"), 'shift; exec sh -c "$*"')
        s.env.update(PATH=tools + ":" + s.env["PATH"])
        return s

    def write(self, path, *lines):
        with open(path, "w", encoding="utf-8") as f:
            f.write("\n".join(["#!/bin/sh", *lines, ""]))
        os.chmod(path, 0o755)
        return path

    def run_in(self, s, *argv, stdin=os.devnull, **env):
        with open(stdin, "rb") as f:
            return subprocess.run(argv, env=dict(s.env, **env), cwd=s.dir, stdin=f, check=False, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=harness.PATIENCE * 2)

    def loses(self, s, command):
        """From here on that command loses its supervisor in the middle, when all is done."""
        tool = s.path("tools", "handoffctl")
        os.remove(tool)
        self.write(tool, '"%s" "$@" || exit' % harness.program("handoffctl"),
                   'case " $* " in *" %s "*) exit 6;; esac' % command)

    def await_line(self, f, text):
        for line in f:
            if text in line:
                return
        self.fail("%r was not said" % text)

    def current(self, s):
        return os.readlink(os.path.join(s.releases, "current"))

    def assert_code(self, p, code, text=""):
        self.assertEqual(p.returncode, code, p.stdout)
        self.assertIn(text, p.stdout)


class Deploy(Recipe):
    def deploy(self, s, program, *smoke, pin=None, **env):
        path = harness.program(program)
        return self.run_in(s, "deploy", s.name, pin or sha256(path), *smoke, stdin=path, **env)

    def test_deploy(self):
        """A release that passes; then bad ones, of each kind: what served serves on."""
        [s] = self.host("kvd")
        load = s.load()
        ping = ("redis-cli", "-p", str(s.port), "ping")
        new = sha256(harness.program("kvd-v2"))
        self.assert_code(self.deploy(s, "kvd-v2", *ping), 0, "PONG")
        self.assert_serves(s, "2.0")
        self.assertEqual(self.current(s), new)
        for program, code, text, args in (
                ("kvd-v1", 2, "the upload is not", {"pin": new[::-1]}),
                ("kvload", 1, "it would not take over", {}),
                ("kvd-v1", 1, "rolled back; the old one serves", {"smoke": ["false"]}),
                ("kvd-v1", 1, "rolled back; the old one serves",
                 {"smoke": ["sleep", "1000"], "SMOKE_SECONDS": "0.1"})):
            with self.subTest(text=text, **args):
                self.assert_code(self.deploy(s, program, *args.pop("smoke", ()), **args), code, text)
                self.assert_serves(s, "2.0")
                self.assertEqual(self.current(s), new)
        left = [x for x in os.listdir(s.releases) if x.startswith(".upload")]
        self.assertEqual(left, [])
        self.assert_nothing_failed(load)

    def once(self, s):
        """A smoke test that fails each other time: first it passes."""
        bad = s.path("bad")
        return self.write(s.path("once"), 'if rm "%s"; then exit 1; fi' % bad, ': >"%s"' % bad)

    def test_again(self):
        """What serves already is never taken back, for that would be a release before it."""
        [s] = self.host("kvd")
        smoke = self.once(s)
        new = sha256(harness.program("kvd-v2"))
        self.assert_code(self.deploy(s, "kvd-v2", smoke), 0)
        daemon = s.daemon_pid()
        again = "it serves already, the smoke test fails"
        self.assert_code(self.deploy(s, "kvd-v2", smoke), 1, again + "; nothing was changed")
        self.assert_code(self.deploy(s, "kvd-v2", smoke), 0)
        self.assertEqual((self.current(s), s.daemon_pid()), (new, daemon))
        # the same release as what `current` is not: somebody has to know
        old = os.path.join(s.releases, "old")
        os.symlink(sha256(s.binary), old)
        os.rename(old, os.path.join(s.releases, "current"))
        self.assert_code(self.deploy(s, "kvd-v2", smoke), 9, again)
        # nor does a rollback lead back to another configuration
        s.configure(drain_grace="900ms")
        self.assert_code(self.deploy(s, "kvd-v2", "false"), 9, "it served before, now with what else")
        self.assert_serves(s, "2.0")

    def test_rolled_back_to_another(self):
        """It says so if what serves then is not what `current` is, or not what served before."""
        [s] = self.host("kvd")
        self.assert_code(self.deploy(s, "kvd-v2"), 0)
        self.assertEqual(s.ctl("rollback", "kvd").returncode, 0)
        s.install("kvd-v1")
        with open(s.binary, "ab") as f:
            f.write(b"another build")
        path = s.path("third")
        shutil.copy(s.binary, path)
        p = self.run_in(s, "deploy", "kvd", sha256(path), "false", stdin=path)
        self.assert_code(p, 9, "which served before; %s/current is another" % s.releases)
        self.assert_serves(s, "1.0")
        # a smoke test that hands over behind the script's back
        smoke = self.write(s.path("smoke"), 'handoffctl upgrade kvd --binary "%s"' % path, "false")
        p = self.deploy(s, "kvd-v2", smoke)
        self.assert_code(p, 9, "rolled back to " + sha256(harness.program("kvd-v2")))

    def test_upgrade_fails(self):
        """It starts, and cannot open the data: the script says why, in explain's words."""
        [s] = self.host("kvd")
        s.configure(command=[os.path.join(s.releases, "current"), "--data-dir", s.data_dir,
                             "--fault", "ready:badfp"])
        p = self.deploy(s, "kvd-v2")
        self.assert_code(p, 1, "the upgrade has failed")
        self.assertIn("what to do", p.stdout.lower())
        self.assert_serves(s, "1.0")

    def test_nobody_knows(self):
        """handoffctl has lost the supervisor: then it is no failure that is told, nor a rollback that was not."""
        [s] = self.host("kvd")
        new = sha256(harness.program("kvd-v2"))
        self.loses(s, "upgrade")
        p = self.deploy(s, "kvd-v2", "false")
        self.assert_code(p, 6, "whether %s serves is not known" % new)
        self.assertNotIn("failed", p.stdout)
        self.assertIn("deploy it once more", p.stdout)
        self.assertNotEqual(self.current(s), new)
        self.loses(s, "rollback")
        self.assert_code(self.deploy(s, "kvd-v2"), 0)   # as it was told
        self.assertEqual(self.current(s), new)
        self.assert_code(self.deploy(s, "kvd-v1", "false"), 9, "whether it was rolled back is not known")
        self.assert_serves(s, "2.0")

    def test_the_supervisor_dies(self):
        """Before the deployment, and in its smoke test, which is bad: it waits, and rolls back."""
        [s] = self.host("kvd")
        fifo = s.path("whom")
        os.mkfifo(fifo)
        smoke = self.write(s.path("smoke"), 'read -r pid <"%s"' % fifo, 'kill -9 "$pid"', "! echo bad")
        path = harness.program("kvd-v2")
        s.kill_supervisor()
        with open(path, "rb") as f:
            p = subprocess.Popen(["deploy", s.name, sha256(path), smoke], env=s.env, cwd=s.dir, stdin=f, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(p.kill)
        self.await_line(p.stdout, "waiting for kvd: no supervisor answers")
        s.launch()
        with open(fifo, "w", encoding="ascii") as f:
            f.write("%d\n" % s.supervisor.pid)
        self.await_line(p.stdout, "bad")
        s.ended(-signal.SIGKILL)
        s.start()
        out, _ = p.communicate(timeout=harness.PATIENCE)
        self.assert_code(subprocess.CompletedProcess(p.args, p.returncode, out), 1, "rolled back; the old one serves")
        self.assert_serves(s, "1.0")

    def test_two_at_once(self):
        """The second one is turned away, and does nothing."""
        [s] = self.host("kvd")
        fifo = s.path("gate")
        os.mkfifo(fifo)
        path = harness.program("kvd-v2")
        with open(path, "rb") as f:
            first = subprocess.Popen(["deploy", s.name, sha256(path), "cat", fifo], env=s.env, stdin=f,
                                     stderr=subprocess.PIPE)
        with open(fifo, "wb"):  # it is in its smoke test
            self.assert_code(self.deploy(s, "kvd-v1"), 4, "somebody else deploys it now")
        first.communicate(timeout=harness.PATIENCE)
        self.assertEqual(first.returncode, 0)
        self.assert_serves(s, "2.0")

    def test_usage(self):
        [s] = self.host("kvd")
        for name in ("deploy", "rolling", "handover"):
            self.assert_code(self.run_in(s, name, "kvd"), 2, "usage: " + name)


class Rolling(Recipe):
    def test_stops_at_the_first_failure(self):
        """Of three the second one has a bad smoke test; then it is mended, and all have it."""
        one, two, three = self.host("one", "two", "three")
        bad = one.path("bad")
        smoke = self.write(one.path("smoke"), '! [ -e "%s.$1" ]' % bad)
        with open(bad + ".two", "w", encoding="utf-8"):
            pass
        argv = ("rolling", harness.program("kvd-v2"), smoke, "one", "two", "three")
        p = self.run_in(one, *argv)
        self.assert_code(p, 1, "stopped at two (exit status 1); done: one; untouched: three")
        for s, version in ((one, "2.0"), (two, "1.0"), (three, "1.0")):
            self.assert_serves(s, version)
        self.assertEqual(three.ctl("history", "three").stdout.count("\n"), 1)
        os.remove(bad + ".two")
        self.assert_code(self.run_in(one, *argv), 0, "done: one two three")
        for s in (one, two, three):
            self.assert_serves(s, "2.0")
        # once more, and what serves already is not well: it serves on
        before = [s.daemon_pid() for s in (one, two, three)]
        with open(bad + ".two", "w", encoding="utf-8"):
            pass
        p = self.run_in(one, *argv)
        self.assert_code(p, 1, "stopped at two (exit status 1); done: one; untouched: three")
        self.assertEqual([s.daemon_pid() for s in (one, two, three)], before)
        for s in (one, two, three):
            self.assertEqual(self.current(s), sha256(harness.program("kvd-v2")))


class Ci(Recipe):
    """gitlab-ci.yml: the lines of its scripts, by the shell."""

    def script(self, job):
        with open(recipe("gitlab-ci.yml"), encoding="utf-8") as f:
            text = re.search(r"^%s:\n(.*?)(?=^\S|\Z)" % job, f.read(), re.S | re.M)[1]
        lines = re.findall(r"^    - (.*)$", text.partition("  script:\n")[2], re.M)
        self.assertTrue(lines)
        return "\n".join(["set -e", *lines])

    def job(self, s, name, built, **env):
        """As a runner does: in the directory of the source, with what the build has left."""
        os.makedirs(s.path("build"), exist_ok=True)
        shutil.copy(built, s.path("build", "kvd"))
        shutil.copy(recipe("handover.conf"), s.dir)
        return self.run_in(s, "sh", "-c", self.script(name), **env)

    def test_handover(self):
        [s] = self.host("kvd")
        env = {"RELEASED": harness.program("kvd-v1"), "PORT": str(harness.free_port())}
        p = self.job(s, "handover", harness.program("kvd-v2"), **env)
        self.assert_code(p, 0, "and gives it back")
        self.assertEqual(p.stdout.count("PONG"), 4)
        p = self.job(s, "handover", harness.program("kvload"), **env)
        self.assert_code(p, 1, "plan: an upgrade would fail")

    def test_deploy(self):
        one, two = self.host("one", "two")
        p = self.job(one, "deploy", harness.program("kvd-v2"), HOSTS="a b", SERVICE="two",
                     SMOKE="true")
        self.assert_code(p, 0)
        self.assert_serves(two, "2.0")
        self.assert_serves(one, "1.0")
        p = self.job(one, "deploy", harness.program("kvd-v1"), HOSTS="a b", SERVICE="two",
                     SMOKE="false")
        self.assert_code(p, 1, "rolled back")
        self.assertEqual(p.stdout.count("rolling back"), 1, "the second host was touched")
        self.assert_serves(two, "2.0")


class Debian(Recipe):
    """debian/: a package is built, installed, upgraded and removed by dpkg, in a root of its own."""

    def package(self, s, version, program):
        top = s.path("package-" + version)
        os.makedirs(os.path.join(top, "usr/bin"))
        os.mkdir(os.path.join(top, "DEBIAN"))
        shutil.copy(program, os.path.join(top, "usr/bin/kvd"))
        for script in ("postinst", "prerm"):
            shutil.copy(recipe("debian", "kvd." + script), os.path.join(top, "DEBIAN", script))
        with open(os.path.join(top, "DEBIAN/control"), "w", encoding="utf-8") as f:
            f.write("Package: kvd\nVersion: %s\nArchitecture: all\nMaintainer: nobody\nDescription: a daemon\n"
                    % version)
        p = self.run_in(s, "dpkg-deb", "--build", "--root-owner-group", "-Znone", top, top + ".deb")
        self.assertEqual(p.returncode, 0, p.stdout)
        return top + ".deb"

    def dpkg_argv(self, s, *args):
        return ["dpkg", "--root=" + s.path("root"), "--log=/dev/null", "--force-not-root",
                "--force-script-chrootless", *args]

    def dpkg(self, s, *args):
        return self.run_in(s, *self.dpkg_argv(s, *args))

    def status(self, s):
        p = self.run_in(s, "dpkg-query", "--admindir=" + s.path("root/var/lib/dpkg"), "-W",
                        "-f", "${db:Status-Status} ${Version}", "kvd")
        return p.stdout

    def installed(self):
        """Version 1 of the package, and its service: the service and the path of its program."""
        [s] = self.host("kvd")
        s.stop()
        for d in ("updates", "info"):
            os.makedirs(s.path("root/var/lib/dpkg", d))
        for name in ("status", "available"):
            with open(s.path("root/var/lib/dpkg", name), "w", encoding="utf-8"):
                pass
        path = s.path("root/usr/bin/kvd")
        self.assert_code(self.dpkg(s, "-i", self.package(s, "1", harness.program("kvd-v1"))), 0)
        s.configure(command=[path, "--data-dir", s.data_dir])
        s.start()
        return s, path

    def systemd_says(self, s, *lines):
        """A systemctl that is played; what it was asked to do is in the file `asked`."""
        tool = s.path("tools", "systemctl")
        return self.write(tool, 'echo "$@" >>"%s"' % s.path("asked"), 'case $1 in show)', *lines, ";; esac")

    def test_a_supervisor_that_is_started_again(self):
        """It has died, and its daemon serves: that hands over when systemd has started the next one."""
        s, path = self.installed()
        self.systemd_says(s, "echo activating")
        package = self.package(s, "2", harness.program("kvd-v2"))
        s.kill_supervisor()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            dpkg = pool.submit(self.dpkg, s, "-i", package)
            harness.wait_until(lambda: os.path.exists(s.path("asked")), "systemd was asked")
            s.start()
            self.assert_code(dpkg.result(), 0, "committed")
        self.assert_serves(s, "2.0")
        # and a removal ends it
        s.kill_supervisor()
        self.systemd_says(s, "echo activating")
        self.assert_code(self.dpkg(s, "--remove", "kvd"), 0)
        self.assertEqual(harness.read_file(s.path("asked")).splitlines()[-1], "stop handoff@kvd.service")
        self.assertFalse(os.path.exists(path))
        s.start()

    def test_nobody_knows(self):
        """handoffctl has lost the supervisor: the package does not say that the new one does not serve."""
        s, _path = self.installed()
        self.loses(s, "upgrade")
        p = self.dpkg(s, "-i", self.package(s, "2", harness.program("kvd-v2")))
        self.assert_code(p, 1, "whether the new version serves is not known (exit status 6)")
        self.assertNotIn("does not serve", p.stdout)
        self.assertEqual(self.status(s), "half-configured 2")
        self.assert_serves(s, "2.0")

    def test_another_handoff_is_under_way(self):
        """The package's begins when that has ended."""
        s, path = self.installed()
        self.systemd_says(s, "echo active")
        package = self.package(s, "2", harness.program("kvd-v2"))
        s.configure(command=[path, "--data-dir", s.data_dir, "--fault", "warmup:hang"])
        first = s.start_upgrade()
        harness.wait_until(lambda: "fault: hang at warmup" in s.log(), "kvd is in its warm-up")
        s.configure(command=[path, "--data-dir", s.data_dir])
        with subprocess.Popen(self.dpkg_argv(s, "-i", package), env=s.env, cwd=s.dir, stdin=subprocess.DEVNULL,
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as p:
            self.await_line(p.stdout, "waiting for kvd: another handoff is under way")
            self.assertEqual(s.ctl("abort", "kvd").returncode, 0)
            out, _ = p.communicate(timeout=harness.PATIENCE)
        first.wait()
        self.assertEqual(p.returncode, 0, out)
        self.assert_serves(s, "2.0")

    def test_package(self):
        s, path = self.installed()
        load = s.load()
        daemon = s.daemon_pid()
        self.assert_code(self.dpkg(s, "-i", self.package(s, "2", harness.program("kvd-v2"))), 0, "committed")
        self.assertNotEqual(s.daemon_pid(), daemon)
        self.assert_serves(s, "2.0")
        # a bad one: the old one serves, and the package says that somebody has to look
        p = self.dpkg(s, "-i", self.package(s, "3", harness.program("kvload")))
        self.assert_code(p, 1, "the new version does not serve (exit status 1)")
        self.assertEqual(self.status(s), "half-configured 3")
        self.assert_serves(s, "2.0")
        self.assert_code(self.dpkg(s, "-i", self.package(s, "4", harness.program("kvd-v1"))), 0, "committed")
        self.assert_serves(s, "1.0")
        self.assert_nothing_failed(load)
        s.stop()
        p = self.dpkg(s, "-i", self.package(s, "5", harness.program("kvd-v2")))
        self.assert_code(p, 0, "does not run, nothing to hand over")
        s.start()
        self.assert_serves(s, "2.0")
        self.assert_code(self.dpkg(s, "--remove", "kvd"), 0)
        s.ended()
        self.assertFalse(os.path.exists(path))


if __name__ == "__main__":
    unittest.main()
