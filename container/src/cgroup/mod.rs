//! Control groups: how much the container may use (`cgroups(7)`).
//!
//! A machine has one of three layouts, and all are served alike: version 2 (one tree), version 1 (one tree, a
//! "hierarchy", for each controller), and hybrid (version 1 with an extra version 2 tree). A container gets one
//! directory at the same path in every tree; its [`Membership`] is the list of these directories.
//!
//! How the first process gets in matters for speed. On version 2 `clone3(2)` makes it there (CLONE_INTO_CGROUP). On
//! version 1 it writes "0" to the `tasks` file itself: the kernel moves a lone thread that moves itself without the
//! global lock that writing somebody's pid to `cgroup.procs` takes, and that lock waits for every CPU
//! (`cgroup_procs_write_start`, kernel/cgroup/cgroup.c).

mod below;
mod control;
mod devices;
mod disks;
mod layout;
mod limits;
mod owner;
mod stats;
mod systemd;

pub(crate) use owner::owner;
pub use stats::Stats;
pub(crate) use systemd::Holder;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::options::Cgroups;
use crate::spec::Spec;
use crate::sys;
use systemd::Scope;

/// The cgroups of one container. It is written to the state file, so that whoever deletes the container finds them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    groups: Vec<Group>,
    /// The unit, where systemd makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<Scope>,
}

/// The directory of a container in one tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    /// Version 1: the tree's name, as "memory" or "cpu,cpuacct". Version 2: none.
    name: Option<String>,
    /// Where the tree is mounted.
    mount: PathBuf,
    path: PathBuf,
    /// The topmost directory that had to be made; what is below it is ours to remove.
    made: Option<PathBuf>,
}

/// What the first process needs to enter its cgroups, opened by the parent.
#[derive(Debug, Default)]
pub(crate) struct Entrance {
    /// Version 2: the directory, for CLONE_INTO_CGROUP.
    pub(crate) unified: Option<OwnedFd>,
    /// Version 1: the `tasks` files, for the process to write "0" to.
    pub(crate) tasks: Vec<OwnedFd>,
}

/// How an ordinary user comes by a cgroup to set limits in (cgroup-v2.rst, "Delegation").
const DELEGATION: &str = "; without root, limits need a part of the tree that is yours: on version 2 with systemd, begin the \
                          command with `systemd-run --user --scope -p Delegate=yes`; or ask for no limits";

impl Membership {
    /// Works out where the container's cgroups will be; makes nothing yet.
    pub(crate) fn plan(spec: &Spec, id: &str, by: Cgroups) -> Result<Self> {
        if by == Cgroups::None {
            return Ok(Self::default());
        }
        let configured = spec.linux.as_ref().and_then(|linux| linux.cgroups_path().clone());
        let configured = configured.filter(|path| !path.as_os_str().is_empty());
        if let Some(path) = &configured
            && path.components().any(|part| part == std::path::Component::ParentDir)
        {
            return Err(Error::config("linux.cgroupsPath", "must not contain \"..\""));
        }
        let scope = (by == Cgroups::Systemd).then(|| Scope::new(configured.as_deref(), id)).transpose()?;
        let configured = scope.as_ref().map_or(Ok(configured), |scope| scope.path().map(Some))?;
        let privileged = rustix::process::geteuid().is_root();
        let groups = layout::trees()?
            .into_iter()
            .map(|tree| {
                let path = match &configured {
                    Some(path) => tree.mount.join(path.strip_prefix("/").unwrap_or(path)),
                    None => tree.default_parent(privileged).join(format!("lab-{id}")),
                };
                Group { name: tree.name, mount: tree.mount, path, made: None }
            })
            .collect();
        Ok(Self { groups, scope })
    }

