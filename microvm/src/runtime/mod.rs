//! An OCI runtime over the machine: one command at a time, as engines drive it.
//!
//! A container is its processes, which the kernel keeps. A machine is a process of ours, which must live on when the command
//! that made it has ended: the *monitor*. All commands after `create` find it by the folder of its state, and ask it over a
//! socket there.
//!
//! ```text
//!   create ── fork ──► monitor: a Sandbox, its vCPUs, its devices ◄── socket ── start, kill, exec, pause, events
//!     │                   │ exits with the workload's code
//!     └─ state.json ──────┴─► state, list, delete: is its process alive?
//! ```
//!
//! Read in this order: [`create`], the steps of the command's side; `monitor`, those of the other; `control`, what is said
//! between the two; `exec`; `state`, what one command leaves for the next. `size` and [`kernels`] decide on the machine,
//! `hooks` and `cgroup` are what the specification wants on the host, `card` what engines do there.

mod card;
mod cgroup;
mod control;
mod create;
mod exec;
mod hooks;
pub mod kernels;
mod monitor;
mod size;
mod state;

use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

pub use create::{Options, create};
pub use exec::{ExecOptions, Raw};
pub use monitor::catch_signals;
pub use size::ANNOTATIONS;
pub use state::{State, Status};

use crate::Error;
use crate::spec::{self, Resources, Spec};
use crate::stats::Report;
use control::{Answer, Ask, ask};
use state::StateDir;

/// How long a killed monitor may take to be gone: its memory is unmapped, its threads end.
const GONE: Duration = Duration::from_secs(30);

/// A machine that a monitor holds, or held.
#[derive(Debug)]
pub struct Instance {
    dir: StateDir,
    state: State,
}

/// What a machine uses of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of the monitor with all its vCPUs, in nanoseconds.
    pub cpu_nanos: u64,
    /// Resident memory in bytes, that of the guest included.
    pub memory: u64,
    /// The most that it was.
    pub memory_peak: u64,
    /// Threads.
    pub threads: u64,
}

impl Instance {
    /// Finds a machine by its id.
    ///
    /// # Errors
    /// [`Error::Missing`] where there is none; an unreadable state file.
    pub fn load(root: &Path, id: &str) -> Result<Self, Error> {
        let dir = StateDir::of(root, id)?;
        let state = dir.read()?;
        Ok(Self { dir, state })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.state.id
    }

    /// What is written down of it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The configuration of its bundle.
    ///
    /// # Errors
    /// It is gone or unreadable.
    pub fn spec(&self) -> Result<Spec, Error> {
        spec::load_version_1(&self.state.bundle)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Where it stands in its life.
    pub fn status(&self) -> Status {
        match (self.state.pid, self.state.alive()) {
            (0, _) => Status::Creating,
            (_, false) => Status::Stopped,
            (_, true) if !control::is_there(self.folder()) => Status::Creating,
            (_, true) => match ask(self.folder(), &Ask::Status, false) {
                Ok(Answer::Status(status)) => status,
                // It ended between two looks; or it is there and does not answer, and must be killed by force.
                _ if !self.state.alive() => Status::Stopped,
                _ => Status::Running,
            },
        }
    }

    /// Lets the guest's process become the workload; returns once it has.
    ///
    /// # Errors
    /// The command does not exist ([`Error::exit_code`] 127), cannot be executed (126): the machine ends then. Anything else
    /// (125).
    pub fn start(&self) -> Result<(), Error> {
        let status = self.status();
        if status != Status::Created {
            return Err(self.wrong("start", status));
        }
        let created =
            hooks::run_inside("startContainer", &self.state.start_container, &self.state, Status::Created);
        created
            .and_then(|()| self.tell(&Ask::Start))
            .and_then(|()| hooks::run("poststart", &self.state.poststart, &self.state, Status::Running))
            // A hook that fails ends the machine (runtime.md, "Lifecycle", steps 7 to 9).
            .inspect_err(|_| drop(self.tell(&Ask::Signal { signal: Signal::KILL.as_raw(), all: false })))
    }

    /// Sends the workload a signal, or all processes that were started from outside.
    ///
    /// # Errors
    /// [`Error::State`] when it has ended.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), Error> {
        match self.status() {
            Status::Created | Status::Running | Status::Paused => {}
            status => return Err(self.wrong("kill", status)),
        }
        match self.tell(&Ask::Signal { signal, all }) {
            // A monitor that does not answer does not hear either; this it need not.
            Err(error) if signal == Signal::KILL.as_raw() => self.end().map_err(|_| error),
            result => result,
        }
    }

    /// Holds the guest still: no vCPU enters it.
    ///
    /// # Errors
    /// [`Error::State`] when it does not run.
    pub fn pause(&self) -> Result<(), Error> {
        self.checked("pause", &Ask::Pause)
    }

