//! `run` and `exec` in the foreground: signals go to the workload, and between two terminals bytes go both ways.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use container::{Container, CreateOptions, Running, SignalFd, Stdio, spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::Failure;

/// Something that exits.
pub(super) trait Exits {
    fn exit_fd(&self) -> BorrowedFd<'_>;
}

impl Exits for Container {
    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.exit_fd()
    }
}

impl Exits for Running {
    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.exit_fd()
    }
}

/// Signals to this process, to be read instead of acted on.
pub(super) struct Signals(SignalFd);

impl Signals {
    pub(super) fn catch() -> Result<Self, Failure> {
        SignalFd::all().map(Self).map_err(|error| Failure::new(format!("signalfd: {error}")))
    }
}

/// A terminal that is shown on ours.
pub(super) struct Relay {
    socket: UnixStream,
}

impl Relay {
    /// A relay, and the streams that end in it.
    pub(super) fn new() -> Result<(Self, Stdio), Failure> {
        let (socket, theirs) =
            UnixStream::pair().map_err(|error| Failure::new(format!("socketpair: {error}")))?;
        Ok((Self { socket }, Stdio::Console(theirs)))
    }

    /// A relay, if the bundle wants a terminal.
    pub(super) fn for_bundle(options: &mut CreateOptions) -> Result<Option<Self>, Failure> {
        let config = options.config.take().map_or_else(|| spec::load(&options.bundle), Ok)?;
        let wanted = config.wants_terminal();
        options.config = Some(config);
        if !wanted {
            return Ok(None);
        }
        let (relay, stdio) = Self::new()?;
        options.stdio = stdio;
        Ok(Some(relay))
    }

    /// Takes the terminal's master side from the socket.
    fn master(&self) -> Result<OwnedFd, Failure> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = [0; 64];
        recvmsg(&self.socket, &mut [IoSliceMut::new(&mut data)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .map_err(|error| Failure::new(format!("receive the terminal: {error}")))?;
        let fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        fds.flatten().next().ok_or_else(|| Failure::new("receive the terminal: the process sent none"))
    }
}

/// Puts our terminal back as it was.
struct Raw(Option<Termios>);

impl Raw {
    fn set() -> Self {
        let stdin = rustix::stdio::stdin();
        let Ok(old) = tcgetattr(stdin) else { return Self(None) };
        let mut raw = old.clone();
        raw.make_raw();
        let _ = tcsetattr(stdin, OptionalActions::Now, &raw);
        Self(Some(old))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(old) = &self.0 {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, old);
        }
    }
}

/// Waits until the process has exited, relaying meanwhile.
pub(super) fn wait(
    relay: Option<&Relay>,
    signals: &Signals,
    process: &impl Exits,
    kill: impl Fn(i32),
) -> Result<(), Failure> {
    let mut master = relay.map(Relay::master).transpose()?.map(File::from);
    let _raw = master.is_some().then(Raw::set);
    let resize = |master: &Option<File>| {
        if let (Some(master), Ok(size)) = (master, tcgetwinsize(rustix::stdio::stdin())) {
            let _ = tcsetwinsize(master, size);
        }
    };
    resize(&master);
    let mut input = master.is_some();
    loop {
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![PollFd::from_borrowed_fd(signals.0.as_fd(), PollFlags::IN)];
        fds.push(PollFd::from_borrowed_fd(process.exit_fd(), PollFlags::IN));
        fds.extend(master.iter().map(|master| PollFd::new(master, PollFlags::IN)));
        if input {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::new(format!("poll: {error}"))),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[0] {
            match signals.0.read() {
                Some(libc::SIGWINCH) => resize(&master),
                // Ours, not the workload's: a child of this process, the terminal's job control, a broken pipe.
                Some(libc::SIGCHLD | libc::SIGURG | libc::SIGPIPE) | None => {}
                Some(signal) => kill(signal),
            }
        }
        if let Some(file) = &mut master {
            if input && ready.get(3) == Some(&true) {
                input =
                    copy(&mut File::from(stdin.try_clone_to_owned().map_err(|error| closed(&error))?), file);
            }
            if ready[2] && !copy(file, &mut std::io::stdout()) {
                master = None;
                input = false;
            }
        } else if ready[1] {
            return Ok(());
        }
        // With a terminal: what the workload said last is read before its end is told.
        if ready[1] && !ready.get(2).copied().unwrap_or(false) {
            return Ok(());
        }
    }
}

fn closed(error: &std::io::Error) -> Failure {
    Failure::new(format!("standard input: {error}"))
}

/// Copies what there is; false at the end.
fn copy(from: &mut impl Read, to: &mut impl Write) -> bool {
    let mut buffer = [0; 8192];
    match from.read(&mut buffer) {
        Ok(0) | Err(_) => false,
        Ok(length) => to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_ok(),
    }
}
