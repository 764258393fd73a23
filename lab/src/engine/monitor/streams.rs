//! A workload's streams while it runs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::Winsize;

use super::Monitor;
use super::log::Log;
use super::output::Channel;
use super::ports::Ports;
use crate::engine::Error;
use crate::engine::error::Context as _;
use crate::engine::passt::Passt;
use crate::engine::sandbox::Resizer;
use crate::image::Image;
use crate::image::users::Accounts;

/// What is read at once.
const CHUNK: usize = 16 * 1024;
/// After the end, the last output is waited for no longer than this without a byte.
const LAST_OUTPUT: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// A workload that runs.
pub(super) struct Run {
    /// Readable once it has ended.
    pub exit: OwnedFd,
    /// Its outputs, those that go on; a terminal has the first only.
    pub streams: [Option<OwnedFd>; 2],
    /// Its process.
    pub pid: i64,
    /// Its published ports.
    pub ports: Ports,
    /// Its networks' DNS servers end when these are closed.
    pub _names: Vec<OwnedFd>,
    /// The program that is its network, if one is.
    pub _passt: Option<Passt>,
    /// Kept, so that the image is.
    pub image: Image,
    /// Its users, for processes that are added.
    pub accounts: Accounts,
}

/// Copies what the workload writes until its end.
pub(super) fn pump(monitor: &Monitor, run: &mut Run, log: &mut Log) -> Result<(), Error> {
    monitor.terminals.set_accounts(run.accounts.clone(), run.image.clone());
    loop {
        let mut files = vec![PollFd::from_borrowed_fd(run.exit.as_fd(), PollFlags::IN)];
        files.extend(
            run.streams.iter().flatten().map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)),
        );
        match poll(&mut files, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.context("wait for", "the workload")?,
        };
        let ready: Vec<bool> = files.iter().map(|file| !file.revents().is_empty()).collect();
        step(monitor, run, log, &ready[1..]);
        if ready[0] {
            return Ok(());
        }
    }
}

/// Copies what it wrote last.
pub(super) fn drain(monitor: &Monitor, run: &mut Run, log: &mut Log) -> Result<(), Error> {
    while run.streams.iter().any(Option::is_some) {
        let mut files: Vec<PollFd<'_>> = run
            .streams
            .iter()
            .flatten()
            .map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN))
            .collect();
        match poll(&mut files, Some(&LAST_OUTPUT)) {
            Ok(0) => break,
            Err(rustix::io::Errno::INTR) => continue,
            other => other.context("wait for", "the workload's output")?,
        };
        let ready: Vec<bool> = files.iter().map(|file| !file.revents().is_empty()).collect();
        step(monitor, run, log, &ready);
    }
    log.finish().context("write", "the log")
}

/// Reads from the outputs that are ready; `ready` has an entry for each that goes on.
fn step(monitor: &Monitor, run: &mut Run, log: &mut Log, ready: &[bool]) {
    let mut ready = ready.iter();
    for (stream, channel) in run.streams.iter_mut().zip([Channel::Stdout, Channel::Stderr]) {
        if stream.is_none() || !ready.next().copied().unwrap_or(false) {
            continue;
        }
        let mut buffer = [0; CHUNK];
        match stream.as_ref().map(|file| rustix::io::read(file, &mut buffer)) {
            Some(Ok(read)) if read > 0 => {
                // A log on a full disk must not stop the workload; those who are attached still see it all.
                let _ = log.take(channel, &buffer[..read]);
                monitor.hub.send(channel, &buffer[..read]);
            }
            Some(Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN)) | None => {}
            // The end; of a terminal, EIO (pty(7)).
            _ => *stream = None,
        }
    }
}

/// A workload's standard input, which comes and goes with its runs.
#[derive(Default)]
pub(super) struct Input {
    state: Mutex<InputState>,
    changed: Condvar,
}

#[derive(Default)]
struct InputState {
    file: Option<File>,
    /// Whether the first who leaves closes it (`StdinOnce`).
    once: bool,
}

