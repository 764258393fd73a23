//! The system calls, one safe function each, named as in section 2 of the Linux manual.
//!
//! Numbers, structures and constants come from the kernel's own headers, through `linux-raw-sys`. A function here is safe
//! if no argument can make the kernel touch memory that Rust does not expect it to touch. Programs are single-threaded,
//! which is what makes [`process::fork`] safe.

// Each function fails as its manual page says; the page is named in each description.
#![allow(clippy::missing_errors_doc)]

mod fd;
pub mod file;
pub mod identity;
pub mod machine;
pub mod memory;
pub mod mount;
pub mod net;
pub mod poll;
pub mod process;
pub mod signal;
pub mod terminal;
pub mod time;

pub use fd::{Fd, OwnedFd};
pub use linux_raw_sys::general as consts;
pub use process::exit;

use core::ffi::CStr;

use linux_raw_sys::errno;

use crate::arch;

/// Why a system call failed: errno(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u32);

/// What a system call returns.
pub type Result<T> = core::result::Result<T, Errno>;

macro_rules! errors {
    ($($name:ident = $number:ident: $text:literal,)+) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self(errno::$number);)+

            /// The manual's words for the error, for those that are likely; empty for others.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $text,)+ _ => "" }
            }
        }
    };
}

errors! {
    ACCES = EACCES: "Permission denied",
    AGAIN = EAGAIN: "Resource temporarily unavailable",
    BADF = EBADF: "Bad file descriptor",
    BUSY = EBUSY: "Device or resource busy",
    CHILD = ECHILD: "No child processes",
    CONNRESET = ECONNRESET: "Connection reset by peer",
    EXIST = EEXIST: "File exists",
    INTR = EINTR: "Interrupted system call",
    INVAL = EINVAL: "Invalid argument",
    IO = EIO: "Input/output error",
    ISDIR = EISDIR: "Is a directory",
    LOOP = ELOOP: "Too many levels of symbolic links",
    NAMETOOLONG = ENAMETOOLONG: "File name too long",
    NODEV = ENODEV: "No such device",
    NOENT = ENOENT: "No such file or directory",
    NOEXEC = ENOEXEC: "Exec format error",
    NOMEM = ENOMEM: "Cannot allocate memory",
    NOSPC = ENOSPC: "No space left on device",
    NOSYS = ENOSYS: "Function not implemented",
    NOTDIR = ENOTDIR: "Not a directory",
    NOTTY = ENOTTY: "Inappropriate ioctl for device",
    PERM = EPERM: "Operation not permitted",
    PIPE = EPIPE: "Broken pipe",
    PROTO = EPROTO: "Protocol error",
    ROFS = EROFS: "Read-only file system",
    SRCH = ESRCH: "No such process",
    TOOBIG = E2BIG: "Argument list too long",
}

/// Makes a system call and splits its result as the kernel does: the last 4095 numbers are errors.
///
/// # Safety
/// As for [`arch::syscall`].
#[inline(always)] // inlined, the arguments go straight to their registers; called, they would go through memory
#[expect(clippy::inline_always, reason = "programs get smaller by it")]
pub(crate) unsafe fn call<const N: usize>(number: u32, args: [usize; N]) -> Result<usize> {
    let argument = |index: usize| if index < N { args[index] } else { 0 };
    let six = [argument(0), argument(1), argument(2), argument(3), argument(4), argument(5)];
    // SAFETY: the caller's promise.
    split(unsafe { arch::syscall(number, six) })
}

fn split(result: isize) -> Result<usize> {
    if (-4095..0).contains(&result) { Err(Errno(-result as u32)) } else { Ok(result as usize) }
}

/// Makes a system call whose arguments are numbers only: it cannot touch this process's memory.
#[inline(always)]
#[expect(clippy::inline_always, reason = "as above")]
pub(crate) fn plain<const N: usize>(number: u32, args: [usize; N]) -> Result<usize> {
    // SAFETY: no pointers among the arguments; callers in this module pick only such calls.
    unsafe { call(number, args) }
}

/// The address of a text for the kernel to read.
#[inline]
fn at(text: &CStr) -> usize {
    text.as_ptr().addr()
}

/// Sign-extended, as the kernel takes an `int` from a register.
#[inline]
const fn int(number: i32) -> usize {
    number as isize as usize
}
