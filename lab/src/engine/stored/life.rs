//! A container's life: start, stop, kill, pause, wait. What happens, its monitor does; here it is asked for.

use std::os::unix::net::UnixStream;

use bollard_stubs::models::{ContainerCreateBody, ContainerUpdateBody};
use nix::sys::signal::Signal;

use super::{Engine, Record, Status};
use crate::engine::Error;
use crate::engine::monitor::protocol::{Answer, Ask, Attach};
use crate::engine::passt;
use crate::engine::request::Network;

/// How a container is stopped.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// The signal, by name or number; none is the container's own, else SIGTERM.
    pub signal: Option<String>,
    /// Seconds until SIGKILL; none is the container's own, else 10; below 0, never.
    pub seconds: Option<i64>,
}

/// Docker's patience, in seconds.
const PATIENCE: i64 = 10;

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// [`Error::Already`] where it runs; why its workload could not begin.
    pub fn start(&self, record: &Record) -> Result<(), Error> {
        self.reconcile(record)?;
        if record.status == Status::Paused {
            return Err(Error::conflict("cannot start a paused container, try unpause instead"));
        }
        self.ask_or_start(record, &Ask::Start).map(drop)
    }

    /// Joins a container's streams, also before its start. The streams follow on the connection.
    ///
    /// # Errors
    /// Where it has no monitor and none can be started.
    pub fn attach(&self, record: &Record, attach: &Attach) -> Result<UnixStream, Error> {
        Ok(self.ask_or_start(record, &Ask::Attach(attach.clone()))?.0)
    }

    /// Stops a container, and returns when it is gone.
    ///
    /// # Errors
    /// [`Error::Already`] where it does not run.
    pub fn stop(&self, record: &Record, stop: &Stop) -> Result<(), Error> {
        self.reconcile(record)?;
        if !self.find(&record.id)?.status.is_live() {
            return Err(Error::Already { message: format!("container {} is not running", record.name) });
        }
        let signal = match stop.signal.as_deref().or(record.body.stop_signal.as_deref()) {
            Some(name) if !name.is_empty() => signal(name)?,
            _ => Signal::SIGTERM as i32,
        };
        let seconds = stop.seconds.or(record.body.stop_timeout).unwrap_or(PATIENCE);
        match self.ask(record, &Ask::Stop { signal, seconds }) {
            // It ended by itself meanwhile.
            Ok(_) | Err(Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends a container's workload a signal.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it does not run.
    pub fn kill(&self, record: &Record, name: &str) -> Result<(), Error> {
        let signal = signal(name)?;
        self.ask(record, &Ask::Kill { signal }).map(drop).map_err(|error| match error {
            Error::Conflict { message } => {
                Error::conflict(format!("cannot kill container: {}: {message}", record.name))
            }
            error => error,
        })
    }

    pub(super) fn kill_and_wait(&self, record: &Record) -> Result<(), Error> {
        self.ask(record, &Ask::Stop { signal: Signal::SIGKILL as i32, seconds: -1 }).map(drop)
    }

    /// Stops a container where it runs, and starts it.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn restart(&self, record: &Record, stop: &Stop) -> Result<(), Error> {
        match self.stop(record, stop) {
            Ok(()) | Err(Error::Already { .. }) => {}
            Err(error) => return Err(error),
        }
        let record = self.find(&record.id)?;
        self.start(&record)?;
        self.tell_container(&record, "restart", &[])
    }

    /// Holds a container still, or lets it go on.
    ///
    /// # Errors
    /// [`Error::Conflict`] where that does not fit its state.
    pub fn pause(&self, record: &Record, still: bool) -> Result<(), Error> {
        match (record.status, still) {
            (Status::Paused, true) => {
                return Err(Error::conflict(format!("container {} is already paused", record.name)));
            }
            (Status::Running, false) => {
                return Err(Error::conflict(format!("container {} is not paused", record.name)));
            }
            _ => {}
        }
        self.ask(record, if still { &Ask::Pause } else { &Ask::Resume }).map(drop)
    }

    /// Sets the size of the terminal of a container, or of a process that was added to it.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it does not run.
    pub fn resize(&self, record: &Record, exec: Option<&str>, rows: u16, columns: u16) -> Result<(), Error> {
        self.ask(record, &Ask::Resize { exec: exec.map(str::to_owned), rows, columns }).map(drop)
    }

    /// Waits until a container has ended: its exit code, at once where it does not run.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn wait(&self, record: &Record) -> Result<i64, Error> {
        if record.status.is_live() {
            match self.ask(record, &Ask::Wait { next: false }) {
                Ok((_, Answer::Exited { code })) => return Ok(code),
                Ok(_) | Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.find(&record.id).map(|record| record.exit_code)
    }

    /// Waits for the end of the container's next run, which may not have begun yet.
    ///
    /// # Errors
    /// Where it has no monitor and none can be started.
    pub fn wait_for_next(&self, record: &Record) -> Result<UnixStream, Error> {
        let stream = self.connect_or_launch(record)?;
        crate::engine::monitor::protocol::say(&stream, &Ask::Wait { next: true })
            .map_err(|error| Error::io("speak to the monitor of", record.short_id(), error))?;
        Ok(stream)
    }

    /// Waits for the end of the run that goes on; nothing where none does, or where it has just ended. To start a monitor for
    /// it would be to wait for a run that nobody wants.
    pub fn wait_for_this(&self, record: &Record) -> Option<UnixStream> {
        let stream = super::connect(&self.roots, &record.id).ok()?;
        crate::engine::monitor::protocol::say(&stream, &Ask::Wait { next: false }).ok()?;
        Some(stream)
    }

    /// Changes limits and the restart policy.
    ///
    /// # Errors
    /// Limits that make no sense, or cannot be applied to what runs.
    pub fn update(&self, record: &Record, change: &ContainerUpdateBody) -> Result<(), Error> {
        let mut body: ContainerCreateBody = record.body.clone();
        let host = body.host_config.get_or_insert_default();
        let set = |old: &mut Option<i64>, new: Option<i64>| {
            if let Some(new) = new.filter(|&new| new != 0) {
                *old = Some(new);
            }
        };
        set(&mut host.memory, change.memory);
        set(&mut host.memory_swap, change.memory_swap);
        set(&mut host.nano_cpus, change.nano_cpus);
        set(&mut host.cpu_quota, change.cpu_quota);
        set(&mut host.cpu_period, change.cpu_period);
        set(&mut host.cpu_shares, change.cpu_shares);
        set(&mut host.memory_reservation, change.memory_reservation);
        // 0 and -1 are docker's words for "no limit".
        host.pids_limit = change.pids_limit.or(host.pids_limit);
        let set_text = |old: &mut Option<String>, new: &Option<String>| {
            if new.as_ref().is_some_and(|new| !new.is_empty()) {
                old.clone_from(new);
            }
        };
        set_text(&mut host.cpuset_cpus, &change.cpuset_cpus);
        set_text(&mut host.cpuset_mems, &change.cpuset_mems);
        if let Some(policy) = change.restart_policy.clone().filter(|policy| policy.name.is_some()) {
            host.restart_policy = Some(policy);
        }
        super::plan::limits(host)
            .check(|| std::thread::available_parallelism().map_or(1, |count| count.get() as u64))?;
        if record.status.is_live() {
            let update = serde_json::from_value(serde_json::to_value(&*host)?)?;
            self.ask(record, &Ask::Update(Box::new(update)))?;
        }
        self.note_body(&record.id, &body)?;
        self.tell_container(record, "update", &[])
    }

    /// The network namespace that a configuration asks for. `live` says whether it is to be entered now.
    pub(crate) fn network_of(&self, body: &ContainerCreateBody, live: bool) -> Result<Network, Error> {
        let mode =
            body.host_config.as_ref().and_then(|host| host.network_mode.as_deref()).unwrap_or_default();
        match mode {
            // A network is plugged into a namespace of the container's own.
            "" | "default" | "bridge" | "none" | passt::NAME => Ok(Network::Own),
            "host" => Ok(Network::Host),
            _ => {
                let Some(other) = mode.strip_prefix("container:") else {
                    return self.network(mode).map(|_| Network::Own);
                };
                let other = self.find(other)?;
                if !live {
                    return Ok(Network::Own);
                }
                if other.pid == 0 {
                    return Err(Error::conflict(format!(
                        "cannot join network of a non running container: {}",
                        other.id
                    )));
                }
                Ok(Network::Join(format!("/proc/{}/ns/net", other.pid).into()))
            }
        }
    }
}

/// A signal by its name, with or without SIG, or its number.
///
/// # Errors
/// Where there is no such signal.
pub(crate) fn signal(name: &str) -> Result<i32, Error> {
    let wrong = || Error::bad(format!("Invalid signal: {name}"));
    if let Ok(number) = name.parse::<i32>() {
        // Real-time signals have numbers only (signal(7)).
        return if (1..=64).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let full = name.to_ascii_uppercase();
    let full = if full.starts_with("SIG") { full } else { format!("SIG{full}") };
    full.parse::<Signal>().map(|signal| signal as i32).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (name, number) in [("SIGKILL", 9), ("kill", 9), ("15", 15), ("HUP", 1), ("64", 64)] {
            assert_eq!(signal(name).unwrap(), number);
        }
        for name in ["", "0", "65", "SIGNOTHING", "-9"] {
            assert!(signal(name).is_err(), "{name}");
        }
    }
}
