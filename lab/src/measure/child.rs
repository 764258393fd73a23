//! One `lab run` in a process of its own: spawned, listened to, timed, and stopped where the user says so.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab_clock::Nanos;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How often an interruption is looked for, at the least; a signal also ends the wait at once.
const TICK: Duration = Duration::from_millis(250);
/// How long a run that was asked to end may take to give everything back.
const GRACE: Duration = Duration::from_secs(10);
/// No timeline is longer.
const MARKS_LIMIT: usize = 64 << 10;
/// Of what a run prints, the end is kept: on standard error it says there why it failed.
const TAIL: usize = 4 << 10;
/// Of standard output more: a workload may print its samples there.
const PRINTED: usize = 256 << 10;

/// How `lab run` is called: the program and what comes before and after `--marks FD`.
#[derive(Clone, Debug)]
pub struct Call {
    /// The `lab` binary, or another program.
    pub program: PathBuf,
    /// `run`, its runtime and limits.
    pub before: Vec<OsString>,
    /// Whether it is `lab run`, which writes its marks.
    pub marks: bool,
    /// Image and command.
    pub after: Vec<OsString>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Finished {
    /// Just before the process was spawned.
    pub spawned: Nanos,
    /// When it had ended.
    pub ended: Nanos,
    /// How it ended.
    pub status: ExitStatus,
    /// Its marks, or why there are none.
    pub marks: Result<BTreeMap<String, Nanos>, String>,
    /// The end of what it printed.
    pub printed: Vec<u8>,
    /// The last lines on standard error.
    pub said: String,
    /// Why it was stopped, if it was.
    pub stopped: Option<Stopped>,
}

/// Why a run was stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The user did.
    Interrupted,
    /// It took too long.
    TimedOut,
}

/// A spawned `lab run`.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pidfd: OwnedFd,
    spawned: Nanos,
    marks: Drain,
    stdout: Drain,
    stderr: Drain,
}

impl Call {
    /// Spawns it.
    ///
    /// # Errors
    /// Where the program cannot be started.
    pub fn spawn(&self, stdin: Stdio) -> io::Result<Running> {
        let (marks, marks_end) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut command = Command::new(&self.program);
        command.args(&self.before);
        if self.marks {
            // Inherited by this one child: this thread spawns no other before it closes its own copy.
            fcntl_setfd(&marks_end, FdFlags::empty())?;
            command.args([OsStr::new("--marks"), OsStr::new(&marks_end.as_raw_fd().to_string())]);
        }
        command
            .args(&self.after)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C reaches us alone, and we end the run in good order.
            .process_group(0);
        let spawned = lab_clock::now();
        let mut child = command.spawn()?;
        drop(marks_end);
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        Ok(Running {
            pidfd,
            spawned,
            marks: Drain::of(Some(marks), MARKS_LIMIT)?,
            stdout: Drain::of(stdout, PRINTED)?,
            stderr: Drain::of(stderr, TAIL)?,
            child,
        })
    }
}

impl Finished {
    /// The last line on standard error, without the lab's name; empty where there is none.
    pub fn last_words(&self) -> &str {
        let said = self.said.lines().last().unwrap_or_default();
        said.strip_prefix("lab: error: ").unwrap_or(said)
    }
}

impl Running {
    /// Its number.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Its standard input, if it was given a pipe.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Just before it was spawned.
    pub fn spawned(&self) -> Nanos {
        self.spawned
    }

    /// Waits for its end. It is asked to end once `interrupted` is set or the time is up, and killed where it does not.
    ///
    /// # Errors
    /// What the kernel says to waiting and reading.
    pub fn finish(mut self, limit: Duration, interrupted: &AtomicBool) -> io::Result<Finished> {
        let mut stopped = None;
        let mut deadline = Instant::now() + limit;
        loop {
            if self.listen()? {
                break;
            }
            let late = Instant::now() >= deadline;
            if stopped.is_none() && (late || interrupted.load(Ordering::Relaxed)) {
                stopped = Some(if late { Stopped::TimedOut } else { Stopped::Interrupted });
                deadline = Instant::now() + GRACE;
                pidfd_send_signal(&self.pidfd, Signal::TERM)?;
            } else if late {
                pidfd_send_signal(&self.pidfd, Signal::KILL)?;
            }
        }
        let ended = lab_clock::now();
        let status = self.child.wait()?;
        // What was written just before the end; a process that outlives the run cannot hold us up here.
        for drain in [&mut self.marks, &mut self.stdout, &mut self.stderr] {
            drain.read()?;
        }
        let marks = if self.marks.overflown {
            Err(format!("wrote more than {MARKS_LIMIT} bytes of marks"))
        } else {
            serde_json::from_slice(&self.marks.bytes)
                .map_err(|error| format!("wrote no marks that can be read: {error}"))
        };
        let said = String::from_utf8_lossy(&self.stderr.bytes).trim().to_owned();
        let printed = std::mem::take(&mut self.stdout.bytes);
        Ok(Finished { spawned: self.spawned, ended, status, marks, printed, said, stopped })
    }

