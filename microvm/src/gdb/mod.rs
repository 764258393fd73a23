//! A debugger for the guest: GDB's remote protocol on a Unix socket (`target remote SOCKET`), one thread of GDB's a vCPU.
//!
//! ```text
//!   gdb ── socket ──▶ thread "gdb": Session ──▶ Control of each vCPU: hold, ask, let go
//!                          ▲                          │
//!                          └── Debugger: stops ◀──────┘ KVM_EXIT_DEBUG
//! ```
//!
//! All vCPUs stand still while GDB has the word. A breakpoint in memory is an `int3` in the place of the instruction; KVM tells
//! of it, and of the four addresses that a processor can watch itself. A KVM that interprets the guest's kernel does the same for
//! kernel code; there, breakpoints that the processor watches do not fire in the guest's programs.
//!
//! The crate `gdbstub` speaks the protocol; [`Session`] is what it acts upon.

mod session;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use gdbstub::stub::{DisconnectReason, GdbStub};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vm_memory::GuestMemoryMmap;

use self::session::{Loop, Session};
use crate::Error;
use crate::arch::debug::{Reason, WATCHED, Watched};
use crate::jail::{self, Role};
use crate::vcpu::Control;

/// A vCPU that stopped, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) vcpu: usize,
    pub(crate) reason: Reason,
}

/// What the debugger's thread and the vCPUs' share.
#[derive(Debug)]
pub(crate) struct Debugger {
    state: Mutex<State>,
    /// Written for each stop, and at the end.
    news: EventFd,
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Breakpoints in memory by their virtual addresses, with the bytes that were there.
    breakpoints: BTreeMap<u64, u8>,
    watched: [Option<Watched>; WATCHED],
    stops: VecDeque<Stop>,
}

impl Debugger {
    fn new() -> Result<Self, Error> {
        let news = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(Error::system("make the debugger's event (eventfd)"))?;
        Ok(Self { state: Mutex::default(), news, over: AtomicBool::new(false) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a breakpoint of the debugger's is at this address.
    pub(crate) fn has_breakpoint(&self, address: u64) -> bool {
        self.state().breakpoints.contains_key(&address)
    }

    /// What the processors are to watch.
    pub(crate) fn watched(&self) -> [Option<Watched>; WATCHED] {
        self.state().watched
    }

    /// A vCPU stopped; it is held already.
    pub(crate) fn stopped(&self, stop: Stop) {
        self.state().stops.push_back(stop);
        let _ = self.news.write(1);
    }

    fn next_stop(&self) -> Option<Stop> {
        self.state().stops.pop_front()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Waits until the descriptor has something to read, or there is news. Whether the former.
    fn wait(&self, file: &impl AsFd) -> bool {
        let mut files = [file.as_fd(), self.news.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // A failure can only be an interruption; whoever waits looks again.
        let _ = poll(&mut files, PollTimeout::NONE);
        let [ready, news] = files.map(|file| file.any() == Some(true));
        if news {
            let _ = self.news.read();
        }
        ready
    }
}

/// The debugger's thread. Dropping it ends what it does.
pub(crate) struct Running {
    debugger: Arc<Debugger>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Serves one GDB after the other on the socket, as long as the machine is there. `kill` ends it.
    pub(crate) fn start(
        listener: UnixListener,
        controls: Vec<Arc<Control>>,
        memory: GuestMemoryMmap,
        kill: impl Fn() + Send + 'static,
    ) -> Result<Self, Error> {
        listener.set_nonblocking(true).map_err(Error::system("set up the debugger's socket"))?;
        let debugger = Arc::new(Debugger::new()?);
        for control in &controls {
            control.set_debugger(&debugger);
        }
        let shared = debugger.clone();
        let serve = move || {
            jail::enter(Role::Control);
            while !shared.is_over() {
                if !shared.wait(&listener) {
                    continue;
                }
                if let Ok((stream, _)) = listener.accept()
                    && attend(stream, Session::new(&shared, &controls, &memory))
                        == Some(DisconnectReason::Kill)
                {
                    kill();
                }
            }
        };
        let thread = thread::Builder::new()
            .name("gdb".into())
            .spawn(serve)
            .map_err(Error::system("start the debugger's thread"))?;
        Ok(Self { debugger, thread: Some(thread) })
    }
}

/// One GDB, from its connection to its end. All breakpoints go with it.
fn attend(stream: UnixStream, mut session: Session<'_>) -> Option<DisconnectReason> {
    session.hold();
    // A GDB that breaks the protocol or hangs up is as one that has had enough.
    let ended = GdbStub::new(stream).run_blocking::<Loop<'_>>(&mut session).ok();
    session.leave();
    ended
}

impl Drop for Running {
    fn drop(&mut self) {
        self.debugger.over.store(true, Ordering::Release);
        let _ = self.debugger.news.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
