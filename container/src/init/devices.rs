//! /dev: the nodes and the links that programs expect there.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Uid, chmodat, chownat, mknodat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::fault::{At, Fault, Step};
use super::paths;
use crate::plan::{DevicePlan, Plan};
use crate::sys;

/// The links of the specification (config-linux.md, "Default Devices" and "Dev symbolic links" of runtime-linux.md).
const LINKS: &[(&CStr, &CStr)] = &[
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"ptmx", c"pts/ptmx"),
];

/// Makes the nodes and the links.
pub(super) fn make(plan: &Plan, root: BorrowedFd<'_>) -> Result<(), Fault> {
    if plan.devices.is_empty() {
        return Ok(()); // the host's own /dev is bound there
    }
    let dev = paths::directory_at(root, c"dev").at(Step::DeviceLink)?;
    for (index, device) in plan.devices.iter().enumerate() {
        if device.bind { bind(root, device) } else { node(root, &dev, device) }
            .at_index(Step::Device, index)?;
    }
    for (name, to) in LINKS {
        match symlinkat(*to, &dev, *name) {
            Err(Errno::EXIST) if name.to_bytes() == b"ptmx" => {
                // A node from the image would be the host's terminals, not this container's.
                unlinkat(&dev, *name, AtFlags::empty()).and_then(|()| symlinkat(*to, &dev, *name))
            }
            Err(Errno::EXIST | Errno::ROFS) => Ok(()),
            result => result,
        }
        .at(Step::DeviceLink)?;
    }
    Ok(())
}

fn node(root: BorrowedFd<'_>, dev: &OwnedFd, plan: &DevicePlan) -> sys::Result<()> {
    let elsewhere;
    let (directory, name) = if let Some(name) = in_dev(&plan.target) {
        (dev, name)
    } else {
        let (directory, name) = paths::parent(root, &plan.target)?;
        elsewhere = directory;
        (&elsewhere, name)
    };
    match mknodat(directory, name, plan.typ, Mode::from_raw_mode(plan.mode), plan.number) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let there = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let same = there.st_rdev == plan.number
                && rustix::fs::FileType::from_raw_mode(there.st_mode) == plan.typ;
            if !same {
                return Err(Errno::EXIST);
            }
            chmodat(directory, name, Mode::from_raw_mode(plan.mode), AtFlags::empty())?;
        }
        Err(error) => return Err(error),
    }
    if plan.owner != (0, 0) {
        let (uid, gid) = (Uid::from_raw(plan.owner.0), Gid::from_raw(plan.owner.1));
        chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// The name of a node that is in /dev itself, which is open already.
fn in_dev(target: &CStr) -> Option<&CStr> {
    let name = target.to_bytes_with_nul().strip_prefix(b"dev/")?;
    (!name.contains(&b'/')).then(|| CStr::from_bytes_with_nul(name).ok()).flatten()
}

/// In a user namespace `mknod(2)` is not allowed: the host's node is bound instead.
fn bind(root: BorrowedFd<'_>, plan: &DevicePlan) -> sys::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE;
    let held = open_tree(CWD, plan.host.as_c_str(), flags)?;
    let target = paths::file_at(root, &plan.target)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&held, c"", &target, c"", flags)
}

/// Lays the container's terminal over /dev/console.
pub(super) fn console(root: BorrowedFd<'_>, terminal: &CStr) -> sys::Result<()> {
    let terminal = paths::open(root, terminal, OFlags::PATH)?;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = open_tree(terminal.as_fd(), c"", flags)?;
    let target = paths::file_at(root, c"dev/console")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&copy, c"", &target, c"", flags)
}
