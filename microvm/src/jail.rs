//! The jail: what the process of a machine may still do to its host, should a guest break out of the machine into it.
//!
//! A guest that finds a hole in a device has the VMM's rights. So the VMM has few, and each thread only its own:
//!
//! | | vCPUs | devices | agent | control |
//! |---|---|---|---|---|
//! | system calls (seccomp(2)) | KVM's ioctls, events | files of shares, sockets | streams | those, connections, threads |
//! | capabilities (capabilities(7)) | none | those that a share's files need | none | none |
//!
//! And for the whole process: no new privileges, mount, IPC, host-name and, by the bundle, network namespaces of its own, a
//! process-id namespace in which it is alone, and an empty folder as its root. What it works with it has open already. It keeps
//! its user: files of shares belong to the guest's users, which are the host's.
//!
//! A system call that is not on a thread's list fails with EPERM, whoever makes it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use nix::libc;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags, set_capabilities};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use crate::Error;

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It runs a vCPU, and serves its exits.
    Vcpu,
    /// It serves virtio devices.
    Devices,
    /// It speaks to the guest's PID 1.
    Agent,
    /// It waits for the machine's end, or serves a connection of a command's.
    Control,
}

/// The filters of a process whose threads are jailed. None: this process belongs to somebody who wants more of it.
static FILTERS: OnceLock<Filters> = OnceLock::new();

struct Filters {
    old_clone: BpfProgram,
    by_role: [(Role, BpfProgram); 4],
}

/// Jails all threads that are made from now on, each as it begins; this one enters later, when it has opened all it needs.
/// With `sockets`, the devices may make Unix sockets and connect them: the guest's programs do.
///
/// # Errors
/// The filters cannot be made, or the process cannot give up new privileges.
pub(crate) fn prepare(sockets: bool) -> Result<(), Error> {
    let filter = |role| filter(role, sockets).map(|filter| (role, filter));
    let by_role = [filter(Role::Vcpu)?, filter(Role::Devices)?, filter(Role::Agent)?, filter(Role::Control)?];
    rustix::thread::set_no_new_privs(true).map_err(Error::system("give up new privileges (prctl)"))?;
    // A second machine of one process has the same jail.
    let _ = FILTERS.set(Filters { old_clone: old_clone()?, by_role });
    Ok(())
}

/// Whether threads of this process are jailed: files are out of reach then, once it is locked.
pub(crate) fn is_prepared() -> bool {
    FILTERS.get().is_some()
}

/// Namespaces of its own for this process, while it has one thread.
///
/// # Errors
/// What root may do and cannot.
#[allow(deprecated)] // its successor is unsafe for the sake of CLONE_FILES, which is not used here
pub(crate) fn leave_host() -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    rustix::thread::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)
        .map_err(Error::system("make namespaces for the machine's process (unshare)"))?;
    // What the host unmounts shall be unmounted here, too: a copy would keep it busy.
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave).map_err(Error::system("keep mounts of the machine's process to itself (mount)"))
}

/// This thread enters the jail, as what it is for. Nothing, where the process has none.
// ANCHOR: enter
#[inline(never)]
pub(crate) fn enter(role: Role) {
    let Some(filters) = FILTERS.get() else { return };
    let filter = filters.by_role.iter().find(|(known, _)| *known == role);
    let entered = drop_capabilities(role).is_ok()
        && seccompiler::apply_filter(&filters.old_clone).is_ok()
        && filter.is_some_and(|(_, filter)| seccompiler::apply_filter(filter).is_ok());
    if !entered {
        eprintln!("lab-vm: error: cannot jail the thread for {role:?}; does this kernel lack seccomp(2)?");
        std::process::exit(125);
    }
}
// ANCHOR_END: enter

/// Makes a folder of the host's visible in the jail to be, at `window`.
///
/// # Errors
/// It cannot be made or mounted.
pub(crate) fn open_window(window: &Path, folder: &Path) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    std::fs::create_dir(window).map_err(Error::file("make the folder", window))?;
    mount_bind(folder, window).map_err(|error| Error::file("mount", folder)(error.into()))
}

/// As [`enter`], for the process's first thread: an empty folder becomes the root.
///
/// # Errors
/// The folder cannot become the root.
pub(crate) fn lock(root: &Path) -> Result<(), Error> {
    if rustix::process::geteuid().is_root() {
        rustix::process::chroot(root).map_err(|error| Error::file("make the root", root)(error.into()))?;
    }
    rustix::process::chdir("/").map_err(Error::system("change to the root (chdir)"))?;
    enter(Role::Control);
    Ok(())
}

