//! Booting a machine: the whole story, from `/dev/kvm` to the guest's first instruction, as one list of steps.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use kvm_ioctls::{IoEventAddress, VcpuFd, VmFd};
use lab_clock::{Mark, Timeline};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::arch::acpi::{self, VirtioWindow};
use crate::arch::cpu::{self, Entry};
use crate::arch::elf::Loaded;
use crate::arch::protocol::Handover;
use crate::arch::quirks::Quirks;
use crate::arch::{layout, probe};
use crate::bus::{Bus, SharedDevice};
use crate::devices::boot_timer::BootTimer;
use crate::devices::power::{Power, Reset, Sleep};
use crate::devices::serial::{Console, Serial};
use crate::devices::virtio::{VirtioDevice, VirtioMmio};
use crate::event_loop::EventLoop;
use crate::initramfs::Initramfs;
use crate::kvm::Kvm;
use crate::stats::{Profile, Stats};
use crate::vcpu::{Control, Machine, Vcpu};
use crate::vm::{AtEnd, Parts, Vm};
use crate::{Error, loader, memory};

/// What machine to boot, with what.
pub struct Config {
    /// The kernel: a `vmlinux` or a `bzImage`.
    pub kernel: PathBuf,
    /// The folder where the `vmlinux` of a `bzImage` is kept.
    pub kernel_cache: Option<PathBuf>,
    /// What the kernel's first root file system holds.
    pub initramfs: Initramfs,
    /// Words for the kernel command line, behind our own.
    pub command_line: Vec<String>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// vCPUs.
    pub vcpus: u8,
    /// The virtio devices, in the order in which the guest finds them.
    pub devices: Vec<Box<dyn VirtioDevice>>,
    /// Where the kernel's console output goes.
    pub console: Console,
    /// Tell a guest with one vCPU of its devices on the command line (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES), and of nothing by
    /// ACPI, whose interpreter a lean kernel's boot is better off without; and Linux' does not start in a kernel without PCI
    /// (its default handlers include one for PCI's configuration space: drivers/acpi/acpica/evhandler.c). Stock kernels
    /// take devices from ACPI only.
    pub plain: bool,
    /// Enter a kernel that offers it by PVH rather than by the 64-bit boot protocol.
    pub pvh: bool,
    /// Look where the first vCPU is, every millisecond.
    pub profile: bool,
    /// Called at the machine's end.
    pub at_end: Option<AtEnd>,
    /// Where the steps are marked.
    pub timeline: Arc<Timeline>,
}

