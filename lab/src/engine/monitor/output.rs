//! What a workload writes: into the log, and to everyone who is attached.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

/// Docker's limit for one entry of a log: longer lines are split.
const LONGEST_LINE: usize = 16 * 1024;

/// A client that takes nothing for so long is let go: the workload must not hang on it for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// One of a workload's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Standard output; a terminal's only one.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Channel {
    const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// The header of a frame: the stream, three zero bytes, the length (Docker Engine API, "Stream format").
    pub(crate) fn header(self, length: usize) -> [u8; 8] {
        let mut header = [0; 8];
        header[0] = if self == Self::Stdout { 1 } else { 2 };
        header[4..].copy_from_slice(&(length as u32).to_be_bytes());
        header
    }
}

/// A client's end of the streams.
#[derive(Debug)]
pub struct Client {
    /// Its connection.
    pub socket: UnixStream,
    /// Whether it wants standard output.
    pub stdout: bool,
    /// Whether it wants standard error.
    pub stderr: bool,
    /// Whether the workload has a terminal: then bytes are sent as they are.
    pub raw: bool,
}

impl Client {
    /// Sends what the workload wrote; false where the client is gone.
    pub fn send(&mut self, channel: Channel, bytes: &[u8]) -> bool {
        if !(if channel == Channel::Stdout { self.stdout } else { self.stderr }) {
            return true;
        }
        let result = if self.raw {
            self.socket.write_all(bytes)
        } else {
            // One write, so that a frame is one packet for most clients.
            let mut frame = Vec::with_capacity(8 + bytes.len());
            frame.extend(channel.header(bytes.len()));
            frame.extend(bytes);
            self.socket.write_all(&frame)
        };
        result.is_ok()
    }
}

/// Everyone who is attached.
#[derive(Debug, Default)]
pub struct Hub(Mutex<Vec<Client>>);

impl Hub {
    /// One more client.
    pub fn join(&self, client: Client) {
        let _ = client.socket.set_write_timeout(Some(PATIENCE));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(client);
    }

    /// Sends to all. Those that are gone are forgotten.
    pub fn send(&self, channel: Channel, bytes: &[u8]) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain_mut(|client| client.send(channel, bytes));
    }

    /// The workload has ended: so do all connections.
    pub fn close(&self) {
        for client in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = client.socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// The log, in docker's json-file format: one JSON object a line.
#[derive(Debug)]
pub struct Log {
    /// None where the user wants no log.
    file: Option<File>,
    held: [Vec<u8>; 2],
}

#[derive(Serialize)]
struct Entry<'a> {
    log: &'a str,
    stream: &'static str,
    time: String,
}

impl Log {
    /// Opens the log to go on behind what it has.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
        Ok(Self { file: Some(file), held: [Vec::new(), Vec::new()] })
    }

    /// A log that keeps nothing.
    pub fn none() -> Self {
        Self { file: None, held: [Vec::new(), Vec::new()] }
    }

    /// Takes what the workload wrote; whole lines go to the file.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn take(&mut self, channel: Channel, mut bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut text = Vec::new();
        let held = &mut self.held[channel as usize];
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            held.extend(&bytes[..=end]);
            bytes = &bytes[end + 1..];
            entry(&mut text, channel, held)?;
        }
        held.extend(bytes);
        while held.len() >= LONGEST_LINE {
            let mut line = held.drain(..LONGEST_LINE).collect();
            entry(&mut text, channel, &mut line)?;
        }
        // One write for all its lines: a reader sees whole ones, but for a disk that is full.
        file.write_all(&text)
    }

    /// The workload has ended: what is held is a line, too.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn finish(&mut self) -> io::Result<()> {
        let mut text = Vec::new();
        for channel in [Channel::Stdout, Channel::Stderr] {
            if !self.held[channel as usize].is_empty() {
                entry(&mut text, channel, &mut self.held[channel as usize])?;
            }
        }
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(&text))
    }
}

fn entry(text: &mut Vec<u8>, channel: Channel, line: &mut Vec<u8>) -> io::Result<()> {
    let time = jiff::Timestamp::now().to_string();
    let entry = Entry { log: &String::from_utf8_lossy(line), stream: channel.name(), time };
    serde_json::to_writer(&mut *text, &entry)?;
    text.push(b'\n');
    line.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_log_has_a_line_for_each_line_and_keeps_the_streams_apart() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = Log::open(file.path()).unwrap();
        log.take(Channel::Stdout, b"one\ntw").unwrap();
        log.take(Channel::Stderr, b"err\n").unwrap();
        log.take(Channel::Stdout, b"o\nrest").unwrap();
        log.finish().unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let entries: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let seen: Vec<_> = entries
            .iter()
            .map(|entry| (entry["stream"].as_str().unwrap(), entry["log"].as_str().unwrap()))
            .collect();
        assert_eq!(seen, [("stdout", "one\n"), ("stderr", "err\n"), ("stdout", "two\n"), ("stdout", "rest")]);
    }

    #[test]
    fn a_line_without_an_end_is_split() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = Log::open(file.path()).unwrap();
        log.take(Channel::Stdout, &vec![b'x'; 40_000]).unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap().lines().count(), 2);
    }

    #[test]
    fn clients_get_frames_and_those_that_left_are_forgotten() {
        let hub = Hub::default();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (gone, _) = UnixStream::pair().unwrap();
        hub.join(Client { socket: ours, stdout: true, stderr: false, raw: false });
        hub.join(Client { socket: gone, stdout: true, stderr: true, raw: true });
        hub.send(Channel::Stderr, b"not wanted");
        hub.send(Channel::Stdout, b"hi");
        assert_eq!(hub.0.lock().unwrap().len(), 1);
        hub.close();
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).unwrap();
        assert_eq!(all, [1, 0, 0, 0, 0, 0, 0, 2, b'h', b'i']);
    }
}
