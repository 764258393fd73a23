//! A bundle in a virtual machine: from "set up, not yet started" to "gone", with the life cycle of an OCI runtime.
//!
//! [`create`] boots a guest, waits until its PID 1 says that it is up, and sends it what the bundle describes;
//! [`Sandbox::start`] lets the workload go. After that the caller waits on [`Sandbox::exit_fd`].

use std::fs::{self, DirBuilder};
use std::mem::replace;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lab_clock::Timeline;
use nix::sys::eventfd::EventFd;

use crate::agent::{AgentError, Exit, ProcessId, RootDevice, Session, Stdio, flatten};
use crate::devices::serial::Console;
use crate::devices::virtio::VirtioDevice;
use crate::devices::virtio::blk::Block;
use crate::devices::virtio::fs::{Fs, Share};
use crate::devices::virtio::rng::Rng;
use crate::explain::Explain;
use crate::initramfs::Initramfs;
use crate::kvm::Kvm;
use crate::machine::Machine;
use crate::network::Network;
use crate::qemu::{self, Board, Qemu};
use crate::sockets::{self, SocketFile, VsockPath};
use crate::spec::{self, Process, Spec};
use crate::stats::Report;
use crate::vm::{AtEnd, LINES, Vm};
use crate::warm::Warm;
use crate::{Error, boot, jail, shares, snapshot, sys};

/// The guest's PID 1 (microvm/guest/init), built by build.rs.
pub static GUEST_INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest-init"));

/// What the guest calls the first virtio-blk device.
const ROOT_DEVICE: &str = "/dev/vda";

/// How long a guest may take until its PID 1 answers: a stock kernel on a KVM that interprets it takes half a minute on a
/// busy machine. A guest that ends earlier is noticed at once.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long [`Sandbox::delete`] waits for the guest's own power-off.
const GRACE: Duration = Duration::from_millis(500);

/// Where the workload's root file system is.
#[derive(Clone, Debug)]
pub enum RootFs {
    /// On a disk of the image's: what the workload changes is in the guest's memory, and gone with it.
    Disk(RootDisk),
    /// In this directory of the host, below the bundle if it is relative: what the workload changes is there, at once. For KVM
    /// only.
    Directory(PathBuf),
}

impl RootFs {
    fn device(&self) -> RootDevice<'_> {
        match self {
            Self::Disk(disk) => RootDevice::Disk { device: ROOT_DEVICE, fs_type: &disk.fs_type },
            Self::Directory(_) => RootDevice::Shared,
        }
    }

    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Disk(_) => None,
            Self::Directory(path) => Some(path),
        }
    }
}

/// The image's root file system as a disk.
#[derive(Clone, Debug)]
pub struct RootDisk {
    /// The disk's file; it is never written to.
    pub path: PathBuf,
    /// Its file system, as mount(2) names it, for example `erofs`.
    pub fs_type: String,
}

/// The guest's kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// A `vmlinux` or a `bzImage`.
    pub image: PathBuf,
    /// Modules that PID 1 loads, in this order: for kernels that have virtio or the root's file system as modules.
    pub modules: Vec<PathBuf>,
    /// Its release, as `uname -r` prints it: for messages.
    pub release: String,
}

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accel {
    /// KVM where `/dev/kvm` can be used, otherwise QEMU.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// QEMU's translator (TCG): anywhere, slowly.
    Tcg,
}

/// What to create.
#[derive(Debug)]
pub struct CreateOptions {
    /// The folder below which the sandbox keeps its run-time files.
    pub root: PathBuf,
    /// The sandbox's name, unique below `root`.
    pub id: String,
    /// The bundle: a folder with a `config.json`.
    pub bundle: PathBuf,
    /// The workload's standard streams.
    pub stdio: Stdio,
    /// The root file system.
    pub root_fs: RootFs,
    /// The kernel.
    pub kernel: Kernel,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// vCPUs.
    pub vcpus: u8,
    /// Its network.
    pub network: Network,
    /// What runs it.
    pub accel: Accel,
    /// The folder of snapshots. With it, the sandbox starts from a snapshot of its kind (same kernel, disk, size and set-up,
    /// whatever the command) if there is one, and leaves one for the next if there is none. For KVM only.
    pub warm: Option<PathBuf>,
    /// Where its programs and the host's reach each other by sockets. For KVM only.
    pub vsock: Option<VsockPath>,
    /// Where to mark the steps.
    pub timeline: Option<Arc<Timeline>>,
}

