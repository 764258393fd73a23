//! The board: what is plugged into a machine beside its CPUs and memory, and how each device is wired to KVM.
//!
//! ```text
//!   vCPU thread ── exit ──▶ Bus ──▶ device            a register: the vCPU waits for the answer
//!   guest writes QueueNotify ── KVM_IOEVENTFD ──▶ event loop ──▶ device      the vCPU goes on
//!   device ── KVM_IRQFD ──▶ interrupt controllers in KVM ──▶ vCPU
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_ioctls::{IoEventAddress, VcpuFd, VmFd};
use lab_clock::Timeline;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::Error;
use crate::arch::acpi::VirtioWindow;
use crate::arch::layout;
use crate::arch::probe::Probe;
use crate::bus::{Bus, SharedDevice};
use crate::devices::boot_timer::BootTimer;
use crate::devices::power::{Power, Reset, Sleep};
use crate::devices::renewals::Renewals;
use crate::devices::serial::{Console, Serial};
use crate::devices::virtio::balloon::Balloon;
use crate::devices::virtio::{VirtioDevice, VirtioMmio};
use crate::event_loop::{EventLoop, RunningLoop};
use crate::explain::Explain;
use crate::stats::{Profile, Stats};
use crate::vcpu::{Control, Machine, Vcpu};

/// A machine's devices.
pub(crate) struct Board {
    ports: Bus,
    windows: Bus,
    power: Power,
    serial: Arc<Mutex<Serial>>,
    renewals: Arc<Mutex<Renewals>>,
    boot_timer: Arc<Mutex<BootTimer>>,
    virtio: Vec<Arc<Mutex<VirtioMmio>>>,
    /// The thread that all devices share, and one for each that may wait.
    /// In a lock only so that a board can be shared between threads; there is nothing to wait for.
    event_loops: Mutex<Vec<EventLoop>>,
}

/// The windows and interrupts of so many virtio devices.
pub(crate) fn windows(count: usize) -> Vec<VirtioWindow> {
    (0..)
        .zip(layout::VIRTIO_IRQS)
        .take(count)
        .map(|(number, irq)| VirtioWindow { base: layout::VIRTIO + number * layout::VIRTIO_SIZE, irq })
        .collect()
}

/// How many devices [`Board::plug_own`] plugs in.
pub(crate) fn own_devices(probe: Probe) -> usize {
    usize::from(probe.hardware)
}

impl Board {
    /// A board with the devices on I/O ports, which every machine has.
    pub(crate) fn new(vm: &VmFd, console: &Console, timeline: &Arc<Timeline>) -> Result<Self, Error> {
        let power = Power::default();
        let serial = Serial::new(interrupt(vm, layout::SERIAL_IRQ)?, console.clone());
        let serial = Arc::new(Mutex::new(serial));
        let renewals = Arc::new(Mutex::new(Renewals::default()));
        let boot_timer = Arc::new(Mutex::new(BootTimer::new(timeline.clone())));
        let devices: [(u64, u64, SharedDevice); 5] = [
            (layout::SERIAL, layout::SERIAL_SIZE, serial.clone()),
            (layout::I8042_COMMAND, 1, Arc::new(Mutex::new(Reset::new(power.clone())))),
            (layout::ACPI_SLEEP, layout::ACPI_SLEEP_SIZE, Arc::new(Mutex::new(Sleep::new(power.clone())))),
            (guest_wire::BOOT_TIMER_PORT.into(), 1, boot_timer.clone()),
            (guest_wire::RENEWALS_PORT.into(), 4, renewals.clone()),
        ];
        let mut ports = Bus::new();
        for (base, len, device) in devices {
            ports.insert(base, len, device)?;
        }
        Ok(Self {
            ports,
            windows: Bus::new(),
            power,
            serial,
            renewals,
            boot_timer,
            virtio: Vec::new(),
            event_loops: Mutex::default(),
        })
    }

