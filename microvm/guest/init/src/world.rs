//! The sandbox's world: its root file system, mounts, devices, names, clock.
//!
//! PID 1 makes what the whole guest shares ([`prepare`]); the first process makes the rest in a mount namespace of its own,
//! from inside its new root, so that no symbolic link of the image leads a mount out of it ([`enter`]).

use core::ffi::CStr;

use freestanding::sys::mount::{self, flags};
use freestanding::sys::{file, machine, process, time};
use freestanding::{Errno, Fd, Text};

use crate::failure::{During, Failure};
use crate::network;
use crate::path;
use crate::spec::{Mount, Renew, Setup};

/// Where the image's root file system is mounted, read-only, if what the workload changes goes elsewhere.
const IMAGE: &CStr = c"/image";
/// Where the host's shared directories are mounted: see [`shared`].
const SHARES: &CStr = c"/shares";
/// A tmpfs that holds what the workload changes.
const SCRATCH: &CStr = c"/scratch";
/// The sandbox's root, until the first process makes it the root.
const ROOT: &CStr = c"/sandbox";
/// Where the three meet: kernel documentation, filesystems/overlayfs.
const OVERLAY: &CStr = c"lowerdir=/image,upperdir=/scratch/upper,workdir=/scratch/work";

/// Mounts the root file system; sets names, clock and network. In PID 1.
///
/// # Errors
/// The step that failed.
pub fn prepare<'a>(setup: &Setup<'a>) -> Result<(), Failure<'a>> {
    if let Some(tag) = setup.shares {
        folder(SHARES)?;
        mount::mount(tag, SHARES, c"virtiofs", 0, c"").during("mount virtiofs", tag.to_bytes())?;
        process::chdir(SHARES).during("chdir", SHARES.to_bytes())?;
    }
    // A root that is to be read-only becomes so at the end of `enter`: mount points may have to be made in it first.
    let overlay = !setup.root_writable;
    let image = if overlay { IMAGE } else { ROOT };
    folder(image)?;
    let bind = setup.root_type == c"bind";
    let image_flags = match bind {
        true => flags::BIND | flags::RECURSIVE,
        false if setup.root_writable => 0,
        false => flags::READ_ONLY,
    };
    mount::mount(setup.root_device, image, setup.root_type, image_flags, c"")
        .during("mount", setup.root_device.to_bytes())?;
    if bind && !setup.root_writable {
        read_only(image)?;
    }
    if setup.shares.is_some() {
        process::chdir(c"/").during("chdir", b"/")?;
    }
    if overlay {
        folder(SCRATCH)?;
        folder(ROOT)?;
        mount::mount(c"scratch", SCRATCH, c"tmpfs", 0, c"mode=755").during("mount", SCRATCH.to_bytes())?;
        folder(c"/scratch/upper")?;
        folder(c"/scratch/work")?;
        mount::mount(c"overlay", ROOT, c"overlay", 0, OVERLAY).during("mount overlay on", ROOT.to_bytes())?;
    }
    names_and_clock(setup.host_name, setup.domain_name, setup.time)?;
    network::prepare(setup.payload())
}

/// Makes this machine different from all others of its snapshot. In PID 1, before anything else goes on.
///
/// # Errors
/// The step that failed.
pub fn renew<'a>(renew: &Renew<'a>, has_machine: bool) -> Result<(), Failure<'a>> {
    // Without a machine of its own this is the host's kernel, whose random numbers need nothing from us.
    if has_machine && let Some(seed) = renew.seed {
        file::open(c"/dev/urandom", file::flags::WRITE, 0)
            .and_then(|random| machine::reseed(*random, seed))
            .during("reseed", b"/dev/urandom")?;
    }
    names_and_clock(renew.host_name, None, renew.time)?;
    network::prepare(renew.payload)
}

fn names_and_clock<'a>(
    host: Option<&'a CStr>,
    domain: Option<&'a CStr>,
    clock: Option<(u64, u64)>,
) -> Result<(), Failure<'a>> {
    if let Some(name) = host {
        machine::set_host_name(name.to_bytes()).during("sethostname", name.to_bytes())?;
    }
    if let Some(name) = domain {
        machine::set_domain_name(name.to_bytes()).during("setdomainname", name.to_bytes())?;
    }
    if let Some((seconds, nanos)) = clock {
        time::set_realtime(seconds, nanos).during("clock_settime", b"")?;
    }
    Ok(())
}

fn folder(path: &'static CStr) -> Result<(), Failure<'static>> {
    match file::mkdir(path, 0o755) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(Failure::new(errno, "mkdir", path.to_bytes())),
    }
}

