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
///
/// Most often it is there, next most often only it is missing: so the search for the deepest directory that exists goes
/// from the end of the path to its start, and then the missing ones are made from there on.
pub(crate) fn directory_at(root: BorrowedFd<'_>, path: &CStr) -> sys::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open(root, path, flags) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    // Below `root` a path with and without its first slashes is the same.
    let slashes = path.to_bytes().iter().take_while(|byte| **byte == b'/').count();
    let bytes = &path.to_bytes()[slashes..];
    if bytes.len() >= PATH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    let mut buffer = [0; PATH_MAX];
    buffer[..bytes.len()].copy_from_slice(bytes);
    // Where each cut ends the path for a look-up, a NUL stands in the buffer for the slash.
    let mut end = bytes.len();
    let mut parent = loop {
        let Some(slash) = buffer[..end].iter().rposition(|byte| *byte == b'/') else {
            end = 0;
            break None;
        };
        buffer[slash] = 0;
        end = slash;
        match open(root, cut(&buffer, 0)?, flags) {
            Err(Errno::NOENT) => {}
            result => break Some(result?),
        }
    };
    while end < bytes.len() {
        let start = if end == 0 { 0 } else { end + 1 };
        if end > 0 {
            buffer[end] = b'/';
        }
        let next = buffer[start..bytes.len()].iter().position(|byte| *byte == 0);
        end = next.map_or(bytes.len(), |at| start + at);
        let name = cut(&buffer, start)?;
        if name.is_empty() {
            continue; // two slashes
        }
        let above = parent.as_ref().map_or(root, AsFd::as_fd);
        match mkdirat(above, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        parent = Some(open(root, cut(&buffer, 0)?, flags)?);
    }
    parent.ok_or(Errno::NOENT)
}

/// The C string that begins at a byte of a buffer.
fn cut(buffer: &[u8], start: usize) -> sys::Result<&CStr> {
    CStr::from_bytes_until_nul(&buffer[start..]).map_err(|_| Errno::INVAL)
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
        for path in [c"a//b/c", c"a/b/d", c"e", c"a/b/c", c"a/x/", c"/f/g/h", c"//i/j", c"/k"] {
            directory_at(root.as_fd(), path).unwrap();
            assert!(scratch.0.join(path.to_str().unwrap().trim_start_matches('/')).is_dir(), "{path:?}");
        }
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
