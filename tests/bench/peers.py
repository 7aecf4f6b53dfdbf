#!/usr/bin/python3
"""What clients notice of 20 upgrades: handoff beside what else replaces a server as it runs.

usage: peers.py [--upgrades N] [--rate R] [--connections N] [--calm RUNS] [PEER]...

One after the other in the same run, with the same load: nginx (reload, and its binary by USR2),
HAProxy (reload), examples/httpd started anew behind a listening socket that stays (as systemd's
socket activation does it), and examples/httpd below handoffd. Who is not installed is left out.
The load, kvload --http: keep-alive connections and fresh ones, at a constant rate; a connection
that the server ends is lost, in whatever way it says so. $BUILD_DIR: where the programs are (.).
--calm RUNS: examples/httpd below handoffd alone, in so many runs with an upgrade and as many without,
in turn: is what its clients wait within what they wait anyway?
"""

import argparse
import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BUILD = os.path.abspath(os.environ.get("BUILD_DIR", "."))
PATIENCE = 60
FRESH = 0.25  # of the requests, each over a connection of its own
PR_SET_CHILD_SUBREAPER = 36
TEXT = "x" * 100


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def wait_until(condition, what):
    if not wait_for(condition):
        raise SystemExit("peers: not in %d s: %s" % (PATIENCE, what))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def read(path):
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as f:
        return f.read()
    return ""


def children(pid):
    return {int(x) for x in read("/proc/%d/task/%d/children" % (pid, pid)).split()}


def ended(pid):
    """Also of one that is no child; who is a child by now is reaped."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return not os.path.exists("/proc/%d" % pid)


def memory_kib(pid):
    """Its own, and its share of what others map, too."""
    for line in read("/proc/%d/smaps_rollup" % pid).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return None


class Peer:
    """One server at 127.0.0.1:port; main is the process that stays, or supervises."""

    program = None  # found in $PATH; None: one of ours

    def __init__(self, path, port):
        self.dir = path
        self.port = port
        self.main = None

    def file(self, name, text=None):
        path = os.path.join(self.dir, name)
        if text is not None:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        return path

    def run(self, *command, **kwargs):
        with open(self.file("log"), "a", encoding="utf-8") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **kwargs)

    def answers(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            c.request("GET", "/")
            status = c.getresponse().status
            c.close()
            return status == 200
        return False

    def memory(self):
        return memory_kib(self.main)

    def stop(self):
        """It, and all that came of it; by force if it does not go. Orphans become our children."""
        def none_left(sig):
            left = [p for p in children(os.getpid()) if not ended(p)]
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sig)
            return not left
        wait_for(lambda: none_left(signal.SIGTERM)) or wait_for(lambda: none_left(signal.SIGKILL))


class NginxReload(Peer):
    name = "nginx, reload"
    program = "nginx"
    CONF = """pid %(dir)s/pid; error_log %(dir)s/log; worker_processes 1;
events { worker_connections 8192; }
http { access_log off; keepalive_requests 100000000; keepalive_timeout 1h;
  client_body_temp_path %(dir)s; proxy_temp_path %(dir)s; fastcgi_temp_path %(dir)s;
  uwsgi_temp_path %(dir)s; scgi_temp_path %(dir)s;
  server { listen 127.0.0.1:%(port)d backlog=4096; location / { return 200 "%(text)s"; } } }
