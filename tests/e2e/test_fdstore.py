"""The listening sockets survive in the service manager's descriptor store: whoever dies, a
client waits in their queue and is not refused. manager.py is the manager."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest

import harness
from handoffs import TIMERS, HandoffCase, faults
from manager import Manager

NEW, OLD = "kvd-v2", "kvd-v1"
MS = 500

# phase: point of the old or the new daemon that holds it open, and which binary must be started
# when all three die there
PHASES = {"warm": ("new", "warmup", "1.0"), "drain": ("old", "drain", "1.0"),
          "seal": ("old", "seal", "1.0"), "ready": ("new", "begin", "1.0"),
          "take": ("new", "take", "2.0"), "exit": ("old", "exit", "2.0")}


class Managed(harness.Service):
    """A service below a manager that has a descriptor store."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **dict(kwargs, start=False))
        self.manager = Manager(self.path("notify"))
        self.env["NOTIFY_SOCKET"] = self.manager.path
        self.listen_pid, self.listen_names = 0, None

    def launch(self):
        self.assert_no_end_of_its_own()
        argv, fds = self.manager.command([harness.program("handoffd"), "-c", self.conf],
                                         self.listen_pid, self.listen_names)
        with open(self.log_path, "ab") as log:
            self.supervisor = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env,
                cwd=self.dir, start_new_session=True, pass_fds=fds)

    def sockets(self):
        """{inode of each listening socket that the manager holds}"""
        return {n: os.fstat(fd).st_ino for n, fd in self.manager.store}

    def close(self):
        if self in harness.live():
            self.manager.close()
        super().close()


class Prober:
    """Clients who only want to be let in: they connect, one after another, to all addresses."""

    def __init__(self, *addresses):
        self.addresses = addresses
        self.connected = 0
        self.errors = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._end.is_set():
            for address in self.addresses:
                family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
                with socket.socket(family) as s:
                    s.settimeout(harness.PATIENCE)
                    try:
                        s.connect(address)
                        self.connected += 1
                    except OSError as e:
                        self.errors.append((address, e))
            time.sleep(0.002)  # few enough for the queue of a service that nobody serves

    def wait(self, more):
        goal = self.connected + more
        harness.wait_until(lambda: self.connected >= goal, "%d more connections" % more)

    def stop(self):
        self._end.set()
        self._thread.join()


