//! The grader's virtual machine: small, with memory and one processor, for a guest that the student's code builds or serves.
//! The student's program never holds it: it fills a file of memory and names registers, or answers exits over a pipe.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::Error;
use super::error::Context as _;

/// The machine's memory in MiB: the least that the monitor makes.
const MIB: u32 = 4;

/// The size of the machine's memory.
pub const SIZE: u64 = (MIB as u64) << 20;

/// A guest of a few instructions runs no longer, interpreted or not.
const PATIENCE: Duration = Duration::from_secs(3);

/// A machine that does not run.
pub struct Machine {
    vcpu: VcpuFd,
    memory: GuestMemoryMmap,
    _vm: VmFd,
}

/// Why the guest stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It wrote a byte to a port.
    Out(u16, u8),
    /// It reads a byte from a port.
    In(u16),
    /// It touched an address where there is no memory.
    Memory(u64),
    /// It waits for an interrupt.
    Halt,
    /// A triple fault.
    Shutdown,
    /// It went on and on.
    Endless,
    /// Something else, in KVM's words.
    Other(String),
}

/// The registers that a student sets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registers {
    /// Protection and paging.
    pub cr0: u64,
    /// Where the topmost page table is.
    pub cr3: u64,
    /// Physical address extension, and more.
    pub cr4: u64,
    /// Long mode.
    pub efer: u64,
    /// The next instruction.
    pub rip: u64,
    /// The stack.
    pub rsp: u64,
    /// Where Linux finds its zero page.
    pub rsi: u64,
}

impl Registers {
    /// Reads `registers cr0=1 cr3=2 …`. What is not named is 0.
    pub fn parse(answer: &str) -> Option<Self> {
        let mut registers = Self::default();
        for pair in answer.strip_prefix("registers ")?.split(' ') {
            let (name, value) = pair.split_once('=')?;
            let value = value.parse().ok()?;
            match name {
                "cr0" => registers.cr0 = value,
                "cr3" => registers.cr3 = value,
                "cr4" => registers.cr4 = value,
                "efer" => registers.efer = value,
                "rip" => registers.rip = value,
                "rsp" => registers.rsp = value,
                "rsi" => registers.rsi = value,
                _ => {}
            }
        }
        Some(registers)
    }
}

impl Machine {
    /// A machine whose memory is what lies in a file, or zero.
    ///
    /// # Errors
    /// KVM cannot make it.
    pub fn new(content: Option<&Path>) -> Result<Self, Error> {
        let kvm = microvm::kvm::Kvm::open()?;
        // Without interrupt controllers: so `hlt` is an exit to us and no wait in the kernel.
        let vm = Kvm::new().and_then(|kvm| kvm.create_vm()).context("create", "a virtual machine")?;
        vm.set_tss_address(microvm::arch::layout::KVM_TSS as usize).context("set up", "a virtual machine")?;
        let memory = microvm::memory::allocate(MIB)?;
        if let Some(path) = content {
            let bytes = super::compile::read_at_most(path, SIZE)?;
            microvm::memory::write(&memory, "the student's memory", 0, &bytes)?;
        }
        microvm::memory::register(&vm, &memory)?;
        let vcpu = vm.create_vcpu(0).context("create", "a vCPU")?;
        microvm::arch::cpu::set_identity(&vcpu, kvm.supported_cpuid()?, 0, 1)?;
        Ok(Self { vcpu, memory, _vm: vm })
    }

