//! Whose a container's cgroup is: where the container may write to its own, its user may make cgroups below it
//! (config-linux.md, "Cgroup ownership"). Version 2 only; version 1 cannot be handed on safely.

use std::fs;
use std::io;
use std::os::unix::fs::chown;

use oci_spec::runtime::LinuxNamespaceType as Type;

use super::Membership;
use crate::error::{Context, Result};
use crate::spec::Spec;

/// Files that may be given away, on a kernel that does not list them (`cgroups(7)`, /sys/kernel/cgroup/delegate).
const DELEGATED: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// The user, as the host counts, that a container's cgroup belongs to; none where it stays the runtime's.
pub(crate) fn owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux.as_ref()?;
    let new = |typ: Type| {
        let mut namespaces = linux.namespaces().iter().flatten();
        namespaces.find(|namespace| namespace.typ() == typ).map(|namespace| namespace.path().is_none())
    };
    let writable = spec.mounts.iter().any(|mount| {
        let kind = mount.typ().as_deref().unwrap_or_default();
        mount.destination().as_os_str() == "/sys/fs/cgroup"
            && matches!(kind, "cgroup" | "cgroup2")
            && !mount.options().iter().flatten().any(|option| option == "ro")
    });
    if new(Type::Cgroup) != Some(true) || !writable {
        return None;
    }
    let inside = spec.process.as_ref()?.user.uid();
    let outside = match new(Type::User) {
        None => inside,
        Some(false) => return None,
        Some(true) => linux.uid_mappings().iter().flatten().find_map(|map| {
            let offset = inside.checked_sub(map.container_id()).filter(|offset| *offset < map.size())?;
            map.host_id().checked_add(offset)
        })?,
    };
    (outside != rustix::process::geteuid().as_raw()).then_some(outside)
}

impl Membership {
    /// Gives the container's own cgroup to a user.
    pub(crate) fn give_to(&self, uid: u32) -> Result<()> {
        let [group] = self.groups.as_slice() else { return Ok(()) };
        if group.name.is_some() {
            return Ok(());
        }
        let own = |error| Err(error).context("give to process.user cgroup", group.path.display());
        chown(&group.path, Some(uid), None).or_else(own)?;
        let files =
            fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_else(|_| DELEGATED.to_owned());
        for file in files.lines().filter(|file| !file.contains('/')) {
            match chown(group.path.join(file), Some(uid), None) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return own(error),
                _ => {}
            }
        }
        Ok(())
    }
}
