//! The first exit: a virtual machine in six steps.

use lesson::kvm::{Exit, Kvm, Memory, show};

/// Where the guest's memory begins, and its program in it.
const START: u64 = 0x1000;

fn main() -> std::io::Result<()> {
    let program = std::fs::read("/lesson/guest")?;
    let kvm = Kvm::open()?;
    let vm = kvm.create_vm()?;
    let mut memory = Memory::new(4096)?;
    memory.bytes()[..program.len()].copy_from_slice(&program);
    vm.set_memory(&memory, START)?;
    let vcpu = vm.create_vcpu()?;
    vcpu.start_at(START)?;
    loop {
        let exit = vcpu.run()?;
        show(exit)?;
        if exit == Exit::Halt {
            return Ok(());
        }
    }
}
