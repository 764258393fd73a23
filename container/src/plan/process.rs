//! The process: who runs what, where, with which rights and limits. The same for a container's first process and for
//! one that `exec` adds.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use oci_spec::runtime::{Linux, PosixRlimitType as Limit};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::CapabilitySet;

use super::turns::Turns;
use crate::error::{Context, Error, Result};
use crate::security::landlock::Landlock;
use crate::security::lsm::{self, Label};
use crate::security::seccomp::listener::Listener;
use crate::security::{caps, seccomp};
use crate::spec::{Process, c_path, c_string};
use crate::sys::CStrings;

/// Where a command without a slash is looked for when the environment has no PATH: `execvp(3)`'s own default.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The kernel's own limit of descriptors, unless an administrator raised it (/proc/sys/fs/nr_open).
const MOST_DESCRIPTORS: u32 = 1 << 20;

/// One process, made ready.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    /// For messages.
    pub(crate) command: String,
    /// The places to look for the program, in order.
    pub(crate) candidates: Vec<CString>,
    pub(crate) arguments: CStrings,
    pub(crate) environment: CStrings,
    pub(crate) cwd: CString,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: Vec<Gid>,
    pub(crate) umask: Option<u32>,
    pub(crate) capabilities: Capabilities,
    pub(crate) limits: Vec<(Resource, Rlimit)>,
    pub(crate) oom_score_adj: Option<CString>,
    pub(crate) personality: Option<u64>,
    pub(crate) turns: Turns,
    pub(crate) label: Option<Label>,
    pub(crate) landlock: Option<Landlock>,
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: Option<seccomp::Filter>,
    pub(crate) listener: Option<Listener>,
    pub(crate) terminal: bool,
    /// Rows, columns.
    pub(crate) console_size: Option<(u16, u16)>,
    pub(crate) preserve_fds: u32,
    /// The runtime's own program file (device, inode), which the workload must not get hold of.
    pub(crate) runtime: (u64, u64),
}

/// The five capability sets of a process (`capabilities(7)`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capabilities {
    pub(crate) bounding: CapabilitySet,
    pub(crate) effective: CapabilitySet,
    pub(crate) inheritable: CapabilitySet,
    pub(crate) permitted: CapabilitySet,
    pub(crate) ambient: CapabilitySet,
}

impl ProcessPlan {
    pub(crate) fn new(
        process: &Process,
        linux: &Linux,
        annotations: &HashMap<String, String>,
        preserve_fds: u32,
    ) -> Result<Self> {
        let command = process.args.first().filter(|command| !command.is_empty());
        let command = command.ok_or_else(|| Error::config("process.args", "names no command"))?.clone();
        if preserve_fds > MOST_DESCRIPTORS {
            let reason = format!("{preserve_fds} is more than a process can have ({MOST_DESCRIPTORS})");
            return Err(Error::config("--preserve-fds", reason));
        }
        if !process.cwd.is_absolute() {
            return Err(Error::config("process.cwd", "must be an absolute path"));
        }
        let strings = |field: &str, strings: &[String]| {
            strings
                .iter()
                .enumerate()
                .map(|(i, s)| c_string(&format!("process.{field}[{i}]"), s))
                .collect::<Result<Vec<_>>>()
        };
        let user = &process.user;
        let mut environment = process.env.clone();
        if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
            environment.push(format!("HOME={}", if user.uid() == 0 { "/root" } else { "/" }));
        }
        Ok(Self {
            candidates: candidates(&command, &environment)?,
            command,
            arguments: CStrings::new(strings("args", &process.args)?),
            environment: CStrings::new(strings("env", &environment)?),
            cwd: c_path("process.cwd", &process.cwd)?,
            uid: Uid::from_raw(user.uid()),
            gid: Gid::from_raw(user.gid()),
            groups: user.additional_gids().iter().flatten().map(|&gid| Gid::from_raw(gid)).collect(),
            umask: user.umask(),
            capabilities: caps::sets(process.capabilities.as_ref())?,
            limits: limits(process)?,
            oom_score_adj: oom_score_adj(process)?,
            personality: linux.personality().as_ref().map(|p| personality(p.domain())),
            turns: Turns::new(process, linux)?,
            label: lsm::label(process)?,
            landlock: Landlock::new(annotations)?,
            no_new_privileges: process.no_new_privileges.unwrap_or(false),
            seccomp: linux.seccomp().as_ref().map(seccomp::compile).transpose()?,
            listener: linux.seccomp().as_ref().map(Listener::new).transpose()?.flatten(),
            terminal: process.terminal.unwrap_or(false),
            console_size: process.console_size.map(|size| (size.height() as u16, size.width() as u16)),
            preserve_fds,
            runtime: rustix::fs::stat(c"/proc/self/exe")
                .map(|stat| (stat.st_dev, stat.st_ino))
                .context("look at", "/proc/self/exe")?,
        })
    }
}

