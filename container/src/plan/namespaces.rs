//! Which namespaces are new, which are joined, and how user ids map (`namespaces(7)`, `user_namespaces(7)`).

use std::ffi::CString;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType as Type};
use rustix::fs::{Mode, OFlags, open};
use rustix::thread::LinkNameSpaceType;

use crate::error::{Context, Error, Result};
use crate::spec::c_string;
use crate::sys;

/// The namespaces of a container.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// `clone3(2)` flags of those made new by the clone.
    pub(crate) clone_flags: u64,
    /// Made new only once the process sits in its cgroup, so that the cgroup is the namespace's root
    /// (`cgroup_namespaces(7)`).
    pub(crate) new_cgroup: bool,
    /// A time namespace of its own, with the lines of `/proc/PID/timens_offsets` (`time_namespaces(7)`).
    pub(crate) new_time: Option<CString>,
    /// The user namespace to join, before any other is made or joined: it gives the right to (`setns(2)`).
    pub(crate) join_user: Option<OwnedFd>,
    /// The others to join by path.
    pub(crate) join: Vec<(OwnedFd, LinkNameSpaceType)>,
    /// The pid namespace to join: only children of the process that calls `setns(2)` enter it.
    pub(crate) join_pid: Option<OwnedFd>,
    /// Whether the container has a user namespace of its own, new or joined.
    pub(crate) user: bool,
    /// The ids to map into a new user namespace.
    pub(crate) maps: Option<IdMaps>,
    types: u64,
}

/// The lines of `/proc/PID/uid_map` and `gid_map`.
#[derive(Debug)]
pub(crate) struct IdMaps {
    pub(crate) uids: Vec<LinuxIdMapping>,
    pub(crate) gids: Vec<LinuxIdMapping>,
}

impl Namespaces {
    pub(crate) fn new(linux: &Linux) -> Result<Self> {
        let mut this = Self {
            clone_flags: 0,
            new_cgroup: false,
            new_time: None,
            join_user: None,
            join: Vec::new(),
            join_pid: None,
            user: false,
            maps: None,
            types: 0,
        };
        for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
            let (typ, field) = (namespace.typ(), format!("linux.namespaces[{index}]"));
            let flag = typ as u64;
            if this.types & flag != 0 {
                return Err(Error::config(field, format!("type {typ} is there twice")));
            }
            this.types |= flag;
            let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
            let Some(path) = path else {
                match typ {
                    Type::Cgroup => this.new_cgroup = true,
                    Type::Time => this.new_time = Some(time_offsets(&field, linux)?),
                    _ => this.clone_flags |= flag,
                }
                continue;
            };
            // Whatever is there, opening it neither waits nor makes a terminal ours (open(2)).
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let fd = open(path, flags, Mode::empty()).map_err(|error| {
                Error::config(format!("{field}.path"), format!("{}: {error}", path.display()))
            })?;
            check_type(&fd, typ, &field, path)?;
            match typ {
                Type::Pid => this.join_pid = Some(fd),
                Type::User => this.join_user = Some(fd),
                _ => this.join.push((fd, link_type(typ))),
            }
        }
        this.user = this.has(Type::User);
        if this.user && !this.has(Type::Mount) {
            // A mount namespace belongs to a user namespace, and who is in another has no right to mount there
            // (mount_namespaces(7)).
            let reason = "with a namespace of type \"user\" it needs one of type \"mount\" too, or nothing can be mounted";
            return Err(Error::config("linux.namespaces", reason));
        }
        if this.new_time.is_none() && linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty())
        {
            let reason = "needs a new namespace of type \"time\" in linux.namespaces";
            return Err(Error::config("linux.timeOffsets", reason));
        }
        let (uids, gids) = (linux.uid_mappings().clone(), linux.gid_mappings().clone());
        let (uids, gids) = (uids.unwrap_or_default(), gids.unwrap_or_default());
        if this.is_new(Type::User) {
            for (field, map) in [("linux.uidMappings", &uids), ("linux.gidMappings", &gids)] {
                if map.is_empty() {
                    return Err(Error::config(field, "a new user namespace needs at least one mapping"));
                }
            }
            this.maps = Some(IdMaps { uids, gids });
        } else if !(this.user || uids.is_empty() && gids.is_empty()) {
            return Err(Error::config("linux.uidMappings", "needs a namespace of type \"user\""));
        }
        Ok(this)
    }

    fn has(&self, typ: Type) -> bool {
        self.types & typ as u64 != 0
    }

    fn is_new(&self, typ: Type) -> bool {
        self.clone_flags & typ as u64 != 0
    }

    /// All types that the container does not share with the runtime, as flags of `clone(2)`.
    pub(crate) fn types(&self) -> u32 {
        self.types as u32
    }

    pub(crate) fn has_uts(&self) -> bool {
        self.has(Type::Uts)
    }

    pub(crate) fn has_ipc(&self) -> bool {
        self.has(Type::Ipc)
    }

    pub(crate) fn has_net(&self) -> bool {
        self.has(Type::Network)
    }

    /// The container's network namespace, new or joined: behind the link of its first process, or that of the
    /// configuration, which the process may not have followed yet.
    pub(crate) fn network(&self, pid: i32) -> Result<OwnedFd> {
        let joined = self.join.iter().find(|(_, typ)| *typ == LinkNameSpaceType::Network);
        let link = match joined {
            Some((link, _)) => rustix::io::fcntl_dupfd_cloexec(link, 3),
            None => open(format!("/proc/{pid}/ns/net"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()),
        };
        link.context("open the network namespace of", pid)
    }

    /// Whether its mounts are nobody else's, and go when its last process does. Else they are made in a namespace that
    /// others see too, and `delete` takes them away again.
    pub(crate) fn new_mounts(&self) -> bool {
        self.is_new(Type::Mount)
    }

    pub(crate) fn new_net(&self) -> bool {
        self.is_new(Type::Network)
    }

    pub(crate) fn new_pid(&self) -> bool {
        self.is_new(Type::Pid)
    }
}

