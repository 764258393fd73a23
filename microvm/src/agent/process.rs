//! One process: its streams on the host, and how many bytes may be under way to and from the guest.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use guest_wire::{Kind, MAX_DATA, Stream, WINDOW};

use super::channel::Channel;
use super::session::Halted;
use super::stdio::Streams;
use super::{AgentError, Exit};

/// Bytes written to a pipe or terminal that `poll(2)` called writable. The descriptor may block (it is our caller's,
/// and others may share it), but so many bytes a pipe then takes at once (pipe(7), PIPE_BUF).
const SAFE_WRITE: usize = nix::libc::PIPE_BUF;

/// Credit is given in halves of the window: a sender then never waits for it, and a short output costs no message.
const CREDIT: u32 = WINDOW / 2;

/// A process in the guest.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: u16,
    /// Its first argument, for messages.
    pub(super) command: String,
    pub(super) phase: Phase,
    /// What `Start` is to say: nothing, where `Exec` said it.
    pub(super) start: Vec<u8>,
    /// `Halt` was sent: it will be held at its program's first instruction.
    pub(super) is_to_halt: bool,
    /// Where it is held, once the guest has said so.
    pub(super) held: Option<Halted>,
    input: Option<File>,
    /// Bytes of input that the guest will still take.
    window: u32,
    outputs: [Output; 2],
}

/// How far a process has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// `Exec` was sent.
    Prepared,
    /// `Start` was sent.
    Starting,
    /// It executed its program, and is held at the first instruction.
    Halted,
    /// The guest said `Started`.
    Running,
    /// The guest said `Exited` or `Failed`; output may still wait for the host's reader.
    Ended(Result<Exit, AgentError>),
}

/// How far host and guest are with a process's streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Windows {
    /// Bytes of input that the guest will still take.
    pub(super) input: u32,
    /// Whether there may be more input.
    pub(super) is_input_open: bool,
    /// Of standard output and error: bytes that came and for which no credit was given, and whether more may come.
    pub(super) outputs: [(u32, bool); 2],
}

impl Windows {
    /// Whether the protocol allows them.
    pub(super) fn are_possible(&self) -> bool {
        self.input <= WINDOW && self.outputs.iter().all(|&(uncredited, _)| uncredited <= WINDOW)
    }
}

/// One stream from the guest.
#[derive(Debug)]
struct Output {
    stream: Stream,
    file: Option<File>,
    /// Received, not yet written.
    buffer: VecDeque<u8>,
    /// Written, credit not yet given.
    uncredited: u32,
    /// The guest said that it ended.
    closed: bool,
}

impl Process {
    pub(super) fn new(id: u16, command: String, streams: Streams) -> Self {
        Self {
            id,
            command,
            phase: Phase::Prepared,
            start: Vec::new(),
            is_to_halt: false,
            held: None,
            input: streams.input,
            window: WINDOW,
            outputs: [Output::new(Stream::Output, streams.output), Output::new(Stream::Error, streams.error)],
        }
    }

    /// The sandbox's own process, which runs in a restored guest.
    pub(super) fn going_on(
        command: String,
        streams: Streams,
        windows: &Windows,
        channel: &mut Channel,
    ) -> Self {
        let mut process = Self::new(0, command, streams);
        process.phase = Phase::Running;
        process.window = windows.input;
        process.input = process.input.take().filter(|_| windows.is_input_open);
        for (output, &(uncredited, is_open)) in process.outputs.iter_mut().zip(&windows.outputs) {
            output.closed = !is_open;
            output.release();
            output.passed_on(0, uncredited as usize, channel);
        }
        process
    }

    /// What of its streams a machine made of a snapshot of this one goes on with. What has come and is not written yet is this
    /// machine's output, not the other's.
    pub(super) fn windows(&self) -> Windows {
        let output = |output: &Output| (output.uncredited + output.buffer.len() as u32, !output.closed);
        Windows {
            input: self.window,
            is_input_open: self.input.is_some(),
            outputs: [output(&self.outputs[0]), output(&self.outputs[1])],
        }
    }