/// What the server of shares does in the name of the guest's users: makes, changes and gives away files.
const FOR_SHARES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP);

/// Drops what this thread does not need. It cannot come back: nobody here ever calls execve(2).
// ANCHOR: drop
fn drop_capabilities(role: Role) -> rustix::io::Result<()> {
    let has = rustix::thread::capabilities(None)?.permitted;
    let keep = if role == Role::Devices { FOR_SHARES & has } else { CapabilitySet::empty() };
    set_capabilities(
        None,
        CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() },
    )
}
// ANCHOR_END: drop

/// Memory, locks, signals, time, the end: what the standard library and the allocator do in any thread.
const ALL: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    // Whichever thread notices the machine's end hangs up on the guest's PID 1.
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_write,
];

/// Streams and sockets that are open.
const STREAMS: &[i64] = &[
    libc::SYS_dup,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_fcntl,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_writev,
];

/// Disks, and the files of shares: by descriptors, each step into one folder.
const FILES: &[i64] = &[
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_copy_file_range,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_flock,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_linkat,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_readlinkat,
    libc::SYS_renameat2,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_sync_file_range,
    libc::SYS_syncfs,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
];

/// Connections of commands, each served by a thread; and the end of the process by the signal that wakes its first thread.
const CONNECTIONS: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_getrusage,
    libc::SYS_getsockopt,
    libc::SYS_sched_getaffinity,
    libc::SYS_setsockopt,
    // Answered by the filter before: see `old_clone`.
    libc::SYS_clone3,
];

/// What a guest's vsock needs on the host.
const SOCKETS: &[i64] = &[libc::SYS_accept4, libc::SYS_connect];

/// Type and number of an ioctl's request are its low 16 bits (linux/ioctl.h); KVM's type is 0xae (linux/kvm.h).
const KVM: (u64, u64) = (0xff00, 0xae00);

fn filter(role: Role, sockets: bool) -> Result<BpfProgram, Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    // ANCHOR: lists
    let lists: &[&[i64]] = match role {
        Role::Vcpu => &[ALL],
        Role::Devices if sockets => &[ALL, STREAMS, FILES, SOCKETS],
        Role::Devices => &[ALL, STREAMS, FILES],
        Role::Agent => &[ALL, STREAMS],
        Role::Control => &[ALL, STREAMS, CONNECTIONS],
    };
    // ANCHOR_END: lists
    for call in lists.iter().flat_map(|list| list.iter()) {
        rules.insert(*call, Vec::new());
    }
    // Memory that can be written or run, never both; KVM_RUN's pages and the heap need no more.
    let not_executable = argument(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0)?;
    rules.insert(libc::SYS_mmap, vec![rule(vec![not_executable.clone()])?]);
    rules.insert(libc::SYS_mprotect, vec![rule(vec![not_executable])?]);
    // Threads of this process kick each other out of the guest.
    let own = || argument(0, SeccompCmpOp::Eq, u64::from(std::process::id()));
    rules.insert(libc::SYS_tgkill, vec![rule(vec![own()?])?]);
    let kvm = rule(vec![argument(1, SeccompCmpOp::MaskedEq(KVM.0), KVM.1)?])?;
    let request = |number: u64| rule(vec![argument(1, SeccompCmpOp::Eq, number)?]);
    if role == Role::Devices && sockets {
        let unix = argument(0, SeccompCmpOp::Eq, libc::AF_UNIX as u64)?;
        rules.insert(libc::SYS_socket, vec![rule(vec![unix])?]);
    }
    match role {
        Role::Vcpu => {
            rules.insert(libc::SYS_ioctl, vec![kvm, request(libc::TUNSETOFFLOAD)?]);
            // A device that the guest resets looks at what it has open again.
            let empty = libc::AT_EMPTY_PATH as u64;
            let open = argument(2, SeccompCmpOp::MaskedEq(empty), empty)?;
            rules.insert(libc::SYS_statx, vec![rule(vec![open])?]);
        }
        Role::Control => {
            // The debugger's socket waits or does not, as its library wants it.
            let waiting = request(libc::FIONBIO)?;
            drop(rules.insert(libc::SYS_ioctl, vec![kvm, request(libc::TIOCGWINSZ)?, waiting]));
            // New threads, never new processes: they share memory, which a process of another program would not.
            let thread =
                argument(0, SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64), libc::CLONE_THREAD as u64)?;
            rules.insert(libc::SYS_clone, vec![rule(vec![thread])?]);
            let name = argument(0, SeccompCmpOp::Eq, libc::PR_SET_NAME as u64)?;
            rules.insert(libc::SYS_prctl, vec![rule(vec![name])?]);
            rules.insert(libc::SYS_kill, vec![rule(vec![own()?])?]);
        }
        Role::Devices => {
            // A mask for new files of its own.
            let umask = argument(0, SeccompCmpOp::Eq, libc::CLONE_FS as u64)?;
            rules.insert(libc::SYS_unshare, vec![rule(vec![umask])?]);
        }
        Role::Agent => {}
    }
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, TARGET).map_err(broken)?;
    BpfProgram::try_from(filter).map_err(broken)
}