/// The offsets of a new time namespace, a line for each clock.
fn time_offsets(field: &str, linux: &Linux) -> Result<CString> {
    // The process makes its time namespace itself, and enters it when it becomes the workload: execve(2) does that since
    // Linux 6.3 (timens_on_exec).
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (6, 3) {
        let reason = format!("a new time namespace needs Linux 6.3; this is {release}: leave it out");
        return Err(Error::config(field, reason));
    }
    let mut lines = String::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            let field = format!("linux.timeOffsets.{clock}");
            return Err(Error::config(field, "is no clock with an offset: there are monotonic and boottime"));
        }
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        let _ = writeln!(lines, "{clock} {seconds} {nanoseconds}");
    }
    c_string("linux.timeOffsets", lines)
}

/// That a path leads to a namespace of the type that is expected there: NS_GET_NSTYPE (`ioctl_nsfs(2)`).
fn check_type(fd: &OwnedFd, typ: Type, field: &str, path: &Path) -> Result<()> {
    match sys::namespace_type(fd) {
        Ok(found) if u64::from(found) == typ as u64 => Ok(()),
        _ => {
            let reason = format!("{} is no namespace of type {typ}", path.display());
            Err(Error::config(format!("{field}.path"), reason))
        }
    }
}

fn link_type(typ: Type) -> LinkNameSpaceType {
    match typ {
        Type::Mount => LinkNameSpaceType::Mount,
        Type::Cgroup => LinkNameSpaceType::ControlGroup,
        Type::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        Type::Ipc => LinkNameSpaceType::InterProcessCommunication,
        Type::User => LinkNameSpaceType::User,
        Type::Pid => LinkNameSpaceType::ProcessID,
        Type::Network => LinkNameSpaceType::Network,
        Type::Time => LinkNameSpaceType::Time,
    }
}

impl IdMaps {
    /// One map as the kernel reads it: a line "inside outside count" for each range (`user_namespaces(7)`).
    pub(crate) fn text(map: &[LinuxIdMapping]) -> String {
        let lines = map.iter().map(|m| format!("{} {} {}", m.container_id(), m.host_id(), m.size()));
        lines.collect::<Vec<_>>().join("\n")
    }
}
