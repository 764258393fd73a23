//! Where clients connect: a Unix socket, TCP under TLS, or sockets that systemd has opened already.
//!
//! Whoever may speak to the daemon is root on this machine. So a Unix socket belongs to root and at most one group, and TCP
//! wants TLS with certificates of both sides (`--tlsverify`), or a flag that says that nobody else is there.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcp};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdUnix, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use super::Error;
use super::stream::Stream;

/// A place to listen on, as `-H` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `unix://PATH`.
    Unix(PathBuf),
    /// `tcp://ADDRESS:PORT`.
    Tcp(SocketAddr),
    /// `fd://`: what systemd hands over (sd_listen_fds(3)).
    Activated,
}

impl std::str::FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}': use unix://PATH, tcp://ADDRESS:PORT or fd://");
        match text.split_once("://").ok_or_else(wrong)? {
            ("unix", path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            ("tcp", address) => address.parse().map(Self::Tcp).map_err(|_| wrong()),
            ("fd", _) => Ok(Self::Activated),
            _ => Err(wrong()),
        }
    }
}

/// The files of `--tlsverify`, as docker's daemon names them.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Who signs the certificates of clients (PEM).
    pub ca: PathBuf,
    /// This daemon's certificate, and those that lead to its signer.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Tls {
    fn acceptor(&self) -> Result<TlsAcceptor, Error> {
        let failed = |path: &Path, reason: String| Error::Tls { path: path.to_owned(), reason };
        let certificates = |path: &PathBuf| -> Result<Vec<CertificateDer<'static>>, Error> {
            let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            let read: Vec<_> = read.map_err(|error| failed(path, error.to_string()))?;
            if read.is_empty() {
                Err(failed(path, "there is no certificate in it".to_owned()))
            } else {
                Ok(read)
            }
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|error| failed(&self.ca, error.to_string()))?;
        }
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| failed(&self.key, error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| failed(&self.ca, error.to_string()))?;
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&self.certificate, error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&self.certificate)?, key)
            .map_err(|error| failed(&self.certificate, error.to_string()))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// A socket that listens.
pub(super) enum Listener {
    /// The path is removed at the end, unless the socket was handed over.
    Unix(UnixListener, Option<PathBuf>),
    Tcp(TcpListener, Option<TlsAcceptor>),
}

impl Listener {
    /// Opens what was asked for. To be called inside the event loop.
    pub(super) fn open(
        host: &Host,
        group: Option<u32>,
        tls: Option<&Tls>,
        insecure: bool,
    ) -> Result<Vec<Self>, Error> {
        let acceptor = || match tls {
            Some(tls) => tls.acceptor().map(Some),
            None if insecure => Ok(None),
            None => Err(Error::Plain),
        };
        match host {
            Host::Unix(path) => Ok(vec![Self::Unix(unix(path, group)?, Some(path.clone()))]),
            Host::Tcp(address) => {
                let acceptor = acceptor()?;
                let failed = |source| Error::Address { address: address.to_string(), source };
                let socket = StdTcp::bind(address).map_err(failed)?;
                socket.set_nonblocking(true).map_err(failed)?;
                Ok(vec![Self::Tcp(TcpListener::from_std(socket).map_err(failed)?, acceptor)])
            }
            Host::Activated => {
                let sockets = crate::sys::activated_sockets();
                if sockets.is_empty() {
                    return Err(Error::NotActivated);
                }
                sockets.into_iter().map(|socket| Self::activated(socket, acceptor)).collect()
            }
        }
    }

    fn activated(
        socket: OwnedFd,
        acceptor: impl Fn() -> Result<Option<TlsAcceptor>, Error>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Address { address: "a socket of systemd's".to_owned(), source };
        let local = rustix::net::getsockname(&socket).map_err(|errno| failed(errno.into()))?;
        if local.address_family() == rustix::net::AddressFamily::UNIX {
            let socket = StdUnix::from(socket);
            socket.set_nonblocking(true).map_err(failed)?;
            return Ok(Self::Unix(UnixListener::from_std(socket).map_err(failed)?, None));
        }
        let socket = StdTcp::from(socket);
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Self::Tcp(TcpListener::from_std(socket).map_err(failed)?, acceptor()?))
    }

    /// The next client. What goes wrong with one of them is that one's end.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Option<TlsAcceptor>)> {
        match self {
            Self::Unix(socket, _) => Ok((Stream::Unix(socket.accept().await?.0), None)),
            Self::Tcp(socket, acceptor) => {
                let (stream, _) = socket.accept().await?;
                // Requests are small and wait for answers.
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), acceptor.clone()))
            }
        }
    }

    /// As `-H` has it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Unix(_, Some(path)) => format!("unix://{}", path.display()),
            Self::Unix(_, None) => "fd://".to_owned(),
            Self::Tcp(socket, acceptor) => {
                let address = socket.local_addr().map(|address| address.to_string()).unwrap_or_default();
                format!(
                    "tcp://{address}{}",
                    if acceptor.is_some() { " (TLS)" } else { " (anybody who reaches it is root here)" }
                )
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, Some(path)) = self {
            let _ = fs::remove_file(path);
        }
    }
}

fn unix(path: &Path, group: Option<u32>) -> Result<UnixListener, Error> {
    let failed = |source| Error::Socket { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(parent).map_err(failed)?;
    }
    if path.exists() {
        if StdStream::connect(path).is_ok() {
            return Err(Error::InUse { path: path.to_owned() });
        }
        // Left by a daemon that was killed.
        fs::remove_file(path).map_err(failed)?;
    }
    // Nobody else between the socket's making and its mode.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let socket = UnixListener::bind(path);
    rustix::process::umask(before);
    let socket = socket.map_err(failed)?;
    if let Some(group) = group {
        std::os::unix::fs::chown(path, None, Some(group)).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_docker_s() {
        assert_eq!("unix:///run/x".parse(), Ok(Host::Unix("/run/x".into())));
        assert_eq!("tcp://127.0.0.1:2376".parse(), Ok(Host::Tcp(([127, 0, 0, 1], 2376).into())));
        assert_eq!("fd://".parse(), Ok(Host::Activated));
        for text in ["", "unix://relative", "tcp://2376", "http://x", "/run/x"] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }
}
