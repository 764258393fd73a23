//! The first exit: a virtual machine in six steps.

#[allow(unused_imports)]
use lesson::kvm::{Exit, Kvm, Memory, show};

/// Where the guest's memory begins, and its program in it.
#[allow(dead_code)]
const START: u64 = 0x1000;

fn main() -> std::io::Result<()> {
    let program = std::fs::read("/lesson/guest")?;
    println!("the guest's program: {program:02x?}");

    // 1. Open KVM. 2. Make a machine.
    let kvm = Kvm::open()?;
    let _vm = kvm.create_vm()?;

    // TODO 3: give it memory, and put the program there.

    // TODO 4: make a processor that starts at the program.

    // TODO 5: run it, and show each exit. TODO 6: again, until it halts.
    Ok(())
}
