//! A virtual CPU: one host thread that enters the guest again and again, and serves what brings it out.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use kvm_ioctls::{VcpuExit, VcpuFd};
use lab_clock::{Mark, Timeline};
use nix::libc;
use vm_memory::GuestMemoryMmap;

use crate::Error;
use crate::arch::debug::{self, Reason};
use crate::arch::quirks::{self, Stuck};
use crate::arch::state::VcpuState;
use crate::bus::Bus;
use crate::devices::power::{Power, PowerRequest};
use crate::explain::{self, Explain};
use crate::gdb::{Debugger, Stop};
use crate::jail::{self, Role};
use crate::stats::{Exit, Profile, Stats};
use crate::sys::{self, RunPage, Thread};

/// How a guest's life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It asked for power-off or a reset.
    Asked(PowerRequest),
    /// It faulted while it tried to handle a fault that came of handling a fault (SDM vol. 3A, section 6.15, "double fault"): its
    /// kernel destroyed itself. Never a clean end, though real machines reset quietly.
    TripleFault,
    /// KVM could not go on with it, and there was nothing to repair.
    Stuck(Stuck),
    /// KVM refused to enter it, or returned what makes no sense for such a machine.
    Refused(String),
    /// The VMM stopped it.
    Stopped,
}

/// What a vCPU thread works with: everything but the vCPU itself is shared with the others.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) ports: Bus,
    pub(crate) windows: Bus,
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) power: Power,
    pub(crate) stats: Arc<Stats>,
    pub(crate) profile: Option<Arc<Profile>>,
    pub(crate) explain: Option<Explain>,
    pub(crate) timeline: Arc<Timeline>,
    /// It is made of a command's snapshot: the first instruction is the program's.
    pub(crate) in_program: bool,
}

/// The handle by which other threads bring a vCPU out of the guest.
#[derive(Debug)]
pub(crate) struct Control {
    run_page: RunPage,
    thread: OnceLock<Thread>,
    request: AtomicU8,
    hold: Mutex<Hold>,
    changed: Condvar,
    /// Who wants to know of breakpoints.
    debugger: OnceLock<Arc<Debugger>>,
    /// The debugger waits for the end of one instruction.
    stepping: AtomicBool,
}

/// Whether the vCPU is held out of the guest, by whom, and what it is asked meanwhile.
#[derive(Default)]
struct Hold {
    paused: bool,
    debugged: bool,
    asked: Option<Question>,
}

/// What only the vCPU's own thread may do with it.
type Question = Box<dyn FnOnce(&VcpuFd) + Send>;

impl fmt::Debug for Hold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hold {{ paused: {}, debugged: {} }}", self.paused, self.debugged)
    }
}

const STOP: u8 = 1;
const SAMPLE: u8 = 2;

impl Control {
    pub(crate) fn new(vcpu: &VcpuFd) -> Result<Self, Error> {
        Ok(Self {
            run_page: RunPage::of(vcpu).map_err(Error::system("map a vCPU's run page"))?,
            thread: OnceLock::new(),
            request: AtomicU8::new(0),
            hold: Mutex::default(),
            changed: Condvar::new(),
            debugger: OnceLock::new(),
            stepping: AtomicBool::new(false),
        })
    }

    /// Tells it its thread, once it runs.
    pub(crate) fn set_thread(&self, thread: Thread) {
        let _ = self.thread.set(thread);
    }

    /// Ends the vCPU's thread.
    pub(crate) fn stop(&self) {
        self.request.fetch_or(STOP, Ordering::SeqCst);
        self.kick();
        // The thread may be gone already: whoever asked it something learns that by the question's end.
        let mut hold = self.lock();
        (hold.asked, hold.paused, hold.debugged) = (None, false, false);
        drop(hold);
        self.changed.notify_all();
    }

