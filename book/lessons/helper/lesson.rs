//! The course's helper: the system calls that the lessons need, as plain functions, each with its manual page.
//!
//! It has no dependencies (std links libc already), so lessons build without any network. Everything returns
//! `io::Result`: use `?`, and what went wrong is printed with the kernel's own word for it.

pub mod cgroup;
pub mod kvm;
pub mod measure;
pub mod vm;

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
use std::io;
use std::os::unix::process::CommandExt;

/// The program that a lesson's container has to run. It waits until the grader has looked at it, then exits with a code
/// that only the grader knows.
pub const TASK: &str = "/bin/task";

/// New namespaces for [`unshare`] (`namespaces(7)`).
pub const NEWNS: i32 = 0x0002_0000;
/// A new cgroup namespace.
pub const NEWCGROUP: i32 = 0x0200_0000;
/// A new UTS namespace: host name.
pub const NEWUTS: i32 = 0x0400_0000;
/// A new IPC namespace.
pub const NEWIPC: i32 = 0x0800_0000;
/// A new user namespace.
pub const NEWUSER: i32 = 0x1000_0000;
/// A new PID namespace, for children.
pub const NEWPID: i32 = 0x2000_0000;
/// A new network namespace.
pub const NEWNET: i32 = 0x4000_0000;

/// Flags for [`mount`] (`mount(2)`).
pub const MS_NOSUID: u64 = 2;
/// No devices.
pub const MS_NODEV: u64 = 4;
/// No programs.
pub const MS_NOEXEC: u64 = 8;
/// Show a directory at a second place.
pub const MS_BIND: u64 = 4096;
/// With all that is mounted below.
pub const MS_REC: u64 = 16384;
/// What is mounted here is not shown elsewhere, nor the other way round.
pub const MS_PRIVATE: u64 = 1 << 18;

/// "Please end" (`signal(7)`).
pub const SIGTERM: i32 = 15;
/// A child has ended.
pub const SIGCHLD: i32 = 17;

unsafe extern "C" {
    #[link_name = "unshare"]
    fn c_unshare(flags: c_int) -> c_int;
    #[link_name = "fork"]
    fn c_fork() -> c_int;
    #[link_name = "waitpid"]
    fn c_waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    #[link_name = "mount"]
    fn c_mount(s: *const c_char, t: *const c_char, k: *const c_char, f: c_ulong, d: *const c_void) -> c_int;
    #[link_name = "umount2"]
    fn c_umount2(target: *const c_char, flags: c_int) -> c_int;
    #[link_name = "syscall"]
    fn c_syscall(number: c_long, ...) -> c_long;
    #[link_name = "kill"]
    fn c_kill(pid: c_int, signal: c_int) -> c_int;
    #[link_name = "prctl"]
    fn c_prctl(option: c_int, ...) -> c_int;
    #[link_name = "sigprocmask"]
    fn c_sigprocmask(how: c_int, set: *const [u64; 16], old: *mut [u64; 16]) -> c_int;
    #[link_name = "sigwait"]
    fn c_sigwait(set: *const [u64; 16], signal: *mut c_int) -> c_int;
    #[link_name = "chroot"]
    fn c_chroot(path: *const c_char) -> c_int;
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn text(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(io::Error::from)
}

/// Moves this process into new namespaces. NEWPID is different: it is the *children* that are in the new one. `unshare(2)`
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: takes flags only; an unknown one is an error (unshare(2)).
    check(unsafe { c_unshare(flags) }.into()).map(drop)
}

/// Makes a copy of this process: `Some(pid)` in the parent, `None` in the child. `fork(2)`
pub fn fork() -> io::Result<Option<i32>> {
    // SAFETY: takes nothing. A lesson has one thread, so the child may do anything (fork(2)).
    check(unsafe { c_fork() }.into()).map(|pid| (pid != 0).then_some(pid as i32))
}

/// Waits for a child: its exit code, or 128 and the signal's number, as a shell has it. `waitpid(2)`
pub fn wait(pid: i32) -> io::Result<u8> {
    let mut status = 0;
    // SAFETY: the status is written to a variable of ours that outlives the call (waitpid(2)).
    check(unsafe { c_waitpid(pid, &mut status, 0) }.into())?;
    Ok(code(status))
}

/// Takes the status of any child that has ended, without waiting: `None` where there is none now. `waitpid(2)`, WNOHANG
pub fn reap_one() -> io::Result<Option<(i32, u8)>> {
    let mut status = 0;
    // SAFETY: the status is written to a variable of ours that outlives the call (waitpid(2)).
    match check(unsafe { c_waitpid(-1, &mut status, 1) }.into()) {
        Ok(0) => Ok(None),
        Ok(pid) => Ok(Some((pid as i32, code(status)))),
        Err(error) if error.raw_os_error() == Some(10) => Ok(None), // ECHILD: no children at all
        Err(error) => Err(error),
    }
}

fn code(status: i32) -> u8 {
    if status & 0x7f == 0 { (status >> 8) as u8 } else { 128 + (status & 0x7f) as u8 }
}