    /// Lets a paused guest go on.
    ///
    /// # Errors
    /// [`Error::State`] when it is not paused.
    pub fn resume(&self) -> Result<(), Error> {
        self.checked("resume", &Ask::Resume)
    }

    /// Tells the workload's terminal its new size.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        self.tell(&Ask::Resize { rows, columns })
    }

    /// What the machine is and did so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn report(&self) -> Result<Report, Error> {
        match ask(self.folder(), &Ask::Report, false)? {
            Answer::Report(report) => Ok(*report),
            _ => Err(Error::MonitorDied { id: self.id().to_owned() }),
        }
    }

    /// What it uses of the host now; nothing, where it has ended.
    pub fn usage(&self) -> Usage {
        if !self.state.alive() {
            return Usage::default();
        }
        let read =
            |file| std::fs::read_to_string(format!("/proc/{}/{file}", self.state.pid)).unwrap_or_default();
        let (stat, status) = (read("stat"), read("status"));
        // utime and stime (proc_pid_stat(5), fields 14 and 15), in ticks of which there are a hundred a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let line = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        Usage {
            cpu_nanos: (ticks(14) + ticks(15)) * 10_000_000,
            memory: line("VmRSS") << 10,
            memory_peak: line("VmHWM") << 10,
            threads: line("Threads"),
        }
    }

    /// The processes on the host that belong to it: the monitor.
    pub fn processes(&self) -> Vec<i32> {
        if self.state.alive() { vec![self.state.pid] } else { Vec::new() }
    }

    /// Gives it other limits. Its memory and vCPUs were fixed at its boot; its share of the host's processors can change.
    ///
    /// # Errors
    /// The control group refuses.
    pub fn update(&self, resources: &Resources) -> Result<(), Error> {
        resources.cpu.as_ref().map_or(Ok(()), |cpu| cgroup::set_cpu(&self.state.cgroups, cpu))
    }

    /// Removes whatever is left of a machine, in whatever state it or its runtime died; none at all is no error.
    ///
    /// # Errors
    /// Whatever could not be removed is named, and trying again is right.
    pub fn delete_forced(root: &Path, id: &str) -> Result<(), Error> {
        match Self::load(root, id) {
            Ok(instance) => instance.delete(true),
            Err(Error::Missing { .. }) => Ok(()),
            // A runtime that died before it could write the state had made nothing but the folder.
            Err(Error::File { .. }) => StateDir::of(root, id)?.remove(),
            Err(error) => Err(error),
        }
    }

    /// Removes everything that the machine used. A running one only with `force`, which kills it.
    ///
    /// # Errors
    /// [`Error::State`] when it runs and `force` is not set. Whatever could not be removed is named, and deleting again
    /// tries again.
    pub fn delete(&self, force: bool) -> Result<(), Error> {
        let status = self.status();
        if !force && !matches!(status, Status::Stopped | Status::Created) {
            return Err(self.wrong("delete", status));
        }
        if self.state.alive() {
            self.end()?;
        }
        cgroup::remove(&self.state.cgroups)?;
        self.state.remove_sockets()?;
        self.dir.remove()?;
        for hook in &self.state.poststop {
            // A failure changes nothing any more: the others run all the same (runtime.md, "Lifecycle", step 13).
            let _ = hooks::run("poststop", std::slice::from_ref(hook), &self.state, Status::Stopped);
        }
        Ok(())
    }

    /// Kills the monitor, and the guest with it: guest memory, devices and threads are its.
    fn end(&self) -> Result<(), Error> {
        let Some(pid) = Pid::from_raw(self.state.pid) else { return Ok(()) };
        let gone = |error: rustix::io::Errno| error == rustix::io::Errno::SRCH;
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(error) if gone(error) => return Ok(()),
            other => other.map_err(Error::system("find the monitor (pidfd_open)"))?,
        };
        // Between the look and the opening the number could have passed to another process.
        if !self.state.alive() {
            return Ok(());
        }
        match pidfd_send_signal(&pidfd, Signal::KILL) {
            Err(error) if !gone(error) => {
                return Err(Error::system("kill the monitor (pidfd_send_signal)")(error));
            }
            _ => {}
        }
        let timeout = Timespec { tv_sec: GONE.as_secs() as i64, tv_nsec: 0 };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => Err(Error::Wrong { operation: "kill", status: "killed, and does not end".into() }),
            _ => Ok(()),
        }
    }

    fn checked(&self, operation: &'static str, what: &Ask) -> Result<(), Error> {
        match self.status() {
            status @ (Status::Stopped | Status::Creating) => Err(self.wrong(operation, status)),
            _ => self.tell(what),
        }
    }

    fn tell(&self, what: &Ask) -> Result<(), Error> {
        // A start waits for the guest, which reads a program from its disk; all else is quick.
        ask(self.folder(), what, matches!(what, Ask::Start)).map(drop)
    }

    fn wrong(&self, operation: &'static str, status: Status) -> Error {
        Error::State { operation, id: self.state.id.clone(), status: status.to_string() }
    }
}
