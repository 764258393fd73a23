//! Standard input, output and error: handed over where that is possible, copied where it is not.
//!
//! Without a terminal the workload gets this process's own files, as after `exec`: nothing stands in between, and nothing
//! is lost when this process dies. Two cases need copying, by one loop without threads: a terminal (its master side is
//! ours), and a timed run (the first byte of output is a mark on the timeline, so it must pass here).

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use lab_clock::{Mark, Timeline};
use rustix::event::PollFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::error::Context as _;
use super::sandbox::Stdio;
use super::{Error, Request, terminal};

/// A pipe whose reader polled ready takes this much without blocking (pipe(7), PIPE_BUF).
const CHUNK: usize = 4096;

/// What the sandbox is given, and what stays here to be copied.
#[derive(Debug)]
pub struct Wiring {
    /// For the sandbox.
    pub stdio: Stdio,
    /// What stays here.
    pub ours: Ours,
}

/// This process's end of the workload's streams.
#[derive(Debug)]
pub enum Ours {
    /// Nothing: the workload has the files themselves.
    Nothing,
    /// The reading end of a pipe that is the workload's standard output.
    Output(OwnedFd),
    /// The socket over which the master of the workload's terminal comes.
    Console(UnixStream),
}

/// Wires a request's streams. With `timed`, standard output passes through this process.
///
/// # Errors
/// Where files cannot be made.
pub fn wire(request: &Request, timed: bool) -> Result<Wiring, Error> {
    if request.terminal {
        let (theirs, ours) = UnixStream::pair().context("make", "the console socket")?;
        return Ok(Wiring { stdio: Stdio::Console(theirs), ours: Ours::Console(ours) });
    }
    let own = |stream: BorrowedFd<'_>| stream.try_clone_to_owned().context("duplicate", "a standard stream");
    let stdin = if request.interactive {
        own(io::stdin().as_fd())?
    } else {
        File::open("/dev/null").context("open", "/dev/null")?.into()
    };
    let stderr = own(io::stderr().as_fd())?;
    if timed {
        let (ours, stdout) = pipe_with(PipeFlags::CLOEXEC).context("make", "a pipe")?;
        Ok(Wiring { stdio: Stdio::Fds { stdin, stdout, stderr }, ours: Ours::Output(ours) })
    } else {
        let stdout = own(io::stdout().as_fd())?;
        Ok(Wiring { stdio: Stdio::Fds { stdin, stdout, stderr }, ours: Ours::Nothing })
    }
}

/// The copying of a run: none, output only, or both ways with the user's terminal raw.
#[derive(Debug, Default)]
pub struct Copying {
    output: Option<Copy>,
    input: Option<Copy>,
    master: Option<OwnedFd>,
    _raw: Option<terminal::Raw>,
}

impl Copying {
    /// Output, then input: those that go on.
    pub fn directions(&self) -> [Option<&Copy>; 2] {
        [self.output.as_ref(), self.input.as_ref()]
    }

    /// Does a step of each direction that is ready; `ready` has an entry for each that goes on.
    pub fn step(&mut self, ready: &[bool]) {
        let mut ready = ready.iter();
        for direction in [&mut self.output, &mut self.input] {
            if let Some(copy) = direction
                && ready.next().copied().unwrap_or(false)
                && copy.step() == Progress::Ended
            {
                *direction = None;
            }
        }
        if self.output.is_none() {
            // Nobody sees the terminal any more. Closing it hangs it up, which tells the workload (SIGHUP, termios(3)).
            self.input = None;
            self.master = None;
        }
    }

    /// The master side of the workload's terminal, if it has one.
    pub fn master(&self) -> Option<BorrowedFd<'_>> {
        self.master.as_ref().map(AsFd::as_fd)
    }

    /// Ends the input: the workload is gone.
    pub fn stop_input(&mut self) {
        self.input = None;
    }
}

