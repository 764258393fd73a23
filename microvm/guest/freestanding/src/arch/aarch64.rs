//! AArch64: Procedure Call Standard (AAPCS64), and syscall(2) for the registers of a system call.

use core::arch::asm;

// The kernel enters with argc at the stack pointer, 16-byte aligned. A zero frame record ends backtraces.
#[cfg(all(feature = "program", not(feature = "build")))]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x30, #0",
    "mov x0, sp",
    "bl freestanding_start",
    "brk #1",
);

/// Which of the general registers that ptrace(2) tells is the instruction pointer (struct user_pt_regs).
pub(crate) const INSTRUCTION_POINTER: usize = 32;

/// Makes a system call with up to six arguments; unused ones are 0.
///
/// # Safety
/// The arguments must be what the call wants: pointers valid for what the kernel reads and writes through them.
#[inline(always)] // see `sys::call`
#[expect(clippy::inline_always, reason = "programs get smaller by it")]
pub unsafe fn syscall(number: u32, args: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: as the caller promises; the kernel preserves all registers but x0 (syscall(2), arm64).
    unsafe {
        asm!(
            "svc #0",
            in("x8") number as usize,
            inlateout("x0") args[0] as isize => result,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
            in("x4") args[4],
            in("x5") args[5],
            options(nostack),
        );
    }
    result
}

/// There are no I/O ports on this processor: does nothing.
///
/// # Safety
/// None needed; the signature is that of the processors that have ports.
#[inline]
pub unsafe fn out(_port: u16, _byte: u8) {}

/// Copies `len` bytes upwards.
///
/// # Safety
/// As for `memcpy(3)`; regions may overlap if `to` is below `from`.
#[cfg(all(feature = "program", not(feature = "build")))]
pub(crate) unsafe fn copy_up(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller's promise. Assembly, because the compiler would turn a loop into a call of memcpy.
    unsafe {
        asm!("2: cbz {n}, 3f", "ldrb {b:w}, [{f}], #1", "strb {b:w}, [{t}], #1", "sub {n}, {n}, #1", "b 2b", "3:",
            t = inout(reg) to => _, f = inout(reg) from => _, n = inout(reg) len => _, b = out(reg) _,
            options(nostack, preserves_flags));
    }
}

/// Sets `len` bytes.
///
/// # Safety
/// As for `memset(3)`.
#[cfg(all(feature = "program", not(feature = "build")))]
pub(crate) unsafe fn fill(to: *mut u8, byte: u8, len: usize) {
    // SAFETY: the caller's promise. Assembly, because the compiler would turn a loop into a call of memset.
    unsafe {
        asm!("2: cbz {n}, 3f", "strb {b:w}, [{t}], #1", "sub {n}, {n}, #1", "b 2b", "3:",
            t = inout(reg) to => _, n = inout(reg) len => _, b = in(reg) u32::from(byte),
            options(nostack, preserves_flags));
    }
}
