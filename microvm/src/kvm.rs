//! KVM: opening it, and making a virtual machine with its interrupt controllers.

use kvm_bindings::{KVM_API_VERSION, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::{Cap, VmFd};

use crate::Error;
use crate::arch::layout;

/// `/dev/kvm`, opened and found fit.
#[derive(Debug)]
pub struct Kvm {
    fd: kvm_ioctls::Kvm,
}

impl Kvm {
    /// Opens `/dev/kvm`. Whether KVM works is found out by using it: no CPU flag tells (a nested or para-virtualised KVM
    /// shows none).
    ///
    /// # Errors
    /// No device, no permission, or a KVM that is too old.
    pub fn open() -> Result<Self, Error> {
        let fd = kvm_ioctls::Kvm::new().map_err(|error| Error::OpenKvm { source: error.into() })?;
        // "Applications should refuse to run if KVM_GET_API_VERSION returns a value other than 12"
        // (Documentation/virt/kvm/api.rst, 4.1).
        if fd.get_api_version() != KVM_API_VERSION as i32 {
            return Err(Error::KvmLacks { what: "API version 12" });
        }
        // The youngest of all that we use (Linux 4.13), so the others (irqchip, PIT, irqfd, ioeventfd) are there too.
        if !fd.check_extension(Cap::ImmediateExit) {
            return Err(Error::KvmLacks { what: "KVM_CAP_IMMEDIATE_EXIT" });
        }
        Ok(Self { fd })
    }

    /// Makes a virtual machine without anything in it yet. First it gets its memory ([`crate::memory::register`]), then its chips
    /// ([`make_chips`]): to change the list of memory, KVM waits until nobody reads the old one any more (SRCU), and the list of
    /// chips, which is guarded in the same way, has it wait for 4 to 10 ms where that was changed a moment ago; the other way
    /// around it takes 0.1 ms.
    ///
    /// # Errors
    /// The ioctl that failed.
    pub fn create_vm(&self) -> Result<VmFd, Error> {
        loop {
            match self.fd.create_vm() {
                // KVM_CREATE_VM gives up where a signal is pending; nothing is lost by trying again.
                Err(error) if error.errno() == nix::libc::EINTR => {}
                result => return result.map_err(Error::kvm("KVM_CREATE_VM")),
            }
        }
    }

    /// The CPUID that this KVM can give a guest.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn supported_cpuid(&self) -> Result<kvm_bindings::CpuId, Error> {
        self.fd
            .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(Error::kvm("KVM_GET_SUPPORTED_CPUID"))
    }

    /// The numbers of the MSRs that a vCPU's state consists of.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn msr_index_list(&self) -> Result<kvm_bindings::MsrList, Error> {
        self.fd.get_msr_index_list().map_err(Error::kvm("KVM_GET_MSR_INDEX_LIST"))
    }
}

/// Gives a virtual machine its interrupt controllers and its timer, after its memory and before its vCPUs.
///
/// # Errors
/// The ioctl that failed.
// ANCHOR: make_chips
pub fn make_chips(vm: &VmFd) -> Result<(), Error> {
    vm.set_tss_address(layout::KVM_TSS as usize).map_err(Error::kvm("KVM_SET_TSS_ADDR"))?;
    // The two 8259 controllers, the I/O APIC, and a local APIC for each vCPU made from now on.
    vm.create_irq_chip().map_err(Error::kvm("KVM_CREATE_IRQCHIP"))?;
    // The 8254 timer: kernels calibrate their other clocks by it. Its speaker port (0x61) as well: the calibration
    // gates and reads channel 2 through it.
    let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    vm.create_pit2(pit).map_err(Error::kvm("KVM_CREATE_PIT2"))?;
    Ok(())
}
// ANCHOR_END: make_chips
