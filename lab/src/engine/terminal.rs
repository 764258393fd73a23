//! The user's terminal: raw while the workload has a terminal of its own, and as it was on every way out.
//!
//! Raw means that keys reach the workload's terminal unchanged: Ctrl-C is a byte there, and *that* terminal makes the
//! signal, inside the sandbox (termios(3)).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use rustix::termios::{OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use super::Error;
use super::error::Context as _;

/// The mode to return to, also for the panic hook: a release build aborts on panic, and nothing is dropped then.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// The user's terminal in raw mode. Dropping it returns to the mode before.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Makes the terminal on standard input raw.
    ///
    /// # Errors
    /// Where standard input is no terminal.
    pub fn enter() -> Result<Self, Error> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Err(Error::NoTerminal);
        }
        let before = tcgetattr(&stdin).context("read the mode of", "the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        *SAVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(before);
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            hook(panic);
        }));
        tcsetattr(&stdin, OptionalActions::Drain, &raw).context("set the mode of", "the terminal")?;
        Ok(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let saved = SAVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some(saved) = saved {
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &saved);
    }
}

/// The size of the user's terminal, from whichever standard stream is one.
pub fn size() -> Option<Winsize> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    (size.ws_row != 0 && size.ws_col != 0).then_some(size)
}

/// Receives the master side of the workload's terminal over the console socket.
///
/// # Errors
/// Where the other end sends none.
pub fn receive_master(socket: &std::os::unix::net::UnixStream) -> Result<OwnedFd, Error> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut byte = [0; 16];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .context("receive", "the sandbox's terminal")?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        })
        .ok_or_else(|| {
            Error::io("receive", "the sandbox's terminal", io::Error::other("no file came with it"))
        })
}
