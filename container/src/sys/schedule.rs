//! Turns at the processors, the disks and the memory's nodes: the calls that no library wraps.

use super::{Result, checked};

/// How a process gets its turn at the processors: `sched_setattr(2)`.
pub(crate) fn set_scheduler(attributes: &libc::sched_attr) -> Result<()> {
    // SAFETY: attributes is a whole sched_attr, whose first field is its size; 0 is the caller (sched_setattr(2)).
    checked(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attributes), 0) }).map(drop)
}

/// How a process gets its turn at the disks: `ioprio_set(2)`.
pub(crate) fn set_io_priority(class: u32, level: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let priority = class << IOPRIO_CLASS_SHIFT | level;
    // SAFETY: only numbers are passed; 0 is the caller (ioprio_set(2)).
    checked(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) }).map(drop)
}

/// From which nodes a process gets its memory: `set_mempolicy(2)`.
pub(crate) fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<()> {
    // The kernel reads one bit less than it is told (get_nodes, mm/mempolicy.c), and no mask at all for 0.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the mask has the bits that are told, of which the last is not read (set_mempolicy(2)).
    checked(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}
