//! The process from which a daemon's monitors grow: forked at the daemon's start, while that was small and had one thread.
//!
//! ```text
//!   daemon ── id, a pipe's end ──► seed ── fork ──► monitor ── "ready" ──► pipe ──► daemon
//! ```
//!
//! A monitor could be started as any program is (and is, where there is no daemon). But a fork of a process that is loaded
//! already needs no dynamic linking, and shares all that linking wrote: a program of this size has more than half a
//! megabyte of relocated pointers, which every monitor would have for itself.
//!
//! The seed does nothing else, and ends with its daemon: its socket is closed then.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::engine::Error;
use crate::engine::error::Context as _;

/// The longest id, and more.
const LONGEST: usize = 256;

/// A daemon's side of it.
#[derive(Debug)]
pub struct Seed(OwnedFd);

impl Seed {
    /// Makes the process. To be called first, while there is one thread.
    ///
    /// # Errors
    /// Where this process cannot fork.
    pub fn plant() -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        if crate::sys::fork()? {
            return Ok(Self(ours));
        }
        drop(ours);
        while let Ok(Some((id, pipe))) = next(&theirs) {
            // The first child ends at once, and is not in the way: its own child is nobody's.
            match crate::sys::fork() {
                Ok(false) => {
                    drop(theirs);
                    grow(&id, pipe);
                }
                _ => drop(rustix::process::wait(rustix::process::WaitOptions::empty())),
            }
        }
        crate::sys::end_now(0)
    }

    /// Has a monitor started, and returns what it says: that it is ready, or why not.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn start(&self, id: &str) -> io::Result<String> {
        let (mut from, to) = {
            let (from, to) = pipe_with(PipeFlags::CLOEXEC)?;
            (std::fs::File::from(from), to)
        };
        let files = [to.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&files));
        sendmsg(&self.0, &[IoSlice::new(id.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        drop(to);
        let mut said = String::new();
        from.read_to_string(&mut said)?;
        Ok(said)
    }
}

/// What is asked for next; none where the daemon is gone.
fn next(socket: &OwnedFd) -> io::Result<Option<(String, OwnedFd)>> {
    let mut text = [0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut into = [IoSliceMut::new(&mut text)];
        match recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?.bytes,
        }
    };
    let file = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    let id = String::from_utf8_lossy(&text[..received]).into_owned();
    Ok(file.map(|file| (id, file)))
}

/// Goes on as a monitor, to its end.
fn grow(id: &str, said_to: OwnedFd) -> ! {
    let begun = (move || -> Result<(), Error> {
        super::detach()?;
        crate::sys::stand_on(&said_to).context("set", "the standard streams")?;
        // The daemon reads until nobody has this end any more.
        drop(said_to);
        super::main(id)
    })();
    if let Err(error) = &begun {
        let _ = writeln!(io::stdout(), "{error}");
    }
    crate::sys::end_now(i32::from(begun.is_err()))
}
