//! Landlock: rights on files that a process gives up for good, without being root (`landlock(7)`).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Result, checked};

/// Rights on files (LANDLOCK_ACCESS_FS_*, linux/landlock.h): to execute and read a file and to list a directory.
pub(crate) const READ: u64 = 1 | 1 << 2 | 1 << 3;
/// Those that make sense for a file that is no directory: execute, write, read, truncate, ioctl.
pub(crate) const OF_FILES: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15;

/// All rights that the kernel's version of Landlock knows; none where it has no Landlock.
pub(crate) fn all_rights() -> Option<u64> {
    const VERSION: libc::c_long = 1;
    // SAFETY: with this flag and no attributes the call answers with the version (landlock_create_ruleset(2)).
    let version = checked(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, VERSION)
    });
    // Version 1 has 13 rights; 2 added to link and rename between directories, 3 to truncate, 5 the ioctls of devices.
    let count = match version.ok()? {
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    Some((1 << count) - 1)
}

/// A set of rules for these rights: what no rule gives back is refused.
pub(crate) fn new_rules(rights: u64) -> Result<OwnedFd> {
    // SAFETY: the attributes are their first field, handled_access_fs, of the size given; the descriptor is new
    // (landlock_create_ruleset(2)).
    unsafe {
        let size = size_of::<u64>();
        let fd = libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::from_ref(&rights), size, 0);
        checked(fd).map(|fd| OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Gives rights back below a path.
pub(crate) fn allow(rules: &OwnedFd, path: BorrowedFd<'_>, rights: u64) -> Result<()> {
    #[repr(C, packed)]
    struct Beneath {
        rights: u64,
        parent: i32,
    }
    const PATH_BENEATH: libc::c_long = 1;
    let rule = Beneath { rights, parent: path.as_raw_fd() };
    // SAFETY: a landlock_path_beneath_attr is packed, as this is (landlock_add_rule(2)).
    let value = unsafe {
        let rule = std::ptr::from_ref(&rule);
        libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), PATH_BENEATH, rule, 0)
    };
    checked(value).map(drop)
}

/// Puts the rules in force for the calling process and its children.
pub(crate) fn restrict(rules: &OwnedFd) -> Result<()> {
    // SAFETY: only numbers are passed (landlock_restrict_self(2)).
    checked(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) }).map(drop)
}
