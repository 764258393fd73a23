//! The one interface through which the lab sees its walls.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Process};
use rustix::termios::Winsize;
use serde::{Deserialize, Serialize};

use super::Error;

/// A workload behind a wall, from "set up, not yet started" to "gone".
///
/// ```text
///  create ──► start ──► (runs: kill, resize, pause, resume, stats) ──► wait ──► delete
/// ```
///
/// Each implementation has a `create` of its own, since what it needs differs: layers or a disk, a kernel or none. All that
/// follows is the same. Dropping a sandbox without `delete` may leave things behind.
// ANCHOR: first
pub trait Sandbox: Send {
    /// Starts the workload: returns when its `execve(2)` has succeeded.
    ///
    /// # Errors
    /// Where the program is not there (exit code 127), cannot be executed (126), or anything else fails (125).
    fn start(&mut self) -> Result<(), Error>;

    /// Becomes readable once the workload has ended, for poll(2).
    fn exit_fd(&self) -> BorrowedFd<'_>;

    /// Waits for the workload's end and tells how it ended.
    ///
    /// # Errors
    /// Where the wall itself failed: a guest's kernel panicked, a monitor died.
    fn wait(&mut self) -> Result<Exit, Error>;

    /// Delivers a signal to the workload. To one that has ended already is no error.
    ///
    /// # Errors
    /// Where the signal could not be delivered.
    fn kill(&mut self, signal: i32) -> Result<(), Error>;
    // ANCHOR_END: first

    /// Sets the size of the workload's terminal, whose master side the caller holds.
    ///
    /// # Errors
    /// Where the terminal refuses.
    fn resize(&mut self, master: BorrowedFd<'_>, size: Winsize) -> Result<(), Error>;

    /// Holds the workload still.
    ///
    /// # Errors
    /// Where the wall cannot.
    fn pause(&mut self) -> Result<(), Error>;

    /// Lets a held workload go on.
    ///
    /// # Errors
    /// Where the wall cannot.
    fn resume(&mut self) -> Result<(), Error>;

    /// Runs one more process beside the workload; it runs when this returns.
    ///
    /// # Errors
    /// As [`Sandbox::start`], or where the wall cannot.
    fn exec(&mut self, process: Process, stdio: Stdio) -> Result<Box<dyn Inside>, Error>;

    /// Gives it other limits while it runs.
    ///
    /// # Errors
    /// Limits that cannot be, or where the wall cannot.
    fn update(&mut self, resources: &LinuxResources) -> Result<(), Error>;

    /// The workload's process as the host sees it, where it sees one.
    fn pid(&self) -> Option<i32>;

    /// Writes a machine down, with its workload as it runs, to this file.
    ///
    /// # Errors
    /// Where the wall is none; where it holds what cannot be written down.
    fn snapshot(&mut self, _file: &Path) -> Result<(), Error> {
        Err(Error::bad(NO_MACHINE))
    }

    /// Where GDB may connect to a machine's guest: at this socket, which is made.
    ///
    /// # Errors
    /// Where the wall is none; where the socket cannot be made.
    fn debug(&mut self, _socket: &Path) -> Result<(), Error> {
        Err(Error::bad(NO_MACHINE))
    }

    /// What is told of a machine, where the wall is one.
    fn machine(&self) -> Option<Machine> {
        None
    }

    /// Gives back everything: processes, mounts, control groups, guest memory, state files.
    ///
    /// # Errors
    /// Where something could not be given back; the error says what.
    fn delete(self: Box<Self>) -> Result<(), Error>;
}

/// What is told of a container that is asked for what only a machine has.
pub(super) const NO_MACHINE: &str = "it is a container, and no virtual machine";

/// A virtual machine, looked at.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// What it is, and what it did so far.
    pub report: microvm::stats::Report,
    /// The last lines that its kernel printed.
    pub console: Vec<String>,
    /// The socket where GDB may connect, if there is one.
    #[serde(default)]
    pub gdb: Option<PathBuf>,
}

/// One more process in a sandbox.
pub trait Inside: Send {
    /// Becomes readable once it has ended, for poll(2).
    fn exit_fd(&self) -> BorrowedFd<'_>;

    /// Waits for its end and tells how it ended.
    ///
    /// # Errors
    /// Where the wall itself failed.
    fn wait(&mut self) -> Result<Exit, Error>;

    /// Its number as the host sees it, where it sees one.
    fn pid(&self) -> Option<i32>;

    /// What tells its terminal a new size, where setting that of the master side, which the caller holds, does not.
    fn resizer(&self) -> Option<Resizer> {
        None
    }
}

/// Tells a terminal its new size.
pub type Resizer = Box<dyn Fn(Winsize) + Send>;

/// How a workload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// As a shell and docker tell it: the code, or 128 and the number of the signal.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128u8.wrapping_add(signal as u8),
        }
    }
}

/// Where the workload's standard input, output and error go.
#[derive(Debug)]
pub enum Stdio {
    /// To these files.
    Fds {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// To a new pseudo-terminal, whose master side is sent over this socket (SCM_RIGHTS), as the `--console-socket` of
    /// OCI runtimes.
    Console(UnixStream),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_as_128_and_its_number() {
        assert_eq!(Exit::Code(3).code(), 3);
        assert_eq!(Exit::Signal(9).code(), 137);
        assert_eq!(Exit::Signal(15).code(), 143);
    }
}
