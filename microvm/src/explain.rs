//! Explaining a machine as it runs: what its memory holds, how its first vCPU begins, and each exit as it happens.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::arch::acpi::VirtioWindow;
use crate::arch::layout;

/// Where the explanation goes. Cheap to copy.
#[derive(Clone)]
pub struct Explain {
    to: Arc<Mutex<Box<dyn Write + Send>>>,
    began: Instant,
}

impl fmt::Debug for Explain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Explain")
    }
}

/// What lies where in guest-physical memory, as the loader placed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    /// The kernel's last byte lies before this.
    pub(crate) kernel_end: u64,
    /// Where the initramfs begins, and its length.
    pub(crate) initramfs: Option<(u64, u64)>,
    /// Whether ACPI's tables were written.
    pub(crate) acpi: bool,
    /// Memory in bytes.
    pub(crate) ram: u64,
}

impl Explain {
    /// Explanations for this writer.
    pub fn new(to: Box<dyn Write + Send>) -> Self {
        Self { to: Arc::new(Mutex::new(to)), began: Instant::now() }
    }

    fn line(&self, text: &str) {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        // An explanation that nobody reads any more is no reason to stop the machine.
        let _ = writeln!(to, "{text}").and_then(|()| to.flush());
    }

    /// That the machine is made of a snapshot, and of which sort.
    pub(crate) fn restored(&self, path: &Path, in_program: bool) {
        self.line(&format!("made of the snapshot {}:", path.display()));
        self.line(if in_program {
            "  a fork of this very command, taken at its program's first instruction: where its pages are is the same in all \
             machines of it; random numbers, time of day and host name were renewed in memory"
        } else {
            "  of this kind of machine, taken before its process executed anything: PID 1 renews random numbers, time of day and \
             names, then executes the command"
        });
    }

    /// The memory map.
    pub(crate) fn memory(&self, placed: Placed, windows: &[VirtioWindow], devices: &[u32]) {
        let mut map = vec![
            (layout::GDT, layout::GDT + 0x20, "segment descriptors (GDT)".to_owned()),
            (
                layout::ZERO_PAGE,
                layout::ZERO_PAGE + layout::PAGE,
                "zero page: what the boot protocol tells".into(),
            ),
            (layout::PAGE_TABLES, layout::PROBE_CODE, "page tables: the first GiB as it is".into()),
            (
                layout::COMMAND_LINE,
                layout::COMMAND_LINE + layout::COMMAND_LINE_MAX as u64,
                "kernel command line".into(),
            ),
            (layout::HIGH_RAM, placed.kernel_end, "kernel".into()),
            (0, placed.ram.min(layout::HOLE), "memory".into()),
        ];
        if placed.ram > layout::HOLE {
            let end = layout::HOLE_END + placed.ram - layout::HOLE;
            map.push((layout::HOLE_END, end, "memory beyond the hole for devices".into()));
        }
        if placed.acpi {
            map.push((layout::ACPI, layout::ACPI_END, "ACPI tables".into()));
        }
        if let Some((start, len)) = placed.initramfs {
            map.push((start, start + len, "initramfs: PID 1".into()));
        }
        for (window, id) in windows.iter().zip(devices) {
            let what = format!("virtio device: {}, interrupt {}", device(*id), window.irq);
            map.push((window.base, window.base + layout::VIRTIO_SIZE, what));
        }
        map.push((
            layout::IO_APIC.into(),
            u64::from(layout::IO_APIC) + layout::PAGE,
            "I/O APIC (in KVM)".into(),
        ));
        map.push((
            layout::LOCAL_APIC.into(),
            u64::from(layout::LOCAL_APIC) + layout::PAGE,
            "local APIC (in KVM)".into(),
        ));
        // Of two that begin together, the larger holds the other.
        map.sort_by_key(|(start, end, _)| (*start, std::cmp::Reverse(*end)));
        self.line("guest-physical memory:");
        for (start, end, what) in map {
            self.line(&format!(
                "  {start:#012x} … {:#012x}  {:>10}  {what}",
                end.saturating_sub(1),
                size(end - start)
            ));
        }
        self.line("ports:");
        let ports = [
            (layout::I8042_COMMAND, "keyboard controller: reset"),
            (layout::SERIAL, "serial console"),
            (layout::ACPI_SLEEP, "ACPI: power off"),
            (guest_wire::BOOT_TIMER_PORT.into(), "boot timer: marks of the guest's start"),
            (
                guest_wire::RENEWALS_PORT.into(),
                "where the kernel lists what machines of one snapshot must not share",
            ),
        ];
        for (port, what) in ports {
            self.line(&format!("  {port:#06x}  {what}"));
        }
    }