    /// Puts a virtio device behind the next window. A write to the window's notify register does not come to the VMM's vCPU
    /// thread: KVM turns it into an event for the event loop (KVM_IOEVENTFD), and the guest goes on.
    pub(crate) fn plug(
        &mut self,
        vm: &VmFd,
        guest: &GuestMemoryMmap,
        device: Box<dyn VirtioDevice>,
    ) -> Result<(), Error> {
        let count = self.virtio.len() + 1;
        let Some(window) = windows(count).pop().filter(|_| count <= layout::VIRTIO_IRQS.len()) else {
            let reason = format!("at most {} virtio devices are possible", layout::VIRTIO_IRQS.len());
            return Err(Error::Device { device: "machine", reason });
        };
        let waits = device.waits();
        let transport = VirtioMmio::new(guest.clone(), device, interrupt(vm, window.irq)?)?;
        let notify = IoEventAddress::Mmio(window.base + layout::VIRTIO_NOTIFY);
        for (queue, event) in (0u32..).zip(transport.queue_events()) {
            vm.register_ioevent(event, &notify, queue).map_err(Error::kvm("KVM_IOEVENTFD"))?;
        }
        let event_loops = self.event_loops.get_mut().unwrap_or_else(PoisonError::into_inner);
        if event_loops.is_empty() {
            event_loops.push(EventLoop::new()?);
        }
        let handler = Box::new(transport.back_end());
        if waits {
            let mut own = EventLoop::new()?;
            own.add(handler)?;
            event_loops.push(own);
        } else {
            event_loops[0].add(handler)?;
        }
        let transport = Arc::new(Mutex::new(transport));
        self.windows.insert(window.base, layout::VIRTIO_SIZE, transport.clone())?;
        self.virtio.push(transport);
        Ok(())
    }

    /// Plugs in what the VMM gives every machine of its own accord, behind the devices asked for. A machine whose kernel is
    /// interpreted gets nothing: reporting free pages would cost it more time than the memory is worth.
    pub(crate) fn plug_own(&mut self, vm: &VmFd, guest: &GuestMemoryMmap, probe: Probe) -> Result<(), Error> {
        if own_devices(probe) > 0 {
            self.plug(vm, guest, Box::new(Balloon::new(guest.clone())))?;
        }
        Ok(())
    }

    /// What the vCPU threads need of it.
    pub(crate) fn machine(
        &self,
        guest: &GuestMemoryMmap,
        timeline: &Arc<Timeline>,
        profile: bool,
        explain: Option<Explain>,
    ) -> Machine {
        Machine {
            ports: self.ports.clone(),
            windows: self.windows.clone(),
            memory: guest.clone(),
            power: self.power.clone(),
            stats: Arc::new(Stats::default()),
            profile: profile.then(Arc::<Profile>::default),
            explain,
            timeline: timeline.clone(),
            in_program: false,
        }
    }

    /// Starts the threads that the virtio devices work on, if there are any.
    pub(crate) fn spawn(&mut self) -> Result<Vec<RunningLoop>, Error> {
        let event_loops = self.event_loops.get_mut().unwrap_or_else(PoisonError::into_inner);
        event_loops.drain(..).map(EventLoop::spawn).collect()
    }

    /// The serial port, locked.
    pub(crate) fn serial(&self) -> MutexGuard<'_, Serial> {
        self.serial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the kernel's list of renewals is, locked.
    pub(crate) fn renewals(&self) -> MutexGuard<'_, Renewals> {
        self.renewals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The boot timer, locked.
    pub(crate) fn boot_timer(&self) -> MutexGuard<'_, BootTimer> {
        self.boot_timer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The virtio devices, in the order of their windows, locked.
    pub(crate) fn virtio(&self) -> impl Iterator<Item = MutexGuard<'_, VirtioMmio>> {
        self.virtio.iter().map(|device| device.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An eventfd that raises an interrupt when it is written.
fn interrupt(vm: &VmFd, irq: u32) -> Result<EventFd, Error> {
    let event =
        EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(Error::system("make an interrupt's eventfd"))?;
    vm.register_irqfd(&event, irq).map_err(Error::kvm("KVM_IRQFD"))?;
    Ok(event)
}

/// A vCPU with the handle by which other threads call it out of the guest.
pub(crate) fn vcpu(fd: VcpuFd, index: u8, machine: &Machine) -> Result<Vcpu, Error> {
    let control = Arc::new(Control::new(&fd)?);
    Ok(Vcpu { fd, index, machine: machine.clone(), control })
}
