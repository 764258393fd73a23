//! `clone3(2)`: the call that makes a container's first process.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Result, checked};

/// Flags that only `clone3(2)` has (linux/sched.h); the `libc` crate's constants are too narrow for them.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A child process: its id in our pid namespace and the descriptor that stands for exactly this process.
#[derive(Debug)]
pub(crate) struct Cloned {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// Makes a child process in new namespaces (and, on cgroup v2, in its cgroup from its first instruction on) that runs
/// `child` and never returns.
///
/// The child has a copy of the caller's memory but only one thread: a lock that another thread held at this moment
/// stays locked for ever. So `child` must not allocate, lock, or touch anything that does (`signal-safety(7)`).
/// The pidfd is there from the same call, so that no exit is missed however soon it comes.
pub(crate) fn clone_child(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> std::convert::Infallible,
) -> Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let mut arguments = libc::clone_args {
        flags: flags | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        // With CLONE_PARENT the signal must be 0 here: it is the parent's own that counts (clone3(2)).
        exit_signal: if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child gets its own copy of memory and goes on from here on its own copy of this
    // stack, like fork(2); the arguments outlive the call and have the size given (clone3(2)).
    let pid = checked(unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut arguments), size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        child();
    }
    // SAFETY: CLONE_PIDFD put a fresh descriptor, which nobody else owns, there (clone3(2)).
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned { pid: pid as i32, pidfd })
}
