//! Waiting for several files at once.

use linux_raw_sys::general as c;

use super::signal::Set;
use super::time::Duration;
use super::{Errno, Fd, Result, call};

/// One file to wait for: `struct pollfd`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Poll {
    fd: i32,
    events: i16,
    found: i16,
}

impl Poll {
    /// An element that waits for nothing.
    pub const NONE: Self = Self { fd: -1, events: 0, found: 0 };

    /// Waits until there is something to read (or the other side is gone).
    pub const fn read(fd: Fd) -> Self {
        Self { fd: fd.0, events: c::POLLIN as i16, found: 0 }
    }

    /// Waits until there is room to write (or the other side is gone).
    pub const fn write(fd: Fd) -> Self {
        Self { fd: fd.0, events: c::POLLOUT as i16, found: 0 }
    }

    /// Waits for either.
    pub const fn read_write(fd: Fd) -> Self {
        Self { fd: fd.0, events: (c::POLLIN | c::POLLOUT) as i16, found: 0 }
    }

    /// Whether reading would not block: there is something, or an end, or an error to be had.
    pub const fn readable(self) -> bool {
        self.found & (c::POLLIN | c::POLLHUP | c::POLLERR | c::POLLNVAL) as i16 != 0
    }

    /// Whether writing would not block.
    pub const fn writable(self) -> bool {
        self.found & (c::POLLOUT | c::POLLERR | c::POLLNVAL) as i16 != 0
    }
}

/// ppoll(2): how many elements found something. `None` for the timeout waits for ever.
pub fn poll(list: &mut [Poll], timeout: Option<Duration>) -> Result<usize> {
    let mut time = timeout.unwrap_or_default().to_kernel();
    let time = if timeout.is_some() { (&raw mut time).expose_provenance() } else { 0 };
    // SAFETY: Poll has the layout of struct pollfd; the kernel writes `found` of each, and the time left; no signal mask.
    unsafe {
        call(c::__NR_ppoll, [list.as_mut_ptr().expose_provenance(), list.len(), time, 0, size_of::<Set>()])
    }
}

/// Whether the file can be read without blocking, right now.
pub fn is_readable(fd: Fd) -> bool {
    let mut list = [Poll::read(fd)];
    matches!(poll(&mut list, Some(Duration::default())), Ok(1)) && list[0].readable()
}

/// Waits until the file can be read.
pub fn wait_readable(fd: Fd) -> Result<()> {
    loop {
        match poll(&mut [Poll::read(fd)], None) {
            Err(Errno::INTR) => {}
            result => return result.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::pipe;

    #[test]
    fn a_pipe_is_readable_when_something_was_written() {
        let (out, inp) = pipe().unwrap();
        assert!(!is_readable(*out));
        inp.write_all(b"x").unwrap();
        assert!(is_readable(*out));
    }

    #[test]
    fn the_end_of_a_pipe_counts_as_readable() {
        let (out, inp) = pipe().unwrap();
        drop(inp);
        let mut list = [Poll::NONE, Poll::read(*out)];
        assert_eq!(poll(&mut list, None), Ok(1));
        assert!(list[1].readable() && !list[0].readable());
    }
}
