//! Connections: each asks one thing.

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::termios::Winsize;

use super::output::Client;
use super::protocol::{Answer, Ask, Attach, hear, say};
use super::{Monitor, exec};
use crate::engine::error::Context as _;
use crate::engine::sandbox::{NO_MACHINE, Sandbox};
use crate::engine::stored::{self, Status, plan};
use crate::engine::{Error, bundle};

/// The threads here do little: they need no more than this, of which the kernel gives what is touched.
const STACK: usize = 256 * 1024;

/// So often it is looked whether a client that waits is still there.
const GONE: Duration = Duration::from_secs(5);

/// How long the answer to a SIGKILL waits for its effect; docker's.
const KILLED: Duration = Duration::from_secs(10);

/// A thread for work of the engine's, whose records are long: what is touched of this counts.
pub(super) fn spawn_deep(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    thread_of(name, 4 * STACK, work)
}

/// A thread with a small stack.
pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    thread_of(name, STACK, work)
}

fn thread_of(name: &str, stack: usize, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(stack)
        .spawn(work)
        .context("start", "a thread")
        .map(drop)
}

/// Takes connections for as long as the monitor lives.
pub(super) fn accept(monitor: &Arc<Monitor>, socket: &UnixListener) {
    for stream in socket.incoming() {
        let Ok(stream) = stream else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        monitor.gate().connections += 1;
        let server = Arc::clone(monitor);
        let served = spawn("client", move || {
            // A client that hangs up half-way harms nobody.
            if let Ok(ask) = hear(&stream) {
                serve(&server, stream, ask);
            }
            server.gate().connections -= 1;
            server.changed.notify_all();
        });
        if served.is_err() {
            monitor.gate().connections -= 1;
        }
    }
}

fn serve(monitor: &Arc<Monitor>, stream: UnixStream, ask: Ask) {
    // What ends the workload is answered before the monitor ends with it.
    let _waits = matches!(ask, Ask::Kill { .. } | Ask::Stop { .. }).then(|| Waits::new(monitor));
    let result = match ask {
        Ask::Machine => return machine(monitor, &stream),
        Ask::Attach(attach) => return join(monitor, &stream, &attach),
        Ask::Wait { next } => return wait(monitor, &stream, next),
        Ask::Exec { id, attach } => return exec::exec(monitor, stream, &id, attach),
        Ask::Start => match start(monitor) {
            Some(result) => result,
            // This monitor's runs are over: hanging up has a new one started, which waits until this one is gone.
            None => return,
        },
        Ask::Kill { signal } => kill(monitor, signal),
        Ask::Stop { signal, seconds } => stop(monitor, signal, seconds),
        Ask::Pause => hold(monitor, true),
        Ask::Resume => hold(monitor, false),
        Ask::Resize { exec, rows, columns } => {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            monitor.terminals.resize(monitor, exec.as_deref(), size)
        }
        Ask::Update(change) => update(monitor, &change),
        Ask::Snapshot { file } => with_sandbox(monitor, |sandbox| sandbox.snapshot(&file)),
        Ask::Debug { socket } => with_sandbox(monitor, |sandbox| sandbox.debug(&socket)),
    };
    let answer = match result {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Failed((&error).into()),
    };
    let _ = say(&stream, &answer);
}

/// One who is to be answered at the workload's end: until it is dropped, the monitor's farewell waits.
struct Waits<'a>(&'a Monitor);

impl<'a> Waits<'a> {
    fn new(monitor: &'a Monitor) -> Self {
        monitor.gate().waiting += 1;
        Self(monitor)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.gate().waiting -= 1;
        self.0.changed.notify_all();
    }
}

fn machine(monitor: &Monitor, stream: &UnixStream) {
    let answer = match monitor.sandbox().as_ref().map(|sandbox| sandbox.machine()) {
        Some(Some(machine)) => Answer::Machine(Box::new(machine)),
        Some(None) => Answer::Failed((&Error::bad(NO_MACHINE)).into()),
        None => Answer::Failed((&Error::conflict("container is not running")).into()),
    };
    let _ = say(stream, &answer);
}

