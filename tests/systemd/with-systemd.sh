#!/bin/sh
# with-systemd.sh UNITDIR COMMAND [ARG...]
#
# Boot a real systemd as pid 1 of its own pid namespace, with the unit files
# (and *.wants/, *.d/ directories) of UNITDIR, run COMMAND inside, exit with
# its status. Root only. Files are the host's (cwd and /tmp too), but what is
# written to /etc and /var is dropped at the end, and /run /dev /sys /proc
# /etc/systemd, the network, the host name and the cgroup tree are private. Of
# /lib/systemd/system only the *.target files, journald and D-Bus are loaded;
# no generator runs. In the environment:
#   WS_BOOT=20 WS_CMD=300 WS_STOP=10   limits in seconds: boot, COMMAND, shutdown
#   WS_USR=DIR                         lay DIR (the usr/ of an installation) over /usr
#   WS_V=1                             at the end, pid 1's early log on stderr
# Exit: COMMAND's; 124 or 137: it ran past WS_CMD; 125: systemd did not come up;
# 77: this machine cannot boot one, the reason is the last line on stderr.
set -u
say() { echo "with-systemd: $*" >&2; }
cannot() { echo "$*" >&2; exit 77; }
up="SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system:/run/systemd/transient:/run/ws/stock"

case ${WS_STAGE-0} in
0)  # in the caller's namespaces: what is needed, then a private mount table
    [ $# -ge 2 ] && [ -d "$1" ] || { say "usage: $0 UNITDIR COMMAND [ARG...]"; exit 125; }
    [ "$(id -u)" = 0 ] || cannot "a systemd can be booted by root only"
    [ -x /lib/systemd/systemd ] || cannot "systemd is not installed"
    grep -q cgroup2 /proc/filesystems || cannot "the kernel has no cgroup v2"
    unshare --mount --uts --ipc --pid --net --cgroup --fork true 2>/dev/null ||
        cannot "no namespaces may be made here"
    WS_STAGE=1 exec unshare --mount --propagation private -- /bin/sh "$0" "$@" ;;

2)  # in a cgroup namespace rooted at our cgroup: step out of it, so that only
    # pid 1 is in it when systemd takes it over (it cannot move an outer process)
    echo 0 >/run/ws/cg/cgroup.procs || exit 125
    WS_STAGE=3 exec unshare --mount --uts --ipc --pid --net --fork --kill-child=KILL -- /bin/sh "$0" "$@" ;;

