//! Mounts in two moves: *prepared* as a detached mount that only a descriptor holds (`fsmount(2)`, `open_tree(2)`),
//! then *attached* to its target, a descriptor too (`move_mount(2)`). So no path is looked up a second time, when
//! somebody could have changed it: the target is opened once, inside the new root ([`paths`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, OFlags, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags as Flags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::paths;
use crate::plan::{MountPlan, Source};
use crate::sys;

/// `f_type` of a /proc (linux/magic.h).
const PROC_SUPER_MAGIC: rustix::fs::FsWord = 0x9fa0;

/// From an open descriptor to an open descriptor, no path involved.
const FD_TO_FD: MoveMountFlags =
    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH.union(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH);

/// A copy of the mount that a descriptor refers to.
const CLONE_OF_FD: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLOEXEC
    .union(OpenTreeFlags::OPEN_TREE_CLONE)
    .union(OpenTreeFlags::AT_EMPTY_PATH);

/// Prepares one mount.
pub(super) fn prepare(plan: &MountPlan) -> sys::Result<OwnedFd> {
    match &plan.source {
        Source::FileSystem { typ, source, parameters } => {
            let context = fsopen(typ.as_c_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
            if let Some(source) = source {
                fsconfig_set_string(&context, c"source", source.as_c_str())?;
            }
            for (key, value) in parameters {
                match value {
                    Some(value) => fsconfig_set_string(&context, key.as_c_str(), value.as_c_str())?,
                    None => fsconfig_set_flag(&context, key.as_c_str())?,
                }
            }
            fsconfig_create(&context)?;
            let attributes = MountAttrFlags::from_bits_retain(plan.attributes.set as u32);
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        }
        Source::Bind { path, recursive } => {
            let mut flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE;
            if *recursive {
                flags |= OpenTreeFlags::AT_RECURSIVE;
            }
            let tree = open_tree(CWD, path.as_c_str(), flags)?;
            if plan.attributes.changes_mount() {
                change(tree.as_fd(), false, plan.attributes.set, plan.attributes.clear)?;
            }
            Ok(tree)
        }
        Source::Prepared { tree, .. } => rustix::io::fcntl_dupfd_cloexec(tree, 3),
        Source::Link { .. } | Source::Remount => Err(Errno::INVAL), // there is nothing to prepare
    }
}

/// Opens, or makes, what the mount goes on.
pub(super) fn target(root: BorrowedFd<'_>, plan: &MountPlan, mount: &OwnedFd) -> sys::Result<OwnedFd> {
    if plan.no_symlinks {
        match paths::open_no_symlinks(root, &plan.target, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
    }
    if FileType::from_raw_mode(fstat(mount)?.st_mode) == FileType::Directory {
        paths::directory_at(root, &plan.target)
    } else {
        paths::file_at(root, &plan.target)
    }
}

/// Attaches a prepared mount.
pub(super) fn attach(plan: &MountPlan, mount: &OwnedFd, target: &OwnedFd) -> sys::Result<()> {
    if !plan.over_proc && fstatfs(target)?.f_type == PROC_SUPER_MAGIC {
        return Err(Errno::ROFS);
    }
    if plan.copy_up {
        super::copy_up::copy(target.as_fd(), mount.as_fd())?;
    }
    move_mount(mount, c"", target, c"", FD_TO_FD)?;
    if plan.attributes.changes_tree() {
        change(mount.as_fd(), true, plan.attributes.tree_set, plan.attributes.tree_clear)?;
    }
    plan.attributes.propagation.map_or(Ok(()), |flags| propagate(mount.as_fd(), flags))
}

/// Gives the mount that is at the target other attributes.
pub(super) fn remount(root: BorrowedFd<'_>, plan: &MountPlan) -> sys::Result<()> {
    let target = paths::open(root, &plan.target, OFlags::PATH)?;
    if plan.attributes.changes_mount() {
        change(target.as_fd(), false, plan.attributes.set, plan.attributes.clear)?;
    }
    if plan.attributes.changes_tree() {
        change(target.as_fd(), true, plan.attributes.tree_set, plan.attributes.tree_clear)?;
    }
    plan.attributes.propagation.map_or(Ok(()), |flags| propagate(target.as_fd(), flags))
}

/// Sets where changes below a mount, or a tree of them, show (`mount_namespaces(7)`, "Shared subtrees").
pub(super) fn propagate(mount: BorrowedFd<'_>, flags: Flags) -> sys::Result<()> {
    let propagation = u64::from((flags - Flags::REC).bits());
    let recursive = flags.contains(Flags::REC);
    let change = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation, userns_fd: 0 };
    sys::mount_setattr(mount, c"", recursive, &change)
}

/// Sets and clears attributes of a mount, or of the tree that begins there.
pub(super) fn change(mount: BorrowedFd<'_>, recursive: bool, set: u64, clear: u64) -> sys::Result<()> {
    let change = libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    sys::mount_setattr(mount, c"", recursive, &change)
}

/// Hides paths: a file below /dev/null, a directory below an empty, read-only tmpfs. One of each serves all paths: the
/// first is attached, the others are copies of it, which is much cheaper than a file system each.
#[derive(Debug, Default)]
pub(super) struct Masks {
    pub(super) file: Option<OwnedFd>,
    pub(super) directory: Option<OwnedFd>,
    attached: (bool, bool),
}

impl Masks {
    /// Prepares both covers, from the host's own /dev/null: the container's could be something else.
    pub(super) fn prepare() -> sys::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE;
        let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, c"size", c"0")?;
        fsconfig_set_string(&context, c"nr_inodes", c"1")?;
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        Ok(Self {
            file: Some(open_tree(CWD, c"/dev/null", flags)?),
            directory: Some(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?),
            attached: (false, false),
        })
    }

    /// Covers one path, if it is there.
    pub(super) fn cover(&mut self, root: BorrowedFd<'_>, path: &std::ffi::CStr) -> sys::Result<()> {
        let target = match paths::open(root, path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            target => target?,
        };
        let directory = FileType::from_raw_mode(fstat(&target)?.st_mode) == FileType::Directory;
        let (cover, attached) = if directory {
            (&self.directory, &mut self.attached.1)
        } else {
            (&self.file, &mut self.attached.0)
        };
        let Some(cover) = cover else { return Err(Errno::BADF) };
        if std::mem::replace(attached, true) {
            let copy = open_tree(cover, c"", CLONE_OF_FD)?;
            return move_mount(&copy, c"", &target, c"", FD_TO_FD);
        }
        move_mount(cover, c"", &target, c"", FD_TO_FD)
    }
}

/// Makes a path read-only, if it is there: a copy of what is mounted there, laid over itself.
pub(super) fn make_read_only(root: BorrowedFd<'_>, path: &std::ffi::CStr) -> sys::Result<()> {
    let target = match paths::open(root, path, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        target => target?,
    };
    let copy = open_tree(&target, c"", CLONE_OF_FD | OpenTreeFlags::AT_RECURSIVE)?;
    change(copy.as_fd(), true, libc::MOUNT_ATTR_RDONLY, 0)?;
    move_mount(&copy, c"", &target, c"", FD_TO_FD)
}