impl Input {
    pub(super) fn open(&self, file: OwnedFd, once: bool) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) =
            InputState { file: Some(file.into()), once };
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).file = None;
    }

    /// Copies a client's input to the workload, from whenever that begins. Ends with the client's end or the keys by
    /// which it leaves; true for the latter.
    pub(super) fn copy_from(&self, mut client: &UnixStream, detach: &[u8]) -> bool {
        let mut keys = Keys::new(detach);
        let mut buffer = [0; CHUNK];
        let target = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            while state.file.is_none() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.file.as_ref().and_then(|file| file.try_clone().ok())
        };
        let Some(mut target) = target else { return false };
        loop {
            match client.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) | Ok(0) => break,
                Ok(read) => {
                    let (bytes, leaves) = keys.pass(&buffer[..read]);
                    if target.write_all(&bytes).is_err() {
                        break;
                    }
                    if leaves {
                        return true;
                    }
                }
            }
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.once {
            state.file = None;
        }
        false
    }
}

/// Finds the keys by which a client leaves, wherever reads cut them.
pub(super) struct Keys<'a> {
    sequence: &'a [u8],
    matched: usize,
}

impl<'a> Keys<'a> {
    pub(super) fn new(sequence: &'a [u8]) -> Self {
        Self { sequence, matched: 0 }
    }

    /// What is to be passed on, and whether the keys were found. A beginning is held back until it is none.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        if self.sequence.is_empty() {
            return (bytes.to_vec(), false);
        }
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if byte == self.sequence[self.matched] {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend(&self.sequence[..self.matched]);
            self.matched = usize::from(byte == self.sequence[0]);
            if self.matched == 0 {
                out.push(byte);
            }
        }
        (out, false)
    }
}

/// The terminals of the workload and of processes that were added, by their ids (the workload's is empty), and what such
/// processes need to know.
#[derive(Default)]
pub(super) struct Terminals {
    masters: Mutex<HashMap<String, (OwnedFd, Option<Resizer>)>>,
    image: Mutex<Option<(Accounts, Image)>>,
}

impl Terminals {
    pub(super) fn add(&self, exec: &str, master: OwnedFd, resizer: Option<Resizer>) {
        self.masters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(exec.to_owned(), (master, resizer));
    }

    pub(super) fn remove(&self, exec: &str) {
        self.masters.lock().unwrap_or_else(PoisonError::into_inner).remove(exec);
    }

    pub(super) fn set_accounts(&self, accounts: Accounts, image: Image) {
        *self.image.lock().unwrap_or_else(PoisonError::into_inner) = Some((accounts, image));
    }

    pub(super) fn accounts(&self) -> Accounts {
        let image = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        image.as_ref().map(|(accounts, _)| accounts.clone()).unwrap_or_default()
    }

    /// Sets a terminal's size. One that is gone has none, which is no error.
    pub(super) fn resize(&self, monitor: &Monitor, exec: Option<&str>, size: Winsize) -> Result<(), Error> {
        let masters = self.masters.lock().unwrap_or_else(PoisonError::into_inner);
        let workload = exec.is_none();
        let Some((master, resizer)) = masters.get(exec.unwrap_or_default()) else { return Ok(()) };
        if let Some(resizer) = resizer {
            resizer(size);
        }
        match monitor.sandbox().as_mut() {
            Some(sandbox) if workload => sandbox.resize(master.as_fd(), size),
            _ => rustix::termios::tcsetwinsize(master, size)
                .context("set the size of terminal", master.as_raw_fd()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_found_wherever_they_are_cut() {
        let mut keys = Keys::new(&[16, 17]);
        assert_eq!(keys.pass(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.pass(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.pass(b"\x10"), (vec![], false));
        assert_eq!(keys.pass(b"\x11rest"), (vec![], true));
    }

    #[test]
    fn without_keys_everything_passes() {
        assert_eq!(Keys::new(&[]).pass(&[16, 17]), (vec![16, 17], false));
    }
}
