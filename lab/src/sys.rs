//! The one unsafe part of this crate: what `std` lacks for child processes.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::Signal;

/// The child is killed when the thread that started it ends, however it ends (PR_SET_PDEATHSIG, `prctl(2)`).
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure makes one prctl(2) call, which is async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)) };
}

/// The child keeps these descriptors, under the same numbers. They must stay open in this process until it is spawned.
pub(crate) fn inherit(command: &mut Command, descriptors: &[RawFd]) {
    let descriptors = descriptors.to_vec();
    let keep = move || {
        for &descriptor in &descriptors {
            // SAFETY: the caller keeps the descriptor open until spawn, and the borrow ends with this call.
            let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
            fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: the closure makes fcntl(2) calls only, which are async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(keep) };
}