"""

    def start(self):
        """As a daemon: one that has still the parent that started it ignores SIGUSR2."""
        conf = self.file("nginx.conf", self.CONF % {"dir": self.dir, "port": self.port, "text": TEXT})
        self.run(shutil.which(self.program), "-c", conf).wait()
        self.main = self.master()

    def master(self):
        found = []  # the file is empty before it is written
        wait_until(lambda: found.extend(read(self.file("pid")).split()) or found, "nginx says who it is")
        return int(found[0])

    def upgrade(self):
        old = children(self.main)
        os.kill(self.main, signal.SIGHUP)
        wait_until(lambda: children(self.main) - old and not children(self.main) & old,
                   "nginx has other workers")


class NginxBinary(NginxReload):
    name = "nginx, binary by USR2"

    def upgrade(self):
        old = self.main
        os.kill(old, signal.SIGUSR2)
        wait_until(lambda: self.master() != old and children(self.master()), "nginx has a new master")
        os.kill(old, signal.SIGQUIT)
        wait_until(lambda: ended(old), "nginx's old master ends")
        self.main = self.master()


class Haproxy(Peer):
    name = "HAProxy, reload"
    program = "haproxy"
    CONF = """global
    maxconn 8192
    nbthread 1
    stats socket %(dir)s/stats level admin expose-fd listeners
defaults
    mode http
    timeout client 1h
    timeout server 1h
    timeout connect 5s
frontend main
    bind 127.0.0.1:%(port)d backlog 4096
    http-request return status 200 content-type text/plain string "%(text)s"
