//! What the host offers a process as its standard streams.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::pty::{OpenptyResult, openpty};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use super::AgentError;

/// The standard streams of a process, seen from the host.
#[derive(Debug)]
pub enum Stdio {
    /// Those of this process.
    Inherit,
    /// These. They stay as they are: in particular, blocking.
    Fds {
        /// What the process reads.
        stdin: OwnedFd,
        /// Where its output goes.
        stdout: OwnedFd,
        /// Where its errors go.
        stderr: OwnedFd,
    },
    /// A pseudo-terminal is made, and its master sent over this socket, as runc's and crun's `--console-socket` do it.
    Console(UnixStream),
}

/// The open streams.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) input: Option<File>,
    pub(super) output: Option<File>,
    pub(super) error: Option<File>,
}

impl Stdio {
    /// Opens the streams for a process with or without a terminal.
    pub(super) fn open(self, terminal: bool) -> Result<Streams, AgentError> {
        let (input, output, error) = match self {
            Self::Inherit => {
                inherited().map_err(AgentError::system("duplicate the standard streams (dup)"))?
            }
            Self::Fds { stdin, stdout, stderr } => (stdin, stdout, stderr),
            Self::Console(socket) => {
                if !terminal {
                    let what =
                        "process.terminal is false, but a console socket was given; set it, or give none";
                    return Err(AgentError::config(what));
                }
                let slave = pseudo_terminal(&socket)?;
                let copy = || slave.try_clone().map_err(AgentError::system("duplicate the terminal (dup)"));
                (copy()?, copy()?, slave)
            }
        };
        // A process with a terminal has its errors in its output.
        let error = (!terminal).then_some(error);
        Ok(Streams { input: Some(input.into()), output: Some(output.into()), error: error.map(File::from) })
    }
}

fn inherited() -> io::Result<(OwnedFd, OwnedFd, OwnedFd)> {
    Ok((
        io::stdin().as_fd().try_clone_to_owned()?,
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
    ))
}

/// Makes a pseudo-terminal and gives its master away. The slave is raw: echo and line editing are the work of the
/// terminal in the guest, and must not be done twice.
pub(crate) fn pseudo_terminal(socket: &UnixStream) -> Result<OwnedFd, AgentError> {
    let make = || {
        let OpenptyResult { master, slave } = openpty(None, None)?;
        let mut modes = tcgetattr(&slave)?;
        cfmakeraw(&mut modes);
        tcsetattr(&slave, SetArg::TCSANOW, &modes)?;
        // The name that comes with it is for log files only.
        let name = [IoSlice::new(b"/dev/ptmx")];
        let rights = [master.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&rights)];
        sendmsg::<()>(socket.as_raw_fd(), &name, &message, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok::<_, nix::Error>(slave)
    };
    make().map_err(AgentError::system("send a terminal over the console socket"))
}
