//! Standard input that the workload has not read yet.

use freestanding::sys::memory::Array;
use freestanding::{Errno, Fd};
use guest_wire::WINDOW;

/// A ring of at most [`WINDOW`] bytes: the host may not have more under way. Its memory is made when first needed.
#[derive(Debug, Default)]
pub struct Queue {
    ring: Option<Array<u8>>,
    start: usize,
    len: usize,
}

/// The host sent more than its window allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun;

impl Queue {
    /// Whether nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes wait.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// There is no room: the host broke the protocol (or the guest is out of memory).
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Overrun> {
        let size = WINDOW as usize;
        if bytes.len() > size - self.len {
            return Err(Overrun);
        }
        if self.ring.is_none() {
            self.ring = Some(Array::new(size).map_err(|_| Overrun)?);
        }
        let ring = self.ring.as_mut().ok_or(Overrun)?;
        let at = (self.start + self.len) % size;
        let (first, second) = bytes.split_at(bytes.len().min(size - at));
        ring.get_mut(at..at + first.len()).ok_or(Overrun)?.copy_from_slice(first);
        ring.get_mut(..second.len()).ok_or(Overrun)?.copy_from_slice(second);
        self.len += bytes.len();
        Ok(())
    }

    /// Writes what `to` takes without blocking; how much that was.
    ///
    /// # Errors
    /// What write(2) says, but `EAGAIN`.
    pub fn write_to(&mut self, to: Fd) -> freestanding::sys::Result<usize> {
        let mut written = 0;
        while let Some(ring) = self.ring.as_ref().filter(|_| self.len > 0) {
            let until = (self.start + self.len).min(ring.len());
            match to.write(ring.get(self.start..until).unwrap_or(&[])) {
                Ok(count) => {
                    self.start = (self.start + count) % ring.len();
                    self.len -= count;
                    written += count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_come_out_as_they_went_in_around_the_ring() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut queue = Queue::default();
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        for round in 0..20u8 {
            let bytes = vec![round; 30_000];
            queue.push(&bytes).unwrap();
            sent.extend(bytes);
            while !queue.is_empty() {
                let count = queue.write_to(Fd(near.as_raw_fd())).unwrap();
                let mut part = vec![0; count];
                far.read_exact(&mut part).unwrap();
                got.extend(part);
            }
        }
        assert!(got == sent);
    }

    #[test]
    fn more_than_the_window_is_refused() {
        let mut queue = Queue::default();
        queue.push(&vec![0; WINDOW as usize]).unwrap();
        assert_eq!(queue.push(&[0]), Err(Overrun));
        assert_eq!(queue.len(), WINDOW as usize);
    }
}
