//! What this runtime can do, for `features`: taken from the tables that do it, so that it cannot be wrong.

use crate::{plan, security};

/// The hooks that are run.
pub const HOOKS: &[&str] =
    &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The namespaces that can be made or joined.
pub const NAMESPACES: &[&str] = &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// The options of mounts that are no parameters of a file system.
pub fn mount_options() -> Vec<String> {
    plan::mount_options()
}

/// The capabilities that are known.
pub fn capabilities() -> Vec<String> {
    security::caps::names()
}

/// Whether labels of AppArmor are put in force here: where the kernel has it.
pub fn apparmor() -> bool {
    security::lsm::apparmor()
}

/// Whether labels of SELinux are put in force here: where the kernel has it.
pub fn selinux() -> bool {
    security::lsm::selinux()
}

/// The annotations that mean something to this runtime.
pub const ANNOTATIONS: &[&str] = &security::landlock::ANNOTATIONS;
