//! The plan: everything the container's first process will do, worked out before that process exists.
//!
//! After `clone3(2)` the child may not allocate (`signal-safety(7)`), and every microsecond there is start-up time. So
//! strings become C strings, options become flags, the seccomp profile becomes a program here, in the parent; the
//! child only walks the plan and makes system calls. It reports a failure as "step, index, errno"; the parent, which
//! has the same plan, turns that back into words.

mod devices;
mod hooks;
#[cfg(test)]
mod hostile;
mod idmap;
mod mounts;
mod namespaces;
mod process;
#[cfg(any(test, fuzzing))]
mod rehearsal;
mod turns;

pub(crate) use devices::{DevicePlan, device_plan};
pub(crate) use hooks::HookPlan;
pub(crate) use mounts::{Attributes, MountPlan, Source, mount_options, mount_plan};
pub(crate) use namespaces::{IdMaps, Namespaces};
pub(crate) use process::{Capabilities, ProcessPlan};
#[cfg(fuzzing)]
pub use rehearsal::tried;

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::Linux;
use rustix::mount::MountPropagationFlags;

use crate::cgroup;
use crate::error::{Context, Error, Result};
use crate::hooks as hooks_inside;
use crate::network;
use crate::options::RootFs;
use crate::spec::{Process, Spec, c_path, c_string};
use crate::state::ROOT;

/// What the first process of a container does, step by step.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) namespaces: Namespaces,
    /// Moved in by the runtime.
    pub(crate) devices_of_network: Vec<network::Device>,
    pub(crate) hostname: Option<CString>,
    pub(crate) domainname: Option<CString>,
    /// File below the host's /proc/sys, value.
    pub(crate) sysctls: Vec<(CString, CString)>,
    pub(crate) propagation: MountPropagationFlags,
    pub(crate) root: RootPlan,
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) devices: Vec<DevicePlan>,
    pub(crate) masked: Vec<CString>,
    pub(crate) read_only: Vec<CString>,
    pub(crate) root_read_only: bool,
    pub(crate) pivot: bool,
    pub(crate) new_keyring: bool,
    pub(crate) process: ProcessPlan,
    /// Whether there is a process that `start` can run.
    pub(crate) to_start: bool,
    /// Whether the runtime has hooks to run before the root changes.
    pub(crate) hooks: bool,
    pub(crate) hooks_inside: Option<hooks_inside::Inside>,
}

/// Where the root file system comes from.
#[derive(Debug)]
pub(crate) enum RootPlan {
    /// A directory of the host, made a mount by binding it: onto itself, or where others see the mounts too, onto a
    /// directory that is the container's alone.
    Directory { path: CString, at: CString },
    /// An overlay, mounted at a directory of the container's.
    Overlay {
        at: CString,
        data: CString,
        /// The directories, and the descriptors by which `data` names them.
        layers: Vec<(OwnedFd, CString)>,
    },
}

/// What the plan needs to know beside the specification.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) bundle: &'a Path,
    pub(crate) state_dir: &'a Path,
    pub(crate) rootfs: &'a RootFs,
    pub(crate) cgroup: &'a cgroup::Membership,
    pub(crate) pivot: bool,
    pub(crate) preserve_fds: u32,
    pub(crate) new_keyring: bool,
}

impl Plan {
    pub(crate) fn new(spec: &Spec, around: &Surroundings<'_>) -> Result<Self> {
        let default = Linux::default();
        let linux = spec.linux.as_ref().unwrap_or(&default);
        // Only `start` needs one (config.md, "Process"): without, something stands there that is never run.
        let nobody = Process { args: vec!["/".to_owned()], cwd: "/".into(), ..Process::default() };
        let process = spec.process.as_ref().unwrap_or(&nobody);
        let namespaces = Namespaces::new(linux)?;
        let optional = |field, value: &Option<String>| value.as_ref().map(|v| c_string(field, v)).transpose();
        let hostname = optional("hostname", &spec.hostname)?.filter(|name| !name.is_empty());
        let domainname = optional("domainname", &spec.domainname)?.filter(|name| !name.is_empty());
        for (field, name) in [("hostname", &hostname), ("domainname", &domainname)] {
            if name.is_some() && !namespaces.has_uts() {
                return Err(Error::config(field, "needs a namespace of type \"uts\" in linux.namespaces"));
            }
        }
        let paths = |field: &str, paths: &Option<Vec<String>>| -> Result<Vec<CString>> {
            let paths = paths.iter().flatten().enumerate();
            paths.map(|(i, path)| inside(&format!("linux.{field}[{i}]"), Path::new(path))).collect()
        };
        spec.hooks.as_ref().map_or(Ok(()), hooks_inside::check)?;
        let mut mounts = Vec::new();
        for (index, mount) in spec.mounts.iter().enumerate() {
            mount_plan(&mut mounts, index, mount, around, &namespaces, linux.mount_label().as_deref())?;
        }
        Ok(Self {
            devices_of_network: network::devices(linux, namespaces.has_net())?,
            hostname,
            domainname,
            sysctls: sysctls(linux, &namespaces)?,
            propagation: mounts::root_propagation(linux.rootfs_propagation().as_deref())?,
            root: root(spec, around, &namespaces)?,
            devices: device_plan(linux, &mounts, namespaces.user)?,
            mounts,
            masked: paths("maskedPaths", linux.masked_paths())?,
            read_only: paths("readonlyPaths", linux.readonly_paths())?,
            root_read_only: spec.root.as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
            pivot: around.pivot,
            new_keyring: around.new_keyring,
            to_start: spec.process.is_some(),
            process: ProcessPlan::new(process, linux, &spec.annotations, around.preserve_fds)?,
            namespaces,
            hooks: spec.hooks.as_ref().is_some_and(hooks_inside::before_pivot),
            hooks_inside: spec.hooks.as_ref().map(hooks_inside::Inside::new).transpose()?.flatten(),
        })
    }
}

