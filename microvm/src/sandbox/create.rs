//! How a sandbox comes to be: by a boot, or from a snapshot of its kind or of its command.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lab_clock::Timeline;

use super::options::{Accel, CreateOptions, Diagnostics, resolve};
use super::saved::{Saved, Shape};
use super::state_dir::StateDir;
use super::{Begin, FIRST, Sandbox, explain, parts};
use crate::agent::{Session, flatten};
use crate::devices::virtio::fs::Share;
use crate::machine::Machine;
use crate::qemu::{self, Board, Qemu};
use crate::snapshot::Identity;
use crate::sockets::SocketFile;
use crate::spec::{self, Spec};
use crate::warm::Warm;
use crate::{Error, boot, jail, shares, snapshot};

/// How long a guest may take until its PID 1 answers: a stock kernel on a KVM that interprets it takes half a minute on a
/// busy machine. A guest that ends earlier is noticed at once.
const PATIENCE: Duration = Duration::from_secs(180);

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
    let shape = Shape::of(&options, &shares);
    if accel == Accel::Tcg && (options.warm.is_some() || options.saved.is_some()) {
        return Err(no_snapshot());
    }
    let warm = match &options.warm {
        // What runs already is not started from anything else.
        Some(folder) if options.saved.is_none() => {
            let (setup, exec) = (flatten::setup(&spec, &root, &options.network)?, flatten::exec(&process)?);
            Some(Warm::of(folder, &options, &shares, &diagnostics.command_line, &setup, &exec)?)
        }
        _ => None,
    };
    let (mut sockets, mut gdb) = (Vec::new(), None);
    if let Some(path) = &diagnostics.gdb {
        let (file, listener) = SocketFile::listen(path)?;
        sockets.push(file);
        gdb = Some(listener);
    }

    // The machine: the nearer its snapshot is to the workload, the less there is left to do.
    let from = |warm: &Warm, renew| restore(warm, &options, &shares, &diagnostics, &timeline, renew);
    // Who debugs a machine wants to see it begin.
    let command = warm.as_ref().and_then(|warm| warm.command.as_deref()).filter(|_| gdb.is_none());
    let at_command = command.map(|command| from(command, Some(renew(&spec)))).transpose()?.flatten();
    let of_kind = match (&warm, &at_command) {
        (Some(warm), None) => from(warm, None)?,
        _ => None,
    };
    let is_warm = at_command.is_some() || of_kind.is_some() || options.saved.is_some();

    // The conversation with its PID 1, as far as the first process's start.
    let (session, machine, first, begin) = if let Some(saved) = &options.saved {
        let ((mut machine, channel, vsock), kept) =
            go_on(saved, shape, &options, &shares, &diagnostics, &timeline)?;
        sockets.extend(vsock);
        machine.debug(gdb)?;
        let (timeline, network, stdio) = (Some(timeline), &options.network, options.stdio);
        let (session, first) =
            Session::resume_running(channel, timeline, &kept, &spec, network, &process, stdio)?;
        (session, machine, first, Begin::Resume)
    } else if let Some((machine, channel, vsock)) = at_command {
        warm.iter().for_each(Warm::touch);
        sockets.extend(vsock);
        let (session, first) = Session::resume_command(channel, Some(timeline), &process, options.stdio)?;
        (session, machine, first, Begin::Go)
    } else if let Some((mut machine, channel, vsock)) = of_kind {
        sockets.extend(vsock);
        machine.debug(gdb)?;
        let (session, first) =
            Session::resume(channel, Some(timeline), &spec, &options.network, &process, options.stdio)?;
        (session, machine, first, begin(warm))
    } else {
        let (machine, channel, vsock) = fresh(&options, diagnostics, accel, &shares, &timeline, gdb)?;
        sockets.extend(vsock);
        let told = |error| explain(error, &machine);
        let session = Session::new(channel, Some(timeline))?;
        session.wait_ready(PATIENCE).map_err(told)?;
        session.set_up(&spec, &root, &options.network).map_err(told)?;
        let first = session.exec(&process, options.stdio).map_err(told)?;
        if let (Some(warm), Machine::Kvm(vm)) = (&warm, &machine) {
            session.wait_prepared(first).map_err(told)?;
            warm.take(vm)?;
        }
        (session, machine, first, begin(warm))
    };
    debug_assert_eq!(first, FIRST);
    let exit = session.exit_fd(first)?;
    Ok(Sandbox {
        session: Arc::new(session),
        machine,
        spec,
        exit,
        is_warm,
        sockets,
        begin: Mutex::new(begin),
        shape,
        is_alone,
        _files: files,
    })
}
// ANCHOR_END: create

/// A machine, the channel to its PID 1, and the file of its vsock's socket.
type Made = (Machine, OwnedFd, Option<SocketFile>);

