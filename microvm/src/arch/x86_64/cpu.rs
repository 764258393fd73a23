//! The CPU at the kernel's first instruction: what it says it is (CPUID), its segments, page tables and registers.
//!
//! Two states are built here, one for each way of entering Linux:
//! - 64-bit boot (Documentation/arch/x86/boot.rst, "64-bit boot protocol"): long mode, the low memory mapped one to one,
//!   RSI = the zero page. This is the default: the kernel skips all its 16- and 32-bit code.
//! - PVH (xen: docs/misc/pvh.pandoc): 32-bit protected mode without paging, EBX = the start info.

use kvm_bindings::{CpuId, Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::GuestMemoryMmap;

use crate::{Error, memory};

use super::layout;

/// How the kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 64-bit Linux boot at this physical address.
    Linux64(u64),
    /// PVH at this physical address.
    Pvh(u32),
}

// ---- CPUID ----

/// Makes the CPUID of vCPU `index` of `count` from what KVM supports.
pub fn adapt_cpuid(cpuid: &mut CpuId, index: u8, count: u8) {
    // Bits of an APIC id that number the vCPUs.
    let id_bits = u32::from(count).next_power_of_two().trailing_zeros();
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            1 => {
                // ECX 24: the local APIC's timer can take a TSC deadline; KVM leaves the bit to the VMM, which knows that
                // there is a local APIC (api.rst, 4.46). ECX 31: a hypervisor is present.
                entry.ecx |= 1 << 24 | 1 << 31;
                // EBX: initial APIC id, number of logical processors.
                entry.ebx = entry.ebx & 0xffff | u32::from(index) << 24 | u32::from(count) << 16;
                // EDX 28: the package has more than one logical processor.
                entry.edx = if count > 1 { entry.edx | 1 << 28 } else { entry.edx & !(1 << 28) };
            }
            // Topology: one thread a core, all vCPUs as cores of one package.
            0xb | 0x1f => {
                entry.edx = index.into();
                (entry.eax, entry.ebx, entry.ecx) = match entry.index {
                    0 => (0, 1, 1 << 8),
                    1 => (id_bits, count.into(), 2 << 8 | 1),
                    other => (0, 0, other),
                };
            }
            _ => {}
        }
    }
}

/// Gives the vCPU its CPUID and the MSRs that the kernel expects firmware to have set.
///
/// # Errors
/// The ioctl failed.
pub fn set_identity(vcpu: &VcpuFd, mut cpuid: CpuId, index: u8, count: u8) -> Result<(), Error> {
    const IA32_MISC_ENABLE: u32 = 0x1a0;
    const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
    adapt_cpuid(&mut cpuid, index, count);
    vcpu.set_cpuid2(&cpuid).map_err(Error::kvm("KVM_SET_CPUID2"))?;
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let msrs = Msrs::from_entries(&[
        // Fast string operations: the kernel's memcpy looks at this bit.
        entry(IA32_MISC_ENABLE, 1),
        // MTRRs on, and all memory write-back: else a kernel may think that there is no cacheable memory.
        entry(IA32_MTRR_DEF_TYPE, 1 << 11 | 6),
    ])
    .map_err(|_| Error::KvmLacks { what: "room for two MSRs in KVM_SET_MSRS" })?;
    let set = vcpu.set_msrs(&msrs).map_err(Error::kvm("KVM_SET_MSRS"))?;
    if set != 2 {
        return Err(Error::KvmLacks { what: "IA32_MISC_ENABLE or IA32_MTRR_DEF_TYPE" });
    }
    // The local APIC is left as KVM resets it: LINT0 of the first vCPU takes the old controllers' interrupts (ExtINT), as
    // firmware would set it (KVM_X86_QUIRK_LINT0_REENABLED, api.rst, 7.x). The others begin by INIT and SIPI, sent by the first.
    Ok(())
}

// ---- segments ----

/// A flat segment descriptor (SDM vol. 3A, section 3.4.5): base 0, limit 4 GiB, and these access bits.
const fn descriptor(access: u8, flags: u8) -> u64 {
    0x000f_0000_0000_ffff | (access as u64) << 40 | (flags as u64) << 52
}

