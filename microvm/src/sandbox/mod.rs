//! A bundle in a virtual machine: from "set up, not yet started" to "gone", with the life cycle of an OCI runtime.
//!
//! [`create`] boots a guest, waits until its PID 1 says that it is up, and sends it what the bundle describes;
//! [`Sandbox::start`] lets the workload go. After that the caller waits on [`Sandbox::exit_fd`].

mod create;
mod options;
mod parts;
mod running;
mod saved;
mod state_dir;

use std::mem::replace;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;

pub use self::create::{create, create_with};
pub(crate) use self::options::resolve;
pub use self::options::{Accel, CreateOptions, Diagnostics, Kernel, RootDisk, RootFs};
pub use self::parts::GUEST_INIT;
pub use self::running::Running;
pub use self::saved::Saved;
use self::saved::Shape;
use self::state_dir::StateDir;
pub(crate) use self::state_dir::check_id;
use crate::agent::{AgentError, Exit, ProcessId, Session, Stdio};
use crate::machine::Machine;
use crate::sockets::SocketFile;
use crate::spec::{Process, Spec};
use crate::stats::Report;
use crate::vm::{LINES, Vm};
use crate::warm::Warm;
use crate::{Error, sys};

/// How long [`Sandbox::delete`] waits for the guest's own power-off.
const GRACE: Duration = Duration::from_millis(500);

/// A workload in a guest. Dropping it ends the guest and gives everything back.
pub struct Sandbox {
    // Dropped in this order: the conversation, the machine, the files.
    session: Arc<Session>,
    machine: Machine,
    spec: Spec,
    exit: Arc<EventFd>,
    is_warm: bool,
    sockets: Vec<SocketFile>,
    /// What its start has left to do.
    begin: Mutex<Begin>,
    shape: Shape,
    /// Whether it has nothing of the host's to finish writing, or to say: no shared directory, no network card.
    is_alone: bool,
    _files: StateDir,
}

/// How the workload comes to run.
enum Begin {
    /// The guest executes it.
    Execute,
    /// So, and a snapshot is taken when it is at its first instruction.
    Take(Box<Warm>),
    /// It is there already, at its first instruction, in a machine that is held.
    Go,
    /// It runs, in a machine that is held.
    Resume,
}

/// The sandbox's own process; [`Sandbox::exec`] adds others.
const FIRST: ProcessId = 0;

impl Sandbox {
    /// Starts the workload: returns when its `execve(2)` has succeeded.
    ///
    /// # Errors
    /// The command does not exist ([`Error::exit_code`] 127), cannot be executed (126), or anything else (125).
    pub fn start(&self) -> Result<(), Error> {
        let begin = self.begin.lock().map_or(Begin::Execute, |mut begin| replace(&mut begin, Begin::Execute));
        let told = |error| explain(error, &self.machine);
        match (begin, &self.machine) {
            (begin @ (Begin::Go | Begin::Resume), machine) => {
                if matches!(begin, Begin::Go) {
                    self.session.go(FIRST).map_err(told)?;
                }
                machine.resume();
                // Many machines of one snapshot may run: what making this one took is given back.
                sys::trim_heap();
                Ok(())
            }
            (Begin::Take(warm), Machine::Kvm(vm)) => match self.session.start_halted(FIRST).map_err(told)? {
                Some(halted) => {
                    warm.take_command(vm, &halted, || self.session.go(FIRST).map_err(told))?;
                    self.session.mark_executed();
                    Ok(())
                }
                None => Ok(()),
            },
            _ => self.session.start(FIRST).map_err(told),
        }
    }