/// A machine that boots.
fn fresh(
    options: &CreateOptions,
    diagnostics: Diagnostics,
    accel: Accel,
    shares: &[Share],
    timeline: &Arc<Timeline>,
    mut gdb: Option<UnixListener>,
) -> Result<Made, Error> {
    let (channel, port, at_end) = parts::channel()?;
    let initramfs = parts::initramfs(&options.kernel.modules)?;
    // Kernels without modules are lean ones, which have everything built in, the command line's devices too.
    let is_lean = options.kernel.modules.is_empty();
    let mut vsock = None;
    let mut machine = match accel {
        Accel::Tcg if options.vsock.is_some() => return Err(no_vsock()),
        Accel::Tcg => Machine::Tcg(Qemu::start(qemu::Config {
            kernel: options.kernel.image.clone(),
            initramfs,
            command_line: diagnostics.command_line,
            memory_mib: options.memory_mib,
            vcpus: options.vcpus,
            board: if is_lean { Board::MicroVm } else { Board::Pc },
            disk: parts::qemu_disk(&options.root_fs, shares)?,
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
            devices: parts::devices(options, shares, port, &mut vsock)?,
            console: diagnostics.console,
            plain: is_lean,
            pvh: false,
            profile: diagnostics.profile,
            explain: diagnostics.explain,
            gdb: if diagnostics.gdb_first { gdb.take() } else { None },
            timeline: timeline.clone(),
            at_end,
        })?)),
    };
    machine.debug(gdb)?;
    Ok((machine, channel, vsock))
}

/// A machine of the snapshot. `None` where there is no snapshot, or none that this machine can use: it is taken anew then.
fn restore(
    warm: &Warm,
    options: &CreateOptions,
    shares: &[Share],
    diagnostics: &Diagnostics,
    timeline: &Arc<Timeline>,
    renew: Option<snapshot::Renew>,
) -> Result<Option<Made>, Error> {
    if !warm.path.exists() {
        return Ok(None);
    }
    let (mut restore, channel, vsock) =
        on_this_host(&warm.path, &warm.identity, options, shares, diagnostics, timeline)?;
    restore.renew = renew;
    let restored = snapshot::restore(restore);
    warm.touch();
    Ok(restored.ok().map(|vm| (Machine::Kvm(Box::new(vm)), channel, vsock)))
}

/// A machine whose workload runs, held, and the conversation with its PID 1. Other than a warm start's, its snapshot was asked for:
/// one that cannot be used is an error.
fn go_on(
    saved: &Saved,
    shape: Shape,
    options: &CreateOptions,
    shares: &[Share],
    diagnostics: &Diagnostics,
    timeline: &Arc<Timeline>,
) -> Result<(Made, Vec<u8>), Error> {
    let identity = shape.identity(&saved.root);
    let (mut restore, channel, vsock) =
        on_this_host(&saved.path, &identity, options, shares, diagnostics, timeline)?;
    restore.paused = true;
    let (vm, conversation) = snapshot::restore_running(restore)?;
    Ok(((Machine::Kvm(Box::new(vm)), channel, vsock), conversation))
}

/// How a machine is made of a snapshot here: on devices of its own. Also the host's end of the channel, and of vsock.
fn on_this_host(
    path: &Path,
    identity: &Identity,
    options: &CreateOptions,
    shares: &[Share],
    diagnostics: &Diagnostics,
    timeline: &Arc<Timeline>,
) -> Result<(snapshot::Restore, OwnedFd, Option<SocketFile>), Error> {
    let mut vsock = None;
    let (channel, port, at_end) = parts::channel()?;
    let restore = snapshot::Restore {
        path: path.to_owned(),
        identity: identity.clone(),
        renew: None,
        paused: false,
        devices: parts::devices(options, shares, port, &mut vsock)?,
        console: diagnostics.console.clone(),
        profile: diagnostics.profile,
        explain: diagnostics.explain.clone(),
        at_end,
        timeline: timeline.clone(),
    };
    Ok((restore, channel, vsock))
}

/// What the start of a machine that is not at its command has left to do.
fn begin(warm: Option<Warm>) -> Begin {
    // A jailed process has no files left to write when the workload is started.
    let command = warm.and_then(|warm| warm.command).filter(|_| !jail::is_prepared());
    command.map_or(Begin::Execute, Begin::Take)
}

/// What a machine of a command's snapshot gets of its own.
fn renew(spec: &Spec) -> snapshot::Renew {
    snapshot::Renew { host_name: spec.hostname.clone() }
}

pub(super) fn no_snapshot() -> Error {
    let reason =
        "QEMU's translator runs this guest, and only KVM's can be written down; leave out --warm".into();
    Error::Device { device: "machine", reason }
}

fn no_vsock() -> Error {
    let reason = "QEMU's translator runs this guest, and only KVM's has vsock; leave out --vsock".into();
    Error::Device { device: "machine", reason }
}
