//! One run, from a request to the workload's exit code. The steps, in the order that a timeline shows them:
//!
//! ```text
//!  check ─► image ─► place ─► bundle ─► create ─► start ─► attend ─► delete ─► exit code
//!  flags    store    dirs,    config    the wall  execve   signals,  the wall,
//!                    lock     .json     stands             output    the place
//! ```
//!
//! What is made is owned by a value that unmakes it when dropped, so an error at any step leaves nothing.

use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use lab_clock::{Mark, Timeline};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::bundle::{self, Host};
use super::error::Context as _;
use super::place::{self, Place, Roots};
use super::sandbox::{Exit, Sandbox, Stdio};
use super::signals::{Ask, Signals};
use super::stdio::{self, Copy, Copying};
use super::{Error, Request, Runtime, container, id, terminal, vm};
use crate::image::users::Accounts;
use crate::image::{Image, Progress, Store, embedded};

/// After the workload's end, its last output is waited for no longer than this without a byte. All its processes are gone
/// by then, so there is nothing to wait for unless a wall has a fault.
const LAST_OUTPUT: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Everything that a wall's `create` may need.
pub struct Creation<'a> {
    /// The sandbox's id.
    pub id: &'a str,
    /// What was asked for.
    pub request: &'a Request,
    /// The image.
    pub image: &'a Image,
    /// Its layers, unpacked, topmost first.
    pub layers: &'a [PathBuf],
    /// Where images are.
    pub store: &'a Store,
    /// Where states are.
    pub roots: &'a Roots,
    /// The sandbox's place; its bundle is written.
    pub place: &'a Place,
    /// The workload's streams.
    pub stdio: Stdio,
    /// A machine's network; a container is plugged in when it is there.
    pub network: microvm::network::Network,
    /// The marks of this run, if it is timed.
    pub timeline: Option<Arc<Timeline>>,
    /// Who is told how far long preparations have come.
    pub progress: &'a dyn Progress,
    /// What is sent to this process meanwhile.
    pub signals: &'a mut Signals,
}

/// Runs a workload to its end. What has to be prepared first (layers unpacked, a disk built) tells `progress`.
///
/// # Errors
/// Where the workload could not be run; [`Error::exit_code`] says what to exit with.
pub fn run(
    request: &Request,
    timeline: Option<&Arc<Timeline>>,
    progress: &dyn Progress,
) -> Result<Exit, Error> {
    let mark = |mark| timeline.iter().for_each(|timeline| timeline.mark(mark));
    check(request)?;
    let roots = Roots::of_process()?;
    let store = Store::open(&roots.images())?;
    if embedded::NAME.split(':').next() == request.image.split(':').next() {
        embedded::ensure(&store)?;
    }
    let image = store.resolve(&request.image)?;
    let layers = store.layer_dirs(&image, progress)?;

    let mut signals = Signals::take()?;
    let id = id::new().context("read", "/dev/urandom")?;
    let place = match Place::create(&roots, &id, request.name.as_deref()) {
        // Perhaps by one that was killed.
        Err(Error::NameInUse { .. }) => {
            clear_abandoned(&roots);
            Place::create(&roots, &id, request.name.as_deref())?
        }
        place => place?,
    };
    let accounts = Accounts::read(&layers)?;
    let spec = bundle::specification(&id, request, image.config(), &accounts, &host(request.runtime))?;
    bundle::write(&spec, place.bundle())?;
    mark(Mark::Resolved);

    let wiring = stdio::wire(request, timeline.is_some())?;
    let creation = Creation {
        id: &id,
        request,
        image: &image,
        layers: &layers,
        store: &store,
        roots: &roots,
        place: &place,
        stdio: wiring.stdio,
        network: microvm::network::Network::default(),
        timeline: timeline.cloned(),
        progress,
        signals: &mut signals,
    };
    let mut sandbox: Box<dyn Sandbox> = match request.runtime {
        Runtime::Container => Box::new(container::Container::create(creation)?),
        Runtime::Vm => Box::new(vm::Vm::create(creation)?),
    };

    let exit = live(sandbox.as_mut(), wiring.ours, request, &mut signals, timeline);
    if exit.is_ok() {
        mark(Mark::Exited);
    }
    let deleted = sandbox.delete().and(place.remove());
    mark(Mark::Deleted);
    clear_abandoned(&roots);
    let exit = exit?;
    deleted.map(|()| exit)
}

