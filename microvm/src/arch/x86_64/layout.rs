//! Every address and number of the machine, each with its reason.
//!
//! ```text
//!  guest-physical memory                         I/O ports
//!  0x0000_0000 ┌──────────────────────────┐      0x020, 0x0a0  interrupt controllers (in KVM)
//!              │ GDT, zero page, page     │      0x040..0x044  timer (in KVM)
//!              │ tables, command line     │      0x060..0x065  keyboard controller: only its reset
//!  0x0009_fc00 ├──────────────────────────┤      0x300, 0x304  boot timer, list of renewals
//!              │ reserved: ACPI tables    │      0x3f8..0x400  serial console
//!  0x0010_0000 ├──────────────────────────┤      0x600..0x602  ACPI sleep registers: power-off
//!              │ RAM: kernel at 16 MiB,   │
//!              │ initramfs at the end     │
//!  0xc000_0000 ├──────────────────────────┤
//!              │ no RAM here: devices     │      0xd000_0000 virtio-mmio, 0xfec0_0000 I/O APIC,
//!              │                          │      0xfee0_0000 local APICs, 0xfffb_c000 KVM's own pages
//!  0x1_0000_0000 ├────────────────────────┤
//!              │ RAM beyond 3 GiB         │
//!              └──────────────────────────┘
//! ```

/// The size of a page, and of a page table.
pub const PAGE: u64 = 4096;

// ---- the first MiB: what the VMM puts there before the first instruction ----

/// The segment descriptors at entry. Page 0 is free: there is no BIOS to have left an interrupt table there.
pub const GDT: u64 = 0x500;

/// The PVH start info and, behind it, its memory map.
pub const PVH_START_INFO: u64 = 0x6000;

/// The zero page (`struct boot_params`, 4 KiB; Documentation/arch/x86/zero-page.rst).
pub const ZERO_PAGE: u64 = 0x7000;

/// Top of the stack at entry: 64-bit boot promises none, but a kernel that faults early needs one to say so.
pub const BOOT_STACK: u64 = 0x8ff0;

/// The page tables at entry, one page each: PML4, one page-directory-pointer table, one page directory.
pub const PAGE_TABLES: u64 = 0x9000;

/// The probe's micro-guest (see [`super::probe`]); free for the kernel afterwards.
pub const PROBE_CODE: u64 = 0xc000;

/// The kernel command line.
pub const COMMAND_LINE: u64 = 0x20000;

/// The longest command line, its NUL included: COMMAND_LINE_SIZE in Linux (arch/x86/include/asm/setup.h).
pub const COMMAND_LINE_MAX: usize = 2048;

/// End of the RAM below 1 MiB that the kernel may use; a PC keeps its extended BIOS data area behind it.
pub const LOW_RAM_END: u64 = 0x9fc00;

/// The ACPI tables, the RSDP first: the kernel is told the address, and would also find it by scanning
/// 0xe0000..0x100000 as ACPI 6.5, section 5.2.5.1, prescribes.
pub const ACPI: u64 = 0xe0000;

/// End of the room for ACPI tables.
pub const ACPI_END: u64 = 0x100000;

/// RAM proper begins at 1 MiB.
pub const HIGH_RAM: u64 = 0x100000;

/// Where a kernel without an opinion goes, and the alignment it asks for (CONFIG_PHYSICAL_ALIGN's usual value).
pub const KERNEL_ALIGN: u64 = 0x1000000;

/// The initramfs must end below 2 GiB: `initrd_addr_max` of the boot protocol (Documentation/arch/x86/boot.rst).
pub const INITRAMFS_END_MAX: u64 = 0x8000_0000;

// ---- the hole below 4 GiB ----

/// From here to 4 GiB there is no RAM, because the local and I/O APIC and KVM's own pages have their places at its
/// end. It begins at 3 GiB, where PCs have it, though the devices would need far less: stock kernels are used to it.
pub const HOLE: u64 = 0xc000_0000;

/// End of the hole: RAM continues here.
pub const HOLE_END: u64 = 0x1_0000_0000;

/// The first virtio-mmio window; the others follow.
pub const VIRTIO: u64 = 0xd000_0000;

/// The size of a virtio-mmio window: one page, although virtio 1.2, section 4.2.2, needs only 0x100 and the
/// configuration space, so that each could be given to a process of its own.
pub const VIRTIO_SIZE: u64 = 0x1000;

/// Where QueueNotify lies in a virtio-mmio window (virtio 1.2, section 4.2.2).
pub const VIRTIO_NOTIFY: u64 = 0x50;

/// The interrupts of the virtio devices, in order. All are lines that the old interrupt controllers have too, so that a
/// guest without an I/O APIC gets them (see [`super::quirks`]); 0 (timer), 1, 2 (cascade), 3, 4 (serial), 8 and 13 are
/// left to whom a PC gave them.
pub const VIRTIO_IRQS: [u32; 9] = [5, 6, 7, 9, 10, 11, 12, 14, 15];