/// Makes the sandbox's root the root, and everything in it. In the first process, in its own mount namespace.
///
/// Without a machine of its own, making devices may be refused: PID 1's are bound then.
///
/// # Errors
/// The step that failed.
pub fn enter<'a>(setup: &Setup<'a>, has_machine: bool) -> Result<(), Failure<'a>> {
    let devices = if has_machine {
        None
    } else {
        Some(file::open(c"/dev", file::flags::READ | file::flags::DIRECTORY, 0).during("open", b"/dev")?)
    };
    let own_files = network::open_files(setup.payload())?;
    let shares = match setup.shares {
        Some(_) => Some(
            file::open(SHARES, file::flags::READ | file::flags::DIRECTORY, 0)
                .during("open", SHARES.to_bytes())?,
        ),
        None => None,
    };
    // Not pivot_root(2): it refuses an initramfs as the old root. The old root stays below, out of reach of any path.
    process::chdir(ROOT).during("chdir", ROOT.to_bytes())?;
    mount::mount(c".", c"/", c"", flags::MOVE, c"").during("mount (move) on", b"/")?;
    process::chroot(c".").during("chroot", ROOT.to_bytes())?;
    process::chdir(c"/").during("chdir", b"/")?;
    process::umask(0); // the modes below are meant as they are; the process sets its own mask later
    for mount in setup.mounts() {
        match &shares {
            Some(shares) if is_shared(&mount) => shared(**shares, &mount)?,
            _ => mount_one(&mount)?,
        }
    }
    standard_devices(devices.as_ref().map(|fd| **fd))?;
    if let Some(folder) = own_files {
        network::show_files(*folder, setup.payload())?;
    }
    for (name, value) in setup.sysctls() {
        sysctl(name, value)?;
    }
    for path in setup.masked_paths() {
        hide(path)?;
    }
    for path in setup.read_only_paths() {
        match mount::mount(path, path, c"", flags::BIND | flags::RECURSIVE, c"") {
            Ok(()) => read_only(path)?,
            Err(Errno::NOENT) => {} // nothing there to protect: as runc does
            Err(errno) => return Err(Failure::new(errno, "mount read-only", path.to_bytes())),
        }
    }
    if setup.root_read_only { read_only(c"/") } else { Ok(()) }
}

/// Flags that a mount of its own must set: mount(2) looks at one kind of operation in a call.
struct Steps {
    first: u64,
    remount: Option<u64>,
    propagation: Option<u64>,
}

impl Steps {
    const fn new(all: u64) -> Self {
        let propagation = all & flags::PROPAGATION;
        let rest = all & !propagation;
        let bind = rest & flags::BIND != 0;
        let kind = flags::BIND | flags::RECURSIVE;
        Self {
            first: if bind { rest & kind } else { rest & !flags::RECURSIVE },
            // A bind mount takes the source's flags; others are set by changing it afterwards.
            remount: if bind && rest & !kind != 0 { Some(rest | flags::REMOUNT) } else { None },
            propagation: if propagation == 0 { None } else { Some(propagation | (all & flags::RECURSIVE)) },
        }
    }
}

fn mount_one<'a>(mount: &Mount<'a>) -> Result<(), Failure<'a>> {
    let target = mount.target;
    let failed = |errno| Failure::new(errno, "mount", target.to_bytes());
    let steps = Steps::new(mount.flags);
    // The bundle's word for whatever the host's cgroups are; this kernel has version 2 or none.
    let (kind, data) = if mount.kind == c"cgroup" { (c"cgroup2", c"") } else { (mount.kind, mount.data) };
    let first = || mount::mount(mount.source, target, kind, steps.first, data);
    match first() {
        Ok(()) => {}
        // The target is missing: make it, then once more.
        Err(Errno::NOENT) => {
            let of_file = steps.first & flags::BIND != 0
                && file::status(mount.source, true).is_ok_and(|source| !source.is_directory());
            let made = if of_file { path::make_file(target) } else { path::make_folders(target) };
            made.during("make mount point", target.to_bytes())?;
            match first() {
                Err(Errno::NODEV) if is_optional(kind) => return Ok(()),
                result => result.map_err(failed)?,
            }
        }
        // The lean kernel leaves these out; bundles list them always, programs hardly use them.
        Err(Errno::NODEV) if is_optional(kind) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    }
    if let Some(flags) = steps.remount {
        mount::mount(c"", target, c"", flags, c"").map_err(failed)?;
    }
    if let Some(flags) = steps.propagation {
        mount::mount(c"", target, c"", flags, c"").map_err(failed)?;
    }
    Ok(())
}

/// Whether it is one of the host's directories or files.
fn is_shared(mount: &Mount<'_>) -> bool {
    mount.flags & flags::BIND != 0 && !mount.source.to_bytes().starts_with(b"/")
}

/// Mounts what the host shares. Its source lies outside the root, where no path leads any more but one that starts at the
/// working directory.
fn shared<'a>(shares: Fd, mount: &Mount<'a>) -> Result<(), Failure<'a>> {
    process::chdir_to(shares).during("chdir", SHARES.to_bytes())?;
    mount_one(mount)?;
    process::chdir(c"/").during("chdir", b"/")
}