/// Starts the workload; nothing where this monitor comes to its end.
fn start(monitor: &Monitor) -> Option<Result<(), Error>> {
    let (send, result) = mpsc::channel();
    {
        let mut gate = monitor.gate();
        if gate.running {
            return Some(Err(Error::Already { message: "container already started".to_owned() }));
        }
        if !gate.closed && monitor.record().is_ok_and(|record| record.status == Status::Restarting) {
            return Some(Err(Error::Already {
                message: "container is about to be started again".to_owned(),
            }));
        }
        if gate.closed || gate.ended.0 > 0 {
            return None;
        }
        gate.starters.push(send);
        monitor.changed.notify_all();
    }
    Some(match result.recv() {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(Error::Monitor { message: "the monitor ended before the container began".to_owned() }),
    })
}

fn join(monitor: &Arc<Monitor>, stream: &UnixStream, attach: &Attach) {
    let raw = attach.raw.unwrap_or_else(|| monitor.record().is_ok_and(|record| record.has_terminal()));
    let Ok(socket) = stream.try_clone() else { return };
    if say(stream, &Answer::Done).is_err() {
        return;
    }
    monitor.hub.join(Client { socket, stdout: attach.stdout, stderr: attach.stderr, raw });
    if attach.stdin {
        let server = Arc::clone(monitor);
        let (Ok(input), detach) = (stream.try_clone(), attach.detach.clone()) else { return };
        // On a thread of its own: it may wait for a start that never comes.
        let _ = spawn("input", move || {
            if server.input.copy_from(&input, &detach) {
                let _ = input.shutdown(std::net::Shutdown::Both);
            }
        });
    }
    // The connection counts for as long as the client holds it. Only its hanging up is of interest here.
    let mut files = [rustix::event::PollFd::new(stream, rustix::event::PollFlags::HUP)];
    while matches!(rustix::event::poll(&mut files, None), Err(rustix::io::Errno::INTR)) {}
}

/// Answers at the end of the run that goes on, or of the next one.
fn wait(monitor: &Monitor, stream: &UnixStream, next: bool) {
    let _waits = Waits::new(monitor);
    let code = {
        let mut gate = monitor.gate();
        let idle = !gate.running && gate.starters.is_empty() && gate.ended.0 == 0;
        if idle && !next {
            // Hanging up says that what is stored holds.
            return;
        }
        let before = gate.ended.0;
        // The end of a container that removes itself is told when it is removed, which is just before the monitor ends.
        while !gate.closed && (gate.ended.0 == before || removes(monitor)) {
            gate = monitor.changed.wait_timeout(gate, GONE).unwrap_or_else(PoisonError::into_inner).0;
            // Who has left waits for nothing, and must not keep an idle monitor.
            let mut hung_up = [rustix::event::PollFd::new(stream, rustix::event::PollFlags::HUP)];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            if rustix::event::poll(&mut hung_up, Some(&now)).is_ok_and(|count| count > 0) {
                break;
            }
        }
        (gate.ended.0 > before).then_some(gate.ended.1)
    };
    if let Some(code) = code {
        let _ = say(stream, &Answer::Exited { code });
    }
}

fn removes(monitor: &Monitor) -> bool {
    // A record that is gone was removed.
    monitor.record().is_ok_and(|record| record.auto_remove())
}

