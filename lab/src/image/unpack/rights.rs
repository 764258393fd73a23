//! What this process may make, which decides how layers are written and how overlay is to read them.

use std::fs;
use std::path::Path;

/// What the process may do to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Give files to other users: root, at least of a user namespace.
    pub owners: bool,
    /// Make device nodes and set `trusted.` attributes: root of the initial user namespace
    /// (`user_namespaces(7)`, `xattr(7)`).
    pub devices: bool,
}

impl Rights {
    /// The rights of this process.
    pub fn of_process() -> Self {
        let owners = rustix::process::geteuid().is_root();
        Self { owners, devices: owners && in_initial_user_namespace() }
    }

    /// The attribute that makes a directory opaque to overlay (Documentation/filesystems/overlayfs.rst, "User xattr").
    pub fn opaque_attribute(self) -> &'static str {
        if self.devices { "trusted.overlay.opaque" } else { "user.overlay.opaque" }
    }

    /// Whether overlay reads `trusted.` attributes in this process's mounts, or needs the option `userxattr`.
    pub fn needs_userxattr(self) -> bool {
        !self.devices
    }

    pub(super) fn is_opaque(self, directory: &Path) -> bool {
        let mut value = [0; 1];
        rustix::fs::lgetxattr(directory, self.opaque_attribute(), &mut value).is_ok_and(|length| length == 1)
    }
}

/// The initial namespace maps all ids to themselves (`user_namespaces(7)`, "/proc/pid/uid_map").
fn in_initial_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}
