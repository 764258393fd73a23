//! Names of images, as docker reads and writes them.
//!
//! `busybox` means `docker.io/library/busybox:latest`; that full form is what the store keeps, and the short form is
//! what people see. The rules are those of the distribution project's reference grammar, checked by hand: its regular
//! expression would cost more than all the rest of finding an image.

use std::fmt;
use std::str::FromStr;

use super::digest::Digest;
use super::error::Error;

const DEFAULT_HOST: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// distribution/reference: "NameTotalLengthMax".
const LONGEST_NAME: usize = 255;
/// distribution/reference: a tag is `[\w][\w.-]{0,127}`.
const LONGEST_TAG: usize = 128;

/// A name in full: host, repository, and a tag or digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The repository as people write it: `busybox`, `ghcr.io/you/app`.
    pub fn familiar_repository(&self) -> String {
        if self.host == DEFAULT_HOST {
            return self.repository.strip_prefix(DEFAULT_NAMESPACE).unwrap_or(&self.repository).to_owned();
        }
        format!("{}/{}", self.host, self.repository)
    }

    /// The registry's host, with its port where it is not the usual one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository, as its registry knows it.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The same repository's image of a digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository's image of a tag.
    ///
    /// # Errors
    /// Where it is no tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, Error> {
        check_tag(tag).map_err(|reason| Error::Name { name: tag.to_owned(), reason })?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The tag, `latest` where none was given and there is no digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest after the `@`, where one was given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The name as people write it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_repository(), self.suffix())
    }

    /// What is behind the repository: `:TAG`, `@DIGEST`.
    pub(crate) fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

/// The full form, by which the store knows the image.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.host, self.repository, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::Name { name: name.to_owned(), reason };
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (name, None),
        };
        // A colon after the last slash begins a tag; before it, it belongs to the host's port.
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if let Some(tag) = &tag {
            check_tag(tag).map_err(wrong)?;
        }
        // The part before the first slash is a host if it could be none of a repository: it has a dot or a port, or is
        // `localhost` (distribution/reference, `splitDockerDomain`).
        let (host, repository) = match path.split_once('/') {
            Some((host, repository)) if host.contains(['.', ':']) || host == "localhost" => {
                (host, repository)
            }
            _ => (DEFAULT_HOST, path),
        };
        check_host(host).map_err(wrong)?;
        check_repository(repository).map_err(wrong)?;
        let host = if host == "index.docker.io" { DEFAULT_HOST } else { host };
        let namespace =
            if host == DEFAULT_HOST && !repository.contains('/') { DEFAULT_NAMESPACE } else { "" };
        if host.len() + namespace.len() + repository.len() > LONGEST_NAME {
            return Err(wrong("it is longer than 255 characters"));
        }
        Ok(Self {
            host: host.to_owned(),
            repository: format!("{namespace}{repository}"),
            tag: tag.or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned())),
            digest,
        })
    }
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if tag.is_empty() || tag.len() > LONGEST_TAG {
        return Err("a tag has 1 to 128 characters");
    }
    if !tag.starts_with(word) || !tag.chars().all(|c| word(c) || c == '.' || c == '-') {
        return Err("a tag has letters, digits, _, . and - only, and begins with none of the last two");
    }
    Ok(())
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let (name, port) = host.split_once(':').map_or((host, "0"), |(name, port)| (name, port));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    if !name.split('.').all(label) {
        return Err("its host is no host name");
    }
    if port.parse::<u16>().is_err() {
        return Err("its port is no number from 0 to 65535");
    }
    Ok(())
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    let separator = |c: char| matches!(c, '.' | '_' | '-');
    for component in repository.split('/') {
        if component.is_empty() {
            return Err("a part between slashes is empty");
        }
        if component.chars().any(|c| c.is_ascii_uppercase()) {
            return Err("it must be lower case");
        }
        if !component.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || separator(c)) {
            return Err("it has letters, digits, ., _ and - only");
        }
        if component.starts_with(separator) || component.ends_with(separator) {
            return Err("no part may begin or end with ., _ or -");
        }
        if component.contains("..") || component.contains("___") {
            return Err("it has too many dots or underscores in a row");
        }
    }
    // 64 hexadecimal digits would be an image's id (distribution/reference, `ParseNormalizedNamed`).
    if Digest::from_hex(repository).is_some() {
        return Err("64 hexadecimal digits are an image's id");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_mean_what_they_mean_to_docker() {
        for (given, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("you/app:1.0", "docker.io/you/app:1.0", "you/app:1.0"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("reg.example:5000/a/b:c", "reg.example:5000/a/b:c", "reg.example:5000/a/b:c"),
            ("index.docker.io/library/lab", "docker.io/library/lab:latest", "lab:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ] {
            let reference: Reference = given.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(full.parse::<Reference>().unwrap(), reference, "the full form means itself");
        }
    }

    #[test]
    fn a_digest_stands_in_for_the_tag() {
        let name = format!("busybox@{}", Digest::of(b""));
        let reference: Reference = name.parse().unwrap();
        assert_eq!(reference.tag(), None);
        assert_eq!(reference.digest(), Some(Digest::of(b"")));
    }

    #[test]
    fn a_name_that_breaks_the_rules_is_told_which() {
        for name in
            ["", "UPPER", "a//b", "-a", "a:", "a:.b", "../../etc", "a b", "a@sha256:12", "é", "h.x:99999/a"]
        {
            let error = name.parse::<Reference>().unwrap_err().to_string();
            assert!(!error.contains('\n'), "{error}");
        }
        assert!("UPPER".parse::<Reference>().unwrap_err().to_string().contains("must be lower case"));
    }
}
