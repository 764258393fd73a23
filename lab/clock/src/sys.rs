//! The one unsafe part: a page shared with forked children.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

const BYTES: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
const SLOTS: usize = BYTES.get() / size_of::<AtomicU64>();

/// A zeroed page of atomic slots that stays shared across `fork(2)` and `clone(2)`.
#[derive(Debug)]
pub(crate) struct SharedPage {
    base: NonNull<AtomicU64>,
}

impl SharedPage {
    pub(crate) fn new() -> io::Result<Self> {
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice aliases nothing (mmap(2)).
        let base = unsafe { mmap_anonymous(None, BYTES, prot, MapFlags::MAP_SHARED) }?;
        Ok(Self { base: base.cast() })
    }

    fn slot(&self, index: usize) -> &AtomicU64 {
        assert!(index < SLOTS, "slot {index} is beyond the page");
        // SAFETY: the page holds SLOTS zero-initialised, aligned u64 and lives as long as self; all access is atomic.
        unsafe { self.base.add(index).as_ref() }
    }

    /// Stores the value if the slot still holds 0.
    pub(crate) fn set_once(&self, index: usize, value: u64) {
        let _ = self.slot(index).compare_exchange(0, value, Ordering::Release, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, index: usize) -> u64 {
        self.slot(index).load(Ordering::Acquire)
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length, and no reference outlives self (munmap(2)).
        let _ = unsafe { munmap(self.base.cast(), BYTES.get()) };
    }
}

// SAFETY: all access to the page goes through atomics.
unsafe impl Send for SharedPage {}
// SAFETY: as above.
unsafe impl Sync for SharedPage {}

/// Runs `work` in a forked child and waits for it.
#[cfg(test)]
pub(crate) fn in_forked_child(work: impl FnOnce()) {
    use nix::sys::wait::waitpid;
    use nix::unistd::{ForkResult, fork};
    // SAFETY: the child only writes to the shared page and leaves by _exit, both async-signal-safe (fork(2)).
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            work();
            // SAFETY: _exit(2) ends the child without running the test harness's destructors.
            unsafe { nix::libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            waitpid(child, None).expect("waitpid");
        }
    }
}
