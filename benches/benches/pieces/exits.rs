//! What it costs to leave a guest and come back, by what it was left for. The guest is a loop of two instructions in real mode.

use std::hint::black_box;

use criterion::Criterion;
use kvm_bindings::{kvm_regs, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// What one guest does again and again, and what its exit is called.
const GUESTS: [(&str, &[u8]); 4] = [
    // out 0x80, al; jmp back
    ("port write", &[0xe6, 0x80, 0xeb, 0xfc]),
    // in al, 0x80; jmp back
    ("port read", &[0xe4, 0x80, 0xeb, 0xfc]),
    // mov [0x8000], al, where there is no memory; jmp back
    ("memory write", &[0xa2, 0x00, 0x80, 0xeb, 0xfb]),
    // hlt; jmp back. Without an interrupt controller in the kernel, it comes to us.
    ("halt", &[0xf4, 0xeb, 0xfd]),
];

struct Guest {
    vcpu: VcpuFd,
    _vm: VmFd,
    /// Last: it must outlive the machine that uses it.
    _memory: GuestMemoryMmap,
}

impl Guest {
    fn new(program: &[u8]) -> Result<Self, Box<dyn std::error::Error>> {
        let kvm = Kvm::new()?;
        let vm = kvm.create_vm()?;
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0x1000), 0x1000)])?;
        memory.write_slice(program, GuestAddress(0x1000))?;
        let region = memory.find_region(GuestAddress(0x1000)).ok_or("no memory")?;
        let slot = kvm_userspace_memory_region {
            slot: 0,
            guest_phys_addr: 0x1000,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
            flags: 0,
        };
        // SAFETY: the memory is mapped as long as the guest lives, which drops it last.
        unsafe { vm.set_user_memory_region(slot)? };
        let vcpu = vm.create_vcpu(0)?;
        let mut sregs = vcpu.get_sregs()?;
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        (sregs.ds.base, sregs.ds.selector) = (0, 0);
        vcpu.set_sregs(&sregs)?;
        vcpu.set_regs(&kvm_regs { rip: 0x1000, rflags: 2, ..Default::default() })?;
        Ok(Self { vcpu, _vm: vm, _memory: memory })
    }

    /// Runs it to its next exit; what that was.
    fn exit(&mut self) -> Result<&'static str, String> {
        match self.vcpu.run().map_err(|error| error.to_string())? {
            VcpuExit::IoOut(..) => Ok("port write"),
            VcpuExit::IoIn(_, data) => {
                data.fill(0);
                Ok("port read")
            }
            VcpuExit::MmioWrite(..) => Ok("memory write"),
            VcpuExit::Hlt => Ok("halt"),
            other => Err(format!("unexpected exit: {other:?}")),
        }
    }
}

/// Each kind of exit that a monitor serves.
pub fn by_kind(criterion: &mut Criterion) {
    let mut group = super::group(criterion, "exit");
    for (name, program) in GUESTS {
        let tried = Guest::new(program).map_err(|error| error.to_string()).and_then(|mut guest| {
            let seen = guest.exit()?;
            if seen == name { Ok(guest) } else { Err(format!("it left by: {seen}")) }
        });
        match tried {
            Ok(mut guest) => {
                group.bench_function(name, |bencher| bencher.iter(|| black_box(guest.exit())));
            }
            Err(reason) => eprintln!("SKIPPED exit/{name} ({reason})"),
        }
    }
}
