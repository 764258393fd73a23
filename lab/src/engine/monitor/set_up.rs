//! From a stored container to a workload that runs.

use std::fmt::Write as _;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::pipe::{PipeFlags, pipe_with};

use super::Monitor;
use super::ports::Ports;
use super::streams::Run;
use crate::engine::error::Context as _;
use crate::engine::place::Place;
use crate::engine::run::{self, Creation};
use crate::engine::sandbox::{Sandbox, Stdio};
use crate::engine::signals::Signals;
use crate::engine::stored::{Record, plan};
use crate::engine::{Error, Runtime, bundle, container, terminal, vm};
use crate::image::users::Accounts;

/// Sets a container up and starts its workload.
pub(super) fn set_up(monitor: &Monitor, record: &Record, place: &Place) -> Result<Run, Error> {
    let engine = &monitor.engine;
    let wishes = plan::wishes(&record.body)?;
    let mut mounts = engine.mounts(&wishes)?;
    if record.runtime() == Runtime::Container {
        mounts.extend(own_files(&engine.roots.stored(&record.id), record, &wishes)?);
    }
    let mut request = plan::request(&record.name, &record.body, mounts)?;
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

    let mut ports = Ports::take(record)?;
    let (stdio, ours) = wire(record)?;
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
        timeline: None,
        progress: &(),
        signals: &mut signals,
    };
    let mut sandbox: Box<dyn Sandbox> = match request.runtime {
        Runtime::Container => Box::new(container::Container::create(creation)?),
        Runtime::Vm => Box::new(vm::Vm::create(creation)?),
    };
    let streams = ours.settle(monitor, record)?;
    let plugged = sandbox.pid().map_or(Ok(()), |pid| engine.plug(record, i64::from(pid)));
    let started = plugged.and_then(|()| sandbox.start());
    let exit = sandbox.exit_fd().try_clone_to_owned().context("duplicate", "the workload's end")?;
    let pid = i64::from(sandbox.pid().unwrap_or(0));
    *monitor.sandbox() = Some(sandbox);
    // What failed to start is deleted by the caller, as any sandbox.
    started?;
    ports.serve(pid)?;
    Ok(Run { exit, streams, pid, ports, image, accounts })
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

/// The files that a container has of its own: who it is, whom it knows, whom it asks. Unless the user mounts others.
fn own_files(
    directory: &Path,
    record: &Record,
    wishes: &[plan::Wish],
) -> Result<Vec<crate::engine::request::Extra>, Error> {
    let host = record.host();
    let hostname = record.body.hostname.clone().unwrap_or_default();
    let mut hosts = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for extra in host.extra_hosts.iter().flatten() {
        if let Some((name, address)) = extra.split_once(':') {
            let _ = writeln!(hosts, "{}\t{name}", address.replace("host-gateway", "127.0.0.1"));
        }
    }
    let _ = writeln!(hosts, "127.0.1.1\t{hostname}");
    let mut resolv = String::new();
    for server in host.dns.iter().flatten() {
        let _ = writeln!(resolv, "nameserver {server}");
    }
    if let Some(search) = host.dns_search.as_ref().filter(|search| !search.is_empty()) {
        let _ = writeln!(resolv, "search {}", search.join(" "));
    }
    if let Some(options) = host.dns_options.as_ref().filter(|options| !options.is_empty()) {
        let _ = writeln!(resolv, "options {}", options.join(" "));
    }
    if resolv.is_empty() {
        resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    }
    let mut files = Vec::new();
    for (name, content) in [("hosts", hosts), ("resolv.conf", resolv), ("hostname", format!("{hostname}\n"))]
    {
        let target = format!("/etc/{name}");
        if wishes.iter().any(|wish| wish.target == target) {
            continue;
        }
        let path = directory.join(name);
        fs::write(&path, content).context("write", path.display())?;
        files.push(plan::own_file(&target, &path));
    }
    Ok(files)
}