    /// Makes the directories. Without the right to (an ordinary user), the container goes without those trees, unless
    /// a limit asks for one. What is returned keeps systemd's unit from ending before the container's process is in it.
    pub(crate) fn make(&mut self, resources: Option<&LinuxResources>) -> Result<Option<Holder>> {
        let v1 = self.has_v1();
        let start = |scope: &Scope| {
            let limits = resources.map_or(Ok(Vec::new()), |resources| limits::all(resources, v1))?;
            scope.start(&limits, v1)
        };
        let holder = self.scope.as_ref().map(start).transpose()?;
        let mut groups = Vec::new();
        for mut group in std::mem::take(&mut self.groups) {
            match make(&mut group, self.scope.is_some()) {
                Ok(()) => groups.push(group),
                Err(error) if unprivileged(&error) && !limits::needs(resources, group.name.as_deref()) => {}
                Err(source) => {
                    self.groups = groups;
                    let hint = if unprivileged(&source) { DELEGATION } else { "" };
                    let object = group.path.display().to_string();
                    return Err(Error::Step { step: "make cgroup", object, source, hint });
                }
            }
        }
        self.groups = groups;
        self.apply(resources)?;
        Ok(holder)
    }

    /// Gives a container that runs other limits.
    pub(crate) fn update(&self, resources: &LinuxResources) -> Result<()> {
        if let Some(scope) = &self.scope {
            scope.change(&limits::all(resources, self.has_v1())?)?;
        }
        self.apply(Some(resources))
    }

    fn has_v1(&self) -> bool {
        self.groups.iter().any(|group| group.name.is_some())
    }

    // ANCHOR: apply
    /// Writes the limits.
    fn apply(&self, resources: Option<&LinuxResources>) -> Result<()> {
        let Some(resources) = resources else { return Ok(()) };
        let v1 = self.has_v1();
        if let (false, Some(group)) = (v1, self.groups.first()) {
            allow_devices(group, resources)?;
            self.check_memory(resources)?;
        }
        let mut refused = Vec::new();
        for limit in limits::all(resources, v1)? {
            if let Err(error) = self.set(&limit) {
                refused.push((limit, error));
            }
        }
        // One limit may stand in another's way, as memory above the old limit of memory and swap: then its turn comes
        // after the others'.
        refused.into_iter().try_for_each(|(limit, first)| match first {
            Error::Config { .. } => self.set(&limit).map_err(|_| first),
            other => Err(other),
        })
    }
    // ANCHOR_END: apply

    /// Version 2 kills to get below a new limit; `checkBeforeUpdate` asks for version 1's way, which refuses it.
    fn check_memory(&self, resources: &LinuxResources) -> Result<()> {
        let Some(memory) = resources.memory() else { return Ok(()) };
        match (memory.check_before_update(), memory.limit(), self.stats().memory) {
            (Some(true), Some(limit), Some(used)) if limit > 0 && used > limit as u64 => {
                let reason =
                    format!("{limit} is less than the {used} bytes in use (checkBeforeUpdate is set)");
                Err(Error::config("linux.resources.memory.limit", reason))
            }
            _ => Ok(()),
        }
    }

    /// Writes one limit.
    fn set(&self, limit: &limits::Limit) -> Result<()> {
        let Some(group) = self.group(limit.controller) else {
            let reason = format!("this machine has no cgroup controller {:?}", limit.controller);
            return Err(Error::config(&*limit.field, reason));
        };
        let write = |file: &str, value: &str| {
            let path = group.path.join(file);
            let named = |error: io::Error| {
                (error.kind(), format!("writing {value:?} to {}: {error}", path.display()))
            };
            fs::write(&path, value).map_err(named)
        };
        let written = match (write(&limit.file, &limit.value), &limit.instead) {
            (Err((io::ErrorKind::NotFound, _)), Some((file, value))) => write(file, value),
            (written, _) => written,
        };
        match written {
            Err((io::ErrorKind::NotFound, _)) if limit.optional => Ok(()),
            Err((_, reason)) => Err(Error::config(&*limit.field, reason)),
            Ok(()) => Ok(()),
        }
    }

