//! What is done to a container's cgroups while it runs, and when it is gone.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Membership;
use crate::error::{Context, Result};

/// How long the kernel may take to let go of a cgroup whose processes have all exited, or to freeze one.
const PATIENCE: Duration = Duration::from_secs(5);

impl Membership {
    /// Stops every process of the container where it is, or lets them go on: version 1's freezer controller
    /// (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst), or version 2's `cgroup.freeze`.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        let Some(group) = self.group("freezer") else { return Ok(()) };
        let v1 = group.name.is_some();
        let (file, value) = match (v1, frozen) {
            (true, true) => ("freezer.state", "FROZEN"),
            (true, false) => ("freezer.state", "THAWED"),
            (false, true) => ("cgroup.freeze", "1"),
            (false, false) => ("cgroup.freeze", "0"),
        };
        let path = group.path.join(file);
        fs::write(&path, value).context("write", path.display())?;
        let deadline = Instant::now() + PATIENCE;
        while self.frozen() != frozen {
            if Instant::now() > deadline {
                let timeout = io::Error::from(io::ErrorKind::TimedOut);
                return Err(timeout)
                    .context(if frozen { "freeze cgroup" } else { "thaw cgroup" }, path.display());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Whether every process of the container is stopped by [`freeze`](Self::freeze).
    pub(crate) fn frozen(&self) -> bool {
        self.group("freezer").is_some_and(|group| {
            let read = |file| fs::read_to_string(group.path.join(file)).unwrap_or_default();
            match group.name {
                Some(_) => read("freezer.state").trim() == "FROZEN",
                None => read("cgroup.events").lines().any(|line| line == "frozen 1"),
            }
        })
    }

    /// The processes of the container, as numbers of this pid namespace, from any tree that has them.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self.groups.iter().flat_map(|group| tree_processes(&group.path)).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

fn tree_processes(path: &Path) -> Vec<i32> {
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(path) {
        pids.extend(tree_processes(&child));
    }
    pids
}

fn children(path: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()).collect()
}

/// Removes a cgroup and those below it. A process that has exited may hold its cgroup a moment longer (EBUSY).
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                for child in children(path) {
                    remove_tree(&child)?;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => return result,
        }
    }
}
