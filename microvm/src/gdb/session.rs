//! One GDB's session: what its commands do to the machine.

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use gdbstub::common::{Signal, Tid};
use gdbstub::conn::ConnectionExt as _;
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::{Target, TargetError, TargetResult};
use kvm_ioctls::VcpuFd;
use vm_memory::GuestMemoryMmap;

use super::{Debugger, Stop};
use crate::arch::debug::{self, Arch, BREAKPOINT, Reason, Registers, Watch, Watched};
use crate::vcpu::Control;

/// The machine, as GDB acts upon it.
pub(super) struct Session<'a> {
    debugger: &'a Arc<Debugger>,
    controls: &'a [Arc<Control>],
    memory: &'a GuestMemoryMmap,
    /// Which vCPU makes one step while the others stand still. None: all go on, or only those that were named.
    stepping: Option<usize>,
    named: Vec<usize>,
    only_named: bool,
}

/// The machine has ended.
type Gone = &'static str;
const GONE: Gone = "the machine has ended";

impl<'a> Session<'a> {
    pub(super) fn new(
        debugger: &'a Arc<Debugger>,
        controls: &'a [Arc<Control>],
        memory: &'a GuestMemoryMmap,
    ) -> Self {
        Self { debugger, controls, memory, stepping: None, named: Vec::new(), only_named: false }
    }

    /// Holds all vCPUs.
    pub(super) fn hold(&self) {
        self.controls.iter().for_each(|control| control.set_debugged(true));
    }

    /// Removes all that the debugger put into the guest, and lets it go on.
    pub(super) fn leave(&mut self) {
        self.hold();
        let breakpoints = std::mem::take(&mut self.debugger.state().breakpoints);
        for (address, byte) in breakpoints {
            self.write(address, &[byte]);
        }
        let mut state = self.debugger.state();
        state.watched = Default::default();
        state.stops.clear();
        drop(state);
        for (number, control) in self.controls.iter().enumerate() {
            let _ = self.ask(number, debug::disarm);
            control.set_stepping(false);
            control.set_debugged(false);
        }
    }

    /// Has a vCPU's thread do something with it; it is held.
    fn ask<T: Send + 'static>(
        &self,
        vcpu: usize,
        work: impl FnOnce(&VcpuFd) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let answer = self.controls.get(vcpu).ok_or(GONE)?.ask(work);
        answer.recv().map_err(|_| GONE)
    }

    /// Memory at a virtual address, as the guest has it: without the debugger's breakpoints.
    fn read(&self, vcpu: usize, start: u64, len: usize) -> Result<Vec<u8>, Gone> {
        let memory = self.memory.clone();
        let mut bytes = self.ask(vcpu, move |vcpu| debug::read(vcpu, &memory, start, len))?;
        for (address, byte) in &self.debugger.state().breakpoints {
            let place = usize::try_from(address.wrapping_sub(start)).ok().and_then(|at| bytes.get_mut(at));
            if let Some(place) = place {
                *place = *byte;
            }
        }
        Ok(bytes)
    }

    /// Writes memory in the address space of the first vCPU that has it mapped.
    fn write(&self, start: u64, bytes: &[u8]) -> bool {
        (0..self.controls.len()).any(|vcpu| {
            let (memory, bytes) = (self.memory.clone(), bytes.to_vec());
            self.ask(vcpu, move |vcpu| debug::write(vcpu, &memory, start, &bytes)).unwrap_or(false)
        })
    }

    /// Has the processor watch an address. False where it watches as many as it can.
    fn watch(&self, watched: Watched) -> bool {
        let mut state = self.debugger.state();
        let free = state.watched.iter_mut().find(|place| place.is_none());
        free.map(|place| *place = Some(watched)).is_some()
    }

    fn unwatch(&self, watched: Watched) -> bool {
        let mut state = self.debugger.state();
        let found = state.watched.iter_mut().find(|place| **place == Some(watched));
        found.map(|place| *place = None).is_some()
    }

    /// What GDB is told of a stop; nothing, where the breakpoint has been removed meanwhile.
    fn tell(&self, stop: Stop) -> Option<MultiThreadStopReason<u64>> {
        let tid = tid(stop.vcpu);
        match stop.reason {
            Reason::Step => Some(MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGTRAP }),
            Reason::Breakpoint => Some(MultiThreadStopReason::SwBreak(tid)),
            Reason::Watched(number) => {
                let watched = self.debugger.watched()[number]?;
                Some(match watched.watch {
                    Watch::Execute => MultiThreadStopReason::HwBreak(tid),
                    watch => {
                        let kind =
                            if watch == Watch::Write { WatchKind::Write } else { WatchKind::ReadWrite };
                        MultiThreadStopReason::Watch { tid, kind, addr: watched.address }
                    }
                })
            }
        }
    }
}

/// GDB's threads count from 1.
fn tid(vcpu: usize) -> Tid {
    NonZeroUsize::MIN.saturating_add(vcpu)
}

fn vcpu(tid: Tid) -> usize {
    tid.get() - 1
}

/// What cannot be done now is told GDB as an error number, and it goes on.
fn refused<T, E>(result: Result<T, E>) -> TargetResult<T, Session<'static>> {
    result.map_err(|_| TargetError::NonFatal)
}