/// A path inside the container, relative to its root: what `openat2(2)` with RESOLVE_IN_ROOT takes.
pub(crate) fn inside(field: &str, path: &Path) -> Result<CString> {
    let relative: std::path::PathBuf =
        path.components().filter(|c| !matches!(c, std::path::Component::RootDir)).collect();
    if relative.as_os_str().is_empty() {
        return c_string(field, ".");
    }
    if relative.as_os_str().len() >= libc::PATH_MAX as usize {
        return Err(Error::config(field, "is longer than a path can be (4095 bytes)"));
    }
    c_path(field, relative)
}

fn root(spec: &Spec, around: &Surroundings<'_>, namespaces: &Namespaces) -> Result<RootPlan> {
    use rustix::fs::{Mode, OFlags, open};
    let directory = |path: &Path| {
        open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .context("open root file system", path.display())
    };
    // Beside the state file: whoever deletes the container finds it there.
    let shared = (!namespaces.new_mounts()).then(|| around.state_dir.join(ROOT));
    match around.rootfs {
        RootFs::Bundle => {
            let root = spec.root.as_ref().ok_or_else(|| Error::config("root", "is missing"))?;
            let path = around.bundle.join(root.path());
            drop(directory(&path)?); // to say what is missing before anything is made
            let path = c_path("root.path", &path)?;
            let at = shared.map_or(Ok(path.clone()), |at| c_path("root.path", at))?;
            Ok(RootPlan::Directory { path, at })
        }
        RootFs::Overlay { lower, upper, work } => {
            // Named by descriptors, the directories can have any characters in their paths, and the options fit their
            // page (mount(2)). The child opens them anew, in its own mount namespace, under the same numbers: overlay
            // takes no directory of another namespace (clone_private_mount, fs/namespace.c).
            let mut layers = Vec::new();
            let mut link = |path: &Path| {
                let path = std::path::absolute(path).context("make absolute", path.display())?;
                let fd = directory(&path)?;
                let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
                layers.push((fd, c_path("root", &path)?));
                Ok::<_, Error>(name)
            };
            let lower = lower.iter().map(|path| link(path)).collect::<Result<Vec<_>>>()?.join(":");
            let mut data = format!("lowerdir={lower},upperdir={},workdir={}", link(upper)?, link(work)?);
            if namespaces.user {
                data.push_str(",userxattr"); // trusted.* attributes are the host's (Documentation/filesystems/overlayfs.rst)
            }
            if data.len() >= 4096 {
                return Err(Error::config(
                    "root",
                    format!("{} layers are too many for one overlay", layers.len()),
                ));
            }
            let at = c_path("root", shared.as_deref().unwrap_or(around.state_dir))?;
            Ok(RootPlan::Overlay { at, data: c_string("root", data)?, layers })
        }
    }
}

/// The kernel parameters that belong to a namespace; all others would change the host (`namespaces(7)`, `sysctl(8)`).
fn sysctls(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<(CString, CString)>> {
    let mut plan = Vec::new();
    for (name, value) in linux.sysctl().iter().flatten() {
        let field = format!("linux.sysctl[{name:?}]");
        // Both separators are in use; with dots, a slash stands for a dot inside a name (sysctl.d(5)).
        let path = match name.find(['.', '/']) {
            Some(at) if name.as_bytes()[at] == b'.' => name
                .chars()
                .map(|c| match c {
                    '.' => '/',
                    '/' => '.',
                    c => c,
                })
                .collect(),
            _ => name.clone(),
        };
        let ipc = path.starts_with("kernel/msg")
            || path.starts_with("kernel/shm")
            || path == "kernel/sem"
            || path.starts_with("fs/mqueue/");
        let allowed = if ipc {
            namespaces.has_ipc()
        } else if path.starts_with("net/") {
            namespaces.has_net()
        } else if path == "kernel/domainname" || path == "kernel/hostname" {
            namespaces.has_uts()
        } else {
            false
        };
        if !allowed || path.split('/').any(|part| part == "..") {
            let reason = "would change the host: it belongs to no namespace of this container";
            return Err(Error::config(field, reason));
        }
        plan.push((c_string(&field, format!("/proc/sys/{path}"))?, c_string(&field, value)?));
    }
    Ok(plan)
}
