"""The clients that people have: over upgrades, a fresh connection never fails, and one that
stays never notices."""

import os
import subprocess
import threading
import unittest

import redis

import harness
from handoffs import HandoffCase, TIMERS


class Clients(HandoffCase):
    def setUp(self):
        super().setUp()
        # With redis-benchmark at full speed beside it a pause may take a while.
        self.s = self.service("kvd-v1", options=dict(
            TIMERS, **{"deadline": "10s", "start-timeout": "30s", "drain-grace": "3s"}))
        self.stop = threading.Event()
        self.problems = []

    def background(self, work, count=1):
        """Runs work(number) again and again until the test's upgrades are done."""
        def loop(n):
            try:
                while not self.stop.is_set():
                    work(n)
            except Exception as e:  # pylint: disable=broad-except
                self.problems.append(repr(e))
                self.stop.set()
        threads = [threading.Thread(target=loop, args=(n,)) for n in range(count)]
        for t in threads:
            t.start()
        self.addCleanup(lambda: [t.join() for t in threads])
        self.addCleanup(self.stop.set)
        return threads

    def upgrades(self, threads, progress, times=6):
        """Upgrades, with some work done between any two; then the work ends."""
        for i in range(times):
            goal = progress() + 5
            harness.wait_until(lambda: progress() >= goal or self.stop.is_set(), "work is done")
            self.assertEqual(self.problems, [])
            self.upgrade(self.s, ("kvd-v2", "kvd-v1")[i % 2])
        self.stop.set()
        for t in threads:
            t.join(harness.PATIENCE)
        self.assertEqual(self.problems, [], self.s.log()[-3000:])

    def run_tool(self, *args):
        return subprocess.run([args[0], "-p", str(self.s.port), *args[1:]], env=self.s.env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=harness.PATIENCE,
                              check=False)

    def test_redis_cli(self):
        seen = []

        def work(_):
            p = self.run_tool("redis-cli", "incr", "n")
            if p.returncode != 0 or p.stdout.strip() != str(len(seen) + 1):
                raise AssertionError("%d after %d: %s" % (p.returncode, len(seen), p.stdout))
            seen.append(p.stdout)
        self.upgrades(self.background(work), lambda: len(seen), times=10)
        with self.s.client() as c:
            self.assertEqual(int(c.get("n")), len(seen))

    def benchmark(self, count, *args):
        whole = []

        def work(_):
            p = self.run_tool("redis-benchmark", "-q", "-c", "10", "-n", count, "-r", "1000",
                              "-t", "set,get,incr,mset,ping", *args)
            for bad in ("Could not connect", "refused", "Error", "closed", "reset"):
                if bad in p.stdout:
                    raise AssertionError(p.stdout)
            if p.returncode != 0:
                raise AssertionError(p.stdout)
            whole.append(p.stdout)
        threads = self.background(work)
        self.upgrades(threads, lambda: 2 * len(whole), times=4)
        self.assertTrue(whole)
        p = self.run_tool("redis-benchmark", "-q", "-n", "2000", "-t", "set,get", *args)
        self.assertEqual(p.returncode, 0, p.stdout)

    def test_redis_benchmark(self):
        self.benchmark("2000")

    def test_redis_benchmark_pipelined(self):
        self.benchmark("10000", "-P", "16")

    def test_python_pool(self):
        """Each thread counts on its own, and gets every number once."""
        pool = redis.ConnectionPool(host="127.0.0.1", port=self.s.port,
                                    socket_timeout=harness.PATIENCE)
        self.addCleanup(pool.disconnect)
        client = redis.Redis(connection_pool=pool)
        counts = [0] * 8

        def work(n):
            counts[n] += 1
            value = client.incr("count%d" % n)
            if value != counts[n]:
                raise AssertionError("%d: %d, not %d" % (n, value, counts[n]))
        threads = self.background(work, 8)
        self.upgrades(threads, lambda: sum(counts) / 50)

    def test_python_fresh(self):
        done = []

        def work(n):
            with self.s.client() as c:
                c.set("fresh%d" % n, len(done))
            done.append(n)
        self.upgrades(self.background(work, 4), lambda: len(done) / 10, times=10)

    def test_unix_socket(self):
        path = self.s.path("sock")
        self.s.listen["path"] = "unix:" + path
        self.upgrade(self.s, "kvd-v1")
        done = []

        def work(_):
            with self.s.client("path") as c:
                c.incr("n")
            done.append(1)
        self.upgrades(self.background(work), lambda: len(done) / 10)
        self.s.stop()
        self.assertFalse(os.path.exists(path))


if __name__ == "__main__":
    unittest.main()
