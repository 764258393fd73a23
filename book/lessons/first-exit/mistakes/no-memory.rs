use lesson::kvm::{Kvm, Memory, show};

fn main() -> std::io::Result<()> {
    let program = std::fs::read("/lesson/guest")?;
    let kvm = Kvm::open()?;
    let vm = kvm.create_vm()?;
    let mut memory = Memory::new(4096)?;
    memory.bytes()[..program.len()].copy_from_slice(&program);
    let vcpu = vm.create_vcpu()?;
    vcpu.start_at(0x1000)?;
    show(vcpu.run()?)
}
