//! A virtual CPU: one host thread that enters the guest again and again, and serves what brings it out.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use kvm_ioctls::{VcpuExit, VcpuFd};
use lab_clock::{Mark, Timeline};
use nix::libc;
use vm_memory::GuestMemoryMmap;

use crate::Error;
use crate::arch::quirks::{self, Stuck};
use crate::arch::state::VcpuState;
use crate::bus::Bus;
use crate::devices::power::{Power, PowerRequest};
use crate::explain::{self, Explain};
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
}

/// The handle by which other threads bring a vCPU out of the guest.
#[derive(Debug)]
pub(crate) struct Control {
    run_page: RunPage,
    thread: OnceLock<Thread>,
    request: AtomicU8,
    hold: Mutex<Hold>,
    changed: Condvar,
}

/// Whether the vCPU is held out of the guest, and who waits for its state meanwhile.
#[derive(Debug, Default)]
struct Hold {
    paused: bool,
    asked: Option<Question>,
}

/// Someone wants the vCPU's state: these MSRs, and all else.
#[derive(Debug)]
struct Question {
    msrs: Arc<[u32]>,
    answer: SyncSender<Result<VcpuState, Error>>,
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
        self.lock().asked = None;
        self.set_paused(false);
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

    /// Asks a paused vCPU for its state. The answer comes when it is out of the guest; none, where it has ended.
    pub(crate) fn ask_state(&self, msrs: Arc<[u32]>) -> Receiver<Result<VcpuState, Error>> {
        let (answer, answers) = mpsc::sync_channel(1);
        let mut hold = self.lock();
        if self.request.load(Ordering::SeqCst) & STOP == 0 {
            hold.asked = Some(Question { msrs, answer });
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
        while hold.paused && self.request.load(Ordering::SeqCst) & STOP == 0 {
            if let Some(Question { msrs, answer }) = hold.asked.take() {
                // Nobody waits any more where it cannot be sent.
                let _ = answer.send(VcpuState::save(vcpu, &msrs));
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
        if first {
            self.machine.timeline.mark(Mark::FirstRun);
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

    /// After KVM_EXIT_INTERNAL_ERROR: an instruction that KVM's emulator lacks may be one that we can do.
    #[inline(never)]
    fn repair(&mut self) -> Result<(), End> {
        const KVM_INTERNAL_ERROR_EMULATION: u32 = 1;
        match sys::internal_error(&mut self.fd) {
            KVM_INTERNAL_ERROR_EMULATION => {
                quirks::repair(&self.fd, &self.machine.memory).map_err(End::Stuck)
            }
            other => Err(End::Refused(format!("KVM failed inside, suberror {other}"))),
        }
    }
}
