//! A conversation with one registry about one repository, and what its refusals mean.

use std::time::Duration;

use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference as Remote, RegistryOperation};

use super::credentials::Credentials;
use super::{Listener, News};
use crate::image::digest::Digest;
use crate::image::error::{Error, Refused, Result};
use crate::image::reference::Reference;

/// A registry that does not answer at all is given up after this.
const CONNECT: Duration = Duration::from_secs(15);
/// One that answers no more, after this.
const SILENCE: Duration = Duration::from_secs(60);

pub(super) struct Session<'a> {
    pub client: Client,
    pub name: Reference,
    pub listener: &'a dyn Listener,
}

impl<'a> Session<'a> {
    /// Begins a conversation: finds out how the registry wants to be talked to, and shows it the credentials.
    pub async fn open(
        name: &Reference,
        credentials: &Credentials,
        operation: RegistryOperation,
        listener: &'a dyn Listener,
    ) -> Result<Self> {
        let session = Self { client: client(name.host())?, name: name.clone(), listener };
        let auth = auth(credentials, name.host())?;
        let remote = session.remote(name.tag(), None);
        let opened = session.client.auth(&remote, &auth, operation).await;
        opened.map_err(|error| session.refused(error, "pull or push"))?;
        Ok(session)
    }

    /// The name as oci-client has it.
    pub fn remote(&self, tag: Option<&str>, digest: Option<Digest>) -> Remote {
        let (host, repository) = (self.name.host().to_owned(), self.name.repository().to_owned());
        match (digest, tag) {
            (Some(digest), _) => Remote::with_digest(host, repository, digest.to_string()),
            (None, tag) => Remote::with_tag(host, repository, tag.unwrap_or("latest").to_owned()),
        }
    }

    /// Tells the listener; an error where nobody listens any more.
    pub fn tell(&self, id: Option<&str>, status: &str, progress: Option<(u64, u64)>) -> Result<()> {
        if self.listener.hear(&News { id, status, progress }) { Ok(()) } else { Err(Error::Cancelled) }
    }

    /// What a registry's refusal means, in docker's words where it has any.
    pub fn refused(&self, error: OciDistributionError, what: &'static str) -> Error {
        refused(&self.name, error, what)
    }
}

/// A client for a registry. Those of this machine speak plain HTTP, as docker has it; all others TLS.
fn client(host: &str) -> Result<Client> {
    // The library leaves the choice of the cryptography to the program. Chosen before, it stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let protocol = if is_this_machine(host) {
        ClientProtocol::HttpsExcept(vec![host.to_owned()])
    } else {
        ClientProtocol::Https
    };
    let config = ClientConfig {
        protocol,
        connect_timeout: Some(CONNECT),
        read_timeout: Some(SILENCE),
        // In parts, a blob would be as many requests; and docker's own registry takes it whole.
        use_monolithic_push: true,
        user_agent: concat!("lab/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    Client::try_from(config).map_err(|error| Error::Registry {
        refused: Refused::Failed,
        message: format!("prepare a connection to {host}: {}; is ca-certificates installed?", chain(&error)),
    })
}

