//! `process`: who runs what, with which rights (config.md, "Process").

use std::path::PathBuf;

use oci_spec::runtime::{Box as ConsoleSize, LinuxCapabilities, LinuxIOPriority, PosixRlimit, User};
use serde::Deserialize;

/// A process as the configuration describes it.
///
/// `oci_spec`'s own type is not used for two reasons: its flags of the scheduler have not the specification's names, and
/// its CPU lists are checked by a regular expression, whose engine would be a quarter of the runtime's program.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Whether it gets a terminal.
    pub terminal: Option<bool>,
    /// The terminal's first size.
    pub console_size: Option<ConsoleSize>,
    /// Who it is.
    pub user: User,
    /// The command and its arguments.
    #[serde(deserialize_with = "super::or_default")]
    pub args: Vec<String>,
    /// Its environment: NAME=VALUE.
    #[serde(deserialize_with = "super::or_default")]
    pub env: Vec<String>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// The five sets (`capabilities(7)`).
    pub capabilities: Option<LinuxCapabilities>,
    /// Resource limits (`getrlimit(2)`).
    #[serde(deserialize_with = "super::or_default")]
    pub rlimits: Vec<PosixRlimit>,
    /// Whether `execve(2)` never gives it more rights (`PR_SET_NO_NEW_PRIVS(2const)`).
    pub no_new_privileges: Option<bool>,
    /// The AppArmor profile that it runs under.
    pub apparmor_profile: Option<String>,
    /// How early it is killed when memory runs out (`proc_pid_oom_score_adj(5)`).
    pub oom_score_adj: Option<i32>,
    /// The SELinux label that it runs under.
    pub selinux_label: Option<String>,
    /// Its turn at disks (`ioprio_set(2)`).
    pub io_priority: Option<LinuxIOPriority>,
    /// Its turn at processors (`sched_setattr(2)`).
    pub scheduler: Option<Scheduler>,
    /// The processors of a process that is added to a container.
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
}

/// The arguments of `sched_setattr(2)`, by name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// SCHED_OTHER, SCHED_FIFO, ...
    pub policy: String,
    /// For SCHED_OTHER and SCHED_BATCH: -20 to 19.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR: 1 to 99.
    pub priority: i32,
    /// SCHED_FLAG_RESET_ON_FORK, ...
    pub flags: Vec<String>,
    /// For SCHED_DEADLINE: nanoseconds of processor time,
    pub runtime: u64,
    /// to be had within so many nanoseconds,
    pub deadline: u64,
    /// in every period of so many.
    pub period: u64,
}

/// Lists of processors, as "0-3,7".
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ExecCpuAffinity {
    /// While the process is set up.
    pub initial: Option<String>,
    /// When it becomes its program.
    #[serde(rename = "final")]
    pub last: Option<String>,
}

impl From<&oci_spec::runtime::Process> for Process {
    fn from(other: &oci_spec::runtime::Process) -> Self {
        Self {
            terminal: other.terminal(),
            console_size: other.console_size(),
            user: other.user().clone(),
            args: other.args().clone().unwrap_or_default(),
            env: other.env().clone().unwrap_or_default(),
            cwd: other.cwd().clone(),
            capabilities: other.capabilities().clone(),
            rlimits: other.rlimits().clone().unwrap_or_default(),
            no_new_privileges: other.no_new_privileges(),
            apparmor_profile: other.apparmor_profile().clone(),
            oom_score_adj: other.oom_score_adj(),
            selinux_label: other.selinux_label().clone(),
            io_priority: *other.io_priority(),
            scheduler: other.scheduler().as_ref().map(|scheduler| Scheduler {
                policy: scheduler.policy().to_string(),
                nice: scheduler.nice().unwrap_or(0),
                priority: scheduler.priority().unwrap_or(0),
                flags: scheduler.flags().iter().flatten().map(ToString::to_string).collect(),
                runtime: scheduler.runtime().unwrap_or(0),
                deadline: scheduler.deadline().unwrap_or(0),
                period: scheduler.period().unwrap_or(0),
            }),
            exec_cpu_affinity: other.exec_cpu_affinity().as_ref().map(|affinity| ExecCpuAffinity {
                initial: affinity.initial().clone(),
                last: affinity.cpu_affinity_final().clone(),
            }),
        }
    }
}

impl From<oci_spec::runtime::Process> for Process {
    fn from(other: oci_spec::runtime::Process) -> Self {
        Self::from(&other)
    }
}
