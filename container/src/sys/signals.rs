//! Signals as something to read: `signalfd(2)`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use super::checked;

/// Every signal that can be caught, blocked in this thread and readable from a descriptor instead. A container's
/// processes start with nothing blocked all the same.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks and catches. Meant for a program's only thread, before it makes others.
    ///
    /// # Errors
    /// What `signalfd(2)` says.
    pub fn all() -> io::Result<Self> {
        // Everything but the signals that tell of a fault of this program itself: blocked, they would kill it anyway.
        let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT, libc::SIGTRAP];
        let mask = faults.iter().fold(u64::MAX, |mask, signal| mask & !(1 << (signal - 1)));
        // SAFETY: the mask has the kernel's size of a signal set; the descriptor returned is new (rt_sigprocmask(2),
        // signalfd(2)).
        unsafe {
            let set = std::ptr::from_ref(&mask);
            let none = std::ptr::null::<u64>();
            checked(libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, set, none, size_of::<u64>()))?;
            let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
            let fd = checked(libc::syscall(libc::SYS_signalfd4, -1, set, size_of::<u64>(), flags))?;
            Ok(Self(OwnedFd::from_raw_fd(fd as i32)))
        }
    }

    /// The number of the next signal, if there is one.
    pub fn read(&self) -> Option<i32> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        let length = rustix::io::read(&self.0, &mut info).ok()?;
        let number = info.first_chunk::<4>().filter(|_| length == info.len())?;
        Some(u32::from_ne_bytes(*number) as i32) // ssi_signo is the first field
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
