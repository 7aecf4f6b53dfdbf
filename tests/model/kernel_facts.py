#!/usr/bin/env python3
"""Kernel facts that the Promela models rely on (AF_UNIX stream, flock), tried."""
import socket, os, fcntl, errno, sys, tempfile, time, signal
wrong = 0
def t(name, f, expected):
    global wrong
    got = str(f())
    wrong += got != expected
    print(f"{name}: {got}" + ("" if got == expected else f" *** expected: {expected}"))
def data_then_eof():
    a,b=socket.socketpair(); a.send(b"Commit"); a.close()
    return b.recv(100), b.recv(100)
def unread_then_close():
    # S dies with unread bytes from the daemon in its receive queue
    a,b=socket.socketpair(); b.send(b"Ready"); a.send(b"Commit"); a.close()
    r=[b.recv(100)]
    try: r.append(b.recv(100))
    except OSError as e: r.append(errno.errorcode[e.errno])
    try: r.append(b.recv(100))
    except OSError as e: r.append(errno.errorcode[e.errno])
    return r
def write_dead():
    a,b=socket.socketpair(); a.send(b"Commit"); a.close(); r=[]
    try: b.send(b"x"); r.append("write ok")
    except OSError as e: r.append("write "+errno.errorcode[e.errno])
    r.append(b.recv(100)); return r
def write_dead_unread():
    a,b=socket.socketpair(); b.send(b"Ready"); a.send(b"Commit"); a.close(); r=[]
    try: b.send(b"x"); r.append("write ok")
    except OSError as e: r.append("write "+errno.errorcode[e.errno])
    for _ in range(2):
        try: r.append(b.recv(100))
        except OSError as e: r.append("read "+errno.errorcode[e.errno])
    return r
def flock_dup():
    p=tempfile.mktemp(); f=os.open(p,os.O_CREAT|os.O_RDWR); fcntl.flock(f,fcntl.LOCK_EX)
    pid=os.fork()
    if pid==0: time.sleep(30); os._exit(0)      # helper child inherited the fd
    os.close(f); g=os.open(p,os.O_RDWR)
    try: fcntl.flock(g,fcntl.LOCK_EX|fcntl.LOCK_NB); r="lock free after close (child alive)"
    except OSError as e: r="STILL LOCKED after close while a forked child holds the fd"
    os.kill(pid,signal.SIGKILL); os.waitpid(pid,0)
    fcntl.flock(g,fcntl.LOCK_EX|fcntl.LOCK_NB); return r+"; free after child died"
def flock_un():
    p=tempfile.mktemp(); f=os.open(p,os.O_CREAT|os.O_RDWR); fcntl.flock(f,fcntl.LOCK_EX)
    pid=os.fork()
    if pid==0: time.sleep(30); os._exit(0)
    fcntl.flock(f,fcntl.LOCK_UN); g=os.open(p,os.O_RDWR)
    try: fcntl.flock(g,fcntl.LOCK_EX|fcntl.LOCK_NB); r="LOCK_UN frees it even with the inherited fd open"
    except OSError: r="LOCK_UN did not free it"
    os.kill(pid,signal.SIGKILL); os.waitpid(pid,0); return r
def rebind():
    a=socket.socket(); a.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1); a.bind(("127.0.0.1",0)); a.listen()
    b=socket.socket(); b.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)
    try: b.bind(a.getsockname()); b.listen(); return "ok"
    except OSError as e: return errno.errorcode[e.errno]
t("bind+listen (SO_REUSEADDR) while another process still holds the listener", rebind,
  'EADDRINUSE')
def dupsock():
    # a leaked dup of S's end hides S's death from O
    a,b=socket.socketpair(); pid=os.fork()
    if pid==0: b.close(); time.sleep(30); os._exit(0)
    a.close(); b.settimeout(0.3)
    try: r=b.recv(1); r="EOF seen"
    except TimeoutError: r="NO EOF while a leaked dup of the peer's end exists"
    os.kill(pid,signal.SIGKILL); os.waitpid(pid,0); return r
