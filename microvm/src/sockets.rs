//! Unix sockets that a machine offers at paths of the host: files, which must be gone when it is.

use std::fs;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::devices::virtio::vsock::Vsock;

/// Where a guest's vsock meets the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VsockPath {
    /// The socket that programs of the host connect to. It is made, and removed at the machine's end.
    pub path: PathBuf,
    /// The same, as the machine's process sees it when the guest connects to `PATH_PORT`: it may have another root by then.
    pub inside: PathBuf,
}

impl From<PathBuf> for VsockPath {
    fn from(path: PathBuf) -> Self {
        Self { inside: path.clone(), path }
    }
}

/// A socket's file. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl SocketFile {
    /// Listens at a path where nothing is.
    pub(crate) fn listen(path: &Path) -> Result<(Self, UnixListener), Error> {
        let listener = UnixListener::bind(path).map_err(Error::file("listen on the socket", path))?;
        Ok((Self(path.to_owned()), listener))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The device, and its socket's file.
pub(crate) fn vsock(at: &VsockPath) -> Result<(SocketFile, Vsock), Error> {
    let (file, listener) = SocketFile::listen(&at.path)?;
    let device = Vsock::new(listener, at.inside.clone());
    Ok((file, device.map_err(Error::system("set up the socket device (epoll_create1)"))?))
}

/// Removes a socket that a machine's process left; none is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
