//! The default profile: all of Linux but the part that only administrators of the host need.
//!
//! It is written as what is refused, with the reason, because that is the part to understand; what `compile` gets is
//! the list of everything else. A call that needs a capability comes back with it, as in the engines' profiles.

use std::collections::HashSet;
use std::hash::BuildHasher;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator as Operator, LinuxSyscall, LinuxSyscallBuilder,
};
use syscalls::x86_64::Sysno;

/// System calls refused, the capability that brings them back, and why they are refused.
const REFUSED: &[(&[&str], Option<Capability>, &str)] = &[
    (&["add_key", "keyctl", "request_key"], None, "keys of the kernel are not in a namespace"),
    (
        &[
            "_sysctl",
            "sysfs",
            "ustat",
            "uselib",
            "nfsservctl",
            "afs_syscall",
            "security",
            "tuxcall",
            "vserver",
            "create_module",
            "get_kernel_syms",
            "query_module",
            "getpmsg",
            "putpmsg",
            "epoll_ctl_old",
            "epoll_wait_old",
        ],
        None,
        "obsolete: code that nobody tests any more",
    ),
    (
        &["io_uring_setup", "io_uring_enter", "io_uring_register"],
        None,
        "its operations do not pass this filter",
    ),
    (&["userfaultfd"], None, "lets an attacker stop the kernel at a chosen moment"),
    (&["move_pages", "kexec_file_load", "kexec_load"], None, "acts on the whole machine"),
    (&["bpf"], Some(Capability::Bpf), "loads code into the kernel"),
    (&["perf_event_open"], Some(Capability::Perfmon), "observes other processes and the kernel"),
    (
        &["init_module", "finit_module", "delete_module"],
        Some(Capability::SysModule),
        "loads code into the kernel",
    ),
    (&["reboot"], Some(Capability::SysBoot), "the machine is not the container's"),
    (
        &["settimeofday", "clock_settime", "clock_adjtime", "adjtimex"],
        Some(Capability::SysTime),
        "the clock is shared",
    ),
    (&["iopl", "ioperm"], Some(Capability::SysRawio), "reaches hardware"),
    (&["acct"], Some(Capability::SysPacct), "accounting is the host's"),
    (&["syslog"], Some(Capability::Syslog), "the kernel's log is the host's"),
    (&["vhangup"], Some(Capability::SysTtyConfig), "acts on other sessions"),
    (&["chroot"], Some(Capability::SysChroot), "changes the root"),
    (
        &["open_by_handle_at"],
        Some(Capability::DacReadSearch),
        "opens files of the host by number (the shocker exploit)",
    ),
    (&["kcmp", "process_madvise"], Some(Capability::SysPtrace), "compares and changes other processes"),
    (
        &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"],
        Some(Capability::SysNice),
        "memory placement is the host's",
    ),
    (
        &[
            "mount",
            "umount2",
            "move_mount",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
            "open_tree",
            "open_tree_attr",
            "mount_setattr",
            "pivot_root",
            "swapon",
            "swapoff",
            "quotactl",
            "quotactl_fd",
            "setns",
            "unshare",
            "sethostname",
            "setdomainname",
            "lookup_dcookie",
            "fanotify_init",
            "lsm_set_self_attr",
        ],
        Some(Capability::SysAdmin),
        "takes the walls down, or opens the code behind new namespaces",
    ),
];

/// The flags of `clone(2)` that make namespaces; CLONE_NEWTIME has no bit there.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