impl Target for Session<'_> {
    type Arch = Arch;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, Arch, Infallible> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Session<'_> {
    fn read_registers(&mut self, regs: &mut Registers, tid: Tid) -> TargetResult<(), Self> {
        *regs = refused(refused(self.ask(vcpu(tid), debug::registers))?)?;
        Ok(())
    }

    fn write_registers(&mut self, regs: &Registers, tid: Tid) -> TargetResult<(), Self> {
        let regs = regs.clone();
        refused(refused(self.ask(vcpu(tid), move |vcpu| debug::set_registers(vcpu, &regs)))?)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let bytes = refused(self.read(vcpu(tid), start, data.len()))?;
        if bytes.is_empty() && !data.is_empty() {
            return Err(TargetError::NonFatal);
        }
        data[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let (memory, bytes) = (self.memory.clone(), data.to_vec());
        let written = self.ask(vcpu(tid), move |vcpu| debug::write(vcpu, &memory, start, &bytes));
        if written == Ok(true) { Ok(()) } else { Err(TargetError::NonFatal) }
    }

    fn list_active_threads(&mut self, each: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        (0..self.controls.len()).for_each(|vcpu| each(tid(vcpu)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadResume for Session<'_> {
    fn resume(&mut self) -> Result<(), Infallible> {
        let watched = self.debugger.watched();
        for (number, control) in self.controls.iter().enumerate() {
            let stays = match self.stepping {
                Some(stepping) => stepping != number,
                None => self.only_named && !self.named.contains(&number),
            };
            if stays {
                continue;
            }
            let step = self.stepping == Some(number);
            control.set_stepping(step);
            // A KVM that cannot do this lets the guest run on, which GDB's user can interrupt.
            let _ = self.ask(number, move |vcpu| debug::arm(vcpu, &watched, step));
            control.set_debugged(false);
        }
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Infallible> {
        self.stepping = None;
        self.named.clear();
        self.only_named = false;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Infallible> {
        self.named.push(vcpu(tid));
        Ok(())
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Session<'_> {
    fn set_resume_action_step(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Infallible> {
        self.stepping = Some(vcpu(tid));
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Session<'_> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        self.only_named = true;
        Ok(())
    }
}

impl Breakpoints for Session<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Session<'_> {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        if self.debugger.has_breakpoint(address) {
            return Ok(true);
        }
        let old =
            (0..self.controls.len()).find_map(|vcpu| self.read(vcpu, address, 1).ok()?.first().copied());
        let Some(old) = old else { return Ok(false) };
        // Known before it is there: a vCPU may meet it at once.
        self.debugger.state().breakpoints.insert(address, old);
        let written = self.write(address, &[BREAKPOINT]);
        if !written {
            self.debugger.state().breakpoints.remove(&address);
        }
        Ok(written)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let old = self.debugger.state().breakpoints.remove(&address);
        Ok(old.is_some_and(|old| self.write(address, &[old])))
    }
}

impl HwBreakpoint for Session<'_> {
    fn add_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.watch(Watched { address, len: 1, watch: Watch::Execute }))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.unwatch(Watched { address, len: 1, watch: Watch::Execute }))
    }
}

/// The processor watches writes, or reads and writes; not reads alone.
fn watched(address: u64, len: u64, kind: WatchKind) -> Option<Watched> {
    let watch = match kind {
        WatchKind::Write => Watch::Write,
        WatchKind::ReadWrite => Watch::Access,
        WatchKind::Read => return None,
    };
    (matches!(len, 1 | 2 | 4 | 8) && address.is_multiple_of(len)).then_some(Watched { address, len, watch })
}

impl HwWatchpoint for Session<'_> {
    fn add_hw_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        Ok(watched(address, len, kind).is_some_and(|watched| self.watch(watched)))
    }

    fn remove_hw_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        Ok(watched(address, len, kind).is_some_and(|watched| self.unwatch(watched)))
    }
}

/// What happens while the guest runs: it stops, or GDB says something.
pub(super) struct Loop<'a>(PhantomData<&'a ()>);

impl<'a> BlockingEventLoop for Loop<'a> {
    type Target = Session<'a>;
    type Connection = UnixStream;
    type StopReason = MultiThreadStopReason<u64>;

    fn wait_for_stop_reason(
        session: &mut Session<'a>,
        stream: &mut UnixStream,
    ) -> Result<Event<Self::StopReason>, WaitForStopReasonError<Infallible, io::Error>> {
        loop {
            while let Some(stop) = session.debugger.next_stop() {
                // One that is told is told for all, and all stand still.
                session.hold();
                if let Some(reason) = session.tell(stop) {
                    return Ok(Event::TargetStopped(reason));
                }
                session.controls.iter().for_each(|control| control.set_debugged(false));
            }
            if session.debugger.is_over() || session.controls.iter().any(|control| control.is_stopped()) {
                return Ok(Event::TargetStopped(MultiThreadStopReason::Exited(0)));
            }
            if session.debugger.wait(stream) {
                return stream.read().map(Event::IncomingData).map_err(WaitForStopReasonError::Connection);
            }
        }
    }

    fn on_interrupt(session: &mut Session<'a>) -> Result<Option<Self::StopReason>, Infallible> {
        session.hold();
        Ok(Some(MultiThreadStopReason::Signal(Signal::SIGINT)))
    }
}
