//! x86-64: System V ABI, AMD64 supplement, section 3.4.1 (process initialisation) and appendix A.2 (system calls).

use core::arch::asm;

// The kernel enters with argc at the stack pointer. A zero frame pointer ends backtraces; calls want 16-byte alignment.
#[cfg(all(feature = "program", not(feature = "build")))]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call freestanding_start",
    "ud2",
);

/// Which of the general registers that ptrace(2) tells is the instruction pointer (struct user_regs_struct).
pub(crate) const INSTRUCTION_POINTER: usize = 16;

/// Makes a system call with up to six arguments; unused ones are 0.
///
/// # Safety
/// The arguments must be what the call wants: pointers valid for what the kernel reads and writes through them.
#[inline(always)] // see `sys::call`
#[expect(clippy::inline_always, reason = "programs get smaller by it")]
pub unsafe fn syscall(number: u32, args: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: as the caller promises; `syscall` itself overwrites only rax, rcx and r11 (syscall(2), x86-64).
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Writes a byte to an I/O port that `ioperm(2)` opened to this process.
///
/// # Safety
/// The port must be open to the process (else the kernel sends SIGSEGV), and writing to it must not break the machine.
#[inline]
pub unsafe fn out(port: u16, byte: u8) {
    // SAFETY: `out` touches no memory; the rest is the caller's promise (Intel SDM volume 2, OUT).
    unsafe { asm!("out dx, al", in("dx") port, in("al") byte, options(nomem, nostack, preserves_flags)) }
}

/// Copies `len` bytes upwards, by the processor's own loop: small, and fast on anything recent (SDM volume 2, MOVS).
///
/// # Safety
/// As for `memcpy(3)`; regions may overlap if `to` is below `from`.
#[cfg(all(feature = "program", not(feature = "build")))]
pub(crate) unsafe fn copy_up(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller's promise; the direction flag is clear at entry to every function (ABI section 3.2.1).
    unsafe {
        asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") len => _,
            options(nostack, preserves_flags));
    }
}

/// Sets `len` bytes.
///
/// # Safety
/// As for `memset(3)`.
#[cfg(all(feature = "program", not(feature = "build")))]
pub(crate) unsafe fn fill(to: *mut u8, byte: u8, len: usize) {
    // SAFETY: the caller's promise; see `copy_up` for the direction flag.
    unsafe {
        asm!("rep stosb", inout("rdi") to => _, in("al") byte, inout("rcx") len => _,
            options(nostack, preserves_flags));
    }
}