fn is_optional(kind: &CStr) -> bool {
    matches!(kind.to_bytes(), b"mqueue" | b"cgroup2")
}

/// Makes a bind mount read-only and leaves its other flags as they are.
fn read_only(path: &CStr) -> Result<(), Failure<'_>> {
    mount::flags_of(path)
        .and_then(|old| {
            mount::mount(c"", path, c"", old | flags::REMOUNT | flags::BIND | flags::READ_ONLY, c"")
        })
        .during("mount read-only", path.to_bytes())
}

/// The devices and links that the OCI runtime specification (config-linux, "Default Devices", "Dev symbolic links") gives
/// every sandbox.
const DEVICES: [(&CStr, &CStr, u32, u32); 6] = [
    (c"/dev/null", c"null", 1, 3),
    (c"/dev/zero", c"zero", 1, 5),
    (c"/dev/full", c"full", 1, 7),
    (c"/dev/random", c"random", 1, 8),
    (c"/dev/urandom", c"urandom", 1, 9),
    (c"/dev/tty", c"tty", 5, 0),
];
const LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
    (c"pts/ptmx", c"/dev/ptmx"),
];

fn standard_devices(from: Option<Fd>) -> Result<(), Failure<'static>> {
    for (path, name, major, minor) in DEVICES {
        match file::mknod(path, 0o666, Some((major, minor))) {
            // There already; or the image's own read-only /dev, which then has to do.
            Ok(()) | Err(Errno::EXIST | Errno::ROFS | Errno::NOENT) => {}
            Err(Errno::PERM) => match from {
                Some(folder) => bind_device(folder, path, name)?,
                None => return Err(Failure::new(Errno::PERM, "mknod", path.to_bytes())),
            },
            Err(errno) => return Err(Failure::new(errno, "mknod", path.to_bytes())),
        }
    }
    for (target, path) in LINKS {
        match file::symlink(target, path) {
            Ok(()) | Err(Errno::EXIST | Errno::ROFS | Errno::NOENT) => {}
            Err(errno) => return Err(Failure::new(errno, "symlink", path.to_bytes())),
        }
    }
    Ok(())
}

fn bind_device(folder: Fd, path: &'static CStr, name: &CStr) -> Result<(), Failure<'static>> {
    // A relative source starts at the working directory, which may lie outside the root.
    process::chdir_to(folder)
        .and_then(|()| path::make_file(path))
        .and_then(|()| mount::mount(name, path, c"", flags::BIND, c""))
        .and_then(|()| process::chdir(c"/"))
        .during("mount device on", path.to_bytes())
}

fn sysctl<'a>(name: &'a CStr, value: &CStr) -> Result<(), Failure<'a>> {
    let mut path = Text::<256>::new();
    path.text("/proc/sys/").text(name.to_bytes());
    path.c_str()
        .ok_or(Errno::NAMETOOLONG)
        .and_then(|path| file::open(path, file::flags::WRITE, 0))
        .and_then(|file| file.write_all(value.to_bytes()))
        .during("sysctl", name.to_bytes())
}

/// Puts /dev/null over a file, an empty read-only tmpfs over a folder.
fn hide(path: &CStr) -> Result<(), Failure<'_>> {
    let result = match mount::mount(c"/dev/null", path, c"", flags::BIND, c"") {
        Err(Errno::NOTDIR) => mount::mount(c"tmpfs", path, c"tmpfs", flags::READ_ONLY, c""),
        result => result,
    };
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()), // nothing there to hide: as runc does
        Err(errno) => Err(Failure::new(errno, "mask", path.to_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_mount_takes_one_step() {
        let steps = Steps::new(flags::NO_SUID | flags::NO_DEV);
        assert_eq!(
            (steps.first, steps.remount, steps.propagation),
            (flags::NO_SUID | flags::NO_DEV, None, None)
        );
    }

    #[test]
    fn a_read_only_bind_mount_is_changed_after_it_is_made() {
        let steps = Steps::new(flags::BIND | flags::RECURSIVE | flags::READ_ONLY);
        assert_eq!(steps.first, flags::BIND | flags::RECURSIVE);
        assert_eq!(steps.remount.map(|all| all & (flags::REMOUNT | flags::READ_ONLY)), Some(0x21));
    }

    #[test]
    fn propagation_is_a_step_of_its_own() {
        let steps = Steps::new(flags::BIND | flags::RECURSIVE | flags::PRIVATE);
        assert_eq!((steps.first, steps.remount), (flags::BIND | flags::RECURSIVE, None));
        assert_eq!(steps.propagation, Some(flags::PRIVATE | flags::RECURSIVE));
    }
}
