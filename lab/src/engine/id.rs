//! Ids and names of sandboxes.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};

use super::Error;

/// A new id: 256 random bits in hexadecimal, as docker's.
///
/// # Errors
/// Where the system gives no random bytes.
pub fn new() -> io::Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut id = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(id, "{byte:02x}");
    }
    Ok(id)
}

/// The first 12 digits: what people type and what the host name is.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Refuses what is no name. It becomes a file's name, so the rule is strict: docker's.
///
/// # Errors
/// The rule.
pub fn check_name(name: &str) -> Result<(), Error> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let good = name.len() >= 2
        && name.len() <= 128
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.bytes().all(inner);
    if good { Ok(()) } else { Err(Error::BadName { name: name.to_owned() }) }
}

/// Refuses what sethostname(2) or people would not take.
///
/// # Errors
/// The rule.
pub fn check_hostname(name: &str) -> Result<(), Error> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    // HOST_NAME_MAX is 64 on Linux; docker takes 63.
    let good = (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with(['-', '.']);
    if good { Ok(()) } else { Err(Error::BadHostname { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_long_hexadecimal_and_new_each_time() {
        let id = new().unwrap();
        assert_eq!(id.len(), 64);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(id, new().unwrap());
        assert_eq!(short(&id).len(), 12);
    }

    #[test]
    fn a_name_cannot_be_a_path() {
        assert!(check_name("web-1").is_ok());
        for name in ["", "a", "../x", "a/b", ".hidden", "-flag", "two words", "ä-1"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn host_names_follow_the_kernel_s_length() {
        assert!(check_hostname("h").is_ok());
        assert!(check_hostname(&"h".repeat(64)).is_err());
        assert!(check_hostname("a b").is_err());
    }
}