    /// Waits until standard output holds this text. False where the run ends, or is interrupted, or the time is up.
    ///
    /// # Errors
    /// What the kernel says to waiting and reading.
    pub fn says(&mut self, text: &[u8], limit: Duration, interrupted: &AtomicBool) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.listen()?;
            if self.stdout.bytes.windows(text.len()).any(|window| window == text) {
                return Ok(true);
            }
            if ended || Instant::now() >= deadline || interrupted.load(Ordering::Relaxed) {
                return Ok(false);
            }
        }
    }

    /// The end of what it has printed until now.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.stdout.bytes).into_owned()
    }

    /// Waits for something to happen, for a tick at most, and reads what was written. True once the run has ended.
    fn listen(&mut self) -> io::Result<bool> {
        let tick = Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
        let sources = [&self.marks, &self.stdout, &self.stderr];
        let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
        fds.extend(
            sources
                .iter()
                .filter_map(|drain| drain.file.as_ref())
                .map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)),
        );
        match poll(&mut fds, Some(&tick)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = !fds[0].revents().is_empty();
        if !ended {
            for drain in [&mut self.marks, &mut self.stdout, &mut self.stderr] {
                drain.read()?;
            }
        }
        Ok(ended)
    }
}

impl Drop for Running {
    /// Whoever gives up on a run must not leave it behind.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = pidfd_send_signal(&self.pidfd, Signal::TERM);
            let deadline = Instant::now() + GRACE;
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The reading end of a pipe whose last `limit` bytes are kept.
#[derive(Debug)]
struct Drain {
    file: Option<File>,
    bytes: Vec<u8>,
    limit: usize,
    overflown: bool,
}

impl Drain {
    fn of(fd: Option<OwnedFd>, limit: usize) -> io::Result<Self> {
        if let Some(fd) = &fd {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(Self { file: fd.map(File::from), bytes: Vec::new(), limit, overflown: false })
    }

    /// Reads all there is; closes the file at its end.
    fn read(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut chunk = [0; 4096];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => {
                    self.file = None;
                    return Ok(());
                }
                Ok(count) => {
                    self.bytes.extend_from_slice(&chunk[..count]);
                    let surplus = self.bytes.len().saturating_sub(self.limit);
                    self.overflown |= surplus > 0;
                    self.bytes.drain(..surplus);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A shell script in the place of `lab`: `$2` is the descriptor for the marks.
    pub fn script(text: &str) -> Call {
        Call {
            program: "/bin/sh".into(),
            before: ["-c", text, "lab"].map(Into::into).into(),
            marks: true,
            after: Vec::new(),
        }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_run_gives_its_marks_its_status_and_two_moments() {
        let call = script(r#"echo '{"executed": 5, "exited": 6}' >/proc/self/fd/$2; exit 3"#);
        let finished = call.spawn(Stdio::null()).unwrap().finish(LONG, &AtomicBool::new(false)).unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(finished.marks.unwrap()["exited"], 6);
        assert!(finished.ended > finished.spawned && finished.stopped.is_none());
    }

    #[test]
    fn output_without_end_neither_blocks_a_run_nor_fills_our_memory() {
        let call = script("head -c 3000000 /dev/zero; echo the reason >&2; echo '{}' >/proc/self/fd/$2");
        let finished = call.spawn(Stdio::null()).unwrap().finish(LONG, &AtomicBool::new(false)).unwrap();
        assert_eq!(finished.said, "the reason");
        assert!(finished.marks.unwrap().is_empty());
    }

    #[test]
    fn marks_that_are_no_marks_are_an_error_of_the_run_and_not_ours() {
        for text in [
            "exit 1",
            "echo '[1,2' >/proc/self/fd/$2",
            "echo '{\"executed\":-1}' >/proc/self/fd/$2",
            "head -c 100000 /dev/zero >/proc/self/fd/$2",
        ] {
            let finished =
                script(text).spawn(Stdio::null()).unwrap().finish(LONG, &AtomicBool::new(false)).unwrap();
            assert!(finished.marks.is_err(), "{text}");
        }
    }

    #[test]
    fn an_interrupted_run_is_asked_to_end_and_says_so() {
        let call = script("trap 'echo {} >/proc/self/fd/$2; exit 9' TERM; while :; do sleep 0.05; done");
        let mut running = call.spawn(Stdio::null()).unwrap();
        // Give the shell the time to set its trap.
        assert!(!running.says(b"never", Duration::from_millis(500), &AtomicBool::new(false)).unwrap());
        let finished = running.finish(LONG, &AtomicBool::new(true)).unwrap();
        assert_eq!((finished.status.code(), finished.stopped), (Some(9), Some(Stopped::Interrupted)));
    }

    #[test]
    fn a_run_that_never_ends_is_stopped() {
        let call = script("exec sleep 1000");
        let finished = call.spawn(Stdio::null()).unwrap();
        let finished = finished.finish(Duration::from_millis(50), &AtomicBool::new(false)).unwrap();
        assert_eq!(finished.stopped, Some(Stopped::TimedOut));
    }

    #[test]
    fn a_process_that_outlives_the_run_does_not_hold_it_up() {
        let call = script("echo '{}' >/proc/self/fd/$2; sleep 3 & exit 0");
        let finished = call.spawn(Stdio::null()).unwrap().finish(LONG, &AtomicBool::new(false)).unwrap();
        assert!(lab_clock::now() - finished.spawned < 2_900_000_000);
    }

    #[test]
    fn an_idle_run_echoes_and_ends_with_its_input() {
        let call = script("exec cat");
        let mut running = call.spawn(Stdio::piped()).unwrap();
        let mut stdin = running.stdin().unwrap();
        io::Write::write_all(&mut stdin, b"ready\n").unwrap();
        assert!(running.says(b"ready\n", LONG, &AtomicBool::new(false)).unwrap());
        drop(stdin);
        assert!(running.finish(LONG, &AtomicBool::new(false)).unwrap().status.success());
    }
}
