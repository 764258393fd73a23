//! A student's program that runs: what it prints, what it is told, how it ends, and which limit it ran into.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use container::{Container, Exit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::Error;
use super::super::look::{Look, family};
use super::{PROCESSES, Room};

/// A lesson's program waits for the grader most of the time, and ends with it.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Output beyond this is dropped.
const OUTPUT: usize = 64 << 10;

/// A student's program that runs.
pub struct Live {
    container: Option<Container>,
    id: String,
    stdin: Option<std::io::PipeWriter>,
    answers: Receiver<String>,
    reader: Option<JoinHandle<String>>,
    deadline: Instant,
    /// As the program finds them.
    pub before: Before,
    // Dropped last: its removal is that of the files.
    room: Room,
}

/// The namespaces that a program is started in, looked at before its first instruction.
#[derive(Debug, Default)]
pub struct Before {
    /// The PID namespace's number.
    pub pid: Option<u64>,
    /// The mount namespace's.
    pub mount: Option<u64>,
    /// What is mounted there.
    pub mounts: Vec<procfs::process::MountInfo>,
}

impl Before {
    fn of(pid: i32) -> Self {
        let look = Look::at(pid);
        Self { pid: look.namespace("pid"), mount: look.namespace("mnt"), mounts: look.mounts() }
    }
}

/// How a student's program ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code, or 128 and the signal that killed it.
    pub code: u8,
    /// What it printed, without answers to the grader.
    pub output: String,
    /// The limit that it ran into.
    pub limit: Option<Limit>,
}

/// A limit that a program ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// It did not end.
    Time,
    /// It made processes without end.
    Processes,
    /// It took too much memory.
    Memory,
}

impl Live {
    /// Starts a program that was created.
    pub(super) fn begin(
        room: Room,
        mut container: Container,
        stdin: std::io::PipeWriter,
        mut output: std::io::PipeReader,
    ) -> Result<Self, Error> {
        let (sender, answers) = sync_channel(4096);
        let reader = thread::spawn(move || read(&mut output, &sender));
        let before = Before::of(container.pid().unwrap_or_default());
        let started = container.start();
        let mut live = Self {
            container: Some(container),
            id: room.id.clone(),
            stdin: Some(stdin),
            answers,
            reader: Some(reader),
            deadline: Instant::now() + PATIENCE,
            before,
            room,
        };
        started?;
        if live.room.held {
            live.let_go();
        }
        Ok(live)
    }

    /// Looks at a program that waits, as soon as that can be done, and lets it begin.
    fn let_go(&mut self) {
        while self.runs() {
            self.before = Before::of(self.pid());
            if self.before.pid.is_some() {
                return self.say("\n");
            }
            self.pause(Duration::from_millis(1));
        }
    }

    /// The program's process, as this process sees it.
    pub fn pid(&self) -> i32 {
        self.container.as_ref().and_then(Container::pid).unwrap_or_default()
    }

    /// The sandbox's id, which is the name of its control group, too.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The root file system.
    pub fn root(&self) -> &Path {
        &self.room.root
    }

    /// Whether there is still something to look at.
    pub fn runs(&self) -> bool {
        Instant::now() < self.deadline && !self.exited(Duration::ZERO)
    }

    /// Waits a moment, or until the program ends.
    pub fn pause(&self, time: Duration) {
        self.exited(time);
    }

    fn exited(&self, time: Duration) -> bool {
        let Some(container) = &self.container else { return true };
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let mut files = [PollFd::from_borrowed_fd(container.exit_fd(), PollFlags::IN)];
        matches!(poll(&mut files, Some(&time)), Ok(1))
    }

