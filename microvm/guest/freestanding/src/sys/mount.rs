//! Mounts.

use core::ffi::CStr;

use linux_raw_sys::general as c;

use super::{Result, at, call};

/// Flags for [`mount`]: mount(2).
pub mod flags {
    use linux_raw_sys::general as c;
    /// Read-only.
    pub const READ_ONLY: u64 = c::MS_RDONLY as u64;
    /// Ignore set-user-ID bits.
    pub const NO_SUID: u64 = c::MS_NOSUID as u64;
    /// No device files.
    pub const NO_DEV: u64 = c::MS_NODEV as u64;
    /// No programs.
    pub const NO_EXEC: u64 = c::MS_NOEXEC as u64;
    /// Change the flags of an existing mount.
    pub const REMOUNT: u64 = c::MS_REMOUNT as u64;
    /// Make a directory or file visible at another place.
    pub const BIND: u64 = c::MS_BIND as u64;
    /// With what is mounted below it.
    pub const RECURSIVE: u64 = c::MS_REC as u64;
    /// Move a mount.
    pub const MOVE: u64 = c::MS_MOVE as u64;
    /// Neither give nor take mount events.
    pub const PRIVATE: u64 = c::MS_PRIVATE as u64;
    /// The four kinds of propagation; each is set by a call of its own.
    pub const PROPAGATION: u64 = (c::MS_PRIVATE | c::MS_SLAVE | c::MS_SHARED | c::MS_UNBINDABLE) as u64;
}

/// mount(2). Empty texts stand for what the operation does not use.
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: &CStr) -> Result<()> {
    // SAFETY: the kernel reads four texts up to their NUL (mount(2)).
    unsafe { call(c::__NR_mount, [at(source), at(target), at(kind), flags as usize, at(data)]) }.map(drop)
}

/// pivot_root(2): `new` becomes the root, the old root is put at `old` below it.
pub fn pivot_root(new: &CStr, old: &CStr) -> Result<()> {
    // SAFETY: the kernel reads both paths.
    unsafe { call(c::__NR_pivot_root, [at(new), at(old)]) }.map(drop)
}

/// umount2(2), lazily: `MNT_DETACH`.
pub fn detach(target: &CStr) -> Result<()> {
    // SAFETY: the kernel reads the path (umount(2)).
    unsafe { call(c::__NR_umount2, [at(target), c::MNT_DETACH as usize]) }.map(drop)
}

/// statfs(2): the flags of the mount that a path is on, as far as [`mount`] takes the same bits (no `relatime`, which is
/// the default anyway).
pub fn flags_of(path: &CStr) -> Result<u64> {
    let mut out = core::mem::MaybeUninit::<c::statfs>::uninit();
    // SAFETY: the kernel reads the path and fills the whole structure.
    let out = unsafe {
        call(c::__NR_statfs, [at(path), out.as_mut_ptr().expose_provenance()])?;
        out.assume_init()
    };
    let shared = c::MS_RDONLY | c::MS_NOSUID | c::MS_NODEV | c::MS_NOEXEC | c::MS_NOATIME | c::MS_NODIRATIME;
    Ok(out.f_flags as u64 & u64::from(shared))
}
