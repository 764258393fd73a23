//! Reading a container's log, and following it while it grows.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use jiff::Timestamp;
use serde::Deserialize;

use super::{Engine, LogConfig, Record};
use crate::engine::Error;

/// What of the log is wanted.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
    /// The last so many lines; none is all.
    pub tail: Option<usize>,
    /// Not before this moment.
    pub since: Option<Timestamp>,
    /// Not after this moment.
    pub until: Option<Timestamp>,
    /// Each line with its time in front.
    pub timestamps: bool,
    /// Each line with what the log's options note of the container.
    pub details: bool,
}

/// A line of the log file.
#[derive(Deserialize)]
struct Entry {
    log: String,
    stream: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    time: String,
}

/// One line as it is to be shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Whether it came by standard error.
    pub stderr: bool,
    /// The text, with its newline.
    pub text: String,
}

/// A log being read; it may grow meanwhile, and be moved aside.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: BufReader<File>,
    /// The younger files, in their order.
    next: VecDeque<File>,
    options: LogOptions,
    /// A line whose end is not written yet.
    part: String,
}

/// Where a log's older files are: 1 is the youngest of them.
pub(crate) fn older(log: &Path, number: u32, compressed: bool) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(format!(".{number}{}", if compressed { ".gz" } else { "" }));
    path.into()
}

impl Engine {
    /// Where a container's log is.
    pub fn log_path(&self, record: &Record) -> PathBuf {
        self.roots.stored(&record.id).join(format!("{}-json.log", record.id))
    }

    /// Opens a container's log. One that never ran has none, which reads as an empty one.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn logs(&self, record: &Record, options: LogOptions) -> Result<LogReader, Error> {
        if !LogConfig::of(&record.body)?.kept {
            return Err(Error::conflict("configured logging driver does not support reading"));
        }
        let path = self.log_path(record);
        LogReader::open(&path, options).map_err(|error| Error::io("read", path.display(), error))
    }
}

/// The files of a log that are there, the youngest first.
fn files(log: &Path) -> impl Iterator<Item = io::Result<File>> {
    let (mut number, mut last) = (0, None);
    std::iter::from_fn(move || {
        loop {
            let found = match number {
                0 => File::options().append(true).read(true).create(true).open(log),
                _ => match File::open(older(log, number, false)) {
                    Err(_) => inflate(File::open(older(log, number, true)).ok()?),
                    file => file,
                },
            };
            number += 1;
            let own = found.as_ref().map_or(Ok(0), inode).ok();
            // Between two looks a file may have got the next number.
            if found.is_err() || own != last {
                last = own;
                return Some(found);
            }
        }
    })
}

fn inode(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
}

/// A compressed file's content, in a file that has no name.
fn inflate(file: File) -> io::Result<File> {
    let mut plain = tempfile::tempfile()?;
    io::copy(&mut GzDecoder::new(file), &mut plain)?;
    plain.rewind()?;
    Ok(plain)
}

/// Where the last so many lines begin, and how many there are.
fn tail(file: &mut File, lines: usize) -> io::Result<(u64, usize)> {
    use std::io::Read as _;
    const BLOCK: u64 = 64 * 1024;
    let mut at = file.metadata()?.len();
    let mut found = 0;
    let mut block = vec![0; BLOCK as usize];
    let end = at;
    while at > 0 {
        let begin = at.saturating_sub(BLOCK);
        let part = &mut block[..(at - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(part)?;
        for (index, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let behind = begin + index as u64 + 1;
            // The newline at the very end ends the last line.
            if behind != end {
                found += 1;
            }
            if found == lines {
                return Ok((behind, found));
            }
        }
        at = begin;
    }
    Ok(if lines == 0 || end == 0 { (end, 0) } else { (0, found + 1) })
}

impl LogReader {
    fn open(path: &Path, options: LogOptions) -> io::Result<Self> {
        let mut wanted = VecDeque::new();
        let mut left = options.tail;
        for file in files(path) {
            let mut file = file?;
            if let Some(lines) = left {
                let (at, found) = tail(&mut file, lines)?;
                file.seek(SeekFrom::Start(at))?;
                left = Some(lines - found);
            }
            wanted.push_front(file);
            if left == Some(0) {
                break;
            }
        }
        let file = BufReader::new(wanted.pop_front().ok_or(io::ErrorKind::NotFound)?);
        Ok(Self { path: path.to_owned(), file, next: wanted, options, part: String::new() })
    }

    /// The next line that is wanted; none where there is none yet.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            self.file.read_line(&mut self.part)?;
            if !self.part.ends_with('\n') {
                if self.go_on()? {
                    continue;
                }
                return Ok(None);
            }
            let text = std::mem::take(&mut self.part);
            // A line that a full disk cut is not worth failing for.
            let Ok(entry) = serde_json::from_str::<Entry>(&text) else { continue };
            if let Some(line) = self.wanted(&entry) {
                return Ok(Some(line));
            }
        }
    }

    /// Whether what is written from now on is too late to be wanted.
    pub fn is_over(&self) -> bool {
        self.options.until.is_some_and(|until| until < Timestamp::now())
    }

    /// At the end of a file: whether there is more to read, in it or in the next one.
    fn go_on(&mut self) -> io::Result<bool> {
        if let Some(file) = self.next.pop_front() {
            self.file = BufReader::new(file);
            self.part.clear();
            return Ok(true);
        }
        let own = inode(self.file.get_ref())?;
        if fs::metadata(&self.path).is_ok_and(|youngest| youngest.ino() == own) {
            return Ok(false);
        }
        let mut older = false;
        for file in files(&self.path) {
            let file = file?;
            older = inode(&file)? == own;
            if older {
                break;
            }
            self.next.push_front(file);
        }
        if !older {
            // It was removed or compressed: what followed it is the youngest, unless much was written in no time.
            self.next.drain(..self.next.len().saturating_sub(1));
        }
        // Once more: something may have been written between the look at its end and its being moved aside.
        Ok(true)
    }

    fn wanted(&self, entry: &Entry) -> Option<Line> {
        let options = &self.options;
        let stderr = entry.stream == "stderr";
        if !(if stderr { options.stderr } else { options.stdout }) {
            return None;
        }
        if options.since.is_some() || options.until.is_some() {
            let time: Timestamp = entry.time.parse().ok()?;
            if options.since.is_some_and(|since| time < since)
                || options.until.is_some_and(|until| time > until)
            {
                return None;
            }
        }
        let mut text = String::new();
        if options.timestamps {
            text = entry.time.parse().map_or_else(|_| entry.time.clone(), exactly) + " ";
        }
        if options.details {
            let told: Vec<String> = entry
                .attrs
                .iter()
                .map(|(name, value)| format!("{}={}", escape(name), escape(value)))
                .collect();
            text += &told.join(",");
            text.push(' ');
        }
        text += &entry.log;
        Some(Line { stderr, text })
    }
}

