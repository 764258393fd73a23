//! [`create`]: how a machine comes to be that outlives the command which made it.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::{fs, io};

use oci_spec::runtime::LinuxNamespaceType;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::cgroup::Cgroup;
use super::control::{Word, hear, say};
use super::size::{Size, VSOCK};
use super::state::{State, StateDir};
use super::{Instance, hooks, kernels, monitor};
use crate::sandbox::{RootDisk, RootFs};
use crate::spec::{self, Process, Spec};
use crate::{Accel, Error, sys};

/// What is asked of [`create`].
#[derive(Debug)]
pub struct Options {
    /// The folder for state, one subfolder a machine.
    pub root: PathBuf,
    /// The machine's name, unique below `root`.
    pub id: String,
    /// The bundle: a folder with a `config.json`.
    pub bundle: PathBuf,
    /// A file to write the monitor's process id to.
    pub pid_file: Option<PathBuf>,
    /// Where the master of the workload's terminal is sent. Without it, a workload with a terminal uses the standard streams
    /// of this process, which then should be one.
    pub console_socket: Option<UnixStream>,
    /// The kernel's file; see [`kernels::find`].
    pub kernel: Option<PathBuf>,
    /// A disk instead of the bundle's root file system.
    pub disk: Option<RootDisk>,
    /// What runs the guest.
    pub accel: Accel,
    /// The folder of snapshots to start from, and to leave one in.
    pub warm: Option<PathBuf>,
    /// The Unix socket by which the host's programs reach those of the guest.
    pub vsock: Option<PathBuf>,
    /// The Unix socket where GDB may connect.
    pub gdb: Option<PathBuf>,
}

/// What the monitor needs to know: worked out before it exists, so that mistakes are told at once.
pub(crate) struct Plan {
    pub(crate) spec: Spec,
    pub(crate) process: Process,
    pub(crate) options: Options,
    pub(crate) kernel: crate::Kernel,
    pub(crate) root_fs: RootFs,
    pub(crate) size: Size,
    pub(crate) folder: PathBuf,
}

/// The folder, below the machine's, that the sandbox in the monitor keeps its files in.
pub(crate) const SANDBOX: &str = "machine";

/// Makes a machine: its guest is up, and its process waits to become the workload. To be called while there is one thread.
///
/// # Errors
/// The step that failed. Nothing is left behind.
// ANCHOR: create
pub fn create(mut options: Options) -> Result<Instance, Error> {
    options.bundle = std::path::absolute(&options.bundle).map_err(Error::file("find", &options.bundle))?;
    let spec = spec::load_version_1(&options.bundle)?;
    let id = options.id.clone();
    let pid_file = options.pid_file.take();
    let mut cgroup = Cgroup::plan(&spec, &id)?;
    let dir = StateDir::claim(&options.root, &id)?;

    // From here on there is something to remove; `delete --force` finds it by the state.
    let mut made = Made { dir: dir.clone(), state: State::new(&spec, &id, &options.bundle), done: false };
    made.state.cgroups = cgroup.folders().to_vec();
    let vsock = options.vsock.take().or_else(|| spec.annotations.get(VSOCK).map(PathBuf::from));
    options.vsock = socket("vsock", vsock)?;
    options.gdb = socket("gdb", options.gdb.take())?;
    made.state.sockets = options.vsock.iter().chain(&options.gdb).cloned().collect();
    dir.write(&made.state)?;
    let plan = plan(spec, options, dir.path())?;
    cgroup.make()?;

    // The monitor: this process, once more. It waits, enters its namespaces, waits again, boots.
    let (link, theirs) = UnixStream::pair().map_err(Error::system("make a socket pair"))?;
    let Some(pid) = alone(sys::fork)? else {
        drop(link);
        // It never comes back: what is above it on the stack belongs to the command.
        std::process::exit(monitor::main(plan, &theirs).into());
    };
    drop(theirs);
    made.state.set_pid(pid);
    dir.write(&made.state)?;
    cgroup.enter(pid)?;
    tell(&link, &Word::Go)?;

    // The engine's programs set up what belongs to it, such as its network, before the machine's devices are made.
    expect(&link, &id, |word| matches!(word, Word::Entered))?;
    hooks::before_boot(&plan.spec, &made.state)?;
    tell(&link, &Word::Go)?;
    expect(&link, &id, |word| matches!(word, Word::Ready))?;
    if let Some(path) = pid_file {
        write_pid_file(&path, pid)?;
    }
    // Until it hears this last word, the monitor ends when the command does; then it says that it stands alone.
    tell(&link, &Word::Go)?;
    expect(&link, &id, |word| matches!(word, Word::Free))?;
    made.done = true;
    Ok(Instance { dir, state: made.state.clone() })
}
// ANCHOR_END: create

