//! A running machine: its threads, its end, and the handles by which it is stopped, paused and looked at.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvm_ioctls::VmFd;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::Error;
use crate::arch::probe::Probe;
use crate::arch::state::VcpuState;
use crate::board::Board;
use crate::devices::serial::Console;
use crate::event_loop::RunningLoop;
use crate::gdb;
use crate::memory;
use crate::stats::{Profile, Report, Stats};
use crate::sys::Thread;
use crate::vcpu::{Control, End, Machine, Vcpu};

/// How much stack a vCPU's thread gets: it dispatches exits and locks devices, nothing deep.
const STACK: usize = 128 * 1024;

/// Lines of the console that an error carries: a panic with its call trace.
pub(crate) const LINES: usize = 40;

/// How often a profile looks where the vCPU is.
const SAMPLE_EVERY: Duration = Duration::from_millis(1);

/// A machine whose vCPUs run. Dropping it stops them, waits for their threads, and gives everything back.
pub struct Vm {
    // Dropped in this order: first nobody runs the guest any more, then nobody serves it, then KVM lets go of it, then its
    // memory goes.
    vcpus: Vec<RunningVcpu>,
    sampler: Option<JoinHandle<()>>,
    debugger: Option<gdb::Running>,
    devices: Vec<RunningLoop>,
    board: Board,
    kvm: VmFd,
    memory: GuestMemoryMmap,
    paused: Mutex<bool>,
    ending: Arc<Ending>,
    console: Console,
    stats: Arc<Stats>,
    profile: Option<Arc<Profile>>,
    probe: Probe,
}

struct RunningVcpu {
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

/// The end of a machine: the first vCPU that ends decides it, and tells the others.
struct Ending {
    end: Mutex<Option<End>>,
    event: EventFd,
    controls: Vec<Arc<Control>>,
    at_end: Mutex<Option<AtEnd>>,
}

/// What is done at a machine's end, by whichever thread notices it first.
pub type AtEnd = Box<dyn FnOnce() + Send>;

impl Ending {
    fn end(&self, end: End) {
        let mut current = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_none() {
            *current = Some(end);
            // Readable from now on, for good: nobody reads it, so it only ever is polled.
            let _ = self.event.write(1);
            self.controls.iter().for_each(|control| control.stop());
            if let Some(at_end) = self.at_end.lock().unwrap_or_else(PoisonError::into_inner).take() {
                at_end();
            }
        }
    }
}

/// Everything that [`crate::boot::boot`] made and a running machine keeps.
pub(crate) struct Parts {
    pub(crate) vm: VmFd,
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) machine: Machine,
    pub(crate) board: Board,
    pub(crate) console: Console,
    pub(crate) probe: Probe,
    pub(crate) at_end: Option<AtEnd>,
    /// Whether it waits for [`Vm::resume`] before it runs.
    pub(crate) paused: bool,
}

impl Vm {
    /// Starts the devices' threads, then one for each vCPU.
    pub(crate) fn start(parts: Parts) -> Result<Self, Error> {
        let Parts { vm, memory, vcpus, machine, mut board, console, probe, at_end, paused } = parts;
        let devices = board.spawn()?;
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(Error::system("make the end's event (eventfd)"))?;
        let controls: Vec<_> = vcpus.iter().map(|vcpu| vcpu.control.clone()).collect();
        let ending = Arc::new(Ending { end: Mutex::new(None), event, controls, at_end: Mutex::new(at_end) });
        let mut this = Self {
            vcpus: Vec::new(),
            sampler: None,
            debugger: None,
            devices,
            board,
            kvm: vm,
            memory,
            paused: Mutex::new(paused),
            ending,
            console,
            stats: machine.stats,
            profile: machine.profile,
            probe,
        };
        // From here on an error drops `this`, which stops and joins the threads already started.
        for vcpu in vcpus {
            let (ending, control) = (this.ending.clone(), vcpu.control.clone());
            if paused {
                control.set_paused(true);
            }
            let thread = thread::Builder::new()
                .name(format!("vcpu{}", vcpu.index))
                .stack_size(STACK)
                .spawn(move || ending.end(vcpu.run()))
                .map_err(Error::system("start a vCPU's thread"))?;
            control.set_thread(Thread::of(&thread));
            this.vcpus.push(RunningVcpu { control, thread: Some(thread) });
        }
        if this.profile.is_some() {
            this.sampler = Some(this.start_sampler()?);
        }
        Ok(this)
    }

