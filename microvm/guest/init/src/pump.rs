//! The loop: channel ↔ processes, until the host says that it is over.

use freestanding::sys::memory::Array;
use freestanding::sys::poll::{Poll, poll};
use freestanding::sys::process::{self, Which, namespaces};
use freestanding::sys::signal::{self, Set, Signal};
use freestanding::sys::terminal::Size;
use freestanding::sys::{self, machine};
use freestanding::{Errno, Fd, OwnedFd};
use guest_wire::{GuestMark, Header, Kind, Stream, VERSION};

use crate::boot::{Host, Timer};
use crate::channel::{Over, Receiver, Sender};
use crate::child::World;
use crate::failure::Failure;
use crate::process::{POLLS, Process};
use crate::spec::{Exec, Renew, Setup};
use crate::world;

/// Processes at a time: the first, and those that `exec` adds.
const PROCESSES: usize = 32;

/// The poll list begins with the channel and the signals.
const OWN: usize = 2;

/// Serves the host until it says `PowerOff`, or closes the channel, or breaks the protocol.
pub fn run(host: Host) {
    // The buffers are mapped here, not on the stack: pages that no byte reaches are never made.
    let state = Receiver::new().and_then(|receiver| Ok((receiver, Sender::new()?, signals()?)));
    let Ok((mut receiver, sender, children)) = state else { return };
    let mut guest = Guest {
        sender,
        timer: host.timer,
        has_machine: host.has_machine,
        setup: None,
        first: None,
        is_joined: false,
        processes: [const { None }; PROCESSES],
    };
    guest.sender.number(Kind::Ready, Stream::Input, Header::SANDBOX, VERSION);
    while guest.turn(*host.channel, &children, &mut receiver).is_ok() {}
}

/// Blocks SIGCHLD and makes it readable.
fn signals() -> sys::Result<OwnedFd> {
    let set = Set::of(&[Signal::CHLD]);
    signal::set_blocked(set)?;
    signal::signal_fd(set)
}

/// Ends all processes, flushes file systems, restarts: the VMM stops at the reset, and which kind it is (keyboard
/// controller, triple fault, ACPI) the kernel's command line says (`reboot=`).
pub fn power_off() {
    let _ = process::kill_all(Signal::KILL);
    while process::wait(Which::Any, true).is_ok() {}
    machine::sync();
    let _ = machine::restart();
}

struct Guest {
    sender: Sender,
    timer: Timer,
    has_machine: bool,
    /// The payload of `Setup`, kept for the first process.
    setup: Option<Array<u8>>,
    /// A pidfd of the first process: whose namespaces the others join.
    first: Option<OwnedFd>,
    /// Whether this process's children are born into that one's pid namespace.
    is_joined: bool,
    processes: [Option<Process>; PROCESSES],
}

impl Guest {
    /// One turn: send, do what the host said, wait, do what the processes did.
    fn turn(&mut self, channel: Fd, children: &OwnedFd, receiver: &mut Receiver) -> Result<(), Over> {
        self.sender.flush(channel)?;
        // Frames are taken only while there is room to answer: a host that does not read gets nothing done.
        while self.sender.takes_message() {
            match receiver.frame()? {
                Some((header, payload)) => self.frame(header, payload)?,
                None => break,
            }
        }
        for slot in &mut self.processes {
            if slot.as_mut().is_some_and(|process| process.finish(&mut self.sender)) {
                *slot = None;
            }
        }
        self.sender.flush(channel)?;

        let mut polls = [Poll::NONE; OWN + POLLS * PROCESSES];
        let used = self.processes.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let (own, theirs) = polls.split_at_mut(OWN);
        own[0] = match (self.sender.takes_message(), self.sender.is_waiting()) {
            (true, true) => Poll::read_write(channel),
            (true, false) => Poll::read(channel),
            (false, _) => Poll::write(channel),
        };
        own[1] = Poll::read(**children);
        for (polls, process) in theirs.chunks_exact_mut(POLLS).zip(&self.processes) {
            if let Some(process) = process {
                polls.copy_from_slice(&process.polls(&self.sender));
            }
        }
        match poll(polls.get_mut(..OWN + POLLS * used).unwrap_or(&mut []), None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(_) => return Err(Over::Broken),
        }

        let (own, theirs) = polls.split_at(OWN);
        if own[1].readable() {
            while signal::next(children).is_some() {}
            self.reap();
        }
        for (polls, process) in theirs.chunks_exact(POLLS).zip(&mut self.processes) {
            if let Some(process) = process
                && process.advance(polls, &mut self.sender)
                && process.id == 0
                && !process.is_to_halt()
            {
                self.timer.mark(GuestMark::Executed);
            }
        }
        if own[0].readable() && self.sender.takes_message() {
            receiver.fill(channel)?;
        }
        Ok(())
    }

    /// Collects children that ended.
    fn reap(&mut self) {
        while let Ok(Some((pid, ended))) = process::wait(Which::Any, false) {
            if let Some(process) = self.processes.iter_mut().flatten().find(|process| process.pid == pid) {
                process.set_ended(ended, &self.timer, &mut self.sender);
            }
        }
    }

