//! Files, directories, pipes.

use core::ffi::CStr;
use core::mem::MaybeUninit;

use linux_raw_sys::general as c;

use super::{Errno, Fd, OwnedFd, Result, at, call, int, plain};

/// Flags for [`open`]: open(2).
pub mod flags {
    use linux_raw_sys::general as c;
    /// Read only.
    pub const READ: u32 = c::O_RDONLY;
    /// Write only.
    pub const WRITE: u32 = c::O_WRONLY;
    /// Read and write.
    pub const READ_WRITE: u32 = c::O_RDWR;
    /// Create if missing.
    pub const CREATE: u32 = c::O_CREAT;
    /// Empty it first.
    pub const TRUNCATE: u32 = c::O_TRUNC;
    /// Write at the end.
    pub const APPEND: u32 = c::O_APPEND;
    /// Must be a directory.
    pub const DIRECTORY: u32 = c::O_DIRECTORY;
    /// Do not wait.
    pub const NONBLOCK: u32 = c::O_NONBLOCK;
    /// Past the page cache; buffers must then be aligned.
    pub const DIRECT: u32 = c::O_DIRECT;
    /// Do not make a terminal the controlling one.
    pub const NOCTTY: u32 = c::O_NOCTTY;
}

/// openat(2) relative to the working directory, always with `O_CLOEXEC`; `mode` is for files it creates.
pub fn open(path: &CStr, flags: u32, mode: u32) -> Result<OwnedFd> {
    let flags = (flags | c::O_CLOEXEC) as usize;
    // SAFETY: the kernel reads the path up to its NUL (open(2)).
    unsafe { call(c::__NR_openat, [int(c::AT_FDCWD), at(path), flags, mode as usize]) }
        .map(OwnedFd::from_result)
}

/// pipe2(2) with `O_CLOEXEC`: the reading end, the writing end.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0i32; 2];
    // SAFETY: the kernel writes two ints (pipe(2)).
    unsafe { call(c::__NR_pipe2, [ends.as_mut_ptr().expose_provenance(), c::O_CLOEXEC as usize]) }?;
    Ok((OwnedFd::new(Fd(ends[0])), OwnedFd::new(Fd(ends[1]))))
}

/// mkdirat(2) relative to the working directory.
pub fn mkdir(path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: the kernel reads the path (mkdir(2)).
    unsafe { call(c::__NR_mkdirat, [int(c::AT_FDCWD), at(path), mode as usize]) }.map(drop)
}

/// mknodat(2): a character device, or an empty file where `device` is `None`.
pub fn mknod(path: &CStr, mode: u32, device: Option<(u32, u32)>) -> Result<()> {
    let (kind, number) = match device {
        // The kernel's "new" device number: minor's low byte, major, rest of the minor (include/linux/kdev_t.h).
        Some((major, minor)) => (c::S_IFCHR, (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)),
        None => (c::S_IFREG, 0),
    };
    let arguments = [int(c::AT_FDCWD), at(path), (kind | mode) as usize, number as usize];
    // SAFETY: the kernel reads the path (mknod(2)).
    unsafe { call(c::__NR_mknodat, arguments) }.map(drop)
}

/// symlinkat(2): makes `path` a symbolic link to `target`.
pub fn symlink(target: &CStr, path: &CStr) -> Result<()> {
    // SAFETY: the kernel reads both texts (symlink(2)).
    unsafe { call(c::__NR_symlinkat, [at(target), int(c::AT_FDCWD), at(path)]) }.map(drop)
}

/// unlinkat(2): removes a file, or an empty directory.
pub fn unlink(path: &CStr, directory: bool) -> Result<()> {
    let flags = if directory { c::AT_REMOVEDIR as usize } else { 0 };
    // SAFETY: the kernel reads the path (unlink(2)).
    unsafe { call(c::__NR_unlinkat, [int(c::AT_FDCWD), at(path), flags]) }.map(drop)
}

/// readlinkat(2): where a symbolic link points, without a NUL.
pub fn readlink<'a>(path: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let target = buffer.as_mut_ptr().expose_provenance();
    // SAFETY: the kernel reads the path and writes at most the buffer's length (readlink(2)).
    let len = unsafe { call(c::__NR_readlinkat, [int(c::AT_FDCWD), at(path), target, buffer.len()]) }?;
    buffer.get(..len).ok_or(Errno::IO)
}

/// utimensat(2): sets a file's times to now.
pub fn touch(path: &CStr) -> Result<()> {
    // SAFETY: the kernel reads the path; a null pointer in place of times means now (utimensat(2)).
    unsafe { call(c::__NR_utimensat, [int(c::AT_FDCWD), at(path), 0, 0]) }.map(drop)
}

/// What statx(2) says about a file.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// File type and permissions, as `st_mode`.
    pub mode: u32,
    /// Number of hard links.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// For devices: major and minor number.
    pub device: (u32, u32),
}

