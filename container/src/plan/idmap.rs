//! Idmapped mounts: files of the host's that belong to other users inside than outside, without a change on disk
//! (`mount_setattr(2)`, "ID-mapped mounts").
//!
//! The kernel takes the map from a user namespace, so one is made for it, by a process that does nothing else. The mount
//! is prepared here and not by the container's first process: it needs the right to the host's file system, which a
//! process in a user namespace does not have.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::namespaces::IdMaps;
use super::{Attributes, Namespaces};
use crate::error::{Context, Error, Result};
use crate::{process, sys};

/// How one mount asks for it: with its own maps, or the container's.
pub(super) fn maps(field: &str, mount: &oci_spec::runtime::Mount, namespaces: &Namespaces) -> Result<IdMaps> {
    let (uids, gids) = (mount.uid_mappings().clone(), mount.gid_mappings().clone());
    match (uids.unwrap_or_default(), gids.unwrap_or_default(), &namespaces.maps) {
        (uids, gids, _) if !uids.is_empty() && !gids.is_empty() => Ok(IdMaps { uids, gids }),
        (uids, gids, Some(own)) if uids.is_empty() && gids.is_empty() => {
            Ok(IdMaps { uids: own.uids.clone(), gids: own.gids.clone() })
        }
        _ => {
            let reason =
                "an idmapped mount needs uidMappings and gidMappings, or a new user namespace with both";
            Err(Error::config(field, reason))
        }
    }
}

/// A copy of a part of the host's tree with other owners, attached nowhere yet.
pub(super) fn prepare(
    field: &str,
    path: &Path,
    recursive: bool,
    maps: &IdMaps,
    attributes: &mut Attributes,
) -> Result<OwnedFd> {
    if cfg!(fuzzing) {
        return Err(Error::config(field, "no process is made while fuzzing"));
    }
    let users = user_namespace(field, maps)?;
    let mut flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(CWD, path, flags).context("open the source of an idmapped mount", path.display())?;
    let change = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | attributes.set,
        attr_clr: attributes.clear,
        propagation: 0,
        userns_fd: std::os::fd::AsRawFd::as_raw_fd(&users) as u64,
    };
    (attributes.set, attributes.clear) = (0, 0); // done with it
    sys::mount_setattr(tree.as_fd(), c"", recursive, &change).map_err(|error| {
        let reason = format!(
            "{} cannot be idmapped: {error}; its file system must support that (Linux 5.12, tmpfs 6.3), and this \
             process have CAP_SYS_ADMIN over it",
            path.display()
        );
        Error::config(field, reason)
    })?;
    Ok(tree)
}

/// A user namespace with these maps, held by a descriptor alone.
fn user_namespace(field: &str, maps: &IdMaps) -> Result<OwnedFd> {
    // The process ends itself when nobody waits for it any more: its end of the link closes.
    let (link, theirs) = crate::init::Link::pair().context("make", "a socket pair")?;
    let keep = [std::os::fd::AsRawFd::as_raw_fd(&theirs.as_fd())];
    let child = sys::clone_child(libc::CLONE_NEWUSER as u64, None, || {
        let _ = sys::close_all_but(&keep);
        let _ = theirs.wait_for_go();
        sys::exit(0)
    })
    .context("clone into a user namespace for", field)?;
    let write = |file: &str, map| {
        let path = format!("/proc/{}/{file}", child.pid);
        std::fs::write(&path, IdMaps::text(map)).map_err(|error| {
            Error::config(field, format!("its map of ids cannot be written to {path}: {error}"))
        })
    };
    let written = write("uid_map", &maps.uids).and_then(|()| write("gid_map", &maps.gids));
    let path = format!("/proc/{}/ns/user", child.pid);
    let opened = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context("open", path);
    drop(link);
    process::reap(&child.pidfd).context("wait for", "the process of a user namespace")?;
    written.and(opened)
}