/// Boots the machine. Each step is marked on the timeline.
///
/// # Errors
/// The step that failed. Nothing is left behind.
// ANCHOR: boot
pub fn boot(config: Config) -> Result<Vm, Error> {
    let timeline = &config.timeline;
    check(&config)?;

    let kvm = Kvm::open()?;
    timeline.mark(Mark::KvmOpened);

    let vm = kvm.create_vm()?;
    timeline.mark(Mark::VmCreated);

    let guest = memory::allocate(config.memory_mib)?;
    memory::register(&vm, &guest)?;
    timeline.mark(Mark::MemoryReady);

    // The first vCPU is made early, because it runs the probe, and the probe decides what the kernel is told.
    let cpuid = kvm.supported_cpuid()?;
    let mut first = vm.create_vcpu(0).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
    // CPUID first: KVM refuses to change it once a vCPU has run.
    cpu::set_identity(&first, cpuid.clone(), 0, config.vcpus)?;
    cpu::set_mode(&first, &guest, Entry::Linux64(0))?;
    let probe = probe::run(&mut first, &guest)?;
    let quirks = Quirks::of(probe, config.plain, config.vcpus);
    let vcpus = quirks.vcpus(config.vcpus);

    let windows = windows(config.devices.len());
    let kernel = loader::load(&guest, &config.kernel, config.kernel_cache.as_deref(), config.memory_mib)?;
    let entry = entry(kernel, config.pvh);
    let handover = Handover {
        ram: u64::from(config.memory_mib) << 20,
        command_line: write_command_line(&guest, quirks, &windows, &config.command_line)?,
        initramfs: write_initramfs(&guest, config.initramfs, kernel.end, config.memory_mib)?,
        acpi: quirks.acpi(),
    };
    if handover.acpi {
        acpi::write(&guest, vcpus, &windows)?;
    }
    handover.write(&guest, entry)?;
    timeline.mark(Mark::KernelLoaded);

    let power = Power::default();
    let ports = port_devices(&vm, &power, &config.console, timeline)?;
    let (mmio, event_loop) = virtio_devices(&vm, &guest, &windows, config.devices)?;
    timeline.mark(Mark::DevicesReady);

    let machine = Machine {
        ports,
        windows: mmio,
        memory: guest.clone(),
        power,
        stats: Arc::new(Stats::default()),
        profile: config.profile.then(Arc::<Profile>::default),
        timeline: timeline.clone(),
    };
    if let Entry::Pvh(_) = entry {
        cpu::set_mode(&first, &guest, entry)?;
    }
    cpu::set_entry(&first, entry)?;
    let mut all = vec![vcpu(first, 0, &machine)?];
    for index in 1..vcpus {
        // The others wait in KVM until the first starts them, as on real hardware.
        let other = vm.create_vcpu(index.into()).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
        cpu::set_identity(&other, cpuid.clone(), index, config.vcpus)?;
        all.push(vcpu(other, index, &machine)?);
    }
    timeline.mark(Mark::VcpuReady);

    let devices = event_loop.map(EventLoop::spawn).transpose()?;
    // Each vCPU gets a thread, and the first one enters the guest: Mark::FirstRun.
    Vm::start(Parts {
        vm,
        memory: guest,
        vcpus: all,
        machine,
        devices,
        console: config.console,
        probe,
        at_end: config.at_end,
    })
}
// ANCHOR_END: boot

fn check(config: &Config) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::Device { device: "machine", reason });
    if !(1..=layout::MAX_VCPUS).contains(&config.vcpus) {
        return refuse(format!("{} vCPUs; from 1 to {} are possible", config.vcpus, layout::MAX_VCPUS));
    }
    if config.devices.len() > layout::VIRTIO_IRQS.len() {
        let (asked, most) = (config.devices.len(), layout::VIRTIO_IRQS.len());
        return refuse(format!("{asked} virtio devices; at most {most} are possible"));
    }
    Ok(())
}

fn entry(kernel: Loaded, pvh: bool) -> Entry {
    match kernel.pvh_entry {
        Some(address) if pvh => Entry::Pvh(address),
        _ => Entry::Linux64(kernel.entry),
    }
}

fn windows(count: usize) -> Vec<VirtioWindow> {
    (0..)
        .zip(layout::VIRTIO_IRQS)
        .take(count)
        .map(|(number, irq)| VirtioWindow { base: layout::VIRTIO + number * layout::VIRTIO_SIZE, irq })
        .collect()
}

/// What every kernel is told.
const COMMAND_LINE: [&str; 10] = [
    // A panic resets at once, which ends the VM; the reset is the keyboard controller's.
    "panic=-1",
    "reboot=k",
    // The console is for warnings: each character is an exit. "earlyprintk" works from the first instruction on, without a
    // driver, until a driver takes over, if the kernel has one.
    "quiet",
    "earlyprintk=ttyS0",
    "console=ttyS0",
    // There is no PCI bus and no keyboard to look for, and one serial port.
    "pci=off",
    "i8042.noaux",
    "8250.nr_uarts=1",
    // The CPU's random numbers are trusted: a guest has few other sources in its first second.
    "random.trust_cpu=on",
    // Self-tests belong to whoever builds the kernel.
    "cryptomgr.notests",
];

fn write_command_line(
    guest: &GuestMemoryMmap,
    quirks: Quirks,
    windows: &[VirtioWindow],
    own: &[String],
) -> Result<u32, Error> {
    let mut words: Vec<String> = COMMAND_LINE.map(String::from).into();
    words.extend(quirks.command_line(windows));
    // Last, because of two equal words the kernel believes the last.
    words.extend(own.iter().cloned());
    let mut line = words.join(" ").into_bytes();
    let len = line.len() as u32;
    line.push(0);
    if line.len() > layout::COMMAND_LINE_MAX {
        return Err(Error::CommandLine { max: layout::COMMAND_LINE_MAX - 1 });
    }
    memory::write(guest, "kernel command line", layout::COMMAND_LINE, &line)?;
    Ok(len)
}

