//! The conversation between the runtime and the container's first process: messages of a few bytes over a pair of
//! connected sockets (`unix(7)`, SOCK_SEQPACKET, which keeps messages apart).
//!
//! ```text
//! runtime                         first process
//!    |  Go (ids are mapped)            |     only with a new user namespace
//!    |-------------------------------->|
//!    |           HooksPlease           |     only with hooks
//!    |<--------------------------------|
//!    |  Go (hooks have run)            |
//!    |-------------------------------->|
//!    |              Ready              |     or Fault(step, index, errno)
//!    |<--------------------------------|
//!    |  Go (state is written)          |
//!    |-------------------------------->|
//! ```
//! If the runtime dies, the socket closes and the process ends itself: no half-made container stays.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    recv, send, sendmsg, socketpair,
};

use super::fault::Fault;
use crate::sys;

/// One end of the conversation.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

impl From<OwnedFd> for Link {
    fn from(end: OwnedFd) -> Self {
        Self(end)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the first process says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Time for the hooks that run before the root changes.
    HooksPlease,
    /// All is set up; the workload can start.
    Ready,
    /// The process was made, by another; this is its id.
    Pid(i32),
    /// A step failed.
    Fault(Fault),
    /// The process is gone.
    Gone,
}

const GO: u8 = 1;
const HOOKS_PLEASE: u8 = 2;
const READY: u8 = 3;
const FAULT: u8 = 4;
const PID: u8 = 5;

impl Link {
    /// Two connected ends.
    pub(crate) fn pair() -> sys::Result<(Self, Self)> {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    fn send(&self, bytes: &[u8]) -> sys::Result<()> {
        retry(|| send(&self.0, bytes, SendFlags::NOSIGNAL)).map(drop)
    }

    fn receive(&self, buffer: &mut [u8]) -> sys::Result<usize> {
        retry(|| recv(&self.0, &mut *buffer, RecvFlags::empty())).map(|(_, length)| length)
    }

    /// Runtime: lets the process go on.
    pub(crate) fn go(&self) -> sys::Result<()> {
        self.send(&[GO])
    }

    /// Process: waits for the runtime.
    pub(crate) fn wait_for_go(&self) -> sys::Result<()> {
        let mut buffer = [0];
        match self.receive(&mut buffer)? {
            1 if buffer[0] == GO => Ok(()),
            _ => Err(Errno::PIPE),
        }
    }

    /// Process: asks for the hooks.
    pub(crate) fn hooks_please(&self) -> sys::Result<()> {
        self.send(&[HOOKS_PLEASE])
    }

    /// Process: all is set up.
    pub(crate) fn ready(&self) -> sys::Result<()> {
        self.send(&[READY])
    }

    /// Process: this is the id of the one that was made.
    pub(crate) fn pid(&self, pid: i32) -> sys::Result<()> {
        let [a, b, c, d] = pid.to_le_bytes();
        self.send(&[PID, a, b, c, d])
    }

    /// Process: a step failed.
    pub(crate) fn fault(&self, fault: Fault) {
        report(&self.0, fault);
    }

    /// Runtime: what the process says next.
    pub(crate) fn listen(&self) -> sys::Result<Message> {
        let mut buffer = [0; 16];
        let length = match self.receive(&mut buffer) {
            Ok(length) => length,
            Err(Errno::CONNRESET) => 0,
            Err(error) => return Err(error),
        };
        Ok(parse(&buffer[..length]))
    }
}

/// Sends a fault over a socket. If nobody listens any more there is nobody to tell.
pub(crate) fn report(socket: impl AsFd, fault: Fault) {
    let mut bytes = [FAULT; 1 + Fault::SIZE];
    bytes[1..].copy_from_slice(&fault.encode());
    let _ = retry(|| send(&socket, &bytes, SendFlags::NOSIGNAL));
}

/// Sends a descriptor with a text, as the specification's engines expect it: one message, SCM_RIGHTS (`unix(7)`).
pub(super) fn send_descriptor(socket: BorrowedFd<'_>, text: &[u8], fd: BorrowedFd<'_>) -> sys::Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Reads a message of the first process.
pub(crate) fn parse(bytes: &[u8]) -> Message {
    match bytes.split_first() {
        Some((&HOOKS_PLEASE, [])) => Message::HooksPlease,
        Some((&READY, [])) => Message::Ready,
        Some((&PID, &[a, b, c, d])) => Message::Pid(i32::from_le_bytes([a, b, c, d])),
        Some((&FAULT, fault)) => Fault::decode(fault).map_or(Message::Gone, Message::Fault),
        _ => Message::Gone,
    }
}

/// A signal to the runtime must not break the conversation.
fn retry<T>(mut call: impl FnMut() -> sys::Result<T>) -> sys::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
