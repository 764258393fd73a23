//! What is known of a container between two commands: a directory with one small JSON file, the bundle's configuration as
//! it was (changes to it after `create` must not matter, runtime.md, "Lifecycle"), and, until it is started, the socket
//! that its first process waits at (the *door*).
//!
//! The file is written before the first side effect and again when the process exists, each time whole and by rename:
//! so whatever kills the runtime, `delete --force` finds all there is to clean up. The status is not in the file; it
//! is read from what the kernel says of the process.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use oci_spec::runtime::Hook;
use rustix::mount::{MountPropagationFlags as Propagation, UnmountFlags, mount_change, unmount};
use serde::{Deserialize, Serialize};

use crate::cgroup::Membership;
use crate::error::{Context, Error, Result};
use crate::spec::Spec;
use crate::{process, rdt};

const FILE: &str = "state.json";
const NEW: &str = "state.new";
const CONFIG: &str = "config.json";
const DOOR: &str = "door";
/// Where the root file system is mounted when others see the mounts too.
pub(crate) const ROOT: &str = "root";

/// The status of a container, as the specification names it (runtime.md, "State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Set up; the workload has not begun.
    Created,
    /// The workload runs.
    Running,
    /// Its first process has exited.
    Stopped,
    /// All its processes are frozen.
    Paused,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Stopped => "stopped",
            Status::Paused => "paused",
        })
    }
}

/// The state file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    /// 0 while there is none.
    pub(crate) pid: i32,
    /// When the process began, in clock ticks since the boot: with the pid it names one process for ever.
    pub(crate) pid_start: u64,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    /// `process.args[0]`, for messages of `start`.
    pub(crate) command: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// The user who made it.
    pub(crate) owner: u32,
    pub(crate) cgroup: Membership,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rdt: Option<rdt::Class>,
    /// Whether the container has a pid namespace of its own, so that its first process takes all others with it.
    pub(crate) own_pids: bool,
    /// The types of namespaces that it does not share with the runtime, as flags of `clone(2)`.
    pub(crate) namespaces: u32,
    /// Whether its root was entered by `chroot(2)`, in a mount namespace that is not its own.
    #[serde(default)]
    pub(crate) chroot: bool,
    /// Those that run after `start` and after `delete`, kept because the bundle may be gone by then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) poststart: Vec<Hook>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) poststop: Vec<Hook>,
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub(crate) annotations: HashMap<String, String>,
}

/// The directory of a container's state.
#[derive(Clone, Debug)]
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    /// Makes the directory of a new container; that it can be made but once is what makes an id unique.
    pub(crate) fn claim(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let absolute = std::path::absolute(root).context("make absolute", root.display())?;
        let path = absolute.join(id);
        let mut private = fs::DirBuilder::new();
        private.mode(0o700);
        match private.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                private
                    .recursive(true)
                    .create(&absolute)
                    .context("make state directory", absolute.display())?;
                private.recursive(false).create(&path)
            }
            result => result,
        }
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists { id: id.to_owned() },
            _ => Error::step("make state directory", path.display(), error),
        })?;
        Ok(Self(path))
    }

    /// The directory of a container that exists.
    pub(crate) fn of(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let absolute = std::path::absolute(root).context("make absolute", root.display())?;
        let path = absolute.join(id);
        if !path.is_dir() {
            return Err(Error::Missing { id: id.to_owned(), root: root.to_owned() });
        }
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn door(&self) -> PathBuf {
        self.0.join(DOOR)
    }

    pub(crate) fn write(&self, state: &State) -> Result<()> {
        let (path, new) = (self.0.join(FILE), self.0.join(NEW));
        let text = serde_json::to_vec(state)
            .map_err(|error| Error::step("write", path.display(), io::Error::from(error)))?;
        fs::write(&new, text).context("write", new.display())?;
        fs::rename(&new, &path).context("write", path.display())
    }

    /// Keeps the configuration for those who add a process later.
    pub(crate) fn keep_config(&self, text: Vec<u8>) -> Result<()> {
        let path = self.0.join(CONFIG);
        fs::write(&path, text).context("write", path.display())
    }

    pub(crate) fn read(&self) -> Result<State> {
        let path = self.0.join(FILE);
        let text = fs::read(&path).context("read", path.display())?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::step("read", path.display(), io::Error::from(error)))
    }

    /// Makes the place for a root file system that others see too.
    pub(crate) fn make_root(&self) -> Result<()> {
        let path = self.0.join(ROOT);
        fs::create_dir(&path).context("make", path.display())
    }

    /// Removes the directory. Repeatable.
    pub(crate) fn remove(&self) -> Result<()> {
        // The files are known: no need to list them. Nothing goes but by its name: an image could be mounted here.
        for file in [DOOR, CONFIG] {
            let _ = fs::remove_file(self.0.join(file));
        }
        let removed = self.remove_root().and_then(|()| {
            // After the mounts: with it, what failed can be tried again.
            let _ = fs::remove_file(self.0.join(FILE));
            fs::remove_dir(&self.0).or_else(|_| {
                let _ = fs::remove_file(self.0.join(NEW)); // a killed runtime's
                fs::remove_dir(&self.0)
            })
        });
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context("remove", self.0.display())
            }
            _ => Ok(()),
        }
    }

    /// Takes away the mounts of a container whose mount namespace is not its own, with the place where they are. In other
    /// namespaces the kernel detaches what is mounted on a directory that is removed (`rmdir(2)` of Linux 3.18).
    fn remove_root(&self) -> io::Result<()> {
        let path = self.0.join(ROOT);
        loop {
            match fs::remove_dir(&path) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    // None of them may be linked to the host's, or those would go too (mount_namespaces(7)).
                    mount_change(&path, Propagation::PRIVATE | Propagation::REC)?;
                    unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => return Ok(()),
            }
        }
    }
}

