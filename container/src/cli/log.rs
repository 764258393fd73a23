//! How errors are told: a line on standard error for people, and a line in a file for engines.

use std::fs::OpenOptions;
use std::io::Write;

use lab_clock::date;
use serde_json::json;

use super::{Failure, Global};

/// The format of the log file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// As on standard error.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// By its name on the command line.
    pub(super) fn named(name: &str) -> Result<Self, Failure> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Failure::new(format!("--log-format {name}: use text or json"))),
        }
    }
}

/// Reports an error. Engines read the last line of the file and show it to their users.
pub(super) fn error(global: &Global, message: &str) {
    let message = message.replace('\n', " ");
    eprintln!("error: {message}");
    write(global, "error", &message);
}

/// Reports what was passed over, in the file only: standard error is the workload's too.
pub(super) fn warning(global: &Global, message: &str) {
    write(global, "warning", message);
}

fn write(global: &Global, level: &str, message: &str) {
    let Some(path) = &global.log else { return };
    let line = match global.log_format {
        Format::Text => format!("time=\"{}\" level={level} msg={message:?}\n", date::now()),
        Format::Json => format!("{}\n", json!({"level": level, "msg": message, "time": date::now()})),
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
        eprintln!("error: write {}: {error}", path.display());
    }
}
