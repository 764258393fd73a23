//! The conversation: one thread that moves frames and bytes, and never waits for anything but all of it.

use std::collections::BTreeMap;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use guest_wire::{Header, Kind, Stream, VERSION};
use lab_clock::{Mark, Timeline};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::signal::{SigSet, Signal};

use super::channel::{Channel, Frame};
use super::kept::{Freeze, Kept};
use super::process::{Phase, Process};
use super::session::{Halted, Shared};
use super::stdio::Streams;
use super::{AgentError, Exit, ProcessId};
use crate::jail::{self, Role};

/// While so many bytes wait for the guest, no more input is read for it. Signals and the like still are.
const MOST_WAITING: usize = 256 * 1024;

/// What callers ask for.
#[derive(Debug)]
pub(super) enum Command {
    SetUp {
        payload: Vec<u8>,
    },
    Exec {
        id: ProcessId,
        command: String,
        payload: Vec<u8>,
        streams: Streams,
    },
    /// A restored guest's process, which waits for its start; `exec` says what it is to be then.
    Adopt {
        id: ProcessId,
        command: String,
        exec: Vec<u8>,
        streams: Streams,
        /// It has executed its program already: only [`Command::Go`] is left.
        halted: bool,
    },
    /// A restored guest's process, which has executed its program already.
    Go {
        id: ProcessId,
    },
    Halt(ProcessId),
    Renew {
        payload: Vec<u8>,
    },
    /// A snapshot is taken.
    Freeze(Freeze),
    Await(ProcessId),
    Start(ProcessId),
    Signal {
        id: ProcessId,
        signal: i32,
    },
    Resize {
        id: ProcessId,
        rows: u16,
        columns: u16,
    },
    PowerOff,
    Quit,
}

/// The thread's state.
pub(super) struct Pump {
    channel: Channel,
    mailbox: Receiver<Command>,
    wake: Arc<EventFd>,
    shared: Arc<Shared>,
    timeline: Option<Arc<Timeline>>,
    processes: BTreeMap<ProcessId, Process>,
    /// All processes have lower numbers.
    next_id: ProcessId,
    /// The guest said `Ready`, or did before its snapshot; until then nothing is sent.
    ready: bool,
}

/// A descriptor that `poll(2)` reported.
#[derive(Clone, Copy)]
enum Ready {
    Wake,
    Channel(PollFlags),
    Input(ProcessId),
    Output(ProcessId, usize),
}

impl Pump {
    pub(super) fn new(
        stream: OwnedFd,
        mailbox: Receiver<Command>,
        wake: Arc<EventFd>,
        shared: Arc<Shared>,
        timeline: Option<Arc<Timeline>>,
        ready: bool,
    ) -> Result<Self, AgentError> {
        let channel = Channel::new(stream)?;
        Ok(Self { channel, mailbox, wake, shared, timeline, processes: BTreeMap::new(), next_id: 0, ready })
    }

    /// Goes on with the conversation that was kept; the first process gets these streams.
    pub(super) fn go_on(&mut self, kept: &Kept, command: String, streams: Streams) {
        let process = kept.go_on(&mut self.channel, command, streams);
        self.next_id = kept.next_id;
        self.processes.insert(process.id, process);
    }