impl Ours {
    /// Begins copying once the sandbox is set up. With an interactive terminal, the user's becomes raw here.
    ///
    /// # Errors
    /// Where the workload's terminal does not arrive, or the user's cannot be made raw.
    pub fn begin(self, request: &Request, timeline: Option<Arc<Timeline>>) -> Result<Copying, Error> {
        let stdout = || io::stdout().as_fd().try_clone_to_owned().context("duplicate", "standard output");
        match self {
            Self::Nothing => Ok(Copying::default()),
            Self::Output(pipe) => {
                Ok(Copying { output: Some(Copy::new(pipe, stdout()?, timeline)), ..Copying::default() })
            }
            Self::Console(socket) => {
                let master = terminal::receive_master(&socket)?;
                // Its input queue holds a line of 4096 bytes (termios(3)); writing to a full one must not stop the loop.
                rustix::io::ioctl_fionbio(&master, true)
                    .context("set the mode of", "the sandbox's terminal")?;
                let again = || master.try_clone().context("duplicate", "the sandbox's terminal");
                let output = Some(Copy::new(again()?, stdout()?, timeline));
                let (mut input, mut raw) = (None, None);
                if request.interactive {
                    let stdin =
                        io::stdin().as_fd().try_clone_to_owned().context("duplicate", "standard input")?;
                    input = Some(Copy::new(stdin, again()?, None));
                    raw = Some(terminal::Raw::enter()?);
                }
                Ok(Copying { output, input, master: Some(master), _raw: raw })
            }
        }
    }
}

/// One direction: reads when there is room, writes when the other end can take it, never blocks.
#[derive(Debug)]
pub struct Copy {
    from: File,
    to: File,
    buffer: Box<[u8; CHUNK]>,
    held: std::ops::Range<usize>,
    timeline: Option<Arc<Timeline>>,
}

/// Whether a direction has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more.
    Open,
    /// The source ended, or nobody reads the other end any more.
    Ended,
}

impl Copy {
    fn new(from: OwnedFd, to: OwnedFd, timeline: Option<Arc<Timeline>>) -> Self {
        Self { from: from.into(), to: to.into(), buffer: Box::new([0; CHUNK]), held: 0..0, timeline }
    }

    /// What to poll for: the source if nothing is held, else room at the other end.
    pub fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        if self.held.is_empty() {
            (self.from.as_fd(), PollFlags::IN)
        } else {
            (self.to.as_fd(), PollFlags::OUT)
        }
    }

    /// Does one step, after poll(2) said that [`Copy::interest`] is met.
    pub fn step(&mut self) -> Progress {
        let result = if self.held.is_empty() { self.fill() } else { self.drain() };
        match result {
            Ok(progress) => progress,
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                Progress::Open
            }
            // EIO is how a terminal's master says that nobody holds the other side any more (pty(7)); EPIPE, that the
            // reader of our output went away: the workload will be told the same way.
            Err(_) => Progress::Ended,
        }
    }

    fn fill(&mut self) -> io::Result<Progress> {
        let read = self.from.read(&mut self.buffer[..])?;
        if read == 0 {
            return Ok(Progress::Ended);
        }
        if let Some(timeline) = self.timeline.take() {
            timeline.mark(Mark::FirstByte);
        }
        self.held = 0..read;
        Ok(Progress::Open)
    }

    fn drain(&mut self) -> io::Result<Progress> {
        self.held.start += self.to.write(&self.buffer[self.held.clone()])?;
        Ok(Progress::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn bytes_pass_in_order_and_the_first_is_marked() {
        let timeline = Arc::new(Timeline::new().unwrap());
        let ((from, source), (sink, to)) = (pipe(), pipe());
        let mut copy = Copy::new(from, to, Some(Arc::clone(&timeline)));
        File::from(source).write_all(b"hello").unwrap();
        assert_eq!(timeline.get(Mark::FirstByte), None);
        assert_eq!(copy.interest().1, PollFlags::IN);
        assert_eq!(copy.step(), Progress::Open);
        assert!(timeline.get(Mark::FirstByte).is_some());
        assert_eq!(copy.interest().1, PollFlags::OUT);
        assert_eq!(copy.step(), Progress::Open);
        assert_eq!(copy.step(), Progress::Ended);
        drop(copy);
        let mut text = String::new();
        File::from(sink).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_reader_that_went_away_ends_the_copying() {
        let ((from, source), (sink, to)) = (pipe(), pipe());
        let mut copy = Copy::new(from, to, None);
        drop(sink);
        File::from(source).write_all(b"x").unwrap();
        assert_eq!(copy.step(), Progress::Open);
        assert_eq!(copy.step(), Progress::Ended);
    }

    #[test]
    fn without_i_standard_input_is_empty() {
        let Stdio::Fds { stdin, .. } = wire(&Request::default(), false).unwrap().stdio else {
            panic!("files")
        };
        assert_eq!(File::from(stdin).read(&mut [0; 1]).unwrap(), 0);
    }
}
