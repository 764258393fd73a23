//! A stream of frames to a program with a network stack of its own, such as passt: the user-space network of QEMU's
//! `-netdev stream`, for users who may not make network devices.
//!
//! Each frame has its length before it, as 32 bits big-endian (passt(1), QEMU's net/stream.c). There is no header: such a
//! program offers no offloads.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use super::{HEADER, Link, MOST};
use crate::devices::virtio::{Chain, Fault};

/// Bytes of a frame's length.
const LENGTH: usize = 4;

/// The link.
#[derive(Debug)]
pub struct Stream {
    socket: UnixStream,
    /// What has come of the next frame, its length first.
    incoming: Vec<u8>,
    /// What the socket has not taken of the last frame.
    outgoing: Vec<u8>,
}

impl Stream {
    /// A link over a connected socket.
    ///
    /// # Errors
    /// Where it cannot be made non-blocking.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, incoming: Vec::new(), outgoing: Vec::new() })
    }

    /// Reads on until so many bytes of the next frame are there.
    fn read_to(&mut self, len: usize) -> io::Result<()> {
        let mut have = self.incoming.len();
        self.incoming.resize(len.max(have), 0);
        while have < len {
            let read = self.socket.read(&mut self.incoming[have..len]);
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => have += bytes,
                Err(error) => {
                    self.incoming.truncate(have);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Sends what is left. Whether all of it went out.
    fn flush(&mut self) -> bool {
        while !self.outgoing.is_empty() {
            match self.socket.write(&self.outgoing) {
                Ok(bytes) => drop(self.outgoing.drain(..bytes)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // The program is gone: what is read next says so.
                Err(_) => self.outgoing.clear(),
            }
        }
        true
    }
}

impl Link for Stream {
    fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn offloads(&self) -> u64 {
        0
    }

    fn configure(&mut self, _features: u64) -> io::Result<()> {
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8; MOST]) -> io::Result<usize> {
        self.read_to(LENGTH)?;
        let Some(length) = self.incoming.first_chunk::<LENGTH>() else { return Ok(0) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MOST - HEADER {
            // Lost its place: nothing after it can be believed.
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.read_to(LENGTH + length)?;
        buffer[..HEADER].fill(0);
        buffer[HEADER..HEADER + length].copy_from_slice(&self.incoming[LENGTH..LENGTH + length]);
        self.incoming.clear();
        Ok(HEADER + length)
    }

    // ANCHOR: send
    fn send(&mut self, chain: &mut Chain) -> Result<bool, Fault> {
        if !self.flush() {
            return Ok(false);
        }
        // Without offloads the header says nothing.
        chain.skip_readable(HEADER as u64);
        let len = chain.readable() as usize;
        self.outgoing.extend((len as u32).to_be_bytes());
        let at = self.outgoing.len();
        self.outgoing.resize(at + len, 0);
        chain.read(&mut self.outgoing[at..])?;
        self.flush();
        Ok(true)
    }
    // ANCHOR_END: send
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{Buffer, Driver};
    use super::super::{LEAST, Net};
    use super::*;

    fn card() -> (Driver, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let link = Stream::new(ours).unwrap();
        (Driver::new(Box::new(Net::new(Box::new(link), [2, 0, 0, 0, 0, 7], 1500))), theirs)
    }

    #[test]
    fn frames_have_their_length_before_them_either_way() {
        let (mut driver, mut host) = card();
        driver.add(1, &[Buffer::Read(&[7; LEAST])]);
        driver.settle();
        let mut bytes = [0; 64];
        assert_eq!(host.read(&mut bytes).unwrap(), LENGTH + 14);
        assert_eq!(bytes[..=LENGTH], [0, 0, 0, 14, 7]);

        // In pieces, as streams come, and two in a row.
        let two = [&[0, 0, 0, 14][..], &[1; 14], &[0, 0, 0, 15], &[2; 15]].concat();
        driver.add(0, &[Buffer::Write(200)]);
        for piece in two.chunks(5) {
            host.write_all(piece).unwrap();
            driver.settle();
        }
        assert_eq!(driver.take_used(0).unwrap().1 as usize, HEADER + 14);
        driver.add(0, &[Buffer::Write(200)]);
        driver.settle();
        assert_eq!(driver.take_used(0).unwrap().1 as usize, HEADER + 15);
    }

    #[test]
    fn a_length_that_cannot_be_ends_the_link_and_not_the_device() {
        let (mut driver, mut host) = card();
        host.write_all(&[0xff; 64]).unwrap();
        driver.add(0, &[Buffer::Write(200)]);
        driver.settle();
        driver.add(1, &[Buffer::Read(&[7; LEAST])]);
        driver.settle();
        assert_eq!(driver.take_used(0), None);
        assert!(driver.take_used(1).is_some() && !driver.needs_reset());
    }

    #[test]
    fn what_the_program_does_not_read_waits_in_the_guest() {
        let (mut driver, mut host) = card();
        let frame = vec![7; 4096];
        let mut sent = 0;
        while {
            driver.add(1, &[Buffer::Read(&frame)]);
            driver.settle();
            driver.take_used(1).is_some()
        } {
            sent += 1;
            assert!(sent < 10_000, "the socket takes everything");
        }
        let mut all = vec![0; 1 << 20];
        while host.read(&mut all).is_ok() {}
        driver.settle();
        assert!(driver.take_used(1).is_some());
    }
}
