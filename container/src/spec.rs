//! Reading the bundle: `config.json`, as the OCI runtime specification defines it.

use std::ffi::CString;
use std::path::Path;

use oci_spec::runtime::{Process, Spec};
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// A configuration larger than this is refused before it is parsed: the largest in use are below 1 MiB.
const MAX_BYTES: u64 = 16 << 20;

/// Reads a bundle's `config.json` and checks what does not depend on the machine.
///
/// # Errors
/// [`Error::Bundle`] without a readable file, [`Error::Config`] naming the field that is wrong.
pub fn load(bundle: &Path) -> Result<Spec> {
    let spec: Spec = read(&bundle.join("config.json"))?;
    let version = spec.version();
    if !version.starts_with("1.") {
        let reason = format!("{version:?} is not a version this runtime knows; it carries out 1.0 to 1.3");
        return Err(Error::config("ociVersion", reason));
    }
    Ok(spec)
}

/// Reads a process as `exec --process FILE` takes it.
///
/// # Errors
/// As [`load`].
pub fn load_process(path: &Path) -> Result<Process> {
    read(path)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let unreadable = |reason: String| Error::Bundle { path: path.to_owned(), reason };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MAX_BYTES {
        return Err(unreadable(format!("{size} bytes are more than a configuration can have ({MAX_BYTES})")));
    }
    let text = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    parse(&text).map_err(|(field, reason)| match field.as_str() {
        "." => unreadable(reason),
        _ => Error::config(field, reason),
    })
}

/// Parses JSON; an error carries the path of the field it is about.
fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, (String, String)> {
    // serde takes an array for a structure too, field by field; the specification does not.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err((".".to_owned(), "it does not hold a JSON object".to_owned()));
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| (error.path().to_string(), error.into_inner().to_string()))?;
    json.end().map_err(|error| (".".to_owned(), error.to_string()))?;
    Ok(value)
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

    fn field_of(text: &str) -> String {
        parse::<Spec>(text.as_bytes()).unwrap_err().0
    }

    #[test]
    fn an_error_names_the_field() {
        let text = r#"{"ociVersion":"1.2.0","root":{"path":"rootfs"},"process":{"user":{"uid":0,"gid":0},"cwd":"/",
            "capabilities":{"bounding":["CAP_KILL","CAP_FLY"]}}}"#;
        assert_eq!(field_of(text), "process.capabilities.bounding[1]");
        assert_eq!(field_of(r#"{"ociVersion":"1.0.0","hostname":7}"#), "hostname");
    }

    #[test]
    fn rubbish_is_refused() {
        for text in ["", "[]", "{", r#"{"ociVersion":"1.0.0"} x"#] {
            assert!(parse::<Spec>(text.as_bytes()).is_err(), "{text:?} was accepted");
        }
    }
}
