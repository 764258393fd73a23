//! Reading a container's log, and following it while it grows.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Engine, Record};
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
}

/// A line of the log file.
#[derive(Deserialize)]
struct Entry {
    log: String,
    stream: String,
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

/// A log being read; it may grow meanwhile.
#[derive(Debug)]
pub struct LogReader {
    file: BufReader<File>,
    options: LogOptions,
    /// A line whose end is not written yet.
    part: String,
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
        if !record.has_log() {
            return Err(Error::conflict("configured logging driver does not support reading"));
        }
        let path = self.log_path(record);
        let open = || -> io::Result<File> {
            match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    File::options().append(true).read(true).create(true).open(&path)
                }
                file => file,
            }
        };
        let mut file = open().map_err(|error| Error::io("open", path.display(), error))?;
        if let Some(lines) = options.tail {
            let at = tail(&mut file, lines).map_err(|error| Error::io("read", path.display(), error))?;
            file.seek(SeekFrom::Start(at)).map_err(|error| Error::io("read", path.display(), error))?;
        }
        Ok(LogReader { file: BufReader::new(file), options, part: String::new() })
    }
}

/// Where the last so many lines begin.
fn tail(file: &mut File, lines: usize) -> io::Result<u64> {
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
                return Ok(behind);
            }
        }
        at = begin;
    }
    Ok(if lines == 0 { end } else { 0 })
}

impl LogReader {
    /// The next line that is wanted; none where there is none yet.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            if self.file.read_line(&mut self.part)? == 0 || !self.part.ends_with('\n') {
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
        let text =
            if options.timestamps { format!("{} {}", entry.time, entry.log) } else { entry.log.clone() };
        Some(Line { stderr, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn log(lines: usize) -> File {
        let mut file = tempfile::tempfile().unwrap();
        for number in 0..lines {
            writeln!(
                file,
                r#"{{"log":"{number}\n","stream":"stdout","time":"2026-01-01T00:00:0{number}Z"}}"#
            )
            .unwrap();
        }
        file
    }

    fn read(mut file: File, mut options: LogOptions) -> Vec<String> {
        options.stdout = true;
        let at = options.tail.map_or(0, |lines| tail(&mut file, lines).unwrap());
        file.seek(SeekFrom::Start(at)).unwrap();
        let mut reader = LogReader { file: BufReader::new(file), options, part: String::new() };
        std::iter::from_fn(|| reader.next_line().unwrap().map(|line| line.text)).collect()
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let with = |tail| LogOptions { tail: Some(tail), ..LogOptions::default() };
        assert_eq!(read(log(5), with(2)), ["3\n", "4\n"]);
        assert_eq!(read(log(5), with(9)).len(), 5);
        assert_eq!(read(log(5), with(0)).len(), 0);
    }

    #[test]
    fn since_and_until_cut_by_time() {
        let options = LogOptions {
            since: Some("2026-01-01T00:00:01Z".parse().unwrap()),
            until: Some("2026-01-01T00:00:03Z".parse().unwrap()),
            ..LogOptions::default()
        };
        assert_eq!(read(log(5), options), ["1\n", "2\n", "3\n"]);
    }
}
