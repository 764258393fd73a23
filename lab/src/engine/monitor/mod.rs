//! The monitor: one small process for each container that runs, which outlives whoever started it.
//!
//! ```text
//!   lab, daemon ──► socket ──► serve: a thread for each connection ──┐
//!                                                                   ▼
//!   main thread:  idle ──► start ──► pump streams until the end ──► note it ──► (again?) ──► gone
//!                              │        │
//!                              │        ├─► log file
//!                              │        └─► everyone who is attached
//!                              └─► trait Sandbox
//! ```
//!
//! It holds what would end with a daemon: the parenthood of the workload (only a parent learns the exit status), its
//! streams, its terminal. So a daemon can be stopped, replaced or killed, and containers do not notice.
//!
//! Where its configuration says so, one more thread runs health checks beside the workload (`health.rs`).
//!
//! A daemon's monitors grow from one small process (`seed.rs`), others are started as a program (`lab monitor ID`).
//!
//! A monitor is started by whoever needs one first: `start`, or an `attach` or `wait` that comes before it. Idle ones end.

mod dns;
mod exec;
mod health;
mod log;
mod names;
mod output;
mod ports;
pub mod protocol;
mod seed;
mod serve;
mod set_up;
mod streams;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use bollard_stubs::models::RestartPolicyNameEnum as Policy;

use super::error::Context as _;
use super::place::Place;
use super::sandbox::Sandbox;
use super::stored::{Engine, LogConfig, Record, Status};
use super::{Error, stored};
use log::Log;
pub(crate) use output::Channel;
use output::Hub;
use protocol::Failure;
pub use seed::Seed;
use streams::Input;

/// The socket's name in the sandbox's directory.
pub(super) const SOCKET: &str = "monitor";
/// What a monitor says when it listens.
pub(super) const READY: &str = "ready\n";

/// An idle monitor to which nobody is connected ends after this.
const IDLE: Duration = Duration::from_secs(2);
/// Between a container's end and its policy's new start: doubled each time, from the first to the second; docker's.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// A run of this length was no failed start: the next pause is the shortest again.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// How long the answers to those who wait may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the threads of a monitor share.
pub(crate) struct Monitor {
    engine: Arc<Engine>,
    id: String,
    hub: Hub,
    input: Input,
    sandbox: Mutex<Option<Box<dyn Sandbox>>>,
    gate: Mutex<Gate>,
    changed: Condvar,
    terminals: streams::Terminals,
}

/// Where the container stands, for the threads that wait for it.
#[derive(Default)]
struct Gate {
    /// Who is connected.
    connections: usize,
    /// Those that are to be answered at the workload's end.
    waiting: usize,
    /// Who asked for a start and waits for its result.
    starters: Vec<mpsc::Sender<Result<(), Failure>>>,
    running: bool,
    /// Whether the user wants it ended: then no policy starts it again.
    stop: bool,
    /// How many runs have ended, and how the last did.
    ended: (u64, i64),
    /// No more runs: what comes now is too late.
    closed: bool,
}

/// Makes this process one of its own. To be called first, while there is one thread.
///
/// # Errors
/// Where the process cannot fork.
pub fn detach() -> Result<(), Error> {
    crate::sys::detach().context("detach", "the monitor")
}

/// The life of a monitor. The process has been detached from its caller.
///
/// # Errors
/// Where it cannot begin.
pub fn main(id: &str) -> Result<(), Error> {
    let engine = Arc::new(Engine::open()?);
    if engine.roots.data().is_absolute() {
        // Whose folder that was may want to unmount it.
        let _ = std::env::set_current_dir("/");
    }
    let record = engine.find(id)?;
    let place = Place::of_stored(&engine.roots, &record.id)?;
    let directory = File::open(place.bundle()).context("open", place.bundle().display())?;
    let socket = UnixListener::bind(stored::short(&directory)).context("bind", "the monitor's socket")?;
    let monitor = Arc::new(Monitor {
        engine,
        id: record.id.clone(),
        hub: Hub::default(),
        input: Input::default(),
        sandbox: Mutex::default(),
        gate: Mutex::default(),
        changed: Condvar::new(),
        terminals: streams::Terminals::default(),
    });
    let server = Arc::clone(&monitor);
    serve::spawn("accept", move || serve::accept(&server, &socket))?;
    // Whoever started us reads until here.
    let mut stdout = std::io::stdout();
    stdout
        .write_all(READY.as_bytes())
        .and_then(|()| stdout.flush())
        .context("write to", "standard output")?;
    crate::sys::close_standard_streams().context("close", "the standard streams")?;
    let _ = nix::sys::prctl::set_name(c"lab-monitor");
    monitor.live(&place);
    drop(place);
    Ok(())
}