    pub(super) fn run(mut self) {
        jail::enter(Role::Agent);
        // A reader of our output that goes away is an error of write(2), not the end of this process (signal(7)).
        let mut pipe = SigSet::empty();
        pipe.add(Signal::SIGPIPE);
        let _ = pipe.thread_block();

        let reason = loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => return,
                Err(reason) => break reason,
            }
        };
        self.shared.refuse(&reason);
        self.channel.hang_up();
        self.drain(&reason);
        self.shared.over(&reason);
    }

    /// What the guest said before the session ended still reaches the host's readers.
    fn drain(&mut self, reason: &AgentError) {
        for process in self.processes.values_mut() {
            if !matches!(process.phase, Phase::Ended(_)) {
                process.phase = Phase::Ended(Err(reason.clone()));
            }
        }
        self.publish();
        while !self.processes.is_empty() {
            let Ok(events) = self.wait(false) else { return };
            for event in events {
                match event {
                    Ready::Output(id, place) => self.output(id, place),
                    Ready::Wake => {
                        let _ = self.wake.read();
                        if self.mailbox.try_iter().any(|command| matches!(command, Command::Quit)) {
                            return;
                        }
                    }
                    Ready::Channel(_) | Ready::Input(_) => {}
                }
            }
            self.publish();
        }
    }

    /// Waits once, and does all that became possible. Whether to go on.
    fn turn(&mut self) -> Result<bool, AgentError> {
        for event in self.wait(true)? {
            match event {
                Ready::Wake => {
                    if !self.commands()? {
                        return Ok(false);
                    }
                }
                Ready::Channel(flags) => {
                    // What was asked for before the guest spoke comes first: it may be what the guest answers to.
                    if !self.commands()? {
                        return Ok(false);
                    }
                    if flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
                        self.hear()?;
                    }
                }
                Ready::Input(id) => {
                    if let Some(process) = self.processes.get_mut(&id) {
                        process.read_input(&mut self.channel);
                    }
                }
                Ready::Output(id, place) => self.output(id, place),
            }
        }
        self.publish();
        if self.ready {
            self.channel.flush()?;
        }
        Ok(true)
    }

    /// Takes what the guest said. Whether it said anything.
    fn hear(&mut self) -> Result<bool, AgentError> {
        let said = self.channel.fill()?;
        while let Some(frame) = self.channel.next_frame()? {
            self.frame(&frame)?;
        }
        Ok(said)
    }

    /// Tells where the conversation stands, when all that the guest said is taken; and holds still until it may go on.
    fn freeze(&mut self, freeze: &Freeze) -> Result<(), AgentError> {
        while self.hear()? {}
        let kept = Kept::of(self.next_id, &self.channel, self.processes.values());
        if freeze.state.send(kept.map(|kept| kept.to_bytes())).is_ok() {
            // It comes to an end, not to a word.
            let _ = freeze.thaw.recv();
        }
        Ok(())
    }

    /// Waits for what can be done next; with the channel or, after its end, without.
    fn wait(&mut self, with_channel: bool) -> Result<Vec<Ready>, AgentError> {
        let mut what = vec![Ready::Wake];
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        if with_channel {
            let out = self.ready && self.channel.waiting() > 0;
            let flags = if out { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
            what.push(Ready::Channel(flags));
            fds.push(PollFd::new(self.channel.fd(), flags));
        }
        for process in self.processes.values() {
            let wanted = process.wanted_input().filter(|_| self.channel.waiting() < MOST_WAITING);
            if let Some(fd) = wanted {
                what.push(Ready::Input(process.id));
                fds.push(PollFd::new(fd, PollFlags::POLLIN));
            }
            for (place, fd) in process.wanted_outputs() {
                what.push(Ready::Output(process.id, place));
                fds.push(PollFd::new(fd, PollFlags::POLLOUT));
            }
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(errno) => return Err(AgentError::System { operation: "wait for the guest (poll)", errno }),
        }
        let reported = what.iter().zip(&fds).filter_map(|(&what, fd)| {
            let flags = fd.revents().unwrap_or(PollFlags::empty());
            (!flags.is_empty()).then_some(if let Ready::Channel(_) = what {
                Ready::Channel(flags)
            } else {
                what
            })
        });
        Ok(reported.collect())
    }

    /// Carries out what callers asked for. Whether to go on.
    fn commands(&mut self) -> Result<bool, AgentError> {
        let _ = self.wake.read();
        loop {
            let command = match self.mailbox.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            };
            match command {
                Command::SetUp { payload } => self.say(Kind::Setup, Header::SANDBOX, &payload),
                Command::Exec { id, command, payload, streams } => {
                    self.say(Kind::Exec, id, &payload);
                    self.processes.insert(id, Process::new(id, command, streams));
                    self.next_id = self.next_id.max(id + 1);
                }
                Command::Adopt { id, command, exec, streams, halted } => {
                    let mut process = Process::new(id, command, streams);
                    process.start = exec;
                    if halted {
                        process.phase = Phase::Halted;
                    }
                    self.processes.insert(id, process);
                    self.next_id = self.next_id.max(id + 1);
                }
                Command::Halt(id) => {
                    if let Some(process) = self.processes.get_mut(&id) {
                        process.is_to_halt = true;
                        self.say(Kind::Halt, id, &[]);
                    }
                }
                Command::Go { id } => {
                    if let Some(process) = self.processes.get_mut(&id)
                        && process.phase == Phase::Halted
                    {
                        process.phase = Phase::Running;
                        self.shared.started(id);
                    }
                }
                Command::Renew { payload } => self.say(Kind::Renew, Header::SANDBOX, &payload),
                Command::Freeze(freeze) => self.freeze(&freeze)?,
                Command::Await(id) => self.say(Kind::Await, id, &[]),
                Command::Start(id) => {
                    if let Some(process) = self.processes.get_mut(&id)
                        && process.phase == Phase::Prepared
                    {
                        process.phase = Phase::Starting;
                        let payload = mem::take(&mut process.start);
                        self.say(Kind::Start, id, &payload);
                    }
                }
                Command::Signal { id, signal } => self.say(Kind::Signal, id, &signal.to_le_bytes()),
                Command::Resize { id, rows, columns } => {
                    let [r0, r1] = rows.to_le_bytes();
                    let [c0, c1] = columns.to_le_bytes();
                    self.say(Kind::Resize, id, &[r0, r1, c0, c1]);
                }
                Command::PowerOff => self.say(Kind::PowerOff, Header::SANDBOX, &[]),
                Command::Quit => return Ok(false),
            }
        }
    }

    fn say(&mut self, kind: Kind, process: u16, payload: &[u8]) {
        self.channel.send(kind, Stream::Input, process, payload);
    }

    /// Takes a frame from the guest.
    fn frame(&mut self, frame: &Frame) -> Result<(), AgentError> {
        let Frame { header: Header { kind, stream, process: id, .. }, payload } = frame;
        let number = || {
            let bytes = payload.as_slice().try_into();
            bytes
                .map(u32::from_le_bytes)
                .map_err(|_| AgentError::protocol(format!("a {kind:?} without its number")))
        };
        match kind {
            Kind::Ready if !self.ready => match number()? {
                VERSION => {
                    self.ready = true;
                    self.mark(Mark::AgentReady);
                    self.shared.ready();
                    return Ok(());
                }
                theirs => return Err(AgentError::Version { theirs, ours: VERSION }),
            },
            _ if !self.ready => {
                return Err(AgentError::protocol(format!("it began with {kind:?}, not with Ready")));
            }
            Kind::Failed if *id == Header::SANDBOX => {
                let (errno, step) = failure(payload)?;
                return Err(AgentError::Setup { step, errno });
            }
            _ => {}
        }
        let Some(process) = self.processes.get_mut(id) else {
            if *id < self.next_id {
                return Ok(()); // It ended; a child that it left behind may still hold its output open.
            }
            return Err(AgentError::protocol(format!("it spoke of process {id}, which there never was")));
        };
        match (kind, &process.phase) {
            (Kind::Prepared, Phase::Prepared | Phase::Starting) => self.shared.prepared(*id),
            // That it is held counts when the guest has said both, in whatever order.
            (Kind::Started, Phase::Starting) if process.is_to_halt => {
                process.phase = Phase::Halted;
                if process.held.is_some() {
                    self.shared.halted(*id, process.held);
                }
            }
            (Kind::Halted, Phase::Starting | Phase::Halted) if process.is_to_halt => {
                process.held = halted(payload)?;
                process.is_to_halt = process.held.is_some();
                let is_started = process.phase == Phase::Halted;
                match process.held {
                    Some(at) if is_started => self.shared.halted(*id, Some(at)),
                    Some(_) => {}
                    None => {
                        // It runs.
                        if is_started {
                            process.phase = Phase::Running;
                            self.shared.started(*id);
                            self.mark_first(*id, Mark::Executed);
                        }
                        self.shared.halted(*id, None);
                    }
                }
            }
            (Kind::Started, Phase::Starting) => {
                process.phase = Phase::Running;
                self.shared.started(*id);
                self.mark_first(*id, Mark::Executed);
            }
            (Kind::Failed, Phase::Prepared | Phase::Starting) => {
                let (errno, step) = failure(payload)?;
                process.phase = Phase::Ended(Err(classify(&process.command, errno, step)));
            }
            (Kind::Exited, Phase::Running) => {
                let status = number()?;
                process.phase = Phase::Ended(Ok(exit(status)?));
                process.close_input();
                self.mark_first(*id, Mark::Exited);
            }
            (Kind::Data, Phase::Running) => {
                process.take(*stream, payload, &mut self.channel)?;
                self.mark_first(*id, Mark::FirstByte);
            }
            (Kind::Closed, Phase::Running) if *stream == Stream::Input => process.close_input(),
            (Kind::Closed, Phase::Running) => process.close_output(*stream)?,
            (Kind::Credit, Phase::Running) if *stream == Stream::Input => process.credit(number()?)?,
            (Kind::Data | Kind::Closed | Kind::Credit, Phase::Ended(_)) => {}
            (kind, phase) => {
                let state = match phase {
                    Phase::Prepared => "prepared",
                    Phase::Starting => "being started",
                    Phase::Halted => "held at its start",
                    Phase::Running => "running",
                    Phase::Ended(_) => "over",
                };
                return Err(AgentError::protocol(format!("it said {kind:?} of a process that is {state}")));
            }
        }
        Ok(())
    }

    fn output(&mut self, id: ProcessId, place: usize) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.write_output(place, &mut self.channel);
        }
    }

    /// Tells the callers of processes that are over.
    fn publish(&mut self) {
        for (id, process) in mem::take(&mut self.processes) {
            if !process.is_over() {
                self.processes.insert(id, process);
                continue;
            }
            let phase = process.phase.clone();
            // The host's ends are closed first: who sees the exit may count on the end of the output.
            drop(process);
            if let Phase::Ended(how) = phase {
                self.shared.ended(id, how);
            }
        }
    }

    fn mark(&self, mark: Mark) {
        if let Some(timeline) = &self.timeline {
            timeline.mark(mark);
        }
    }

    /// The timeline is about the sandbox's own process.
    fn mark_first(&self, id: ProcessId, mark: Mark) {
        if id == 0 {
            self.mark(mark);
        }
    }
}

