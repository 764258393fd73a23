//! The monitor: the process that is the machine as the host sees it. Its id is what engines watch and signal, and its exit
//! code is the workload's.
//!
//! ```text
//!   create ── fork ──► main: namespaces ─► (hooks) ─► boot ─► ready ──► live ──────────────► exit(code)
//!                                                                       │ signals ─► workload
//!   start, kill, exec, … ──► socket ──► control: a thread for each connection ─► Sandbox
//! ```

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::card;
use super::control::{Answer, Ask, Word, hear, listen, say};
use super::create::{Namespace, Plan, SANDBOX};
use super::state::Status;
use crate::agent::pseudo_terminal;
use crate::jail;
use crate::network::Network;
use crate::spec::Process;
use crate::{
    Accel, CreateOptions, Diagnostics, Error, Exit, Running, Sandbox, Stdio, VsockPath, sandbox, sys,
};

/// Stack of a thread that serves a connection.
const STACK: usize = 128 * 1024;

/// How long a guest has to end a workload that was killed. Then the whole machine is.
const LAST_CHANCE: Duration = Duration::from_secs(5);

/// Signals that stay what they are: faults, and what the kernel kills by.
const OWN: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGABRT,
    Signal::SIGTRAP,
    Signal::SIGSYS,
];

/// A machine that is up.
struct Monitor {
    sandbox: Sandbox,
    /// Locked while something changes it; answers are given before the lock is.
    phase: Mutex<Phase>,
    /// Processes that were added and have not ended.
    added: Mutex<Vec<Weak<Running>>>,
    /// The workload's terminal, if it has one: where its size is read.
    terminal: Option<OwnedFd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Phase {
    status: Status,
    /// Ended before it began, with this code.
    given_up: Option<u8>,
}

/// The monitor's life, from the fork to its exit code.
pub(crate) fn main(plan: Plan, link: &UnixStream) -> u8 {
    sys::save_heap();
    match prepare(plan, link) {
        Ok((monitor, signals)) => live(&monitor, &signals),
        Err(error) => {
            let _ = say(link, &Word::Failed { message: error.to_string(), code: error.exit_code() }, &[]);
            error.exit_code()
        }
    }
}

/// Catches all signals for [`SignalFd`]. To be called before any thread is made, so that all threads have them blocked.
///
/// # Errors
/// What the system says.
pub fn catch_signals() -> Result<SignalFd, Error> {
    let mut signals = SigSet::all();
    for signal in OWN {
        signals.remove(signal);
    }
    signals.thread_block().map_err(Error::system("block signals (sigprocmask)"))?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(Error::system("catch signals (signalfd)"))
}

// Its frame is large; what comes after it stays for as long as the machine does, and should not stand on top of it.
#[inline(never)]
fn prepare(plan: Plan, link: &UnixStream) -> Result<(Arc<Monitor>, SignalFd), Error> {
    // Until it has said that it is ready, it shall not outlive the command that makes it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(Error::system("tie the monitor to its parent (prctl)"))?;
    wait_for_go(link)?;
    rustix::process::setsid().map_err(Error::system("begin a session (setsid)"))?;
    let signals = catch_signals()?;
    enter_network(&plan)?;
    let jailed = sandbox::resolve(plan.options.accel) == Accel::Kvm;
    if jailed {
        jail::leave_host()?;
    }
    say(link, &Word::Entered, &[]).map_err(Error::system("speak to the command"))?;
    wait_for_go(link)?;

    // The engine's programs have been here.
    let network = match Namespace::of(&plan.spec) {
        Namespace::Shared => Network::default(),
        Namespace::New | Namespace::Joined(_) => card::take_over()?,
    };
    let Plan { spec: _, process, options, kernel, root_fs, size, folder } = plan;
    let has_terminal = process.terminal;
    let terminal = has_terminal.then(|| terminal(&process, options.console_socket)).transpose()?;
    let stdio = match &terminal {
        Some(tty) => streams(tty).map_err(Error::system("duplicate the terminal (dup)"))?,
        None => Stdio::Inherit,
    };
    // All threads from here on are in the jail. QEMU, which is another program, could not even be started from there.
    let vsock = options.vsock.map(|path| vsock_path(path, jailed));
    if jailed {
        jail::prepare(vsock.is_some())?;
    }
    let sandbox = sandbox::create_with(
        CreateOptions {
            root: folder.clone(),
            id: SANDBOX.into(),
            bundle: options.bundle,
            stdio,
            root_fs,
            kernel,
            memory_mib: size.memory_mib,
            vcpus: size.vcpus,
            network,
            accel: options.accel,
            warm: options.warm,
            saved: None,
            vsock: vsock.clone(),
            timeline: None,
        },
        Diagnostics { gdb: options.gdb, ..Diagnostics::default() },
    )?;
    let phase = Mutex::new(Phase { status: Status::Created, given_up: None });
    let monitor = Arc::new(Monitor { sandbox, phase, added: Mutex::default(), terminal });
    monitor.resize();

    let socket = listen(&folder)?;
    say(link, &Word::Ready, &[]).map_err(Error::system("speak to the command"))?;
    wait_for_go(link)?;
    rustix::process::set_parent_process_death_signal(None)
        .map_err(Error::system("untie the monitor from its parent (prctl)"))?;
    // The workload's streams are the session's now: who reads them shall see their end when the workload's is seen.
    close_streams().map_err(Error::system("close the standard streams"))?;
    if jailed {
        let root = folder.join(SANDBOX);
        if let Some(folder) = vsock.as_ref().and_then(|at| at.path.parent()) {
            jail::open_window(&root.join(WINDOW), folder)?;
        }
        jail::lock(&root)?;
    } else {
        std::env::set_current_dir("/").map_err(Error::file("change to", "/"))?;
    }
    let server = monitor.clone();
    spawn("control", move || {
        for stream in socket.incoming() {
            let server = server.clone();
            // Out of descriptors or threads: whoever asked is hung up on, and may ask again.
            let served = stream.map(|stream| spawn("connection", move || serve(&server, &stream)));
            if served.is_err() {
                thread::sleep(Duration::from_millis(10));
            }
        }
    })?;
    // What the command line, the configuration and the boot needed is of no use any more.
    sys::trim_heap();
    say(link, &Word::Free, &[]).map_err(Error::system("speak to the command"))?;
    Ok((monitor, signals))
}

/// The folder, in the jail, where the sockets are that the guest's programs connect to.
const WINDOW: &str = "vsock";

fn vsock_path(path: PathBuf, jailed: bool) -> VsockPath {
    match path.file_name() {
        // Only root's jail has a root of its own.
        Some(name) if jailed && rustix::process::geteuid().is_root() => {
            VsockPath { inside: Path::new("/").join(WINDOW).join(name), path }
        }
        _ => path.into(),
    }
}

fn wait_for_go(link: &UnixStream) -> Result<(), Error> {
    match hear::<Word>(link) {
        Ok((Word::Go, _)) => Ok(()),
        // Nobody is left to tell.
        _ => std::process::exit(125),
    }
}

/// A network namespace of its own, or another's: engines set networks up there, and the machine's cards connect to it.
fn enter_network(plan: &Plan) -> Result<(), Error> {
    match Namespace::of(&plan.spec) {
        Namespace::Shared => Ok(()),
        Namespace::New => match rustix_unshare(UnshareFlags::NEWNET) {
            // An ordinary user's machine does without.
            Err(rustix::io::Errno::PERM) if !rustix::process::geteuid().is_root() => Ok(()),
            result => result.map_err(Error::system("make a network namespace (unshare)")),
        },
        Namespace::Joined(path) => {
            let file = File::open(path).map_err(Error::file("open the network namespace", path))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| Error::file("enter the network namespace", path)(error.into()))
        }
    }
}