impl Status {
    /// Whether it is a directory.
    pub const fn is_directory(&self) -> bool {
        self.mode & c::S_IFMT == c::S_IFDIR
    }
}

/// statx(2), following a symbolic link at the end only if told to.
pub fn status(path: &CStr, follow: bool) -> Result<Status> {
    let flags = if follow { 0 } else { c::AT_SYMLINK_NOFOLLOW as usize };
    let mut out = MaybeUninit::<c::statx>::uninit();
    let (target, mask) = (out.as_mut_ptr().expose_provenance(), c::STATX_BASIC_STATS as usize);
    // SAFETY: the kernel reads the path and fills the whole structure (statx(2)).
    let out = unsafe {
        call(c::__NR_statx, [int(c::AT_FDCWD), at(path), flags, mask, target])?;
        out.assume_init()
    };
    Ok(Status {
        mode: u32::from(out.stx_mode),
        links: out.stx_nlink,
        uid: out.stx_uid,
        gid: out.stx_gid,
        size: out.stx_size,
        device: (out.stx_rdev_major, out.stx_rdev_minor),
    })
}

/// faccessat(2) with `X_OK`: whether the file may be executed.
pub fn may_execute(path: &CStr) -> Result<()> {
    // SAFETY: the kernel reads the path (access(2)).
    unsafe { call(c::__NR_faccessat, [int(c::AT_FDCWD), at(path), c::X_OK as usize]) }.map(drop)
}

impl Fd {
    /// fsync(2).
    pub fn sync(self) -> Result<()> {
        plain(c::__NR_fsync, [int(self.0)]).map(drop)
    }

    /// lseek(2) to an offset from the start.
    pub fn seek(self, offset: u64) -> Result<()> {
        plain(c::__NR_lseek, [int(self.0), offset as usize, c::SEEK_SET as usize]).map(drop)
    }

    /// fchown(2).
    pub fn change_owner(self, uid: u32, gid: u32) -> Result<()> {
        plain(c::__NR_fchown, [int(self.0), uid as usize, gid as usize]).map(drop)
    }

    /// getdents64(2): fills the buffer with directory entries, for [`entries`]. Empty at the end.
    pub fn directory(self, buffer: &mut [u8]) -> Result<&[u8]> {
        let target = buffer.as_mut_ptr().expose_provenance();
        // SAFETY: the kernel writes at most the buffer's length (getdents(2)).
        let len = unsafe { call(c::__NR_getdents64, [int(self.0), target, buffer.len()]) }?;
        buffer.get(..len).ok_or(Errno::IO)
    }
}

/// The names that [`Fd::directory`] read, without `.` and `..`.
pub fn entries(mut buffer: &[u8]) -> impl Iterator<Item = &CStr> {
    // struct linux_dirent64: inode (8 bytes), offset (8), length of this entry (2), type (1), name (getdents(2)).
    core::iter::from_fn(move || {
        let &[l0, l1] = buffer.get(16..18)? else { return None };
        let (entry, rest) = buffer.split_at_checked(usize::from(u16::from_le_bytes([l0, l1])))?;
        buffer = rest;
        CStr::from_bytes_until_nul(entry.get(19..)?).ok()
    })
    .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_written_read_and_removed() {
        let path = std::ffi::CString::new(
            std::env::temp_dir().join(std::format!("freestanding-{}", std::process::id())).to_str().unwrap(),
        )
        .unwrap();
        let file = open(&path, flags::READ_WRITE | flags::CREATE, 0o600).unwrap();
        file.write_all(b"bytes").unwrap();
        file.sync().unwrap();
        file.seek(0).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(file.read(&mut buffer), Ok(5));
        assert_eq!(&buffer[..5], b"bytes");
        let status = status(&path, true).unwrap();
        assert_eq!((status.size, status.mode & 0o777), (5, 0o600));
        unlink(&path, false).unwrap();
        assert_eq!(open(&path, flags::READ, 0).err(), Some(Errno::NOENT));
    }

    #[test]
    fn a_directory_lists_its_entries() {
        let root = open(c"/proc/self", flags::DIRECTORY, 0).unwrap();
        let mut buffer = [0; 4096];
        let mut found = false;
        loop {
            let part = root.directory(&mut buffer).unwrap();
            if part.is_empty() {
                break;
            }
            found |= entries(part).any(|name| name == c"status");
        }
        assert!(found);
    }

    #[test]
    fn entries_that_claim_too_much_end_the_list() {
        assert_eq!(entries(&[0; 24]).count(), 0);
        let mut entry = [0; 24];
        entry[16] = 200;
        assert_eq!(entries(&entry).count(), 0);
    }

    #[test]
    fn the_null_device_is_one_three() {
        assert_eq!(status(c"/dev/null", true).unwrap().device, (1, 3));
    }
}
