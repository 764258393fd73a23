//! What is known of a machine between two commands: a folder with one small JSON file and the monitor's socket.
//!
//! The file is written before the first side effect and again when the monitor exists, each time whole and by rename: so
//! whatever kills the command, `delete --force` finds all there is to clean up. The status is not in the file: whether the
//! monitor lives, the kernel says, and the rest the monitor itself.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use oci_spec::runtime::{Hook, Hooks};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::sandbox::check_id;
use crate::sockets;
use crate::spec::Spec;

const FILE: &str = "state.json";

/// Where a machine stands in its life, as the specification names it (runtime.md, "State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It boots.
    Creating,
    /// Its guest is up; the workload has not begun.
    Created,
    /// The workload runs.
    Running,
    /// No vCPU enters the guest.
    Paused,
    /// The workload has ended, and the machine with it.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// The state file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of the specification that the bundle follows.
    pub oci_version: String,
    /// The machine's name.
    pub id: String,
    /// The monitor's process; 0 while there is none.
    pub pid: i32,
    /// When that began, in clock ticks since the boot: with the pid it names one process for ever.
    pub(crate) pid_start: u64,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// The root file system's folder.
    pub rootfs: PathBuf,
    /// When it was created, in seconds since 1970.
    pub created: u64,
    /// The id of the user who created it.
    pub owner: u32,
    /// Folders of control groups that were made for it.
    pub(crate) cgroups: Vec<PathBuf>,
    /// Sockets that its process offers at places of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sockets: Vec<PathBuf>,
    /// Those that run at `start` and `delete`, kept because the bundle may be gone by then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) start_container: Vec<Hook>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) poststart: Vec<Hook>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) poststop: Vec<Hook>,
    /// The bundle's annotations.
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
}

impl State {
    pub(crate) fn new(spec: &Spec, id: &str, bundle: &Path) -> Self {
        let hooks = spec.hooks.as_ref();
        let kept = |hooks: Option<&Option<Vec<Hook>>>| hooks.cloned().flatten().unwrap_or_default();
        Self {
            oci_version: spec.oci_version.clone(),
            id: id.to_owned(),
            pid: 0,
            pid_start: 0,
            bundle: bundle.to_owned(),
            rootfs: spec.root.as_ref().map(|root| bundle.join(root.path())).unwrap_or_default(),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            owner: rustix::process::geteuid().as_raw(),
            cgroups: Vec::new(),
            sockets: Vec::new(),
            start_container: kept(hooks.map(Hooks::start_container)),
            poststart: kept(hooks.map(Hooks::poststart)),
            poststop: kept(hooks.map(Hooks::poststop)),
            annotations: spec.annotations.clone(),
        }
    }

    /// Removes the sockets that its process left.
    pub(crate) fn remove_sockets(&self) -> Result<(), Error> {
        let remove = |path: &PathBuf| sockets::remove(path).map_err(Error::file("remove the socket", path));
        self.sockets.iter().try_for_each(remove)
    }

    /// Notes the monitor's process.
    pub(crate) fn set_pid(&mut self, pid: i32) {
        self.pid = pid;
        self.pid_start = start_time(pid).unwrap_or_default();
    }

    /// Whether the monitor is there and has not exited.
    pub(crate) fn alive(&self) -> bool {
        self.pid > 0 && start_time(self.pid) == Some(self.pid_start)
    }
}

/// The folder of a machine's state.
#[derive(Clone, Debug)]
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    /// Makes the folder of a new machine; that it can be made but once is what makes an id unique.
    pub(crate) fn claim(root: &Path, id: &str) -> Result<Self, Error> {
        check_id(id)?;
        let root = std::path::absolute(root).map_err(Error::file("make absolute", root))?;
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700).create(&root).map_err(Error::file("make the folder", &root))?;
        let path = root.join(id);
        match private.recursive(false).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::Exists { id: id.into() })
            }
            result => result.map_err(Error::file("make the folder", &path)).map(|()| Self(path)),
        }
    }

    /// The folder of a machine that exists.
    pub(crate) fn of(root: &Path, id: &str) -> Result<Self, Error> {
        check_id(id)?;
        let absolute = std::path::absolute(root).map_err(Error::file("make absolute", root))?;
        let path = absolute.join(id);
        if !path.is_dir() {
            return Err(Error::Missing { id: id.into(), root: root.into() });
        }
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, state: &State) -> Result<(), Error> {
        let (path, new) = (self.0.join(FILE), self.0.join("state.new"));
        let text = serde_json::to_vec(state).map_err(io::Error::from).map_err(Error::file("write", &path))?;
        fs::write(&new, text).map_err(Error::file("write", &new))?;
        fs::rename(&new, &path).map_err(Error::file("write", &path))
    }

    pub(crate) fn read(&self) -> Result<State, Error> {
        let path = self.0.join(FILE);
        let text = fs::read(&path).map_err(Error::file("read", &path))?;
        serde_json::from_slice(&text).map_err(io::Error::from).map_err(Error::file("read", &path))
    }

    /// Removes the folder. Repeatable.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file("remove", &self.0)(error))
            }
            _ => Ok(()),
        }
    }
}

/// When a process that has not exited began (`proc_pid_stat(5)`, field 22); none for a zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_once() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::claim(root.path(), "one").unwrap();
        assert!(matches!(StateDir::claim(root.path(), "one"), Err(Error::Exists { .. })));
        assert!(matches!(StateDir::of(root.path(), "two"), Err(Error::Missing { .. })));
        dir.remove().unwrap();
        dir.remove().unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let mut state = State::new(&Spec::default(), "x", Path::new("/"));
        assert!(!state.alive());
        state.set_pid(std::process::id() as i32);
        assert!(state.alive());
        state.pid_start += 1;
        assert!(!state.alive());
    }
}
