//! The root file system: mounted, and made the only thing there is.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags as Propagation, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, chroot, fchdir, pivot_root};

use super::fault::{At, Fault, Step};
use crate::plan::{Plan, RootPlan};
use crate::sys;

/// Mounts the root file system and makes it the working directory; what is mounted below it comes with it.
pub(super) fn mount_root(plan: &Plan) -> Result<OwnedFd, Fault> {
    let own = plan.namespaces.new_mounts();
    if own {
        // The namespace began as a copy of the host's mounts, linked to them: cut, so that nothing we mount shows there.
        mount_change(c"/", plan.propagation).at(Step::Propagation)?;
        if plan.propagation.contains(Propagation::SHARED) {
            // Asked for rootfsPropagation "shared": the mount below which ours goes must not be (pivot_root(2)).
            make_parent_private(plan).at(Step::Propagation)?;
        }
    }
    match &plan.root {
        RootPlan::Directory { path, at } => {
            let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::AT_RECURSIVE;
            let tree = open_tree(CWD, path.as_c_str(), flags).at(Step::Root)?;
            let onto = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(&tree, c"", CWD, at.as_c_str(), onto).at(Step::Root)?;
            if !own {
                // Else what is mounted below it would show wherever the mount below it is shared with.
                let private = Propagation::PRIVATE | Propagation::REC;
                super::mounts::propagate(tree.as_fd(), private).at(Step::Propagation)?;
            }
            fchdir(&tree).at(Step::Root)?;
            Ok(tree)
        }
        RootPlan::Overlay { at, data, layers } => {
            for (fd, path) in layers {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let here = open(path.as_c_str(), flags, Mode::empty()).at(Step::Root)?;
                sys::install_fd(here.as_fd(), fd.as_raw_fd()).at(Step::Root)?;
            }
            mount(c"overlay", at.as_c_str(), c"overlay", MountFlags::empty(), data.as_c_str())
                .at(Step::Root)?;
            if !own {
                mount_change(at.as_c_str(), Propagation::PRIVATE).at(Step::Propagation)?;
            }
            chdir(at.as_c_str()).at(Step::Root)?;
            open(c".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at(Step::Root)
        }
    }
}

/// Makes the mount that holds the root directory private: the nearest directory above it that is a mount point.
fn make_parent_private(plan: &Plan) -> sys::Result<()> {
    let (RootPlan::Directory { path, .. } | RootPlan::Overlay { at: path, .. }) = &plan.root;
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    let bytes = path.to_bytes();
    if bytes.len() >= buffer.len() {
        return Err(rustix::io::Errno::NAMETOOLONG);
    }
    buffer[..bytes.len()].copy_from_slice(bytes);
    let mut end = bytes.len();
    loop {
        buffer[end] = 0;
        let path = if end == 0 {
            c"/"
        } else {
            std::ffi::CStr::from_bytes_until_nul(&buffer).map_err(|_| rustix::io::Errno::INVAL)?
        };
        // EINVAL: not a mount point (mount(2)).
        match mount_change(path, Propagation::PRIVATE) {
            Err(rustix::io::Errno::INVAL) if end > 0 => {}
            result => return result,
        }
        end = buffer[..end].iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    }
}

// ANCHOR: enter
/// Turns the working directory into the root and lets go of the host's tree. After this no path leads out.
pub(super) fn enter(plan: &Plan) -> Result<(), Fault> {
    if !plan.namespaces.new_mounts() {
        // The tree is others' too, so it stays, and only this process's root changes: a wall for whoever lacks
        // CAP_SYS_CHROOT (chroot(2)).
        chroot(c".").at(Step::Chroot)?;
    } else if plan.pivot {
        // Both in one place: the new root goes on top, the old one ends up stacked on "." (pivot_root(2), Notes).
        pivot_root(c".", c".").at(Step::Pivot)?;
        if plan.propagation.contains(Propagation::SHARED) {
            mount_change(c".", Propagation::DOWNSTREAM | Propagation::REC).at(Step::Pivot)?;
        }
        unmount(c".", UnmountFlags::DETACH).at(Step::Pivot)?;
    } else {
        // A ramfs cannot be left by pivot_root; moving the mount over it is the old way (switch_root(8)).
        move_mount(CWD, c".", CWD, c"/", MoveMountFlags::empty()).at(Step::Pivot)?;
        chroot(c".").at(Step::Pivot)?;
    }
    chdir(c"/").at(Step::Pivot)
}
// ANCHOR_END: enter

/// What waits until nothing more has to be written or mounted.
pub(super) fn finish(plan: &Plan, root: BorrowedFd<'_>) -> Result<(), Fault> {
    if plan.propagation.intersects(Propagation::SHARED | Propagation::UNBINDABLE) {
        mount_change(c"/", plan.propagation).at(Step::RootPropagation)?;
    }
    if plan.root_read_only {
        super::mounts::change(root.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0).at(Step::RootReadOnly)?;
    }
    Ok(())
}

impl RootPlan {
    /// The overlay's directories.
    pub(crate) fn layers(&self) -> &[(OwnedFd, std::ffi::CString)] {
        match self {
            RootPlan::Directory { .. } => &[],
            RootPlan::Overlay { layers, .. } => layers,
        }
    }

    /// For messages.
    pub(crate) fn name(&self) -> String {
        let (RootPlan::Directory { path, .. } | RootPlan::Overlay { at: path, .. }) = self;
        path.to_string_lossy().into_owned()
    }
}
