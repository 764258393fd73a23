//! What is said to a monitor: one line of JSON each way over its socket, then, where something is attached, its streams.
//!
//! Outward the streams are docker's frames (or raw bytes of a terminal), inward raw bytes until the half-close. So the
//! daemon only joins a client's connection with the monitor's, and need not look at what passes.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use bollard_stubs::models::ContainerUpdateBody;
use serde::{Deserialize, Serialize};

use crate::engine::Error;
use crate::engine::sandbox::Machine;

/// The longest line that is read: a request carries a configuration at most.
const LONGEST: usize = 1 << 20;

/// What a monitor is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Start the workload.
    Start,
    /// Join the workload's streams.
    Attach(Attach),
    /// Send the workload a signal.
    Kill {
        /// Its number.
        signal: i32,
    },
    /// End the workload: by the signal and, after so many seconds, by SIGKILL. Answered when it is gone.
    Stop {
        /// The signal's number.
        signal: i32,
        /// Below 0: wait for ever.
        seconds: i64,
    },
    /// Hold the workload still.
    Pause,
    /// Let it go on.
    Resume,
    /// Set the size of the terminal of the workload, or of a process that was added.
    Resize {
        /// Which process; none is the workload.
        exec: Option<String>,
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Tell of the machine.
    Machine,
    /// Write the machine down to this file.
    Snapshot {
        /// An absolute path.
        file: PathBuf,
    },
    /// Let GDB connect to the machine's guest, by this socket.
    Debug {
        /// An absolute path, where nothing is.
        socket: PathBuf,
    },
    /// Answer when the workload has ended; where it does not run, at the end of its next run or at once.
    Wait {
        /// Whether the next run is waited for.
        next: bool,
    },
    /// Start the process of this id, which is stored, and join its streams.
    Exec {
        /// Its id.
        id: String,
        /// Which streams; none runs it in the background.
        attach: Option<Attach>,
    },
    /// Change limits.
    Update(Box<ContainerUpdateBody>),
}

/// Which streams are joined.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Attach {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Input that ends the connection and not the workload; empty for none.
    #[serde(default)]
    pub detach: Vec<u8>,
    /// Whether the outputs come without frames; where not given, as they do from a terminal.
    #[serde(default)]
    pub raw: Option<bool>,
}

/// What a monitor answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done, or the streams follow.
    Done,
    /// The workload ended.
    Exited {
        /// With this code.
        code: i64,
    },
    /// A machine.
    Machine(Box<Machine>),
    /// It could not be done.
    Failed(Failure),
}

/// Why not, so that the other side can make the same error of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The command does not exist or cannot be executed.
    Command {
        /// Which, and why.
        message: String,
        /// 127 or 126.
        code: u8,
    },
    /// The request makes no sense.
    Bad(String),
    /// It does not fit the container's state.
    Conflict(String),
    /// It is so already.
    Already(String),
    /// Anything else.
    Other(String),
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let message = error.to_string();
        match error {
            _ if matches!(error.exit_code(), 126 | 127) => Self::Command { message, code: error.exit_code() },
            Error::Bad { .. } | Error::Unsupported { .. } => Self::Bad(message),
            Error::Conflict { .. } => Self::Conflict(message),
            Error::Already { .. } => Self::Already(message),
            _ => Self::Other(message),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Command { message, code } => Self::Command { message, code },
            Failure::Bad(message) => Self::Bad { message },
            Failure::Conflict(message) => Self::Conflict { message },
            Failure::Already(message) => Self::Already { message },
            Failure::Other(message) => Self::Monitor { message },
        }
    }
}

/// Says a line.
///
/// # Errors
/// Where the other side is gone.
pub fn say(mut to: impl Write, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Hears a line, and not a byte more: what follows it are streams.
///
/// # Errors
/// Where the other side is gone, or says nonsense.
pub fn hear<T: for<'de> Deserialize<'de>>(mut from: impl Read) -> io::Result<T> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match from.read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) if line.len() >= LONGEST => return Err(io::ErrorKind::InvalidData.into()),
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_line_is_left_for_the_streams() {
        let mut wire = Vec::new();
        say(&mut wire, &Ask::Resize { exec: None, rows: 24, columns: 80 }).unwrap();
        wire.extend(b"stream");
        let mut rest = &wire[..];
        assert!(matches!(hear(&mut rest).unwrap(), Ask::Resize { rows: 24, .. }));
        assert_eq!(rest, b"stream");
    }

    #[test]
    fn nonsense_and_endless_lines_are_errors() {
        assert!(hear::<Ask>(&b"{\"fly\":1}\n"[..]).is_err());
        assert!(hear::<Ask>(&b"{"[..]).is_err());
        assert!(hear::<Ask>(io::repeat(b'x')).is_err());
    }
}
