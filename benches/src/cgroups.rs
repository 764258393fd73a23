//! One version of control groups for all that race: crun refuses machines with both.

use std::fs;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Moves this process into a mount namespace where /sys/fs/cgroup is version 2; says what it is then. For one that has a
/// single thread, since a namespace is a thread's (`unshare(2)`).
pub fn own_cgroups() -> String {
    const NOTHING: Option<&str> = None;
    let attempt = || -> nix::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(NOTHING, "/", NOTHING, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NOTHING)?;
        if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            return Ok(());
        }
        umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH)?;
        mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), NOTHING)
    };
    match attempt() {
        Ok(()) => {
            let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
            format!("version 2, controllers: {}", controllers.trim())
        }
        Err(error) => format!("this machine's own ({error}); crun may refuse them"),
    }
}