/// For looking at a guest more closely than its owner needs to.
#[derive(Default)]
pub struct Diagnostics {
    /// Where the kernel's console output goes, besides the tail that is always kept.
    pub console: Console,
    /// More words for the kernel command line.
    pub command_line: Vec<String>,
    /// Sample where the first vCPU is.
    pub profile: bool,
    /// Where the machine is explained, as it runs.
    pub explain: Option<Explain>,
    /// A Unix socket, to be made, where GDB may connect. For KVM only.
    pub gdb: Option<PathBuf>,
    /// The guest waits for GDB before its first instruction; one that starts from a snapshot does not.
    pub gdb_first: bool,
}

/// A workload in a guest. Dropping it ends the guest and gives everything back.
pub struct Sandbox {
    // Dropped in this order: the conversation, the machine, the files.
    session: Arc<Session>,
    machine: Machine,
    spec: Spec,
    exit: Arc<EventFd>,
    is_warm: bool,
    _sockets: Vec<SocketFile>,
    /// What its start has left to do.
    begin: Mutex<Begin>,
    /// Whether it has nothing of the host's to finish writing, or to say: no shared directory, no network card.
    is_alone: bool,
    _files: StateDir,
}

/// How the workload comes to run.
enum Begin {
    /// The guest executes it.
    Execute,
    /// So, and a snapshot is taken when it is at its first instruction.
    Take(Box<Warm>),
    /// It is there already, in a machine that is held.
    Go,
}

/// The sandbox's own process; [`Sandbox::exec`] adds others.
const FIRST: ProcessId = 0;

/// Boots a guest and prepares the bundle's process in it.
///
/// # Errors
/// The step that failed. Nothing is left behind.
pub fn create(options: CreateOptions) -> Result<Sandbox, Error> {
    create_with(options, Diagnostics::default())
}

