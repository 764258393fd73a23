//! `execve(2)`, with its arguments made ready before the clone.

use std::ffi::{CStr, CString};

use rustix::io::Errno;

/// A null-terminated array of C strings, as `execve(2)` takes its arguments and environment.
#[derive(Debug)]
pub(crate) struct CStrings {
    /// Keeps alive what the pointers point to.
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

// SAFETY: the pointers point into `_strings`, which is owned and never changed after construction.
unsafe impl Send for CStrings {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for CStrings {}

impl CStrings {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        // A CString's bytes are on the heap: moving the vector does not move them.
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// Turns the calling process into the program at `path`; returns only on failure.
pub(crate) fn execute(path: &CStr, arguments: &CStrings, environment: &CStrings) -> Errno {
    // SAFETY: both arrays end in a null pointer and hold NUL-terminated strings that live on (execve(2)).
    unsafe {
        libc::syscall(
            libc::SYS_execve,
            path.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
        );
        Errno::from_raw_os_error(*libc::__errno_location())
    }
}

/// Ends the calling process at once, without the destructors that belong to its parent: `_exit(2)`.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: the call takes a number and does not return (_exit(2)).
    unsafe { libc::_exit(code) }
}
