//! What a debugger does with an x86 vCPU: its registers in GDB's order, its breakpoints by KVM_SET_GUEST_DEBUG, its memory by
//! virtual addresses.

use gdbstub_arch::x86::reg::{X86_64CoreRegs, X86SegmentRegs, X87FpuInternalRegs};
use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_INJECT_BP, KVM_GUESTDBG_SINGLESTEP,
    KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP, kvm_debug_exit_arch, kvm_guest_debug,
};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::arch::layout;

type Done = Result<(), kvm_ioctls::Error>;

/// GDB's description of the architecture.
pub(crate) type Arch = gdbstub_arch::x86::X86_64_SSE;
pub(crate) type Registers = X86_64CoreRegs;

/// The instruction that a breakpoint in memory is (int3).
pub(crate) const BREAKPOINT: u8 = 0xcc;

/// How many addresses the processor itself can watch (SDM vol. 3B, section 17.2).
pub(crate) const WATCHED: usize = 4;

/// What a debug register watches an address for: the bits that DR7 has for it (SDM vol. 3B, section 17.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    Execute,
    Write,
    Access,
}

/// An address that the processor watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) address: u64,
    /// 1, 2, 4 or 8 bytes.
    pub(crate) len: u64,
    pub(crate) watch: Watch,
}

/// Why a vCPU came to the debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// One instruction was done.
    Step,
    /// It met a breakpoint in memory.
    Breakpoint,
    /// It met what this debug register watches.
    Watched(usize),
}

/// Why KVM came back with KVM_EXIT_DEBUG.
pub(crate) fn reason(exit: &kvm_debug_exit_arch) -> Reason {
    const BREAKPOINT_VECTOR: u32 = 3;
    if exit.exception == BREAKPOINT_VECTOR {
        return Reason::Breakpoint;
    }
    // DR6 has a bit for each register that matched (SDM vol. 3B, section 17.2.3).
    (0..WATCHED).find(|number| exit.dr6 & 1 << number != 0).map_or(Reason::Step, Reason::Watched)
}

/// Has KVM come back at the debugger's breakpoints, and after the next instruction if it is to step.
pub(crate) fn arm(vcpu: &VcpuFd, watched: &[Option<Watched>; WATCHED], step: bool) -> Done {
    let mut debug =
        kvm_guest_debug { control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP, ..Default::default() };
    for (number, watched) in watched.iter().enumerate() {
        let Some(watched) = watched else { continue };
        let kind = match watched.watch {
            Watch::Execute => 0,
            Watch::Write => 0b0001,
            Watch::Access => 0b0011,
        };
        let len = match watched.len {
            2 => 0b0100,
            4 => 0b1100,
            8 => 0b1000,
            _ => 0,
        };
        debug.control |= KVM_GUESTDBG_USE_HW_BP;
        debug.arch.debugreg[number] = watched.address;
        // Globally enabled, and its kind and length; bit 10 is always set.
        debug.arch.debugreg[7] |= 1 << 10 | 2 << (2 * number) | (kind | len) << (16 + 4 * number);
    }
    if !step {
        return vcpu.set_guest_debug(&debug);
    }
    debug.control |= KVM_GUESTDBG_SINGLESTEP;
    // A step shall not lead into an interrupt's handler; KVM before 5.15 cannot hold interrupts back.
    let without_interrupts = kvm_guest_debug { control: debug.control | KVM_GUESTDBG_BLOCKIRQ, ..debug };
    vcpu.set_guest_debug(&without_interrupts).or_else(|_| vcpu.set_guest_debug(&debug))
}

/// Lets the guest run undisturbed.
pub(crate) fn disarm(vcpu: &VcpuFd) -> Done {
    vcpu.set_guest_debug(&kvm_guest_debug::default())
}

