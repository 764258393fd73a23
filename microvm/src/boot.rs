//! Booting a machine: the whole story, from `/dev/kvm` to the guest's first instruction, as one list of steps.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use lab_clock::{Mark, Timeline};
use vm_memory::GuestMemoryMmap;

use crate::arch::acpi::{self, VirtioWindow};
use crate::arch::cpu::{self, Entry};
use crate::arch::elf::Loaded;
use crate::arch::protocol::Handover;
use crate::arch::quirks::Quirks;
use crate::arch::{layout, probe};
use crate::board::Board;
use crate::devices::serial::Console;
use crate::devices::virtio::VirtioDevice;
use crate::explain::{Explain, Placed};
use crate::initramfs::Initramfs;
use crate::kvm::{self, Kvm};
use crate::vm::{AtEnd, Parts, Vm};
use crate::{Error, board, loader, memory};

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
    /// Tell the guest of its devices on the command line (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES), and of nothing but further
    /// vCPUs by ACPI, whose interpreter a lean kernel's boot is better off without; and Linux' does not start in a kernel
    /// without PCI (its default handlers include one for PCI's configuration space: drivers/acpi/acpica/evhandler.c). Stock
    /// kernels take devices from ACPI only.
    pub plain: bool,
    /// Enter a kernel that offers it by PVH rather than by the 64-bit boot protocol.
    pub pvh: bool,
    /// Look where the first vCPU is, every millisecond.
    pub profile: bool,
    /// Where the machine is explained, as it runs.
    pub explain: Option<Explain>,
    /// Where a debugger may connect. The guest waits for it before its first instruction.
    pub gdb: Option<UnixListener>,
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

    kvm::make_chips(&vm)?;
    // The first vCPU is made early, because it runs the probe, and the probe decides what the kernel is told.
    let mut first = vm.create_vcpu(0).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
    // CPUID first: KVM refuses to change it once a vCPU has run.
    let cpuid = kvm.supported_cpuid()?;
    cpu::set_identity(&first, cpuid.clone(), 0, config.vcpus)?;
    cpu::set_mode(&first, &guest, Entry::Linux64(0))?;
    let kernel = loader::load(&guest, &config.kernel, config.kernel_cache.as_deref(), config.memory_mib)?;
    let initramfs = write_initramfs(&guest, config.initramfs, kernel.end, config.memory_mib)?;
    let probe = probe::run(&mut first, &guest)?;
    let quirks = Quirks::of(probe, config.plain, config.vcpus);
    let vcpus = quirks.vcpus(config.vcpus);

    let windows = board::windows(config.devices.len() + board::own_devices(probe));
    let entry = entry(kernel, config.pvh);
    let handover = Handover {
        ram: u64::from(config.memory_mib) << 20,
        command_line: write_command_line(&guest, quirks, &windows, &config.command_line)?,
        initramfs,
        acpi: quirks.acpi(),
    };
    if handover.acpi {
        acpi::write(&guest, vcpus, quirks.devices(&windows))?;
    }
    handover.write(&guest, entry)?;
    if let Some(explain) = &config.explain {
        let devices: Vec<u32> = config.devices.iter().map(|device| device.id()).collect();
        let (initramfs, acpi, ram) = (handover.initramfs, handover.acpi, handover.ram);
        explain.memory(Placed { kernel_end: kernel.end, initramfs, acpi, ram }, &windows, &devices);
    }
    timeline.mark(Mark::KernelLoaded);

    let mut board = Board::new(&vm, &config.console, timeline)?;
    for device in config.devices {
        board.plug(&vm, &guest, device)?;
    }
    board.plug_own(&vm, &guest, probe)?;
    timeline.mark(Mark::DevicesReady);

    let machine = board.machine(&guest, timeline, config.profile, config.explain.clone());
    if let Entry::Pvh(_) = entry {
        cpu::set_mode(&first, &guest, entry)?;
    }
    cpu::set_entry(&first, entry)?;
    if let Some(explain) = &config.explain {
        explain.registers(&first);
    }
    let mut all = vec![board::vcpu(first, 0, &machine)?];
    for index in 1..vcpus {
        // The others wait in KVM until the first starts them, as on real hardware.
        let other = vm.create_vcpu(index.into()).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
        cpu::set_identity(&other, cpuid.clone(), index, config.vcpus)?;
        all.push(board::vcpu(other, index, &machine)?);
    }
    timeline.mark(Mark::VcpuReady);

    if config.gdb.is_some() {
        for vcpu in &all {
            vcpu.control.set_debugged(true);
        }
    }
    // Each vCPU gets a thread, and the first one enters the guest: Mark::FirstRun.
    let mut machine = Vm::start(Parts {
        vm,
        memory: guest,
        vcpus: all,
        machine,
        board,
        console: config.console,
        probe,
        at_end: config.at_end,
        paused: false,
    })?;
    if let Some(listener) = config.gdb {
        machine.debug(listener)?;
    }
    Ok(machine)
}
// ANCHOR_END: boot

fn check(config: &Config) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::Device { device: "machine", reason });
    if !(1..=layout::MAX_VCPUS).contains(&config.vcpus) {
        return refuse(format!("{} vCPUs; from 1 to {} are possible", config.vcpus, layout::MAX_VCPUS));
    }
    // One window is ours: see `Board::plug_own`.
    let most = layout::VIRTIO_IRQS.len() - 1;
    if config.devices.len() > most {
        let asked = config.devices.len();
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