/// `localhost` and 127.0.0.0/8 (docker's "insecure registries" by default), and ::1.
fn is_this_machine(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost"
        || name
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn auth(credentials: &Credentials, host: &str) -> Result<RegistryAuth> {
    Ok(match credentials {
        Credentials::None => RegistryAuth::Anonymous,
        Credentials::Password { user, password } => RegistryAuth::Basic(user.clone(), password.clone()),
        Credentials::Token(token) => RegistryAuth::Bearer(token.clone()),
        Credentials::IdentityToken => {
            return Err(Error::Registry {
                refused: Refused::Denied,
                message: format!(
                    "the credentials for {host} are an identity token, which the lab cannot use: log in with a password or an \
                     access token, `lab login {host}`"
                ),
            });
        }
    })
}

/// Shows a registry credentials, and says whether it takes them.
///
/// # Errors
/// Where it does not, or does not answer.
pub fn log_in(host: &str, credentials: &Credentials) -> Result<()> {
    // Any name will do: what is asked is whether the question is allowed.
    let name: Reference = format!("{}/lab/login", super::credentials::domain(host)).parse()?;
    run(async {
        let session = Session::open(&name, credentials, RegistryOperation::Pull, &()).await?;
        let remote = session.remote(None, None);
        let auth = auth(credentials, name.host())?;
        match session.client.list_tags(&remote, &auth, Some(1), None).await {
            // That there is no such repository is answered to those who may ask.
            Ok(_)
            | Err(
                OciDistributionError::RegistryError { .. }
                | OciDistributionError::ServerError { code: 404 | 405, .. },
            ) => Ok(()),
            Err(OciDistributionError::UnauthorizedError { .. }) => Err(Error::Registry {
                refused: Refused::Credentials,
                message: format!(
                    "login attempt to {host} failed: unauthorized: incorrect username or password"
                ),
            }),
            Err(error) => Err(session.refused(error, "log in to")),
        }
    })
}

/// All tags of a repository.
///
/// # Errors
/// Where the registry refuses or fails.
pub fn tags(name: &Reference, credentials: &Credentials) -> Result<Vec<String>> {
    run(async {
        let session = Session::open(name, credentials, RegistryOperation::Pull, &()).await?;
        let auth = auth(credentials, name.host())?;
        let listed = session.client.list_tags(&session.remote(None, None), &auth, None, None).await;
        Ok(listed.map_err(|error| session.refused(error, "pull"))?.tags)
    })
}

/// Runs a conversation to its end, on the calling thread.
pub(super) fn run<T>(conversation: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::io("starting", "the event loop"))?.block_on(conversation)
}

fn refused(name: &Reference, error: OciDistributionError, what: &'static str) -> Error {
    use OciDistributionError as E;
    let (host, full) = (name.host(), name.familiar());
    let repository = name.familiar_repository();
    let denied = |detail: &str| Error::Registry {
        refused: Refused::Denied,
        message: format!(
            "{what} access denied for {repository}, repository does not exist or may require 'lab login {host}': {detail}"
        ),
    };
    let failed = |message: String| Error::Registry { refused: Refused::Failed, message };
    match error {
        E::UnauthorizedError { .. } => denied("no basic auth credentials"),
        E::AuthenticationFailure(detail) => Error::Registry {
            refused: Refused::Credentials,
            message: format!(
                "login attempt to {host} failed: unauthorized: incorrect username or password{}",
                detail_of(&detail)
            ),
        },
        E::ServerError { code: 401 | 403, message, .. } => denied(&first_line(&message)),
        E::ServerError { code, message, .. } => {
            failed(format!("{what} {full}: registry {host} answered {code}: {}", first_line(&message)))
        }
        E::RegistryError { envelope, .. } => {
            let first = envelope.errors.into_iter().next();
            match first {
                Some(first)
                    if matches!(first.code, OciErrorCode::ManifestUnknown | OciErrorCode::NotFound) =>
                {
                    Error::Registry {
                        refused: Refused::Missing,
                        message: format!(
                            "manifest for {full} not found: manifest unknown: {}",
                            first.message
                        ),
                    }
                }
                Some(first) if matches!(first.code, OciErrorCode::NameUnknown) => Error::Registry {
                    refused: Refused::Missing,
                    message: format!("repository {repository} not found: name unknown: {}", first.message),
                },
                Some(first) if matches!(first.code, OciErrorCode::Denied | OciErrorCode::Unauthorized) => {
                    denied(&first.message)
                }
                Some(first) => {
                    failed(format!("{what} {full}: registry {host}: {:?}: {}", first.code, first.message))
                }
                None => failed(format!("{what} {full}: registry {host} refused, and did not say why")),
            }
        }
        E::RequestError(error) if error.is_connect() => {
            let cause = chain(&error);
            let cause = cause.rsplit(": ").next().unwrap_or_default();
            failed(format!(
                "registry {host} cannot be reached: {cause}; is its name right, does it run, is there a network?"
            ))
        }
        E::DigestError(error) => {
            failed(format!("{what} {full}: registry {host} sent something else: {error}"))
        }
        error => failed(format!("{what} {full}: registry {host}: {}", chain(&error))),
    }
}

fn detail_of(detail: &str) -> String {
    let detail = first_line(detail);
    if detail.is_empty() { detail } else { format!(" ({detail})") }
}

/// A server's answer may be a page: its beginning will do.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

/// An error and its causes, of which the last says most.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_of_this_machine_are_known_by_their_address() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["docker.io", "localhost.example:5000", "10.0.0.1:5000", "registry:5000"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
