//! Memory from the kernel, for what is too large or too rare for a fixed buffer.

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use linux_raw_sys::general as c;

use super::{Errno, Result, call, plain};
use crate::args::Pointer;

/// Types of which all bytes zero are a value.
///
/// # Safety
/// It must be so.
pub unsafe trait Zero {}
// SAFETY: zero is a number.
unsafe impl Zero for u8 {}
// SAFETY: zero is a number.
unsafe impl Zero for u32 {}
// SAFETY: zero is a number.
unsafe impl Zero for u64 {}
// SAFETY: the null pointer is `Pointer::END`.
unsafe impl Zero for Pointer<'_> {}

/// An array in pages of its own, zeroed; pages never touched cost nothing. Given back when it goes out of scope.
#[derive(Debug)]
pub struct Array<T: Zero> {
    base: NonNull<T>,
    len: usize,
}

impl<T: Zero> Array<T> {
    /// mmap(2), private and anonymous.
    pub fn new(len: usize) -> Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(Errno::NOMEM)?;
        if bytes == 0 {
            return Ok(Self { base: NonNull::dangling(), len });
        }
        let (prot, flags) = (c::PROT_READ | c::PROT_WRITE, c::MAP_PRIVATE | c::MAP_ANONYMOUS);
        let address = plain(c::__NR_mmap, [0, bytes, prot as usize, flags as usize, usize::MAX, 0])?;
        let base = core::ptr::with_exposed_provenance_mut(address);
        Ok(Self { base: NonNull::new(base).ok_or(Errno::NOMEM)?, len })
    }
}

impl<T: Zero> Deref for Array<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: mapped (or empty) in `new`, page-aligned, zero-initialised, which T allows; lives as long as self.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl<T: Zero> DerefMut for Array<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and self is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl<T: Zero> Drop for Array<T> {
    fn drop(&mut self) {
        let bytes = self.len * size_of::<T>();
        if bytes != 0 {
            // SAFETY: mapped in `new` with this length; no reference outlives self (munmap(2)).
            let _ = unsafe { call(c::__NR_munmap, [self.base.as_ptr().expose_provenance(), bytes]) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_starts_zeroed_and_keeps_what_is_written() {
        let mut array = Array::<u64>::new(100_000).unwrap();
        assert!(array.iter().all(|&number| number == 0));
        array[99_999] = 7;
        assert_eq!(array.last(), Some(&7));
        assert!(Array::<u8>::new(0).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        assert_eq!(Array::<u64>::new(usize::MAX).err(), Some(Errno::NOMEM));
        assert_eq!(Array::<u8>::new(1 << 60).err(), Some(Errno::NOMEM));
    }
}
