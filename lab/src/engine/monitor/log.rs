//! What a workload writes, into the log: docker's json-file format, one JSON object a line.
//!
//! Where the log may grow to a size only, it is moved aside then: `LOG` becomes `LOG.1`, that `LOG.2`, and the last is
//! removed. A reader that has the old file open knows it by its inode (`stored/logs.rs`).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::output::Channel;
use crate::engine::stored::{LogConfig, older_log};

/// Docker's limit for one entry of a log: longer lines are split.
const LONGEST_LINE: usize = 16 * 1024;

/// The log of a container that runs.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    config: LogConfig,
    /// None where the user wants no log.
    file: Option<File>,
    size: u64,
    held: [Vec<u8>; 2],
}

#[derive(Serialize)]
struct Entry<'a> {
    log: &'a str,
    stream: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attrs: &'a BTreeMap<String, String>,
    time: String,
}

impl Log {
    /// Opens the log to go on behind what it has.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(path: &Path, config: LogConfig) -> io::Result<Self> {
        let mut log =
            Self { path: path.to_owned(), config, file: None, size: 0, held: [Vec::new(), Vec::new()] };
        if log.config.kept {
            log.begin()?;
        }
        Ok(log)
    }

    fn begin(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).mode(0o640).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Takes what the workload wrote; whole lines go to the file.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn take(&mut self, channel: Channel, mut bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let mut text = Vec::new();
        let mut held = std::mem::take(&mut self.held[channel as usize]);
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            held.extend(&bytes[..=end]);
            bytes = &bytes[end + 1..];
            self.entry(&mut text, channel, &held)?;
            held.clear();
        }
        held.extend(bytes);
        while held.len() >= LONGEST_LINE {
            let line: Vec<u8> = held.drain(..LONGEST_LINE).collect();
            self.entry(&mut text, channel, &line)?;
        }
        self.held[channel as usize] = held;
        self.write(&text)
    }

    /// The workload has ended: what is held is a line, too.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn finish(&mut self) -> io::Result<()> {
        let mut text = Vec::new();
        for channel in [Channel::Stdout, Channel::Stderr] {
            let line = std::mem::take(&mut self.held[channel as usize]);
            if !line.is_empty() {
                self.entry(&mut text, channel, &line)?;
            }
        }
        self.write(&text)
    }

    fn entry(&mut self, text: &mut Vec<u8>, channel: Channel, line: &[u8]) -> io::Result<()> {
        let time = jiff::Timestamp::now().to_string();
        let attrs = &self.config.attributes;
        let entry = Entry { log: &String::from_utf8_lossy(line), stream: channel.name(), attrs, time };
        serde_json::to_writer(&mut *text, &entry)?;
        text.push(b'\n');
        // Only where files are limited must one end between these lines.
        if self.config.max_size.is_some_and(|most| self.size + text.len() as u64 >= most) {
            self.write(text)?;
            text.clear();
        }
        Ok(())
    }

    /// One write for all lines: a reader sees whole ones, but for a disk that is full.
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(text)?;
        self.size += text.len() as u64;
        if self.config.max_size.is_some_and(|most| self.size >= most) {
            self.turn()?;
        }
        Ok(())
    }

    /// Moves the file aside, and begins a new one.
    fn turn(&mut self) -> io::Result<()> {
        let last = self.config.max_file.saturating_sub(1);
        for number in (1..last).rev() {
            for compressed in [false, true] {
                let _ = fs::rename(
                    older_log(&self.path, number, compressed),
                    older_log(&self.path, number + 1, compressed),
                );
            }
        }
        if last == 0 {
            fs::remove_file(&self.path)?;
        } else {
            let aside = older_log(&self.path, 1, false);
            fs::rename(&self.path, &aside)?;
            if self.config.compress {
                compress(&aside, &older_log(&self.path, 1, true))?;
            }
        }
        self.begin()
    }
}

/// Puts a compressed file in the place of another, so that at no moment there is neither.
fn compress(plain: &Path, compressed: &Path) -> io::Result<()> {
    let target = OpenOptions::new().create(true).write(true).truncate(true).mode(0o640).open(compressed)?;
    let mut encoder = GzEncoder::new(target, Compression::fast());
    io::copy(&mut File::open(plain)?, &mut encoder)?;
    encoder.finish()?;
    fs::remove_file(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> LogConfig {
        LogConfig { kept: true, max_file: 1, ..LogConfig::default() }
    }

    #[test]
    fn a_log_has_a_line_for_each_line_and_keeps_the_streams_apart() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = Log::open(file.path(), kept()).unwrap();
        log.take(Channel::Stdout, b"one\ntw").unwrap();
        log.take(Channel::Stderr, b"err\n").unwrap();
        log.take(Channel::Stdout, b"o\nrest").unwrap();
        log.finish().unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
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
        let mut log = Log::open(file.path(), kept()).unwrap();
        log.take(Channel::Stdout, &vec![b'x'; 40_000]).unwrap();
        assert_eq!(fs::read_to_string(file.path()).unwrap().lines().count(), 2);
    }

    #[test]
    fn no_more_files_are_kept_than_asked_for_and_none_grows_beyond_its_size() {
        for (max_file, compress) in [(1, false), (3, false), (3, true)] {
            let folder = tempfile::tempdir().unwrap();
            let config = LogConfig { max_size: Some(1000), max_file, compress, ..kept() };
            let mut log = Log::open(&folder.path().join("log"), config).unwrap();
            for number in 0..200 {
                log.take(Channel::Stdout, format!("line {number}\n").as_bytes()).unwrap();
            }
            let mut names: Vec<_> = fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            let end = if compress { ".gz" } else { "" };
            let mut expected = vec!["log".to_owned()];
            expected.extend((1..max_file).map(|number| format!("log.{number}{end}")));
            assert_eq!(names, expected);
            for name in names {
                assert!(fs::metadata(folder.path().join(name)).unwrap().len() < 1100);
            }
        }
    }
}
