#!/bin/sh
# A machine in a box: systemd as PID 1 in namespaces of its own, on an overlay of the root file
# system. It lives until the standard input of this script ends, and leaves nothing behind.
#
#   machine.sh NAME SHARED
#
# NAME names its control groups; the folder SHARED is at /mnt inside, read only. The first line of
# the output is the process number of its PID 1, seen from outside.
set -eu

# Control groups: a child of our own in every hierarchy (version 1, version 2, or both), which is
# the root of the box. One line each: the mount point's name, the options, the folder.
hierarchies() {
    while IFS=: read -r number controllers path; do
        path=${path%/}
        if [ "$number" = 0 ] && [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
            echo "- - /sys/fs/cgroup$path"
        elif [ "$number" = 0 ]; then
            [ ! -d /sys/fs/cgroup/unified ] || echo "unified - /sys/fs/cgroup/unified$path"
        elif [ -d "/sys/fs/cgroup/${controllers#name=}" ]; then
            named=${controllers#name=}
            [ "$named" = "$controllers" ] || controllers=none,$controllers
            echo "$named $controllers /sys/fs/cgroup/$named$path"
        fi
    done </proc/self/cgroup
}

clean_up() {
    [ -z "$box" ] || kill -KILL "$box" 2>/dev/null || true
    wait 2>/dev/null || true
    for group in $groups; do
        [ -d "$group" ] || continue
        # What was in the box dies a moment later than its PID 1.
        while [ -n "$(find "$group" -name cgroup.procs -exec cat {} +)" ]; do :; done
        find "$group" -depth -type d -exec rmdir {} +
    done
}

outside() {
    hierarchies=$(hierarchies)
    groups=$(echo "$hierarchies" | while read -r _ _ folder; do echo "$folder/$1"; done)
    box=
    trap clean_up EXIT
    for group in $groups; do
        mkdir "$group"
        # Without processors and memory nothing can run in a cpuset of version 1.
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$group/$file" ] || cat "${group%/*}/$file" >"$group/$file"
        done
    done
    # Each dies with its parent, even when that is killed.
    setpriv --pdeathsig KILL sh -eu -c '
        for group in $1; do echo $$ >"$group/cgroup.procs"; done
        shift
        exec setpriv --bounding-set -sys_time,-sys_module,-sys_rawio,-sys_boot,-syslog \
            unshare --mount --uts --ipc --net --pid --cgroup --fork --kill-child -- "$@"
    ' box "$groups" "$0" --inside "$hierarchies" "$2" </dev/null &
    box=$!
    # When the box comes to nothing, nobody holds the pipe on which its number is waited for.
    exec >/dev/null
    cat
}

api_file_systems() {
    mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
    for file in sys sysrq-trigger; do
        [ ! -e "$root/proc/$file" ] || {
            mount --bind "$root/proc/$file" "$root/proc/$file"
            mount -o remount,bind,ro "$root/proc/$file"
        }
    done
    mount -t sysfs -o nosuid,nodev,noexec,ro sysfs "$root/sys"
    echo "$hierarchies" | while read -r name options _; do
        case $name in
        -) mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup" ;;
        *)
            mountpoint -q "$root/sys/fs/cgroup" ||
                mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
            mkdir "$root/sys/fs/cgroup/$name"
            if [ "$name" = unified ]; then
                mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/$name"
            else
                mount -t cgroup -o "$options" cgroup "$root/sys/fs/cgroup/$name"
            fi
            ;;
        esac
    done
    mount -t tmpfs -o nosuid,mode=755 tmpfs "$root/dev"
    mkdir "$root/dev/pts" "$root/dev/shm"
    for device in null zero full random urandom tty; do
        : >"$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    ln -s null "$root/dev/console"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
    mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/dev/shm"
    mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/tmp"
    mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs "$root/run"
}

# Of the services of the machine outside none is started: journal and temporary files are enough.
bare_system() {
    units=$root/usr/lib/systemd/system
    rm -rf "$root/etc/systemd/system" "$root/etc/fstab" "$root/var/log/journal" \
        "$root/usr/lib/systemd/system-generators" "$units"/*.wants
    mkdir -p "$root/etc/systemd/system" "$units/sysinit.target.wants" "$units/sockets.target.wants"
    ln -s ../systemd-journald.service ../systemd-tmpfiles-setup.service \
        "$units/sysinit.target.wants/"
    ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket \
        "$units/sockets.target.wants/"
    # What the machine outside has of ours, or forbids its packages to start, is not there.
    rm -rf "$root/usr/sbin/policy-rc.d" "$root/opt/belatwist" "$root/etc/belabox-metrics" \
        "$root/var/lib/belabox-metrics"
    ln -s /dev/null "$root/etc/systemd/system/systemd-journald-audit.socket"
    tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
    echo box >"$root/etc/hostname"
}

inside() {
    hierarchies=$1
    # /proc is still the one outside.
    read -r pid _ </proc/self/stat
    mount --make-rprivate /
    mount --bind "$2" /mnt
    mount -t tmpfs -o mode=755 tmpfs /tmp
    root=/tmp/root
    mkdir /tmp/upper /tmp/work "$root"
    mount -t overlay -o lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work overlay "$root"
    bare_system
    api_file_systems
    mount --bind /mnt "$root/mnt"
    mount -o remount,bind,ro "$root/mnt"
    ip link set lo up
    echo "$pid"
    cd "$root"
    # The old root, on top of the new one until it is gone, needs no folder of its own.
    pivot_root . .
    umount -l .
    # As systemd does when it is not in a container; the credentials of services come this way.
    mount --make-rshared /
    exec env -i container=box PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --unit=multi-user.target >/dev/null 2>&1
}

case $1 in
--inside)
    shift
    inside "$@"
    ;;
*) outside "$@" ;;
esac
