//! How errors are told: a line on standard error for people, and a line in a file for engines.

use std::fs::OpenOptions;
use std::io::Write as _;

use lab_clock::date;
use serde_json::json;

use super::Global;

/// The format of the log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// As on standard error
    Text,
    /// One JSON object a line
    Json,
}

/// Reports an error. Engines read the last line of the file and show it to their users.
pub(super) fn error(global: &Global, message: &str) {
    let message = message.replace('\n', " ");
    eprintln!("lab-vm: error: {message}");
    let Some(path) = &global.log else { return };
    let line = match global.log_format {
        Format::Text => format!("time=\"{}\" level=error msg={message:?}\n", date::now()),
        Format::Json => format!("{}\n", json!({"level": "error", "msg": message, "time": date::now()})),
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
        eprintln!("lab-vm: error: cannot write {}: {error}", path.display());
    }
}