"""

    def start(self):
        conf = self.file("haproxy.cfg", self.CONF % {"dir": self.dir, "port": self.port, "text": TEXT})
        self.main = self.run(shutil.which(self.program), "-W", "-f", conf).pid

    def upgrade(self):
        old = children(self.main)
        os.kill(self.main, signal.SIGUSR2)
        wait_until(lambda: children(self.main) - old and not children(self.main) & old,
                   "HAProxy has another worker")


def httpd(version):
    return os.path.join(BUILD, "examples", "httpd", "httpd" + ("" if version == 1 else "-v2"))


class SocketActivation(Peer):
    name = "httpd, started anew behind its socket"

    def start(self):
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=4096)
        self.version = 1
        self.launch()

    def launch(self):
        self.main = self.run(httpd(self.version), "--listen", "fd:%d" % self.listener.fileno(),
                             pass_fds=[self.listener.fileno()]).pid

    def upgrade(self):
        os.kill(self.main, signal.SIGTERM)
        wait_until(lambda: ended(self.main), "httpd ends")
        self.version = 3 - self.version
        self.launch()
        wait_until(self.answers, "httpd answers")

    def memory(self):
        return None  # whoever holds the socket: systemd

    def stop(self):
        super().stop()
        self.listener.close()


class Handoff(Peer):
    name = "httpd below handoffd"
    CONF = """service httpd {
    command = { "%(program)s" }
    listen http { address = "tcp:127.0.0.1:%(port)d" backlog = 4096 }
}
"""

    def start(self):
        self.version = 1
        self.env = dict(os.environ, HANDOFF_RUNTIME_DIR=self.file("run"),
                        HANDOFF_STATE_DIR=self.file("state"))
        conf = self.file("httpd.conf", self.CONF % {"port": self.port, "program": httpd(1)})
        self.main = self.run(os.path.join(BUILD, "handoffd"), "-c", conf, env=self.env).pid

    def upgrade(self):
        self.version = 3 - self.version
        subprocess.run([os.path.join(BUILD, "handoffctl"), "upgrade", "httpd", "--binary",
                        httpd(self.version)], check=True, stdout=subprocess.DEVNULL, env=self.env)


PEERS = {"nginx": NginxReload, "nginx-binary": NginxBinary, "haproxy": Haproxy,
         "activation": SocketActivation, "handoff": Handoff}


class Load:
    """kvload, at a constant rate until it is stopped."""

    def __init__(self, peer, args):
        self.process = subprocess.Popen(
            [os.path.join(BUILD, "examples", "kvload", "kvload"), "--http", "/", "--json",
             "--target", "127.0.0.1:%d" % peer.port, "--keepalive", str(args.connections),
             "--keepalive-rate", str(args.rate * (1 - FRESH)), "--fresh-rate", str(args.rate * FRESH),
             "--report-every", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.lines(10)

    def lines(self, n):
        """So many reports: tenths of a second of load."""
        for _ in range(n):
            if not self.process.stdout.readline():
                raise SystemExit("peers: kvload has ended")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return json.loads(self.process.communicate()[0].splitlines()[-1])


def measure(peer, args):
    try:
        peer.start()
        wait_until(peer.answers, peer.name + " answers")
        load = Load(peer, args)
        for _ in range(args.upgrades):
            peer.upgrade()
            load.lines(3)
        memory = peer.memory()
        result = load.stop()
    finally:
        peer.stop()
    k = result["keepalive"]
    return {"failed": result["failed"] + k["unanswered_reads"], "lost": k["connections"] - args.connections,
            "stall": result["stall_us"] / 1e3, "p99": k["p99_us"] / 1e3, "max": k["max_us"] / 1e3,
            "memory": "%d KiB" % memory if memory else "", "requests": result["requests"]}


def run(peer, args, upgraded):
    """Latencies of keep-alive clients, who are many enough to tell, in three seconds of load."""
    load = Load(peer, args)
    if upgraded:
        peer.upgrade()
    load.lines(20)
    return load.stop()


def beside_calm(args):
    """True: the median of what an upgrade makes of each figure is no worse than the worst calm run."""
    calm, upgraded = [], []
    with tempfile.TemporaryDirectory(prefix="handoff-peers-") as path:
        peer = Handoff(path, free_port())
        try:
            peer.start()
            wait_until(peer.answers, peer.name + " answers")
            for _ in range(args.calm):
                calm.append(run(peer, args, False))
                upgraded.append(run(peer, args, True))
        finally:
            peer.stop()
    print("%d runs without and with an upgrade, in turn; %d keep-alive connections, %d requests/s\n"
          % (args.calm, args.connections, args.rate))
    row = "| %-17s | %26s | %26s | %-6s |"
    print(row % ("httpd, keep-alive", "undisturbed, median (range)", "upgraded, median (range)", ""))
    print(row % ("---", "---:", "---:", "---"))
    good = True
    for name, key in (("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p999_us"), ("longest", "max_us")):
        a, b = ([r["keepalive"][key] / 1e3 for r in runs] for runs in (calm, upgraded))
        within = statistics.median(b) <= max(a)
        good &= within
        print(row % (name + ", ms", *("%.2f (%.2f to %.2f)" % (statistics.median(x), min(x), max(x))
                                      for x in (a, b)), "within" if within else "above"))
    failed = sum(r["failed"] for r in calm + upgraded)
    lost = sum(r["keepalive"]["connections"] - args.connections for r in calm + upgraded)
    print("\n%d requests failed, %d connections lost" % (failed, lost))
    return good and not failed and not lost


def main():
    parser = argparse.ArgumentParser(usage=__doc__.strip())
    parser.add_argument("--upgrades", type=int, default=20)
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--calm", type=int, default=0)
    parser.add_argument("peers", nargs="*", metavar="PEER")
    args = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if args.calm:
        sys.exit(0 if beside_calm(args) else 1)
    print("%d upgrades each, %d keep-alive connections, %d requests/s, every fourth over a fresh one\n"
          % (args.upgrades, args.connections, args.rate))
    row = "| %-37s | %8s | %15s | %16s | %11s | %11s | %9s |"
    print(row % ("", "requests", "requests failed", "connections lost", "longest, ms", "p99, ms", "memory"))
    print(row % ("---", *["---:"] * 6))
    for name in args.peers or PEERS:
        if name not in PEERS:
            parser.error("PEER is one of: " + ", ".join(PEERS))
        kind = PEERS[name]
        if kind.program and not shutil.which(kind.program):
            print(row % (kind.name + ": not installed", *[""] * 6))
            continue
        with tempfile.TemporaryDirectory(prefix="handoff-peers-") as path:
            r = measure(kind(path, free_port()), args)
        print(row % (kind.name, r["requests"], r["failed"], r["lost"], "%.1f" % r["max"],
                     "%.2f" % r["p99"], r["memory"]), flush=True)


if __name__ == "__main__":
    main()
