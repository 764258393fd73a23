//! `create` and `run`, and the options that they share with `exec`.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use container::{Container, CreateOptions, Stdio, spec};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::arguments::{self, Arguments, Word, needed};
use super::{Failure, Global, Outcome, foreground};

const CREATE: &str = "\
Make a container from a bundle; its process waits to be started.

Usage: create [OPTIONS] ID

  -b, --bundle DIR            The directory with config.json (default: .)
  -f, --config FILE           Another file in the place of the bundle's config.json
      --pid-file FILE         File to write the process's id to
      --console-socket SOCKET Unix socket to send the terminal to
      --pidfd-socket SOCKET   Unix socket to send a descriptor of the process to (pidfd_open(2))
      --preserve-fds N        How many descriptors from 3 on the process keeps
      --no-pivot              Where the host's root is a ramfs: move the root instead
      --no-new-keyring        Leave the caller's session keyring to the process
      --no-subreaper          Accepted for engines: other processes' orphans are not adopted";

const RUN: &str = "\
Create, start, wait and delete.

Usage: run [OPTIONS] ID

  All options of create, and:
  -d, --detach                Return once the container runs
      --keep                  Leave the container's state for `delete` when it has exited";

/// What every new process takes: where its id is written, its terminal goes, and which descriptors it keeps.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) pid_file: Option<PathBuf>,
    pub(super) console_socket: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    preserve_fds: u32,
}

impl Ends {
    /// Takes an option, if it is one of these.
    pub(super) fn take(&mut self, option: &str, arguments: &mut Arguments) -> Result<bool, Failure> {
        match option {
            "--pid-file" => self.pid_file = Some(arguments.path()?),
            "--console-socket" => self.console_socket = Some(arguments.path()?),
            "--pidfd-socket" => self.pidfd_socket = Some(arguments.path()?),
            "--preserve-fds" => self.preserve_fds = arguments.number()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The descriptors from 3 on to keep: those that a service manager hands through (`sd_listen_fds(3)`) come first.
    pub(super) fn preserve_fds(&self) -> u32 {
        self.preserve_fds.saturating_add(listen_fds())
    }

    /// Sends the process's descriptor to whoever asked for it: so no exit can be missed, and no number taken for another's.
    pub(super) fn send_pidfd(&self, pidfd: BorrowedFd<'_>) -> Result<(), Failure> {
        let Some(path) = &self.pidfd_socket else { return Ok(()) };
        let failed =
            |error: std::io::Error| Failure::new(format!("--pidfd-socket {}: {error}", path.display()));
        let socket = UnixStream::connect(path).map_err(failed)?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [pidfd];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&socket, &[IoSlice::new(b"pidfd")], &mut control, SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(|error| failed(error.into()))
    }

    /// The standard streams: the caller's, or a terminal sent over a socket.
    pub(super) fn stdio(&self) -> Result<Stdio, Failure> {
        let Some(path) = &self.console_socket else { return Ok(Stdio::Inherit) };
        let stream = UnixStream::connect(path);
        stream
            .map(Stdio::Console)
            .map_err(|error| Failure::new(format!("--console-socket {}: {error}", path.display())))
    }
}

fn listen_fds() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// What tells a workload of them: it is process 1, as far as it knows.
pub(super) fn listen_environment() -> Vec<String> {
    match listen_fds() {
        0 => Vec::new(),
        count => vec![format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()],
    }
}

/// What is asked of `create` and `run`.
#[derive(Debug, Default)]
struct Make {
    bundle: Option<PathBuf>,
    config: Option<PathBuf>,
    ends: Ends,
    no_pivot: bool,
    old_keyring: bool,
    detach: bool,
    keep: bool,
    id: Option<String>,
}

impl Make {
    fn read(mut arguments: Arguments, run: bool) -> Result<Self, Failure> {
        let mut this = Self::default();
        while let Some(word) = arguments.next()? {
            let option = match word {
                Word::Name(name) => {
                    arguments::set(&mut this.id, name)?;
                    continue;
                }
                Word::Option(option) => option,
            };
            match option.as_str() {
                "-b" | "--bundle" => this.bundle = Some(arguments.path()?),
                "-f" | "--config" => this.config = Some(arguments.path()?),
                "--no-pivot" => this.no_pivot = arguments.flag()?,
                "--no-new-keyring" => this.old_keyring = arguments.flag()?,
                "-d" | "--detach" if run => this.detach = arguments.flag()?,
                "--keep" if run => this.keep = arguments.flag()?,
                "--no-subreaper" => drop(arguments.flag()?),
                option if this.ends.take(option, &mut arguments)? => {}
                option => return arguments::unknown(option),
            }
        }
        Ok(this)
    }

    fn options(&mut self, global: &Global) -> Result<CreateOptions, Failure> {
        let bundle = self.bundle.take().unwrap_or_else(|| ".".into());
        let mut options = CreateOptions::new(global.root(), needed(self.id.take())?, bundle);
        options.pid_file = self.ends.pid_file.take();
        options.preserve_fds = self.ends.preserve_fds();
        if let Some(path) = &self.config {
            options.config = Some(spec::load_file(path)?);
        }
        if listen_fds() > 0 {
            let mut config = options.config.take().map_or_else(|| spec::load(&options.bundle), Ok)?;
            let process = config.process.iter_mut();
            process.for_each(|process| process.env.extend(listen_environment()));
            options.config = Some(config);
        }
        options.no_pivot = self.no_pivot;
        options.new_keyring = !self.old_keyring;
        options.cgroups = global.cgroups;
        options.stdio = self.ends.stdio()?;
        Ok(options)
    }
}

/// `create`.
pub(super) fn create(arguments: Arguments, global: &Global) -> Outcome {
    let mut make = Make::read(arguments.for_command(CREATE), false)?;
    let container = container::create(make.options(global)?)?;
    warn(&container, global);
    if let Err(failure) = make.ends.send_pidfd(container.exit_fd()) {
        container.delete(true)?;
        return Err(failure);
    }
    Ok(0)
}

fn warn(container: &Container, global: &Global) {
    container.warnings().iter().for_each(|warning| super::log::warning(global, warning));
}

/// `run`.
pub(super) fn run(arguments: Arguments, global: &Global) -> Outcome {
    let mut make = Make::read(arguments.for_command(RUN), true)?;
    let mut options = make.options(global)?;
    let relay = match (make.detach, &options.stdio) {
        (false, Stdio::Inherit) => foreground::Relay::for_bundle(&mut options)?,
        _ => None,
    };
    let signals = (!make.detach).then(foreground::Signals::catch).transpose()?;
    let mut container = container::create(options)?;
    warn(&container, global);
    let started = make.ends.send_pidfd(container.exit_fd()).and_then(|()| Ok(container.start()?));
    if let Err(failure) = started {
        container.delete(true)?;
        return Err(failure);
    }
    let Some(signals) = signals else { return Ok(0) };
    let waited = foreground::wait(relay.as_ref(), &signals, &container, |signal| {
        let _ = container.kill(signal);
    });
    let exit = waited.and_then(|()| Ok(container.wait()?));
    if !make.keep {
        container.delete(true)?;
    }
    Ok(exit?.code())
}