#[allow(deprecated)] // its successor is unsafe for the sake of CLONE_FILES, which is not used here
fn rustix_unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    rustix::thread::unshare(flags)
}

/// The terminal that carries the workload's streams: a new one whose master goes over the socket, or our own.
fn terminal(process: &Process, socket: Option<UnixStream>) -> Result<OwnedFd, Error> {
    let Some(socket) = socket else {
        let own = std::io::stdin().as_fd().try_clone_to_owned();
        return own.map_err(Error::system("duplicate the terminal (dup)"));
    };
    let slave = pseudo_terminal(&socket)?;
    if let Some(size) = process.console_size {
        let (rows, columns) = (size.height() as u16, size.width() as u16);
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let _ = tcsetwinsize(&slave, size);
    }
    // As the controlling terminal it tells us by SIGWINCH when an engine changes its size (tty_ioctl(4)).
    rustix::process::ioctl_tiocsctty(&slave).map_err(Error::system("take the terminal (TIOCSCTTY)"))?;
    Ok(slave)
}

pub(crate) fn streams(terminal: &impl AsFd) -> std::io::Result<Stdio> {
    let copy = || terminal.as_fd().try_clone_to_owned();
    Ok(Stdio::Fds { stdin: copy()?, stdout: copy()?, stderr: copy()? })
}