/// Mounts. Leave texts empty that the kind of mount does not need. `mount(2)`
pub fn mount(source: &str, target: &str, kind: &str, flags: u64, data: &str) -> io::Result<()> {
    let [source, target, kind, data] = [text(source)?, text(target)?, text(kind)?, text(data)?];
    let result =
        // SAFETY: four texts with their NUL, which outlive the call (mount(2)).
        unsafe { c_mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    check(result.into()).map(drop)
}

/// Takes a mount away, as soon as nobody uses it any more. `umount2(2)`, MNT_DETACH
pub fn unmount(target: &str) -> io::Result<()> {
    let target = text(target)?;
    // SAFETY: a text with its NUL, which outlives the call (umount2(2)).
    check(unsafe { c_umount2(target.as_ptr(), 2) }.into()).map(drop)
}

/// Makes `new` the root of this mount namespace and shows the old root at `old`. `pivot_root(2)`
pub fn pivot_root(new: &str, old: &str) -> io::Result<()> {
    let (new, old) = (text(new)?, text(old)?);
    // SAFETY: pivot_root(2) takes two texts with their NUL, which outlive the call.
    check(unsafe { c_syscall(155, new.as_ptr(), old.as_ptr()) }).map(drop)
}

/// Makes `path` the root directory of this process, and of nothing else. `chroot(2)`
pub fn chroot(path: &str) -> io::Result<()> {
    let path = text(path)?;
    // SAFETY: a text with its NUL, which outlives the call (chroot(2)).
    check(unsafe { c_chroot(path.as_ptr()) }.into()).map(drop)
}

/// Becomes another program. It returns only if that fails: then with the reason. `execve(2)`
pub fn exec(program: &str, arguments: &[&str]) -> io::Error {
    std::process::Command::new(program).args(arguments).exec()
}

/// Sends a signal. `kill(2)`
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes numbers only (kill(2)).
    check(unsafe { c_kill(pid, signal) }.into()).map(drop)
}

/// Holds all signals back from now on, for [`next_signal`]; [`allow_signals`] ends that. `sigprocmask(2)`
pub fn hold_signals() -> io::Result<()> {
    // SAFETY: the set is as long as libc's, and nothing is written back (sigprocmask(3)).
    check(unsafe { c_sigprocmask(0, &[u64::MAX; 16], std::ptr::null_mut()) }.into()).map(drop)
}

/// Lets signals through again: for a child, before it becomes another program. `sigprocmask(2)`
pub fn allow_signals() -> io::Result<()> {
    // SAFETY: the set is as long as libc's, and nothing is written back (sigprocmask(3)).
    check(unsafe { c_sigprocmask(1, &[u64::MAX; 16], std::ptr::null_mut()) }.into()).map(drop)
}

/// Waits for the next signal that is held back. Several SIGCHLD may arrive as one. `sigwait(3)`
pub fn next_signal() -> io::Result<i32> {
    let mut signal = 0;
    // SAFETY: the set is as long as libc's; the signal is written to a variable of ours (sigwait(3)).
    match unsafe { c_sigwait(&[u64::MAX; 16], &mut signal) } {
        0 => Ok(signal),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Capabilities (`capabilities(7)`), by their numbers.
pub const CAP_NET_BIND_SERVICE: u32 = 10;
/// The highest number that Linux knows today.
pub const CAP_LAST: u32 = 40;

/// Takes a capability out of the bounding set: no program started from here can get it back. `prctl(2)`, PR_CAPBSET_DROP
pub fn drop_bounding(capability: u32) -> io::Result<()> {
    // SAFETY: this option takes numbers only (prctl(2)).
    check(unsafe { c_prctl(24, capability as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) }.into())
        .map(drop)
}

/// Puts a capability into the ambient set, which programs without any marks inherit. It must be permitted and inheritable.
/// `prctl(2)`, PR_CAP_AMBIENT
pub fn raise_ambient(capability: u32) -> io::Result<()> {
    let raise: c_ulong = 2;
    // SAFETY: this option takes numbers only (prctl(2)).
    check(unsafe { c_prctl(47, raise, capability as c_ulong, 0 as c_ulong, 0 as c_ulong) }.into()).map(drop)
}

/// From now on no program gains rights by its set-user-id bit or file capabilities. `prctl(2)`, PR_SET_NO_NEW_PRIVS
pub fn no_new_privileges() -> io::Result<()> {
    // SAFETY: this option takes numbers only (prctl(2)).
    check(unsafe { c_prctl(38, 1 as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) }.into()).map(drop)
}

/// Sets this process's three sets, each a mask with bit `n` for capability `n`. `capset(2)`
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    let header: [u32; 2] = [0x2008_0522, 0];
    let half = |shift: u32| [effective, permitted, inheritable].map(|set| (set >> shift) as u32);
    let data: [[u32; 3]; 2] = [half(0), half(32)];
    // SAFETY: capset(2) reads a header and two data structures, which outlive the call.
    check(unsafe { c_syscall(126, header.as_ptr(), data.as_ptr()) }).map(drop)
}
