//! The smallest virtual machine: one page of memory, one CPU, seven bytes of program.

use std::error::Error;

use kvm_bindings::{kvm_regs, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Makes the machine and runs it to its end.
///
/// # Errors
/// The step that failed.
pub fn main() -> Result<(), Box<dyn Error>> {
    // 1. Open KVM.
    let kvm = Kvm::new()?;

    // 2. Make a machine: it has no memory and no CPU yet.
    let vm = kvm.create_vm()?;

    // 3. Give it memory: a page of this process, which the guest sees at address 0x1000. In it, the guest's program.
    let start = GuestAddress(0x1000);
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(start, 0x1000)])?;
    let program = [
        0xb0, b'0', // mov al, '0'
        0x04, 0x02, // add al, 2
        0xe6, 0x80, // out 0x80, al    an exit: the machine has no such port
        0xf4, //       hlt             another
    ];
    memory.write_slice(&program, start)?;
    let region = memory.find_region(start).ok_or("no memory at 0x1000")?;
    let slot = kvm_userspace_memory_region {
        slot: 0,
        guest_phys_addr: start.0,
        memory_size: region.len(),
        userspace_addr: region.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: `memory` stays mapped longer than `vm` is used (Documentation/virt/kvm/api.rst, 4.35).
    unsafe { vm.set_user_memory_region(slot)? };

    // 4. Make a CPU. It wakes up as a PC's does, in 16-bit mode; only its start is put elsewhere.
    let mut vcpu = vm.create_vcpu(0)?;
    let mut sregs = vcpu.get_sregs()?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs { rip: start.0, rflags: 2, ..Default::default() })?;

    // 5. Run it until it touches something that it does not have; 6. serve that, and run it again.
    loop {
        match vcpu.run()? {
            VcpuExit::IoOut(0x80, data) => println!("the guest says {}", String::from_utf8_lossy(data)),
            VcpuExit::Hlt => return Ok(()),
            other => return Err(format!("an exit that nobody expected: {other:?}").into()),
        }
    }
}