    /// Whether it was told to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.request.load(Ordering::SeqCst) & STOP != 0
    }

    /// Has the vCPU say where it is.
    pub(crate) fn sample(&self) {
        self.request.fetch_or(SAMPLE, Ordering::SeqCst);
        self.kick();
    }

    /// Holds the vCPU out of the guest, or lets it in again.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.lock().paused = paused;
        if paused {
            self.kick();
        }
        self.changed.notify_all();
    }

    /// As [`Control::set_paused`], for the debugger: both must let it in.
    pub(crate) fn set_debugged(&self, debugged: bool) {
        self.lock().debugged = debugged;
        if debugged {
            self.kick();
        }
        self.changed.notify_all();
    }

    /// Tells it who wants to know of breakpoints.
    pub(crate) fn set_debugger(&self, debugger: &Arc<Debugger>) {
        let _ = self.debugger.set(debugger.clone());
    }

    /// Tells it whether the debugger waits for the end of one instruction.
    pub(crate) fn set_stepping(&self, stepping: bool) {
        self.stepping.store(stepping, Ordering::SeqCst);
    }

    /// Asks a paused vCPU for its state. The answer comes when it is out of the guest; none, where it has ended.
    pub(crate) fn ask_state(&self, msrs: Arc<[u32]>) -> Receiver<Result<VcpuState, Error>> {
        self.ask(move |vcpu| VcpuState::save(vcpu, &msrs))
    }

    /// Has a held vCPU's thread do something with it, likewise.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&VcpuFd) -> T + Send + 'static,
    ) -> Receiver<T> {
        let (answer, answers) = mpsc::sync_channel(1);
        let mut hold = self.lock();
        if !self.is_stopped() {
            // Nobody waits any more where it cannot be sent.
            hold.asked = Some(Box::new(move |vcpu| drop(answer.send(work(vcpu)))));
            self.changed.notify_all();
        }
        answers
    }

    fn lock(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the current or the next `KVM_RUN` return EINTR. Flag first, then signal: the signal ends a run that has begun,
    /// the flag one that is about to begin, so no kick is lost (api.rst, 5, `immediate_exit`).
    fn kick(&self) {
        self.run_page.set_immediate_exit(true);
        if let Some(thread) = self.thread.get() {
            thread.signal();
        }
    }

    /// What was asked for; the vCPU's thread calls this outside the guest. Waits while paused, and answers meanwhile.
    fn take_request(&self, vcpu: &VcpuFd) -> u8 {
        // Flag first, then requests: whoever sets one after this sets the flag after it, too.
        self.run_page.set_immediate_exit(false);
        let mut hold = self.lock();
        while (hold.paused || hold.debugged) && !self.is_stopped() {
            if let Some(question) = hold.asked.take() {
                question(vcpu);
            }
            hold = self.changed.wait(hold).unwrap_or_else(PoisonError::into_inner);
        }
        // A question that came too late gets no answer: its sender is dropped.
        hold.asked = None;
        self.request.fetch_and(STOP, Ordering::SeqCst)
    }
}

/// A vCPU, ready to run.
pub(crate) struct Vcpu {
    pub(crate) fd: VcpuFd,
    pub(crate) index: u8,
    pub(crate) machine: Machine,
    pub(crate) control: Arc<Control>,
}