/// Says that there is no clone3(2), whose flags lie in memory where no filter can look: the C library then uses clone(2).
fn old_clone() -> Result<BpfProgram, Error> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let absent = SeccompAction::Errno(libc::ENOSYS as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, absent, TARGET).map_err(broken)?;
    BpfProgram::try_from(filter).map_err(broken)
}

#[cfg(target_arch = "x86_64")]
const TARGET: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const TARGET: TargetArch = TargetArch::aarch64;

fn argument(number: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Error> {
    SeccompCondition::new(number, SeccompCmpArgLen::Dword, operator, value).map_err(broken)
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, Error> {
    SeccompRule::new(conditions).map_err(broken)
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::Device { device: "machine", reason: format!("its system call filter: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::process::Command;

    /// What fails with EPERM in a jailed thread; the thread ends then, and its jail with it.
    fn refused(role: Role, attempt: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> bool {
        let program = filter(role, true).unwrap();
        let thread = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            seccompiler::apply_filter(&old_clone().unwrap()).unwrap();
            seccompiler::apply_filter(&program).unwrap();
            attempt()
        });
        matches!(thread.join().unwrap(), Err(error) if error.raw_os_error() == Some(libc::EPERM))
    }

    #[test]
    fn no_thread_starts_programs_makes_sockets_or_leaves_by_paths() {
        for role in [Role::Vcpu, Role::Devices, Role::Agent, Role::Control] {
            assert!(refused(role, || Command::new("/bin/true").spawn().map(drop)), "{role:?}: a program");
            assert!(refused(role, || TcpListener::bind("127.0.0.1:0").map(drop)), "{role:?}: a socket");
            assert!(refused(role, || std::env::set_current_dir("/")), "{role:?}: another folder");
            assert!(refused(role, || Ok(rustix::process::chroot("/")?)), "{role:?}: another root");
            assert!(
                refused(role, || Ok(mount_change("/", MountPropagationFlags::PRIVATE)?)),
                "{role:?}: a mount"
            );
            let parent = rustix::process::getppid().unwrap();
            let signal = move || Ok(rustix::process::kill_process(parent, rustix::process::Signal::CONT)?);
            assert!(refused(role, signal), "{role:?}: a signal to another process");
        }
    }

    #[test]
    fn only_the_devices_thread_opens_files() {
        for role in [Role::Vcpu, Role::Agent, Role::Control] {
            assert!(refused(role, || File::open("/dev/null").map(drop)), "{role:?}");
        }
        assert!(!refused(Role::Devices, || File::open("/dev/null").map(drop)));
    }

    #[test]
    fn what_each_is_for_goes_on() {
        let mut file = tempfile::tempfile().unwrap();
        assert!(!refused(Role::Vcpu, move || file.write_all(b"x")));
        assert!(!refused(Role::Control, || {
            std::thread::Builder::new().spawn(|| ())?.join().map_err(|_| std::io::Error::other("a thread"))
        }));
        assert!(!refused(Role::Agent, || {
            let _memory = std::hint::black_box(vec![1u8; 64 << 20]);
            Ok(())
        }));
    }

    #[test]
    fn a_vcpus_thread_may_ask_kvm_and_nobody_else() {
        assert!(refused(Role::Vcpu, || Ok(rustix::termios::tcgetwinsize(std::io::stdin()).map(drop)?)));
        let unmade =
            |kvm: kvm_ioctls::Kvm| (kvm.get_api_version() >= 0).then_some(()).ok_or(nix::errno::Errno::EPERM);
        if let Ok(kvm) = kvm_ioctls::Kvm::new() {
            assert!(!refused(Role::Vcpu, move || Ok(unmade(kvm)?)));
        }
    }
}
