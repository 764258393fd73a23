use lesson::kvm::{Kvm, Memory, show};

fn main() -> std::io::Result<()> {
    let kvm = Kvm::open()?;
    let vm = kvm.create_vm()?;
    let memory = Memory::new(4096)?;
    vm.set_memory(&memory, 0x1000)?;
    let vcpu = vm.create_vcpu()?;
    vcpu.start_at(0x1000)?;
    show(vcpu.run()?)
}
