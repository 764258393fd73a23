//! Processes from the outside: how they end, and how they are waited for.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::sys;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(u8),
    /// A signal killed it.
    Signal(i32),
}

impl Exit {
    /// As a shell says it: the code, or 128 and the signal's number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => (128 + signal) as u8,
        }
    }
}

// ANCHOR: reap
/// Waits for a child to exit and takes its status: `waitid(2)` on its pidfd, which no other process can be mistaken for.
pub(crate) fn reap(pidfd: &OwnedFd) -> sys::Result<Exit> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Exit::Code(code as u8),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => return Err(Errno::CHILD),
                });
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
// ANCHOR_END: reap

/// Whether a process has exited, be it waited for or not.
pub(crate) fn has_exited(pidfd: &OwnedFd) -> bool {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)), Ok(1))
}

/// Reads a file of the kernel's, which comes whole in one read and has no size to ask for first.
pub(crate) fn read_small<'a>(path: &Path, buffer: &'a mut [u8]) -> std::io::Result<&'a str> {
    use rustix::fs::{Mode, OFlags, open};
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let length = rustix::io::read(&file, &mut *buffer)?;
    std::str::from_utf8(&buffer[..length]).map_err(|_| std::io::ErrorKind::InvalidData.into())
}

/// Waits for any process to exit, without taking its status.
pub(crate) fn wait_until_gone(pidfd: &OwnedFd) -> sys::Result<()> {
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A short path to a file in an open directory.
pub(crate) fn short_path(directory: &OwnedFd, path: &Path) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(path.file_name().unwrap_or_default())
}