impl ProcessPlan {
    /// The descriptors that the process needs beside its streams.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listener.iter().flat_map(|listener| [listener.socket.as_fd(), listener.text.as_fd()])
    }
}

/// Where the program may be: at the path given, or in the directories of the container's own PATH.
fn candidates(command: &str, environment: &[String]) -> Result<Vec<CString>> {
    if command.contains('/') {
        return Ok(vec![c_string("process.args[0]", command)?]);
    }
    let path = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let directories = path.split(':').map(|directory| if directory.is_empty() { "." } else { directory });
    directories.map(|directory| c_string("process.env", format!("{directory}/{command}"))).collect()
}

fn oom_score_adj(process: &Process) -> Result<Option<CString>> {
    let Some(value) = process.oom_score_adj else { return Ok(None) };
    if !(-1000..=1000).contains(&value) {
        return Err(Error::config("process.oomScoreAdj", format!("{value} is not between -1000 and 1000")));
    }
    c_string("process.oomScoreAdj", value.to_string()).map(Some)
}

fn personality(domain: oci_spec::runtime::LinuxPersonalityDomain) -> u64 {
    match domain {
        oci_spec::runtime::LinuxPersonalityDomain::PerLinux => 0,
        oci_spec::runtime::LinuxPersonalityDomain::PerLinux32 => 8,
    }
}

fn limits(process: &Process) -> Result<Vec<(Resource, Rlimit)>> {
    let mut plan: Vec<(Resource, Rlimit)> = Vec::new();
    for (index, limit) in process.rlimits.iter().enumerate() {
        let field = format!("process.rlimits[{index}]");
        if limit.soft() > limit.hard() {
            return Err(Error::config(
                field,
                format!("soft {} is above hard {}", limit.soft(), limit.hard()),
            ));
        }
        let resource = resource(limit.typ());
        if plan.iter().any(|&(other, _)| other == resource) {
            return Err(Error::config(field, format!("{} is there twice", limit.typ())));
        }
        let value = |value: u64| (value != libc::RLIM_INFINITY).then_some(value);
        plan.push((resource, Rlimit { current: value(limit.soft()), maximum: value(limit.hard()) }));
    }
    Ok(plan)
}

fn resource(typ: Limit) -> Resource {
    match typ {
        Limit::RlimitCpu => Resource::Cpu,
        Limit::RlimitFsize => Resource::Fsize,
        Limit::RlimitData => Resource::Data,
        Limit::RlimitStack => Resource::Stack,
        Limit::RlimitCore => Resource::Core,
        Limit::RlimitRss => Resource::Rss,
        Limit::RlimitNproc => Resource::Nproc,
        Limit::RlimitNofile => Resource::Nofile,
        Limit::RlimitMemlock => Resource::Memlock,
        Limit::RlimitAs => Resource::As,
        Limit::RlimitLocks => Resource::Locks,
        Limit::RlimitSigpending => Resource::Sigpending,
        Limit::RlimitMsgqueue => Resource::Msgqueue,
        Limit::RlimitNice => Resource::Nice,
        Limit::RlimitRtprio => Resource::Rtprio,
        Limit::RlimitRttime => Resource::Rttime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_a_slash_is_only_itself() {
        assert_eq!(candidates("./x", &[]).unwrap(), [c"./x".to_owned()]);
    }

    #[test]
    fn a_bare_command_is_looked_for_in_the_containers_path() {
        let environment = ["PATH=/a:/b".to_owned()];
        assert_eq!(candidates("x", &environment).unwrap(), [c"/a/x".to_owned(), c"/b/x".to_owned()]);
        assert_eq!(candidates("x", &[]).unwrap(), [c"/bin/x".to_owned(), c"/usr/bin/x".to_owned()]);
    }
}
