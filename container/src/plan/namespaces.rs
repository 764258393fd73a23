//! Which namespaces are new, which are joined, and how user ids map (`namespaces(7)`, `user_namespaces(7)`).

use std::os::fd::OwnedFd;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType as Type};
use rustix::fs::{Mode, OFlags, open};
use rustix::thread::LinkNameSpaceType;

use crate::error::{Context, Error, Result};

/// The namespaces of a container.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// `clone3(2)` flags of those made new by the clone.
    pub(crate) clone_flags: u64,
    /// Made new only once the process sits in its cgroup, so that the cgroup is the namespace's root
    /// (`cgroup_namespaces(7)`).
    pub(crate) new_cgroup: bool,
    /// Joined by path, the user namespace first: it gives the right to join the others (`setns(2)`).
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
            if typ == Type::Time {
                return Err(Error::config(field, "time namespaces are not supported yet"));
            }
            let Some(path) = path else {
                if typ == Type::Cgroup {
                    this.new_cgroup = true;
                } else {
                    this.clone_flags |= flag;
                }
                continue;
            };
            let fd = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .context("open namespace of linux.namespaces", path.display())?;
            match typ {
                Type::Pid => this.join_pid = Some(fd),
                Type::User => this.join.insert(0, (fd, link_type(typ))),
                _ => this.join.push((fd, link_type(typ))),
            }
        }
        if !this.has(Type::Mount) {
            let reason =
                "a namespace of type \"mount\" is needed: without one, pivot_root would change the host";
            return Err(Error::config("linux.namespaces", reason));
        }
        this.user = this.has(Type::User);
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

    pub(crate) fn has_uts(&self) -> bool {
        self.has(Type::Uts)
    }

    pub(crate) fn has_ipc(&self) -> bool {
        self.has(Type::Ipc)
    }

    pub(crate) fn has_net(&self) -> bool {
        self.has(Type::Network)
    }

    pub(crate) fn new_net(&self) -> bool {
        self.is_new(Type::Network)
    }

    pub(crate) fn new_pid(&self) -> bool {
        self.is_new(Type::Pid)
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
