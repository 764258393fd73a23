//! The system calls that the devices need and no safe library offers for guest memory.

use std::io;

use nix::libc;

/// Fills the buffer with random bytes (getrandom(2)).
pub(super) fn random(buffer: &mut [u8]) -> io::Result<()> {
    // SAFETY: the kernel writes at most the given length to the buffer, which we hold exclusively (getrandom(2)).
    let got = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    match usize::try_from(got) {
        Ok(got) if got == buffer.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}
