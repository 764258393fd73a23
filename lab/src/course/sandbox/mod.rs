//! Where a student's program runs: our own container, with its ids mapped to nobody's, so that it may do to its namespaces what
//! the lessons ask for, and nothing to the machine; with limits of time, processes, memory and file size.

mod live;

pub use live::{Before, Ended, Limit, Live, PATIENCE};

use std::fs::{self, DirBuilder};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, lchown};
use std::path::{Path, PathBuf};

use container::{CreateOptions, Stdio};
use oci_spec::runtime::{
    LinuxBuilder, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxIdMapping, LinuxIdMappingBuilder,
    LinuxMemoryBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder, Mount, MountBuilder, PosixRlimitBuilder, PosixRlimitType, ProcessBuilder,
    RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use super::Error;
use super::error::Context as _;
use crate::engine::course::{Place, Roots, clear_abandoned, every_capability, new_id, write_bundle};

/// The ids of a sandbox begin here outside: no account and, by convention, nobody's range in /etc/subuid.
const FIRST_ID: u32 = 1_700_000_000;
/// And are so many.
const IDS: u32 = 65_536;
/// Processes: far more than any lesson needs.
const PROCESSES: i64 = 64;
/// Bytes of memory.
const MEMORY: i64 = 128 << 20;
/// Bytes of one file.
const FILE: u64 = 64 << 20;
/// Seconds of processor time.
const SECONDS: u64 = 4;
/// Bytes of addresses of one process, where there is no control group to count memory: with room for stacks of threads.
const ADDRESSES: u64 = 256 << 20;
/// Where the program lies, and what holds it back until it was looked at.
const PROGRAM: &str = "/program";
const BEGIN: &str = "lesson/begin";
/// A file for the container's /dev that opens KVM.
const KVM: &str = "lesson/kvm";

/// A root file system in the making.
pub struct Room {
    id: String,
    roots: Roots,
    place: Place,
    root: PathBuf,
    kvm: bool,
    cgroups: bool,
    held: bool,
}

impl Room {
    /// An empty root file system with the usual folders.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new() -> Result<Self, Error> {
        let roots = Roots::of_process().map_err(|error| engine(&error))?;
        clear_abandoned(&roots);
        let id = new_id().context("read", "/dev/urandom")?;
        let place = Place::create(&roots, &id, None).map_err(|error| engine(&error))?;
        let (root, _) = place.writable_layer().map_err(|error| engine(&error))?;
        for name in ["bin", "dev", "proc", "tmp", "lesson"] {
            let path = root.join(name);
            DirBuilder::new().mode(0o755).create(&path).at("create", &path)?;
        }
        Ok(Self { id, roots, place, root, kvm: false, cgroups: false, held: false })
    }

    /// Where it is, for the grader to put things into.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Lets the program use KVM.
    ///
    /// # Errors
    /// KVM cannot be used, or the device's file cannot be made.
    pub fn with_kvm(&mut self) -> Result<(), Error> {
        use nix::sys::stat::{Mode, SFlag, mknod};
        microvm::kvm::Kvm::open()?;
        self.kvm = true;
        // Only root makes device files; another user's own is as good, since the sandbox's ids are that user's.
        if !is_root() {
            return Ok(());
        }
        let path = self.root.join(KVM);
        let device = fs::metadata("/dev/kvm").context("look at", "/dev/kvm")?;
        let number = std::os::unix::fs::MetadataExt::rdev(&device);
        mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), number).at("make", &path)
    }

    /// Has the program wait until its namespaces were looked at, where that can only be done once something was executed
    /// there: before, an ordinary user may not look at a process that was copied from another user namespace's (`ptrace(2)`,
    /// "Ptrace access mode checking"). `task` is the course's.
    ///
    /// # Errors
    /// The task cannot be copied.
    pub fn hold(&mut self, task: &Path) -> Result<(), Error> {
        if !is_root() {
            fs::copy(task, self.root.join(BEGIN)).at("copy", task)?;
            self.held = true;
        }
        Ok(())
    }

    /// Lets the program make control groups below its own.
    pub fn with_cgroups(&mut self) {
        self.cgroups = true;
    }

    /// Whether the program can make control groups: only root hands them down here.
    pub fn can_have_cgroups() -> bool {
        is_root()
    }

    /// Runs a program that lies at `/program`.
    ///
    /// # Errors
    /// The sandbox cannot be made.
    pub fn start(self) -> Result<Live, Error> {
        let root = is_root();
        let owner = if root { FIRST_ID } else { rustix::process::geteuid().as_raw() };
        if root {
            give(&self.root, owner)?;
        }
        write_bundle(&self.specification(owner, root)?, self.place.bundle())
            .map_err(|error| engine(&error))?;
        let (theirs_in, stdin) = std::io::pipe().context("make", "a pipe")?;
        let (output, theirs_out) = std::io::pipe().context("make", "a pipe")?;
        let stderr = theirs_out.try_clone().context("duplicate", "a pipe")?;
        let mut options = CreateOptions::new(self.roots.containers(), &self.id, self.place.bundle());
        options.stdio = Stdio::Fds {
            stdin: OwnedFd::from(theirs_in),
            stdout: OwnedFd::from(theirs_out),
            stderr: OwnedFd::from(stderr),
        };
        let container = container::create(options)?;
        if self.cgroups && root {
            delegate(&self.id, owner)?;
        }
        Live::begin(self, container, stdin, output)
    }

    fn specification(&self, owner: u32, root: bool) -> Result<Spec, Error> {
        let ids = vec![id_map(owner, if root { IDS } else { 1 })?];
        let kinds = [
            LinuxNamespaceType::User,
            LinuxNamespaceType::Mount,
            LinuxNamespaceType::Pid,
            LinuxNamespaceType::Network,
            LinuxNamespaceType::Uts,
            LinuxNamespaceType::Ipc,
            LinuxNamespaceType::Cgroup,
        ];
        let namespaces: Result<Vec<_>, _> =
            kinds.into_iter().map(|kind| LinuxNamespaceBuilder::default().typ(kind).build()).collect();
        let mut linux = LinuxBuilder::default()
            .namespaces(namespaces?)
            .uid_mappings(ids.clone())
            .gid_mappings(ids)
            .cgroups_path(Path::new("/lab").join(&self.id));
        if root {
            linux = linux.resources(self.resources()?);
        }
        let mut mounts = vec![
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "mode=755", "size=64k"])?,
        ];
        if self.kvm {
            let source = if root { self.root.join(KVM) } else { PathBuf::from("/dev/kvm") };
            mounts.push(mount("/dev/kvm", "bind", &source.to_string_lossy(), &["bind"])?);
        }
        if self.cgroups {
            mounts.push(mount("/sys", "tmpfs", "tmpfs", &["nosuid", "mode=755", "size=64k"])?);
            mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev"])?);
        }
        let mut limits = vec![(PosixRlimitType::RlimitFsize, FILE), (PosixRlimitType::RlimitCpu, SECONDS)];
        if !root {
            // There is no control group to count them. Processes are those of this user namespace (user_namespaces(7)).
            limits.push((PosixRlimitType::RlimitNproc, PROCESSES as u64));
            limits.push((PosixRlimitType::RlimitAs, ADDRESSES));
        }
        let limits: Result<Vec<_>, _> = limits
            .into_iter()
            .map(|(kind, most)| PosixRlimitBuilder::default().typ(kind).soft(most).hard(most).build())
            .collect();
        let begin = format!("/{BEGIN}");
        let arguments: &[&str] = if self.held { &[&begin, "then", PROGRAM] } else { &[PROGRAM] };
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        let process = ProcessBuilder::default()
            .terminal(false)
            .user(UserBuilder::default().uid(0u32).gid(0u32).build()?)
            .args(arguments)
            .env(vec!["PATH=/bin".to_owned(), "RUST_BACKTRACE=0".to_owned()])
            .cwd("/")
            .capabilities(every_capability().map_err(|error| engine(&error))?)
            .rlimits(limits?)
            .no_new_privileges(false)
            .build()?;
        Ok(SpecBuilder::default()
            .version("1.2.0")
            .root(RootBuilder::default().path(&self.root).readonly(false).build()?)
            .hostname("lesson")
            .mounts(mounts)
            .process(process)
            .linux(linux.build()?)
            .build()?)
    }

    fn resources(&self) -> Result<LinuxResources, Error> {
        let rule = LinuxDeviceCgroupBuilder::default().typ(LinuxDeviceType::A).access("rwm");
        let mut devices = vec![rule.allow(false).build()?];
        if self.kvm {
            // Documentation/admin-guide/devices.txt: 10, 232 is /dev/kvm.
            let rule = LinuxDeviceCgroupBuilder::default().typ(LinuxDeviceType::C).access("rw");
            devices.push(rule.major(10i64).minor(232i64).allow(true).build()?);
        }
        let memory = LinuxMemoryBuilder::default().limit(MEMORY).swap(MEMORY).build()?;
        Ok(LinuxResourcesBuilder::default()
            .devices(devices)
            .memory(memory)
            .pids(LinuxPidsBuilder::default().limit(PROCESSES).build()?)
            .build()?)
    }
}