    /// Becomes readable when the workload has ended, or the guest has.
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        self.exit.as_fd()
    }

    /// Waits for the workload's end.
    ///
    /// # Errors
    /// [`Error::GuestDied`] where the guest ended before it.
    pub fn wait(&self) -> Result<Exit, Error> {
        self.session.wait(FIRST).map_err(|error| explain(error, &self.machine))
    }

    /// Sends the workload a signal. One that has ended gets none, and that is no error.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        match self.session.try_wait(FIRST) {
            Some(_) => Ok(()),
            None => self.session.signal(FIRST, signal).map_err(|error| explain(error, &self.machine)),
        }
    }

    /// Tells the workload's terminal its new size.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        self.session.resize(FIRST, rows, columns).map_err(|error| explain(error, &self.machine))
    }

    /// Runs another process beside the workload. It is running when this returns.
    ///
    /// # Errors
    /// As [`Sandbox::start`].
    pub fn exec(&self, process: &Process, stdio: Stdio) -> Result<Running, Error> {
        let begin = || {
            let id = self.session.exec(process, stdio)?;
            let running = Running { session: self.session.clone(), id, exit: self.session.exit_fd(id)? };
            self.session.start(id)?;
            Ok(running)
        };
        begin().map_err(|error| explain(error, &self.machine))
    }

    /// Holds the guest still: no vCPU enters it.
    ///
    /// # Errors
    /// None yet.
    pub fn pause(&self) -> Result<(), Error> {
        self.machine.pause();
        Ok(())
    }

    /// Lets the guest go on.
    ///
    /// # Errors
    /// None yet.
    pub fn resume(&self) -> Result<(), Error> {
        self.machine.resume();
        Ok(())
    }

    /// Lets GDB connect to the guest at this Unix socket, which is made, and goes with the sandbox. Once in its life.
    ///
    /// # Errors
    /// It can be debugged already; there is something at that path; QEMU runs the guest.
    pub fn debug(&mut self, path: &Path) -> Result<(), Error> {
        if self.vm().is_some_and(Vm::is_debugged) {
            let reason = "it has a socket for GDB already".into();
            return Err(Error::Device { device: "debugger's", reason });
        }
        let (file, listener) = SocketFile::listen(path)?;
        self.machine.debug(Some(listener))?;
        self.sockets.push(file);
        Ok(())
    }

    /// What the machine is and did so far; of one that QEMU runs, nothing is known.
    pub fn report(&self) -> Report {
        self.vm().map(Vm::report).unwrap_or_default()
    }

    /// The last lines that the guest's kernel printed.
    pub fn console(&self, lines: usize) -> Vec<String> {
        self.machine.console().last_lines(lines)
    }

    /// The bundle's configuration.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What runs the guest: [`Accel::Kvm`] or [`Accel::Tcg`]. Every measurement must carry it.
    pub fn accel(&self) -> Accel {
        self.machine.accel()
    }

    /// Whether it started from a snapshot. Every measurement must carry it.
    pub fn is_warm(&self) -> bool {
        self.is_warm
    }

    /// The machine, to look at, if it is ours.
    pub fn vm(&self) -> Option<&Vm> {
        match &self.machine {
            Machine::Kvm(vm) => Some(vm),
            Machine::Tcg(_) => None,
        }
    }

    /// Ends the guest, and gives everything back. Where something of the host's is in it, by its own power-off if it manages that
    /// soon; a machine whose memory is all that it has written to needs none.
    ///
    /// # Errors
    /// None yet: what the operating system holds for us goes with its handles.
    pub fn delete(self) -> Result<(), Error> {
        self.power_off();
        Ok(())
    }

    /// Ends the guest, by its own power-off if it manages that soon, so that what it wrote of the host's is written.
    pub fn power_off(&self) {
        if !self.is_alone && self.session.power_off().is_ok() {
            self.machine.resume();
            let _ = self.machine.wait_until(Instant::now() + GRACE);
        }
    }
}

/// Where the guest ended, that is the reason; what the agent saw of it is only a consequence.
fn explain(error: AgentError, vm: &Machine) -> Error {
    let end = match error {
        // The channel closes a moment before the machine is known to have ended.
        AgentError::HungUp => vm.wait_until(Instant::now() + GRACE).unwrap_or_default(),
        _ => vm.end(),
    };
    match (&error, end) {
        (AgentError::HungUp, Some(end)) => {
            Error::GuestDied { how: end, console: vm.console().last_lines(LINES) }
        }
        (AgentError::Silent { seconds }, None) => {
            Error::GuestSilent { seconds: *seconds, console: vm.console().last_lines(LINES) }
        }
        _ => error.into(),
    }
}