/// As [`create`], with a closer look.
///
/// # Errors
/// As [`create`].
// ANCHOR: create
pub fn create_with(options: CreateOptions, diagnostics: Diagnostics) -> Result<Sandbox, Error> {
    let spec = spec::load(&options.bundle)?;
    let process = spec.process.clone().ok_or_else(|| spec::no_process(&options.bundle))?;
    let files = StateDir::make(&options.root, &options.id)?;
    let timeline = match options.timeline {
        Some(ref timeline) => timeline.clone(),
        None => Arc::new(Timeline::new().map_err(Error::system("make a timeline (mmap)"))?),
    };

    let root = options.root_fs.device();
    let shares = shares::of(&spec, &options.bundle, options.root_fs.directory())?;
    let is_alone = shares.is_empty() && options.network.interfaces.is_empty();
    let accel = resolve(options.accel);
    let warm = match &options.warm {
        Some(_) if accel == Accel::Tcg => return Err(no_snapshot()),
        Some(folder) => {
            let (setup, exec) = (flatten::setup(&spec, &root, &options.network)?, flatten::exec(&process)?);
            Some(Warm::of(folder, &options, &shares, &diagnostics.command_line, &setup, &exec)?)
        }
        None => None,
    };
    let (mut sockets, mut gdb) = (Vec::new(), None);
    if let Some(path) = &diagnostics.gdb {
        let (file, listener) = SocketFile::listen(path)?;
        sockets.push(file);
        gdb = Some(listener);
    }
    // Who debugs a machine wants to see it begin.
    let command = warm.as_ref().and_then(|warm| warm.command.as_deref()).filter(|_| gdb.is_none());
    let with = Some(renew(&spec));
    let restored = command.map(|command| restore(command, &options, &shares, &diagnostics, &timeline, with));
    if let Some((machine, channel, vsock)) = restored.transpose()?.flatten() {
        warm.iter().for_each(Warm::touch);
        sockets.extend(vsock);
        let (session, first) = Session::resume_command(channel, Some(timeline), &process, options.stdio)?;
        let (exit, session) = (session.exit_fd(first)?, Arc::new(session));
        let begin = Mutex::new(Begin::Go);
        return Ok(Sandbox {
            session,
            machine,
            spec,
            exit,
            is_warm: true,
            _sockets: sockets,
            begin,
            is_alone,
            _files: files,
        });
    }
    let restored = warm.as_ref().map(|warm| restore(warm, &options, &shares, &diagnostics, &timeline, None));
    if let Some((mut machine, channel, vsock)) = restored.transpose()?.flatten() {
        sockets.extend(vsock);
        machine.debug(gdb)?;
        let (session, first) =
            Session::resume(channel, Some(timeline), &spec, &options.network, &process, options.stdio)?;
        let exit = session.exit_fd(first)?;
        let session = Arc::new(session);
        let begin = begin(warm.and_then(|warm| warm.command));
        return Ok(Sandbox {
            session,
            machine,
            spec,
            exit,
            is_warm: true,
            _sockets: sockets,
            begin,
            is_alone,
            _files: files,
        });
    }

    let (channel, port, at_end) = channel()?;
    let initramfs = initramfs(&options.kernel.modules)?;
    let mut vsock = None;
    let first = if diagnostics.gdb_first { gdb.take() } else { None };
    let mut machine = match accel {
        Accel::Tcg if options.vsock.is_some() => return Err(no_vsock()),
        Accel::Tcg => Machine::Tcg(Qemu::start(qemu::Config {
            kernel: options.kernel.image,
            initramfs,
            command_line: diagnostics.command_line,
            memory_mib: options.memory_mib,
            vcpus: options.vcpus,
            board: if options.kernel.modules.is_empty() { Board::MicroVm } else { Board::Pc },
            disk: qemu_disk(&options.root_fs, &shares)?,
            interfaces: options.network.copies()?,
            channel: port,
            console: diagnostics.console,
            at_end,
        })?),
        Accel::Kvm | Accel::Auto => Machine::Kvm(Box::new(boot::boot(boot::Config {
            kernel: options.kernel.image.clone(),
            kernel_cache: None,
            initramfs,
            command_line: diagnostics.command_line,
            memory_mib: options.memory_mib,
            vcpus: options.vcpus,
            devices: devices(&options, &shares, port, &mut vsock)?,
            console: diagnostics.console,
            // Kernels without modules are lean ones, which have everything built in, the command line's devices too.
            plain: options.kernel.modules.is_empty(),
            pvh: false,
            profile: diagnostics.profile,
            explain: diagnostics.explain,
            gdb: first,
            timeline: timeline.clone(),
            at_end,
        })?)),
    };

    machine.debug(gdb)?;
    sockets.extend(vsock);

    let session = Session::new(channel, Some(timeline))?;
    session.wait_ready(PATIENCE).map_err(|error| explain(error, &machine))?;
    session.set_up(&spec, &root, &options.network).map_err(|error| explain(error, &machine))?;
    let first = session.exec(&process, options.stdio).map_err(|error| explain(error, &machine))?;
    debug_assert_eq!(first, FIRST);
    if let (Some(warm), Machine::Kvm(vm)) = (&warm, &machine) {
        session.wait_prepared(first).map_err(|error| explain(error, &machine))?;
        warm.take(vm)?;
    }
    let exit = session.exit_fd(first)?;
    let session = Arc::new(session);
    let begin = begin(warm.and_then(|warm| warm.command));
    Ok(Sandbox {
        session,
        machine,
        spec,
        exit,
        is_warm: false,
        _sockets: sockets,
        begin,
        is_alone,
        _files: files,
    })
}
// ANCHOR_END: create

fn begin(command: Option<Box<Warm>>) -> Mutex<Begin> {
    // A jailed process has no files left to write when the workload is started.
    let command = command.filter(|_| !jail::is_prepared());
    Mutex::new(command.map_or(Begin::Execute, Begin::Take))
}

/// What a machine of a command's snapshot gets of its own.
fn renew(spec: &Spec) -> snapshot::Renew {
    snapshot::Renew { host_name: spec.hostname.clone() }
}

