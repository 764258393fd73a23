//! The run-time of a program: from the kernel's first jump to `exit_group(2)`, and what the compiler takes for granted.

use core::ffi::c_int;
use core::panic::PanicInfo;

use crate::arch;
use crate::args::Args;
use crate::sys::{self, Fd};
use crate::text::Text;

unsafe extern "Rust" {
    /// The program's main, made by [`crate::program`].
    // SAFETY: a safe function; the macro gives it this very type.
    safe fn freestanding_main(args: Args<'static>) -> u8;
}

/// Called by `_start` with the stack pointer that the kernel set.
// SAFETY: the name is this crate's own; `_start` alone refers to it.
#[unsafe(no_mangle)]
unsafe extern "C" fn freestanding_start(stack: *const usize) -> ! {
    // SAFETY: the kernel laid argc, argv and envp there (System V ABI, section 3.4.1).
    let args = unsafe { Args::from_stack(stack) };
    sys::exit(freestanding_main(args))
}

/// A panic is a defect of the program: say where, and end as if by abort(3), with 128 + SIGABRT.
#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    let mut line = Text::<160>::new();
    line.text("panic");
    if let Some(place) = info.location() {
        line.text(" at ").text(place.file()).text(":").number(u64::from(place.line()));
    }
    line.text("\n");
    let _ = Fd::ERROR.write(line.bytes());
    sys::exit(134)
}

// The five functions that the compiler may call in any program (core's documentation, "How to use the core library").
// SAFETY (no_mangle): without libc these are the only definitions of the names, with their C types.

/// memcpy(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { arch::copy_up(to, from, len) };
    to
}

/// memmove(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= len {
        // SAFETY: the caller's promise; `to` is below `from` or beyond its end, so upwards never reads what it wrote.
        unsafe { arch::copy_up(to, from, len) };
    } else {
        for i in (0..len).rev() {
            // SAFETY: i < len; volatile, so that the compiler does not make this loop a call of memmove.
            unsafe { to.add(i).write_volatile(from.add(i).read()) };
        }
    }
    to
}

/// memset(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: c_int, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { arch::fill(to, byte as u8, len) };
    to
}

/// memcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    for i in 0..len {
        // SAFETY: i < len; volatile, so that the compiler does not make this loop a call of memcmp.
        let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if x != y {
            return c_int::from(x) - c_int::from(y);
        }
    }
    0
}

/// bcmp(3): the compiler prefers it to memcmp where only equality matters.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { memcmp(a, b, len) }
}

/// strlen(3): `CStr::from_ptr` calls it.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut len = 0;
    // SAFETY: the caller's promise: a NUL byte ends the text; volatile for the reason given above.
    while unsafe { text.add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}
