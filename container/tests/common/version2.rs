//! A view of the machine with cgroups of version 2 alone, for one thread.

use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

const ROOT: &str = "/sys/fs/cgroup";

/// Gives this thread a view of the machine with version 2 alone; the controllers that it has.
pub fn only_version_2() -> Result<String, String> {
    // SAFETY: only the mount namespace changes; CLONE_FILES is not among the flags (unshare(2)).
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(|error| format!("unshare: {error}"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| format!("make / private: {error}"))?;
    if !Path::new(ROOT).join("cgroup.controllers").exists() {
        unmount(ROOT, UnmountFlags::DETACH).map_err(|error| format!("unmount {ROOT}: {error}"))?;
        mount("cgroup2", ROOT, "cgroup2", MountFlags::empty(), None)
            .map_err(|error| format!("mount cgroup2: {error}"))?;
    }
    fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).map_err(|error| error.to_string())
}
