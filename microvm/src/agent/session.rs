//! What a caller can do with a guest: set it up, run processes in it, end it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use guest_wire::{Header, SPIN};
use lab_clock::{Mark, Timeline};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::kept::{Freeze, Kept};
use super::pump::{Command, Pump};
use super::stdio::Streams;
use super::{AgentError, RootDevice, Stdio, flatten};
use crate::network::Network;
use crate::spec::{Process, Spec};

/// Random bytes for a restored guest: twice what its kernel's generator needs (a ChaCha key).
const SEED: usize = 64;

/// A process in the guest, numbered by us; 0 is the sandbox's own.
pub type ProcessId = u16;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(u8),
    /// This signal killed it.
    Signal(i32),
}

/// The conversation with one guest. Dropping it ends the conversation, not the guest.
#[derive(Debug)]
pub struct Session {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    shared: Arc<Shared>,
    next_id: AtomicU16,
    timeline: Option<Arc<Timeline>>,
    thread: Option<JoinHandle<()>>,
}

/// A conversation that holds still, until this is dropped.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// What a conversation with a machine made of a snapshot of this one goes on with.
    pub(crate) state: Vec<u8>,
    _thaw: SyncSender<()>,
}

/// What the pump tells the callers.
#[derive(Debug, Default)]
pub(super) struct Shared {
    status: Mutex<Status>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Status {
    ready: bool,
    over: Option<AgentError>,
    processes: BTreeMap<ProcessId, ProcessStatus>,
}

/// Where a process is held: at its program's first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halted {
    /// The guest-virtual address of that instruction.
    pub address: u64,
    /// The guest's time of day in nanoseconds since 1970, when it marked [`guest_wire::GuestMark::ClockRead`].
    pub clock: u64,
    /// What belongs there in place of the jump that holds it ([`guest_wire::SPIN`]).
    pub instruction: [u8; SPIN.len()],
}

/// What came of holding a process, if it was to be held.
#[derive(Clone, Copy, Debug)]
enum Hold {
    /// The guest has not said yet.
    Unknown,
    /// It is held there.
    At(Halted),
    /// The guest could not: it runs.
    Failed,
}

#[derive(Debug)]
struct ProcessStatus {
    /// The guest said so; it is asked by [`Session::wait_prepared`] only.
    prepared: bool,
    hold: Hold,
    started: bool,
    ended: Option<Result<Exit, AgentError>>,
    /// Readable from the end of the process on; never read, so that every waiter sees it.
    event: Arc<EventFd>,
}

impl Session {
    /// Begins the conversation over a stream to the guest. It does not wait for the guest.
    ///
    /// # Errors
    /// Where the process has no descriptors or threads left.
    pub fn new(stream: OwnedFd, timeline: Option<Arc<Timeline>>) -> Result<Self, AgentError> {
        Self::begin(stream, timeline, false, |_| ())
    }

    /// Goes on with a guest that was restored from a snapshot, in which its first process waits for its start. It gets these
    /// streams and, at its start, the arguments and environment of this process; all else it has.
    ///
    /// # Errors
    /// As [`Session::new`]; or what cannot be sent.
    pub fn resume(
        stream: OwnedFd,
        timeline: Option<Arc<Timeline>>,
        spec: &Spec,
        network: &Network,
        process: &Process,
        stdio: Stdio,
    ) -> Result<(Self, ProcessId), AgentError> {
        let session = Self::begin(stream, timeline, true, |_| ())?;
        let exec = flatten::exec(process)?;
        session.renew(spec, network)?;
        let size = flatten::terminal_size(&exec);
        let (id, command, streams) = session.add(process, stdio)?;
        session.command(Command::Adopt { id, command, exec, streams, halted: false })?;
        if let Some((rows, columns)) = size {
            session.resize(id, rows, columns)?;
        }
        Ok((session, id))
    }

