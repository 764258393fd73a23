//! From a stored container to a workload that runs.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use microvm::network::Network;
use rustix::pipe::{PipeFlags, pipe_with};

use super::ports::Ports;
use super::streams::Run;
use super::{Monitor, names};
use crate::engine::error::Context as _;
use crate::engine::place::Place;
use crate::engine::run::{self, Creation};
use crate::engine::sandbox::{Sandbox, Stdio};
use crate::engine::signals::Signals;
use crate::engine::stored::{Engine, Record, plan};
use crate::engine::{Error, Runtime, bundle, container, passt, terminal, vm};
use crate::image::users::Accounts;

/// Sets a container up and starts its workload.
pub(super) fn set_up(monitor: &Monitor, record: &Record, place: &Place) -> Result<Run, Error> {
    let engine = &monitor.engine;
    let wishes = plan::wishes(&record.body)?;
    let mut mounts = engine.mounts(&wishes)?;
    let endpoints = engine.raise_all(record)?;
    let (names, server) = names::serve(engine, &endpoints)?;
    let in_user_space = record.uses_passt();
    let server = if in_user_space { Some(passt::NAMES) } else { server };
    let told = engine.linked(record)?;
    let mut files = names::files(record, &endpoints, server, &told.hosts);
    // Unless the user mounts others.
    files.retain(|(target, _)| !wishes.iter().any(|wish| wish.target == *target));
    let mut network = Network::default();
    match record.runtime() {
        Runtime::Container => {
            // Who is in another's network knows whom the other knows, by the other's files.
            let other = record.network_name().strip_prefix("container:").map(|other| engine.find(other));
            match other.transpose()? {
                Some(other) => mounts.extend(names::shared(&engine.roots.stored(&other.id), &files)),
                None => mounts.extend(names::write(&engine.roots.stored(&record.id), files)?),
            }
        }
        Runtime::Vm => {
            network.files =
                files.into_iter().map(|(path, content)| (path.to_owned(), content.into_bytes())).collect();
        }
    }
    let mut request = plan::request(&record.name, &record.body, mounts)?;
    // The container's own variables have the last word.
    request.environment.splice(0..0, told.environment);
    request.isolation.network = engine.network_of(&record.body, true)?;
    engine.share(&record.body, Some(&record.id), &mut request.isolation)?;
    run::check_stored(&request)?;

    let image = engine.images().resolve(&record.image_id)?;
    let layers = engine.images().layer_dirs(&image, &())?;
    let mut directories = layers.clone();
    // A user may have been added since.
    let upper = engine.roots.stored(&record.id).join("upper");
    if upper.exists() {
        directories.insert(0, upper);
    }
    let accounts = Accounts::read(&directories)?;
    let defaults = oci_spec::image::ImageConfiguration::default();
    let spec =
        bundle::specification(&record.id, &request, &defaults, &accounts, &run::host(request.runtime))?;
    bundle::write(&spec, place.bundle())?;

    let mut ports = Ports::take(record, endpoints.first().and_then(|first| first.network.publish_at()))?;
    let (stdio, ours) = wire(record)?;
    let mut program = None;
    if in_user_space && record.runtime() == Runtime::Vm {
        let (card, passt) = passt::for_machine(&ports.give_away())?;
        network.interfaces = vec![card];
        program = Some(passt);
    } else if record.runtime() == Runtime::Vm {
        network.interfaces = Engine::cards(&endpoints)?;
    }
    let mut signals = Signals::take()?;
    let creation = Creation {
        id: &record.id,
        request: &request,
        image: &image,
        layers: &layers,
        store: engine.images(),
        roots: &engine.roots,
        place,
        stdio,
        network,
        timeline: None,
        progress: &(),
        signals: &mut signals,
    };
    let mut sandbox: Box<dyn Sandbox> = match request.runtime {
        Runtime::Container => Box::new(container::Container::create(creation)?),
        Runtime::Vm => Box::new(vm::Vm::create(creation)?),
    };
    let streams = ours.settle(monitor, record)?;
    let plugged = sandbox.pid().map_or(Ok(()), |pid| Engine::plug(&endpoints, i64::from(pid)));
    let started = plugged.and_then(|()| sandbox.start());
    let exit = sandbox.exit_fd().try_clone_to_owned().context("duplicate", "the workload's end")?;
    let pid = i64::from(sandbox.pid().unwrap_or(0));
    *monitor.sandbox() = Some(sandbox);
    // What failed to start is deleted by the caller, as any sandbox.
    started?;
    if in_user_space && record.runtime() == Runtime::Container {
        program = passt::for_container(pid)?;
    }
    let (asked, id) = (Arc::clone(engine), record.id.clone());
    let first = move || asked.endpoints_of(&id).ok()?.first().map(|endpoint| endpoint.address);
    ports.serve(pid, first)?;
    Ok(Run { exit, streams, pid, ports, _names: names, _passt: program, image, accounts })
}

/// What stays here of a workload's streams.
enum Ours {
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    Console(UnixStream),
}

fn wire(record: &Record) -> Result<(Stdio, Ours), Error> {
    if record.has_terminal() {
        let (theirs, ours) = UnixStream::pair().context("make", "the console socket")?;
        return Ok((Stdio::Console(theirs), Ours::Console(ours)));
    }
    let pipe = || pipe_with(PipeFlags::CLOEXEC).context("make", "a pipe");
    let (stdin, input) = if record.body.open_stdin.unwrap_or(false) {
        let (theirs, ours) = pipe()?;
        (theirs, Some(ours))
    } else {
        (fs::File::open("/dev/null").context("open", "/dev/null")?.into(), None)
    };
    let ((stdout, theirs_out), (stderr, theirs_err)) = (pipe()?, pipe()?);
    let stdio = Stdio::Fds { stdin, stdout: theirs_out, stderr: theirs_err };
    Ok((stdio, Ours::Pipes { stdin: input, stdout, stderr }))
}

impl Ours {
    /// The outputs; the input is where those who are attached find it.
    fn settle(self, monitor: &Monitor, record: &Record) -> Result<[Option<OwnedFd>; 2], Error> {
        match self {
            Self::Pipes { stdin, stdout, stderr } => {
                if let Some(stdin) = stdin {
                    monitor.input.open(stdin, record.body.stdin_once.unwrap_or(false));
                }
                Ok([Some(stdout), Some(stderr)])
            }
            Self::Console(socket) => {
                let master = terminal::receive_master(&socket)?;
                let again = || master.try_clone().context("duplicate", "the sandbox's terminal");
                // A terminal has no end of input of its own: the user types it.
                monitor.input.open(again()?, false);
                monitor.terminals.add("", again()?, None);
                Ok([Some(master), None])
            }
        }
    }
}