    fn frame(&mut self, header: Header, payload: &[u8]) -> Result<(), Over> {
        let Header { kind, stream, process: id, .. } = header;
        match kind {
            Kind::Setup => {
                if let Err(failure) = self.set_up(payload) {
                    self.sender.failed(Header::SANDBOX, &failure);
                }
                return Ok(());
            }
            Kind::Exec => {
                if let Err(failure) = self.exec(id, payload) {
                    self.sender.failed(id, &failure);
                }
                return Ok(());
            }
            Kind::Renew => {
                let renewed = Renew::read(payload).and_then(|renew| world::renew(&renew, self.has_machine));
                if let Err(failure) = renewed {
                    self.sender.failed(Header::SANDBOX, &failure);
                }
                return Ok(());
            }
            Kind::PowerOff => return Err(Over::Closed),
            _ => {}
        }
        // The rest is about a process; if it has just ended, the host does not know yet.
        let sender = &mut self.sender;
        let process = self.processes.iter_mut().flatten().find(|process| process.id == id);
        let number = || Some(u32::from_le_bytes(payload.try_into().ok()?));
        match (kind, stream, process) {
            (Kind::Start, _, Some(process)) => process.start(payload)?,
            (Kind::Await, _, Some(process)) => process.report_prepared(sender),
            (Kind::Halt, _, Some(process)) => process.halt(),
            (Kind::Signal, _, process) => {
                let signal = number().and_then(Signal::new).ok_or(Over::Broken)?;
                if let Some(process) = process {
                    process.signal(signal);
                }
            }
            (Kind::Resize, _, process) => {
                let &[r0, r1, c0, c1] = payload else { return Err(Over::Broken) };
                let size = Size { rows: u16::from_le_bytes([r0, r1]), columns: u16::from_le_bytes([c0, c1]) };
                if let Some(process) = process {
                    process.resize(size);
                }
            }
            (Kind::Data, Stream::Input, Some(process)) => process.push_input(payload, sender)?,
            (Kind::Closed, Stream::Input, Some(process)) => process.end_input(sender),
            (Kind::Closed, _, Some(process)) => process.close_output(stream, sender),
            (Kind::Credit, Stream::Output | Stream::Error, process) => {
                let bytes = number().ok_or(Over::Broken)?;
                if let Some(process) = process {
                    process.credit(stream, bytes);
                }
            }
            (Kind::Start | Kind::Await | Kind::Halt | Kind::Data | Kind::Closed, _, None) => {}
            // A guest's own kinds, or a stream's wrong direction.
            _ => return Err(Over::Broken),
        }
        Ok(())
    }

    fn set_up<'a>(&mut self, payload: &'a [u8]) -> Result<(), Failure<'a>> {
        if self.setup.is_some() {
            return Err(Failure::new(Errno::BUSY, "set up twice", b""));
        }
        let setup = Setup::read(payload)?;
        world::prepare(&setup)?;
        self.timer.mark(GuestMark::RootMounted);
        let failed = |errno| Failure::new(errno, "keep Setup", b"");
        let mut kept = Array::new(payload.len()).map_err(failed)?;
        kept.copy_from_slice(payload);
        self.setup = Some(kept);
        Ok(())
    }

    fn exec(&mut self, id: u16, payload: &[u8]) -> Result<(), Failure<'static>> {
        let exec = Exec::read(payload)?;
        if self.processes.iter().flatten().any(|process| process.id == id) {
            return Err(Failure::new(Errno::EXIST, "prepare process", b""));
        }
        // Whoever joined before the first process has changed its root would be in the machine's own files.
        if let Some(first) = self.processes.iter().flatten().find(|process| process.id == 0) {
            first.wait_prepared();
        }
        let slot = self.processes.iter_mut().find(|slot| slot.is_none());
        let slot = slot.ok_or(Failure::new(Errno::AGAIN, "prepare process: too many", b""))?;
        let process = match (&self.first, &self.setup) {
            (None, Some(bytes)) if id == 0 => {
                let setup = Setup::read(bytes)?;
                let world = World::Make { setup: &setup, has_machine: self.has_machine };
                let process = Process::prepare(id, &exec, world, &self.timer)?;
                let failed = |errno| Failure::new(errno, "dup", b"pidfd");
                let pidfd = process.pidfd.duplicate_above(3).map_err(failed)?;
                self.first = Some(pidfd);
                process
            }
            (Some(first), _) if id != 0 => {
                if !self.is_joined {
                    // From here on this process's children are born into the sandbox's pid namespace (setns(2)).
                    let failed = |errno| Failure::new(errno, "setns", b"");
                    process::join(**first, namespaces::PID).map_err(failed)?;
                    self.is_joined = true;
                }
                Process::prepare(id, &exec, World::Join(**first), &self.timer)?
            }
            (Some(_), _) => return Err(Failure::new(Errno::EXIST, "prepare the first process twice", b"")),
            (None, None) => return Err(Failure::new(Errno::PROTO, "exec before setup", b"")),
            (None, Some(_)) => return Err(Failure::new(Errno::SRCH, "exec before the first process", b"")),
        };
        *slot = Some(process);
        Ok(())
    }
}