    fn start_sampler(&self) -> Result<JoinHandle<()>, Error> {
        let ending = self.ending.clone();
        let sample = move || {
            while ending.end.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                thread::sleep(SAMPLE_EVERY);
                if let Some(first) = ending.controls.first() {
                    first.sample();
                }
            }
        };
        thread::Builder::new()
            .name("profile".into())
            .stack_size(STACK)
            .spawn(sample)
            .map_err(Error::system("start the profile's thread"))
    }

    /// Lets debuggers connect to the guest by this socket: see `gdb`.
    ///
    /// # Errors
    /// The process may not have another thread.
    pub fn debug(&mut self, listener: UnixListener) -> Result<(), Error> {
        let ending = self.ending.clone();
        let controls = ending.controls.clone();
        let kill = move || ending.end(End::Stopped);
        self.debugger = Some(gdb::Running::start(listener, controls, self.memory.clone(), kill)?);
        Ok(())
    }

    /// Whether debuggers can connect.
    pub(crate) fn is_debugged(&self) -> bool {
        self.debugger.is_some()
    }

    /// A descriptor that becomes readable at the machine's end, and stays so.
    pub fn end_fd(&self) -> BorrowedFd<'_> {
        self.ending.event.as_fd()
    }

    /// How the machine ended, if it did.
    pub fn end(&self) -> Option<End> {
        self.ending.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the machine's end.
    ///
    /// # Errors
    /// `poll(2)` failed.
    pub fn wait(&self) -> Result<End, Error> {
        loop {
            if let Some(end) = self.wait_at_most(PollTimeout::NONE)? {
                return Ok(end);
            }
        }
    }

    /// Waits for the machine's end until `deadline`.
    ///
    /// # Errors
    /// `poll(2)` failed.
    pub fn wait_until(&self, deadline: Instant) -> Result<Option<End>, Error> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let end = self.wait_at_most(PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))?;
            if end.is_some() || left.is_zero() {
                return Ok(end);
            }
        }
    }

    /// It ended while it was needed.
    fn ended(&self) -> Error {
        let how = self.end().unwrap_or(End::Stopped);
        Error::GuestDied { how, console: self.console.last_lines(LINES) }
    }

    fn wait_at_most(&self, timeout: PollTimeout) -> Result<Option<End>, Error> {
        match poll(&mut [PollFd::new(self.end_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(self.end()),
            Err(error) => Err(Error::system("wait for the machine's end (poll)")(error)),
        }
    }

    /// Stops all vCPUs at once, wherever they are.
    pub fn stop(&self) {
        self.ending.end(End::Stopped);
    }

    /// Holds all vCPUs out of the guest.
    pub fn pause(&self) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        *paused = true;
        self.set_paused(true);
    }

    /// Lets all vCPUs go on.
    pub fn resume(&self) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        *paused = false;
        self.set_paused(false);
    }

    fn set_paused(&self, paused: bool) {
        self.vcpus.iter().for_each(|vcpu| vcpu.control.set_paused(paused));
    }

    /// Does something while no vCPU is in the guest, and nobody pauses or resumes. Afterwards all is as before.
    pub(crate) fn held<T>(&self, work: impl FnOnce(&Held<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        self.set_paused(true);
        let held =
            Held { vm: self, kvm: &self.kvm, memory: &self.memory, board: &self.board, probe: self.probe };
        let result = work(&held);
        self.set_paused(*paused);
        result
    }

    /// Waits until no vCPU has anything to do, but no longer than `most`. Whether that came to be.
    pub(crate) fn wait_idle(&self, most: Duration) -> Result<bool, Error> {
        const PAUSE: Duration = Duration::from_millis(5);
        let deadline = Instant::now() + most;
        loop {
            if self.held(|held| held.vcpus(&[]))?.iter().all(VcpuState::is_halted) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            thread::sleep(PAUSE);
        }
    }

    /// The eight bytes at a guest-physical address.
    ///
    /// # Errors
    /// There is no memory.
    pub fn peek(&self, address: u64) -> Result<u64, Error> {
        let read = self.memory.read_obj(GuestAddress(address));
        read.map_err(|error| Error::GuestMemory { what: "what was to be read", reason: error.to_string() })
    }

    /// Writes eight bytes at a guest-physical address.
    ///
    /// # Errors
    /// There is no memory.
    pub fn poke(&self, address: u64, value: u64) -> Result<(), Error> {
        memory::write(&self.memory, "what was to be written", address, &value.to_le_bytes())
    }

    /// What the guest's kernel printed.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// The exits so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What the machine is and did so far.
    pub fn report(&self) -> Report {
        let mut report = Report {
            vcpus: self.vcpus.len(),
            memory: self.memory.iter().map(GuestMemoryRegion::len).sum(),
            hardware: self.probe.hardware,
            instruction: self.probe.instruction,
            exits: self.stats.exits().map(|(name, count)| (name.into(), count)).collect(),
            devices: self.board.virtio().map(|device| device.report()).collect(),
            ..Report::default()
        };
        report.count_process();
        report
    }

    /// Where the first vCPU was, if the machine was booted with a profile.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_deref()
    }

    /// What the probe found about the KVM that it runs on.
    pub fn probe(&self) -> Probe {
        self.probe
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.stop();
        self.debugger = None;
        for vcpu in &mut self.vcpus {
            if let Some(thread) = vcpu.thread.take() {
                let _ = thread.join();
            }
        }
        if let Some(sampler) = self.sampler.take() {
            let _ = sampler.join();
        }
        self.devices.clear();
    }
}

/// A machine whose vCPUs are held, for whoever wants to look at all of it.
pub(crate) struct Held<'a> {
    vm: &'a Vm,
    pub(crate) kvm: &'a VmFd,
    pub(crate) memory: &'a GuestMemoryMmap,
    pub(crate) board: &'a Board,
    pub(crate) probe: Probe,
}

impl Held<'_> {
    /// The state of each vCPU. Each reads its own, for its descriptor belongs to its thread; that it answers shows that it is
    /// out of the guest.
    pub(crate) fn vcpus(&self, msrs: &[u32]) -> Result<Vec<VcpuState>, Error> {
        let msrs: Arc<[u32]> = msrs.into();
        let answers: Vec<_> = self.vm.vcpus.iter().map(|vcpu| vcpu.control.ask_state(msrs.clone())).collect();
        // A thread that ended takes its end of the channel along.
        answers.into_iter().map(|answer| answer.recv().unwrap_or_else(|_| Err(self.vm.ended()))).collect()
    }
}
