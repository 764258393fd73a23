//! A user's terminal, or plain streams, joined with those of a workload: the client's side of `attach` and `exec`.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::Winsize;

use super::error::Context as _;
use super::signals::{Ask, Signals};
use super::{Error, terminal};

/// The size of a frame's header (Docker Engine API, "Stream format").
const HEADER: usize = 8;

/// What the caller does about signals and sizes.
pub trait Remote {
    /// The user's terminal has this size.
    ///
    /// # Errors
    /// Ends the conversation.
    fn resize(&self, size: Winsize) -> Result<(), Error>;

    /// This process was sent a signal.
    ///
    /// # Errors
    /// Ends the conversation.
    fn signal(&self, signal: i32) -> Result<(), Error>;
}

/// Copies the workload's output to this process's, and its input to the workload, until the other side hangs up.
///
/// # Errors
/// Where standard input is to be a terminal and is none; where the other side speaks no frames.
pub fn converse(stream: &UnixStream, tty: bool, input: bool, remote: &dyn Remote) -> Result<(), Error> {
    let mut signals = Signals::take()?;
    let _raw = if tty && input { Some(terminal::Raw::enter()?) } else { None };
    if let Some(size) = terminal::size().filter(|_| tty) {
        remote.resize(size)?;
    }
    let mut frames = Frames { raw: tty, held: Vec::new() };
    let mut input = input;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let stdin = io::stdin();
        let mut files = vec![
            PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        if input {
            files.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
        }
        match poll(&mut files, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.context("wait for", "the workload's output")?,
        };
        let ready: Vec<bool> = files.iter().map(|file| !file.revents().is_empty()).collect();
        if ready[1] {
            while let Some(ask) = signals.arrived() {
                match ask {
                    Ask::Resize => {
                        if let Some(size) = terminal::size().filter(|_| tty) {
                            remote.resize(size)?;
                        }
                    }
                    Ask::Deliver(signal) => remote.signal(signal)?,
                }
            }
        }
        if ready.get(2).copied().unwrap_or(false) {
            let read = rustix::io::read(&stdin, &mut buffer).unwrap_or(0);
            let sent = (&mut &*stream).write_all(&buffer[..read]);
            if read == 0 || sent.is_err() {
                input = false;
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
        if ready[0] {
            match (&mut &*stream).read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => frames.take(&buffer[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A monitor that ends with input unread resets the connection (unix(7)).
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(Error::io("read", "the workload's output", error)),
            }
        }
    }
}

/// The outputs taken apart again.
struct Frames {
    raw: bool,
    held: Vec<u8>,
}

impl Frames {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let write = |stderr: bool, bytes: &[u8]| {
            let written = if stderr { io::stderr().write_all(bytes) } else { io::stdout().write_all(bytes) };
            written.and_then(|()| io::stdout().flush()).context("write to", "standard output")
        };
        if self.raw {
            return write(false, bytes);
        }
        self.held.extend(bytes);
        while let Some((stderr, content)) = frame(&self.held) {
            write(stderr, content)?;
            let used = HEADER + content.len();
            self.held.drain(..used);
        }
        Ok(())
    }
}

/// The first frame, if it is whole: whether it is of standard error, and what it holds.
fn frame(bytes: &[u8]) -> Option<(bool, &[u8])> {
    let header = bytes.get(..HEADER)?;
    let length = u32::from_be_bytes(header[4..].try_into().ok()?) as usize;
    Some((header[0] == 2, bytes.get(HEADER..HEADER + length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_when_it_is_whole() {
        let bytes = [2, 0, 0, 0, 0, 0, 0, 2, b'h', b'i', 1];
        assert_eq!(frame(&bytes), Some((true, &b"hi"[..])));
        assert_eq!(frame(&bytes[..9]), None);
        assert_eq!(frame(&bytes[..3]), None);
    }
}
