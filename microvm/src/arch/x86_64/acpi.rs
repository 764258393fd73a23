//! The ACPI tables: how the kernel learns of its CPUs, its interrupt controller, its virtio devices and its power switch.
//!
//! ```text
//!  RSDP ─▶ XSDT ─▶ FADT ─▶ DSDT   the devices, in AML
//!               └▶ MADT           local APICs, I/O APIC
//! ```
//!
//! Choices:
//! - *Hardware-reduced* ACPI (ACPI 6.5, section 4.1): no PM timer, no fixed power button, no SCI interrupt, no SMI to leave
//!   legacy mode by. Each would be a device to emulate and a dozen port accesses at boot; a virtual machine needs none.
//! - Power-off is the sleep control register, reset is the keyboard controller's 0xfe.
//! - virtio devices are `LNRO0005` with a memory window and an interrupt (QEMU's and Linux' convention): stock kernels take
//!   no devices from the command line, but all of them read ACPI.
//! - The I/O APIC's inputs are the old interrupt numbers one to one, so no interrupt overrides are needed. All are edges:
//!   KVM's irqfd raises and lowers the line in one go.
//! - No HPET and no RTC: the kernel has the TSC, the local APIC's timer and kvm-clock.

use acpi_tables::aml::{Device, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate, Scope};
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};
use vm_memory::GuestMemoryMmap;

use crate::{Error, memory};

use super::layout;

const OEM: [u8; 6] = *b"TWOWAL";
const TABLE: [u8; 8] = *b"MICROVM ";
const REVISION: u32 = 1;

/// A virtio-mmio device, as a kernel is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioWindow {
    /// Guest-physical address of its window of [`layout::VIRTIO_SIZE`] bytes.
    pub base: u64,
    /// Its interrupt.
    pub irq: u32,
}

/// Writes the tables, the RSDP at [`layout::ACPI`]. Without `devices` only the processors and the I/O APIC are described: a
/// kernel reads that table first, and then finds nothing that its interpreter could start with.
///
/// # Errors
/// Where there is no memory for them.
pub fn write(guest: &GuestMemoryMmap, vcpus: u8, devices: Option<&[VirtioWindow]>) -> Result<(), Error> {
    memory::write(guest, "ACPI tables", layout::ACPI, &build(vcpus, devices))
}

/// All tables as they lie in memory from [`layout::ACPI`] on.
fn build(vcpus: u8, devices: Option<&[VirtioWindow]>) -> Vec<u8> {
    // The RSDP comes first but points to what follows, so its place is kept.
    let mut bytes = vec![0; Rsdp::len()];
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    if let Some(devices) = devices {
        let dsdt = append(&mut bytes, &dsdt(devices));
        xsdt.add_entry(append(&mut bytes, &fadt(dsdt)));
    }
    xsdt.add_entry(append(&mut bytes, &madt(vcpus)));
    let xsdt = append(&mut bytes, &xsdt);
    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    bytes[..rsdp.len()].copy_from_slice(&rsdp);
    debug_assert!(bytes.len() as u64 <= layout::ACPI_END - layout::ACPI);
    bytes
}

/// Appends a table at the next multiple of 16; returns its address.
fn append(bytes: &mut Vec<u8>, table: &dyn Aml) -> u64 {
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    let at = layout::ACPI + bytes.len() as u64;
    table.to_aml_bytes(bytes);
    at
}

fn dsdt(devices: &[VirtioWindow]) -> Sdt {
    let mut code = Vec::new();
    // \_S5: what to write to the sleep control register for power-off (ACPI 6.5, section 7.4.2.6).
    Name::new("_S5_".into(), &Package::new(vec![&layout::ACPI_S5])).to_aml_bytes(&mut code);
    for (number, device) in devices.iter().enumerate() {
        virtio_device(number as u8, *device, &mut code);
    }
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM, TABLE, REVISION);
    table.append_slice(&code);
    table
}

/// About 71 bytes of AML.
fn virtio_device(number: u8, window: VirtioWindow, code: &mut Vec<u8>) {
    let name = format!("VR{number:02}");
    let memory = Memory32Fixed::new(true, window.base as u32, layout::VIRTIO_SIZE as u32);
    // consumer, edge-triggered, active high, not shared.
    let interrupt = Interrupt::new(true, true, false, false, window.irq);
    Scope::new(
        "_SB_".into(),
        vec![&Device::new(
            name.as_str().into(),
            vec![
                &Name::new("_HID".into(), &"LNRO0005"),
                &Name::new("_UID".into(), &number),
                // DMA is coherent; Linux refuses a device without _CCA only on other architectures, but it is true.
                &Name::new("_CCA".into(), &aml::ONE),
                &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&memory, &interrupt])),
            ],
        )],
    )
    .to_aml_bytes(code);
}