/// What can be refused before anything is made.
fn check(request: &Request) -> Result<(), Error> {
    if request.terminal && request.interactive && !rustix::termios::isatty(io::stdin()) {
        return Err(Error::NoTerminal);
    }
    check_stored(request)
}

/// As [`check`], for a container whose terminal is not the caller's.
pub(super) fn check_stored(request: &Request) -> Result<(), Error> {
    request.limits.check(|| std::thread::available_parallelism().map_or(1, |count| count.get() as u64))?;
    if let Some(name) = &request.name {
        id::check_name(name)?;
    }
    if let Some(name) = &request.hostname {
        id::check_hostname(name)?;
    }
    if request.runtime == Runtime::Vm {
        vm::check(request)?;
    }
    Ok(())
}

/// A guest's kernel has users of its own; only a container's are the host's.
pub(super) fn host(runtime: Runtime) -> Host {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let rootless = runtime == Runtime::Container && !uid.is_root();
    Host { rootless: rootless.then(|| (uid.as_raw(), gid.as_raw())) }
}

/// Starts the workload and attends to it until its end.
fn live(
    sandbox: &mut dyn Sandbox,
    ours: stdio::Ours,
    request: &Request,
    signals: &mut Signals,
    timeline: Option<&Arc<Timeline>>,
) -> Result<Exit, Error> {
    let mut copying = ours.begin(request, timeline.cloned())?;
    resize(sandbox, &copying)?;
    sandbox.start()?;
    attend(sandbox, &mut copying, signals)?;
    let exit = sandbox.wait()?;
    drain(&mut copying)?;
    Ok(exit)
}

/// Passes on signals and copies streams until the workload has ended.
fn attend(sandbox: &mut dyn Sandbox, copying: &mut Copying, signals: &mut Signals) -> Result<(), Error> {
    loop {
        let mut files = vec![
            PollFd::from_borrowed_fd(sandbox.exit_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        files.extend(copying.directions().into_iter().flatten().map(poll_for));
        match poll(&mut files, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.context("wait for", "the workload")?,
        };
        let ready: Vec<bool> = files.iter().map(|file| !file.revents().is_empty()).collect();

        if ready[1] {
            while let Some(ask) = signals.arrived() {
                match ask {
                    Ask::Resize => resize(sandbox, copying)?,
                    Ask::Deliver(signal) => sandbox.kill(signal)?,
                }
            }
        }
        copying.step(&ready[2..]);
        if ready[0] {
            return Ok(());
        }
    }
}

/// Gives the workload's terminal, if it has one, the size of the user's.
fn resize(sandbox: &mut dyn Sandbox, copying: &Copying) -> Result<(), Error> {
    let Some(master) = copying.master() else { return Ok(()) };
    terminal::size().map_or(Ok(()), |size| sandbox.resize(master, size))
}

/// Copies what the workload wrote last.
fn drain(copying: &mut Copying) -> Result<(), Error> {
    copying.stop_input();
    while let [Some(output), _] = copying.directions() {
        match poll(&mut [poll_for(output)], Some(&LAST_OUTPUT)) {
            Ok(0) => break,
            Err(rustix::io::Errno::INTR) => {}
            other => {
                other.context("wait for", "the workload's output")?;
                copying.step(&[true]);
            }
        }
    }
    Ok(())
}

fn poll_for(copy: &Copy) -> PollFd<'_> {
    let (file, events) = copy.interest();
    PollFd::from_borrowed_fd(file, events)
}

/// Clears what killed processes of earlier runs left. Nothing here is this run's, so nothing here can fail it.
pub(crate) fn clear_abandoned(roots: &Roots) {
    for (id, place) in place::abandoned(roots) {
        container::clear(roots, &id);
        vm::clear(roots, &id);
        let _ = place.remove();
    }
}
