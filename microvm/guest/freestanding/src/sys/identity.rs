//! Who a process is: user, groups, capabilities.

use linux_raw_sys::general as c;
use linux_raw_sys::prctl as p;

use super::{Errno, Result, call, plain};

/// getuid(2).
pub fn uid() -> u32 {
    plain(c::__NR_getuid, []).unwrap_or(0) as u32
}

/// getgid(2).
pub fn gid() -> u32 {
    plain(c::__NR_getgid, []).unwrap_or(0) as u32
}

/// getgroups(2).
pub fn groups(buffer: &mut [u32]) -> Result<&[u32]> {
    // SAFETY: the kernel writes at most as many group ids as there is room for (getgroups(2)).
    let count = unsafe { call(c::__NR_getgroups, [buffer.len(), buffer.as_mut_ptr().expose_provenance()]) }?;
    buffer.get(..count).ok_or(Errno::IO)
}

/// setgroups(2).
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the kernel reads the ids (setgroups(2)).
    unsafe { call(c::__NR_setgroups, [groups.len(), groups.as_ptr().expose_provenance()]) }.map(drop)
}

/// setresgid(2) with one id for all three.
pub fn set_gid(gid: u32) -> Result<()> {
    plain(c::__NR_setresgid, [gid as usize; 3]).map(drop)
}

/// setresuid(2) with one id for all three.
pub fn set_uid(uid: u32) -> Result<()> {
    plain(c::__NR_setresuid, [uid as usize; 3]).map(drop)
}

/// Capability sets as bit masks, one bit a capability: capabilities(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// In force.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
    /// May pass through execve(2) of a file that has them as inheritable.
    pub inheritable: u64,
}

const VERSION: c::__user_cap_header_struct =
    c::__user_cap_header_struct { version: c::_LINUX_CAPABILITY_VERSION_3, pid: 0 };

/// capset(2) on this process.
pub fn set_capabilities(sets: Capabilities) -> Result<()> {
    let half = |shift: u32| c::__user_cap_data_struct {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let (mut header, data) = (VERSION, [half(0), half(32)]);
    let pointers = [(&raw mut header).expose_provenance(), data.as_ptr().expose_provenance()];
    // SAFETY: version 3 reads two structures, and may write the version into the header (capget(2)).
    unsafe { call(c::__NR_capset, pointers) }.map(drop)
}

/// Takes a capability out of the bounding set: prctl(2), `PR_CAPBSET_DROP`. `EINVAL` if the kernel has no such capability.
pub fn drop_from_bounding(capability: u32) -> Result<()> {
    prctl(p::PR_CAPBSET_DROP, [capability as usize, 0])
}

/// Adds a capability to the ambient set: prctl(2), `PR_CAP_AMBIENT_RAISE`.
pub fn raise_ambient(capability: u32) -> Result<()> {
    prctl(p::PR_CAP_AMBIENT, [p::PR_CAP_AMBIENT_RAISE as usize, capability as usize])
}

/// Keeps the permitted set through a change of user: prctl(2), `PR_SET_KEEPCAPS`.
pub fn keep_capabilities() -> Result<()> {
    prctl(p::PR_SET_KEEPCAPS, [1, 0])
}

/// execve(2) grants no more privileges from here on: prctl(2), `PR_SET_NO_NEW_PRIVS`.
pub fn no_new_privileges() -> Result<()> {
    prctl(p::PR_SET_NO_NEW_PRIVS, [1, 0])
}

fn prctl(operation: u32, arguments: [usize; 2]) -> Result<()> {
    // These operations take numbers only, and want the unused ones 0 (prctl(2)).
    plain(c::__NR_prctl, [operation as usize, arguments[0], arguments[1], 0, 0]).map(drop)
}
