//! `exec`: one more process in a machine, and a small process on the host that stands for it: engines watch that, signal it,
//! and take its exit code.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::Instance;
use super::control::{Answer, Ask, Word, connect, hear, say};
use super::create::write_pid_file;
use super::monitor::catch_signals;
use super::state::Status;
use crate::agent::pseudo_terminal;
use crate::spec::Process;
use crate::{Error, sys};

/// What is asked of [`Instance::exec`].
#[derive(Debug)]
pub struct ExecOptions {
    /// What to run, and as whom.
    pub process: Process,
    /// Where the master of its terminal is sent; without it, the standard streams of this process are its own.
    pub console_socket: Option<UnixStream>,
    /// A file to write the id of the process to that stands for it.
    pub pid_file: Option<PathBuf>,
    /// Return once it runs. To be called while there is one thread, then.
    pub detach: bool,
}

impl Instance {
    /// Runs one more process, and returns its exit code, or 0 once it runs where it is detached.
    ///
    /// # Errors
    /// The command does not exist ([`Error::exit_code`] 127), cannot be executed (126), or anything else (125).
    pub fn exec(&self, options: ExecOptions) -> Result<u8, Error> {
        match self.status() {
            Status::Created | Status::Running => {}
            status => return Err(self.wrong("exec in", status)),
        }
        if !options.detach {
            let signals = catch_signals()?;
            let _raw = options.process.terminal.then(Raw::set);
            return Standing::begin(self, options)?.stand(&signals);
        }
        let (link, theirs) = UnixStream::pair().map_err(Error::system("make a socket pair"))?;
        let pid_file = options.pid_file.clone();
        let Some(pid) = sys::fork().map_err(Error::system("make the process that stands for it (fork)"))?
        else {
            drop(link);
            std::process::exit(stand_in(self, options, theirs).into());
        };
        drop(theirs);
        match hear::<Word>(&link) {
            Ok((Word::Ready, _)) => {}
            Ok((Word::Failed { message, code }, _)) => return Err(Error::Told { message, code }),
            _ => return Err(Error::MonitorDied { id: self.id().to_owned() }),
        }
        if let Some(path) = pid_file {
            write_pid_file(&path, pid)?;
        }
        Ok(0)
    }
}

/// The life of the process that stands for a detached one.
fn stand_in(instance: &Instance, options: ExecOptions, link: UnixStream) -> u8 {
    let options = ExecOptions { pid_file: None, ..options };
    let begin = || -> Result<_, Error> {
        rustix::process::setsid().map_err(Error::system("begin a session (setsid)"))?;
        let signals = catch_signals()?;
        Ok((Standing::begin(instance, options)?, signals))
    };
    match begin() {
        Ok((standing, signals)) => {
            let _ = say(&link, &Word::Ready, &[]);
            drop(link);
            standing.stand(&signals).unwrap_or_else(|error| error.exit_code())
        }
        Err(error) => {
            let _ = say(&link, &Word::Failed { message: error.to_string(), code: error.exit_code() }, &[]);
            error.exit_code()
        }
    }
}

/// A process that runs in the guest.
struct Standing {
    connection: UnixStream,
    terminal: Option<OwnedFd>,
}

impl Standing {
    fn begin(instance: &Instance, options: ExecOptions) -> Result<Self, Error> {
        let connection = connect(instance.folder())?;
        let own = || {
            io::stdin().as_fd().try_clone_to_owned().map_err(Error::system("duplicate the terminal (dup)"))
        };
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let mut files = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let is_new = options.console_socket.is_some();
        let terminal = match (options.process.terminal, options.console_socket) {
            (false, _) => None,
            (true, None) => Some(own()?),
            (true, Some(socket)) => {
                let slave = pseudo_terminal(&socket)?;
                // As the controlling terminal it tells us by SIGWINCH when an engine changes its size (tty_ioctl(4)). Only a
                // session's first process may take it; another learns of no changes.
                let _ = rustix::process::ioctl_tiocsctty(&slave);
                Some(slave)
            }
        };
        if let Some(terminal) = terminal.as_ref().filter(|_| is_new) {
            files = [terminal.as_fd(); 3];
        }
        let talk = || {
            say(&connection, &Ask::Exec { process: Box::new(options.process) }, &files)?;
            hear::<Answer>(&connection)
        };
        let answer = talk().map_err(|_| Error::MonitorDied { id: instance.id().to_owned() })?.0;
        if let Answer::Failed { message, code } = answer {
            return Err(Error::Told { message, code });
        }
        if let Some(path) = &options.pid_file {
            write_pid_file(path, std::process::id() as i32)?;
        }
        let standing = Self { connection, terminal };
        standing.resize();
        Ok(standing)
    }

    /// Passes signals on until its end.
    fn stand(&self, signals: &SignalFd) -> Result<u8, Error> {
        loop {
            let mut files = [self.connection.as_fd(), signals.as_fd()]
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            let _ = poll(&mut files, None);
            if !files[0].revents().is_empty() {
                return Ok(match hear::<Answer>(&self.connection) {
                    Ok((Answer::Exited { code }, _)) => code,
                    Ok((Answer::Failed { message, code }, _)) => return Err(Error::Told { message, code }),
                    // The machine has ended, and all its processes with it.
                    _ => 128 + Signal::SIGKILL as u8,
                });
            }
            while let Ok(Some(info)) = signals.read_signal() {
                match Signal::try_from(info.ssi_signo as i32) {
                    Ok(Signal::SIGWINCH) => self.resize(),
                    Ok(
                        Signal::SIGCHLD
                        | Signal::SIGPIPE
                        | Signal::SIGURG
                        | Signal::SIGTTIN
                        | Signal::SIGTTOU,
                    ) => {}
                    _ => {
                        let ask = Ask::Signal { signal: info.ssi_signo as i32, all: false };
                        let _ = say(&self.connection, &ask, &[]);
                    }
                }
            }
        }
    }

    fn resize(&self) {
        let size = self.terminal.as_ref().and_then(|terminal| tcgetwinsize(terminal).ok());
        if let Some(size) = size.filter(|size| (size.ws_row, size.ws_col) != (0, 0)) {
            let _ = say(&self.connection, &Ask::Resize { rows: size.ws_row, columns: size.ws_col }, &[]);
        }
    }
}

/// Puts our terminal back as it was.
pub struct Raw(Option<Termios>);

impl Raw {
    /// Lets all that is typed through as it is: the terminal in the guest does the rest. Nothing, where standard input is no
    /// terminal.
    pub fn set() -> Self {
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
