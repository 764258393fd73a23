//! Where the trees of cgroups are mounted, and what a new directory in them needs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use crate::error::{Context, Result};
use crate::process::read_small;

/// Where every distribution mounts cgroups (systemd's file hierarchy; `cgroups(7)`).
const ROOT: &str = "/sys/fs/cgroup";

/// `f_type` of a cgroup2 file system (linux/magic.h).
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// One tree of cgroups.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tree {
    /// Version 1: its controllers, as the kernel lists them, or the name of a tree without any ("systemd").
    pub(super) name: Option<String>,
    pub(super) mount: PathBuf,
    /// The directory that this process is in.
    own: PathBuf,
}

impl Tree {
    /// Where containers go without a configured path: root's below the tree's root, a user's beside this process, in
    /// the part of the tree that was delegated to the user (Documentation/admin-guide/cgroup-v2.rst, "Delegation").
    pub(super) fn default_parent(&self, privileged: bool) -> PathBuf {
        if privileged {
            return self.mount.clone();
        }
        let own = self.mount.join(self.own.strip_prefix("/").unwrap_or(&self.own));
        match (&self.name, own.parent()) {
            (None, Some(parent)) if own != self.mount => parent.to_owned(),
            _ => own,
        }
    }
}

/// Where a tree is mounted, by convention: named as the kernel names it.
fn mount_of(name: Option<&str>) -> PathBuf {
    match name {
        Some(name) => Path::new(ROOT).join(name),
        None if is_unified(Path::new(ROOT)) => ROOT.into(),
        None => Path::new(ROOT).join("unified"),
    }
}

fn is_unified(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.f_type as u64 == CGROUP2_MAGIC)
}

/// The trees of this machine that are mounted, version 1 first. None is no error: a container can do without limits.
pub(super) fn trees() -> Result<Vec<Tree>> {
    let mut buffer = [0; 16 << 10];
    let text =
        read_small(Path::new("/proc/self/cgroup"), &mut buffer).context("read", "/proc/self/cgroup")?;
    let mut trees = parse(text);
    trees.retain(|tree| match tree.name {
        Some(_) => tree.mount.is_dir(),
        None => is_unified(&tree.mount),
    });
    Ok(trees)
}

/// Lines of "number:controllers:path" (`cgroups(7)`, /proc/PID/cgroup).
fn parse(text: &str) -> Vec<Tree> {
    let lines = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?, parts.next()?))
    });
    lines
        .map(|(controllers, own)| {
            let name = controllers.strip_prefix("name=").unwrap_or(controllers);
            let name = (!name.is_empty()).then(|| name.to_owned());
            Tree { mount: mount_of(name.as_deref()), name, own: own.into() }
        })
        .collect()
}

/// Version 2: what a directory's children may limit is written in its `cgroup.subtree_control`. Hands on everything
/// that the directory itself was given. A directory with processes of its own cannot (cgroup-v2.rst, "No Internal
/// Process Constraint"); then a limit that needs the controller fails with the name of its file.
pub(super) fn delegate_controllers(directory: &Path) -> io::Result<()> {
    let (mut available, mut enabled) = ([0; 1024], [0; 1024]);
    let available = read_small(&directory.join("cgroup.controllers"), &mut available)?;
    let enabled = read_small(&directory.join("cgroup.subtree_control"), &mut enabled)?;
    let missing = available.split_whitespace().filter(|name| !enabled.split_whitespace().any(|e| e == *name));
    for name in missing {
        match fs::write(directory.join("cgroup.subtree_control"), format!("+{name}")) {
            Err(error)
                if !matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EOPNOTSUPP | libc::EACCES)) =>
            {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Version 1: a new cpuset has no CPU and no memory node, and no process can enter it, until it is given some
/// (`cpuset(7)`); we give it its parent's.
pub(super) fn inherit_cpuset(parent: &Path, child: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut buffer = [0; 4096];
        if read_small(&child.join(file), &mut buffer)?.trim().is_empty() {
            fs::write(child.join(file), read_small(&parent.join(file), &mut buffer)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_tree() {
        let trees = parse("3:cpu,cpuacct:/a\n1:name=systemd:/\n0::/b/c:d\n");
        let names: Vec<_> = trees.iter().map(|tree| tree.name.as_deref()).collect();
        assert_eq!(names, [Some("cpu,cpuacct"), Some("systemd"), None]);
        assert_eq!(trees[2].own, Path::new("/b/c:d"));
    }
}