/// Entries 0 and 1 empty, 2 code, 3 data, 4 task state: the selectors 0x10 and 0x18 are __BOOT_CS and __BOOT_DS, which the
/// 64-bit boot protocol demands.
fn descriptors(entry: Entry) -> [u64; 5] {
    // Access 0x9b: present, code, readable, accessed; 0x93: present, data, writable, accessed; 0x8b: present, busy TSS.
    // Flags 0xa: 4 KiB granularity and long mode; 0xc: granularity and 32 bits.
    let code = match entry {
        Entry::Linux64(_) => descriptor(0x9b, 0xa),
        Entry::Pvh(_) => descriptor(0x9b, 0xc),
    };
    // The task segment ends after the 104 bytes that SDM vol. 3A, section 7.2.1, gives it.
    [0, 0, code, descriptor(0x93, 0xc), 0x0000_8b00_0000_0067]
}

/// The same descriptor as KVM's unpacked form.
fn segment(descriptor: u64, index: u16) -> kvm_segment {
    let bits = |at: u32, len: u32| ((descriptor >> at) & ((1 << len) - 1)) as u8;
    let granular = bits(55, 1);
    let limit = (descriptor & 0xffff | (descriptor >> 32) & 0xf_0000) as u32;
    kvm_segment {
        base: (descriptor >> 16) & 0xff_ffff | (descriptor >> 32) & 0xff00_0000,
        limit: if granular == 1 { limit << 12 | 0xfff } else { limit },
        selector: index * 8,
        type_: bits(40, 4),
        s: bits(44, 1),
        dpl: bits(45, 2),
        present: bits(47, 1),
        avl: bits(52, 1),
        l: bits(53, 1),
        db: bits(54, 1),
        g: granular,
        unusable: 0,
        padding: 0,
    }
}

// ---- page tables ----

const PRESENT_WRITABLE: u64 = 0b11;
const HUGE: u64 = 1 << 7;

/// Maps the first GiB one to one in pages of 2 MiB: the kernel, the zero page and the command line lie in it, as the 64-bit
/// boot protocol demands; the kernel soon makes tables of its own. (1-GiB pages would save a table, but not every CPU has them.)
// ANCHOR: page_tables
fn write_page_tables(guest: &GuestMemoryMmap) -> Result<(), Error> {
    let [pml4, pdpt, pd] = [0, 1, 2].map(|table| layout::PAGE_TABLES + table * layout::PAGE);
    memory::write(guest, "PML4", pml4, &(pdpt | PRESENT_WRITABLE).to_le_bytes())?;
    memory::write(guest, "page-directory-pointer table", pdpt, &(pd | PRESENT_WRITABLE).to_le_bytes())?;
    let directory: Vec<u8> =
        (0..512u64).flat_map(|i| (i << 21 | PRESENT_WRITABLE | HUGE).to_le_bytes()).collect();
    memory::write(guest, "page directory", pd, &directory)
}
// ANCHOR_END: page_tables

// ---- registers ----

/// CR0: protection, and the bit that says that the FPU is a 387 (which hardware holds at 1).
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The one bit of RFLAGS that is always set.
const RFLAGS: u64 = 1 << 1;

/// Writes descriptors and page tables, and sets the control and segment registers of the first vCPU for this entry.
///
/// # Errors
/// An ioctl failed, or there is too little memory for the tables.
pub fn set_mode(vcpu: &VcpuFd, guest: &GuestMemoryMmap, entry: Entry) -> Result<(), Error> {
    let descriptors = descriptors(entry);
    let bytes: Vec<u8> = descriptors.iter().flat_map(|d| d.to_le_bytes()).collect();
    memory::write(guest, "segment descriptors", layout::GDT, &bytes)?;
    if let Entry::Linux64(_) = entry {
        write_page_tables(guest)?;
    }
    let mut sregs = vcpu.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?;
    apply_mode(&mut sregs, &descriptors, entry);
    vcpu.set_sregs(&sregs).map_err(Error::kvm("KVM_SET_SREGS"))
}