/// The I/O APIC (in KVM, which puts it here: arch/x86/kvm/ioapic.h).
pub const IO_APIC: u32 = 0xfec0_0000;

/// The local APICs: the architectural default (SDM vol. 3A, section 11.4.1).
pub const LOCAL_APIC: u32 = 0xfee0_0000;

/// Three pages that KVM needs on Intel processors for real mode (KVM_SET_TSS_ADDR). The page below them is
/// KVM_SET_IDENTITY_MAP_ADDR's default, so that call is saved.
pub const KVM_TSS: u64 = 0xfffb_d000;

// ---- I/O ports ----

/// The serial port COM1, its length, and its interrupt.
pub const SERIAL: u64 = 0x3f8;
/// Registers of a 16550 UART.
pub const SERIAL_SIZE: u64 = 8;
/// COM1's interrupt line.
pub const SERIAL_IRQ: u32 = 4;

/// The keyboard controller's command port; 0xfe written to it pulses the reset line, as Linux's `reboot=k` does.
pub const I8042_COMMAND: u64 = 0x64;
/// The command that resets.
pub const I8042_RESET: u8 = 0xfe;

/// ACPI's sleep control register (ACPI 6.5, section 4.8.3.7); the status register follows.
pub const ACPI_SLEEP: u64 = 0x600;
/// Both sleep registers.
pub const ACPI_SLEEP_SIZE: u64 = 2;
/// The sleep type that `\_S5` names for power-off; any number does that AML and the device agree on.
pub const ACPI_S5: u8 = 5;

/// The port of the probe's micro-guest: the one that PC firmware shows its progress codes on.
pub const PROBE_PORT: u16 = 0x80;

// ---- limits ----

/// Most vCPUs of a VM.
pub const MAX_VCPUS: u8 = 8;

/// The RAM of a machine with `bytes` of it: one range, or two around the hole.
pub fn ram(bytes: u64) -> Vec<(u64, u64)> {
    if bytes <= HOLE { vec![(0, bytes)] } else { vec![(0, HOLE), (HOLE_END, bytes - HOLE)] }
}

/// The memory map for the kernel: (start, length, is it usable RAM).
// ANCHOR: memory_map
pub fn memory_map(bytes: u64) -> Vec<(u64, u64, bool)> {
    let mut map = vec![(0, LOW_RAM_END, true), (LOW_RAM_END, HIGH_RAM - LOW_RAM_END, false)];
    for (start, len) in ram(bytes) {
        let end = start + len;
        let start = start.max(HIGH_RAM);
        if end > start {
            map.push((start, end - start, true));
        }
    }
    map
}
// ANCHOR_END: memory_map

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_below_one_mib_overlaps() {
        let mut ranges = [
            (GDT, 5 * 8),
            (PVH_START_INFO, 0x1000),
            (ZERO_PAGE, PAGE),
            (BOOT_STACK - 0xff0, 0xff0),
            (PAGE_TABLES, 3 * PAGE),
            (PROBE_CODE, PAGE),
            (COMMAND_LINE, COMMAND_LINE_MAX as u64),
            (LOW_RAM_END, ACPI - LOW_RAM_END),
            (ACPI, ACPI_END - ACPI),
        ];
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
    }

    #[test]
    fn nothing_in_the_hole_overlaps() {
        let windows = [
            (VIRTIO, VIRTIO_SIZE * VIRTIO_IRQS.len() as u64),
            (u64::from(IO_APIC), PAGE),
            (u64::from(LOCAL_APIC), PAGE),
            (KVM_TSS - PAGE, 4 * PAGE),
        ];
        assert!(windows[0].0 >= HOLE);
        for pair in windows.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
        assert!(windows[3].0 + windows[3].1 <= HOLE_END);
    }

    #[test]
    fn memory_above_three_gib_goes_behind_the_hole() {
        assert_eq!(ram(64 << 20), [(0, 64 << 20)]);
        assert_eq!(ram(HOLE), [(0, HOLE)]);
        assert_eq!(ram(HOLE + PAGE), [(0, HOLE), (HOLE_END, PAGE)]);
    }

    #[test]
    fn the_memory_map_hides_what_lies_between_low_ram_and_one_mib() {
        assert_eq!(
            memory_map(64 << 20),
            [(0, LOW_RAM_END, true), (LOW_RAM_END, 0x60400, false), (HIGH_RAM, (64 << 20) - HIGH_RAM, true)]
        );
        assert_eq!(memory_map(HOLE + PAGE).last(), Some(&(HOLE_END, PAGE, true)));
    }
}
