//! Paths inside the container's root file system, which may be hostile: a symbolic link there must never lead out.
//!
//! `openat2(2)` with RESOLVE_IN_ROOT resolves every link, "/" and ".." as if the given directory were the root, and
//! RESOLVE_NO_MAGICLINKS refuses the links of /proc that jump out of any root. What comes back is a descriptor, and
//! only descriptors are used from there on: no second look-up that somebody could race.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;

use crate::sys;

/// The longest path the kernel takes, with its NUL.
const PATH_MAX: usize = libc::PATH_MAX as usize;

/// Opens a path of the container, without following it out of the root.
pub(crate) fn open(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> sys::Result<OwnedFd> {
    resolve(root, path, flags, ResolveFlags::empty())
}

/// The same, but no component of the path may be a symbolic link at all.
pub(crate) fn open_no_symlinks(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> sys::Result<OwnedFd> {
    resolve(root, path, flags, ResolveFlags::NO_SYMLINKS)
}

fn resolve(root: BorrowedFd<'_>, path: &CStr, flags: OFlags, more: ResolveFlags) -> sys::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
    loop {
        // EAGAIN: a rename or mount elsewhere raced with ".."; the man page says to try again.
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Opens the directory that a path's last component is in, making missing ones, and gives that component.
pub(crate) fn parent<'a>(root: BorrowedFd<'_>, path: &'a CStr) -> sys::Result<(OwnedFd, &'a CStr)> {
    let bytes = path.to_bytes_with_nul();
    let Some(slash) = bytes.iter().rposition(|byte| *byte == b'/') else {
        return Ok((rustix::io::dup(root)?, path));
    };
    let mut buffer = [0; PATH_MAX];
    if slash >= PATH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    buffer[..slash].copy_from_slice(&bytes[..slash]);
    let directory = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::INVAL)?;
    let name = CStr::from_bytes_with_nul(&bytes[slash + 1..]).map_err(|_| Errno::INVAL)?;
    Ok((directory_at(root, directory)?, name))
}

/// Opens a directory, making it and those above it where they are missing.
pub(crate) fn directory_at(root: BorrowedFd<'_>, path: &CStr) -> sys::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open(root, path, flags) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let mut buffer = [0; PATH_MAX];
    let bytes = path.to_bytes();
    if bytes.len() >= PATH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    buffer[..bytes.len()].copy_from_slice(bytes);
    let mut parent = rustix::io::dup(root)?;
    let mut start = 0;
    while start < bytes.len() {
        let end = bytes[start..].iter().position(|byte| *byte == b'/').map_or(bytes.len(), |at| start + at);
        if end > start {
            buffer[end] = 0; // cut the path here, for this look-up
            let so_far = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::INVAL)?;
            let name = CStr::from_bytes_until_nul(&buffer[start..]).map_err(|_| Errno::INVAL)?;
            parent = match open(root, so_far, flags) {
                Err(Errno::NOENT) => {
                    match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error),
                    }
                    open(root, so_far, flags)?
                }
                result => result?,
            };
            if end < bytes.len() {
                buffer[end] = b'/';
            }
        }
        start = end + 1;
    }
    Ok(parent)
}

/// Opens a file to mount something on, making an empty one where there is none.
pub(crate) fn file_at(root: BorrowedFd<'_>, path: &CStr) -> sys::Result<OwnedFd> {
    match open(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let (directory, name) = parent(root, path)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    match openat2(directory.as_fd(), name, flags, Mode::from_raw_mode(0o644), ResolveFlags::NO_SYMLINKS) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    open(root, path, OFlags::PATH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A directory that is removed when it goes out of scope.
    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> (Self, OwnedFd) {
            let path = std::env::temp_dir().join(format!("container-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            let root = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
            (Self(path), root)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn missing_directories_are_made() {
        let (scratch, root) = Scratch::new("made");
        directory_at(root.as_fd(), c"a//b/c").unwrap();
        assert!(scratch.0.join("a/b/c").is_dir());
    }

    #[test]
    fn an_absolute_link_stays_inside() {
        let (scratch, root) = Scratch::new("absolute");
        symlink("/etc", scratch.0.join("link")).unwrap();
        directory_at(root.as_fd(), c"link/x").unwrap_err(); // the container has no /etc: the link leads nowhere
        std::fs::create_dir(scratch.0.join("etc")).unwrap();
        directory_at(root.as_fd(), c"link/x").unwrap();
        assert!(scratch.0.join("etc/x").is_dir());
    }

    #[test]
    fn dot_dot_stays_inside() {
        let (scratch, root) = Scratch::new("dotdot");
        symlink("../../../..", scratch.0.join("up")).unwrap();
        file_at(root.as_fd(), c"up/inside").unwrap();
        assert!(scratch.0.join("inside").is_file());
    }

    #[test]
    fn a_link_is_refused_where_none_may_be() {
        let (scratch, root) = Scratch::new("proc");
        std::fs::create_dir(scratch.0.join("tmp")).unwrap();
        symlink("tmp", scratch.0.join("proc")).unwrap();
        assert_eq!(open_no_symlinks(root.as_fd(), c"proc", OFlags::PATH).unwrap_err(), Errno::LOOP);
    }
}
