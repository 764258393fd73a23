//! Whose name and secret a registry is shown: docker's configuration file, its credential helpers, or what a client sends
//! with its request.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::image::error::{Error, Result};

/// The name under which docker's file has Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";

/// What a registry is shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    #[default]
    None,
    /// A name and a password, or an access token in its place.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token for this registry.
    Token(String),
    /// A token that would have to be exchanged first, which is not built.
    IdentityToken,
}

/// Secrets are not for logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password { .. } => "Password(…)",
            Self::Token(_) => "Token(…)",
            Self::IdentityToken => "IdentityToken",
        })
    }
}

/// Docker's `AuthConfig`, as requests and files have it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthConfig {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

impl Credentials {
    /// From the header `X-Registry-Auth`: JSON in base64, of either alphabet, padded or not.
    ///
    /// # Errors
    /// What is neither.
    pub fn from_header(header: &str) -> Result<Self> {
        let wrong = || Error::malformed("X-Registry-Auth", "JSON in base64 is expected");
        let json = base64_any(header.trim()).ok_or_else(wrong)?;
        // Clients without credentials send an empty object, or nothing at all, or `null`.
        let config: Option<AuthConfig> =
            if json.is_empty() { None } else { serde_json::from_slice(&json).map_err(|_| wrong())? };
        Self::from_config(config.unwrap_or_default(), "X-Registry-Auth")
    }

    /// From the header `X-Registry-Config`: as [`Credentials::from_header`], for each registry by its host.
    ///
    /// # Errors
    /// What is neither JSON nor base64.
    pub fn all_from_header(header: &str) -> Result<BTreeMap<String, Self>> {
        const OBJECT: &str = "X-Registry-Config";
        let wrong = || Error::malformed(OBJECT, "JSON in base64 is expected");
        let json = base64_any(header.trim()).ok_or_else(wrong)?;
        let all: Option<BTreeMap<String, AuthConfig>> =
            if json.is_empty() { None } else { serde_json::from_slice(&json).map_err(|_| wrong())? };
        let of = |(server, config): (String, AuthConfig)| {
            Ok((domain(&server).to_owned(), Self::from_config(config, OBJECT)?))
        };
        all.unwrap_or_default().into_iter().map(of).collect()
    }

    /// From the body of `POST /auth`.
    ///
    /// # Errors
    /// What is no configuration of this kind.
    pub fn from_body(body: &Value) -> Result<Self> {
        let config = serde_json::from_value(body.clone());
        Self::from_config(
            config.map_err(|error| Error::malformed("the credentials", error))?,
            "the credentials",
        )
    }

    fn from_config(config: AuthConfig, object: &str) -> Result<Self> {
        if !config.registrytoken.is_empty() {
            return Ok(Self::Token(config.registrytoken));
        }
        if !config.identitytoken.is_empty() {
            return Ok(Self::IdentityToken);
        }
        if !config.username.is_empty() {
            return Ok(Self::Password { user: config.username, password: config.password });
        }
        if config.auth.is_empty() {
            return Ok(Self::None);
        }
        let wrong = || Error::malformed(object, "its field auth is not USER:PASSWORD in base64");
        let text =
            base64_any(&config.auth).and_then(|text| String::from_utf8(text).ok()).ok_or_else(wrong)?;
        let (user, password) = text.split_once(':').ok_or_else(wrong)?;
        // Docker wrote passwords with a NUL behind them.
        Ok(Self::Password { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned() })
    }
}

fn base64_any(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decode = |alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok();
    decode(&alphabet::URL_SAFE).or_else(|| decode(&alphabet::STANDARD))
}

/// A registry's host, whatever scheme and path it is written with; Docker Hub under its short name.
pub(crate) fn domain(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    if matches!(host, "" | "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host }
}

/// `config.json` of the docker client, which other tools read and write, too.
#[derive(Debug)]
pub struct DockerConfig {
    path: PathBuf,
    content: Map<String, Value>,
}

impl DockerConfig {
    /// Reads `$DOCKER_CONFIG/config.json`, or that in `~/.docker`. One that is missing is empty.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn open() -> Result<Self> {
        let directory = std::env::var_os("DOCKER_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        let path = directory.unwrap_or_else(|| home().join(".docker")).join("config.json");
        let content = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Map::new(),
            text => serde_json::from_slice(&text.map_err(Error::io("reading", &path))?)
                .map_err(|error| Error::malformed(path.display().to_string(), error))?,
        };
        Ok(Self { path, content })
    }

    /// The file's path.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// The credentials for a registry, given by its host.
    ///
    /// # Errors
    /// Where a helper fails, or the file has what makes no sense.
    pub fn credentials(&self, host: &str) -> Result<Credentials> {
        if let Some(helper) = self.helper(host) {
            return ask_helper(&helper, &server(host));
        }
        let Some(auths) = self.content.get("auths").and_then(Value::as_object) else {
            return Ok(Credentials::None);
        };
        let Some((key, found)) = auths.iter().find(|(key, _)| domain(key) == domain(host)) else {
            return Ok(Credentials::None);
        };
        let object = format!("{}: {key}", self.path.display());
        let config =
            serde_json::from_value(found.clone()).map_err(|error| Error::malformed(&object, error))?;
        Credentials::from_config(config, &object)
    }

    /// Remembers credentials that a registry has taken.
    ///
    /// # Errors
    /// Where a helper fails, or the file cannot be written.
    pub fn remember(&mut self, host: &str, user: &str, password: &str) -> Result<()> {
        if let Some(helper) = self.helper(host) {
            let entry = json!({"ServerURL": server(host), "Username": user, "Secret": password});
            return call_helper(&helper, "store", &entry.to_string()).map(drop);
        }
        let auth = STANDARD.encode(format!("{user}:{password}"));
        self.auths().insert(server(host), json!({"auth": auth}));
        self.write()
    }

    /// Forgets the credentials for a registry; false where there were none.
    ///
    /// # Errors
    /// Where a helper fails, or the file cannot be written.
    pub fn forget(&mut self, host: &str) -> Result<bool> {
        if let Some(helper) = self.helper(host) {
            call_helper(&helper, "erase", &server(host))?;
        }
        let before = self.auths().len();
        self.auths().retain(|key, _| domain(key) != domain(host));
        let forgotten = self.auths().len() < before;
        if forgotten {
            self.write()?;
        }
        Ok(forgotten)
    }

    fn auths(&mut self) -> &mut Map<String, Value> {
        let auths = self.content.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        match auths {
            Value::Object(auths) => auths,
            _ => unreachable!("it has just been made one"),
        }
    }

    /// The program that keeps the secrets of a registry, if there is one.
    fn helper(&self, host: &str) -> Option<String> {
        let helpers: BTreeMap<String, String> = self
            .content
            .get("credHelpers")
            .and_then(|helpers| serde_json::from_value(helpers.clone()).ok())
            .unwrap_or_default();
        let own = helpers.into_iter().find(|(key, _)| domain(key) == domain(host)).map(|(_, helper)| helper);
        let general = || self.content.get("credsStore").and_then(Value::as_str).map(str::to_owned);
        own.or_else(general).filter(|helper| !helper.is_empty())
    }

    /// Whole or not at all, and for its owner alone.
    fn write(&self) -> Result<()> {
        let directory = self.path.parent().unwrap_or(std::path::Path::new("."));
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(directory)?;
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
            serde_json::to_writer_pretty(&mut file, &self.content)?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            Ok(())
        };
        write().map_err(Error::io("writing", &self.path))
    }
}