impl State {
    pub(crate) fn new(spec: &Spec, id: &str, bundle: &Path, cgroup: Membership) -> Self {
        let command = spec.process.as_ref().and_then(|process| process.args.first().cloned());
        Self {
            oci_version: spec.oci_version.clone(),
            id: id.to_owned(),
            pid: 0,
            pid_start: 0,
            bundle: bundle.to_owned(),
            rootfs: spec.root.as_ref().map(|root| bundle.join(root.path())).unwrap_or_default(),
            command: command.unwrap_or_default(),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            owner: rustix::process::geteuid().as_raw(),
            cgroup,
            rdt: None,
            own_pids: true,
            namespaces: 0,
            chroot: false,
            poststart: spec.hooks.as_ref().and_then(|hooks| hooks.poststart().clone()).unwrap_or_default(),
            poststop: spec.hooks.as_ref().and_then(|hooks| hooks.poststop().clone()).unwrap_or_default(),
            annotations: spec.annotations.clone(),
        }
    }

    /// Whether the first process is there and has not exited.
    pub(crate) fn alive(&self) -> bool {
        self.pid > 0 && start_time(self.pid) == Some(self.pid_start)
    }

    pub(crate) fn status(&self, dir: &StateDir, alive: bool) -> Status {
        if self.pid == 0 {
            Status::Creating
        } else if !alive {
            Status::Stopped
        } else if dir.door().exists() {
            Status::Created
        } else if self.cgroup.frozen() {
            Status::Paused
        } else {
            Status::Running
        }
    }
}

/// When a process that has not exited began (`proc_pid_stat(5)`, field 22); none for a zombie.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let mut buffer = [0; 1024];
    let stat = process::read_small(Path::new(&format!("/proc/{pid}/stat")), &mut buffer).ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok()).flatten()
}

/// An id is a name of a directory, of a cgroup, and a word of messages: nothing in it may mean something else.
fn check_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() || id.len() > 128 || id == "." || id == ".." || !id.chars().all(allowed) {
        return Err(Error::Id { id: id.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_be_a_path() {
        for id in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(129)] {
            assert!(check_id(id).is_err(), "{id:?} was accepted");
        }
        check_id("a_b+c-d.1").unwrap();
    }

    #[test]
    fn this_process_has_a_start_time() {
        let own = std::process::id() as i32;
        assert!(start_time(own).is_some());
        assert_eq!(start_time(own), start_time(own));
        assert_eq!(start_time(-1), None);
    }
}