impl Monitor {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sandbox(&self) -> MutexGuard<'_, Option<Box<dyn Sandbox>>> {
        self.sandbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self) -> Result<Record, Error> {
        self.engine.find(&self.id)
    }

    // ANCHOR: live
    /// Runs the container as often as it is to be run.
    fn live(self: &Arc<Self>, place: &Place) {
        if !self.wait_for_start() {
            return;
        }
        let mut pause = BACKOFF.0;
        loop {
            let begun = Instant::now();
            let again = match self.run_once(place) {
                Ok(again) => again,
                Err(error) => {
                    self.failed(&error);
                    false
                }
            };
            if !again {
                break;
            }
            if begun.elapsed() > GOOD_RUN {
                pause = BACKOFF.0;
            }
            if self.pause(pause) {
                let _ = self.engine.note_status(&self.id, Status::Exited);
                break;
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
        self.farewell();
    }
    // ANCHOR_END: live

    /// Idle until somebody wants a start (true), or nobody wants anything any more.
    fn wait_for_start(&self) -> bool {
        let mut idle_since = Instant::now();
        let mut gate = self.gate();
        loop {
            if !gate.starters.is_empty() {
                return true;
            }
            if gate.connections > 0 {
                idle_since = Instant::now();
            } else if idle_since.elapsed() >= IDLE {
                gate.closed = true;
                return false;
            }
            gate = self.changed.wait_timeout(gate, IDLE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One run: true where the restart policy wants another.
    fn run_once(self: &Arc<Self>, place: &Place) -> Result<bool, Error> {
        let record = self.record()?;
        let mut run = set_up::set_up(self, &record, place)?;
        let path = self.engine.log_path(&record);
        let mut log = Log::open(&path, LogConfig::of(&record.body)?).context("open", path.display())?;
        self.engine.note_started(&record.id, run.pid, &run.ports.map)?;
        self.engine.tell_container(&record, "start", &[])?;
        self.engine.write_all_names(&record)?;
        {
            let mut gate = self.gate();
            gate.running = true;
            gate.stop = false;
            for starter in gate.starters.drain(..) {
                let _ = starter.send(Ok(()));
            }
            self.changed.notify_all();
        }
        // What the start needed is not needed again before the next one.
        crate::sys::lean_heap();
        health::watch(self, &record)?;
        streams::pump(self, &mut run, &mut log)?;
        let waited = self
            .sandbox()
            .as_mut()
            .map_or(Ok(255), |sandbox| sandbox.wait().map(|exit| i64::from(exit.code())));
        streams::drain(self, &mut run, &mut log)?;
        let (code, error) = match waited {
            Ok(code) => (code, String::new()),
            Err(error) => (255, error.to_string()),
        };
        self.input.close();
        run.ports.close();
        if let Some(sandbox) = self.sandbox().take() {
            sandbox.delete()?;
        }
        drop(run);
        self.engine.unplug_all(&record)?;
        let _ = std::fs::remove_file(place.bundle().join("config.json"));
        let _ = std::fs::remove_dir(place.bundle().join("rootfs"));
        let mut gate = self.gate();
        gate.running = false;
        let again = !gate.stop && wants_again(&record, code);
        self.engine.note_ended(&record.id, code, &error, again)?;
        self.engine.tell_container(&record, "die", &[("exitCode", &code.to_string())])?;
        // That the others keep a name too long is no reason to fail.
        let _ = self.engine.write_all_names(&record);
        gate.ended = (gate.ended.0 + 1, code);
        if again || !record.auto_remove() {
            self.changed.notify_all();
        }
        drop(gate);
        if !again {
            self.hub.close();
            if record.auto_remove() {
                self.engine.forget(&record, true)?;
            }
        }
        Ok(again)
    }

    /// A run that could not begin, or whose end went wrong.
    fn failed(&self, error: &Error) {
        if let Some(sandbox) = self.sandbox().take() {
            let _ = sandbox.delete();
        }
        if let Ok(record) = self.record() {
            let _ = self.engine.unplug_all(&record);
        }
        self.input.close();
        let code = i64::from(error.exit_code());
        let _ = self.engine.note_failed(&self.id, code, &error.to_string());
        let mut gate = self.gate();
        gate.running = false;
        gate.ended = (gate.ended.0 + 1, code);
        for starter in gate.starters.drain(..) {
            let _ = starter.send(Err(error.into()));
        }
        drop(gate);
        self.hub.close();
        if let Ok(record) = self.record()
            && record.auto_remove()
        {
            let _ = self.engine.forget(&record, true);
        }
    }

    /// Waits between two runs; true where the user wants no more.
    fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut gate = self.gate();
        while !gate.stop {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return false };
            gate = self.changed.wait_timeout(gate, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The last words to those who wait.
    fn farewell(&self) {
        let until = Instant::now() + FAREWELL;
        let mut gate = self.gate();
        gate.closed = true;
        self.changed.notify_all();
        while gate.waiting > 0 {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            gate = self.changed.wait_timeout(gate, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What the restart policy says about an end that nobody asked for.
fn wants_again(record: &Record, code: i64) -> bool {
    let Some(policy) = record.host().restart_policy else { return false };
    match policy.name {
        Some(Policy::ALWAYS | Policy::UNLESS_STOPPED) => true,
        Some(Policy::ON_FAILURE) => {
            let most = policy.maximum_retry_count.filter(|&count| count > 0).unwrap_or(i64::MAX);
            code != 0 && record.restarts < most
        }
        _ => false,
    }
}