class Store(HandoffCase):
    """A service with a tcp and a unix listener below a manager."""

    def kvd(self, *names, **kwargs):
        s = Managed(OLD, arguments=faults(*names), options=dict(TIMERS), **kwargs)
        self.addCleanup(s.finish)
        if "listen" not in kwargs:
            s.listen["admin"] = "unix:" + s.path("admin.sock")
        s.configure()
        s.start()
        harness.wait_until(lambda: len(s.manager.names()) == len(s.listen), "all are stored")
        return s

    def prober(self, s):
        p = Prober(("127.0.0.1", s.port), s.path("admin.sock"))
        self.addCleanup(p.stop)
        p.wait(2)
        return p

    def assert_let_in(self, p):
        p.wait(4)
        p.stop()
        self.assertEqual(p.errors, [])

    def kill(self, *pids):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # a successor ends with its supervisor
                os.kill(pid, signal.SIGKILL)

    def held(self, s, phase):
        """An upgrade that is held in a phase, with its status then."""
        who, point, _ = PHASES[phase]
        fault = ["%s:delay=%d" % (point, MS)]
        if who == "old":
            self.upgrade(s, OLD, *fault)
        other = s.path("bin", "other")
        shutil.copy(harness.program(NEW), other + ".new")
        os.rename(other + ".new", other)
        self.use(s, OLD, *(fault if who == "new" else []))
        u = s.start_upgrade("--binary", other)
        u.wait_phase(phase)
        return u, s.status()

    # --- who serves is not named anywhere ---

    def test_a_start_beside_who_has_the_lock(self):
        """The sockets are in hand, so the cold start is on its way when the incumbent registers:
        it ends, and the incumbent is adopted."""
        s = self.kvd()
        pid = s.daemon_pid()
        s.kill_supervisor()
        s.lose_journal("elsewhere")
        s.start()
        self.assertEqual(s.daemon_pid(), pid)
        self.assertIn("it is adopted", s.log())
        self.upgrade(s, NEW)

    # --- what is stored ---

    def test_stored_while_it_listens(self):
        s = self.kvd()
        mine = {int(x[8:-1]) for x in harness.descriptors(s.supervisor.pid).values()
                if x.startswith("socket:")}
        for name, inode in s.sockets().items():
            self.assertRegex(name, r"^(resp|admin)\.%d$" % inode)
            self.assertIn(inode, mine)
        stored = [t for t in s.manager.told if "FDSTORE" in t]
        self.assertEqual([t["FDPOLL"] for t in stored], ["0", "0"])
        # a removed one is really closed: the daemons have ended, the manager has none
        del s.listen["admin"]
        self.upgrade(s, NEW)
        harness.wait_until(lambda: len(s.manager.store) == 1, "one is left")
        self.assertTrue(s.manager.names()[0].startswith("resp."))
        self.assertFalse(os.path.exists(s.path("admin.sock")))

    def test_another_address(self):
        """While an upgrade changes it both are stored; then that of who serves."""
        s = self.kvd()
        old = s.manager.names()
        port = harness.free_port()
        for binary, names, outcome in ((NEW, ["open:exit=3"], "aborted"), (NEW, [], "committed")):
            s.listen["resp"] = "tcp:127.0.0.1:%d" % port
            self.use(s, binary, *names)
            s.manager.most = 0
            u = s.upgrade()
            self.assertEqual(u.result["outcome"], outcome, s.log())
            harness.wait_until(lambda: s.manager.most == 3 and len(s.manager.store) == 2,
                               "old and new were stored, then one of them")
            self.assertEqual(s.manager.names() == old, outcome == "aborted")
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", s.port))
        s.port = port
        s.kill_supervisor()
        self.kill(*[p.pid for p in self.daemons(s)])
        s.start()
        self.assert_serves(s, "2.0")

    def renamed(self, s, **names):
        """The same addresses by other names, in the configuration."""
        s.listen = {names.get(n, n): a for n, a in s.listen.items()}

    def stored(self, s, *names):
        harness.wait_until(lambda: sorted(n.partition(".")[0] for n in s.manager.names()) == sorted(names),
                           "%s are stored: %s" % (names, s.manager.names()))

    def test_another_name(self):
        """It is the same socket: nobody is refused, whoever serves, and whoever dies then."""
        s = self.kvd()
        port = harness.free_port()
        s.listen["http"] = "tcp:127.0.0.1:%d" % port
        self.upgrade(s, OLD)
        self.stored(s, "resp", "admin", "http")
        sockets = sorted(s.sockets().values())
        p = Prober(("127.0.0.1", port), s.path("admin.sock"))
        self.addCleanup(p.stop)
        self.renamed(s, admin="back", http="front")
        self.use(s, NEW, "open:exit1")
        self.assert_outcome(s.upgrade(), 1, "aborted")
        self.stored(s, "resp", "admin", "http")
        self.assert_clean_upgrade(s, NEW)
        self.stored(s, "resp", "back", "front")
        self.assertEqual(sorted(s.sockets().values()), sockets)
        p.wait(4)
        # a daemon that is adopted, and one that is dead, had it by its former name
        for everybody in (False, True):
            s.kill_supervisor()
            if everybody:
                self.kill(*[d.pid for d in self.daemons(s)])
            self.renamed(s, front="http", http="front")
            s.configure()
            s.start()
            self.stored(s, "resp", "back", "front" if everybody else "http")
            self.assert_clean_upgrade(s, NEW)
        self.assertEqual(sorted(s.sockets().values()), sockets)
        self.assert_let_in(p)

    def test_names_change_places(self):
        """Also while nobody looks: each socket goes by the name that its address has now."""
        s = self.kvd()
        s.listen["http"] = "tcp:127.0.0.1:%d" % harness.free_port()
        self.upgrade(s, OLD)
        self.stored(s, "resp", "admin", "http")
        p = self.prober(s)
        for everybody in (False, True):
            before = {n.partition(".")[0]: inode for n, inode in s.sockets().items()}
            s.kill_supervisor()
            if everybody:
                self.kill(*[d.pid for d in self.daemons(s)])
            self.renamed(s, admin="http", http="admin")
            s.configure()
            s.start()
            after = {"resp.%d" % before["resp"]: before["resp"], "admin.%d" % before["http"]: before["http"],
                     "http.%d" % before["admin"]: before["admin"]}
            harness.wait_until(lambda after=after: s.sockets() == after, "%s are stored" % after)
            self.assert_clean_upgrade(s, NEW)
        self.assert_let_in(p)

    def test_a_manager_that_hangs(self):
        s = self.kvd()
        before = s.sockets()
        s.kill_supervisor()
        s.manager.hang()
        s.listen["more"] = "tcp:127.0.0.1:%d" % harness.free_port()
        s.start()
        self.assertEqual(s.sockets(), before)
        self.assert_clean_upgrade(s, NEW)
        self.assertIn("listener more could not be given to the service manager's descriptor store",
                      s.log())
        s.manager.read()
        del s.listen["more"]
        self.assert_clean_upgrade(s, OLD)

    # --- what comes back ---

    def test_adopted_within_a_second(self):
        s = self.kvd()
        p = self.prober(s)
        load = s.load()
        status = s.status()
        took = []
        for _ in range(5):
            begin = time.monotonic()
            s.kill_supervisor()
            s.start()
            took.append(time.monotonic() - begin)
            load.wait_ok(50)
            self.assertEqual([s.status()[x] for x in ("pid", "epoch")],
                             [status[x] for x in ("pid", "epoch")])
        print("# kill -9 of the supervisor to adopted: %s ms" %
              ", ".join("%.0f" % (t * 1000) for t in took))
        self.assertLess(min(took), 1)
        self.assert_let_in(p)
        self.assert_nothing_failed(load)
        self.assertIn("2 of 2 listeners came back", s.log())

    def test_both_die_under_load(self):
        s = self.kvd()
        p = self.prober(s)
        load = s.load()
        before = s.sockets()
        for _ in range(5):
            load.wait_ok(100)
            self.kill(s.supervisor.pid, s.daemon_pid())
            s.ended(-signal.SIGKILL)
            p.wait(4)  # nobody is there: they wait in the queue
            s.start()
        self.assertEqual(s.sockets(), before)
        self.assert_let_in(p)
        r = load.stop()
        self.assertEqual([r[k][x] for k in ("fresh", "keepalive") for x in
                          ("refused", "connect_error", "timeout", "error_reply")], [0] * 8, r)
        self.assertEqual((r["lost_writes"], r["wrong_values"]), (0, 0), r)
        self.assert_clean_upgrade(s, NEW)

    def test_all_die_in_a_handoff(self):
        s = self.kvd()
        p = self.prober(s)
        load = s.load()
        for phase, (_, _, version) in PHASES.items():
            with self.subTest(phase=phase):
                u, status = self.held(s, phase)
                self.kill(s.supervisor.pid, status["pid"], *filter(None, [status["successor_pid"]]))
                s.ended(-signal.SIGKILL)
                p.wait(2)
                s.arguments = []
                s.configure()
                s.start()
                u.wait()
                self.assertIn(u.result["outcome"], ("committed", "aborted"), s.log())
                self.assert_serves(s, "2.0" if u.result["outcome"] == "committed" else "1.0")
                self.assertEqual(self.version(s), version, s.log())
                self.upgrade(s, OLD)
        self.assert_let_in(p)
        r = load.stop()
        self.assertEqual((r["fresh"]["refused"], r["keepalive"]["refused"]), (0, 0), r)
        self.assertEqual((r["lost_writes"], r["wrong_values"]), (0, 0), r)

    def test_the_supervisor_dies_in_a_handoff(self):
        s = self.kvd()
        p = self.prober(s)
        load = s.load()
        allowed = {"take": {"committed", "rolled back"}, "exit": {"committed"}}
        for phase in PHASES:
            with self.subTest(phase=phase):
                u, _ = self.held(s, phase)
                s.kill_supervisor()
                s.start()
                u.wait()
                self.assertIn(u.result["outcome"], allowed.get(phase, {"aborted"}), s.log())
                self.assert_serves(s, "2.0" if u.result["outcome"] == "committed" else "1.0")
                self.calm(load)
                self.upgrade(s, OLD)
                self.calm(load)
        self.assert_let_in(p)
        self.assert_nothing_failed(load)

    def test_restart_by_the_manager(self):
        """SIGTERM ends daemon and supervisor; the sockets stay, also the path of one."""
        s = self.kvd()
        p = self.prober(s)
        self.assertEqual(s.stop(), 0)
        s.assert_nothing_left()
        p.wait(4)
        s.start()
        self.assert_let_in(p)
        # not without a store behind it: then it is a leftover, and is replaced
        self.assertEqual(s.stop(), 0)
        s.manager.drop()
        s.start()
        with s.client("admin") as c:
            self.assertTrue(c.ping())

    # --- garbage ---

    def garbage(self, s):
        """Sockets and names that handoffd has not stored, or not so."""
        def listening(address=("127.0.0.1", 0)):
            g = socket.socket(socket.AF_INET)
            g.bind(address)
            g.listen()
            return g
        name = re.match(r"resp\.\d+", [n for n in s.manager.names() if n[0] == "r"][0])[0]
        pair = socket.socketpair()
        pair[1].close()
        ended = listening()
        with contextlib.suppress(OSError):
            ended.shutdown(socket.SHUT_RDWR)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(s.path("other.sock"))
        unix.listen()
        for g in (listening(), pair[0], ended, udp, unix):
            inode = os.fstat(g.fileno()).st_ino
            for n in ("resp.%d" % inode, "admin.%d" % inode, "nobody.%d" % inode):
                yield n, os.dup(g.fileno())
            g.close()
        plain = os.open(s.conf, os.O_RDONLY)
        yield "resp.%d" % os.fstat(plain).st_ino, plain
        for n in ("stored", "resp", "resp.", ".", name + "0", name[:-1], "resp.-1", "x" * 255,
                  "x" * 200 + ".1", "resp.99999999999999999999999", "%s%s%n", " "):
            yield n, listening().detach()

    def test_garbage(self):
        s = self.kvd()
        good = s.manager.names()
        daemon = s.daemon_pid()
        s.kill_supervisor()
        for name, fd in self.garbage(s):
            s.manager.put(name, fd)
        while len(s.manager.store) < 302:
            s.manager.put("stored", os.open("/dev/null", os.O_RDONLY))
        s.manager.random = None  # the good ones come last
        s.start()
        harness.wait_until(lambda: s.manager.names() == good,
                           "only these are left: %s" % s.manager.names())
        self.assertIn("listener resp: what came is not a listening stream socket", s.log())
        self.assertIn("listener resp: what came is of another address", s.log())
        self.assertIn("listener resp: what came is not a socket", s.log())
        self.assertIn("listener nobody: not configured", s.log())
        self.assertIn("stored came back from the service manager: no listener was stored so",
                      s.log())
        self.assertLess(len(harness.descriptors(s.supervisor.pid)), 40)
        self.assertEqual(s.daemon_pid(), daemon)
        # of the manager's variables, and of its descriptors, nothing reaches a daemon
        self.assert_clean_upgrade(s, NEW)
        kinds = [x for x in harness.descriptors(s.daemon_pid()).values() if x == "/dev/null"]
        self.assertLessEqual(len(kinds), 3)

    def test_not_for_this_process(self):
        s = self.kvd()
        for pid, names in ((1, None), (0, ""), (0, "resp"), (0, ":" * 500)):
            with self.subTest(pid=pid, names=names):
                s.kill_supervisor()
                s.listen_pid, s.listen_names = pid, names
                s.start()
                self.assertNotIn("listeners came back", s.log())
        # the daemon brought them
        self.assert_clean_upgrade(s, NEW)

    def test_an_unix_path_that_is_gone(self):
        """Nobody could reach the stored socket: another one is bound."""
        s = self.kvd()
        s.kill_supervisor()
        self.kill(*[p.pid for p in self.daemons(s)])
        os.unlink(s.path("admin.sock"))
        s.start()
        self.assertIn("listener admin: nobody reaches it, its path is gone", s.log())
        with s.client("admin") as c:
            self.assertTrue(c.ping())
        harness.wait_until(lambda: len(s.manager.store) == 2, "the new one is stored in its place")
        # and by another name it is no more in reach
        s.kill_supervisor()
        self.kill(*[p.pid for p in self.daemons(s)])
        os.unlink(s.path("admin.sock"))
        self.renamed(s, admin="back")
        s.configure()
        s.start()
        with s.client("back") as c:
            self.assertTrue(c.ping())
        self.stored(s, "resp", "back")


if __name__ == "__main__":
    unittest.main()