/// The payload of `Failed`: errno, then the step and its object as text. Of the text, what can be printed in one line.
fn failure(payload: &[u8]) -> Result<(Errno, String), AgentError> {
    let Some((&errno, text)) = payload.split_first_chunk() else {
        return Err(AgentError::protocol("a Failed without its errno"));
    };
    let text = String::from_utf8_lossy(text);
    let step: String = text.trim().chars().filter(|c| !c.is_control()).take(512).collect();
    Ok((Errno::from_raw(i32::from_le_bytes(errno)), step))
}

/// The payload of `Halted`; none where the guest could not hold the process, which then runs.
fn halted(payload: &[u8]) -> Result<Option<Halted>, AgentError> {
    let Some((address, instruction)) = payload.split_first_chunk().filter(|_| !payload.is_empty()) else {
        return Ok(None);
    };
    let told =
        instruction.split_first_chunk().and_then(|(clock, rest)| Some((*clock, rest.try_into().ok()?)));
    let (clock, instruction) =
        told.ok_or_else(|| AgentError::protocol("a Halted without its instruction"))?;
    Ok(Some(Halted { address: u64::from_le_bytes(*address), clock: u64::from_le_bytes(clock), instruction }))
}

/// A failed `execve(2)` is the command's fault; every other step is the sandbox's.
fn classify(command: &str, errno: Errno, step: String) -> AgentError {
    let command = command.to_owned();
    match errno {
        _ if !step.starts_with("exec") => AgentError::Process { step, errno },
        Errno::ENOENT | Errno::ENOTDIR => AgentError::NotFound { command },
        _ => AgentError::NotExecutable { command, errno },
    }
}

/// The payload of `Exited`: the exit code, or 128 + the signal's number with bit 31 set.
fn exit(status: u32) -> Result<Exit, AgentError> {
    const SIGNALED: u32 = 1 << 31 | 128;
    let wrong = || AgentError::protocol(format!("an exit status of {status:#x}"));
    if status & 1 << 31 == 0 {
        return status.try_into().map(Exit::Code).map_err(|_| wrong());
    }
    match status.wrapping_sub(SIGNALED) {
        signal @ 1..=64 => Ok(Exit::Signal(signal as i32)),
        _ => Err(wrong()),
    }
}
