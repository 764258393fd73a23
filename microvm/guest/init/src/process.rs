//! A process of the sandbox, as PID 1 sees it: its pipes, what is under way in them, how far it is.

use freestanding::sys::file::pipe;
use freestanding::sys::memory::Array;
use freestanding::sys::poll::{Poll, is_readable, poll};
use freestanding::sys::process::{self, Ended, Fork, Pid, namespaces};
use freestanding::sys::signal::Signal;
use freestanding::sys::terminal::Size;
use freestanding::sys::time;
use freestanding::{Errno, Fd, OwnedFd, Text};
use guest_wire::{GuestMark, Header, Kind, MAX_DATA, SPIN, Stream, WINDOW};

use crate::boot::Timer;
use crate::channel::{Over, Sender};
use crate::child::{self, World};
use crate::failure::{During, Failure};
use crate::queue::Queue;
use crate::spec::Exec;

/// Bytes of a report: atomic on a pipe (pipe(7), PIPE_BUF), so that one read gets one.
const REPORT: usize = 256;
const REPORT_TEXT: usize = REPORT - 12;

/// What the child tells PID 1 before it is the workload. Afterwards the pipe's end, closed by execve(2), says the rest.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack between two lines, and there is no heap")]
pub enum Report {
    /// Everything is set up; it waits for the gate.
    Prepared {
        /// Its pid in the sandbox.
        pid: Pid,
        /// The master of its terminal, among its own descriptors.
        terminal: Option<Fd>,
    },
    /// A step failed.
    Failed {
        /// The kernel's reason.
        errno: Errno,
        /// Step and object.
        text: Text<REPORT_TEXT>,
    },
}

impl Report {
    /// The report of a failure.
    pub fn failed(failure: &Failure) -> Self {
        let mut text = Text::new();
        failure.write(&mut text);
        Self::Failed { errno: failure.errno, text }
    }

    /// As bytes: kind, two numbers, text.
    pub fn encode(&self) -> [u8; REPORT] {
        let (kind, first, second, text) = match self {
            Self::Prepared { pid, terminal } => {
                (1u32, pid.0 as u32, terminal.map_or(-1, |fd| fd.0) as u32, &[][..])
            }
            Self::Failed { errno, text } => (2, errno.0, text.bytes().len() as u32, text.bytes()),
        };
        let mut bytes = [0; REPORT];
        let numbers = [kind, first, second];
        let slots = bytes.chunks_exact_mut(4);
        for (slot, number) in slots.zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        if let Some(room) = bytes.get_mut(12..12 + text.len()) {
            room.copy_from_slice(text);
        }
        bytes
    }

    fn decode(bytes: &[u8; REPORT]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (kind, first, second) = (number(0)?, number(4)?, number(8)?);
        match kind {
            1 => {
                let terminal = (second as i32 >= 0).then_some(Fd(second as i32));
                Some(Self::Prepared { pid: Pid(first as i32), terminal })
            }
            2 => {
                let mut text = Text::new();
                text.text(bytes.get(12..12 + second as usize)?);
                Some(Self::Failed { errno: Errno(first), text })
            }
            _ => None,
        }
    }
}

/// The child's ends of the pipes. A process with a terminal has no others than the last two.
#[derive(Debug)]
pub struct Ends {
    /// Standard input; none for /dev/null.
    pub input: Option<OwnedFd>,
    /// Standard output.
    pub output: Option<OwnedFd>,
    /// Standard error.
    pub error: Option<OwnedFd>,
    /// Where it reports.
    pub report: OwnedFd,
    /// Where it waits.
    pub gate: OwnedFd,
}

/// Standard output or error on its way to the host.
#[derive(Debug)]
struct Output {
    stream: Stream,
    from: Option<OwnedFd>,
    window: u32,
}

impl Output {
    /// Sends what there is, within the window. Does not block: the caller knows that there is something, or the end.
    fn pump(&mut self, id: u16, sender: &mut Sender) {
        let Some(from) = self.from.as_ref().filter(|_| self.window > 0 && sender.takes_data()) else {
            return;
        };
        match sender.data(self.stream, id, **from, self.window) {
            Ok(0) => self.close(id, sender),
            Ok(count) => self.window -= count as u32,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.close(id, sender), // EIO: the last slave of a terminal was closed (pty(7))
        }
    }

    fn close(&mut self, id: u16, sender: &mut Sender) {
        if self.from.take().is_some() {
            sender.message(Kind::Closed, self.stream, id, &[]);
        }
    }
}