/// Gives the group's folder to the sandbox's root, and the files by which processes and controllers are handed down
/// (cgroup-v2.rst, "Model of Delegation"); the limits stay the grader's.
fn delegate(id: &str, owner: u32) -> Result<(), Error> {
    for group in live::groups(id, "pids").filter(|group| group.is_dir()) {
        for file in ["", "cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"] {
            let path = group.join(file);
            if path.exists() {
                lchown(&path, Some(owner), Some(owner)).at("change the owner of", &path)?;
            }
        }
    }
    Ok(())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn id_map(host: u32, size: u32) -> Result<LinuxIdMapping, Error> {
    Ok(LinuxIdMappingBuilder::default().container_id(0u32).host_id(host).size(size).build()?)
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount, Error> {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    Ok(MountBuilder::default().destination(target).typ(kind).source(source).options(options).build()?)
}

/// Gives a tree to an id. All of it is the grader's work so far, and small.
fn give(path: &Path, owner: u32) -> Result<(), Error> {
    lchown(path, Some(owner), Some(owner)).at("change the owner of", path)?;
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        for entry in fs::read_dir(path).at("read", path)? {
            give(&entry.at("read", path)?.path(), owner)?;
        }
    }
    Ok(())
}

fn engine(error: &crate::engine::Error) -> Error {
    let source = std::io::Error::other(error.to_string());
    Error::Io { operation: "make", object: "the lesson's sandbox".to_owned(), source }
}
