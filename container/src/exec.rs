//! One more process in a container that runs: the walls are there already, it only has to walk in.
//!
//! `setns(2)` with the first process's pidfd joins all its namespaces in one call. A pid namespace is only entered by
//! children, so it is joined before the clone and the others after it. Where the container has a user namespace, the
//! right to join comes from there: then a first child joins everything and makes the process as its sibling.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::ThreadNameSpaceType as Namespace;

use crate::birth::BornElsewhere;
use crate::cgroup::Entrance;
use crate::container::Container;
use crate::create::{stdio, write_pid_file};
use crate::error::{Context, Error, Result};
use crate::init::{self, Link, Message, Newcomer};
use crate::options::Stdio;
use crate::plan::ProcessPlan;
use crate::process::{self, Exit};
use crate::spec::{Process, Spec};
use crate::state::Status;
use crate::sys;

/// Everything that [`Container::exec`] needs to know.
#[derive(Debug)]
pub struct ExecOptions {
    /// What to run, and as whom.
    pub process: Process,
    /// What [`Container::config`] read, if it did.
    pub config: Option<Spec>,
    /// Its standard streams.
    pub stdio: Stdio,
    /// A file to write its id to, as this process sees it.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on it keeps.
    pub preserve_fds: u32,
    /// Whether a paused container is no error: the call returns once that is resumed.
    pub ignore_paused: bool,
    /// The cgroups below the container's to enter instead: a path, on version 1 with `controller,...:` before it.
    pub cgroups: Vec<String>,
}

impl ExecOptions {
    /// The usual: streams of the caller.
    pub fn new(process: impl Into<Process>) -> Self {
        let process = process.into();
        Self {
            process,
            config: None,
            stdio: Stdio::Inherit,
            pid_file: None,
            preserve_fds: 0,
            ignore_paused: false,
            cgroups: Vec::new(),
        }
    }
}

/// A process that was added to a container.
#[derive(Debug)]
pub struct Running {
    pid: i32,
    pidfd: OwnedFd,
    exit: Option<Exit>,
}

impl Running {
    /// Its id, as this process sees it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A descriptor that becomes readable (`poll(2)`) when it has exited.
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// What `pidfd_send_signal(2)` says, as when it has exited.
    pub fn kill(&self, signal: i32) -> Result<()> {
        sys::pidfd_signal(&self.pidfd, signal).context("send a signal to process", self.pid)
    }

    /// Waits for it to exit.
    ///
    /// # Errors
    /// What `waitid(2)` says.
    pub fn wait(&mut self) -> Result<Exit> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let exit = process::reap(&self.pidfd).context("wait for process", self.pid)?;
        self.exit = Some(exit);
        Ok(exit)
    }
}