/// A moment with all nine digits of its fraction, so that lines stand under each other.
fn exactly(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// As in a query of a URL, where what separates names, values and pairs means itself.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(byte as char),
            b' ' => escaped.push('+'),
            _ => drop(write!(escaped, "%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn write(file: &mut File, numbers: std::ops::Range<u32>) {
        for number in numbers {
            writeln!(
                file,
                r#"{{"log":"{number}\n","stream":"stdout","attrs":{{"a b":"c,d"}},"time":"2026-01-01T00:00:0{number}Z"}}"#
            )
            .unwrap();
        }
    }

    /// A log of five lines, in three files of which the oldest is compressed.
    fn log() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut plain = tempfile::tempfile().unwrap();
        write(&mut plain, 0..2);
        plain.rewind().unwrap();
        let oldest = File::create(older(&path, 2, true)).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(oldest, flate2::Compression::fast());
        io::copy(&mut plain, &mut encoder).unwrap();
        encoder.finish().unwrap();
        write(&mut File::create(older(&path, 1, false)).unwrap(), 2..3);
        write(&mut File::create(&path).unwrap(), 3..5);
        (folder, path)
    }

    fn all(reader: &mut LogReader) -> Vec<String> {
        std::iter::from_fn(|| reader.next_line().unwrap().map(|line| line.text)).collect()
    }

    fn read(options: &LogOptions) -> Vec<String> {
        let (_folder, path) = log();
        all(&mut LogReader::open(&path, LogOptions { stdout: true, ..options.clone() }).unwrap())
    }

    #[test]
    fn the_tail_is_the_last_lines_whichever_files_they_are_in() {
        let with = |tail| LogOptions { tail: Some(tail), ..LogOptions::default() };
        assert_eq!(read(&with(1)), ["4\n"]);
        assert_eq!(read(&with(2)), ["3\n", "4\n"]);
        assert_eq!(read(&with(4)), ["1\n", "2\n", "3\n", "4\n"]);
        assert_eq!(read(&with(9)).len(), 5);
        assert_eq!(read(&with(0)).len(), 0);
        assert_eq!(read(&LogOptions::default()).len(), 5);
    }

    #[test]
    fn since_and_until_cut_by_time() {
        let options = LogOptions {
            since: Some("2026-01-01T00:00:01Z".parse().unwrap()),
            until: Some("2026-01-01T00:00:03Z".parse().unwrap()),
            ..LogOptions::default()
        };
        assert_eq!(read(&options), ["1\n", "2\n", "3\n"]);
    }

    #[test]
    fn a_line_has_its_time_and_what_is_noted_of_the_container_in_front() {
        let options = LogOptions { timestamps: true, details: true, tail: Some(1), ..LogOptions::default() };
        assert_eq!(read(&options), ["2026-01-01T00:00:04.000000000Z a+b=c%2Cd 4\n"]);
    }

    #[test]
    fn a_log_is_followed_into_its_next_files() {
        let (_folder, path) = log();
        let options = LogOptions { stdout: true, tail: Some(0), ..LogOptions::default() };
        let mut reader = LogReader::open(&path, options).unwrap();
        assert!(all(&mut reader).is_empty());
        let mut open = File::options().append(true).open(&path).unwrap();
        write(&mut open, 5..6);
        for (number, lines) in [(3, 6..7), (4, 7..9)] {
            fs::rename(older(&path, number - 2, false), older(&path, number, false)).unwrap();
            fs::rename(&path, older(&path, 1, false)).unwrap();
            write(&mut File::create(&path).unwrap(), lines);
            if number == 3 {
                fs::rename(older(&path, 1, false), older(&path, 2, false)).unwrap();
                fs::rename(&path, older(&path, 1, false)).unwrap();
                write(&mut File::create(&path).unwrap(), 9..9);
                assert_eq!(all(&mut reader), ["5\n", "6\n"]);
            }
        }
        assert_eq!(all(&mut reader), ["7\n", "8\n"]);
    }
}