fn close_streams() -> std::io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let thread = thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work);
    thread.map_err(Error::system("start a thread")).map(drop)
}

/// Waits for the workload's end, and passes signals on meanwhile: to the engine this process is the workload.
fn live(monitor: &Monitor, signals: &SignalFd) -> u8 {
    let code = loop {
        if let Some(code) = monitor.phase().given_up {
            break code;
        }
        let mut files = [monitor.sandbox.exit_fd(), signals.as_fd()].map(poll_in);
        // A failure can only be an interruption: both descriptors are good. Either way the loop looks again.
        let _ = poll(&mut files, None);
        if !files[0].revents().is_empty() {
            break match monitor.sandbox.wait() {
                Ok(exit) => code(exit),
                Err(error) => error.exit_code(),
            };
        }
        while let Ok(Some(info)) = signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGWINCH) => monitor.resize(),
                // Ours, not the workload's.
                Ok(
                    Signal::SIGCHLD | Signal::SIGPIPE | Signal::SIGURG | Signal::SIGTTIN | Signal::SIGTTOU,
                ) => {}
                _ => drop(monitor.signal(info.ssi_signo as i32)),
            }
        }
    };
    // Whoever is being answered is answered first: the end of this process is the end of its threads.
    let _phase = monitor.phase();
    monitor.sandbox.power_off();
    code
}

fn poll_in(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}

/// As shells and engines tell it: the code, or 128 and the number of the signal.
pub(crate) fn code(exit: Exit) -> u8 {
    match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128u8.wrapping_add(signal as u8),
    }
}

/// Answers one connection.
fn serve(monitor: &Monitor, stream: &UnixStream) {
    let Ok((ask, files)) = hear::<Ask>(stream) else { return };
    if let Ask::Exec { process } = ask {
        return exec(monitor, stream, &process, files);
    }
    // Held until the answer is out.
    let mut phase = monitor.phase();
    let answer = match monitor.answer(&ask, &mut phase) {
        Ok(answer) => answer,
        Err(error) => (&error).into(),
    };
    let _ = say(stream, &answer, &[]);
}

