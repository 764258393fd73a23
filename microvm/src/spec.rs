//! The bundle's `config.json`: of the OCI runtime specification what concerns a machine.
//!
//! Most structures are those of the crate `oci_spec`. Its `Spec` and `Process` themselves are not used: they lead to all that
//! only a container needs (filters, devices, other operating systems), and to CPU lists that a regular expression checks,
//! whose engine alone was a quarter of the program.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Box as ConsoleSize, Hooks, LinuxCapabilities, LinuxCpu, LinuxMemory, LinuxNamespace, Mount, PosixRlimit,
    Root, User,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::Error;

/// A configuration larger than this is refused before it is parsed: the largest in use are below 1 MiB.
const MAX_BYTES: u64 = 16 << 20;

/// `config.json`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The version of the specification that the bundle follows.
    pub oci_version: String,
    /// The root file system.
    #[serde(default)]
    pub root: Option<Root>,
    /// What is mounted in it, in this order.
    #[serde(default, deserialize_with = "or_default")]
    pub mounts: Vec<Mount>,
    /// What runs.
    #[serde(default)]
    pub process: Option<Process>,
    /// The name of the machine.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Its NIS domain.
    #[serde(default)]
    pub domainname: Option<String>,
    /// Programs of the engine.
    #[serde(default)]
    pub hooks: Option<Hooks>,
    /// Notes of the engine.
    #[serde(default, deserialize_with = "or_default")]
    pub annotations: HashMap<String, String>,
    /// What only Linux has.
    #[serde(default, deserialize_with = "or_default")]
    pub linux: Linux,
}

/// Of `linux`, what a machine can have.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// Of these, the network's.
    #[serde(deserialize_with = "or_default")]
    pub namespaces: Vec<LinuxNamespace>,
    /// Limits.
    #[serde(deserialize_with = "or_default")]
    pub resources: Resources,
    /// The control group's folder.
    pub cgroups_path: Option<PathBuf>,
    /// What the process shall not see.
    #[serde(deserialize_with = "or_default")]
    pub masked_paths: Vec<String>,
    /// What it shall not change.
    #[serde(deserialize_with = "or_default")]
    pub readonly_paths: Vec<String>,
    /// The kernel's parameters.
    #[serde(deserialize_with = "or_default")]
    pub sysctl: HashMap<String, String>,
}

/// Limits that make a machine's size.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Of processors.
    pub cpu: Option<LinuxCpu>,
    /// Of memory.
    pub memory: Option<LinuxMemory>,
}

/// Who runs what, with which rights (config.md, "Process").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Whether it gets a terminal.
    #[serde(deserialize_with = "or_default")]
    pub terminal: bool,
    /// The terminal's first size.
    pub console_size: Option<ConsoleSize>,
    /// Who it is.
    pub user: User,
    /// The command and its arguments.
    #[serde(deserialize_with = "or_default")]
    pub args: Vec<String>,
    /// Its environment: NAME=VALUE.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// The five sets (capabilities(7)).
    pub capabilities: Option<LinuxCapabilities>,
    /// Resource limits (getrlimit(2)).
    #[serde(deserialize_with = "or_default")]
    pub rlimits: Vec<PosixRlimit>,
    /// Whether execve(2) never gives it more rights.
    #[serde(deserialize_with = "or_default")]
    pub no_new_privileges: bool,
    /// How early it is killed when memory runs out (proc_pid_oom_score_adj(5)).
    pub oom_score_adj: Option<i32>,
}

impl From<&oci_spec::runtime::Process> for Process {
    fn from(other: &oci_spec::runtime::Process) -> Self {
        Self {
            terminal: other.terminal().unwrap_or(false),
            console_size: other.console_size(),
            user: other.user().clone(),
            args: other.args().clone().unwrap_or_default(),
            env: other.env().clone().unwrap_or_default(),
            cwd: other.cwd().clone(),
            capabilities: other.capabilities().clone(),
            rlimits: other.rlimits().clone().unwrap_or_default(),
            no_new_privileges: other.no_new_privileges().unwrap_or(false),
            oom_score_adj: other.oom_score_adj(),
        }
    }
}

/// Engines written in Go say `null` for what is empty.
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Reads a bundle's configuration.
///
/// # Errors
/// [`Error::Bundle`] where there is none, or it is none.
pub fn load(bundle: &Path) -> Result<Spec, Error> {
    let path = bundle.join("config.json");
    let read = || -> io::Result<Spec> {
        let mut text = Vec::new();
        File::open(&path)?.take(MAX_BYTES + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(io::Error::other(format!("more than {MAX_BYTES} bytes")));
        }
        Ok(serde_json::from_slice(&text)?)
    };
    read().map_err(|error| Error::Bundle { path: path.clone(), reason: error.to_string() })
}

/// As [`load`], and refuses what is for another kind of runtime.
pub(crate) fn load_version_1(bundle: &Path) -> Result<Spec, Error> {
    let spec = load(bundle)?;
    if !spec.oci_version.starts_with("1.") {
        let version = &spec.oci_version;
        let reason = format!("{version:?} is not a version this runtime knows; it carries out 1.0 to 1.3");
        return Err(Error::Config { field: "ociVersion".into(), reason });
    }
    Ok(spec)
}

/// A bundle without a process has nothing to run.
pub(crate) fn no_process(bundle: &Path) -> Error {
    Error::Bundle { path: bundle.join("config.json"), reason: "process: there is none to run".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_leave_empty_is_as_if_it_were_not_there() {
        let text = r#"{"ociVersion":"1.2.0","mounts":null,"annotations":null,"linux":{"sysctl":null,"resources":null},
            "process":{"terminal":null,"user":{"uid":0,"gid":0},"args":null,"cwd":"/","rlimits":null,
            "execCPUAffinity":{"initial":"0-3"},"scheduler":{"policy":"SCHED_BATCH"}}}"#;
        let spec: Spec = serde_json::from_str(text).unwrap();
        assert!(spec.mounts.is_empty() && spec.linux.resources.cpu.is_none());
        assert_eq!(spec.process.unwrap(), Process { cwd: "/".into(), ..Process::default() });
        assert!(serde_json::from_str::<Spec>("{}").is_err(), "a version is asked for");
    }

    #[test]
    fn a_bundle_without_a_configuration_is_an_error_that_names_it() {
        let error = load(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/config.json"), "{error}");
    }
}
