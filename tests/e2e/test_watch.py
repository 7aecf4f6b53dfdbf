"""handoffctl watch: what happens, as it happens; a slow reader costs nothing."""

import os
import shutil
import signal
import socket
import subprocess
import unittest

import harness
from handoffs import HandoffCase

NEW = "kvd-v2"


class Watch(HandoffCase):
    def watch(self, s, *args):
        w = harness.JsonProcess([harness.program("handoffctl"), "--json", "watch", "kvd", *args],
                                s.env, s.path("watch.%d.err" % len(s.background)))
        s.background.append(w)
        w.first = w.next(harness.PATIENCE)
        return w

    def wait_phase(self, w, phase):
        return w.wait_line(lambda x: x.get("phase") == phase, "phase " + phase)

    def test_a_handoff(self):
        s = self.kvd()
        w = self.watch(s)
        self.assertEqual((w.first["phase"], w.first["handoff"]), ("idle", None))
        self.use(s, NEW)
        u = s.upgrade()
        end = self.wait_phase(w, "committed")
        self.assertEqual((end["handoff"], end["text"]), (u.result["handoff"], u.result["message"]))
        mine = [x for x in w.lines if x["handoff"] == u.result["handoff"]]
        phases = [x["phase"] for x in mine]
        self.assertEqual([x for x in phases if x != "committed"],
                         ["starting", "warm", "drain", "drain", "seal", "seal", "ready", "commit",
                          "take", "exit"])
        said = [x["text"] for x in mine if x["text"]]
        self.assertIn("connections are open", said[0])
        self.assertEqual("0 connections move, 0 stay", said[1])
        self.assertEqual([x["us"] for x in mine], sorted(x["us"] for x in mine))

    def test_a_plan(self):
        """It has an end, too."""
        s = self.kvd()
        w = self.watch(s)
        self.assertEqual(s.ctl("plan", "kvd").returncode, 0)
        end = self.wait_phase(w, "plan")
        self.assertIn("an upgrade would go ahead", end["text"])
        self.assertEqual({x["handoff"] for x in w.lines if x["phase"] in ("starting", "warm")}, {end["handoff"]})
        self.assertEqual([x["phase"] for x in w.lines], ["idle", "starting", "warm", "plan"])

    def test_a_crash(self):
        s = self.kvd()
        self.upgrade(s, NEW)
        w = self.watch(s)
        os.kill(s.daemon_pid(), signal.SIGKILL)
        cold = self.wait_phase(w, "cold")
        serves = self.wait_phase(w, "serves")
        self.assertIn("pid %d" % s.wait_state("idle")["pid"], serves["text"])
        for x in (cold, serves):   # the handoff before is over
            self.assertEqual((x["handoff"], x["us"]), (None, 0))

    def people(self, s):
        """`watch` as people have it, in watch.out; it watches."""
        with open(s.path("watch.out"), "w+", encoding="utf-8") as out:
            p = subprocess.Popen([harness.program("handoffctl"), "watch", "kvd"], env=s.env, stdout=out,
                                 stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        harness.wait_until(lambda: "idle" in harness.read_file(s.path("watch.out")), "it watches")
        return p

    def test_for_people(self):
        s = self.kvd()
        self.people(s)
        u = self.upgrade(s, NEW)
        harness.wait_until(lambda: "committed" in harness.read_file(s.path("watch.out")), "committed")
        text = harness.read_file(s.path("watch.out"))
        self.assertIn(u.result["handoff"][:8] + "  drain", text)
        self.assertIn("(warm took ", text)

    def test_context(self):
        """What was said with a handoff is in its events, and only there."""
        s = self.kvd()
        w = self.watch(s)
        said = {"reason": "release 2", "trace_parent": harness.TRACE_PARENT, "correlation_id": "deploy-17",
                "tenant": "blue"}
        self.use(s, NEW)
        u = s.upgrade(*["--%s=%s" % (k.replace("_", "-"), v) for k, v in said.items()])
        self.assert_outcome(u, 0, "committed")
        self.upgrade(s, "kvd-v1")
        for n in range(2):
            w.wait_line(lambda x: x["phase"] == "committed", "end %d" % n)
        first = [x for x in w.lines if x["handoff"] == u.result["handoff"]]
        self.assertGreater(len(first), 5)
        for x in w.lines:
            self.assertEqual({k: x[k] for k in said}, said if x in first else dict.fromkeys(said), x)

    def test_nobody_reads(self):
        """A watcher that is stopped until its socket is full, and for longer than an answer may take:
        each handoff is as it is without it, it is told how many events it has missed, and what it
        reads late bears the time at which it happened."""
        s = self.kvd()
        reader, slow = self.watch(s), self.watch(s)
        slow.process.send_signal(signal.SIGSTOP)
        self.addCleanup(slow.process.send_signal, signal.SIGCONT)
        self.fill(s)
        self.outlasts_patience(s)
        slow.process.send_signal(signal.SIGCONT)
        missed = self.wait_phase(slow, "missed")
        self.assertGreater(missed["missed"], 0)
        self.assertEqual(missed["text"].split()[0], str(missed["missed"]))
        self.assert_clean_upgrade(s, NEW)
        for w in (reader, slow):
            w.wait_line(lambda x: x["phase"] == "committed" and not x["reason"], "the last one")
        at = slow.lines.index(missed)
        self.assertEqual(slow.lines[1:at], reader.lines[1:at])
        self.assertEqual(slow.lines[at + 1:], reader.lines[at + missed["missed"]:])

    def fill(self, s):
        """More events than a socket takes, whose size is limited by the sender's memory."""
        context = ["--reason", "x" * 1000, "--correlation-id", "x" * 250, "--tenant", "x" * 250]
        limit = int(harness.read_file("/proc/sys/net/core/wmem_default"))
        for n in range(limit // (10 * 1500) + 2):   # each handoff has ten at least
            self.use(s, ("kvd-v1", NEW)[n % 2])
            self.assert_outcome(s.upgrade(*context), 0, "committed")

    def outlasts_patience(self, s):
        """Another one that sends nothing was closed for that meanwhile."""
        with socket.socket(socket.AF_UNIX) as c:
            c.settimeout(harness.PATIENCE)
            c.connect(s.path("run", s.name, "control.sock"))
            self.assertEqual(c.recv(1), b"")
        self.assertIn("sent no whole request to control.sock for 10 s: closed", s.log())

    def test_missed_for_people(self):
        """The same, read by people; the next life of the supervisor still knows it."""
        s = self.kvd(options={"self-fence": "60s", "presumed-dead": "61s"})   # which may take its time
        reader = self.watch(s)
        p = self.people(s)
        p.send_signal(signal.SIGSTOP)
        self.fill(s)
        self.assertEqual(s.ctl("reexec", "kvd").returncode, 0, s.log())
        p.send_signal(signal.SIGCONT)
        harness.wait_until(lambda: "  missed: " in harness.read_file(s.path("watch.out")), "it is told")
        self.assertEqual(s.ctl("plan", "kvd").returncode, 0)
        harness.wait_until(lambda: "  plan: " in harness.read_file(s.path("watch.out")), "it goes on")
        self.wait_phase(reader, "plan")
        lines = harness.read_file(s.path("watch.out")).splitlines()
        [missed] = [int(x.split("  missed: ")[1].split(" events, not read in time")[0])
                    for x in lines if "  missed: " in x]
        self.assertEqual(len(lines) - 1 + missed, len(reader.lines))

    def test_the_supervisor_ends(self):
        s = self.kvd()
        w = self.watch(s)
        s.stop()
        self.assertEqual(w.end(), 3)

    def test_nobody_is_left_to_read(self):
        """`handoffctl watch | head -1` ends."""
        s = self.kvd()
        p = subprocess.run("exec %s watch kvd | head -n 1" % harness.program("handoffctl"), shell=True,
                           env=s.env, stdout=subprocess.PIPE, text=True, check=False,
                           timeout=harness.PATIENCE)
        self.assertIn("idle", p.stdout)


class Status(HandoffCase):
    def test_queues(self):
        """Where nobody accepts, the queue grows, and status says so."""
        s = self.kvd()
        [q] = s.status()["queues"]
        self.assertEqual((q["listener"], q["waiting"], q["drops"]), ("resp", 0, 0))
        pid = s.daemon_pid()
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(os.kill, pid, signal.SIGCONT)
        with socket.create_connection(("127.0.0.1", s.port)), socket.create_connection(("127.0.0.1", s.port)):
            [q] = harness.wait_until(lambda: [x for x in s.status()["queues"] if x["waiting"] == 2],
                                     "two wait")
            self.assertGreater(q["backlog"], 2)
            self.assertIn("(2 of %d wait, 0 dropped)" % q["backlog"], s.ctl("status", "kvd").stdout)


class Completion(HandoffCase):
    """The shell's own idea of what comes next."""

    def complete(self, s, *words):
        script = "%s; COMP_WORDS=(%s); COMP_CWORD=%d; _handoffctl; printf '%%s\\n' \"${COMPREPLY[@]}\"" % (
            'source <(handoffctl completion bash)', " ".join("'%s'" % w for w in words), len(words) - 1)
        env = dict(s.env, PATH="%s:%s" % (os.path.dirname(harness.program("handoffctl")), os.environ["PATH"]))
        p = subprocess.run(["bash", "-uc", script], env=env, stdout=subprocess.PIPE, text=True,
                           stderr=subprocess.PIPE, check=False, timeout=harness.PATIENCE)
        self.assertEqual(p.stderr, "", words)
        return set(p.stdout.split())

    def test_bash(self):
        s = self.kvd()
        self.assertEqual(self.complete(s, "handoffctl", "upg"), {"upgrade"})
        self.assertEqual(self.complete(s, "handoffctl", "upgrade", "--dr"), {"--drain-grace"})
        self.assertEqual(self.complete(s, "handoffctl", "--json", "upgrade", "k"), {"kvd"})
        self.assertEqual(self.complete(s, "handoffctl", "status", "--drain"), set())
        self.assertEqual(self.complete(s, "handoffctl", "upgrade", "--reason", ""), set())
        self.assertIn(s.conf, self.complete(s, "handoffctl", "upgrade", "--binary", s.conf[:-2]))

    def test_no_service_is_a_shell(self):
        s = self.kvd()
        self.assertEqual(self.complete(s, "handoffctl", "completion", ""), {
            "--help", "--version", "bash", "fish"})
        self.assertEqual(self.complete(s, "handoffctl", "metrics", "--j"), set())
        self.assertEqual(self.complete(s, "handoffctl", "-S", "/x", "sta"), {"status"})

    def test_fish(self):
        """Each command and option is there; where it is installed, fish itself says what it makes of them."""
        s = self.kvd(start=False)
        text = s.ctl("completion", "fish").stdout
        for word in ("-a upgrade ", "-a explain ", "-l drain-grace ", "-l binary -r -F "):
            self.assertIn(word, text)
        self.assertEqual(s.ctl("completion", "csh").returncode, 2)
        self.assertEqual(s.ctl("completion").returncode, 2)

    @unittest.skipUnless(shutil.which("fish"), "no fish here")
    def test_fish_itself(self):
        s = self.kvd()
        with open(s.path("handoffctl.fish"), "w", encoding="utf-8") as f:
            f.write(s.ctl("completion", "fish").stdout)
        for line, expected in (
                ("handoffctl upg", {"upgrade"}),
                ("handoffctl -S /x sta", {"status"}),
                ("handoffctl --socket=/x --json sta", {"status"}),
                ("handoffctl --json upgrade k", {"kvd"}),
                ("handoffctl upgrade --reason upgrade k", {"kvd"}),
                ("handoffctl upgrade --reason ", set()),
                ("handoffctl completion ", {"bash", "fish"}),
                ("handoffctl list k", set()),
                ("handoffctl upgrade --dr", {"--drain-grace"}),
                ("handoffctl --so", {"--socket"}),
                ("handoffctl list --dr", set()),
                ("handoffctl completion --j", set()),
                ("handoffctl metrics --j", set()),
                ("handoffctl status -S %s" % s.conf[:-2], {s.conf})):
            with self.subTest(line):
                self.assertEqual(self.fish(s, line), expected)

    def fish(self, s, line):
        env = dict(s.env, HOME=s.dir, XDG_CONFIG_HOME=s.path("fish"), XDG_DATA_HOME=s.path("fish"),
                   XDG_CACHE_HOME=s.path("fish"),
                   PATH="%s:%s" % (os.path.dirname(harness.program("handoffctl")), os.environ["PATH"]))
        script = "source handoffctl.fish; complete -C $argv[1]"
        p = subprocess.run(["fish", "--no-config", "-c", script, line], env=env, cwd=s.dir,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True, check=False, timeout=harness.PATIENCE)
        self.assertEqual(p.stderr, "", line)
        return {x.partition("\t")[0] for x in p.stdout.splitlines()}


if __name__ == "__main__":
    unittest.main()
