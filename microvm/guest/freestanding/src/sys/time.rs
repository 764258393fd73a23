//! Clocks and sleeping.

use core::mem::MaybeUninit;

use linux_raw_sys::general as c;

use super::{Result, call};

/// A span of time, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration {
    nanos: u64,
}

impl Duration {
    /// So many nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { nanos }
    }

    /// So many milliseconds; the largest span there is, if that is too many.
    pub const fn from_millis(millis: u64) -> Self {
        Self { nanos: millis.saturating_mul(1_000_000) }
    }

    /// In nanoseconds.
    pub const fn nanos(self) -> u64 {
        self.nanos
    }

    pub(super) const fn to_kernel(self) -> c::__kernel_timespec {
        c::__kernel_timespec {
            tv_sec: (self.nanos / 1_000_000_000) as i64,
            tv_nsec: (self.nanos % 1_000_000_000) as i64,
        }
    }
}

fn clock(id: u32) -> u64 {
    let mut out = MaybeUninit::<c::__kernel_timespec>::zeroed();
    // SAFETY: the kernel fills the structure, or leaves the zeros, which are a value (clock_gettime(2)).
    let time = unsafe {
        let _ = call(c::__NR_clock_gettime, [id as usize, out.as_mut_ptr().expose_provenance()]);
        out.assume_init()
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CLOCK_MONOTONIC in nanoseconds, by a system call (there is no vDSO here).
pub fn monotonic() -> u64 {
    clock(c::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME in nanoseconds since 1970.
pub fn realtime() -> u64 {
    clock(c::CLOCK_REALTIME)
}

/// clock_settime(2), CLOCK_REALTIME.
pub fn set_realtime(seconds: u64, nanos: u64) -> Result<()> {
    let time = c::__kernel_timespec { tv_sec: seconds as i64, tv_nsec: nanos as i64 };
    // SAFETY: the kernel reads the structure.
    unsafe {
        call(c::__NR_clock_settime, [c::CLOCK_REALTIME as usize, (&raw const time).expose_provenance()])
    }
    .map(drop)
}

/// nanosleep(2).
pub fn sleep(time: Duration) {
    let time = time.to_kernel();
    // SAFETY: the kernel reads the structure; a null remainder is allowed (nanosleep(2)).
    let _ = unsafe { call(c::__NR_nanosleep, [(&raw const time).expose_provenance(), 0]) };
}
