//! What a check found: kept for the student, exported for a learning platform.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::Context as _;
use super::texts::Common;
use super::{Error, LESSONS, Language, compile};

/// The result of one check of a lesson.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The lesson.
    pub lesson: String,
    /// The wall.
    pub wall: String,
    /// When, in seconds since 1970.
    pub time: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The checks, in order.
    pub checks: Vec<Outcome>,
    /// What the student's program printed.
    pub output: String,
    /// How many levels of hints were asked for so far.
    #[serde(default)]
    pub hints: usize,
    /// How many times it was checked.
    #[serde(default)]
    pub tries: u32,
}

/// The result of one of the checks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub id: String,
    /// Whether it passed; none where it was skipped, since one that it needs had failed.
    pub passed: Option<bool>,
    /// What is so when it passes.
    pub text: String,
    /// The name of what is wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<String>,
    /// What is wrong, with what was seen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}

impl Report {
    /// Whether all is done.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed == Some(true))
    }

    /// How many checks passed.
    pub fn count(&self) -> usize {
        self.checks.iter().filter(|check| check.passed == Some(true)).count()
    }

    /// The last one of a lesson, if there is any.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(lesson: &str) -> Result<Option<Self>, Error> {
        let path = path(lesson)?;
        if !path.exists() {
            return Ok(None);
        }
        let bytes = compile::read_at_most(&path, 1 << 20)?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::Result { path: path.display().to_string(), reason: error.to_string() })
    }

    /// Keeps it, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self) -> Result<(), Error> {
        let path = path(&self.lesson)?;
        let new = path.with_extension(format!("{}.new", std::process::id()));
        let text = serde_json::to_vec_pretty(self).context("write", path.display())?;
        fs::write(&new, text).at("write", &new)?;
        fs::rename(&new, &path).at("write", &path)
    }

    /// All that are kept, in the order of the book.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn all() -> Result<Vec<Self>, Error> {
        let reports = LESSONS.iter().map(|lesson| Self::load(lesson.name));
        reports.filter_map(Result::transpose).collect()
    }

    /// For a person.
    ///
    /// # Errors
    /// The book is wrong.
    pub fn render(&self, language: Language) -> Result<String, Error> {
        let common = Common::read()?;
        let mut text = String::new();
        for check in &self.checks {
            let (mark, note) = match check.passed {
                Some(true) => ("✓", ""),
                Some(false) => ("✗", ""),
                None => ("–", common.word("skipped", language)),
            };
            let note = if note.is_empty() { String::new() } else { format!("  {note}") };
            let _ = writeln!(text, "  {mark} {}{note}", check.text);
            for line in check.hint.iter().flat_map(|hint| hint.lines()) {
                let _ = writeln!(text, "      {line}");
            }
        }
        let word = if self.passed() { "done" } else { "not-done" };
        let line = common.word(word, language);
        let filled = line
            .replace("{passed}", &self.count().to_string())
            .replace("{all}", &self.checks.len().to_string())
            .replace("{seconds}", &format!("{:.2}", self.seconds))
            .replace("{lesson}", &self.lesson);
        Ok(text + &filled + "\n")
    }
}

fn path(lesson: &str) -> Result<PathBuf, Error> {
    let folder = compile::place()?.join("results");
    compile::make(&folder)?;
    Ok(folder.join(format!("{lesson}.json")))
}

/// A format for other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An array of reports.
    Json,
    /// JUnit's XML: a suite a lesson.
    Junit,
    /// A line a check.
    Csv,
}

/// Writes reports for other programs.
///
/// # Errors
/// Never for reports of this module; the writers of the formats have an error type all the same.
pub fn export(reports: &[Report], format: Format) -> Result<String, Error> {
    match format {
        Format::Json => {
            Ok(serde_json::to_string_pretty(reports).context("write", "the results as JSON")? + "\n")
        }
        Format::Junit => Ok(junit(reports)),
        Format::Csv => csv(reports),
    }
}

