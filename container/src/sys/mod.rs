//! The kernel's side of the wall: the system calls that no library wraps, each with its man page.
//!
//! Everything else goes through `rustix`, whose calls reach the kernel directly: no allocation, no lock, no `errno`.
//! That matters here because the container's first process is a raw `clone3(2)` of a possibly multi-threaded
//! process: until `execve(2)` it may only do what `signal-safety(7)` allows.

mod begin;
pub(crate) mod bpf;
mod clone;
mod exec;
pub(crate) mod landlock;
mod net;
mod schedule;
mod signals;

pub use begin::begin_program;
pub(crate) use clone::{Cloned, clone_child};
pub(crate) use exec::{CStrings, execute, exit};
pub(crate) use net::loopback_up;
pub(crate) use schedule::{set_io_priority, set_memory_policy, set_scheduler};
pub use signals::SignalFd;

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// The result of one system call.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// What `syscall(2)` returned, as a result. `libc::syscall` leaves the reason in the calling thread's `errno`.
fn checked(value: libc::c_long) -> Result<libc::c_long> {
    if value == -1 {
        // SAFETY: the thread's own errno location is always valid to read (errno(3)).
        return Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }));
    }
    Ok(value)
}

/// Changes the attributes of a mount, or of a whole tree of them: `mount_setattr(2)`.
pub(crate) fn mount_setattr(
    directory: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    attributes: &libc::mount_attr,
) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path is NUL-terminated and attributes is a whole mount_attr of the size given (mount_setattr(2)).
    let value = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    checked(value).map(drop)
}

/// Leaves namespaces for new ones: `unshare(2)`, for the calling process of one thread.
pub(crate) fn unshare(flags: UnshareFlags) -> Result<()> {
    // SAFETY: CLONE_FILES, whose surprise makes the call unsafe (descriptors no longer shared between threads), is
    // never among our flags: they are namespaces only (unshare(2)).
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Loads a seccomp program and, if asked, returns the descriptor that its notifications arrive on: `seccomp(2)`.
pub(crate) fn seccomp_load(program: &[libc::sock_filter], flags: u32) -> Result<Option<OwnedFd>> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program is a valid array of `len` instructions, which the kernel copies and verifies (seccomp(2)).
    let value = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    };
    let value = checked(value)?;
    if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 == 0 {
        return Ok(None);
    }
    // SAFETY: with this flag the value is a new descriptor, which nobody else owns (seccomp(2)).
    Ok(Some(unsafe { OwnedFd::from_raw_fd(value as RawFd) }))
}

/// Joins a new, anonymous session keyring, so that the host's keys are out of reach: `keyctl(2)`, `keyrings(7)`.
pub(crate) fn new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing else is passed (keyctl(2)).
    let value =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) };
    checked(value).map(drop)
}

/// Marks every descriptor from `first` on to be closed at `execve(2)`: `close_range(2)`.
pub(crate) fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: only flags of descriptors change; no descriptor of Rust's is closed (close_range(2)).
    let value = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    checked(value).map(drop)
}

/// Closes every descriptor but those listed (in rising order): `close_range(2)` on the gaps between them.
///
/// The clone copied all of the runtime's descriptors, also those of its other threads: another container's pipe must
/// not stay open because this one waits to be started.
pub(crate) fn close_all_but(keep: &[RawFd]) -> Result<()> {
    let mut first: libc::c_uint = 0;
    for next in keep.iter().map(|&fd| fd as libc::c_uint).chain([libc::c_uint::MAX]) {
        if next > first {
            // SAFETY: called in the cloned child, whose Rust values that own other descriptors are never used nor
            // dropped: it leaves by execve(2) or _exit(2) (close_range(2)).
            checked(unsafe { libc::syscall(libc::SYS_close_range, first, next - 1, 0) })?;
        }
        first = next.saturating_add(1);
    }
    Ok(())
}

/// Makes `source` the descriptor of this number as well, kept open until somebody closes it: `dup2(2)`.
pub(crate) fn install_fd(source: BorrowedFd<'_>, number: RawFd) -> Result<()> {
    // SAFETY: called in the cloned child only, on numbers that the plan set aside for it (dup(2)).
    let value = unsafe { libc::syscall(libc::SYS_dup2, source.as_raw_fd(), number) };
    checked(value)?;
    if source.as_raw_fd() == number {
        rustix::io::fcntl_setfd(source, rustix::io::FdFlags::empty())?;
    }
    Ok(())
}

/// The number of signals, the real-time ones among them: `_NSIG` (`signal(7)`).
const LAST_SIGNAL: i32 = 64;

/// Gives the child the signal set-up of a fresh process: nothing blocked and nothing ignored. An ignored signal stays
/// ignored across `execve(2)` (`signal(7)`), and a shell never traps what was ignored before it, so that a workload
/// under `nohup` or in a script's background would not get its SIGHUP or SIGINT.
pub(crate) fn default_signals() -> Result<()> {
    let none: u64 = 0;
    let default = [0u64; 4]; // struct kernel_sigaction: handler SIG_DFL, no flags, no restorer, empty mask
    // SAFETY: the mask has the kernel's layout and size (rt_sigprocmask(2)).
    checked(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            std::ptr::from_ref(&none),
            std::ptr::null::<u64>(),
            size_of::<u64>(),
        )
    })?;
    for signal in (1..=LAST_SIGNAL).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        // SAFETY: the structure has the kernel's layout and size (rt_sigaction(2)).
        checked(unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                size_of::<u64>(),
            )
        })?;
    }
    Ok(())
}

/// Sends any signal number, also the real-time ones, to the process behind a pidfd: `pidfd_send_signal(2)`.
pub(crate) fn pidfd_signal(pidfd: &OwnedFd, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo means "as kill(2) would"; the descriptor is a live pidfd (pidfd_send_signal(2)).
    let value = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    checked(value).map(drop)
}

/// Sets the execution domain of the process: `personality(2)`.
pub(crate) fn personality(domain: u64) -> Result<()> {
    // SAFETY: the call takes one number and changes only the caller's execution domain (personality(2)).
    checked(unsafe { libc::syscall(libc::SYS_personality, domain) }).map(drop)
}

/// The number of a pseudo-terminal, as in /dev/pts/N: TIOCGPTN (`ioctl_tty(2)`).
pub(crate) fn pty_number(master: &OwnedFd) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int through the pointer (ioctl_tty(2)).
    let value = unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            master.as_raw_fd(),
            libc::TIOCGPTN as libc::c_long,
            std::ptr::from_mut(&mut number),
        )
    };
    checked(value)?;
    Ok(number)
}

/// The type of a namespace, as a flag of `clone(2)`: NS_GET_NSTYPE (`ioctl_nsfs(2)`).
pub(crate) fn namespace_type(link: &OwnedFd) -> Result<u32> {
    const NS_GET_NSTYPE: libc::c_long = 0xb703; // _IO(0xb7, 3), linux/nsfs.h
    // SAFETY: the request takes no argument and answers by its value alone (ioctl_nsfs(2)).
    let value = unsafe { libc::syscall(libc::SYS_ioctl, link.as_raw_fd(), NS_GET_NSTYPE) };
    checked(value).map(|flag| flag as u32)
}

/// Whether the working directory can be reached from the root: `getcwd(2)` of the kernel, which says "(unreachable)"
/// where it cannot.
pub(crate) fn cwd_is_inside() -> Result<()> {
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most the buffer's length (getcwd(2)).
    let value = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    checked(value)?;
    if buffer[0] == b'/' { Ok(()) } else { Err(Errno::NOENT) }
}