/// Delivers a breakpoint exception that is the guest's own affair.
pub(crate) fn give_back(vcpu: &VcpuFd, watched: &[Option<Watched>; WATCHED]) -> Done {
    let control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_INJECT_BP;
    vcpu.set_guest_debug(&kvm_guest_debug { control, ..Default::default() })?;
    arm(vcpu, watched, false)
}

/// The registers, as GDB orders them.
pub(crate) fn registers(vcpu: &VcpuFd) -> Result<Registers, kvm_ioctls::Error> {
    let (regs, sregs) = (vcpu.get_regs()?, vcpu.get_sregs()?);
    let mut all = Registers {
        regs: [
            regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp, regs.r8, regs.r9,
            regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        ],
        rip: regs.rip,
        eflags: regs.rflags as u32,
        segments: X86SegmentRegs {
            cs: sregs.cs.selector.into(),
            ss: sregs.ss.selector.into(),
            ds: sregs.ds.selector.into(),
            es: sregs.es.selector.into(),
            fs: sregs.fs.selector.into(),
            gs: sregs.gs.selector.into(),
        },
        ..Registers::default()
    };
    if let Ok(fpu) = vcpu.get_fpu() {
        all.xmm = fpu.xmm.map(u128::from_le_bytes);
        all.mxcsr = fpu.mxcsr;
        let (fctrl, fstat, ftag) = (fpu.fcw.into(), fpu.fsw.into(), fpu.ftwx.into());
        all.fpu = X87FpuInternalRegs { fctrl, fstat, ftag, ..X87FpuInternalRegs::default() };
    }
    Ok(all)
}

/// Sets the general registers, the instruction pointer and the flags. Segments, x87 and SSE registers stay as they are.
pub(crate) fn set_registers(vcpu: &VcpuFd, all: &Registers) -> Done {
    let mut regs = vcpu.get_regs()?;
    [
        regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp, regs.r8, regs.r9,
        regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
    ] = all.regs;
    regs.rip = all.rip;
    regs.rflags = all.eflags.into();
    vcpu.set_regs(&regs)
}

/// Calls `each` for every piece of a range of virtual addresses that lies in one page: the piece's place in the range, and its
/// guest-physical address. How many bytes there were before one that is not mapped.
fn pages(
    vcpu: &VcpuFd,
    start: u64,
    len: usize,
    mut each: impl FnMut(usize, usize, GuestAddress) -> bool,
) -> usize {
    let mut done = 0;
    while done < len {
        let address = start.wrapping_add(done as u64);
        let piece = ((layout::PAGE - address % layout::PAGE) as usize).min(len - done);
        let Ok(translation) = vcpu.translate_gva(address) else { break };
        if translation.valid == 0 || !each(done, piece, GuestAddress(translation.physical_address)) {
            break;
        }
        done += piece;
    }
    done
}

/// Reads memory at a virtual address of this vCPU's. Fewer bytes where it is not mapped.
pub(crate) fn read(vcpu: &VcpuFd, memory: &GuestMemoryMmap, start: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let done = pages(vcpu, start, len, |at, piece, physical| {
        memory.read_slice(&mut bytes[at..at + piece], physical).is_ok()
    });
    bytes.truncate(done);
    bytes
}

/// Writes memory, likewise. Whether all was written.
pub(crate) fn write(vcpu: &VcpuFd, memory: &GuestMemoryMmap, start: u64, bytes: &[u8]) -> bool {
    let done = pages(vcpu, start, bytes.len(), |at, piece, physical| {
        memory.write_slice(&bytes[at..at + piece], physical).is_ok()
    });
    done == bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_kvm_came_back_is_read_from_the_exception_and_dr6() {
        let exit = |exception, dr6| kvm_debug_exit_arch { exception, dr6, ..Default::default() };
        assert_eq!(reason(&exit(3, 0)), Reason::Breakpoint);
        assert_eq!(reason(&exit(1, 1 << 14)), Reason::Step);
        assert_eq!(reason(&exit(1, 0b100)), Reason::Watched(2));
    }
}