/// Makes a process in a process-id namespace where it is the only one; those that this process makes later are where it is
/// itself. An ordinary user's stays among the others.
#[allow(deprecated)] // its successor is unsafe for the sake of CLONE_FILES, which is not used here
fn alone(fork: impl FnOnce() -> io::Result<Option<i32>>) -> Result<Option<i32>, Error> {
    let make = Error::system("make the monitor (fork)");
    if !rustix::process::geteuid().is_root() {
        return fork().map_err(make);
    }
    let own = fs::File::open("/proc/self/ns/pid").map_err(Error::file("open", "/proc/self/ns/pid"))?;
    rustix::thread::unshare(UnshareFlags::NEWPID)
        .map_err(Error::system("make a process-id namespace (unshare)"))?;
    let forked = fork().map_err(make)?;
    if forked.is_some() {
        move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID))
            .map_err(Error::system("return to the process-id namespace (setns)"))?;
    }
    Ok(forked)
}

fn plan(spec: Spec, mut options: Options, folder: &Path) -> Result<Plan, Error> {
    let process = spec.process.clone().ok_or_else(|| spec::no_process(&options.bundle))?;
    // What the workload changes must reach the bundle's own root file system: engines look for it there.
    let root = spec.root.as_ref().map(|root| RootFs::Directory(root.path().clone()));
    let root_fs = options.disk.take().map(RootFs::Disk).or(root).ok_or_else(|| Error::Config {
        field: "root".into(),
        reason: "there is none; name the root file system's folder by root.path".into(),
    })?;
    let (kernel, size) = (kernels::find(options.kernel.take())?, Size::of(&spec)?);
    Ok(Plan { process, kernel, root_fs, size, folder: folder.to_owned(), spec, options })
}

/// The place of a socket that is to be made.
fn socket(what: &str, path: Option<PathBuf>) -> Result<Option<PathBuf>, Error> {
    let Some(path) = path else { return Ok(None) };
    // What is there already is another's, not to be removed with this machine.
    if path.symlink_metadata().is_ok() {
        let reason = format!("{} exists already; remove it, or name another", path.display());
        return Err(Error::Config { field: what.into(), reason });
    }
    std::path::absolute(&path).map(Some).map_err(Error::file("find", &path))
}

/// The network namespace of the monitor.
pub(crate) enum Namespace<'a> {
    /// That of the command.
    Shared,
    /// A new one.
    New,
    /// The one that this path names.
    Joined(&'a Path),
}

impl<'a> Namespace<'a> {
    /// What the bundle says.
    pub(crate) fn of(spec: &'a Spec) -> Self {
        let network = spec.linux.namespaces.iter().find(|one| one.typ() == LinuxNamespaceType::Network);
        match network.map(|network| network.path().as_deref().filter(|path| !path.as_os_str().is_empty())) {
            None => Self::Shared,
            Some(None) => Self::New,
            Some(Some(path)) => Self::Joined(path),
        }
    }
}

fn tell(link: &UnixStream, word: &Word) -> Result<(), Error> {
    say(link, word, &[]).map_err(Error::system("speak to the monitor"))
}

fn expect(link: &UnixStream, id: &str, good: impl Fn(&Word) -> bool) -> Result<(), Error> {
    match hear::<Word>(link) {
        Ok((word, _)) if good(&word) => Ok(()),
        Ok((Word::Failed { message, code }, _)) => Err(Error::Told { message, code }),
        _ => Err(Error::MonitorDied { id: id.to_owned() }),
    }
}

/// Whole or not at all: an engine may look at any moment.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<(), Error> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let write = || -> io::Result<()> {
        fs::write(&new, pid.to_string())?;
        fs::rename(&new, path)
    };
    write().map_err(Error::file("write", path))
}

/// What exists already; dropped on the way to success, it is all removed again.
struct Made {
    dir: StateDir,
    state: State,
    done: bool,
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Some(pid) = Pid::from_raw(self.state.pid) {
            // Our own child: its number is its until it is waited for.
            let _ = kill_process(pid, Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        }
        let _ = super::cgroup::remove(&self.state.cgroups);
        let _ = self.state.remove_sockets();
        let _ = self.dir.remove();
    }
}