    /// Puts bytes into the memory.
    ///
    /// # Errors
    /// There is no memory.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        Ok(microvm::memory::write(&self.memory, "the grader's guest", address, bytes)?)
    }

    /// A little-endian number in memory; none beyond its end.
    pub fn number(&self, address: u64) -> Option<u64> {
        self.memory.read_obj(GuestAddress(address)).ok()
    }

    /// 64-bit segments, and the student's control registers. KVM may refuse what no processor would take: then its word.
    ///
    /// # Errors
    /// KVM's word.
    pub fn set_long_mode(&self, registers: Registers) -> Result<(), String> {
        let set = || -> Result<(), kvm_ioctls::Error> {
            let mut special = self.vcpu.get_sregs()?;
            let code = flat(8, 0xb, 1);
            let data = flat(16, 3, 0);
            special.cs = code;
            (special.ds, special.es, special.ss) = (data, data, data);
            control(&mut special, registers);
            self.vcpu.set_sregs(&special)?;
            self.set_registers(registers.rip, registers.rsp, registers.rsi)
        };
        set().map_err(|error| error.to_string())
    }

    /// 16-bit mode, as after reset, from this address below 64 KiB on.
    ///
    /// # Errors
    /// KVM's word.
    pub fn set_real_mode(&self, rip: u64) -> Result<(), String> {
        let set = || -> Result<(), kvm_ioctls::Error> {
            let mut special = self.vcpu.get_sregs()?;
            (special.cs.base, special.cs.selector) = (0, 0);
            self.vcpu.set_sregs(&special)?;
            self.set_registers(rip, 0x8000, 0)
        };
        set().map_err(|error| error.to_string())
    }

    /// 64-bit mode as Linux's boot protocol has it, with the monitor's own tables; `rsi` is where the zero page lies.
    ///
    /// # Errors
    /// There is no memory for the tables; KVM's word is the inner result.
    pub fn start_linux(&self, entry: u64, rsi: u64) -> Result<Result<(), String>, Error> {
        use microvm::arch::cpu::{Entry, set_mode};
        set_mode(&self.vcpu, &self.memory, Entry::Linux64(entry))?;
        Ok(self.set_registers(entry, 0x8000, rsi).map_err(|error| error.to_string()))
    }

    fn set_registers(&self, rip: u64, rsp: u64, rsi: u64) -> Result<(), kvm_ioctls::Error> {
        self.vcpu.set_regs(&kvm_regs { rip, rsp, rsi, rflags: 2, ..Default::default() })
    }

    /// The general registers, as KVM has them.
    pub fn registers(&self) -> kvm_regs {
        self.vcpu.get_regs().unwrap_or_default()
    }

    /// Runs until the guest needs something. A byte that it reads is `answer`'s.
    pub fn run(&mut self, mut answer: impl FnMut(u16) -> u8) -> Exit {
        let _watch = Watch::begin();
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoOut(port, data)) => {
                    return Exit::Out(port, data.first().copied().unwrap_or(0));
                }
                Ok(VcpuExit::IoIn(port, data)) => {
                    data.fill(answer(port));
                    return Exit::In(port);
                }
                Ok(VcpuExit::MmioRead(address, _) | VcpuExit::MmioWrite(address, _)) => {
                    return Exit::Memory(address);
                }
                Ok(VcpuExit::Hlt) => return Exit::Halt,
                Ok(VcpuExit::Shutdown) => return Exit::Shutdown,
                Ok(VcpuExit::Intr) => return Exit::Endless,
                Ok(other) => return Exit::Other(format!("{other:?}")),
                Err(error) if error.errno() == nix::libc::EINTR => return Exit::Endless,
                Err(error) if error.errno() == nix::libc::EAGAIN => {}
                Err(error) => return Exit::Other(error.to_string()),
            }
        }
    }
}

fn control(special: &mut kvm_sregs, registers: Registers) {
    special.cr0 = registers.cr0;
    special.cr3 = registers.cr3;
    special.cr4 = registers.cr4;
    special.efer = registers.efer;
}

/// A segment over everything (SDM vol. 3A, section 3.4.5); `long` makes code 64-bit.
fn flat(selector: u16, kind: u8, long: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: 1 - long,
        s: 1,
        l: long,
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

/// While it lives, a thread that sees to it that KVM_RUN comes back: by a signal without effect but EINTR.
struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watch {
    fn begin() -> Self {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};
            let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
            crate::sys::handle_signal(Signal::SIGUSR2, &action);
        });
        let over = Arc::new(AtomicBool::new(false));
        let (seen, target) = (Arc::clone(&over), nix::sys::pthread::pthread_self());
        let thread = thread::spawn(move || {
            thread::park_timeout(PATIENCE);
            // Again and again: one that arrives just before KVM_RUN would be lost.
            while !seen.load(Ordering::Acquire) {
                let _ = nix::sys::pthread::pthread_kill(target, nix::sys::signal::Signal::SIGUSR2);
                thread::park_timeout(Duration::from_millis(5));
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

extern "C" fn nothing(_: nix::libc::c_int) {}
