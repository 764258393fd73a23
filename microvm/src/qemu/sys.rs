//! What QEMU inherits, and when it ends.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;

/// Lets the command inherit these descriptors under their numbers, and has the kernel kill it when the thread that starts
/// it ends, however that comes (PR_SET_PDEATHSIG(2const): it is bound to the thread, not to the process).
pub(super) fn inherit_and_die_with_us(command: &mut Command, descriptors: Vec<RawFd>) {
    let prepare = move || {
        // SAFETY: a system call without memory arguments; async-signal-safe, as what runs between fork and exec must be.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } == -1 {
            return Err(io::Error::last_os_error());
        }
        for &fd in &descriptors {
            // SAFETY: as above; clears FD_CLOEXEC in the child's own table of descriptors (fcntl(2)).
            if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure only makes the system calls above and reads memory that was allocated before the fork.
    unsafe { command.pre_exec(prepare) };
}
