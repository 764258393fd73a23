//! Frames over a stream that does not block.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use guest_wire::{Header, HeaderError, Kind, MAX_DATA, Stream};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{Shutdown, shutdown};

use super::AgentError;

/// The longest payload that we take from the guest in a frame other than `Data`: it only reports failures by text.
const MOST_REPORT: u32 = 4096;

/// Bytes read at once: the longest frame that the guest may send. They stay in memory as long as the machine.
const READ: usize = Header::SIZE + MAX_DATA as usize;

/// The stream to the guest.
#[derive(Debug)]
pub(super) struct Channel {
    stream: File,
    incoming: Vec<u8>,
    outgoing: VecDeque<u8>,
}

/// A frame from the guest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
}

impl Channel {
    pub(super) fn new(stream: OwnedFd) -> Result<Self, AgentError> {
        let non_blocking = || {
            let flags = OFlag::from_bits_retain(fcntl(&stream, FcntlArg::F_GETFL)?);
            fcntl(&stream, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))
        };
        non_blocking().map_err(AgentError::system("make the channel to the guest non-blocking (fcntl)"))?;
        Ok(Self { stream: stream.into(), incoming: Vec::new(), outgoing: VecDeque::new() })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Hangs up: the guest learns at once that nobody listens any more.
    pub(super) fn hang_up(&self) {
        // Fails where the guest hung up first, or where the stream is no socket: it is then closed when we are done.
        let _ = shutdown(self.stream.as_raw_fd(), Shutdown::Both);
    }

    /// Bytes that wait for the guest to take them.
    pub(super) fn waiting(&self) -> usize {
        self.outgoing.len()
    }

    pub(super) fn send(&mut self, kind: Kind, stream: Stream, process: u16, payload: &[u8]) {
        let header = Header { stream, ..Header::new(kind, process, payload.len() as u32) };
        self.outgoing.extend(header.encode());
        self.outgoing.extend(payload);
    }

    /// Writes what waits, as far as the guest takes it.
    pub(super) fn flush(&mut self) -> Result<(), AgentError> {
        while !self.outgoing.is_empty() {
            match self.stream.write(self.outgoing.as_slices().0) {
                Ok(0) => return Err(AgentError::HungUp),
                Ok(bytes) => drop(self.outgoing.drain(..bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(AgentError::HungUp),
            }
        }
        Ok(())
    }

    /// Reads once what the guest sent. [`Channel::next_frame`] then gives the frames that are whole. Whether there was anything.
    pub(super) fn fill(&mut self) -> Result<bool, AgentError> {
        let old = self.incoming.len();
        self.incoming.resize(old + READ, 0);
        let result = self.stream.read(&mut self.incoming[old..]);
        self.incoming.truncate(old + result.as_ref().copied().unwrap_or(0));
        match result {
            Ok(0) => Err(AgentError::HungUp),
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Ok(false),
                io::ErrorKind::Interrupted => Ok(true),
                _ => Err(AgentError::HungUp),
            },
        }
    }

    /// The beginning of a frame that came, and what was to be sent and has not been.
    pub(super) fn under_way(&self) -> (Vec<u8>, Vec<u8>) {
        (self.incoming.clone(), self.outgoing.iter().copied().collect())
    }

    /// As it was in another conversation; to be called before anything else.
    pub(super) fn set_under_way(&mut self, incoming: &[u8], outgoing: &[u8]) {
        self.incoming = incoming.to_vec();
        self.outgoing = outgoing.iter().copied().collect();
    }

    /// The next whole frame. Called until there is none, it leaves less than one frame behind: so much the guest can
    /// make us store, and no more.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, AgentError> {
        let Some((&bytes, rest)) = self.incoming.split_first_chunk() else { return Ok(None) };
        let header = Header::decode(bytes).map_err(|error| {
            AgentError::protocol(match error {
                HeaderError::Kind(kind) => format!("it sent a frame of unknown kind {kind}"),
                HeaderError::Stream(stream) => format!("it named a stream {stream}"),
                HeaderError::Length(len) => format!("it announced {len} bytes in one frame"),
            })
        })?;
        let most = if header.kind == Kind::Data { MAX_DATA } else { MOST_REPORT };
        if header.len > most {
            return Err(AgentError::protocol(format!("it announced {} bytes in one frame", header.len)));
        }
        let Some(payload) = rest.get(..header.len as usize) else { return Ok(None) };
        let payload = payload.to_vec();
        self.incoming.drain(..Header::SIZE + payload.len());
        Ok(Some(Frame { header, payload }))
    }
}