/// The agent's channel: our end, the port of the virtio-console, and what is to be done at the machine's end: the agent then
/// learns of it as of a peer that hung up. What is under way can still be read.
fn channel() -> Result<(OwnedFd, UnixStream, Option<AtEnd>), Error> {
    let (host, port) =
        UnixStream::pair().map_err(Error::system("make the channel to the guest (socketpair)"))?;
    let hang_up = host.try_clone().map_err(Error::system("duplicate the channel to the guest (dup)"))?;
    Ok((host.into(), port, Some(Box::new(move || drop(hang_up.shutdown(Shutdown::Both))))))
}

/// A machine of the snapshot, and the channel to its PID 1. `None` where there is no snapshot, or none that this machine can
/// use: it is taken anew then.
fn restore(
    warm: &Warm,
    options: &CreateOptions,
    shares: &[Share],
    diagnostics: &Diagnostics,
    timeline: &Arc<Timeline>,
    renew: Option<snapshot::Renew>,
) -> Result<Option<(Machine, OwnedFd, Option<SocketFile>)>, Error> {
    if !warm.path.exists() {
        return Ok(None);
    }
    let mut vsock = None;
    let (channel, port, at_end) = channel()?;
    let restored = snapshot::restore(snapshot::Restore {
        path: warm.path.clone(),
        identity: warm.identity.clone(),
        renew,
        devices: devices(options, shares, port, &mut vsock)?,
        console: diagnostics.console.clone(),
        profile: diagnostics.profile,
        explain: diagnostics.explain.clone(),
        at_end,
        timeline: timeline.clone(),
    });
    warm.touch();
    Ok(restored.ok().map(|vm| (Machine::Kvm(Box::new(vm)), channel, vsock)))
}

fn no_snapshot() -> Error {
    let reason =
        "QEMU's translator runs this guest, and only KVM's can be written down; leave out --warm".into();
    Error::Device { device: "machine", reason }
}

fn no_vsock() -> Error {
    let reason = "QEMU's translator runs this guest, and only KVM's has vsock; leave out --vsock".into();
    Error::Device { device: "machine", reason }
}

impl Sandbox {
    /// Starts the workload: returns when its `execve(2)` has succeeded.
    ///
    /// # Errors
    /// The command does not exist ([`Error::exit_code`] 127), cannot be executed (126), or anything else (125).
    pub fn start(&self) -> Result<(), Error> {
        let begin = self.begin.lock().map_or(Begin::Execute, |mut begin| replace(&mut begin, Begin::Execute));
        let told = |error| explain(error, &self.machine);
        match (begin, &self.machine) {
            (Begin::Go, machine) => {
                self.session.go(FIRST).map_err(told)?;
                machine.resume();
                // Many machines of one snapshot may run: what making this one took is given back.
                sys::trim_heap();
                Ok(())
            }
            (Begin::Take(warm), Machine::Kvm(vm)) => match self.session.start_halted(FIRST).map_err(told)? {
                Some(halted) => {
                    warm.take_command(vm, &halted, || self.session.go(FIRST).map_err(told))?;
                    self.session.mark_executed();
                    Ok(())
                }
                None => Ok(()),
            },
            _ => self.session.start(FIRST).map_err(told),
        }
    }