// ANCHOR: mode
fn apply_mode(sregs: &mut kvm_sregs, descriptors: &[u64; 5], entry: Entry) {
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = (size_of_val(descriptors) - 1) as u16;
    // No interrupt table: a fault before the kernel has set its own is a triple fault, and reported as one.
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cs = segment(descriptors[2], 2);
    let data = segment(descriptors[3], 3);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = segment(descriptors[4], 4);
    match entry {
        Entry::Linux64(_) => {
            sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
            sregs.cr3 = layout::PAGE_TABLES;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
        }
        Entry::Pvh(_) => {
            (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (CR0_PE | CR0_ET, 0, 0, 0);
        }
    }
}
// ANCHOR_END: mode

/// Points the vCPU at the kernel's entry.
///
/// # Errors
/// The ioctl failed.
// ANCHOR: entry
pub fn set_entry(vcpu: &VcpuFd, entry: Entry) -> Result<(), Error> {
    let regs = match entry {
        Entry::Linux64(rip) => kvm_regs {
            rip,
            rsi: layout::ZERO_PAGE,
            rsp: layout::BOOT_STACK,
            rbp: layout::BOOT_STACK,
            rflags: RFLAGS,
            ..Default::default()
        },
        Entry::Pvh(rip) => {
            kvm_regs { rip: rip.into(), rbx: layout::PVH_START_INFO, rflags: RFLAGS, ..Default::default() }
        }
    };
    vcpu.set_regs(&regs).map_err(Error::kvm("KVM_SET_REGS"))
}
// ANCHOR_END: entry

/// Points the vCPU at code of our own, in the mode set before.
///
/// # Errors
/// The ioctl failed.
pub fn set_code(vcpu: &VcpuFd, rip: u64, rcx: u64) -> Result<(), Error> {
    let regs = kvm_regs { rip, rcx, rsp: layout::BOOT_STACK, rflags: RFLAGS, ..Default::default() };
    vcpu.set_regs(&regs).map_err(Error::kvm("KVM_SET_REGS"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::kvm_cpuid_entry2;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn the_page_tables_map_each_of_512_huge_pages_to_itself() {
        let guest = memory::allocate(4).unwrap();
        write_page_tables(&guest).unwrap();
        let read = |at: u64| guest.read_obj::<u64>(GuestAddress(at)).unwrap();
        for address in [0, layout::ZERO_PAGE, layout::KERNEL_ALIGN, (1 << 30) - 1] {
            let pdpt = read(layout::PAGE_TABLES + (address >> 39) * 8);
            let directory = read((pdpt & !0xfff) + ((address >> 30) & 511) * 8);
            let entry = read((directory & !0xfff) + ((address >> 21) & 511) * 8);
            assert_eq!([pdpt & 0xfff, directory & 0xfff, entry & 0xfff], [3, 3, 0x83]);
            assert_eq!((entry & !0xfff) | (address & 0x1f_ffff), address);
        }
    }

    #[test]
    fn the_unpacked_segments_say_what_the_descriptors_say() {
        let code = segment(descriptors(Entry::Linux64(0))[2], 2);
        assert_eq!((code.selector, code.base, code.limit), (0x10, 0, 0xffff_ffff));
        assert_eq!((code.type_, code.s, code.l, code.db, code.present), (0xb, 1, 1, 0, 1));
        let code = segment(descriptors(Entry::Pvh(0))[2], 2);
        assert_eq!((code.l, code.db), (0, 1));
        let data = segment(descriptors(Entry::Linux64(0))[3], 3);
        assert_eq!((data.selector, data.type_, data.s, data.limit), (0x18, 3, 1, 0xffff_ffff));
        let task = segment(descriptors(Entry::Linux64(0))[4], 4);
        assert_eq!((task.selector, task.type_, task.s, task.limit, task.g), (0x20, 0xb, 0, 103, 0));
    }

    #[test]
    fn each_vcpu_learns_its_own_number_and_that_there_is_a_hypervisor() {
        let leaf = |function, index| kvm_cpuid_entry2 { function, index, ..Default::default() };
        let mut cpuid = CpuId::from_entries(&[leaf(1, 0), leaf(0xb, 0), leaf(0xb, 1), leaf(0xb, 2)]).unwrap();
        adapt_cpuid(&mut cpuid, 2, 3);
        let [one, threads, cores, end] = cpuid.as_slice() else { panic!() };
        assert_eq!(one.ebx, 2 << 24 | 3 << 16);
        assert_eq!(one.ecx, 1 << 31 | 1 << 24);
        assert_eq!((threads.eax, threads.ebx, threads.edx), (0, 1, 2));
        assert_eq!((cores.eax, cores.ebx, cores.ecx, cores.edx), (2, 3, 0x201, 2));
        assert_eq!((end.eax, end.ebx, end.ecx, end.edx), (0, 0, 2, 2));
    }
}