impl Container {
    /// Runs one more process in the container; returns once `execve(2)` has succeeded.
    ///
    /// # Errors
    /// [`Error::State`] when the container does not run; [`Error::NotFound`] and [`Error::NotExecutable`] as for the
    /// first process.
    pub fn exec(&self, options: ExecOptions) -> Result<Running> {
        match self.status() {
            Status::Running | Status::Created => {}
            Status::Paused if options.ignore_paused => {}
            status => return Err(self.wrong("exec in", status)),
        }
        let spec = options.config.map_or_else(|| self.config(), Ok)?;
        let linux = spec.linux.unwrap_or_default();
        let (streams, console) = stdio(options.stdio, options.process.terminal.unwrap_or(false))?;
        let plan = ProcessPlan::new(&options.process, &linux, &spec.annotations, options.preserve_fds)?;
        let (link, theirs) = Link::pair().context("make", "a socket pair")?;
        let mut entrance = self.state().cgroup.below(&options.cgroups)?.entrance()?;
        let unified = entrance.unified.take();
        // Those that the container has for itself, new or joined; all others are this process's own already.
        let namespaces = Namespace::from_bits_retain(self.state().namespaces);
        let user = namespaces.contains(Namespace::USER);
        let root = self.state().chroot.then(|| self.root()).transpose()?;
        let mut newcomer = Newcomer { link: theirs, streams, console, root, keep: Vec::new() };
        newcomer.list(&plan, &entrance, self.exit_fd());

        let container = self.exit_fd();
        let into = unified.as_ref().map(AsFd::as_fd);
        let clone = |by_child| {
            let newcomer = || init::newcomer(container, namespaces, &entrance, &newcomer, &plan, by_child);
            match sys::clone_child(0, into, newcomer) {
                // The container's own cgroup may not have processes any more: to where its first process is now.
                Err(Errno::BUSY) if options.cgroups.is_empty() => {
                    let other = self.state().cgroup.of_process(self.state().pid);
                    let other = other.and_then(|other| other.entrance().ok()?.unified).ok_or(Errno::BUSY)?;
                    sys::clone_child(0, Some(other.as_fd()), newcomer)
                }
                result => result,
            }
        };
        let cloned = if user {
            let first = clone(true).context("clone for", &plan.command)?;
            drop(newcomer);
            // The first child's last words are the second one's id, as it sees ids: in our pid namespace.
            let said = link.listen().context("listen to", "the new process")?;
            process::reap(&first.pidfd).context("wait for", "the process that joined the namespaces")?;
            match said {
                Message::Pid(pid) => adopt(pid)?,
                Message::Fault(fault) => return Err(fault.explain_process(&plan)),
                _ => return Err(Error::Died { id: self.id().to_owned(), during: "joining its namespaces" }),
            }
        } else {
            let back =
                namespaces.contains(Namespace::PROCESS_ID).then(|| BornElsewhere::with_process(container));
            let back = back.transpose()?;
            let cloned = clone(false);
            drop(newcomer);
            back.map_or(Ok(()), BornElsewhere::come_back)?;
            cloned.context("clone for", &plan.command)?
        };
        let running = Running { pid: cloned.pid, pidfd: cloned.pidfd, exit: None };
        let told = plan.listener.as_ref().map_or(Ok(()), |listener| {
            listener.fill(self.state(), running.pid, self.status())?;
            let _ = link.go(); // a process that is gone has said why, which is heard next
            Ok(())
        });
        let told =
            told.and_then(|()| self.state().rdt.as_ref().map_or(Ok(()), |class| class.enter(running.pid)));
        // The process's end of the link closes at execve(2), or carries the reason why there was none.
        let error = match told.and_then(|()| link.listen().context("listen to", "the new process")) {
            Ok(Message::Gone) => {
                match options.pid_file.as_ref().map(|path| write_pid_file(path, running.pid)) {
                    Some(Err(error)) => error,
                    _ => return Ok(running),
                }
            }
            Ok(Message::Fault(fault)) => fault.explain_process(&plan),
            Ok(_) => Error::Died { id: self.id().to_owned(), during: "an exec" },
            Err(error) => error,
        };
        let _ = running.kill(libc::SIGKILL);
        let _ = process::reap(&running.pidfd);
        Err(error)
    }

    /// The first process's root directory.
    fn root(&self) -> Result<OwnedFd> {
        let path = format!("/proc/{}/root", self.state().pid);
        let root = open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = root.context("open", &path)?;
        // The number is safe to have used if the process is still there now.
        if self.state().alive() { Ok(root) } else { Err(self.wrong("exec in", Status::Stopped)) }
    }
}

/// Takes a child by its number, which cannot pass to another process before we have waited for it.
pub(crate) fn adopt(pid: i32) -> Result<sys::Cloned> {
    let number = Pid::from_raw(pid).ok_or_else(|| Error::step("adopt process", pid, Errno::SRCH))?;
    let pidfd = pidfd_open(number, PidfdFlags::empty()).context("open a pidfd of", pid)?;
    Ok(sys::Cloned { pid, pidfd })
}

impl Newcomer {
    /// Lists all descriptors that are the process's own; all others are closed first thing.
    fn list(&mut self, plan: &ProcessPlan, entrance: &Entrance, container: BorrowedFd<'_>) {
        let own = [self.link.as_fd(), container].into_iter();
        let streams = self.streams.iter().flatten();
        let others = entrance.tasks.iter().chain(streams).chain(&self.console).chain(&self.root);
        let all = own.chain(others.map(AsFd::as_fd)).chain(plan.descriptors()).map(|fd| fd.as_raw_fd());
        let mut keep: Vec<i32> = (0..3 + plan.preserve_fds as i32).chain(all).collect();
        keep.sort_unstable();
        keep.dedup();
        self.keep = keep;
    }
}
