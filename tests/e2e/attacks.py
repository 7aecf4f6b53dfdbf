"""What the tests of SECURITY.md share: processes of other users, and what they leave behind."""

import os
import re
import socket
import subprocess

import harness
from badinput import ROOT, Case

STRANGER, DAEMON, VICTIM = 61001, 61002, 61003  # numbers need no accounts
PYTHON = ["/usr/bin/python3", "-IS", "-c"]
NEEDS_ROOT = "needs root, to be another user"
PRELUDE = """
import os, select, socket, struct, sys, time
def here():
    print("here", flush=True)
def told_to_end():
    return select.select([0], [], [], 0)[0]
def connect(path=sys.argv[1]):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    return s
"""


def as_user(uid):
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]


def used_s(pid):
    """CPU time of a process, in seconds."""
    after = harness.read_file("/proc/%d/stat" % pid).rpartition(")")[2].split()
    return (int(after[11]) + int(after[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    text = harness.read_file("/proc/%d/status" % pid)
    return int(re.search(r"^VmRSS:\s*(\d+) kB", text, re.M)[1])


def out_of_band():
    """True if a unix socket takes MSG_OOB (CONFIG_AF_UNIX_OOB)."""
    a, b = socket.socketpair()
    with a, b:
        try:
            return a.send(b"x", socket.MSG_OOB) == 1
        except OSError:
            return False


def uids(pid):
    """Real, effective, saved and file system's user of a process, and its groups."""
    text = harness.read_file("/proc/%d/status" % pid)
    return {int(x) for x in re.search(r"^Uid:\s*(.*)$", text, re.M)[1].split()}, \
        {int(x) for x in re.search(r"^Gid:\s*(.*)$", text, re.M)[1].split()}, \
        re.search(r"^Groups:[ \t]*(.*)$", text, re.M)[1].split()


def picture(top):
    """All that is below a directory: names, owners, modes, links, contents."""
    found = {}
    for folder, dirs, names in os.walk(top):
        for x in [folder] + [os.path.join(folder, n) for n in dirs + names]:
            st = os.lstat(x)
            what = ""
            if os.path.islink(x):
                what = os.readlink(x)
            elif os.path.isfile(x):
                what = harness.read_file(x)
            found[x] = (st.st_ino, st.st_mode, st.st_uid, st.st_gid, st.st_nlink, what)
    return found


class Attack:
    """Python code that runs as somebody else until this is closed."""

    def __init__(self, uid, code, *args):
        self.process = subprocess.Popen(
            [*as_user(uid), *PYTHON, PRELUDE + code, *map(str, args)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_here(self):
        """Until it says so; what it says beside that."""
        line = self.process.stdout.readline().split()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        return line[1:]

    def end(self):
        """What it said at its end."""
        out, err = self.process.communicate("\n", harness.PATIENCE)
        if self.process.returncode:
            raise AssertionError("the attack itself failed: " + err)
        return out

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class AttackCase(Case):
    def setUp(self):
        if not ROOT:
            self.skipTest(NEEDS_ROOT)

    def opened(self, s):
        """Only the directories above are the test's: what is below has handoffd's modes."""
        for d in (s.dir, s.path("run")):
            os.chmod(d, 0o711)
        os.chmod(s.path("bin"), 0o755)
        return s

    def owned(self, path, uid, mode):
        os.chmod(path, mode)
        os.chown(path, uid, uid, follow_symlinks=False)
        return path

    def attack(self, uid, code, *args):
        a = Attack(uid, code, *args)
        self.addCleanup(a.close)
        a.wait_here()
        return a

    def run_as(self, uid, code, *args):
        """Code of somebody else, from beginning to end: what it says."""
        p = subprocess.run([*as_user(uid), *PYTHON, PRELUDE + code, *map(str, args)],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, timeout=harness.PATIENCE,
                           check=False, cwd="/")
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        return p.stdout.split()

    def upgrades(self, s):
        u = s.upgrade("--binary", harness.program("kvd-v2"))
        self.assertEqual(u.code, 0, "%s\n%s" % (u.lines, s.log()))
