//! Speaking to a container's monitor, which is started where it is needed and not there.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{Engine, Record};
use crate::engine::Error;
use crate::engine::error::Context as _;
use crate::engine::monitor::protocol::{Answer, Ask, hear, say};
use crate::engine::monitor::{READY, SOCKET};
use crate::engine::place::Roots;

/// A monitor that ends just now hangs up without an answer. So often a new one is tried.
const ATTEMPTS: u32 = 5;

/// Connects to a monitor's socket. Its path may be longer than the 107 bytes of a socket's address (unix(7)), so the way
/// leads through a descriptor of its directory.
///
/// # Errors
/// Where no monitor listens there.
pub fn connect(roots: &Roots, id: &str) -> io::Result<UnixStream> {
    let directory = File::open(roots.sandbox(id))?;
    UnixStream::connect(short(&directory))
}

/// Whether a container has a monitor, without a word to it: the lock of its place tells.
pub(crate) fn probe(roots: &Roots, id: &str) -> bool {
    use rustix::fs::{FlockOperation, flock};
    File::open(roots.sandbox(id))
        .is_ok_and(|place| flock(&place, FlockOperation::NonBlockingLockShared).is_err())
}

/// The socket's short path; good while the directory is open.
pub(crate) fn short(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}

impl Engine {
    /// Asks the monitor of a container that runs.
    ///
    /// # Errors
    /// [`Error::Conflict`] where it does not run; what the monitor answers.
    pub fn ask(&self, record: &Record, ask: &Ask) -> Result<(UnixStream, Answer), Error> {
        let told = connect(&self.roots, &record.id).and_then(|stream| talk(stream, ask));
        match told {
            Ok((_, Answer::Failed(failure))) => Err(failure.into()),
            Ok(answered) => Ok(answered),
            Err(_) => {
                self.reconcile(record)?;
                Err(Error::conflict(format!("container {} is not running", record.id)))
            }
        }
    }

    /// Asks the container's monitor, and starts one where there is none.
    ///
    /// # Errors
    /// Where none can be started; what it answers.
    pub fn ask_or_start(&self, record: &Record, ask: &Ask) -> Result<(UnixStream, Answer), Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let result = connect(&self.roots, &record.id).and_then(|stream| talk(stream, ask));
            match result {
                Ok((_, Answer::Failed(failure))) => return Err(failure.into()),
                Ok(answered) => return Ok(answered),
                Err(error) if attempt == ATTEMPTS => {
                    return Err(Error::io("speak to the monitor of", record.short_id(), error));
                }
                Err(_) => self.launch(record)?,
            }
        }
    }

    /// Connects to the container's monitor, which is started where there is none.
    pub(super) fn connect_or_launch(&self, record: &Record) -> Result<UnixStream, Error> {
        if let Ok(stream) = connect(&self.roots, &record.id) {
            return Ok(stream);
        }
        self.launch(record)?;
        connect(&self.roots, &record.id).context("speak to the monitor of", record.short_id())
    }

    /// Starts a monitor, as a process of its own that outlives this one: it forks, and the first process ends at once.
    fn launch(&self, record: &Record) -> Result<(), Error> {
        let what = || format!("a monitor for {}", record.short_id());
        let judge = |said: String| match said.as_str() {
            READY => Ok(()),
            _ => Err(Error::Monitor { message: format!("start {}: {}", what(), said.trim_end()) }),
        };
        // Where that process is gone, a monitor starts as it does without a daemon.
        if let Some(Ok(said)) = self.seed.as_ref().map(|seed| seed.start(&record.id)) {
            return judge(said);
        }
        let mut child = Command::new("/proc/self/exe")
            .arg("monitor")
            .arg(&record.id)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A relative LAB_HOME was meant from here, not from where the monitor goes.
            .env("LAB_HOME", self.roots.data())
            .current_dir("/")
            .spawn()
            .context("start", what())?;
        let mut said = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_string(&mut said).context("hear", what())?;
        }
        child.wait().context("wait for", what())?;
        judge(said)
    }

    /// Brings what is stored in line with what is there: a container whose monitor was killed does not run any more.
    ///
    /// # Errors
    /// Where the state cannot be written.
    pub fn reconcile(&self, record: &Record) -> Result<(), Error> {
        if !record.status.is_live() || probe(&self.roots, &record.id) {
            return Ok(());
        }
        // It may have ended in the regular way this moment.
        let Ok(now) = self.find(&record.id) else { return Ok(()) };
        if !now.status.is_live() {
            return Ok(());
        }
        crate::engine::container::clear(&self.roots, &record.id);
        crate::engine::vm::clear(&self.roots, &record.id);
        let _ = fs::remove_dir_all(self.roots.sandbox(&record.id));
        let _ = self.unplug_all(record);
        self.note_ended(&record.id, 255, "its monitor was killed", false)?;
        self.tell_container(record, "die", &[("exitCode", "255")])
    }
}

fn talk(stream: UnixStream, ask: &Ask) -> io::Result<(UnixStream, Answer)> {
    say(&stream, ask)?;
    let answer = hear(&stream)?;
    Ok((stream, answer))
}