impl Monitor {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, ask: &Ask, phase: &mut Phase) -> Result<Answer, Error> {
        let wrong = |operation, status: Status| Error::Wrong { operation, status: status.to_string() };
        match ask {
            Ask::Status => return Ok(Answer::Status(phase.status)),
            Ask::Start => {
                if phase.status != Status::Created {
                    return Err(wrong("start", phase.status));
                }
                self.sandbox.start()?;
                phase.status = Status::Running;
            }
            Ask::Pause => {
                if phase.status != Status::Running {
                    return Err(wrong("pause", phase.status));
                }
                self.sandbox.pause()?;
                phase.status = Status::Paused;
            }
            Ask::Resume => {
                if phase.status != Status::Paused {
                    return Err(wrong("resume", phase.status));
                }
                self.sandbox.resume()?;
                phase.status = Status::Running;
            }
            Ask::Signal { signal, all } => {
                if *all {
                    self.added().iter().for_each(|running| drop(running.kill(*signal)));
                }
                self.signal_in(*signal, phase)?;
            }
            Ask::Resize { rows, columns } => self.sandbox.resize(*rows, *columns)?,
            Ask::Report => return Ok(Answer::Report(Box::new(self.sandbox.report()))),
            Ask::Exec { .. } => {}
        }
        Ok(Answer::Done)
    }

    /// The processes that were added and are there.
    fn added(&self) -> Vec<Arc<Running>> {
        let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        added.retain(|running| running.strong_count() > 0);
        added.iter().filter_map(Weak::upgrade).collect()
    }

    fn signal(&self, signal: i32) -> Result<(), Error> {
        self.signal_in(signal, &mut self.phase())
    }

    fn signal_in(&self, signal: i32, phase: &mut Phase) -> Result<(), Error> {
        let kill = Signal::SIGKILL as i32;
        if phase.status == Status::Created {
            // The guest's process waits at its gate, and would hear of nothing but SIGKILL.
            let ends = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
            if ends.iter().any(|end| *end as i32 == signal) {
                phase.given_up = Some(128 + signal as u8);
                // Wakes the main thread, which looks at that first.
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::CHILD);
            }
            return Ok(());
        }
        if signal == kill && phase.status == Status::Paused {
            // One that is held still cannot die.
            self.sandbox.resume()?;
            phase.status = Status::Running;
        }
        self.sandbox.kill(signal)?;
        if signal == kill {
            let deadline = Instant::now() + LAST_CHANCE;
            // A guest that does not obey loses its machine.
            spawn("last chance", move || {
                thread::sleep(deadline.saturating_duration_since(Instant::now()));
                std::process::exit(128 + kill);
            })?;
        }
        Ok(())
    }

    /// Tells the guest the size of the terminal.
    fn resize(&self) {
        let size = self.terminal.as_ref().and_then(|terminal| tcgetwinsize(terminal).ok());
        if let Some(size) = size.filter(|size| (size.ws_row, size.ws_col) != (0, 0)) {
            let _ = self.sandbox.resize(size.ws_row, size.ws_col);
        }
    }
}

/// Runs one more process, for as long as the connection stands.
fn exec(monitor: &Monitor, stream: &UnixStream, process: &Process, files: Vec<OwnedFd>) {
    let begin = || {
        let status = monitor.phase().status;
        if !matches!(status, Status::Created | Status::Running) {
            return Err(Error::Wrong { operation: "exec in", status: status.to_string() });
        }
        let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(files) else {
            return Err(Error::Told {
                message: "exec: its standard streams did not come along".into(),
                code: 125,
            });
        };
        monitor.sandbox.exec(process, Stdio::Fds { stdin, stdout, stderr })
    };
    let running = match begin() {
        Ok(running) => Arc::new(running),
        Err(error) => return drop(say(stream, &Answer::from(&error), &[])),
    };
    monitor.added.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&running));
    if say(stream, &Answer::Done, &[]).is_err() || !attend(stream, &running) {
        let _ = running.kill(Signal::SIGKILL as i32);
    }
    // Forgets it, once it has ended.
    let _ = running.wait();
}

/// Passes on what the connection says until the process ends; false where the connection does before it.
fn attend(stream: &UnixStream, running: &Running) -> bool {
    loop {
        let mut files = [running.exit_fd(), stream.as_fd()].map(poll_in);
        let _ = poll(&mut files, None);
        if !files[0].revents().is_empty() {
            let answer = match running.wait() {
                Ok(exit) => Answer::Exited { code: code(exit) },
                Err(error) => (&error).into(),
            };
            return say(stream, &answer, &[]).is_ok();
        }
        if !files[1].revents().is_empty() {
            let done = match hear::<Ask>(stream) {
                Ok((Ask::Signal { signal, .. }, _)) => running.kill(signal),
                Ok((Ask::Resize { rows, columns }, _)) => running.resize(rows, columns),
                _ => return false,
            };
            if done.is_err() {
                return false;
            }
        }
    }
}
