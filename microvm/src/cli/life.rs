//! `kill` and `delete`.

use std::str::FromStr as _;

use anyhow::{Result, anyhow, bail};
use microvm::runtime::{Instance, Status};
use nix::libc;
use nix::sys::signal::Signal;

use super::Global;

/// Send a signal to a machine's workload
#[derive(clap::Args)]
pub(super) struct Kill {
    /// The machine's name
    id: String,
    /// A signal's name, with or without SIG, or its number
    #[arg(default_value = "TERM", allow_negative_numbers = true)]
    signal: String,
    /// To every process that was started in it
    #[arg(short, long)]
    all: bool,
}

impl Kill {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        let signal = signal(&self.signal)?;
        Ok(global.load(&self.id)?.kill(signal, self.all)?)
    }
}

/// Remove a machine and all it used
#[derive(clap::Args)]
pub(super) struct Delete {
    /// The machine's name
    id: String,
    /// Kill it first if it runs; no error if there is none
    #[arg(short, long)]
    force: bool,
}

impl Delete {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        if self.force {
            return Ok(Instance::delete_forced(&global.root(), &self.id)?);
        }
        let instance = global.load(&self.id)?;
        if instance.status() == Status::Creating {
            bail!("container {} is being created; use --force if its runtime died", self.id);
        }
        Ok(instance.delete(false)?)
    }
}

/// The number of a signal (`signal(7)`).
fn signal(text: &str) -> Result<i32> {
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(signal) = Signal::from_str(&format!("SIG{name}")) {
        return Ok(signal as i32);
    }
    let real_time = |prefix: &str| name.strip_prefix(prefix)?.parse::<i32>().ok();
    let number = match (real_time("RTMIN+"), real_time("RTMAX-"), name) {
        (Some(offset), ..) => Some(libc::SIGRTMIN() + offset),
        (_, Some(offset), _) => Some(libc::SIGRTMAX() - offset),
        (.., "RTMIN") => Some(libc::SIGRTMIN()),
        (.., "RTMAX") => Some(libc::SIGRTMAX()),
        _ => name.parse().ok(),
    };
    number
        .filter(|number| (0..=64).contains(number))
        .ok_or_else(|| anyhow!("signal {text:?}: use a name as TERM or SIGKILL, or a number from 1 to 64"))
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