    /// Opens the way in.
    pub(crate) fn entrance(&self) -> Result<Entrance> {
        let mut entrance = Entrance::default();
        for group in &self.groups {
            if group.name.is_none() {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let fd =
                    open(&group.path, flags, Mode::empty()).context("open cgroup", group.path.display())?;
                entrance.unified = Some(fd);
            } else {
                let path = group.path.join("tasks");
                let fd = open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                    .context("open cgroup", path.display())?;
                entrance.tasks.push(fd);
            }
        }
        Ok(entrance)
    }

    /// The trees a container may see: (name on version 1, its own directory).
    pub(crate) fn views(&self) -> Vec<(Option<String>, PathBuf)> {
        self.groups.iter().map(|group| (group.name.clone(), group.path.clone())).collect()
    }

    /// The directory in the tree of this controller: version 1's own tree, else version 2.
    fn group(&self, controller: &str) -> Option<&Group> {
        let v1 =
            self.groups.iter().find(|g| g.name.iter().flat_map(|n| n.split(',')).any(|n| n == controller));
        v1.or_else(|| self.groups.iter().find(|g| g.name.is_none()))
    }

    /// Removes the directories; they must be empty of processes. Repeatable.
    pub(crate) fn remove(&self) -> Result<()> {
        for group in &self.groups {
            control::remove_tree(&group.path).context("remove cgroup", group.path.display())?;
            if let Some(made) = &group.made {
                // Parents that were made for this container go when they hold no other; a failure means they do.
                let parents = group.path.ancestors().skip(1).take_while(|path| path.starts_with(made));
                for parent in parents {
                    if fs::remove_dir(parent).is_err() {
                        break;
                    }
                }
            }
        }
        self.scope.iter().for_each(Scope::stop);
        Ok(())
    }
}

/// Version 2: attaches the program that decides on devices.
fn allow_devices(group: &Group, resources: &LinuxResources) -> Result<()> {
    let rules = devices::rules(resources)?;
    if rules.is_empty() {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(&group.path, flags, Mode::empty()).context("open cgroup", group.path.display())?;
    match sys::bpf::attach_device_program(directory.as_fd(), &devices::program(&rules)) {
        // An ordinary user may load no programs, and in the user namespace of such a container no device can be made.
        Err(Errno::PERM | Errno::ACCESS) if !rustix::process::geteuid().is_root() => Ok(()),
        Err(error) => {
            let reason = format!(
                "the kernel does not take the eBPF program that decides on devices: {error}; it needs CAP_BPF and \
                 CAP_NET_ADMIN, and a kernel with CONFIG_CGROUP_BPF; without these, leave the rules out"
            );
            Err(Error::config("linux.resources.devices", reason))
        }
        Ok(()) => Ok(()),
    }
}

fn unprivileged(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
        && !rustix::process::geteuid().is_root()
}

/// Makes the directory of one tree with its parents, and what its kind of tree needs before a process can enter.
fn make(group: &mut Group, by_systemd: bool) -> io::Result<()> {
    for _ in 0..8 {
        match make_path(group, by_systemd) {
            // A parent was removed between our looking and making: another container of it was deleted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn make_path(group: &mut Group, by_systemd: bool) -> io::Result<()> {
    let root = &group.mount;
    let below: Vec<&Path> = group.path.ancestors().take_while(|path| path != root).collect();
    for path in below.into_iter().rev() {
        let parent = path.parent().unwrap_or(root);
        match fs::create_dir(path) {
            Ok(()) => {
                group.made.get_or_insert_with(|| path.to_owned());
            }
            // systemd hands on the controllers that it knows; the others are none of its business.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && by_systemd => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
        match group.name.as_deref() {
            None => layout::delegate_controllers(parent)?,
            Some(name) if name.split(',').any(|name| name == "cpuset") => {
                layout::inherit_cpuset(parent, path)?;
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Works out all limits for both versions and writes none.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(resources: &LinuxResources) -> Result<()> {
    devices::program(&devices::rules(resources)?);
    limits::all(resources, true)?;
    limits::all(resources, false).map(drop)
}
