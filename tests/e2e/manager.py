#!/usr/bin/python3 -IS
"""A service manager's descriptor store, without one: sd_notify(3) and sd_listen_fds(3).

Run as a program it is what stands between the manager and the service: it puts descriptors
where the service looks for them, and becomes it.
    manager.py PID NAMES FD,... PROGRAM [ARGUMENT]...      PID: of LISTEN_PID; 0: its own
"""

import os
import random
import select
import socket
import sys
import threading

FIRST = 3


class Manager:
    """Listens at path; keeps what is stored by name, in the order of its arrival."""

    def __init__(self, path):
        self.path = path
        self.store = []     # [name, descriptor]
        self.told = []      # every message
        self.most = 0       # so many were stored at once
        self.random = random.Random(path)
        self._changed = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._end = os.pipe()
        self._reader = None
        self.read()

    def read(self):
        """Begins to read. (hang() ends it.)"""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _stop(self):
        os.write(self._end[1], b"x")
        self._reader.join()
        os.read(self._end[0], 1)

    def hang(self):
        """Reads no more, with a queue that is full."""
        self._stop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.setblocking(False)
            try:
                while True:
                    s.sendto(b"X_FULL=1", self.path)
            except BlockingIOError:
                pass

    def close(self):
        if self._reader.is_alive():
            self._stop()
        self._socket.close()
        for fd in self._end:
            os.close(fd)
        self.drop()

    def drop(self):
        """As for a unit that is stopped."""
        while self.store:
            os.close(self.store.pop()[1])

    def _read(self):
        while True:
            if self._end[0] in select.select([self._socket, self._end[0]], [], [])[0]:
                return
            data, fds, _, _ = socket.recv_fds(self._socket, 4096, 253)
            lines = dict(x.partition("=")[::2] for x in data.decode().splitlines())
            with self._changed:
                self.told.append(lines)
                if "FDSTOREREMOVE" in lines:
                    self._remove(lines["FDNAME"])
                for fd in fds:
                    self._add(lines, fd)

    def _add(self, lines, fd):
        # kcmp(2)'s answer, for sockets: each has an inode of its own
        same = [x for _, x in self.store if os.path.sameopenfile(x, fd)]
        if "FDSTORE" not in lines or same:
            os.close(fd)
        else:
            self.store.append([lines.get("FDNAME", "stored"), fd])
            self.most = max(self.most, len(self.store))

    def _remove(self, name):
        for entry in [x for x in self.store if x[0] == name]:
            os.close(entry[1])
            self.store.remove(entry)

    def put(self, name, fd):
        """Garbage, or a name of the test's own; consumes fd."""
        with self._changed:
            self.store.append([name, fd])

    def names(self):
        with self._changed:
            return sorted(n for n, _ in self.store)

    def command(self, program, pid=0, names=None):
        """(argv, pass_fds) of a program that is started with what is stored, in any order.
        names: what it is told of them."""
        with self._changed:
            entries = list(reversed(self.store))  # as systemd does
        if self.random is not None:
            self.random.shuffle(entries)
        told = ":".join(n for n, _ in entries) if names is None else names
        fds = [fd for _, fd in entries]
        argv = [os.path.abspath(__file__), str(pid), told, ",".join(map(str, fds)), *program]
        return argv, fds


def main(pid, names, fds, *program):
    fds = [int(x) for x in fds.split(",") if x]
    # beyond all places first: none of them must be overwritten before it is moved
    high = [os.dup2(fd, FIRST + len(fds) + max(fds) + i) for i, fd in enumerate(fds)]
    os.closerange(FIRST, FIRST + len(fds) + max(fds, default=0))
    for i, fd in enumerate(high):
        os.dup2(fd, FIRST + i)
    os.closerange(FIRST + len(fds), FIRST + 3 * len(fds) + max(fds, default=0) + 1)
    os.environ.update(LISTEN_PID=pid if pid != "0" else str(os.getpid()),
                      LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names)
    os.execv(program[0], program)


if __name__ == "__main__":
    main(*sys.argv[1:])
