#!/bin/busybox sh
# PID 1 of the nested rig: the host's tree under a tmpfs overlay, then the command, then power off.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
for module in /modules/*.ko; do $b insmod $module; done

$b mount -t virtiofs -o ro host /host
$b mount -t tmpfs tmpfs /writable
$b mkdir /writable/upper /writable/work
$b mount -t overlay -o lowerdir=/host,upperdir=/writable/upper,workdir=/writable/work overlay /new

# The three control ports: what the command writes, and how it ended.
for port in /sys/class/virtio-ports/*; do
    case $($b cat $port/name) in
    rig.stdout) stdout=/dev/${port##*/} ;;
    rig.stderr) stderr=/dev/${port##*/} ;;
    rig.status) status=/dev/${port##*/} ;;
    esac
done
exec 3>$status

$b mount --move /dev /new/dev
$b mount --move /proc /new/proc
$b mount --move /sys /new/sys
$b mkdir -p /new/dev/pts /new/dev/shm
$b mount -t devpts -o ptmxmode=666,gid=5,mode=620 devpts /new/dev/pts
for folder in /dev/shm /run /tmp; do
    $b mount -t tmpfs tmpfs /new$folder
    $b chmod 1777 /new$folder
done
$b mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
$b ip link set lo up
$b cp /command /new/run/rig-command
exec 1>/new$stdout 2>/new$stderr

# switch_root and not chroot(1): clone(2) refuses new user namespaces to a process in a chroot.
# The host ends the machine once it has the status; the reset is for a host that does not.
exec $b switch_root /new /bin/sh -c \
    'setsid sh /run/rig-command </dev/null 3>&-; echo $? >&3; sync; echo b >/proc/sysrq-trigger'
