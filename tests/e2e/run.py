#!/usr/bin/python3
"""Runs the end-to-end tests; prints TAP.

usage: run.py [-l] [NAME]...   NAME: test_x, test_x.Class or test_x.Class.test_y
                               -l lists them
$BUILD_DIR says where the programs are, $HANDOFF_TEST_KEEP=1 keeps the directories.
"""

import os
import signal
import sys
import time
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.environ.get("TEST_DIR") or HERE)
sys.path.append(HERE)

import harness  # noqa: E402

LIMIT = 300  # seconds for one test; each wait in it ends earlier


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


def main(args):
    loader = unittest.TestLoader()
    names = [a for a in args if not a.startswith("-")]
    if "-h" in args or "--help" in args:
        print(__doc__.strip())
        return 0
    if names:
        suite = loader.loadTestsFromNames(names)
    else:
        suite = loader.discover(sys.path[0])
    if "-l" in args:
        print("\n".join(t.id() for t in each(suite)))
        return 0
    harness.install_handlers()
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