fn kill(monitor: &Monitor, signal: i32) -> Result<(), Error> {
    let record = monitor.record()?;
    let killed = signal == Signal::SIGKILL as i32;
    // The signal by which the container is stopped means that the user wants it ended, as docker has it.
    let own = record.body.stop_signal.as_deref().filter(|name| !name.is_empty());
    let stops = killed || own.is_none_or(|name| stored::signal(name).is_ok_and(|own| own == signal));
    let before = monitor.gate().ended.0;
    if stops {
        monitor.gate().stop = true;
        monitor.engine.note_stopped(&monitor.id)?;
    }
    match monitor.sandbox().as_mut() {
        Some(sandbox) => {
            sandbox.kill(signal)?;
            if stops && record.status == Status::Paused {
                // One that is held acts upon no signal.
                sandbox.resume()?;
                monitor.engine.note_status(&monitor.id, Status::Running)?;
            }
        }
        // Between two runs: that there will be no other is all.
        None if stops => monitor.changed.notify_all(),
        None => return Err(Error::conflict("container is not running")),
    }
    monitor.engine.tell_container(&record, "kill", &[("signal", &signal.to_string())])?;
    if killed {
        ended(monitor, before, Some(Instant::now() + KILLED));
    }
    Ok(())
}

fn stop(monitor: &Monitor, signal: i32, seconds: i64) -> Result<(), Error> {
    let before = {
        let mut gate = monitor.gate();
        if !gate.running && gate.starters.is_empty() && gate.ended.0 == 0 {
            return Err(Error::conflict("container is not running"));
        }
        gate.stop = true;
        monitor.changed.notify_all();
        if !gate.running {
            return Ok(());
        }
        gate.ended.0
    };
    let record = monitor.record();
    let result = (|| {
        monitor.engine.note_stopped(&monitor.id)?;
        let send = |signal| monitor.sandbox().as_mut().map_or(Ok(()), |sandbox| sandbox.kill(signal));
        if record.as_ref().is_ok_and(|record| record.status == Status::Paused) {
            // One that is held cannot act upon any signal but SIGKILL.
            monitor.sandbox().as_mut().map_or(Ok(()), |sandbox| sandbox.resume())?;
        }
        send(signal)?;
        let until = u64::try_from(seconds).ok().map(|seconds| Instant::now() + Duration::from_secs(seconds));
        if !ended(monitor, before, until) {
            send(Signal::SIGKILL as i32)?;
            ended(monitor, before, None);
        }
        Ok(())
    })();
    if let (Ok(record), Ok(())) = (&record, &result) {
        monitor.engine.tell_container(record, "stop", &[])?;
    }
    result
}

/// Waits until the run has ended, and what it leaves is settled; false where that takes too long.
fn ended(monitor: &Monitor, before: u64, until: Option<Instant>) -> bool {
    let removes = removes(monitor);
    let mut gate = monitor.gate();
    while !(gate.closed || gate.ended.0 > before && !removes) {
        let left = match until.map(|until| until.checked_duration_since(Instant::now())) {
            Some(None) => return false,
            Some(Some(left)) => left,
            None => Duration::from_secs(3600),
        };
        gate = monitor.changed.wait_timeout(gate, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    true
}

fn with_sandbox(
    monitor: &Monitor,
    work: impl FnOnce(&mut dyn Sandbox) -> Result<(), Error>,
) -> Result<(), Error> {
    match monitor.sandbox().as_mut() {
        Some(sandbox) => work(sandbox.as_mut()),
        None => Err(Error::conflict("container is not running")),
    }
}

fn hold(monitor: &Monitor, still: bool) -> Result<(), Error> {
    let none = || Error::conflict("container is not running");
    let mut sandbox = monitor.sandbox();
    let sandbox = sandbox.as_mut().ok_or_else(none)?;
    let (status, event) = if still { (Status::Paused, "pause") } else { (Status::Running, "unpause") };
    if still { sandbox.pause() } else { sandbox.resume() }?;
    monitor.engine.note_status(&monitor.id, status)?;
    monitor.engine.tell_container(&monitor.record()?, event, &[])
}

fn update(monitor: &Monitor, change: &bollard_stubs::models::ContainerUpdateBody) -> Result<(), Error> {
    let host = serde_json::from_value(serde_json::to_value(change)?)?;
    let resources = bundle::resources(&plan::limits(&host), false)?;
    with_sandbox(monitor, |sandbox| sandbox.update(&resources))
}
