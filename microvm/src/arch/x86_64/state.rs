//! What KVM knows of a machine that is held still: each vCPU, the interrupt controllers, the timer, the clock.
//!
//! Memory and our own devices are not KVM's; [`crate::snapshot`] adds them.

use std::time::Duration;

use kvm_bindings::{
    CpuId, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_MP_STATE_HALTED,
    KVM_MP_STATE_UNINITIALIZED, Msrs, kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_irqchip,
    kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_pit_state2, kvm_regs, kvm_sregs, kvm_vcpu_events,
    kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{VcpuFd, VmFd};
use vm_memory::GuestMemoryMmap;
use zerocopy::IntoBytes;

use crate::kvm::Kvm;
use crate::snapshot::record::{Malformed, Reader, Writer};
use crate::{Error, sys};

use super::{cpu, paging, quirks};

/// The time stamp counter (SDM vol. 4, table 2-2).
const MSR_IA32_TSC: u32 = 0x10;

/// MSRs that some KVMs give but do not take back. Each is one that a guest here never writes.
///
/// 0x3a, IA32_FEATURE_CONTROL: firmware's switch for VMX and SGX, which these guests do not have.
const OPTIONAL_MSRS: [u32; 1] = [0x3a];

/// One vCPU.
#[derive(Debug)]
pub(crate) struct VcpuState {
    cpuid: Vec<kvm_cpuid_entry2>,
    tsc_khz: u32,
    mp: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xcrs: kvm_xcrs,
    /// 4 KiB are all there is: what needs more (AMX) a process must ask for by arch_prctl(2), and we do not.
    xsave: kvm_xsave,
    debug: kvm_debugregs,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

impl VcpuState {
    /// Reads the state of a vCPU that is out of the guest, by an exit that is done with: KVM_RUN has returned EINTR
    /// (api.rst, 4.10: before that, an access to a device may be half done inside KVM).
    pub(crate) fn save(vcpu: &VcpuFd, msrs: &[u32]) -> Result<Self, Error> {
        // The local APIC's pending interrupts change the events, which therefore come last.
        Ok(Self {
            cpuid: vcpu
                .get_cpuid2(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
                .map_err(Error::kvm("KVM_GET_CPUID2"))?
                .as_slice()
                .to_vec(),
            tsc_khz: vcpu.get_tsc_khz().map_err(Error::kvm("KVM_GET_TSC_KHZ"))?,
            mp: vcpu.get_mp_state().map_err(Error::kvm("KVM_GET_MP_STATE"))?,
            regs: vcpu.get_regs().map_err(Error::kvm("KVM_GET_REGS"))?,
            sregs: vcpu.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?,
            xcrs: vcpu.get_xcrs().map_err(Error::kvm("KVM_GET_XCRS"))?,
            xsave: vcpu.get_xsave().map_err(Error::kvm("KVM_GET_XSAVE"))?,
            debug: vcpu.get_debug_regs().map_err(Error::kvm("KVM_GET_DEBUGREGS"))?,
            lapic: vcpu.get_lapic().map_err(Error::kvm("KVM_GET_LAPIC"))?,
            msrs: get_msrs(vcpu, msrs)?,
            events: vcpu.get_vcpu_events().map_err(Error::kvm("KVM_GET_VCPU_EVENTS"))?,
        })
    }

    /// Puts the state into a new vCPU. What the CPU is comes first (KVM checks the rest against it); control registers
    /// before the extended state whose size they decide; the local APIC before MSRs, whose deadline timer it holds.
    pub(crate) fn restore(&self, vcpu: &VcpuFd) -> Result<(), Error> {
        let cpuid =
            CpuId::from_entries(&self.cpuid).map_err(|_| Error::KvmLacks { what: "so many CPUID leaves" })?;
        vcpu.set_cpuid2(&cpuid).map_err(Error::kvm("KVM_SET_CPUID2"))?;
        if vcpu.get_tsc_khz().ok() != Some(self.tsc_khz) {
            vcpu.set_tsc_khz(self.tsc_khz).map_err(Error::kvm("KVM_SET_TSC_KHZ"))?;
        }
        let mut sregs = self.sregs;
        quirks::task_register(&mut sregs.tr);
        vcpu.set_sregs(&sregs).map_err(Error::kvm("KVM_SET_SREGS"))?;
        vcpu.set_xcrs(&self.xcrs).map_err(Error::kvm("KVM_SET_XCRS"))?;
        sys::set_xsave(vcpu, &self.xsave).map_err(Error::kvm("KVM_SET_XSAVE"))?;
        vcpu.set_regs(&self.regs).map_err(Error::kvm("KVM_SET_REGS"))?;
        vcpu.set_debug_regs(&self.debug).map_err(Error::kvm("KVM_SET_DEBUGREGS"))?;
        vcpu.set_lapic(&self.lapic).map_err(Error::kvm("KVM_SET_LAPIC"))?;
        set_msrs(vcpu, &self.msrs)?;
        vcpu.set_vcpu_events(&self.events).map_err(Error::kvm("KVM_SET_VCPU_EVENTS"))?;
        vcpu.set_mp_state(self.mp).map_err(Error::kvm("KVM_SET_MP_STATE"))
    }

    /// Whether it waits for an interrupt (HLT), or for its start.
    pub(crate) fn is_halted(&self) -> bool {
        matches!(self.mp.mp_state, KVM_MP_STATE_HALTED | KVM_MP_STATE_UNINITIALIZED)
    }

    /// Whether a program, not the kernel, is at this instruction. The privilege level is in the stack segment (APM vol. 2, section
    /// 4.7.5).
    pub(crate) fn is_at(&self, address: u64) -> bool {
        const USER: u8 = 3;
        self.sregs.ss.dpl == USER && self.regs.rip == address
    }

    pub(crate) fn stack_pointer(&self) -> u64 {
        self.regs.rsp
    }

    /// Where a virtual address is in guest-physical memory.
    pub(crate) fn translate(&self, memory: &GuestMemoryMmap, address: u64) -> Option<u64> {
        paging::translate(memory, self.sregs.cr3, self.sregs.cr4, address)
    }

    /// Lets the time stamp counter go forward, as if the CPU had stood still for a moment.
    pub(crate) fn advance(&mut self, by: Duration) {
        let ticks = (by.as_nanos() * u128::from(self.tsc_khz) / 1_000_000) as u64;
        for msr in self.msrs.iter_mut().filter(|msr| msr.index == MSR_IA32_TSC) {
            msr.data = msr.data.wrapping_add(ticks);
        }
    }

    pub(crate) fn write(&self, record: &mut Writer) {
        record.bytes(self.cpuid.as_bytes());
        record.value(&self.tsc_khz);
        record.value(&self.mp);
        record.value(&self.regs);
        record.value(&self.sregs);
        record.value(&self.xcrs);
        record.value(&self.xsave);
        record.value(&self.debug);
        record.value(&self.lapic);
        record.bytes(self.msrs.as_bytes());
        record.value(&self.events);
    }

    pub(crate) fn read(record: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            cpuid: record.list()?,
            tsc_khz: record.value()?,
            mp: record.value()?,
            regs: record.value()?,
            sregs: record.value()?,
            xcrs: record.value()?,
            xsave: record.value()?,
            debug: record.value()?,
            lapic: record.value()?,
            msrs: record.list()?,
            events: record.value()?,
        })
    }
}

/// The numbers of the MSRs that make up a vCPU's state, as this KVM has it.
pub(crate) fn msr_numbers() -> Result<Vec<u32>, Error> {
    Ok(Kvm::open()?.msr_index_list()?.as_slice().to_vec())
}

/// Reads MSRs, and leaves out those that this vCPU does not have: the list is that of the whole machine.
fn get_msrs(vcpu: &VcpuFd, numbers: &[u32]) -> Result<Vec<kvm_msr_entry>, Error> {
    let mut found = Vec::with_capacity(numbers.len());
    let mut rest = numbers;
    while !rest.is_empty() {
        let entries: Vec<_> =
            rest.iter().map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
        let mut msrs =
            Msrs::from_entries(&entries).map_err(|_| Error::KvmLacks { what: "room for so many MSRs" })?;
        // Reading stops at the first that is not there (api.rst, 4.18).
        let got = vcpu.get_msrs(&mut msrs).map_err(Error::kvm("KVM_GET_MSRS"))?;
        found.extend_from_slice(&msrs.as_slice()[..got]);
        rest = rest.get(got + 1..).unwrap_or_default();
    }
    Ok(found)
}

fn set_msrs(vcpu: &VcpuFd, msrs: &[kvm_msr_entry]) -> Result<(), Error> {
    let mut rest = msrs;
    while !rest.is_empty() {
        let entries =
            Msrs::from_entries(rest).map_err(|_| Error::KvmLacks { what: "room for so many MSRs" })?;
        // Writing stops at the first that is refused (api.rst, 4.19).
        let set = vcpu.set_msrs(&entries).map_err(Error::kvm("KVM_SET_MSRS"))?;
        match rest.get(set) {
            None => break,
            Some(refused) if OPTIONAL_MSRS.contains(&refused.index) => rest = &rest[set + 1..],
            Some(refused) => {
                let reason = format!("this KVM refuses MSR {:#x}", refused.index);
                return Err(Error::Device { device: "vCPU", reason });
            }
        }
    }
    Ok(())
}

/// What all vCPUs share.
#[derive(Debug)]
pub(crate) struct ChipState {
    irqchips: [kvm_irqchip; 3],
    pit: kvm_pit_state2,
    clock: kvm_clock_data,
}

impl ChipState {
    /// Reads the chips of a machine none of whose vCPUs runs.
    pub(crate) fn save(vm: &VmFd) -> Result<Self, Error> {
        let mut irqchips = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC]
            .map(|chip_id| kvm_irqchip { chip_id, ..Default::default() });
        for chip in &mut irqchips {
            vm.get_irqchip(chip).map_err(Error::kvm("KVM_GET_IRQCHIP"))?;
        }
        let pit = vm.get_pit2().map_err(Error::kvm("KVM_GET_PIT2"))?;
        let mut clock = vm.get_clock().map_err(Error::kvm("KVM_GET_CLOCK"))?;
        // The guest's clock goes on from where it stood; the flags would have KVM add the time in between.
        clock.flags = 0;
        Ok(Self { irqchips, pit, clock })
    }

    /// Lets the guest's clock go forward, as if the machine had stood still for a moment.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.clock.clock = self.clock.clock.wrapping_add(by.as_nanos() as u64);
    }

    /// Puts the state into the chips of a new machine.
    pub(crate) fn restore(&self, vm: &VmFd) -> Result<(), Error> {
        for chip in &self.irqchips {
            vm.set_irqchip(chip).map_err(Error::kvm("KVM_SET_IRQCHIP"))?;
        }
        vm.set_pit2(&self.pit).map_err(Error::kvm("KVM_SET_PIT2"))?;
        vm.set_clock(&self.clock).map_err(Error::kvm("KVM_SET_CLOCK"))
    }

    pub(crate) fn write(&self, record: &mut Writer) {
        self.irqchips.iter().for_each(|chip| record.value(chip));
        record.value(&self.pit);
        record.value(&self.clock);
    }

    pub(crate) fn read(record: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            irqchips: [record.value()?, record.value()?, record.value()?],
            pit: record.value()?,
            clock: record.value()?,
        })
    }
}

/// What must be the same on the CPU that a snapshot is restored on: all CPUID leaves that KVM can give a guest, but for what
/// tells on which of the host's CPUs it was asked. A guest looks at them once, when it boots.
pub(crate) fn cpu_identity(kvm: &Kvm) -> Result<Vec<u8>, Error> {
    let mut cpuid = kvm.supported_cpuid()?;
    // As the first of one: the parts that number the CPU are the same then.
    cpu::adapt_cpuid(&mut cpuid, 0, 1);
    // Leaf 0x8000001e (AMD's topology) has the host's APIC id, too.
    let leaves: Vec<_> =
        cpuid.as_slice().iter().filter(|leaf| leaf.function != 0x8000_001e).copied().collect();
    Ok(leaves.as_bytes().to_vec())
}