/// A process of the sandbox.
#[derive(Debug)]
pub struct Process {
    /// The host's number for it.
    pub id: u16,
    /// Its pid, in the guest's own namespace.
    pub pid: Pid,
    /// The same, as a file.
    pub pidfd: OwnedFd,
    report: Option<OwnedFd>,
    gate: Option<OwnedFd>,
    pid_inside: Option<Pid>,
    /// `Start` came, with this payload.
    start: Option<Array<u8>>,
    is_awaited: bool,
    /// It is to be held at its program's first instruction.
    is_to_halt: bool,
    is_started: bool,
    has_failed: bool,
    has_terminal: bool,
    input: Option<OwnedFd>,
    queue: Queue,
    is_input_ending: bool,
    outputs: [Output; 2],
    ended: Option<Ended>,
}

/// How many elements of a poll list a process has.
pub const POLLS: usize = 4;

impl Process {
    /// Forks a child that prepares itself and then waits.
    ///
    /// # Errors
    /// The step that failed in PID 1; what fails in the child comes as a report.
    pub fn prepare(id: u16, exec: &Exec, world: World, timer: &Timer) -> Result<Self, Failure<'static>> {
        let (report, report_end) = pipe().during("pipe", b"")?;
        let (gate_end, gate) = pipe().during("pipe", b"")?;
        let mut ends = Ends { input: None, output: None, error: None, report: report_end, gate: gate_end };
        let (mut input, mut output, mut error) = (None, None, None);
        if exec.terminal.is_none() {
            let (from, to) = pipe().during("pipe", b"")?;
            (output, ends.output) = (Some(from), Some(to));
            let (from, to) = pipe().during("pipe", b"")?;
            (error, ends.error) = (Some(from), Some(to));
            if !exec.no_input {
                let (from, to) = pipe().during("pipe", b"")?;
                to.set_nonblocking().during("fcntl", b"")?;
                (ends.input, input) = (Some(from), Some(to));
            }
        }
        let new = match world {
            World::Make { .. } => namespaces::PID | namespaces::MOUNT,
            World::Join(_) => 0,
        };
        match process::fork(new).during("clone", b"")? {
            Fork::Child => child::run(exec, world, &ends, timer),
            Fork::Parent(pid) => Ok(Self {
                id,
                pid,
                pidfd: process::open(pid).during("pidfd_open", b"")?,
                report: Some(report),
                gate: Some(gate),
                pid_inside: None,
                start: None,
                is_awaited: false,
                is_to_halt: false,
                is_started: false,
                has_failed: false,
                has_terminal: exec.terminal.is_some(),
                input,
                queue: Queue::default(),
                is_input_ending: false,
                outputs: [
                    Output { stream: Stream::Output, from: output, window: WINDOW },
                    Output { stream: Stream::Error, from: error, window: WINDOW },
                ],
                ended: None,
            }),
        }
    }

    /// Waits until its child has prepared itself, or failed.
    pub fn wait_prepared(&self) {
        if self.pid_inside.is_none()
            && let Some(report) = &self.report
        {
            while poll(&mut [Poll::read(**report)], None) == Err(Errno::INTR) {}
        }
    }

    /// The host wants it started, with other arguments than it was prepared with if the payload has some.
    ///
    /// # Errors
    /// No memory to keep the payload.
    pub fn start(&mut self, payload: &[u8]) -> Result<(), Over> {
        let mut kept = Array::new(payload.len()).map_err(|_| Over::Broken)?;
        kept.copy_from_slice(payload);
        self.start = Some(kept);
        self.open_gate();
        Ok(())
    }

    /// The host wants to hear when it is prepared.
    pub fn report_prepared(&mut self, sender: &mut Sender) {
        self.is_awaited = true;
        self.say_prepared(sender);
    }

    fn say_prepared(&mut self, sender: &mut Sender) {
        if self.is_awaited && self.pid_inside.is_some() {
            self.is_awaited = false;
            sender.message(Kind::Prepared, Stream::Input, self.id, &[]);
        }
    }

    /// The host wants it held at its program's first instruction, once it is started.
    pub fn halt(&mut self) {
        self.is_to_halt = true;
    }

    /// Lets the child go on, once it has said that it is prepared: before that its terminal is not here yet. Through the gate
    /// goes the length of what `Start` said, then that; the length's top bit says that it is to be held.
    fn open_gate(&mut self) {
        if self.pid_inside.is_some()
            && let Some(start) = self.start.take()
            && let Some(gate) = self.gate.take()
        {
            let halt = if self.is_to_halt { child::HALT } else { 0 };
            let len = (start.len() as u32 | halt).to_le_bytes();
            self.is_started = gate.write_all(&len).and_then(|()| gate.write_all(&start)).is_ok();
        }
    }

    /// kill(2).
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            let _ = process::kill(self.pid, signal);
        }
    }

    /// The terminal's new size.
    pub fn resize(&self, size: Size) {
        if let Some(master) = self.outputs[0].from.as_ref().filter(|_| self.has_terminal) {
            let _ = master.set_window(size);
        }
    }

    /// The host counts its start from its being held, and later.
    pub const fn is_to_halt(&self) -> bool {
        self.is_to_halt
    }

    /// wait(2) said that it ended, or stopped: the latter before its execve(2), or by that. (Of a process that is held, there is
    /// nothing else to tell the host meanwhile, so there is room.)
    pub fn set_ended(&mut self, ended: Ended, timer: &Timer, sender: &mut Sender) {
        match ended {
            Ended::Stopped(signal) if signal == Signal::TRAP.number() as i32 => {
                let held = self.hold();
                let clock = time::realtime();
                timer.mark(GuestMark::ClockRead);
                let mut told = Text::<{ 16 + SPIN.len() }>::new();
                if let Ok((address, instruction)) = held {
                    told.text((address as u64).to_le_bytes()).text(clock.to_le_bytes()).text(instruction);
                }
                sender.message(Kind::Halted, Stream::Input, self.id, told.bytes());
            }
            Ended::Stopped(signal) => {
                let _ = process::go_on(self.pid, signal);
            }
            ended => self.ended = Some(ended),
        }
    }

    /// Puts a jump to itself where the child is, and lets it go on into that. What was there, and where.
    fn hold(&self) -> Result<(usize, [u8; SPIN.len()]), Errno> {
        let put = || {
            let address = process::instruction_pointer(self.pid)?;
            let old = process::peek(self.pid, address)?;
            let (mut word, mut instruction) = (old.to_le_bytes(), SPIN);
            for (to, spin) in word.iter_mut().zip(&mut instruction) {
                core::mem::swap(to, spin);
            }
            process::poke(self.pid, address, usize::from_le_bytes(word))?;
            Ok((address, instruction))
        };
        let held = put();
        let _ = process::let_go(self.pid);
        held
    }

    /// Standard input from the host.
    ///
    /// # Errors
    /// More of it than the window allows: the conversation is over.
    pub fn push_input(&mut self, bytes: &[u8], sender: &mut Sender) -> Result<(), Over> {
        if self.has_failed || self.is_input_ending {
            return Ok(());
        }
        self.queue.push(bytes).map_err(|_| Over::Broken)?;
        self.pump_input(sender);
        Ok(())
    }

    /// The host's standard input has ended.
    pub fn end_input(&mut self, sender: &mut Sender) {
        if !self.is_input_ending {
            self.is_input_ending = true;
            if self.has_terminal {
                // A terminal has no end; what a person types for it is Ctrl-D (termios(3), VEOF).
                let _ = self.queue.push(&[4]);
            }
            self.pump_input(sender);
        }
    }

    /// Nobody on the host reads this stream any more: who writes to it shall learn it, by SIGPIPE or EPIPE (pipe(7)).
    pub fn close_output(&mut self, stream: Stream, sender: &mut Sender) {
        let id = self.id;
        for output in self.outputs.iter_mut().filter(|output| output.stream == stream) {
            output.close(id, sender);
        }
    }

    /// The host passed on so many bytes.
    pub fn credit(&mut self, stream: Stream, bytes: u32) {
        for output in self.outputs.iter_mut().filter(|output| output.stream == stream) {
            output.window = output.window.saturating_add(bytes).min(WINDOW);
        }
    }

    /// Passes standard input on, and gives the host credit for it. What nobody will read counts as passed on.
    fn pump_input(&mut self, sender: &mut Sender) {
        let master = self.outputs[0].from.as_ref().filter(|_| self.has_terminal);
        let waiting = self.queue.len();
        let passed = match self.input.as_ref().or(master) {
            // Before the child opened its terminal there is nowhere to write to yet.
            None if self.has_terminal && self.pid_inside.is_none() => return,
            None => None,
            Some(to) => self.queue.write_to(**to).ok(),
        };
        let passed = passed.unwrap_or_else(|| {
            // EPIPE or EIO: the reader is gone.
            self.queue = Queue::default();
            self.input = None;
            waiting
        });
        if passed > 0 {
            sender.number(Kind::Credit, Stream::Input, self.id, passed as u32);
        }
        if self.is_input_ending && self.queue.is_empty() {
            self.input = None;
        }
    }

    /// What to wait for: report, input, output, error.
    pub fn polls(&self, sender: &Sender) -> [Poll; POLLS] {
        let mut polls = [Poll::NONE; POLLS];
        let [report, input, output, error] = &mut polls;
        if let Some(fd) = self.report.as_ref().filter(|_| sender.takes_message()) {
            *report = Poll::read(**fd);
        }
        let master = self.outputs[0].from.as_ref().filter(|_| self.has_terminal);
        if let Some(fd) =
            self.input.as_ref().or(master).filter(|_| !self.queue.is_empty() && sender.takes_message())
        {
            *input = Poll::write(**fd);
        }
        for (poll, from) in [output, error].into_iter().zip(&self.outputs) {
            if let Some(fd) = from.from.as_ref().filter(|_| from.window > 0 && sender.takes_data()) {
                *poll = Poll::read(**fd);
            }
        }
        polls
    }

    /// Does what the poll found. True once, when the workload has begun.
    pub fn advance(&mut self, polls: &[Poll], sender: &mut Sender) -> bool {
        let &[report, input, output, error] = polls else { return false };
        let mut begun = false;
        // Asked again, although the poll list was: another process may have used the room.
        if report.readable() && sender.takes_message() {
            begun = self.read_report(sender);
        }
        if input.writable() && sender.takes_message() {
            self.pump_input(sender);
        }
        for (poll, from) in [output, error].iter().zip(&mut self.outputs) {
            if poll.readable() {
                from.pump(self.id, sender);
            }
        }
        begun
    }

    fn read_report(&mut self, sender: &mut Sender) -> bool {
        let Some(report) = &self.report else { return false };
        let mut bytes = [0; REPORT];
        match report.read(&mut bytes) {
            Ok(REPORT) => match Report::decode(&bytes) {
                Some(Report::Prepared { pid, terminal }) => {
                    if let Some(theirs) = terminal {
                        self.outputs[0].from = process::take_fd(*self.pidfd, theirs).ok();
                        self.outputs[1].from = None;
                    }
                    self.pid_inside = Some(pid);
                    self.say_prepared(sender);
                    self.open_gate();
                    self.pump_input(sender);
                    false
                }
                Some(Report::Failed { errno, text }) => {
                    self.fail(&Failure { errno, step: "", object: text.bytes() }, sender);
                    false
                }
                None => false,
            },
            Err(Errno::INTR) => false,
            // The end: closed by execve(2), or by death.
            _ => {
                self.report = None;
                let begun = self.is_started && !self.has_failed;
                if begun {
                    let pid = self.pid_inside.map_or(0, |pid| pid.0 as u32);
                    sender.number(Kind::Started, Stream::Input, self.id, pid);
                }
                begun
            }
        }
    }

    fn fail(&mut self, failure: &Failure, sender: &mut Sender) {
        self.has_failed = true;
        sender.failed(self.id, failure);
        self.input = None;
        self.queue = Queue::default();
        for output in &mut self.outputs {
            output.from = None;
        }
    }

    /// After its end: sends what is left of its output, then how it ended. True when there is nothing left to do.
    ///
    /// What its own children, if they outlive it, write later is not waited for.
    pub fn finish(&mut self, sender: &mut Sender) -> bool {
        let (Some(ended), None) = (self.ended, &self.report) else { return false };
        for output in &mut self.outputs {
            while let Some(from) = &output.from {
                if output.window == 0 || !sender.takes_data() {
                    return false;
                }
                if is_readable(**from) {
                    output.pump(self.id, sender);
                } else {
                    output.close(self.id, sender);
                }
            }
        }
        if !self.has_failed {
            if !sender.takes_message() {
                return false;
            }
            let status = match ended {
                Ended::Code(code) => u32::from(code),
                Ended::Signal(number) | Ended::Stopped(number) => (128 + number as u32) | 1 << 31,
            };
            sender.number(Kind::Exited, Stream::Input, self.id, status);
        }
        true
    }
}

const _: () = assert!(MAX_DATA <= WINDOW && REPORT + Header::SIZE <= crate::channel::MESSAGE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_pipe() {
        let prepared = Report::Prepared { pid: Pid(1), terminal: Some(Fd(7)) };
        let Some(Report::Prepared { pid, terminal }) = Report::decode(&prepared.encode()) else {
            panic!("kind")
        };
        assert_eq!((pid, terminal), (Pid(1), Some(Fd(7))));

        let failed = Report::failed(&Failure::new(Errno::NOENT, "execve", b"/bin/nope"));
        let Some(Report::Failed { errno, text }) = Report::decode(&failed.encode()) else { panic!("kind") };
        assert_eq!((errno, text.bytes()), (Errno::NOENT, &b"execve /bin/nope"[..]));
    }

    #[test]
    fn an_object_too_long_for_a_report_is_cut() {
        let long = [b'x'; 5000];
        let failed = Report::failed(&Failure::new(Errno::NAMETOOLONG, "execve", &long));
        let Some(Report::Failed { text, .. }) = Report::decode(&failed.encode()) else { panic!("kind") };
        assert_eq!(text.bytes().len(), REPORT_TEXT);
    }
}
