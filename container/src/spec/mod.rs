//! Reading the bundle: `config.json`, as the OCI runtime specification defines it.

mod place;
mod process;

use std::collections::HashMap;
use std::ffi::CString;
use std::path::Path;

use oci_spec::runtime::{Hooks, Linux, Mount, Root};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

pub use process::{ExecCpuAffinity, Process, Scheduler};

use crate::error::{Error, Result};

/// A configuration larger than this is refused before it is parsed: the largest in use are below 1 MiB.
const MAX_BYTES: u64 = 16 << 20;

/// `config.json`, the parts that are about Linux containers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// The version of the specification that the bundle follows.
    pub oci_version: String,
    /// The root file system.
    pub root: Option<Root>,
    /// What is mounted in it, in this order.
    #[serde(deserialize_with = "or_default")]
    pub mounts: Vec<Mount>,
    /// What runs.
    pub process: Option<Process>,
    /// The name of the machine that it sees.
    pub hostname: Option<String>,
    /// Its NIS domain.
    pub domainname: Option<String>,
    /// Programs of the engine.
    pub hooks: Option<Hooks>,
    /// Notes of the engine.
    #[serde(deserialize_with = "or_default")]
    pub annotations: HashMap<String, String>,
    /// Namespaces, limits and all else that only Linux has.
    pub linux: Option<Linux>,
    /// The file as it was read.
    #[serde(skip)]
    pub(crate) text: Vec<u8>,
}

impl Spec {
    /// Whether the process gets a terminal.
    pub fn wants_terminal(&self) -> bool {
        self.process.as_ref().and_then(|process| process.terminal).unwrap_or(false)
    }
}

/// Engines written in Go say `null` for an empty list.
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Reads a bundle's `config.json` and checks what does not depend on the machine.
///
/// # Errors
/// [`Error::Bundle`] without a readable file, [`Error::Config`] naming the field that is wrong.
pub fn load(bundle: &Path) -> Result<Spec> {
    load_file(&bundle.join("config.json"))
}

/// Reads a configuration that has another name.
///
/// # Errors
/// As [`load`].
pub fn load_file(path: &Path) -> Result<Spec> {
    let text = read(path)?;
    let spec = parse_file(&text, path)?;
    Ok(Spec { text, ..spec })
}

/// Parses a configuration, as [`load`] does.
///
/// # Errors
/// As [`load`]; `bundle` is for messages.
pub fn parse_spec(text: &[u8], bundle: &Path) -> Result<Spec> {
    parse_file(text, &bundle.join("config.json"))
}

fn parse_file(text: &[u8], path: &Path) -> Result<Spec> {
    let spec: Spec = parse(text, path)?;
    let version = &spec.oci_version;
    if !is_known(version) {
        let reason = format!("{version:?} is not a version this runtime knows; it carries out 1.0 to 1.3");
        return Err(Error::config("ociVersion", reason));
    }
    Ok(spec)
}

/// Whether a version is one of the first major one (Semantic Versioning 2.0.0): later minor ones only add, and what
/// is not known is passed over.
fn is_known(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<_> = core.split('.').map(|number| number.parse::<u32>().ok()).collect();
    matches!(numbers[..], [Some(1), Some(_), Some(_)])
}

/// Reads a process as `exec --process FILE` takes it.
///
/// # Errors
/// As [`load`].
pub fn load_process(path: &Path) -> Result<Process> {
    parse(&read(path)?, path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let unreadable =
        |error: std::io::Error| Error::Bundle { path: path.to_owned(), reason: error.to_string() };
    let mut text = Vec::with_capacity(8192);
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let size = file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(unreadable)?;
    if size as u64 > MAX_BYTES {
        let reason = format!("it is larger than a configuration can be ({MAX_BYTES} bytes)");
        return Err(Error::Bundle { path: path.to_owned(), reason });
    }
    Ok(text)
}

/// Parses JSON; an error about a value carries the path of the field.
fn parse<T: DeserializeOwned>(text: &[u8], path: &Path) -> Result<T> {
    let unusable = |reason: String| Error::Bundle { path: path.to_owned(), reason };
    // serde takes an array for a structure too, field by field; the specification does not.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(unusable("it does not hold a JSON object".to_owned()));
    }
    serde_json::from_slice(text).map_err(|error| {
        let reason = error.to_string();
        if !error.is_data() {
            return unusable(reason);
        }
        let offset = place::offset(text, error.line(), error.column());
        match place::path_at(text, offset, reason.starts_with("missing field")) {
            field if field.is_empty() => unusable(reason),
            field => Error::config(field, reason),
        }
    })
}

/// A string of the configuration as the kernel wants it: without a NUL inside.
pub(crate) fn c_string(field: &str, value: impl AsRef<[u8]>) -> Result<CString> {
    CString::new(value.as_ref()).map_err(|_| Error::config(field, "contains a NUL character"))
}

/// A path of the configuration as the kernel wants it.
pub(crate) fn c_path(field: &str, value: impl AsRef<Path>) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    c_string(field, value.as_ref().as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        parse_spec(text.as_bytes(), Path::new("bundle")).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_the_field() {
        for (text, field) in [
            (
                r#"{"ociVersion":"1.2.0","process":{"user":{"uid":0,"gid":0},"cwd":"/",
                "capabilities":{"bounding":["CAP_KILL", "CAP_FLY"]}}}"#,
                "process.capabilities.bounding[1]: ",
            ),
            (r#"{"ociVersion":"1.0.0","hostname":7}"#, "hostname: "),
            (
                r#"{"ociVersion":"1.0.0","linux":{"namespaces":[{"type":"net"}]}}"#,
                "linux.namespaces[0].type: ",
            ),
            (
                r#"{"ociVersion":"1.0.0","linux":{"devices":[{"path":"/dev/x"}]}}"#,
                "linux.devices[0]: missing",
            ),
            (r#"{"ociVersion":"1.0.0","root":{"readonly":"no"}}"#, "root.readonly: "),
            (r#"{"ociVersion":"1.0.0","mounts":{}}"#, "mounts: "),
            (r#"{"ociVersion":"2.0.0"}"#, "ociVersion: "),
            (r#"{"ociVersion":"1.x"}"#, "ociVersion: "),
        ] {
            let error = error_of(text);
            assert!(error.starts_with(field), "{field}{error}");
        }
    }

    #[test]
    fn rubbish_is_refused() {
        for text in ["", "[]", "{", r#"{"ociVersion":"1.0.0"} x"#, "{}", "\u{0}"] {
            assert!(error_of(text).len() > 10, "{text:?} was accepted");
        }
    }

    #[test]
    fn the_schedulers_flags_have_the_specifications_names() {
        let text = r#"{"ociVersion":"1.1.0","process":{"cwd":"/","scheduler":{"policy":"SCHED_BATCH",
            "flags":["SCHED_FLAG_RESET_ON_FORK"]},"execCPUAffinity":{"initial":"0","final":"0-1"}}}"#;
        let process = parse_spec(text.as_bytes(), Path::new("bundle")).unwrap().process.unwrap();
        assert_eq!(process.scheduler.unwrap().flags, ["SCHED_FLAG_RESET_ON_FORK"]);
        assert_eq!(process.exec_cpu_affinity.unwrap().last.as_deref(), Some("0-1"));
    }
}