t("EOF with a leaked fd", dupsock,
  "NO EOF while a leaked dup of the peer's end exists")
t("data sent before peer death is read, then EOF", data_then_eof,
  "(b'Commit', b'')")
t("peer died with unread data: data, then", unread_then_close,
  "[b'Commit', 'ECONNRESET', b'']")
t("write to dead peer, then read", write_dead,
  "['write EPIPE', b'Commit']")
t("write to dead peer which had unread data, then reads", write_dead_unread,
  "['write EPIPE', b'Commit', 'read ECONNRESET']")
t("flock + close() only", flock_dup,
  'STILL LOCKED after close while a forked child holds the fd; free after child died')
t("flock + LOCK_UN", flock_un,
  'LOCK_UN frees it even with the inherited fd open')
# --- passed connections
def pair():
    l=socket.socket(); l.bind(("127.0.0.1",0)); l.listen()
    c=socket.create_connection(l.getsockname()); s,_=l.accept(); return c,s
def passed(s):
    a,b=socket.socketpair(); socket.send_fds(a,[b"x"],[s.fileno()])
    return a,b
def take(b):
    return socket.socket(fileno=socket.recv_fds(b,1,1)[1][0])
def eof(c):
    c.settimeout(0.2)
    try: return "EOF" if c.recv(1)==b"" else "data"
    except TimeoutError: return "nothing"
    except OSError as e: return errno.errorcode[e.errno]
def close_with_copy():
    c,s=pair(); a,b=passed(s); n=take(b); n.close(); r=["after close of one copy: "+eof(c)]
    s.shutdown(socket.SHUT_RDWR); r.append("after shutdown: "+eof(c)); return r
def shutdown_hurts():
    c,s=pair(); a,b=passed(s); n=take(b); s.shutdown(socket.SHUT_RDWR)
    try: n.send(b"x"); return "other copy can write"
    except OSError as e: return "other copy: "+errno.errorcode[e.errno]
def sender_dead():
    c,s=pair(); a,b=passed(s); s.close(); a.close(); n=take(b); n.send(b"y")
    return "descriptor still arrives, client reads %r" % c.recv(1)
def queue_dropped():
    c,s=pair(); a,b=passed(s); s.close(); b.close(); return eof(c)
def nonblock_shared():
    c,s=pair(); a,b=passed(s); n=take(b); n.setblocking(False)
    return "O_NONBLOCK set by N, O has it: %s" % bool(fcntl.fcntl(s,fcntl.F_GETFL)&os.O_NONBLOCK)
def epoll_ghost():
    import select
    c,s=pair(); e=select.epoll(); e.register(s.fileno(),select.EPOLLIN); a,b=passed(s); n=take(b)
    s.close(); c.send(b"z"); r=e.poll(0.2); return "event after O has closed its copy: %s" % bool(r)
def rst_unread():
    c,s=pair(); c.send(b"req"); time.sleep(0.05); s.send(b"reply"); s.close(); time.sleep(0.05)
    r=[]
    for _ in range(2):
        try: r.append(c.recv(10))
        except OSError as e: r.append(errno.errorcode[e.errno])
    return r
t("connection with two copies", close_with_copy,
  "['after close of one copy: nothing', 'after shutdown: EOF']")
t("shutdown of one copy", shutdown_hurts,
  'other copy: EPIPE')
t("descriptor in flight, sender gone", sender_dead,
  "descriptor still arrives, client reads b'y'")
t("descriptor in flight, receiver gone; client sees", queue_dropped,
  'EOF')
t("flags", nonblock_shared,
  'O_NONBLOCK set by N, O has it: True')
t("epoll", epoll_ghost,
  'event after O has closed its copy: True')
t("last close with unread input: client reads", rst_unread,
  "[b'reply', 'ECONNRESET']")
sys.exit(wrong != 0)
