#!/usr/bin/python3
"""Runs the end-to-end tests; prints TAP.

usage: run.py [-l] [-j N] [NAME]...   NAME: test_x, test_x.Class or test_x.Class.test_y
    -l    lists them
    -j N  N classes at a time, each in a network namespace of its own (as root; else one
          after the other): a free port stays free, a queue's length is that of one test
$BUILD_DIR says where the programs are, $HANDOFF_TEST_KEEP=1 keeps the directories, $TEST_LIMIT
is the limit of one test in seconds.
"""

import getopt
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.environ.get("TEST_DIR") or HERE)
sys.path.append(HERE)

import harness  # noqa: E402

LIMIT = int(os.environ.get("TEST_LIMIT", "300"))  # seconds for one test; each wait in it ends earlier


class TooLong(Exception):
    """The test's limit."""


class Tap(unittest.TestResult):
    """One line a test, with what is known about a failure below it."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self.begin = 0
        self.problems = []
        self.reason = None

    def startTest(self, test):
        super().startTest(test)
        self.count += 1
        self.begin = time.monotonic()
        self.problems = []
        self.reason = None
        signal.alarm(LIMIT)

    def _problem(self, test, err):
        # Called before the clean-up: the services are still there to be read.
        self.problems.append(self._exc_info_to_string(err, test))
        self.problems += [s.logs() for s in harness.live()]

    def addError(self, test, err):
        super().addError(test, err)
        self._problem(test, err)
        if isinstance(test, unittest.suite._ErrorHolder):  # setUpClass, setUpModule
            self.count += 1
            self._line(test.id())

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._problem(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.problems.append(str(subtest))
            self._problem(test, err)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.reason = reason

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.problems.append("succeeded, and should not have")

    def stopTest(self, test):
        signal.alarm(0)
        super().stopTest(test)
        if sys.exc_info()[0] is KeyboardInterrupt:
            self.problems.append("interrupted")
        self._line(test.id())

    def _line(self, name):
        text = "%d - %s (%.1f s)" % (self.count, name, time.monotonic() - self.begin)
        if self.problems:
            print("not ok " + text)
            for line in "\n".join(self.problems).splitlines():
                print("#   " + line)
        elif self.reason is not None:
            print("ok %d - %s # SKIP %s" % (self.count, name, self.reason))
        else:
            print("ok " + text)
        sys.stdout.flush()


def each(suite):
    for t in suite:
        if isinstance(t, unittest.TestSuite):
            yield from each(t)
        else:
            yield t


def too_long(_signum, _frame):
    raise TooLong("the test took longer than %d s" % LIMIT)


def run(suite):
    """One after the other, here."""
    signal.signal(signal.SIGALRM, too_long)
    result = Tap()
    try:
        suite.run(result)
    except KeyboardInterrupt:
        print("Bail out! interrupted")
        return 130
    finally:
        harness.close_all()
    print("1..%d" % result.count)
    return 0 if result.wasSuccessful() and result.count > 0 else 1


class Side:
    """Classes of tests side by side: each is a run of this program, whose lines are taken
    whole when it has ended, and numbered anew."""

    def __init__(self, names, jobs):
        self.names = queue.SimpleQueue()
        for n in names:
            self.names.put(n)
        self.jobs = jobs
        self.lock = threading.Lock()
        self.running = set()
        self.count = 0
        self.good = True
        self.interrupted = False

    def run(self):
        workers = [threading.Thread(target=self._work) for _ in range(self.jobs)]
        for w in workers:
            w.start()
        try:
            for w in workers:
                w.join()
        except KeyboardInterrupt:
            self.interrupted = True
            with self.lock:
                for p in self.running:
                    p.terminate()
            for w in workers:
                w.join()
            print("Bail out! interrupted")
            return 130
        print("1..%d" % self.count)
        return 0 if self.good and self.count > 0 else 1

    def _work(self):
        while not self.interrupted:
            try:
                name = self.names.get_nowait()
            except queue.Empty:
                return
            with subprocess.Popen([sys.executable, os.path.abspath(__file__), "-n", name],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, errors="replace") as p:
                with self.lock:
                    self.running.add(p)
                lines = p.stdout.readlines()
                code = p.wait()
                with self.lock:
                    self.running.discard(p)
                    self._take(name, lines, code)

    def _take(self, name, lines, code):
        failed = False
        for line in lines:
            if line.startswith(("ok ", "not ok ")):
                self.count += 1
                failed |= line.startswith("not")
                head, rest = line.split(" - ", 1)
                line = "%s %d - %s" % (head.rsplit(" ", 1)[0], self.count, rest)
            elif line.startswith("1.."):
                continue
            sys.stdout.write(line)
        if code != 0 and not failed and not self.interrupted:
            self.count += 1
            failed = True
            print("not ok %d - %s: exit status %d" % (self.count, name, code))
        self.good = self.good and not failed
        sys.stdout.flush()


def classes(suite):
    """The names of the classes that hold the tests, in their order."""
    return list(dict.fromkeys(t.id().rsplit(".", 1)[0] for t in each(suite)))


def main(args):
    loader = unittest.TestLoader()
    try:
        options, names = getopt.getopt(args, "hlnj:", ["help"])
        options = dict(options)
        jobs = int(options.get("-j", 1))
    except (getopt.GetoptError, ValueError) as e:
        print("run.py: %s; see --help" % e, file=sys.stderr)
        return 2
    if "-h" in options or "--help" in options:
        print(__doc__.strip())
        return 0
    harness.install_handlers()
    if "-n" in options:
        harness.own_network()
    suite = loader.loadTestsFromNames(names) if names else loader.discover(sys.path[0])
    if "-l" in options:
        print("\n".join(t.id() for t in each(suite)))
        return 0
    if jobs > 1 and not loader.errors and harness.may_have_a_network():
        return Side(classes(suite), jobs).run()
    return run(suite)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
