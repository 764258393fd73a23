//! File descriptors: [`Fd`] is the number, [`OwnedFd`] closes it.

use core::ops::Deref;

use linux_raw_sys::general as c;

use super::{Errno, Result, call, int, plain};

/// A file descriptor's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Fd(pub i32);

impl Fd {
    /// Standard input.
    pub const INPUT: Self = Self(0);
    /// Standard output.
    pub const OUTPUT: Self = Self(1);
    /// Standard error.
    pub const ERROR: Self = Self(2);
    /// For calls that take a directory: the working directory.
    pub const CWD: Self = Self(c::AT_FDCWD);

    /// read(2).
    pub fn read(self, buffer: &mut [u8]) -> Result<usize> {
        // SAFETY: the kernel writes at most the buffer's length (read(2)).
        unsafe { call(c::__NR_read, [int(self.0), buffer.as_mut_ptr().expose_provenance(), buffer.len()]) }
    }

    /// write(2): possibly less than all.
    pub fn write(self, bytes: &[u8]) -> Result<usize> {
        // SAFETY: the kernel only reads the bytes (write(2)).
        unsafe { call(c::__NR_write, [int(self.0), bytes.as_ptr().expose_provenance(), bytes.len()]) }
    }

    /// Writes all, however many calls that takes.
    pub fn write_all(self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or(&[]),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// close(2). Prefer [`OwnedFd`].
    pub fn close(self) -> Result<()> {
        plain(c::__NR_close, [int(self.0)]).map(drop)
    }

    /// Whether the number is open: fcntl(2), `F_GETFD`.
    pub fn is_open(self) -> bool {
        plain(c::__NR_fcntl, [int(self.0), c::F_GETFD as usize]).is_ok()
    }

    /// Makes reads and writes return at once: fcntl(2), `F_SETFL`, `O_NONBLOCK`. Replaces other status flags.
    pub fn set_nonblocking(self) -> Result<()> {
        plain(c::__NR_fcntl, [int(self.0), c::F_SETFL as usize, c::O_NONBLOCK as usize]).map(drop)
    }

    /// dup3(2) without flags: makes `target` the same open file, inherited across execve. Equal numbers are left alone.
    pub fn duplicate_to(self, target: Self) -> Result<()> {
        if self == target {
            return Ok(());
        }
        plain(c::__NR_dup3, [int(self.0), int(target.0), 0]).map(drop)
    }

    /// fcntl(2), `F_DUPFD_CLOEXEC`: a duplicate whose number is at least `least`.
    pub fn duplicate_above(self, least: i32) -> Result<OwnedFd> {
        plain(c::__NR_fcntl, [int(self.0), c::F_DUPFD_CLOEXEC as usize, int(least)]).map(OwnedFd::from_result)
    }
}

/// A file descriptor that is closed when it goes out of scope.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnedFd(Fd);

impl OwnedFd {
    /// Takes over a descriptor that somebody else opened, such as one inherited.
    pub const fn new(fd: Fd) -> Self {
        Self(fd)
    }

    pub(super) const fn from_result(number: usize) -> Self {
        Self(Fd(number as i32))
    }
}

impl Deref for OwnedFd {
    type Target = Fd;

    fn deref(&self) -> &Fd {
        &self.0
    }
}

impl Drop for OwnedFd {
    fn drop(&mut self) {
        let _ = self.0.close();
    }
}