/// A registry as docker's file and the helpers know it.
fn server(host: &str) -> String {
    if domain(host) == "docker.io" { HUB.to_owned() } else { domain(host).to_owned() }
}

/// What a helper says (docker-credential-helpers, "Development").
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

fn ask_helper(helper: &str, server: &str) -> Result<Credentials> {
    let text = match call_helper(helper, "get", server) {
        Err(Error::Malformed { reason, .. }) if reason.contains("credentials not found") => {
            return Ok(Credentials::None);
        }
        text => text?,
    };
    let answer: Answer = serde_json::from_str(&text)
        .map_err(|error| Error::malformed(format!("docker-credential-{helper}"), error))?;
    Ok(match answer.username.as_str() {
        "<token>" => Credentials::IdentityToken,
        _ => Credentials::Password { user: answer.username, password: answer.secret },
    })
}

fn call_helper(helper: &str, action: &str, input: &str) -> Result<String> {
    let program = format!("docker-credential-{helper}");
    if helper.contains('/') {
        return Err(Error::malformed(program, "a helper is named by the end of its program's name"));
    }
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Error::io("starting", &program))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has what it needs may not read on.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(Error::io("waiting for", &program))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(Error::malformed(format!("{program} {action}"), text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: Value) -> DockerConfig {
        let Value::Object(content) = json else { unreachable!() };
        DockerConfig { path: PathBuf::from("/nowhere/config.json"), content }
    }

    fn password(user: &str, password: &str) -> Credentials {
        Credentials::Password { user: user.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn a_registry_is_found_however_the_file_writes_it() {
        let auth = STANDARD.encode("eva:s:ecret");
        let config = config(json!({"auths": {
            "https://index.docker.io/v1/": {"auth": auth},
            "http://localhost:5000/v2/": {"auth": auth},
            "token.example": {"identitytoken": "x"},
            "empty.example": {},
        }}));
        for host in ["docker.io", "localhost:5000", "https://localhost:5000"] {
            assert_eq!(config.credentials(host).unwrap(), password("eva", "s:ecret"), "{host}");
        }
        for host in ["localhost:5001", "empty.example"] {
            assert_eq!(config.credentials(host).unwrap(), Credentials::None, "{host}");
        }
        assert_eq!(config.credentials("token.example").unwrap(), Credentials::IdentityToken);
    }

    #[test]
    fn headers_are_read_in_every_form_that_clients_send() {
        let json = r#"{"username":"eva","password":"??>>","serveraddress":"localhost:5000"}"#;
        let url_safe = base64::engine::general_purpose::URL_SAFE.encode(json);
        for header in [&url_safe, url_safe.trim_end_matches('='), &STANDARD.encode(json)] {
            assert_eq!(Credentials::from_header(header).unwrap(), password("eva", "??>>"));
        }
        for header in ["", "e30=", "bnVsbA"] {
            assert_eq!(Credentials::from_header(header).unwrap(), Credentials::None, "{header}");
        }
        for header in ["%", "bm9uc2Vuc2U"] {
            assert!(Credentials::from_header(header).is_err(), "{header}");
        }
        let token = STANDARD.encode(r#"{"registrytoken":"t"}"#);
        assert_eq!(Credentials::from_header(&token).unwrap(), Credentials::Token("t".to_owned()));
        assert!(!format!("{:?}", password("eva", "secret")).contains("secret"));
    }

    #[test]
    fn what_is_remembered_is_the_owner_s_alone_and_can_be_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/config.json");
        let mut config = DockerConfig { path: path.clone(), content: Map::new() };
        config.content.insert("other".to_owned(), json!(1));
        config.remember("localhost:5000", "eva", "secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("other") && text.contains("localhost:5000"), "{text}");
        assert_eq!(config.credentials("localhost:5000").unwrap(), password("eva", "secret"));
        assert!(config.forget("localhost:5000").unwrap() && !config.forget("localhost:5000").unwrap());
    }
}
