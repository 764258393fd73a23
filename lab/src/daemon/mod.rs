//! The daemon: the engine behind Docker's API, so that the docker client and everything that speaks to it can use the lab.
//!
//! ```text
//!  docker ──► Unix socket ──► HTTP (hyper) ──► route ──► handler ──► Engine (the same that `lab` uses)
//!                                │                          │
//!                                └── upgraded: raw bytes ◄──┴──► the container's monitor
//! ```
//!
//! The daemon holds nothing: what is stored is the engine's, what runs is a monitor's. It may be killed and started again
//! at any moment; a client that was attached has to attach again, and that is all.
//!
//! Reading order: `route.rs`, which request goes where; `reply.rs`, answers and errors; `query.rs`, what a request says;
//! then one file for each part of the API: `system`, `containers`, `life`, `streams`, `exec`, `files`,
//! `images`, `registry`, `build`, `networks`, `volumes`.

mod build;
mod containers;
mod events;
mod exec;
mod files;
mod images;
mod life;
mod networks;
mod query;
mod registry;
mod reply;
mod route;
mod streams;
mod system;
mod volumes;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::engine;
use crate::engine::stored::Engine;

/// The newest version of the API that is spoken, and the oldest.
pub(crate) const API: (&str, &str) = ("1.50", "1.24");

/// Why the daemon cannot go on.
#[derive(Debug, Error)]
pub enum Error {
    /// The engine cannot be opened.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// Another daemon has the socket.
    #[error("{} is another daemon's; stop that one, or choose another --socket", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be listened on.
    #[error("listen on {}: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The event loop cannot be made.
    #[error("start the event loop: {0}")]
    Runtime(#[source] io::Error),
}

/// How the daemon is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub socket: PathBuf,
    /// Which group may connect.
    pub group: Option<u32>,
    /// Whether each request is told on standard error.
    pub trace: bool,
}

/// What every handler needs.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    engine: Arc<Engine>,
    trace: bool,
}

/// Serves until SIGTERM or SIGINT. `listening` is told where, once clients can connect.
///
/// # Errors
/// Where the socket cannot be listened on, or the engine not opened.
pub fn serve(options: &Options, listening: impl FnOnce(&Path)) -> Result<(), Error> {
    let engine = Engine::open()?;
    engine.revive()?;
    let daemon = Daemon { engine: Arc::new(engine), trace: options.trace };
    // One thread takes requests; the engine's work, which may block, is done by others.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let result = runtime.block_on(async {
        let socket = listen(options)?;
        let (mut term, mut int) = (
            signal(SignalKind::terminate()).map_err(Error::Runtime)?,
            signal(SignalKind::interrupt()).map_err(Error::Runtime)?,
        );
        listening(&options.socket);
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                accepted = socket.accept() => match accepted {
                    Ok((stream, _)) => drop(tokio::spawn(converse(daemon.clone(), stream))),
                    // Out of descriptors, most likely: those who are connected will leave some.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                },
            }
        }
        Ok(())
    });
    let _ = fs::remove_file(&options.socket);
    // Handlers that wait for a container do not hold the process.
    runtime.shutdown_background();
    result
}

fn listen(options: &Options) -> Result<UnixListener, Error> {
    let path = &options.socket;
    let failed = |source| Error::Socket { path: path.clone(), source };
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(parent).map_err(failed)?;
    }
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(Error::InUse { path: path.clone() });
        }
        // Left by a daemon that was killed.
        fs::remove_file(path).map_err(failed)?;
    }
    // Nobody else between the socket's making and its mode.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let socket = UnixListener::bind(path);
    rustix::process::umask(before);
    let socket = socket.map_err(failed)?;
    if let Some(group) = options.group {
        std::os::unix::fs::chown(path, None, Some(group)).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    }
    Ok(socket)
}

/// One client's connection: any number of requests.
async fn converse(daemon: Daemon, stream: UnixStream) {
    let service = service_fn(move |request| route::answer(daemon.clone(), request));
    // What goes wrong here is the client's hanging up.
    let _ = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

impl Daemon {
    /// Does the engine's work on a thread where it may block.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, reply::Refusal> + Send + 'static,
    ) -> Result<T, reply::Refusal> {
        let engine = Arc::clone(&self.engine);
        match tokio::task::spawn_blocking(move || work(&engine)).await {
            Ok(result) => result,
            Err(error) => Err(reply::Refusal::internal(format!("the handler failed: {error}"))),
        }
    }
}