    /// Becomes readable when the workload has ended, or the guest has.
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        self.exit.as_fd()
    }

    /// Waits for the workload's end.
    ///
    /// # Errors
    /// [`Error::GuestDied`] where the guest ended before it.
    pub fn wait(&self) -> Result<Exit, Error> {
        self.session.wait(FIRST).map_err(|error| explain(error, &self.machine))
    }

    /// Sends the workload a signal. One that has ended gets none, and that is no error.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        match self.session.try_wait(FIRST) {
            Some(_) => Ok(()),
            None => self.session.signal(FIRST, signal).map_err(|error| explain(error, &self.machine)),
        }
    }

    /// Tells the workload's terminal its new size.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        self.session.resize(FIRST, rows, columns).map_err(|error| explain(error, &self.machine))
    }

    /// Runs another process beside the workload. It is running when this returns.
    ///
    /// # Errors
    /// As [`Sandbox::start`].
    pub fn exec(&self, process: &Process, stdio: Stdio) -> Result<Running, Error> {
        let begin = || {
            let id = self.session.exec(process, stdio)?;
            let running = Running { session: self.session.clone(), id, exit: self.session.exit_fd(id)? };
            self.session.start(id)?;
            Ok(running)
        };
        begin().map_err(|error| explain(error, &self.machine))
    }

    /// Holds the guest still: no vCPU enters it.
    ///
    /// # Errors
    /// None yet.
    pub fn pause(&self) -> Result<(), Error> {
        self.machine.pause();
        Ok(())
    }

    /// Lets the guest go on.
    ///
    /// # Errors
    /// None yet.
    pub fn resume(&self) -> Result<(), Error> {
        self.machine.resume();
        Ok(())
    }

    /// What the machine is and did so far; of one that QEMU runs, nothing is known.
    pub fn report(&self) -> Report {
        self.vm().map(Vm::report).unwrap_or_default()
    }

    /// The last lines that the guest's kernel printed.
    pub fn console(&self, lines: usize) -> Vec<String> {
        self.machine.console().last_lines(lines)
    }

    /// The bundle's configuration.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What runs the guest: [`Accel::Kvm`] or [`Accel::Tcg`]. Every measurement must carry it.
    pub fn accel(&self) -> Accel {
        self.machine.accel()
    }

    /// Whether it started from a snapshot. Every measurement must carry it.
    pub fn is_warm(&self) -> bool {
        self.is_warm
    }

    /// The machine, to look at, if it is ours.
    pub fn vm(&self) -> Option<&Vm> {
        match &self.machine {
            Machine::Kvm(vm) => Some(vm),
            Machine::Tcg(_) => None,
        }
    }

    /// Ends the guest, and gives everything back. Where something of the host's is in it, by its own power-off if it manages that
    /// soon; a machine whose memory is all that it has written to needs none.
    ///
    /// # Errors
    /// None yet: what the operating system holds for us goes with its handles.
    pub fn delete(self) -> Result<(), Error> {
        self.power_off();
        Ok(())
    }

    /// Ends the guest, by its own power-off if it manages that soon, so that what it wrote of the host's is written.
    pub fn power_off(&self) {
        if !self.is_alone && self.session.power_off().is_ok() {
            self.machine.resume();
            let _ = self.machine.wait_until(Instant::now() + GRACE);
        }
    }
}

/// A process that [`Sandbox::exec`] started. Dropping it ends nothing but the knowledge of it.
#[derive(Debug)]
pub struct Running {
    session: Arc<Session>,
    id: ProcessId,
    exit: Arc<EventFd>,
}

impl Running {
    /// Becomes readable when it has ended and all its output was passed on, or the guest has ended.
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        self.exit.as_fd()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Why the conversation with the guest ended before it.
    pub fn wait(&self) -> Result<Exit, Error> {
        Ok(self.session.wait(self.id)?)
    }

    /// Sends it a signal. One that has ended gets none, and that is no error.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        match self.session.try_wait(self.id) {
            Some(_) => Ok(()),
            None => Ok(self.session.signal(self.id, signal)?),
        }
    }

    /// Tells its terminal its new size.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        Ok(self.session.resize(self.id, rows, columns)?)
    }

    /// What tells its terminal new sizes, wherever the process itself is kept.
    pub fn resizer(&self) -> impl Fn(u16, u16) + Send + 'static {
        let (session, id) = (self.session.clone(), self.id);
        move |rows, columns| {
            // One that has ended has no terminal any more.
            let _ = session.resize(id, rows, columns);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.session.try_wait(self.id).is_some() {
            self.session.forget(self.id);
        }
    }
}

/// KVM where it can be used.
pub(crate) fn resolve(accel: Accel) -> Accel {
    match accel {
        Accel::Auto if Kvm::open().is_err() => Accel::Tcg,
        Accel::Auto => Accel::Kvm,
        chosen => chosen,
    }
}

/// Where the guest ended, that is the reason; what the agent saw of it is only a consequence.
fn explain(error: AgentError, vm: &Machine) -> Error {
    let end = match error {
        // The channel closes a moment before the machine is known to have ended.
        AgentError::HungUp => vm.wait_until(Instant::now() + GRACE).unwrap_or_default(),
        _ => vm.end(),
    };
    match (&error, end) {
        (AgentError::HungUp, Some(end)) => {
            Error::GuestDied { how: end, console: vm.console().last_lines(LINES) }
        }
        (AgentError::Silent { seconds }, None) => {
            Error::GuestSilent { seconds: *seconds, console: vm.console().last_lines(LINES) }
        }
        _ => error.into(),
    }
}