    /// Says something on the program's standard input. A program that does not listen is no error: it will be seen.
    pub fn say(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(line.as_bytes());
        }
    }

    /// The next answer of the program, without its `@`; none where it gives none in time.
    pub fn listen(&mut self) -> Option<String> {
        loop {
            match self.answers.recv_timeout(Duration::from_millis(20)) {
                Ok(answer) => return Some(answer),
                // What was said last still comes: the pipe ends when all of the sandbox's processes have.
                Err(RecvTimeoutError::Timeout) if Instant::now() < self.deadline => {}
                Err(_) => return None,
            }
        }
    }

    /// Waits for the end, or makes it when the time is over; removes the sandbox.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn finish(mut self) -> Result<Ended, Error> {
        self.stdin = None;
        let mut limit = None;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let Some(mut container) = self.container.take() else { return Err(gone()) };
        if !exited_within(&container, left) {
            // Without a control group, that fork fails is seen by how many there are.
            let many = container.pid().is_some_and(|pid| family(pid).len() + 1 >= PROCESSES as usize);
            limit = Some(if many { Limit::Processes } else { Limit::Time });
            container.kill(nix::libc::SIGKILL)?;
        }
        let exit = container.wait()?;
        if matches!(exit, Exit::Signal(nix::libc::SIGXCPU | nix::libc::SIGKILL)) && limit.is_none() {
            limit = Some(Limit::Time);
        }
        if events(&self.id, "memory", "memory.events", "oom_kill")
            || events(&self.id, "memory", "memory.oom_control", "oom_kill")
        {
            limit = Some(Limit::Memory);
        } else if events(&self.id, "pids", "pids.events", "max") {
            limit = Some(Limit::Processes);
        }
        container.delete(true)?;
        let output = self.reader.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        // What Rust says when there are no more addresses; how it then dies depends on being process 1, which SIGABRT leaves alone.
        if limit.is_none() && matches!(exit, Exit::Signal(_)) && output.contains("memory allocation of") {
            limit = Some(Limit::Memory);
        }
        Ok(Ended { code: exit.code(), output, limit })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            let _ = container.delete(true);
        }
    }
}

fn exited_within(container: &Container, time: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let time = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::from_borrowed_fd(container.exit_fd(), PollFlags::IN)], Some(&time)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return false,
            Ok(_) => return true,
        }
    }
}

/// The folders of the sandbox's group, on whichever versions there are.
pub(super) fn groups(id: &str, controller: &str) -> impl Iterator<Item = PathBuf> {
    [controller, "", "unified"]
        .map(|tree| Path::new("/sys/fs/cgroup").join(tree).join("lab").join(id))
        .into_iter()
}

/// Whether the kernel counted such an event in the sandbox's cgroup, on either version (cgroup-v2.rst, "pids.events";
/// cgroup-v1/memory.rst, "oom_control").
fn events(id: &str, controller: &str, file: &str, event: &str) -> bool {
    let texts = groups(id, controller).filter_map(|group| fs::read_to_string(group.join(file)).ok());
    let counts = |text: String| {
        let count = text.lines().find_map(|line| line.strip_prefix(event)?.trim().parse::<u64>().ok());
        count.is_some_and(|count| count > 0)
    };
    let mut texts = texts;
    texts.any(counts)
}

/// Reads what the program prints to its end: lines that begin with `@` are answers. The rest is kept, up to a limit.
fn read(output: &mut std::io::PipeReader, answers: &SyncSender<String>) -> String {
    let (mut kept, mut line, mut buffer) = (Vec::new(), Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        for &byte in &buffer[..count] {
            if line.len() < OUTPUT {
                line.push(byte);
            }
            if byte == b'\n' {
                finish_line(&mut line, &mut kept, answers);
            }
        }
    }
    finish_line(&mut line, &mut kept, answers);
    String::from_utf8_lossy(&kept).trim_end().to_owned()
}

fn finish_line(line: &mut Vec<u8>, kept: &mut Vec<u8>, answers: &SyncSender<String>) {
    if let Some(answer) = line.strip_prefix(b"@") {
        // Whoever answers without being asked is not heard.
        let _ = answers.try_send(String::from_utf8_lossy(answer).trim_end().to_owned());
    } else if kept.len() + line.len() <= OUTPUT {
        kept.extend_from_slice(line);
    }
    line.clear();
}

fn gone() -> Error {
    Error::Io {
        operation: "wait for",
        object: "the lesson's sandbox".to_owned(),
        source: std::io::ErrorKind::NotFound.into(),
    }
}
