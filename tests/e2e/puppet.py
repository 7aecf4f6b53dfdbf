#!/usr/bin/python3 -IS
"""A daemon that a test plays: it gives the test its channel, then does what it is told.

Started by handoffd in place of a daemon. It connects to puppet.sock in the test's directory,
sends its channel there, and obeys one line after another:
  connect   a connection to daemon.sock, which is sent to the test
  drop      closes its own copies of what it has sent
  lock PATH takes the flock of a file
  exit N    exits
  fork      leaves a child behind and exits with 0, as daemons of another age do
  EOF       exits with 9: the test is over
"""
import fcntl
import os
import socket
import sys


def tell(control, text, *fds):
    socket.send_fds(control, [text.encode() + b"\n"], fds)


def main():
    kept = [socket.socket(fileno=int(os.environ["HANDOFF_FD"]))]
    control = socket.socket(socket.AF_UNIX)
    control.connect(os.path.join(os.environ["MARK_OF_HANDOFF_TEST"], "puppet.sock"))
    tell(control, "%d %s" % (os.getpid(), os.environ["HANDOFF_ROLE"]), kept[0].fileno())
    for line in control.makefile():
        word, _, rest = line.strip().partition(" ")
        if word == "connect":
            s = socket.socket(socket.AF_UNIX)
            s.connect(os.path.join(os.environ["HANDOFF_DIR"], "daemon.sock"))
            kept.append(s)
            tell(control, "connected", s.fileno())
        elif word == "drop":
            while kept:
                kept.pop().close()
            tell(control, "dropped")
        elif word == "lock":
            lock = open(rest, "rb")
            fcntl.flock(lock, fcntl.LOCK_EX)
            tell(control, "locked")
        elif word == "exit":
            os._exit(int(rest))
        elif word == "fork":
            if os.fork():
                os._exit(0)
    return 9


if __name__ == "__main__":
    sys.exit(main())