// ANCHOR: default
/// The default profile for a process with these bounding capabilities; what `linux.seccomp` holds when the caller has
/// no profile of its own.
///
/// # Panics
/// Never: every field that the builders need is given.
pub fn default_seccomp<S: BuildHasher>(bounding: &HashSet<Capability, S>) -> LinuxSeccomp {
    let admin = bounding.contains(&Capability::SysAdmin);
    let refused: HashSet<&str> = REFUSED
        .iter()
        .filter(|(_, capability, _)| !capability.is_some_and(|capability| bounding.contains(&capability)))
        .flat_map(|(names, ..)| names.iter().copied())
        .chain((!admin).then_some(["clone", "clone3"]).into_iter().flatten())
        .chain(["personality"])
        .collect();
    let allowed = Sysno::iter().map(|number| number.name()).chain(I386_ONLY.iter().copied());
    let allowed = allowed.filter(|name| !refused.contains(name)).map(str::to_owned).collect();
    let mut syscalls = vec![rule(allowed, Action::ScmpActAllow, None, vec![])];
    if !admin {
        // New namespaces are refused, threads and processes are not. The flags of clone3 are behind a pointer that a
        // filter cannot follow, so it "does not exist", and the C library falls back to clone.
        let flags = argument(0, Operator::ScmpCmpMaskedEq, NEW_NAMESPACES, Some(0));
        syscalls.push(rule(vec!["clone".into()], Action::ScmpActAllow, None, vec![flags]));
        syscalls.push(rule(vec!["clone3".into()], Action::ScmpActErrno, Some(libc::ENOSYS as u32), vec![]));
    }
    // Execution domains: Linux, 32-bit Linux, both with UNAME26, and the question "which one?" (personality(2)).
    // Others switch protections off (READ_IMPLIES_EXEC, ADDR_NO_RANDOMIZE).
    for domain in [0x0, 0x8, 0x20000, 0x20008, 0xffff_ffff] {
        let arguments = vec![argument(0, Operator::ScmpCmpEq, domain, None)];
        syscalls.push(rule(vec!["personality".into()], Action::ScmpActAllow, None, arguments));
    }
    LinuxSeccompBuilder::default()
        .default_action(Action::ScmpActErrno)
        .default_errno_ret(libc::EPERM as u32)
        .architectures(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32])
        .syscalls(syscalls)
        .build()
        .expect("all fields are given")
}
// ANCHOR_END: default

/// Harmless calls that only 32-bit programs have; what x86-64 has under the same name is in its own list already.
const I386_ONLY: &[&str] = &[
    "_llseek",
    "_newselect",
    "chown32",
    "clock_getres_time64",
    "clock_gettime64",
    "clock_nanosleep_time64",
    "fadvise64_64",
    "fchown32",
    "fcntl64",
    "fstat64",
    "fstatat64",
    "fstatfs64",
    "ftruncate64",
    "futex_time64",
    "getegid32",
    "geteuid32",
    "getgid32",
    "getgroups32",
    "getresgid32",
    "getresuid32",
    "getuid32",
    "io_pgetevents_time64",
    "ipc",
    "lchown32",
    "lstat64",
    "mmap2",
    "mq_timedreceive_time64",
    "mq_timedsend_time64",
    "nice",
    "oldfstat",
    "oldlstat",
    "oldolduname",
    "oldstat",
    "olduname",
    "ppoll_time64",
    "pselect6_time64",
    "readdir",
    "recvmmsg_time64",
    "rt_sigtimedwait_time64",
    "sched_rr_get_interval_time64",
    "semtimedop_time64",
    "send",
    "recv",
    "sendfile64",
    "setfsgid32",
    "setfsuid32",
    "setgid32",
    "setgroups32",
    "setregid32",
    "setresgid32",
    "setresuid32",
    "setreuid32",
    "setuid32",
    "sgetmask",
    "sigaction",
    "signal",
    "sigpending",
    "sigprocmask",
    "sigreturn",
    "sigsuspend",
    "socketcall",
    "ssetmask",
    "stat64",
    "statfs64",
    "timer_gettime64",
    "timer_settime64",
    "timerfd_gettime64",
    "timerfd_settime64",
    "truncate64",
    "ugetrlimit",
    "utimensat_time64",
    "waitpid",
];

fn rule(
    names: Vec<String>,
    action: Action,
    errno: Option<u32>,
    arguments: Vec<LinuxSeccompArg>,
) -> LinuxSyscall {
    let builder = LinuxSyscallBuilder::default().names(names).action(action).args(arguments);
    let builder = match errno {
        Some(errno) => builder.errno_ret(errno),
        None => builder,
    };
    builder.build().expect("all fields are given")
}

fn argument(index: usize, op: Operator, value: u64, two: Option<u64>) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    let builder = match two {
        Some(two) => builder.value_two(two),
        None => builder,
    };
    builder.build().expect("all fields are given")
}
