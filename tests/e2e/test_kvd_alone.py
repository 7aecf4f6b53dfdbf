"""kvd without a supervisor: every command, every limit, and no acknowledged write lost."""

import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import redis

import harness

MAX_VALUE = 64 << 20


def environment(mark="kvd-alone"):
    """Without a supervisor."""
    env = harness.environment(mark)
    return {k: v for k, v in env.items() if not k.startswith("HANDOFF_")}


def kvd_path():
    return os.environ.get("KVD_V1") or harness.program("kvd-v1")


def verify(data):
    return subprocess.run([kvd_path(), "--verify", "--data-dir", data], env=environment(),
                          stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=harness.PATIENCE)


class Kvd:
    """A kvd on a unix socket in its own directory (no port: nothing to collide with)."""

    def __init__(self, data, *args, preexec=None):
        self.data = data
        self.path = os.path.join(data, "..", "s")
        self.log = open(os.path.join(data, "..", "log"), "ab")
        env = environment(os.path.dirname(data))
        self.process = subprocess.Popen([kvd_path(), "--data-dir", data,
                                         "--listen", "unix:" + self.path, *args],
                                        stderr=self.log, env=env, preexec_fn=preexec)
        self.db = redis.Redis(unix_socket_path=self.path)
        harness.wait_until(self.answers, "kvd answers")

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError("kvd exited: " + self.said())
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(self.path) == 0 and self.db.ping()

    def said(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            return f.read()

    def raw(self):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(harness.PATIENCE)
        s.connect(self.path)
        return s

    def end(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        code = self.process.wait(harness.PATIENCE)
        self.db.close()
        self.log.close()
        return code


def read_until(s, end, limit=1 << 22):
    got = b""
    while not got.endswith(end) and len(got) < limit:
        piece = s.recv(65536)
        if not piece:
            break
        got += piece
    return got


class Case(unittest.TestCase):
    args = ()

    def setUp(self):
        self.top = tempfile.mkdtemp(prefix="kvd-alone-")
        self.addCleanup(shutil.rmtree, self.top)
        self.data = os.path.join(self.top, "data")
        os.mkdir(self.data, 0o700)
        self.kvd = None
        self.addCleanup(self.finish)

    def finish(self):
        """Ends it as an operator does: a leak or a race is told by a sanitizer then."""
        if self.kvd is None:
            return
        if self.kvd.process.returncode is None:
            self.assertEqual(self.kvd.end(), 0, self.kvd.said())
        with open(os.path.join(self.top, "log"), encoding="utf-8", errors="replace") as f:
            self.assertNotIn("Sanitizer", f.read())

    def start(self, *args, **kw):
        self.kvd = Kvd(self.data, *args, **kw)
        return self.kvd.db

    def restart(self, sig=signal.SIGKILL, *args):
        self.kvd.end(sig)
        return self.start(*args)


class Commands(Case):
    def setUp(self):
        super().setUp()
        self.db = self.start()

    def error(self, *command):
        with self.assertRaises(redis.exceptions.ResponseError) as e:
            self.db.execute_command(*command)
        return str(e.exception)

    def test_strings(self):
        db = self.db
        self.assertIsNone(db.get("a"))
        self.assertTrue(db.set("a", "1"))
        self.assertEqual(db.get("a"), b"1")
        self.assertEqual((db.incr("a"), db.incrby("a", 10), db.decr("a"), db.decrby("a", 5)),
                         (2, 12, 11, 6))
        self.assertIsNone(db.set("a", "x", nx=True))
        self.assertTrue(db.set("b", "x", nx=True))
        self.assertIsNone(db.set("c", "x", xx=True))
        self.assertTrue(db.set("b", "y", xx=True))
        self.assertEqual(db.getdel("b"), b"y")
        self.assertIsNone(db.getdel("b"))
        self.assertTrue(db.mset({"x": 1, "y": 2}))
        self.assertEqual(db.mget("x", "none", "y"), [b"1", None, b"2"])
        self.assertEqual(db.exists("x", "y", "x", "none"), 3)
        self.assertEqual(db.delete("x", "none", "y", "x"), 2)
        self.assertEqual(sorted(db.keys("*")), [b"a"])
        self.assertEqual(db.dbsize(), 1)

    def test_numbers_that_are_none(self):
        self.db.set("a", "12x")
        self.assertIn("not an integer", self.error("INCR", "a"))
        self.db.set("a", str((1 << 63) - 1))
        self.assertIn("overflow", self.error("INCR", "a"))
        self.assertIn("not an integer", self.error("INCRBY", "a", "99999999999999999999"))
        self.assertIn("overflow", self.error("DECRBY", "a", str(-(1 << 63))))
        self.assertEqual(self.db.get("a"), str((1 << 63) - 1).encode())

    def test_expiry(self):
        db = self.db
        db.set("a", "1", px=1000000)
        db.set("b", "1", ex=1000)
        db.set("c", "1")
        self.assertTrue(900000 < db.pttl("a") <= 1000000)
        self.assertTrue(900 < db.ttl("b") <= 1000)
        self.assertEqual((db.ttl("c"), db.ttl("none")), (-1, -2))
        self.assertTrue(db.persist("b"))
        self.assertFalse(db.persist("b"))
        self.assertEqual(db.ttl("b"), -1)
        self.assertTrue(db.expire("c", 100))
        self.assertFalse(db.expire("none", 100))
        self.assertEqual(db.incr("c"), 2)
        self.assertTrue(db.ttl("c") > 90)       # INCR keeps it
        self.assertTrue(db.set("c", "3"))
        self.assertEqual(db.ttl("c"), -1)       # SET does not
        self.assertTrue(db.expire("c", -1))
        self.assertIsNone(db.get("c"))
        # deleted, not only hidden: by a record that is logged
        db.set("a", "1", px=40)
        harness.wait_until(lambda: db.dbsize() == 1, "the expired key is deleted")
        self.assertIn("invalid expire", self.error("SET", "a", "1", "EX", "0"))
        self.assertIn("invalid expire", self.error("SET", "a", "1", "EX", str((1 << 63) - 1)))

    def test_syntax(self):
        self.assertIn("syntax error", self.error("SET", "a", "b", "NX", "XX"))
        self.assertIn("syntax error", self.error("SET", "a", "b", "EX"))
        self.assertIn("syntax error", self.error("SET", "a", "b", "EX", "1", "PX", "1"))
        self.assertIn("wrong number", self.error("GET"))
        self.assertIn("wrong number", self.error("MSET", "a", "b", "c"))
        self.assertIn("unknown command 'NOPE'", self.error("NOPE"))
        self.assertIn("out of range", self.error("SELECT", "1"))
        self.assertTrue(self.db.execute_command("SELECT", "0"))

    def test_binary(self):
        everything = bytes(range(256))
        self.db.set(everything, everything * 3)
        self.db.set(b"", b"")
        self.assertEqual(self.db.get(everything), everything * 3)
        self.assertEqual(self.db.get(b""), b"")
        db = self.restart()
        self.assertEqual(db.get(everything), everything * 3)
        self.assertEqual(db.get(b""), b"")
        self.assertEqual(db.echo(everything), everything)

    def test_what_clients_ask(self):
        db = self.db
        db.client_setname("me")
        self.assertEqual(db.client_getname(), "me")
        self.assertGreater(db.client_id(), 0)
        self.assertIn("me", [c["name"] for c in db.client_list()])
        self.assertTrue(db.execute_command("CLIENT", "SETINFO", "LIB-NAME", "x"))
        self.assertEqual(db.client_info()["name"], "me")
        self.assertEqual(db.command_count(), len(db.execute_command("COMMAND")))
        self.assertEqual(db.config_get("appendonly"), {"appendonly": "yes"})
        self.assertIn("save", db.config_get("*"))
        info = db.info()
        self.assertEqual(str(info["kvd_version"]), "1.0")
        self.assertEqual(info["generation"], "standalone")
        self.assertEqual(info["process_id"], self.kvd.process.pid)
        self.assertGreaterEqual(info["epoch"], 1)
        self.assertRegex(info["fingerprint"], "^[0-9a-f]{64}$")
        self.assertEqual(db.info("clients")["connected_clients"], 1)

    def test_redis_tools(self):
        if not shutil.which("redis-cli") or not shutil.which("redis-benchmark"):
            self.skipTest("redis-tools is not installed")
        out = subprocess.run(["redis-cli", "-s", self.kvd.path, "set", "k", "v"], text=True,
                             stdout=subprocess.PIPE, timeout=harness.PATIENCE, check=True).stdout
        self.assertEqual(out, "OK\n")
        for more in ([], ["-P", "16"]):
            out = subprocess.run(["redis-benchmark", "-s", self.kvd.path, "-q", "-n", "5000",
                                  "-t", "ping,set,get,incr,mset", *more], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 timeout=harness.PATIENCE, check=True).stdout
            self.assertIn("SET: ", out)
            self.assertNotIn("rror", out)

    def test_pipeline_in_every_piece(self):
        text = b"SET a 1\r\n*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$4\r\n\r\n\0x\r\nINCR a\r\nGET b\r\n"
        want = b"+OK\r\n+OK\r\n:2\r\n$4\r\n\r\n\0x\r\n"
        for step in (1, 2, 3, 7, len(text)):
            with self.kvd.raw() as s:
                for i in range(0, len(text), step):
                    s.sendall(text[i:i + step])
                self.assertEqual(read_until(s, b"\0x\r\n"), want)
        with self.kvd.raw() as s:               # the peer ends, what it asked is answered
            s.sendall(b"PING\r\n" * 10000 + b"QUIT\r\nPING\r\n")
            s.shutdown(socket.SHUT_WR)
            self.assertEqual(read_until(s, b"+OK\r\n"), b"+PONG\r\n" * 10000 + b"+OK\r\n")
            self.assertEqual(s.recv(1), b"")

    def test_client_that_does_not_read(self):
        self.db.set("big", b"x" * 1000000)
        with self.kvd.raw() as s:
            s.sendall(b"GET big\r\n" * 500)     # half a gigabyte of replies
            for _ in range(50):
                self.assertTrue(self.db.ping())
            with open("/proc/%d/statm" % self.kvd.process.pid, encoding="ascii") as f:
                self.assertLess(int(f.read().split()[1]) * 4096, 200 << 20)
            total = 0
            while total < 500 * (1000000 + len("$1000000\r\n\r\n")):
                total += len(s.recv(1 << 20))
            s.sendall(b"PING\r\n")
            self.assertEqual(s.recv(100), b"+PONG\r\n")

    def test_protocol_limits(self):
        cases = [(b"*1\r\n$67108865\r\n", b"invalid bulk length (limit 67108864)"),
                 (b"*1048577\r\n", b"invalid multibulk length (limit 1048576)"),
                 (b"*2\r\n$3\r\nGET\r\n:1\r\n", b"expected '$', got ':'"),
                 (b"x" * 70000, b"a line is over the limit of 65536 bytes")]
        for text, why in cases:
            with self.kvd.raw() as s:
                s.sendall(b"PING\r\n" + text)
                self.assertEqual(read_until(s, why + b"\r\n"),
                                 b"+PONG\r\n-ERR Protocol error: " + why + b"\r\n")
                self.assertEqual(s.recv(1), b"")
        self.assertTrue(self.db.ping())

    def test_largest_value(self):
        value = random.Random(1).randbytes(1 << 20) * 64
        self.assertEqual(len(value), MAX_VALUE)
        self.db.set("v", value)
        self.assertEqual(self.db.get("v"), value)
        self.assertEqual(self.restart().get("v"), value)


class Limits(Case):
    def test_max_clients(self):
        db = self.start("--max-clients", "3")
        harness.wait_until(lambda: db.info("clients")["connected_clients"] == 1, "only this one")
        conns = [self.kvd.raw() for _ in range(2)]
        for s in conns:
            s.sendall(b"PING\r\n")
            self.assertEqual(s.recv(10), b"+PONG\r\n")
        with self.kvd.raw() as s:
            self.assertEqual(s.recv(100), b"-ERR max number of clients reached\r\n")
        conns.pop().close()
        harness.wait_until(lambda: db.info("clients")["connected_clients"] == 2, "one has gone")
        with self.kvd.raw() as s:
            s.sendall(b"PING\r\n")
            self.assertEqual(s.recv(10), b"+PONG\r\n")
        conns.pop().close()

    def test_descriptors_exhausted(self):
        limit = 40
        db = self.start(preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
        conns = [self.kvd.raw() for _ in range(limit)]
        harness.wait_until(lambda: "cannot accept" in self.kvd.said(), "it says so")
        self.assertTrue(db.set("a", "1"))
        for s in conns:
            s.close()
        with self.kvd.raw() as s:
            s.sendall(b"PING\r\n")
            self.assertEqual(s.recv(10), b"+PONG\r\n")

    def test_full_disk(self):
        """write(2) that fails: an error for that command, and nothing of it stays."""
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
        db = self.start("--shards", "1", preexec=limit)
        db.set("a", "old")
        # in one turn: a read before, the write that is too large, a read of it
        with self.kvd.raw() as s:
            s.sendall(b"GET a\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$60000\r\n" + b"x" * 60000 +
                      b"\r\n*5\r\n$4\r\nMSET\r\n$1\r\na\r\n$1\r\ny\r\n$1\r\nb\r\n$60000\r\n" +
                      b"x" * 60000 + b"\r\nGET b\r\nPING\r\n")
            got = read_until(s, b"+PONG\r\n")
        self.assertIn(b"-MISCONF the write was not done", got)
        self.assertEqual(got.count(b"-MISCONF"), 2 - got.count(b"+OK"))
        db.set("c", "kept")
        a = db.get("a")
        self.assertIsNone(db.get("b"))
        db = self.restart()
        self.assertEqual((db.get("a"), db.get("b"), db.get("c")), (a, None, b"kept"))


class Durability(Case):
    def test_kill_keeps_what_was_acknowledged(self):
        for args in (("--fsync", "everysec"), ("--fsync", "always")):
            db = self.start(*args, "--segment-size", "20k", "--compact-min", "10k")
            for i in range(4):
                acked = self.write_until_killed(i)
                db = self.restart(signal.SIGKILL, *args)
                for key, (done, tried) in acked.items():
                    value = int(db.get(key) or 0)
                    self.assertIn(value, (done, tried), "%s: an acknowledged write is lost" % key)
            self.kvd.end()
            v = verify(self.data)
            self.assertEqual(v.returncode, 0, v.stdout + v.stderr)

    def write_until_killed(self, i):
        """Writers of growing numbers; the last acknowledged and the last tried of each key."""
        acked = {}

        def work(w):
            db = redis.Redis(unix_socket_path=self.kvd.path)
            try:
                for n in range(1, 1 << 30):
                    key = "k%d-%d-%d" % (i, w, n % 20)
                    acked[key] = (acked.get(key, (0, 0))[0], n)
                    db.set(key, n)
                    acked[key] = (n, n)
            except redis.exceptions.RedisError:
                db.close()
        threads = [threading.Thread(target=work, args=(w,)) for w in range(4)]
        for t in threads:
            t.start()
        harness.wait_until(lambda: len(acked) == 80 and sum(x[0] for x in acked.values()) > 5000,
                           "writes")
        self.kvd.process.kill()
        for t in threads:
            t.join()
        return acked

    def test_torn_tail(self):
        db = self.start("--shards", "1")
        for i in range(20):
            db.set("k%d" % i, i)
        self.kvd.end(signal.SIGKILL)
        log = os.path.join(self.data, "shard-0-000001.log")
        os.truncate(log, os.path.getsize(log) - 3)
        self.assertIn("torn", verify(self.data).stdout)
        db = self.start()
        self.assertEqual((db.get("k18"), db.get("k19"), db.dbsize()), (b"18", None, 19))
        db.set("k19", "again")
        self.assertEqual(self.restart().get("k19"), b"again")

    def test_damage_refuses_to_start(self):
        db = self.start("--shards", "1")
        for i in range(20):
            db.set("k%d" % i, i)
        self.kvd.end()
        log = os.path.join(self.data, "shard-0-000001.log")
        with open(log, "r+b") as f:
            f.seek(200)
            f.write(b"?")
        size = os.path.getsize(log)
        self.assertEqual(verify(self.data).returncode, 1)
        p = subprocess.run([kvd_path(), "--data-dir", self.data, "--listen", "127.0.0.1:0"], env=environment(),
                           stderr=subprocess.PIPE, text=True, timeout=harness.PATIENCE)
        self.assertNotEqual(p.stderr.find("shard-0-000001.log is damaged at byte"), -1)
        self.assertEqual(os.path.getsize(log), size)
        self.kvd = None

    def test_compaction_while_serving(self):
        db = self.start("--compact-min", "100k", "--segment-size", "200k")
        with db.pipeline(transaction=False) as p:
            for i in range(30000):
                p.set("k%d" % (i % 500), "v%d" % i)
            p.execute()
        harness.wait_until(lambda: self.kvd.said().count("compaction of shard") >= 4,
                           "four compactions")
        self.assertEqual(sum(os.path.getsize(os.path.join(self.data, f))
                             for f in os.listdir(self.data)) < 3000000, True)
        fingerprint, revisions = (db.info("persistence")[x] for x in ("fingerprint", "revisions"))
        db.execute_command("BGREWRITEAOF")
        harness.wait_until(lambda: self.kvd.said().count("compaction of shard") >= 8, "four more")
        db = self.restart()
        info = db.info("persistence")
        self.assertEqual((info["fingerprint"], info["revisions"]), (fingerprint, revisions))
        self.assertEqual(db.get("k499"), b"v29999")

    def test_one_writer(self):
        self.start()
        p = subprocess.run([kvd_path(), "--data-dir", self.data, "--listen", "127.0.0.1:0"], env=environment(),
                           stderr=subprocess.PIPE, text=True, timeout=harness.PATIENCE)
        self.assertEqual(p.returncode, 1)
        self.assertIn("in use by pid %d" % self.kvd.process.pid, p.stderr)

    def test_epoch_grows(self):
        epochs = [self.start().info()["epoch"]]
        for sig in (signal.SIGTERM, signal.SIGKILL):
            epochs.append(self.restart(sig).info()["epoch"])
        self.assertEqual(epochs, sorted(set(epochs)))

    def test_idle_means_idle(self):
        db = self.start()
        db.set("a", 1)

        def turns():
            with open("/proc/%d/status" % self.kvd.process.pid, encoding="ascii") as f:
                return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read(), re.M)[1])
        deadline = time.monotonic() + harness.PATIENCE
        before = -1
        while turns() != before:                # the sync of the last write comes first
            self.assertLess(time.monotonic(), deadline, "it wakes up all the time")
            before = turns()
            time.sleep(3)


class Words(unittest.TestCase):
    def say(self, *args):
        p = subprocess.run([kvd_path(), *args], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True, timeout=harness.PATIENCE)
        return p.returncode, p.stdout, p.stderr

    def test_bad_arguments(self):
        cases = [([], "--data-dir is missing"),
                 (["--nope"], "no such option: --nope"),
                 (["--data-dir"], "its DIR is missing"),
                 (["--shards", "0"], "a number from 1 to 256"),
                 (["--shards=1x"], "a number from 1 to 256"),
                 (["--fsync", "often"], "always or everysec"),
                 (["--listen", "6380"], "HOST:PORT or unix:PATH"),
                 (["--segment-size", "big"], "a size is needed"),
                 (["--verify=1"], "takes no value"),
                 (["--fault", "nowhere:die"], "POINT one of start, warmup, hello"),
                 (["--fault=start:jump"], "there are hang, stop, die"),
                 (["--fault=drain:unhealthy"], "goes only with ready"),
                 (["--fault=start:delay"], "=MS is needed"),
                 (["--fault=start:die=3"], "takes no value")]
        for args, why in cases:
            code, out, err = self.say(*args)
            self.assertEqual((code, out, err.count("\n")), (2, "", 1), args)
            self.assertIn(why, err)

    def test_bad_places(self):
        code, _, err = self.say("--data-dir", "/nonexistent/x", "--listen", "127.0.0.1:0")
        self.assertEqual(code, 1)
        self.assertIn("mkdir", err)
        with tempfile.TemporaryDirectory() as d:
            code, _, err = self.say("--data-dir", d)
            self.assertNotEqual(err.find("give --listen"), -1)

    def test_help_and_version(self):
        code, out, _ = self.say("--help")
        self.assertEqual(code, 0)
        for word in ("--data-dir", "--fsync", "redis-cli", "ready", "badfp"):
            self.assertIn(word, out)
        self.assertEqual(self.say("--version")[1], "kvd 1.0\n")


if __name__ == "__main__":
    unittest.main()
