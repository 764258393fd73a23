//! What is said over a monitor's socket, and to a monitor that is being born: one message at a time, JSON with its length
//! before it; open files travel with the length (SCM_RIGHTS, unix(7)).
//!
//! A connection asks one thing, and gets one answer. Only that of `exec` goes on: signals and sizes of the terminal go in,
//! the exit code comes out, and who hangs up before that has the process killed.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::state::Status;
use crate::Error;
use crate::spec::Process;
use crate::stats::Report;

/// The socket's name in the machine's folder.
const SOCKET: &str = "control";

/// The longest message: arguments and environment of a process, several times over.
const LONGEST: u32 = 8 << 20;

/// The most open files that come with a message: the standard streams.
const FILES: usize = 3;

/// How long a monitor may take to answer what it knows without its guest.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a monitor is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// Where the machine stands.
    Status,
    /// Let the workload begin.
    Start,
    /// Send a signal: to the workload, or, over the connection of an `exec`, to its process.
    Signal {
        signal: i32,
        /// To all processes that were added, too.
        all: bool,
    },
    /// Tell the terminal its new size, likewise.
    Resize { rows: u16, columns: u16 },
    /// Hold the guest still.
    Pause,
    /// Let it go on.
    Resume,
    /// What the machine is and did so far.
    Report,
    /// Run one more process. Its standard streams come with this.
    Exec { process: Box<Process> },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It is done; a process runs.
    Done,
    Status(Status),
    Report(Box<Report>),
    /// A process ended with this code.
    Exited {
        code: u8,
    },
    /// It could not be done.
    Failed {
        message: String,
        code: u8,
    },
}

/// What is said between `create` and the monitor that it makes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// To the monitor: go on.
    Go,
    /// From it: it is where it belongs, in its namespaces.
    Entered,
    /// From it: the guest is up, and its process waits to be started.
    Ready,
    /// From it: it no longer ends with the command.
    Free,
    /// From it: this failed.
    Failed { message: String, code: u8 },
}

impl From<&Error> for Answer {
    fn from(error: &Error) -> Self {
        Self::Failed { message: error.to_string(), code: error.exit_code() }
    }
}

/// Sends a message.
pub(crate) fn say(to: &UnixStream, what: &impl Serialize, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(what)?;
    let len = (body.len() as u32).to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(to, &[IoSlice::new(&len)], &mut control, SendFlags::NOSIGNAL)?;
    let mut to = to;
    to.write_all(&body)
}

/// Receives a message.
pub(crate) fn hear<T: DeserializeOwned>(from: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut len = [0; 4];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut len)], &mut control, flags)?;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let files = files.flatten().collect();
    if received.bytes < len.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let len = u32::from_le_bytes(len);
    if len > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = Vec::new();
    from.take(len.into()).read_to_end(&mut body)?;
    Ok((serde_json::from_slice(&body)?, files))
}

/// The monitor's end: a socket in the machine's folder.
pub(crate) fn listen(folder: &Path) -> Result<UnixListener, Error> {
    let path = folder.join(SOCKET);
    let open = File::open(folder).map_err(Error::file("open", folder))?;
    UnixListener::bind(short(&open)).map_err(Error::file("make the socket", path))
}

/// Whether a monitor listens, or did before it ended.
pub(crate) fn is_there(folder: &Path) -> bool {
    folder.join(SOCKET).exists()
}

/// A connection to a monitor.
pub(crate) fn connect(folder: &Path) -> Result<UnixStream, Error> {
    let open = File::open(folder).map_err(Error::file("open", folder))?;
    UnixStream::connect(short(&open)).map_err(Error::file("speak to the monitor at", folder.join(SOCKET)))
}

/// Asks one thing. `patient`: the answer may need the guest, which may be slow.
pub(crate) fn ask(folder: &Path, what: &Ask, patient: bool) -> Result<Answer, Error> {
    let stream = connect(folder)?;
    let talk = || {
        stream.set_read_timeout((!patient).then_some(PATIENCE))?;
        say(&stream, what, &[])?;
        hear::<Answer>(&stream)
    };
    match talk().map_err(Error::file("speak to the monitor at", folder.join(SOCKET)))?.0 {
        Answer::Failed { message, code } => Err(Error::Told { message, code }),
        answer => Ok(answer),
    }
}

/// A socket's address holds 107 bytes (unix(7)); through an open folder every path is short.
fn short(folder: &File) -> PathBuf {
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(SOCKET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_message_arrives_whole_and_its_files_with_it() {
        let (one, other) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        say(&one, &Ask::Resize { rows: 24, columns: 80 }, &[file.as_fd()]).unwrap();
        say(&one, &Ask::Pause, &[]).unwrap();
        let (ask, files) = hear::<Ask>(&other).unwrap();
        assert!(matches!(ask, Ask::Resize { rows: 24, columns: 80 }));
        let mut file = File::from(files.into_iter().next().unwrap());
        file.write_all(b"x").unwrap();
        assert!(matches!(hear::<Ask>(&other).unwrap(), (Ask::Pause, files) if files.is_empty()));
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [&b""[..], b"\x01\0", b"\xff\xff\xff\xff{}", b"\x02\0\0\0{]", b"\x09\0\0\0{}"] {
            let (one, other) = UnixStream::pair().unwrap();
            (&one).write_all(bytes).unwrap();
            drop(one);
            assert!(hear::<Ask>(&other).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_long_path_is_no_obstacle() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("x".repeat(200));
        std::fs::create_dir(&folder).unwrap();
        let listener = listen(&folder).unwrap();
        let stream = connect(&folder).unwrap();
        say(&stream, &Ask::Status, &[]).unwrap();
        assert!(matches!(hear::<Ask>(&listener.accept().unwrap().0).unwrap().0, Ask::Status));
    }
}