fn fadt(dsdt: u64) -> impl Aml {
    /// IAPC_BOOT_ARCH (ACPI 6.5, table 5.11): no VGA, no CMOS clock; and, by bit 1 clear, no keyboard controller to probe.
    const VGA_NOT_PRESENT: u16 = 1 << 2;
    const CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;
    let io_byte = |port| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port);
    let mut table = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup);
    table.iapc_boot_arch = (VGA_NOT_PRESENT | CMOS_RTC_NOT_PRESENT).into();
    table.reset_reg = io_byte(layout::I8042_COMMAND);
    table.reset_value = layout::I8042_RESET;
    table.sleep_control_reg = io_byte(layout::ACPI_SLEEP);
    table.sleep_status_reg = io_byte(layout::ACPI_SLEEP + 1);
    table.finalize()
}

fn madt(vcpus: u8) -> MADT {
    let mut table = MADT::new(OEM, TABLE, REVISION, LocalInterruptController::Address(layout::LOCAL_APIC));
    for index in 0..vcpus {
        table.add_structure(ProcessorLocalApic::new(index, index, EnabledStatus::Enabled));
    }
    // KVM's I/O APIC: id 0 behind the CPUs' would clash on old buses only; inputs 0 to 23 are interrupts 0 to 23.
    table.add_structure(IoApic::new(vcpus, layout::IO_APIC, 0));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: [VirtioWindow; 2] =
        [VirtioWindow { base: 0xd000_0000, irq: 5 }, VirtioWindow { base: 0xd000_1000, irq: 6 }];

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// The table at a guest address, cut to its own length.
    fn table(bytes: &[u8], address: u64) -> &[u8] {
        let at = (address - layout::ACPI) as usize;
        let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        &bytes[at..at + len]
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn every_table_is_reached_from_the_first_and_sums_to_zero() {
        let bytes = build(4, Some(&DEVICES));
        assert_eq!(&bytes[..8], b"RSD PTR ");
        assert_eq!((sum(&bytes[..20]), sum(&bytes[..36])), (0, 0));
        let xsdt = table(&bytes, u64_at(&bytes, 24));
        let [fadt, madt] = [36, 44].map(|at| table(&bytes, u64_at(xsdt, at)));
        let dsdt = table(&bytes, u64_at(fadt, 140));
        for (signature, table) in [(b"XSDT", xsdt), (b"FACP", fadt), (b"APIC", madt), (b"DSDT", dsdt)] {
            assert_eq!(&table[..4], signature);
            assert_eq!(sum(table), 0, "{}", String::from_utf8_lossy(signature));
        }
    }

    #[test]
    fn without_devices_the_processors_are_all_there_is() {
        let bytes = build(2, None);
        let xsdt = table(&bytes, u64_at(&bytes, 24));
        assert_eq!(xsdt.len(), 36 + 8);
        assert_eq!(&table(&bytes, u64_at(xsdt, 36))[..4], b"APIC");
    }

    #[test]
    fn the_madt_has_a_local_apic_for_each_vcpu() {
        let mut bytes = Vec::new();
        madt(3).to_aml_bytes(&mut bytes);
        let mut rest = &bytes[44..];
        let mut kinds = Vec::new();
        while let [kind, len, ..] = *rest {
            kinds.push(kind);
            rest = &rest[usize::from(len)..];
        }
        assert_eq!(kinds, [0, 0, 0, 1]);
    }

    #[test]
    fn a_device_names_its_window_and_its_interrupt() {
        let mut code = Vec::new();
        virtio_device(7, DEVICES[1], &mut code);
        let window = [&[0x86, 9, 0, 1][..], &0xd000_1000u32.to_le_bytes(), &0x1000u32.to_le_bytes()].concat();
        let interrupt = [&[0x89, 6, 0, 0b0011, 1][..], &6u32.to_le_bytes()].concat();
        for part in [&b"VR07"[..], b"LNRO0005", &window, &interrupt] {
            assert!(code.windows(part.len()).any(|found| found == part), "{part:x?} in {code:x?}");
        }
    }

    #[test]
    fn the_largest_machine_has_room_for_its_tables() {
        let windows = vec![DEVICES[0]; layout::VIRTIO_IRQS.len()];
        assert!(build(layout::MAX_VCPUS, Some(&windows)).len() as u64 <= layout::ACPI_END - layout::ACPI);
    }
}
