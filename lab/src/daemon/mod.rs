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
//! Reading order: `listen.rs` and `stream.rs`, where clients come from; `route.rs`, which request goes where; `reply.rs`, answers and errors; `query.rs`, what a request says;
//! then one file for each part of the API: `system`, `containers`, `life`, `streams`, `exec`, `files`,
//! `images`, `registry`, `build`, `networks`, `volumes`.

mod build;
mod containers;
mod events;
mod exec;
mod files;
mod images;
mod life;
mod listen;
mod networks;
mod query;
mod registry;
mod reply;
mod route;
mod stream;
mod streams;
mod system;
mod volumes;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

use crate::engine;
use crate::engine::monitor::Seed;
use crate::engine::stored::Engine;
use listen::Listener;
pub use listen::{Host, Tls};
use stream::Stream;

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
    /// An address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Address {
        /// The address.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// A file of TLS cannot be used.
    #[error("{}: {reason}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// TCP for everybody.
    #[error(
        "whoever reaches a TCP port of the daemon is root on this machine: use --tlsverify with --tlscacert, --tlscert and \
         --tlskey, or say --insecure-tcp"
    )]
    Plain,
    /// `fd://` without systemd.
    #[error("no socket was handed over: fd:// is for a daemon that systemd starts by a socket unit")]
    NotActivated,
    /// The event loop cannot be made.
    #[error("start the event loop: {0}")]
    Runtime(#[source] io::Error),
}

/// How the daemon is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub hosts: Vec<Host>,
    /// How clients over TCP prove who they are.
    pub tls: Option<Tls>,
    /// Whether TCP without TLS is what the user wants.
    pub insecure: bool,
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

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT. To be called while the process has one thread. `listening` is told where, once clients can connect.
///
/// # Errors
/// Where a socket cannot be listened on, or the engine not opened.
pub fn serve(options: &Options, listening: impl FnOnce(&[String])) -> Result<(), Error> {
    // First of all: it must be made while there is one thread, and has the least to carry now.
    let seed = Seed::plant().map_err(Error::Runtime)?;
    let engine = Engine::open()?.with_seed(seed);
    let daemon = Daemon { engine: Arc::new(engine), trace: options.trace };
    // One thread takes requests; the engine's work, which may block, is done by others.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let result = runtime.block_on(async {
        let mut listeners = Vec::new();
        for host in &options.hosts {
            listeners.extend(Listener::open(host, options.group, options.tls.as_ref(), options.insecure)?);
        }
        let (mut term, mut int) = (
            signal(SignalKind::terminate()).map_err(Error::Runtime)?,
            signal(SignalKind::interrupt()).map_err(Error::Runtime)?,
        );
        // What was killed in the middle of its work has left cables, bridges and rules.
        daemon.engine.clear_networks()?;
        daemon.engine.revive()?;
        listening(&listeners.iter().map(Listener::name).collect::<Vec<_>>());
        crate::sys::notify_ready();
        let listeners: Vec<Arc<Listener>> = listeners.into_iter().map(Arc::new).collect();
        for listener in &listeners {
            tokio::spawn(accept(daemon.clone(), Arc::clone(listener)));
        }
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        Ok(())
    });
    // Handlers that wait for a container do not hold the process.
    runtime.shutdown_background();
    result
}

async fn accept(daemon: Daemon, listener: Arc<Listener>) {
    loop {
        match listener.accept().await {
            Ok((stream, acceptor)) => drop(tokio::spawn(converse(daemon.clone(), stream, acceptor))),
            // Out of descriptors, most likely: those who are connected will leave some.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// One client's connection: any number of requests.
async fn converse(daemon: Daemon, stream: Stream, acceptor: Option<TlsAcceptor>) {
    let stream = match (stream, acceptor) {
        (Stream::Tcp(stream), Some(acceptor)) => {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
                // Somebody without a certificate, or who says nothing.
                _ => return,
            }
        }
        (stream, _) => stream,
    };
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