impl Vcpu {
    /// Runs the guest until its end.
    // ANCHOR: run
    pub(crate) fn run(mut self) -> End {
        sys::unblock_kick_signal();
        jail::enter(Role::Vcpu);
        let mut first = self.index == 0;
        let stats = self.machine.stats.clone();
        let explain = self.machine.explain.clone();
        if self.control.take_request(&self.fd) & STOP != 0 {
            return End::Stopped;
        }
        if first {
            self.machine.timeline.mark(Mark::FirstRun);
            if self.machine.in_program {
                self.machine.timeline.mark(Mark::Executed);
            }
        }
        loop {
            let exit = self.fd.run();
            if first {
                first = false;
                self.machine.timeline.mark(Mark::FirstExit);
            }
            if let Some(explain) = &explain
                && let Some(what) = explain::describe(&exit)
            {
                explain.exit(self.index, format_args!("{what}"));
            }
            match exit {
                Ok(VcpuExit::IoOut(port, data)) => {
                    stats.count(Exit::PortWrite);
                    self.machine.ports.write(port.into(), data);
                    if let Some(request) = self.machine.power.requested() {
                        return End::Asked(request);
                    }
                }
                Ok(VcpuExit::IoIn(port, data)) => {
                    stats.count(Exit::PortRead);
                    self.machine.ports.read(port.into(), data);
                }
                Ok(VcpuExit::MmioRead(address, data)) => {
                    stats.count(Exit::MemoryRead);
                    self.machine.windows.read(address, data);
                }
                Ok(VcpuExit::MmioWrite(address, data)) => {
                    stats.count(Exit::MemoryWrite);
                    self.machine.windows.write(address, data);
                }
                Ok(VcpuExit::InternalError) => {
                    stats.count(Exit::Repair);
                    if let Err(end) = self.repair() {
                        return end;
                    }
                }
                Ok(VcpuExit::Debug(debug)) => {
                    stats.count(Exit::Other);
                    if self.meet_debugger(debug.pc, debug::reason(&debug)) & STOP != 0 {
                        return End::Stopped;
                    }
                }
                Ok(VcpuExit::Shutdown) => return End::TripleFault,
                Ok(VcpuExit::FailEntry(reason, cpu)) => {
                    return End::Refused(format!(
                        "entry to the guest failed on CPU {cpu}, reason {reason:#x}"
                    ));
                }
                // The machine's interrupt controllers are in KVM, which waits for interrupts itself, so HLT is no exit.
                Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => stats.count(Exit::Other),
                Ok(other) => {
                    return End::Refused(format!("KVM returned {other:?}, which this machine does not use"));
                }
                Err(error) => match error.errno() {
                    libc::EINTR => {
                        stats.count(Exit::Kick);
                        let request = self.serve_kick();
                        if request & STOP != 0 {
                            return End::Stopped;
                        }
                    }
                    libc::EAGAIN => {}
                    _ => return End::Refused(format!("KVM_RUN failed: {error}")),
                },
            }
        }
    }
    // ANCHOR_END: run

    // Not a part of `run`, whose stack it would make larger by a vCPU's whole state.
    #[inline(never)]
    fn serve_kick(&self) -> u8 {
        let request = self.control.request.load(Ordering::SeqCst);
        if request & SAMPLE != 0
            && let Some(profile) = &self.machine.profile
            && let Ok(regs) = self.fd.get_regs()
        {
            profile.record(regs.rip);
        }
        self.control.take_request(&self.fd)
    }

    /// Stops for the debugger, and waits for its word. What is asked for then.
    #[inline(never)]
    fn meet_debugger(&self, pc: u64, reason: Reason) -> u8 {
        let Some(debugger) = self.control.debugger.get() else { return 0 };
        if reason == Reason::Breakpoint && !debugger.has_breakpoint(pc) {
            // The guest's own, or one that was removed a moment ago: then the instruction is there again.
            if self.has_breakpoint_in_memory(pc) {
                let _ = debug::give_back(&self.fd, &debugger.watched());
            }
            return 0;
        }
        // First held, then told: the debugger may let it go on at once.
        self.control.lock().debugged = true;
        self.control.stepping.store(false, Ordering::SeqCst);
        debugger.stopped(Stop { vcpu: self.index.into(), reason });
        self.control.take_request(&self.fd)
    }

    fn has_breakpoint_in_memory(&self, pc: u64) -> bool {
        debug::read(&self.fd, &self.machine.memory, pc, 1) == [debug::BREAKPOINT]
    }

    /// After KVM_EXIT_INTERNAL_ERROR: an instruction that KVM's emulator lacks may be one that we can do.
    #[inline(never)]
    fn repair(&mut self) -> Result<(), End> {
        const KVM_INTERNAL_ERROR_EMULATION: u32 = 1;
        match sys::internal_error(&mut self.fd) {
            KVM_INTERNAL_ERROR_EMULATION => {
                if let Some(debugger) = self.control.debugger.get() {
                    let rip = self.fd.get_regs().map_or(0, |regs| regs.rip);
                    if debugger.has_breakpoint(rip) {
                        self.meet_debugger(rip, Reason::Breakpoint);
                        return Ok(());
                    }
                }
                quirks::repair(&self.fd, &self.machine.memory).map_err(End::Stuck)?;
                // What was done for KVM counts as a step, of which it knows nothing.
                if self.control.stepping.load(Ordering::SeqCst) {
                    self.meet_debugger(0, Reason::Step);
                }
                Ok(())
            }
            other => Err(End::Refused(format!("KVM failed inside, suberror {other}"))),
        }
    }
}
