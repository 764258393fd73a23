//! A container that exists: start it, wait for it, signal it, remove it.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use lab_clock::{Mark, Timeline};
use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup::Stats;
use crate::create::mark;
use crate::error::{Context, Error, Result};
use crate::hooks;
use crate::init::{self, Message};
use crate::process::{self, Exit};
use crate::rdt::Class;
use crate::spec::{self, Spec};
use crate::state::{State, StateDir, Status};
use crate::sys;

/// A container, made by [`create`](crate::create) or found by [`load`](Container::load).
#[derive(Debug)]
pub struct Container {
    dir: StateDir,
    state: State,
    pidfd: OwnedFd,
    /// Whether the first process is a child of this process, so that its exit status is ours to read.
    ours: bool,
    exit: Option<Exit>,
    timeline: Option<Arc<Timeline>>,
    pub(crate) warnings: Vec<String>,
}

impl Container {
    pub(crate) fn new(
        dir: StateDir,
        state: State,
        pidfd: Option<OwnedFd>,
        ours: bool,
        timeline: Option<Arc<Timeline>>,
    ) -> Self {
        // For a process that is gone: a descriptor that is always readable, as its pidfd would be.
        let gone =
            || eventfd(1, EventfdFlags::CLOEXEC).expect("a descriptor for a container that has exited");
        Self {
            dir,
            state,
            pidfd: pidfd.unwrap_or_else(gone),
            ours,
            exit: None,
            timeline,
            warnings: Vec::new(),
        }
    }

    /// Finds a container by its id.
    ///
    /// # Errors
    /// [`Error::Missing`] where there is none; an unreadable state file.
    pub fn load(root: &Path, id: &str) -> Result<Self> {
        let dir = StateDir::of(root, id)?;
        let state = dir.read()?;
        let pid = Pid::from_raw(state.pid).filter(|_| state.alive());
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // Between the look and the opening the number could have passed to another process.
        let pidfd = pidfd.filter(|_| state.alive());
        Ok(Self::new(dir, state, pidfd, false, None))
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.state.id
    }

    /// What of the configuration was passed over when it was created, as the specification allows.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The first process, as this process sees it; none before it exists.
    pub fn pid(&self) -> Option<i32> {
        (self.state.pid > 0).then_some(self.state.pid)
    }

    /// The version of the specification that its bundle follows.
    pub fn oci_version(&self) -> &str {
        &self.state.oci_version
    }

    /// The bundle's directory.
    pub fn bundle(&self) -> &Path {
        &self.state.bundle
    }

    /// The configuration that it was created from, whatever the bundle holds by now.
    ///
    /// # Errors
    /// As [`spec::load`].
    pub fn config(&self) -> Result<Spec> {
        spec::load(self.dir.path())
    }

    /// Its root file system, as the bundle names it.
    pub fn rootfs(&self) -> &Path {
        &self.state.rootfs
    }

    /// When it was created, in seconds since 1970.
    pub fn created(&self) -> u64 {
        self.state.created
    }

    /// The id of the user who created it.
    pub fn owner(&self) -> u32 {
        self.state.owner
    }

    /// The bundle's annotations.
    pub fn annotations(&self) -> &HashMap<String, String> {
        &self.state.annotations
    }