fn initramfs(modules: &[PathBuf]) -> Result<Initramfs, Error> {
    let mut initramfs = Initramfs::new();
    initramfs.add_executable("init", GUEST_INIT);
    if !modules.is_empty() {
        initramfs.add_directory("modules");
    }
    for (number, path) in modules.iter().enumerate() {
        // PID 1 loads them in the order of their names.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        initramfs.add_file(&format!("modules/{number:02}-{name}"), false, path)?;
    }
    Ok(initramfs)
}

/// The guest's devices: its root, the channel to us, entropy, its network cards, what the host shares, and its sockets, whose
/// file is given back.
fn devices(
    options: &CreateOptions,
    shares: &[Share],
    port: UnixStream,
    vsock: &mut Option<SocketFile>,
) -> Result<Vec<Box<dyn VirtioDevice>>, Error> {
    use crate::devices::virtio::console::Console;
    let mut devices: Vec<Box<dyn VirtioDevice>> = Vec::new();
    if let RootFs::Disk(disk) = &options.root_fs {
        devices.push(Box::new(Block::open(&disk.path, true, "root")?));
    }
    let channel = Console::new(port, None).map_err(Error::system("set up the channel to the guest"))?;
    devices.push(Box::new(channel));
    devices.push(Box::new(Rng));
    devices.extend(options.network.devices(options.warm.is_some())?);
    if !shares.is_empty() {
        devices.push(Box::new(Fs::new(shares::TAG, shares.to_vec(), options.memory_mib)?));
    }
    if let Some(at) = &options.vsock {
        let (file, device) = sockets::vsock(at)?;
        *vsock = Some(file);
        devices.push(Box::new(device));
    }
    Ok(devices)
}

/// What QEMU gets: it has no device of ours, and so no directories of the host.
fn qemu_disk(root: &RootFs, shares: &[Share]) -> Result<PathBuf, Error> {
    match root {
        RootFs::Disk(disk) if shares.is_empty() => Ok(disk.path.clone()),
        _ => {
            let reason = "QEMU's translator runs this guest, and only KVM's can use directories of the host; \
                          leave out the volumes, or use a machine with /dev/kvm";
            Err(Error::Device { device: "machine", reason: reason.into() })
        }
    }
}

/// An id is a name of a folder, of a control group, and a word of messages: nothing in it may mean something else.
pub(crate) fn check_id(id: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-+.".contains(c);
    if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.chars().all(plain) {
        return Err(Error::BadId { id: id.into() });
    }
    Ok(())
}

/// The sandbox's folder. It makes the id unique, and holds what has a name while the guest runs.
#[derive(Debug)]
struct StateDir {
    path: PathBuf,
}

impl StateDir {
    fn make(root: &Path, id: &str) -> Result<Self, Error> {
        check_id(id)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(Error::file("make the folder", root))?;
        let path = root.join(id);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(Error::file("make the sandbox's folder", &path))?;
        Ok(Self { path })
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_has_a_folder_of_its_own_and_takes_it_along() {
        let root = tempfile::tempdir().unwrap();
        let first = StateDir::make(root.path(), "one").unwrap();
        assert!(StateDir::make(root.path(), "one").is_err());
        drop(first);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_id_that_could_leave_the_root_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for id in ["", "..", "a/b", "/etc", ".hidden", "a\nb"] {
            assert!(matches!(StateDir::make(root.path(), id), Err(Error::BadId { .. })), "{id:?}");
        }
    }

    #[test]
    fn modules_are_numbered_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let modules = ["b.ko", "a.ko"].map(|name| folder.path().join(name));
        for module in &modules {
            fs::write(module, "module").unwrap();
        }
        let text = format!("{:?}", initramfs(&modules).unwrap());
        assert!(text.contains("modules/00-b.ko") && text.contains("modules/01-a.ko"));
    }
}
