//! Page faults: the first touch of a page, which the kernel answers with a zeroed one.

use core::mem::ManuallyDrop;

use freestanding::sys;
use freestanding::sys::memory::Array;
use freestanding::sys::time::monotonic;

use super::sample;

const PAGE: usize = 4096;
/// The most pages of a batch: 2 MiB.
const MOST: u64 = 512;

/// Touches fresh pages and keeps them, so that behind a virtual machine's wall each is one that the host has to give as
/// well; then pages that were given back before, which a guest's kernel has from itself.
///
/// # Errors
/// Where memory is at its end.
pub fn faults(repeats: u64) -> sys::Result<()> {
    // No more than 32 MiB in all, whatever the number of repeats: the sandbox may be small.
    let fresh = repeats.min(16);
    sample("first-touch", fresh, MOST, |pages| {
        let mut memory = ManuallyDrop::new(Array::<u8>::new(pages as usize * PAGE)?);
        Ok(touch(&mut memory))
    })?;
    sample("touch-again", repeats, MOST, |pages| {
        let mut memory = Array::<u8>::new(pages as usize * PAGE)?;
        Ok(touch(&mut memory))
    })
}

fn touch(memory: &mut [u8]) -> u64 {
    let start = monotonic();
    for page in memory.chunks_mut(PAGE) {
        if let Some(byte) = page.first_mut() {
            *byte = 1;
        }
    }
    core::hint::black_box(&memory);
    monotonic() - start
}