    /// The vCPU's registers before its first instruction.
    pub(crate) fn registers(&self, vcpu: &VcpuFd) {
        let (Ok(regs), Ok(sregs)) = (vcpu.get_regs(), vcpu.get_sregs()) else { return };
        self.line("first registers of vCPU 0:");
        let general = [
            ("rip", regs.rip),
            ("rsi", regs.rsi),
            ("rbx", regs.rbx),
            ("rsp", regs.rsp),
            ("rflags", regs.rflags),
        ];
        let system = [("cr0", sregs.cr0), ("cr3", sregs.cr3), ("cr4", sregs.cr4), ("efer", sregs.efer)];
        for (name, value) in general.into_iter().chain(system) {
            self.line(&format!("  {name:>6} {value:#018x}"));
        }
        let mode = match (sregs.cs.l, sregs.cr0 & 1) {
            (1, _) => "64-bit",
            (_, 1) => "32-bit protected",
            _ => "16-bit real",
        };
        self.line(&format!("      cs {:#06x}, ring {}: {mode} mode", sregs.cs.selector, sregs.cs.dpl));
        self.line("exits:");
    }

    /// An exit that was served.
    pub(crate) fn exit(&self, vcpu: u8, what: fmt::Arguments<'_>) {
        let at = self.began.elapsed().as_secs_f64() * 1e3;
        self.line(&format!("  {at:>12.3} ms  vCPU {vcpu}  {what}"));
    }
}

/// What an exit was about. Data that the guest reads is what it got.
pub(crate) fn describe(exit: &Result<VcpuExit<'_>, kvm_ioctls::Error>) -> Option<String> {
    Some(match exit {
        Ok(VcpuExit::IoOut(port, data)) => format!("port {port:#06x} ← {}{}", hex(data), text(data)),
        Ok(VcpuExit::IoIn(port, data)) => format!("port {port:#06x} → {} byte(s)", data.len()),
        Ok(VcpuExit::MmioWrite(address, data)) => {
            format!("memory {address:#010x} ← {}{}", hex(data), register(*address))
        }
        Ok(VcpuExit::MmioRead(address, data)) => {
            format!("memory {address:#010x} → {} byte(s){}", data.len(), register(*address))
        }
        Ok(VcpuExit::InternalError) => "an instruction that KVM cannot emulate; the VMM does it".into(),
        Ok(VcpuExit::Shutdown) => "triple fault".into(),
        Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => "interrupted".into(),
        // The VMM's own doing, many times a second where it takes samples.
        Err(_) => return None,
        Ok(other) => format!("{other:?}"),
    })
}

/// Registers of a virtio-mmio window by their names (virtio 1.2, section 4.2.2).
fn register(address: u64) -> String {
    let known = [
        (0x000, "MagicValue"),
        (0x004, "Version"),
        (0x008, "DeviceID"),
        (0x010, "DeviceFeatures"),
        (0x014, "DeviceFeaturesSel"),
        (0x020, "DriverFeatures"),
        (0x024, "DriverFeaturesSel"),
        (0x030, "QueueSel"),
        (0x034, "QueueNumMax"),
        (0x038, "QueueNum"),
        (0x044, "QueueReady"),
        (0x050, "QueueNotify"),
        (0x060, "InterruptStatus"),
        (0x064, "InterruptACK"),
        (0x070, "Status"),
        (0x080, "QueueDescLow"),
        (0x084, "QueueDescHigh"),
        (0x090, "QueueDriverLow"),
        (0x094, "QueueDriverHigh"),
        (0x0a0, "QueueDeviceLow"),
        (0x0a4, "QueueDeviceHigh"),
        (0x0fc, "ConfigGeneration"),
    ];
    let Some(offset) = address.checked_sub(layout::VIRTIO) else { return String::new() };
    let (device, offset) = (offset / layout::VIRTIO_SIZE, offset % layout::VIRTIO_SIZE);
    if device >= layout::VIRTIO_IRQS.len() as u64 {
        return String::new();
    }
    let name = known.iter().find(|(at, _)| *at == offset).map_or("configuration", |(_, name)| name);
    format!("  virtio device {device}: {name}")
}

/// What a virtio device is, by its number (virtio 1.2, section 5).
pub(crate) fn device(id: u32) -> &'static str {
    match id {
        1 => "network",
        2 => "block",
        3 => "console",
        4 => "entropy",
        5 => "balloon",
        19 => "socket",
        26 => "file system",
        _ => "other",
    }
}

fn hex(data: &[u8]) -> String {
    let digits = |value: u64| format!("{value:#x}");
    match data {
        [byte] => digits((*byte).into()),
        &[a, b] => digits(u16::from_le_bytes([a, b]).into()),
        &[a, b, c, d] => digits(u32::from_le_bytes([a, b, c, d]).into()),
        data => format!("{data:02x?}"),
    }
}

fn text(data: &[u8]) -> String {
    match data {
        [byte] if byte.is_ascii_graphic() => format!(" '{}'", *byte as char),
        _ => String::new(),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..0x400 => format!("{bytes} B"),
        0x400..0x10_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_told_by_what_they_are_about() {
        let told = |exit| describe(&Ok(exit)).unwrap();
        assert_eq!(told(VcpuExit::IoOut(0x3f8, b"A")), "port 0x03f8 ← 0x41 'A'");
        let status = layout::VIRTIO + layout::VIRTIO_SIZE + 0x70;
        assert!(
            told(VcpuExit::MmioWrite(status, &[0xf, 0, 0, 0])).ends_with("← 0xf  virtio device 1: Status")
        );
        assert!(!told(VcpuExit::MmioRead(layout::LOCAL_APIC.into(), &mut [0; 4])).contains("virtio"));
    }
}