3)  # pid 1 of the new pid namespace, about to become systemd
    read -r pid _ </proc/self/stat            # still the outer /proc: our outer pid
    set -e
    [ -z "${WS_USR-}" ] || mount -t overlay -o "lowerdir=$WS_USR:/usr" overlay /usr
    for d in etc var; do
        mkdir -p /run/ws/$d/up /run/ws/$d/work
        mount -t overlay -o "lowerdir=/$d,upperdir=/run/ws/$d/up,workdir=/run/ws/$d/work" overlay /$d
    done
    umount /run/ws/cg
    mount -t proc -o nosuid,nodev,noexec proc /proc
    mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /sys
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
    echo 0 >/sys/fs/cgroup/cgroup.procs       # and into it again
    mount -t tmpfs -o mode=755,nosuid tmpfs /dev
    mkdir /dev/pts /dev/shm
    mknod -m 666 /dev/null c 1 3;   mknod -m 666 /dev/zero c 1 5;    mknod -m 666 /dev/full c 1 7
    mknod -m 666 /dev/random c 1 8; mknod -m 666 /dev/urandom c 1 9; mknod -m 666 /dev/tty c 5 0
    mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts /dev/pts
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm
    ln -s pts/ptmx /dev/ptmx;    ln -s /proc/self/fd /dev/fd;  ln -s fd/0 /dev/stdin
    ln -s fd/1 /dev/stdout;      ln -s fd/2 /dev/stderr;       ln -s /run/ws/kmsg /dev/kmsg
    mount -t tmpfs -o mode=755 tmpfs /etc/systemd
    printf '[Manager]\nShowStatus=no\n' >/etc/systemd/system.conf
    printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=\nRateLimitBurst=0\n' >/etc/systemd/journald.conf
    tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
    mkdir -p /run/systemd/system /run/lock /run/ws/none /run/ws/stock
    cp -a "$1/." /run/systemd/system/
    cd /run/ws/stock
    L=/lib/systemd/system
    cp -P $L/*.target $L/systemd-poweroff.service $L/systemd-journald.service $L/systemd-journald.socket \
        $L/systemd-journald-dev-log.socket .
    mkdir sockets.target.wants sysinit.target.wants
    ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket sockets.target.wants/
    ln -s ../systemd-journald.service sysinit.target.wants/
    if [ -x /usr/bin/dbus-daemon ] && [ -e $L/dbus.socket ]; then   # for systemd-run --wait, busctl
        cp -P $L/dbus.socket $L/dbus.service .; ln -s ../dbus.socket sockets.target.wants/
    fi
    cd /
    echo "$pid" >/run/ws/pid
    exec setpriv --bounding-set -sys_time,-sys_module,-syslog,-mac_admin,-audit_control,-audit_read,-audit_write \
        env -i container=with-systemd LANG=C.UTF-8 "$up" SYSTEMD_LOG_TARGET=journal-or-kmsg \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        SYSTEMD_GENERATOR_PATH=/run/ws/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/ws/none \
        /lib/systemd/systemd --system --unit=multi-user.target ;;
esac

# stage 1, in a private mount table: set up, run, tear down
units=$(cd "$1" && pwd) && shift || exit 125
cwd=$(pwd) cg='' boot='' log='' pid=''
now() { read -r t _ </proc/uptime; echo "${t%.*}${t#*.}"; }          # 1/100 s
gone() { ! { read -r _ _ _ pp _ <"/proc/$boot/stat" && [ "$pp" = $$ ]; } 2>/dev/null; }   # a reused pid is no child of ours
inside() { # COMMAND...: in pid 1's namespaces, in a cgroup beside its units. --no-fork and the trap:
           # the waiting parent must neither stop nor die, its child's zombie would hold up a shutdown
    nsenter --no-fork -t "$pid" -m -u -i -n -p -C -- /bin/sh -c 'trap : INT TERM HUP
        echo 0 >/sys/fs/cgroup/payload/cgroup.procs; cd "$1" && shift && "$@"; exit $?' sh "$cwd" "$@"
}
cleanup() {
    rc=$?; trap '' INT TERM HUP PIPE; trap - EXIT
    if [ -n "$pid" ] && ! gone; then
        kill -38 "$pid" 2>/dev/null                                  # SIGRTMIN+4: poweroff.target
        n=0; while ! gone && [ $n -lt $((${WS_STOP:-10} * 20)) ]; do sleep 0.05; n=$((n + 1)); done
        gone || { say "shutdown took over ${WS_STOP:-10} s: killed"; kill -9 "$pid" 2>/dev/null; }
    fi
    [ -z "$boot" ] || { gone || kill -9 "$boot"; wait "$boot"; } 2>/dev/null
    if [ -n "$cg" ]; then
        echo 1 >"$cg/cgroup.kill" 2>/dev/null
        n=0; while [ -d "$cg" ] && [ $n -lt 40 ]; do
            find "$cg" -depth -type d -exec rmdir {} \; 2>/dev/null; [ ! -d "$cg" ] || sleep 0.05; n=$((n + 1))
        done
        [ ! -d "$cg" ] || say "left behind: cgroup ${cg##*/}"
    fi
    [ -z "$log" ] || { kill -9 "$log"; wait "$log"; } 2>/dev/null
    [ -z "${WS_V-}" ] && [ $rc != 125 ] || cat /run/ws/log >&2
    exit $rc
}
trap cleanup EXIT; trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 141' PIPE; trap 'exit 143' TERM

t0=$(now)
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run || exit 125       # private, goes away with us
mkdir -p /run/ws/cg && mkfifo /run/ws/kmsg || exit 125
mount -t cgroup2 cgroup2 /run/ws/cg 2>/dev/null || cannot "cgroup v2 cannot be mounted here"
for d in /run/ws/cg/with-systemd.*; do                               # left by a kill -9
    grep -qs . "/proc/${d##*.}/cmdline" || find "$d" -depth -type d -exec rmdir {} \; 2>/dev/null
done
cg=/run/ws/cg/with-systemd.$$
mkdir "$cg" "$cg/payload" 2>/dev/null || { cg=''; cannot "cgroup v2 cannot be written here"; }
setpriv --pdeathsig KILL sh -c 'trap "" INT TERM HUP; exec cat' <>/run/ws/kmsg >>/run/ws/log 2>&1 & log=$!
# --pdeathsig and --kill-child: a kill -9 of this script ends everything too
setpriv --pdeathsig KILL sh -c 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"' sh "$cg" \
    env WS_STAGE=2 unshare --cgroup -- /bin/sh "$0" "$units" </dev/null >>/run/ws/log 2>&1 & boot=$!
n=0; until [ -s /run/ws/pid ] && read -r pid </run/ws/pid && [ -S /run/systemd/private ]; do
    gone || [ $n -ge $((${WS_BOOT:-20} * 50)) ] && { say "systemd did not start"; exit 125; }
    sleep 0.02; n=$((n + 1))
done
state=$(inside timeout -k 2 "${WS_BOOT:-20}" systemctl is-system-running --wait 2>&1)
case $state in running|degraded) ;; *) say "systemd did not come up: $state"; exit 125 ;; esac
say "systemd up ($state) after $((($(now) - t0) * 10)) ms"
exec 3<&0
inside timeout --foreground -k 5 "${WS_CMD:-300}" env -u WS_STAGE container=with-systemd "$up" "$@" <&3 3<&- & cmd=$!
wait $cmd; rc=$?
say "exit code $rc"
exit $rc