    /// The ids of its processes, as this process sees them.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids = self.state.cgroup.processes();
        if pids.is_empty() && self.state.alive() {
            pids.push(self.state.pid); // a container without a cgroup
        }
        pids
    }

    /// What it uses now.
    pub fn stats(&self) -> Stats {
        self.state.cgroup.stats()
    }

    /// Gives it other limits.
    ///
    /// # Errors
    /// [`Error::Config`] naming the limit that cannot be.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        self.state.cgroup.update(resources)
    }

    /// Gives its class of service other shares of caches and of the memory's bandwidth.
    ///
    /// # Errors
    /// [`Error::Config`] where it has none, or where the kernel refuses them.
    pub fn update_rdt(&self, rdt: &LinuxIntelRdt) -> Result<()> {
        let Some(class) = &self.state.rdt else {
            let reason = "this container was created without it, and has no class of service to change";
            return Err(Error::config("linux.intelRdt", reason));
        };
        class.change(rdt)
    }

    /// Where the container stands in its life.
    pub fn status(&self) -> Status {
        if self.exit.is_some() { Status::Stopped } else { self.state.status(&self.dir, self.alive()) }
    }

    /// Whether the first process is there and has not exited: our own child until it is waited for says so itself.
    fn alive(&self) -> bool {
        if self.ours { !process::has_exited(&self.pidfd) } else { self.state.alive() }
    }

    /// Lets the first process become the workload; returns once it has.
    ///
    /// # Errors
    /// [`Error::NotFound`] and [`Error::NotExecutable`] where `execve(2)` failed: the container is stopped then.
    pub fn start(&mut self) -> Result<()> {
        let status = self.status();
        if status != Status::Created {
            return Err(self.wrong("start", status));
        }
        if self.state.command.is_empty() {
            return Err(Error::config(
                "process",
                "is missing: the container was created with nothing to start",
            ));
        }
        let path = self.dir.door();
        let directory = rustix::fs::open(
            self.dir.path(),
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .context("open", self.dir.path().display())?;
        let mut knock = UnixStream::connect(process::short_path(&directory, &path))
            .map_err(|_| Error::Died { id: self.state.id.clone(), during: "the wait to be started" })?;
        std::fs::remove_file(&path).context("remove", path.display())?;
        // The process's end closes at execve(2), or carries the reason why there was none.
        let mut words = Vec::new();
        let read = knock.read_to_end(&mut words);
        if let Message::Fault(fault) = init::parse(&words) {
            if self.ours {
                self.exit = process::reap(&self.pidfd).ok();
            }
            return Err(fault.explain_command(&self.state.command));
        }
        read.map_err(|_| Error::Died { id: self.state.id.clone(), during: "its start" })?;
        mark(self.timeline.as_ref(), Mark::Executed);
        // A hook that fails ends the container (runtime.md, "Lifecycle", step 9).
        hooks::run("poststart", Some(&self.state.poststart), &self.state, Status::Running).inspect_err(|_| {
            let _ = self.kill(libc::SIGKILL);
        })
    }

    /// A descriptor that becomes readable (`poll(2)`) when the first process has exited, however soon.
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for the first process to exit.
    ///
    /// # Errors
    /// [`Error::NotOurs`] for a container that another process created: the kernel tells only the parent.
    pub fn wait(&mut self) -> Result<Exit> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        if !self.ours {
            process::wait_until_gone(&self.pidfd).context("wait for", &self.state.id)?;
            return Err(Error::NotOurs { id: self.state.id.clone() });
        }
        let exit = process::reap(&self.pidfd).context("wait for", &self.state.id)?;
        mark(self.timeline.as_ref(), Mark::Exited);
        self.exit = Some(exit);
        Ok(exit)
    }

    /// Sends a signal to the first process.
    ///
    /// # Errors
    /// [`Error::State`] when it has exited.
    pub fn kill(&self, signal: i32) -> Result<()> {
        match self.status() {
            Status::Created | Status::Running | Status::Paused => {}
            status => return Err(self.not_running(status)),
        }
        match sys::pidfd_signal(&self.pidfd, signal) {
            Err(rustix::io::Errno::SRCH) => Err(self.not_running(Status::Stopped)),
            result => result.context("send a signal to", &self.state.id),
        }
    }

    /// Sends a signal to every process of the container.
    ///
    /// # Errors
    /// What `kill(2)` says of a process that is still there.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        for pid in self.state.cgroup.processes() {
            // The number is safe to use: the process is in the container's cgroup, or gone.
            let Some(pid) = Pid::from_raw(pid) else { continue };
            let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            match sys::pidfd_signal(&pidfd, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error).context("send a signal to process", pid.as_raw_nonzero()),
            }
        }
        Ok(())
    }

    /// Freezes every process of the container.
    ///
    /// # Errors
    /// [`Error::State`] when it does not run.
    pub fn pause(&self) -> Result<()> {
        match self.status() {
            Status::Running | Status::Created => self.state.cgroup.freeze(true),
            status => Err(self.wrong("pause", status)),
        }
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// [`Error::State`] when it is not paused.
    pub fn resume(&self) -> Result<()> {
        match self.status() {
            Status::Paused => self.state.cgroup.freeze(false),
            status => Err(self.wrong("resume", status)),
        }
    }

    /// Removes whatever is left of a container, in whatever state it or its runtime died; none at all is no error.
    ///
    /// # Errors
    /// Whatever could not be removed is named, and trying again is right.
    pub fn delete_forced(root: &Path, id: &str) -> Result<()> {
        match Self::load(root, id) {
            Ok(container) => container.delete(true),
            Err(Error::Missing { .. }) => Ok(()),
            // A runtime that died before it could write the state had made nothing but the directory.
            Err(Error::Step { .. }) => StateDir::of(root, id)?.remove(),
            Err(error) => Err(error),
        }
    }

    /// Removes everything the container used. A running one only with `force`, which kills it.
    ///
    /// # Errors
    /// [`Error::State`] when it runs and `force` is not set. Whatever could not be removed is named, and deleting
    /// again tries again.
    pub fn delete(mut self, force: bool) -> Result<()> {
        let status = self.status();
        if !matches!(status, Status::Stopped | Status::Creating) {
            if !force && status != Status::Created {
                return Err(self.wrong("delete", status));
            }
            self.end()?;
        }
        if !self.state.own_pids || (force && self.exit.is_none()) {
            // Without a pid namespace of their own, or with a runtime that died half-way, others may be left.
            self.kill_all(libc::SIGKILL)?;
        }
        self.state.cgroup.remove()?;
        self.state.rdt.as_ref().map_or(Ok(()), Class::remove)?;
        self.dir.remove()?;
        for hook in std::mem::take(&mut self.state.poststop) {
            // A failure changes nothing any more: the others run all the same (runtime.md, step 13).
            let _ = hooks::run("poststop", Some(&vec![hook]), &self.state, Status::Stopped);
        }
        mark(self.timeline.as_ref(), Mark::Deleted);
        Ok(())
    }

    /// Kills the first process and waits until it is gone; it takes its pid namespace with it (`pid_namespaces(7)`).
    fn end(&mut self) -> Result<()> {
        match sys::pidfd_signal(&self.pidfd, libc::SIGKILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).context("kill", &self.state.id),
        }
        if self.state.cgroup.frozen() {
            let _ = self.state.cgroup.freeze(false);
        }
        match self.wait() {
            Ok(_) | Err(Error::NotOurs { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// In the words by which containerd knows that there is nothing left to kill.
    fn not_running(&self, status: Status) -> Error {
        let status = format!("{status} (container not running)");
        Error::State { operation: "kill", id: self.state.id.clone(), status }
    }

    pub(crate) fn wrong(&self, operation: &'static str, status: Status) -> Error {
        Error::State { operation, id: self.state.id.clone(), status: status.to_string() }
    }
}