    /// The input to wait for: only while the guest takes more.
    pub(super) fn wanted_input(&self) -> Option<BorrowedFd<'_>> {
        let running = matches!(self.phase, Phase::Running);
        self.input.as_ref().filter(|_| running && self.window > 0).map(AsFd::as_fd)
    }

    /// The outputs to wait for, with their place: those that have something to write.
    pub(super) fn wanted_outputs(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let files = self.outputs.iter().enumerate().filter(|(_, output)| !output.buffer.is_empty());
        files.filter_map(|(place, output)| Some((place, output.file.as_ref()?.as_fd())))
    }

    /// Whether it ended and all its output was passed on.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended(_)) && self.outputs.iter().all(|output| output.buffer.is_empty())
    }

    /// Passes on input that is there. Its end, or an error, is the end of the guest's stream.
    pub(super) fn read_input(&mut self, channel: &mut Channel) {
        let Some(file) = &mut self.input else { return };
        let mut buffer = [0; MAX_DATA as usize];
        let most = buffer.len().min(self.window as usize);
        match file.read(&mut buffer[..most]) {
            Ok(bytes) if bytes > 0 => {
                self.window -= bytes as u32;
                channel.send(Kind::Data, Stream::Input, self.id, &buffer[..bytes]);
            }
            Err(error) if is_again(&error) => {}
            Ok(_) | Err(_) => {
                self.input = None;
                channel.send(Kind::Closed, Stream::Input, self.id, &[]);
            }
        }
    }

    /// The guest passed input on.
    pub(super) fn credit(&mut self, bytes: u32) -> Result<(), AgentError> {
        match self.window.checked_add(bytes) {
            Some(window) if window <= WINDOW => self.window = window,
            _ => return Err(AgentError::protocol("it took more input than it was sent")),
        }
        Ok(())
    }

    /// The guest's process reads no more input.
    pub(super) fn close_input(&mut self) {
        self.input = None;
    }

    /// Takes output from the guest.
    pub(super) fn take(
        &mut self,
        stream: Stream,
        bytes: &[u8],
        channel: &mut Channel,
    ) -> Result<(), AgentError> {
        let id = self.id;
        let output = self.output(stream)?;
        if output.buffer.len() + output.uncredited as usize + bytes.len() > WINDOW as usize {
            return Err(AgentError::protocol("it sent more output than the window allows"));
        }
        if output.file.is_some() {
            output.buffer.extend(bytes);
        } else {
            // Nobody reads it, as the guest was told; what was under way is dropped.
            output.passed_on(id, bytes.len(), channel);
        }
        Ok(())
    }

    /// The guest's stream ended.
    pub(super) fn close_output(&mut self, stream: Stream) -> Result<(), AgentError> {
        let output = self.output(stream)?;
        output.closed = true;
        output.release();
        Ok(())
    }

    /// Writes output that waits; called when `poll(2)` says that something can be written, or never will.
    pub(super) fn write_output(&mut self, place: usize, channel: &mut Channel) {
        let output = &mut self.outputs[place];
        let Some(file) = &mut output.file else { return };
        let front = output.buffer.as_slices().0;
        match file.write(&front[..front.len().min(SAFE_WRITE)]) {
            Ok(bytes) if bytes > 0 => {
                output.buffer.drain(..bytes);
                output.passed_on(self.id, bytes, channel);
                output.release();
            }
            Err(error) if is_again(&error) => {}
            Ok(_) | Err(_) => {
                // As with a local process: who writes to a pipe that nobody reads shall learn it.
                let dropped = output.buffer.len();
                output.buffer.clear();
                output.file = None;
                channel.send(Kind::Closed, output.stream, self.id, &[]);
                output.passed_on(self.id, dropped, channel);
            }
        }
    }

    fn output(&mut self, stream: Stream) -> Result<&mut Output, AgentError> {
        let output = match stream {
            Stream::Input => return Err(AgentError::protocol("it sent input")),
            Stream::Output => &mut self.outputs[0],
            Stream::Error => &mut self.outputs[1],
        };
        if output.closed {
            return Err(AgentError::protocol("it went on with a stream that it had ended"));
        }
        Ok(output)
    }
}

impl Output {
    fn new(stream: Stream, file: Option<File>) -> Self {
        Self { stream, file, buffer: VecDeque::new(), uncredited: 0, closed: false }
    }

    fn passed_on(&mut self, process: u16, bytes: usize, channel: &mut Channel) {
        self.uncredited += bytes as u32;
        if self.uncredited >= CREDIT && !self.closed {
            channel.send(Kind::Credit, self.stream, process, &self.uncredited.to_le_bytes());
            self.uncredited = 0;
        }
    }

    /// Closes the host's end once the guest's is closed and everything is written: a reader waits for that.
    fn release(&mut self) {
        if self.closed && self.buffer.is_empty() {
            self.file = None;
        }
    }
}

fn is_again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