    /// Goes on with a guest that was restored from a snapshot in which its first process is at its program's first instruction.
    /// It gets these streams, and runs from [`Session::go`] on.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn resume_command(
        stream: OwnedFd,
        timeline: Option<Arc<Timeline>>,
        process: &Process,
        stdio: Stdio,
    ) -> Result<(Self, ProcessId), AgentError> {
        let session = Self::begin(stream, timeline, true, |_| ())?;
        let (id, command, streams) = session.add(process, stdio)?;
        session.command(Command::Adopt { id, command, exec: Vec::new(), streams, halted: true })?;
        Ok((session, id))
    }

    /// Goes on with a guest that was restored from a snapshot in which its first process runs: `kept` is what the conversation had
    /// come to when that was taken. It gets these streams. The guest is told what is its own.
    ///
    /// # Errors
    /// As [`Session::new`]; what cannot be sent; or `kept` is none.
    pub fn resume_running(
        stream: OwnedFd,
        timeline: Option<Arc<Timeline>>,
        kept: &[u8],
        spec: &Spec,
        network: &Network,
        process: &Process,
        stdio: Stdio,
    ) -> Result<(Self, ProcessId), AgentError> {
        const FIRST: ProcessId = 0;
        let kept = Kept::from_bytes(kept)
            .map_err(|_| AgentError::config("the snapshot's conversation is malformed; take it again"))?;
        let streams = stdio.open(process.terminal)?;
        let command = process.args.first().cloned().unwrap_or_default();
        let session = Self::begin(stream, timeline, true, |pump| pump.go_on(&kept, command, streams))?;
        session.next_id.store(kept.next_id, Ordering::Relaxed);
        let status = ProcessStatus { started: true, ..ProcessStatus::new()? };
        session.shared.lock().processes.insert(FIRST, status);
        session.renew(spec, network)?;
        Ok((session, FIRST))
    }

    /// Holds the conversation still, when all that the guest has said was taken, until what this gives back is dropped. To be called
    /// while neither guest nor devices do anything.
    ///
    /// # Errors
    /// The first process does not run; or why the session ended.
    pub(crate) fn freeze(&self) -> Result<Frozen, AgentError> {
        let ((state, told), (thaw, until)) = (mpsc::sync_channel(1), mpsc::sync_channel(0));
        self.command(Command::Freeze(Freeze { state, thaw: until }))?;
        let state = told.recv().map_err(|_| AgentError::HungUp)??;
        Ok(Frozen { state, _thaw: thaw })
    }

    /// Tells a restored guest what is its own.
    fn renew(&self, spec: &Spec, network: &Network) -> Result<(), AgentError> {
        let mut seed = [0; SEED];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
            .map_err(AgentError::system("get random numbers (getrandom)"))?;
        self.command(Command::Renew { payload: flatten::renew(spec, network, &seed)? })
    }

    fn begin(
        stream: OwnedFd,
        timeline: Option<Arc<Timeline>>,
        ready: bool,
        prepare: impl FnOnce(&mut Pump),
    ) -> Result<Self, AgentError> {
        let wake = Arc::new(event()?);
        let shared = Arc::new(Shared::default());
        let (commands, mailbox) = mpsc::channel();
        let mut pump = Pump::new(stream, mailbox, wake.clone(), shared.clone(), timeline.clone(), ready)?;
        prepare(&mut pump);
        let thread = thread::Builder::new()
            .name("agent".into())
            .spawn(move || pump.run())
            .map_err(AgentError::system("start the agent's thread"))?;
        Ok(Self { commands, wake, shared, next_id: AtomicU16::new(0), timeline, thread: Some(thread) })
    }

    /// Waits until the guest's PID 1 is up.
    ///
    /// # Errors
    /// [`AgentError::Silent`] after the time given; or why the session ended.
    pub fn wait_ready(&self, most: Duration) -> Result<(), AgentError> {
        let deadline = Instant::now() + most;
        let mut status = self.shared.lock();
        loop {
            if let Some(reason) = &status.over {
                return Err(reason.clone());
            }
            if status.ready {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(AgentError::Silent { seconds: most.as_secs() });
            }
            let wait = self.shared.changed.wait_timeout(status, left);
            status = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Tells the guest how the sandbox looks. Once, before the first process. A failure ends the session.
    ///
    /// # Errors
    /// What in the configuration cannot be sent; or why the session ended.
    pub fn set_up(&self, spec: &Spec, root: &RootDevice<'_>, network: &Network) -> Result<(), AgentError> {
        self.command(Command::SetUp { payload: flatten::setup(spec, root, network)? })
    }

    /// Prepares a process; it waits for [`Session::start`]. The first one is the sandbox's own.
    ///
    /// # Errors
    /// What in the configuration cannot be sent; or why the session ended.
    pub fn exec(&self, process: &Process, stdio: Stdio) -> Result<ProcessId, AgentError> {
        let payload = flatten::exec(process)?;
        let (id, command, streams) = self.add(process, stdio)?;
        self.command(Command::Exec { id, command, payload, streams })?;
        Ok(id)
    }

    /// A number for a process, under which it is known from now on, its name for messages, and its open streams.
    fn add(&self, process: &Process, stdio: Stdio) -> Result<(ProcessId, String, Streams), AgentError> {
        let streams = stdio.open(process.terminal)?;
        let command = process.args.first().cloned().unwrap_or_default();
        let status = ProcessStatus::new()?;
        let more = |id| (id < Header::SANDBOX).then_some(id + 1);
        let id = self.next_id.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| {
            AgentError::config("65535 processes were started in this sandbox; start a new one")
        })?;
        self.shared.lock().processes.insert(id, status);
        Ok((id, command, streams))
    }

    /// Waits until a process is set up and waits for [`Session::start`].
    ///
    /// # Errors
    /// What the guest could not set up; or why the session ended.
    pub fn wait_prepared(&self, id: ProcessId) -> Result<(), AgentError> {
        self.command(Command::Await(id))?;
        self.wait_for(id, |process| match &process.ended {
            Some(Err(reason)) => Some(Err(reason.clone())),
            _ => process.prepared.then_some(Ok(())),
        })
    }

    /// Starts a prepared process and waits until it runs.
    ///
    /// # Errors
    /// [`AgentError::NotFound`], [`AgentError::NotExecutable`] and [`AgentError::Process`]; or why the session ended.
    pub fn start(&self, id: ProcessId) -> Result<(), AgentError> {
        self.command(Command::Start(id))?;
        self.wait_for(id, |process| match &process.ended {
            Some(Err(reason)) => Some(Err(reason.clone())),
            ended => (process.started || ended.is_some()).then_some(Ok(())),
        })
    }

    /// Has a prepared process execute its program and held at the first instruction of that. Where; nowhere, if the guest cannot
    /// hold it: it runs then, and nothing is left to do. Otherwise it runs from [`Session::go`] on.
    ///
    /// # Errors
    /// As [`Session::start`].
    pub fn start_halted(&self, id: ProcessId) -> Result<Option<Halted>, AgentError> {
        self.command(Command::Halt(id))?;
        self.command(Command::Start(id))?;
        self.wait_for(id, |process| match &process.ended {
            Some(Err(reason)) => Some(Err(reason.clone())),
            Some(Ok(_)) => Some(Ok(None)),
            None => match process.hold {
                Hold::Unknown => None,
                Hold::At(halted) => Some(Ok(Some(halted))),
                Hold::Failed => Some(Ok(None)),
            },
        })
    }

    /// Takes note that a process which was held runs from now on. To be called while the guest is held still.
    ///
    /// # Errors
    /// Why the session ended.
    pub fn go(&self, id: ProcessId) -> Result<(), AgentError> {
        // The conversation learns of it before it hears anything of the guest's that comes later.
        self.command(Command::Go { id })
    }

    /// Marks that the sandbox's process, which was held, goes on from its first instruction.
    pub fn mark_executed(&self) {
        if let Some(timeline) = &self.timeline {
            timeline.mark(Mark::Executed);
        }
    }

    /// Becomes readable when the process ended and all its output was passed on.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn exit_fd(&self, id: ProcessId) -> Result<Arc<EventFd>, AgentError> {
        Ok(self.shared.lock().processes.get(&id).ok_or_else(|| no_process(id))?.event.clone())
    }

    /// Waits until the process ended and all its output was passed on. May be called again.
    ///
    /// # Errors
    /// Why the guest could not start it, or why the session ended.
    pub fn wait(&self, id: ProcessId) -> Result<Exit, AgentError> {
        self.wait_for(id, |process| process.ended.clone())
    }

    /// How the process ended, if it did.
    pub fn try_wait(&self, id: ProcessId) -> Option<Result<Exit, AgentError>> {
        self.shared.lock().processes.get(&id)?.ended.clone()
    }

    /// Forgets a process that ended.
    pub fn forget(&self, id: ProcessId) {
        self.shared.lock().processes.remove(&id);
    }

    /// Delivers a signal to a process.
    ///
    /// # Errors
    /// Why the session ended.
    pub fn signal(&self, id: ProcessId, signal: i32) -> Result<(), AgentError> {
        self.command(Command::Signal { id, signal })
    }

    /// Tells a process's terminal its new size.
    ///
    /// # Errors
    /// Why the session ended.
    pub fn resize(&self, id: ProcessId, rows: u16, columns: u16) -> Result<(), AgentError> {
        self.command(Command::Resize { id, rows, columns })
    }

    /// Asks the guest to end all processes and to power off.
    ///
    /// # Errors
    /// Why the session ended: then it is off already, or beyond asking.
    pub fn power_off(&self) -> Result<(), AgentError> {
        self.command(Command::PowerOff)
    }

    fn command(&self, command: Command) -> Result<(), AgentError> {
        if let Some(reason) = &self.shared.lock().over {
            return Err(reason.clone());
        }
        // Fails only where the pump has just ended: the status then says why.
        self.commands.send(command).map_err(|_| AgentError::HungUp)?;
        self.wake()
    }

    fn wake(&self) -> Result<(), AgentError> {
        self.wake.write(1).map_err(AgentError::system("wake the agent's thread (eventfd)"))?;
        Ok(())
    }

    fn wait_for<T>(
        &self,
        id: ProcessId,
        mut done: impl FnMut(&ProcessStatus) -> Option<Result<T, AgentError>>,
    ) -> Result<T, AgentError> {
        let mut status = self.shared.lock();
        loop {
            let process = status.processes.get(&id).ok_or_else(|| no_process(id))?;
            if let Some(result) = done(process) {
                return result;
            }
            status = self.shared.changed.wait(status).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Quit);
        let _ = self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ready(&self) {
        self.lock().ready = true;
        self.changed.notify_all();
    }

    pub(super) fn prepared(&self, id: ProcessId) {
        if let Some(process) = self.lock().processes.get_mut(&id) {
            process.prepared = true;
        }
        self.changed.notify_all();
    }

    pub(super) fn halted(&self, id: ProcessId, at: Option<Halted>) {
        if let Some(process) = self.lock().processes.get_mut(&id) {
            process.hold = at.map_or(Hold::Failed, Hold::At);
        }
        self.changed.notify_all();
    }

    pub(super) fn started(&self, id: ProcessId) {
        if let Some(process) = self.lock().processes.get_mut(&id) {
            process.started = true;
        }
        self.changed.notify_all();
    }

    pub(super) fn ended(&self, id: ProcessId, how: Result<Exit, AgentError>) {
        if let Some(process) = self.lock().processes.get_mut(&id) {
            process.end(how);
        }
        self.changed.notify_all();
    }

    /// The session is about to be over: nothing more can be asked of it.
    pub(super) fn refuse(&self, reason: &AgentError) {
        self.lock().over.get_or_insert_with(|| reason.clone());
        self.changed.notify_all();
    }

    /// The session is over, and with it every process that has not ended.
    pub(super) fn over(&self, reason: &AgentError) {
        let mut status = self.lock();
        for process in status.processes.values_mut() {
            process.end(Err(reason.clone()));
        }
        drop(status);
        self.changed.notify_all();
    }
}

impl ProcessStatus {
    fn new() -> Result<Self, AgentError> {
        let event = Arc::new(event()?);
        Ok(Self { prepared: false, hold: Hold::Unknown, started: false, ended: None, event })
    }

    fn end(&mut self, how: Result<Exit, AgentError>) {
        if self.ended.is_none() {
            self.ended = Some(how);
            // Written once in its life: it cannot be full.
            let _ = self.event.write(1);
        }
    }
}

fn event() -> Result<EventFd, AgentError> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(AgentError::system("make an event (eventfd)"))
}

fn no_process(id: ProcessId) -> AgentError {
    AgentError::config(format!("the sandbox has no process {id}"))
}
