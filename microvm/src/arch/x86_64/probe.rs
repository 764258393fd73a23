//! Is there hardware behind this KVM?
//!
//! CPU flags do not tell: a KVM that runs inside a virtual machine may have no VT-x or AMD-V to use and still run guests, by
//! interpreting the guest kernel's instructions one by one. So the probe *times* a micro-guest: a counted loop, in kernel
//! mode, of some hundred instructions. On hardware it takes less than a microsecond beyond the exit; interpreted, hundreds.
//!
//! The micro-guest is the VM's own first vCPU before it gets its real work, so the probe costs a few runs and no VM.

use std::time::{Duration, Instant};

use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_memory::GuestMemoryMmap;

use crate::kvm::{self, Kvm};
use crate::{Error, memory};

use super::cpu::Entry;
use super::{cpu, layout};

/// What the probe found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// Whether the guest's kernel runs on the CPU, rather than being interpreted.
    pub hardware: bool,
    /// What an instruction of a kernel-mode loop costs beyond the exit, in nanoseconds.
    pub instruction: f64,
}

/// Instructions of the timed loop: two an iteration.
const INSTRUCTIONS: u32 = 200;

/// Slower than this is interpreted. Interpreters that were seen take 500 to 1,500 ns; hardware under 1 ns, and even a
/// CPU that is itself emulated by QEMU's translator some 10 ns.
const LIMIT: f64 = 100.0;

/// Attempts before "slow" is believed: a host that schedules another process in between makes one attempt slow, not three.
const ATTEMPTS: u32 = 3;

/// In 64-bit mode, where `dec ecx` has its two-byte form:
/// `loop: dec ecx; jnz loop; out PROBE_PORT, al; jmp .`
const CODE: [u8; 8] = [0xff, 0xc9, 0x75, 0xfc, 0xe6, layout::PROBE_PORT as u8, 0xeb, 0xfe];

/// Probes this machine's KVM by a virtual machine that is made for it alone: for whoever wants to know before any run.
///
/// # Errors
/// Why KVM cannot be used here.
pub fn this_machine() -> Result<Probe, Error> {
    /// Little, but room for the page tables and the code.
    const MEMORY_MIB: u32 = 16;
    let kvm = Kvm::open()?;
    let vm = kvm.create_vm()?;
    let guest = memory::allocate(MEMORY_MIB)?;
    memory::register(&vm, &guest)?;
    kvm::make_chips(&vm)?;
    let mut vcpu = vm.create_vcpu(0).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
    cpu::set_identity(&vcpu, kvm.supported_cpuid()?, 0, 1)?;
    cpu::set_mode(&vcpu, &guest, Entry::Linux64(0))?;
    run(&mut vcpu, &guest)
}

/// Runs the micro-guest on a vCPU in 64-bit mode ([`cpu::set_mode`]).
///
/// # Errors
/// The micro-guest does something else than its one port access: this KVM cannot run a guest.
// ANCHOR: probe
pub fn run(vcpu: &mut VcpuFd, guest: &GuestMemoryMmap) -> Result<Probe, Error> {
    memory::write(guest, "probe", layout::PROBE_CODE, &CODE)?;
    // The first run pays for page faults and the like; a loop of one iteration is the price of entry and exit.
    time(vcpu, 1)?;
    let (mut exit, mut whole) = (Duration::MAX, Duration::MAX);
    for _ in 0..ATTEMPTS {
        // The least of each by itself: an exit that the host made slow, taken from a loop that it did not, leaves nothing,
        // and an interpreter would pass for hardware.
        exit = exit.min(time(vcpu, 1)?);
        whole = whole.min(time(vcpu, INSTRUCTIONS / 2)?);
        if per_instruction(whole) < LIMIT {
            break;
        }
    }
    let instruction = per_instruction(whole.saturating_sub(exit));
    Ok(Probe { hardware: instruction < LIMIT, instruction })
}
// ANCHOR_END: probe

fn per_instruction(time: Duration) -> f64 {
    time.as_nanos() as f64 / f64::from(INSTRUCTIONS)
}

/// The time of a run with so many iterations.
fn time(vcpu: &mut VcpuFd, iterations: u32) -> Result<Duration, Error> {
    cpu::set_code(vcpu, layout::PROBE_CODE, iterations.into())?;
    let start = Instant::now();
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(layout::PROBE_PORT, _)) => return Ok(start.elapsed()),
            Ok(_) => {
                return Err(Error::KvmLacks { what: "the ability to run eight bytes of code (the probe)" });
            }
            Err(error) if matches!(error.errno(), nix::libc::EINTR | nix::libc::EAGAIN) => {}
            Err(error) => return Err(Error::kvm("KVM_RUN")(error)),
        }
    }
}