fn csv(reports: &[Report]) -> Result<String, Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let wrong = |error: csv::Error| std::io::Error::other(error);
    let head = ["lesson", "wall", "time", "check", "passed", "cause", "hints", "tries"];
    writer.write_record(head).map_err(wrong).context("write", "CSV")?;
    for report in reports {
        for check in &report.checks {
            let passed = check.passed.map_or("", |passed| if passed { "true" } else { "false" });
            let numbers = [report.time.to_string(), report.hints.to_string(), report.tries.to_string()];
            let cause = check.cause.as_deref().unwrap_or_default();
            let line = [
                &report.lesson,
                &report.wall,
                &numbers[0],
                check.id.as_str(),
                passed,
                cause,
                &numbers[1],
                &numbers[2],
            ];
            writer.write_record(line).map_err(wrong).context("write", "CSV")?;
        }
    }
    let bytes = writer.into_inner().map_err(|error| std::io::Error::other(error.to_string()));
    Ok(String::from_utf8_lossy(&bytes.context("write", "CSV")?).into_owned())
}

fn junit(reports: &[Report]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for report in reports {
        let count = |passed| report.checks.iter().filter(|check| check.passed == passed).count();
        let (failed, skipped) = (count(Some(false)), count(None));
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" skipped=\"{skipped}\" time=\"{:.3}\">",
            escape(&report.lesson),
            report.checks.len(),
            report.seconds
        );
        for check in &report.checks {
            let (class, name) = (escape(&report.lesson), escape(&check.id));
            let _ = write!(text, "    <testcase classname=\"{class}\" name=\"{name}\"");
            match check.passed {
                Some(true) => text += "/>\n",
                None => text += "><skipped/></testcase>\n",
                Some(false) => {
                    let cause = escape(check.cause.as_deref().unwrap_or_default());
                    let hint = escape(check.hint.as_deref().unwrap_or_default());
                    let _ = writeln!(text, "><failure type=\"{cause}\">{hint}</failure></testcase>");
                }
            }
        }
        text += "  </testsuite>\n";
    }
    text + "</testsuites>\n"
}

/// For XML 1.0: its five special characters; control characters, which it cannot hold, become spaces.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&apos;",
            '\n' | '\t' => escaped.push(character),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let outcome = |id: &str, passed, hint: Option<&str>| Outcome {
            id: id.to_owned(),
            passed,
            text: id.to_owned(),
            cause: hint.map(|_| "cause".to_owned()),
            hint: hint.map(str::to_owned),
        };
        Report {
            lesson: "first".into(),
            wall: "vm".into(),
            time: 1,
            seconds: 0.5,
            checks: vec![
                outcome("a", Some(true), None),
                outcome("b", Some(false), Some("x < y & \"z\"\u{1b}, \"quoted\"")),
                outcome("c", None, None),
            ],
            output: String::new(),
            hints: 1,
            tries: 2,
        }
    }

    #[test]
    fn junit_counts_and_escapes() {
        let text = export(&[report()], Format::Junit).unwrap();
        assert!(text.contains("tests=\"3\" failures=\"1\" skipped=\"1\""), "{text}");
        assert!(text.contains("x &lt; y &amp; &quot;z&quot; , &quot;quoted&quot;"), "{text}");
    }

    #[test]
    fn csv_has_a_line_a_check_and_leaves_skipped_ones_empty() {
        let text = export(&[report()], Format::Csv).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "first,vm,1,a,true,,1,2");
        assert_eq!(lines[2], "first,vm,1,b,false,cause,1,2");
        assert_eq!(lines[3], "first,vm,1,c,,,1,2");
    }

    #[test]
    fn json_reads_back() {
        let text = export(&[report()], Format::Json).unwrap();
        let back: Vec<Report> = serde_json::from_str(&text).unwrap();
        assert_eq!(back[0].checks[2].passed, None);
        assert!(!back[0].passed());
    }
}