fn write_initramfs(
    guest: &GuestMemoryMmap,
    initramfs: Initramfs,
    kernel_end: u64,
    mib: u32,
) -> Result<Option<(u64, u64)>, Error> {
    if initramfs.is_empty() {
        return Ok(None);
    }
    let len = initramfs.len();
    let needed = kernel_end + len + (loader::ROOM_MIB << 20);
    let too_small = Error::MemoryTooSmall { mib: mib.into(), needed: needed.div_ceil(1 << 20) };
    let ram = u64::from(mib) << 20;
    match Initramfs::place(len, ram) {
        Some(start) if needed <= ram && start >= kernel_end => {
            initramfs.write(guest, start)?;
            Ok(Some((start, len)))
        }
        _ => Err(too_small),
    }
}

/// An eventfd that raises an interrupt when it is written.
fn interrupt(vm: &VmFd, irq: u32) -> Result<EventFd, Error> {
    let event =
        EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(Error::system("make an interrupt's eventfd"))?;
    vm.register_irqfd(&event, irq).map_err(Error::kvm("KVM_IRQFD"))?;
    Ok(event)
}

fn port_devices(vm: &VmFd, power: &Power, console: &Console, timeline: &Arc<Timeline>) -> Result<Bus, Error> {
    let serial = Serial::new(interrupt(vm, layout::SERIAL_IRQ)?, console.clone());
    let devices: [(u64, u64, SharedDevice); 4] = [
        (layout::SERIAL, layout::SERIAL_SIZE, Arc::new(Mutex::new(serial))),
        (layout::I8042_COMMAND, 1, Arc::new(Mutex::new(Reset::new(power.clone())))),
        (layout::ACPI_SLEEP, layout::ACPI_SLEEP_SIZE, Arc::new(Mutex::new(Sleep::new(power.clone())))),
        (guest_wire::BOOT_TIMER_PORT.into(), 1, Arc::new(Mutex::new(BootTimer::new(timeline.clone())))),
    ];
    let mut ports = Bus::new();
    for (base, len, device) in devices {
        ports.insert(base, len, device)?;
    }
    Ok(ports)
}

/// Puts each device behind its window. A write to a window's notify register does not come to the VMM's vCPU thread: KVM
/// turns it into an event for the event loop (KVM_IOEVENTFD), and the guest goes on.
fn virtio_devices(
    vm: &VmFd,
    guest: &GuestMemoryMmap,
    windows: &[VirtioWindow],
    devices: Vec<Box<dyn VirtioDevice>>,
) -> Result<(Bus, Option<EventLoop>), Error> {
    let mut bus = Bus::new();
    if devices.is_empty() {
        return Ok((bus, None));
    }
    let mut event_loop = EventLoop::new()?;
    for (device, window) in devices.into_iter().zip(windows) {
        let transport = VirtioMmio::new(guest.clone(), device, interrupt(vm, window.irq)?)?;
        let notify = IoEventAddress::Mmio(window.base + layout::VIRTIO_NOTIFY);
        for (queue, event) in (0u32..).zip(transport.queue_events()) {
            vm.register_ioevent(event, &notify, queue).map_err(Error::kvm("KVM_IOEVENTFD"))?;
        }
        event_loop.add(Box::new(transport.back_end()))?;
        bus.insert(window.base, layout::VIRTIO_SIZE, Arc::new(Mutex::new(transport)))?;
    }
    Ok((bus, Some(event_loop)))
}

fn vcpu(fd: VcpuFd, index: u8, machine: &Machine) -> Result<Vcpu, Error> {
    let control = Arc::new(Control::new(&fd)?);
    Ok(Vcpu { fd, index, machine: machine.clone(), control })
}
