//! The commands of a container's life.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use clap::Args;
use container::{Container, CreateOptions, Status, Stdio};

use super::{Failure, Global, Outcome, foreground};

/// What `create` and `run` share.
#[derive(Debug, Args)]
pub(super) struct Make {
    /// The directory with config.json.
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// File to write the process's id to.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Unix socket to send the terminal to.
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// How many descriptors from 3 on the process keeps.
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Where the host's root is a ramfs: move the root instead.
    #[arg(long)]
    no_pivot: bool,
    /// Accepted for engines: the process always gets a keyring of its own.
    #[arg(long)]
    no_new_keyring: bool,
    /// The container's name.
    id: String,
}

impl Make {
    fn options(self, global: &Global) -> Result<CreateOptions, Failure> {
        let mut options = CreateOptions::new(global.root(), self.id, self.bundle);
        options.pid_file = self.pid_file;
        options.preserve_fds = listen_fds() + self.preserve_fds;
        options.no_pivot = self.no_pivot;
        options.stdio = console(self.console_socket)?;
        Ok(options)
    }
}

/// Descriptors that a service manager hands through (`sd_listen_fds(3)`) come before those of `--preserve-fds`.
fn listen_fds() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The standard streams: the caller's, or a terminal sent over a socket.
pub(super) fn console(socket: Option<PathBuf>) -> Result<Stdio, Failure> {
    let Some(path) = socket else { return Ok(Stdio::Inherit) };
    let stream = UnixStream::connect(&path);
    stream
        .map(Stdio::Console)
        .map_err(|error| Failure::new(format!("--console-socket {}: {error}", path.display())))
}

/// `create`.
#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    make: Make,
}

impl Create {
    pub(super) fn run(self, global: &Global) -> Outcome {
        container::create(self.make.options(global)?)?;
        Ok(0)
    }
}

/// `run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    make: Make,
    /// Return once the container runs.
    #[arg(long, short)]
    detach: bool,
    /// Leave the container's state for `delete` when it has exited.
    #[arg(long)]
    keep: bool,
    /// Accepted for engines: other processes' orphans are not adopted.
    #[arg(long)]
    no_subreaper: bool,
}

impl Run {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let mut options = self.make.options(global)?;
        let relay = match (self.detach, &options.stdio) {
            (false, Stdio::Inherit) => foreground::Relay::for_bundle(&mut options)?,
            _ => None,
        };
        let signals = (!self.detach).then(foreground::Signals::catch).transpose()?;
        let mut container = container::create(options)?;
        if let Err(error) = container.start() {
            container.delete(true)?;
            return Err(error.into());
        }
        let Some(signals) = signals else { return Ok(0) };
        let waited = foreground::wait(relay.as_ref(), &signals, &container, |signal| {
            let _ = container.kill(signal);
        });
        let exit = waited.and_then(|()| Ok(container.wait()?));
        if !self.keep {
            container.delete(true)?;
        }
        Ok(exit?.code())
    }
}

/// A container's name, alone.
#[derive(Debug, Args)]
pub(super) struct Id {
    /// The container's name.
    pub(super) id: String,
}

impl Id {
    pub(super) fn start(&self, global: &Global) -> Outcome {
        global.load(&self.id)?.start()?;
        Ok(0)
    }

    pub(super) fn pause(&self, global: &Global) -> Outcome {
        global.load(&self.id)?.pause()?;
        Ok(0)
    }

    pub(super) fn resume(&self, global: &Global) -> Outcome {
        global.load(&self.id)?.resume()?;
        Ok(0)
    }
}

/// `kill`.
#[derive(Debug, Args)]
pub(super) struct Kill {
    /// To every process of the container.
    #[arg(long, short)]
    all: bool,
    /// The container's name.
    id: String,
    /// A signal's name, with or without SIG, or its number.
    #[arg(default_value = "TERM")]
    signal: String,
}

impl Kill {
    pub(super) fn run(&self, global: &Global) -> Outcome {
        let container = global.load(&self.id)?;
        let signal = signal(&self.signal)?;
        if self.all {
            container.kill_all(signal)?;
        } else {
            container.kill(signal)?;
        }
        Ok(0)
    }
}

/// The number of a signal (`signal(7)`).
fn signal(text: &str) -> Result<i32, Failure> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(position) = NAMES.iter().position(|known| *known == name) {
        return Ok(position as i32 + 1);
    }
    let real_time = |prefix: &str| name.strip_prefix(prefix)?.parse::<i32>().ok();
    let number = match (real_time("RTMIN+"), real_time("RTMAX-"), name) {
        (Some(offset), ..) => Some(libc::SIGRTMIN() + offset),
        (_, Some(offset), _) => Some(libc::SIGRTMAX() - offset),
        (.., "RTMIN") => Some(libc::SIGRTMIN()),
        (.., "RTMAX") => Some(libc::SIGRTMAX()),
        _ => name.parse().ok(),
    };
    number.filter(|number| (0..=64).contains(number)).ok_or_else(|| {
        Failure::new(format!("signal {text:?}: use a name as TERM or SIGKILL, or a number from 1 to 64"))
    })
}

/// `delete`.
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Kill it first if it runs; no error if there is none.
    #[arg(long, short)]
    force: bool,
    /// The container's name.
    id: String,
}

impl Delete {
    pub(super) fn run(&self, global: &Global) -> Outcome {
        if self.force {
            Container::delete_forced(&global.root(), &self.id)?;
            return Ok(0);
        }
        let container = global.load(&self.id)?;
        if container.status() == Status::Creating {
            let message = format!("container {} is being created; use --force if its runtime died", self.id);
            return Err(Failure::new(message));
        }
        container.delete(false)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::signal;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in
            [("TERM", 15), ("SIGKILL", 9), ("sighup", 1), ("9", 9), ("SIGRTMIN+3", 37), ("SYS", 31)]
        {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        assert!(signal("SIGFLY").is_err() && signal("65").is_err());
    }
}
