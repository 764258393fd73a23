//! FUSE's messages: what the guest's kernel asks, and what it is answered (Linux, include/uapi/linux/fuse.h).
//!
//! A request is a header of 40 bytes, then numbers, then names that end in NUL; an answer is a header of 16 bytes and what was
//! asked for. All numbers are little-endian here. Nothing in a request is believed: [`Args`] hands out what is there and says
//! [`Errno::INVAL`] where there is less.

use rustix::fs::{Statx, StatxTimestamp};
use rustix::io::Errno;

/// The version spoken: 7.31, which every kernel with virtio-fs (5.4) or a later one speaks too.
pub(super) const MAJOR: u32 = 7;
pub(super) const MINOR: u32 = 31;

/// Bytes of a request's header.
pub(super) const REQUEST: usize = 40;
/// Bytes of an answer's header.
pub(super) const ANSWER: usize = 16;

/// What a request asks (`enum fuse_opcode`).
pub(super) mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
}

/// What both sides can do (`FUSE_INIT` flags).
pub(super) mod can {
    /// Several reads of a file at once.
    pub const ASYNC_READ: u32 = 1 << 0;
    /// Open cuts the file itself.
    pub const ATOMIC_O_TRUNC: u32 = 1 << 3;
    /// Writes of more than a page.
    pub const BIG_WRITES: u32 = 1 << 5;
    /// Pages in the guest's cache are dropped when the file's size or time says that the host changed it.
    pub const AUTO_INVAL_DATA: u32 = 1 << 12;
    /// Several look-ups in a directory at once.
    pub const PARALLEL_DIROPS: u32 = 1 << 18;
    /// The answer says how many pages a request may have.
    pub const MAX_PAGES: u32 = 1 << 22;
}

/// Which attributes `SETATTR` sets (`FATTR_*`).
pub(super) mod set {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
}

/// `GETATTR` names an open file (`FUSE_GETATTR_FH`).
pub(super) const GETATTR_FH: u32 = 1;
/// A write of pages from the guest's cache, at just this place (`FUSE_WRITE_CACHE`).
pub(super) const WRITE_CACHE: u32 = 1;
/// `FSYNC` of the data only (`FUSE_FSYNC_FDATASYNC`).
pub(super) const FDATASYNC: u32 = 1;

/// A request's header (`struct fuse_in_header`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// What is asked.
    pub opcode: u32,
    /// By what the answer is known.
    pub unique: u64,
    /// What it is about.
    pub node: u64,
    /// Who asks.
    pub uid: u32,
    pub gid: u32,
}

impl Request {
    pub(super) fn read(bytes: [u8; REQUEST]) -> Self {
        let mut args = Args(&bytes);
        // There are as many bytes as this reads.
        let mut next = || args.u32().unwrap_or(0);
        let (_len, opcode) = (next(), next());
        let mut long = || u64::from(next()) | u64::from(next()) << 32;
        let (unique, node) = (long(), long());
        Self { opcode, unique, node, uid: next(), gid: next() }
    }
}

/// The rest of a request, read from its front.
#[derive(Debug)]
pub(super) struct Args<'a>(pub &'a [u8]);

impl<'a> Args<'a> {
    pub(super) fn u32(&mut self) -> Result<u32, Errno> {
        let (number, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*number))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Errno> {
        let (number, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*number))
    }

    /// Bytes up to the next NUL.
    pub(super) fn text(&mut self) -> Result<&'a [u8], Errno> {
        let end = self.0.iter().position(|&byte| byte == 0).ok_or(Errno::INVAL)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(text)
    }

    /// A name in a directory: one that leads nowhere else.
    pub(super) fn name(&mut self) -> Result<&'a [u8], Errno> {
        match self.text()? {
            b"" | b"." | b".." => Err(Errno::INVAL),
            name if name.contains(&b'/') => Err(Errno::INVAL),
            name if name.len() > 255 => Err(Errno::NAMETOOLONG),
            name => Ok(name),
        }
    }
}

/// What follows an answer's header.
#[derive(Debug, Default)]
pub(super) struct Answer(pub Vec<u8>);

impl Answer {
    pub(super) fn u32(mut self, number: u32) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(super) fn u64(mut self, number: u64) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(super) fn zeroes(mut self, bytes: usize) -> Self {
        self.0.resize(self.0.len() + bytes, 0);
        self
    }

    /// A node and its attributes (`struct fuse_entry_out`). The guest may believe neither for any time: it asks again at the
    /// next use, so what the host changes is seen at once.
    pub(super) fn entry(self, node: u64, status: &Statx, ino: u64) -> Self {
        self.u64(node).u64(0).u64(0).u64(0).u64(0).attributes(status, ino)
    }

    /// `struct fuse_attr_out`.
    pub(super) fn attr_out(self, status: &Statx, ino: u64) -> Self {
        self.u64(0).u64(0).attributes(status, ino)
    }

    /// `struct fuse_attr`.
    fn attributes(self, status: &Statx, ino: u64) -> Self {
        let times = [status.stx_atime, status.stx_mtime, status.stx_ctime];
        let seconds = |time: StatxTimestamp| time.tv_sec as u64;
        let [atime, mtime, ctime] = times;
        self.u64(ino)
            .u64(status.stx_size)
            .u64(status.stx_blocks)
            .u64(seconds(atime))
            .u64(seconds(mtime))
            .u64(seconds(ctime))
            .u32(atime.tv_nsec)
            .u32(mtime.tv_nsec)
            .u32(ctime.tv_nsec)
            .u32(status.stx_mode.into())
            .u32(status.stx_nlink)
            .u32(status.stx_uid)
            .u32(status.stx_gid)
            .u32(encode_device(status.stx_rdev_major, status.stx_rdev_minor))
            .u32(status.stx_blksize)
            .u32(0)
    }

    /// An open file (`struct fuse_open_out`).
    pub(super) fn opened(self, handle: u64) -> Self {
        self.u64(handle).u64(0)
    }

    /// An entry of a directory (`struct fuse_dirent`), padded to eight bytes, if it fits into `most` bytes. Whether it did.
    pub(super) fn dirent(&mut self, ino: u64, next: u64, kind: u32, name: &[u8], most: usize) -> bool {
        let len = (24 + name.len()).next_multiple_of(8);
        if self.0.len() + len > most {
            return false;
        }
        let end = self.0.len() + len;
        self.0.extend(ino.to_le_bytes());
        self.0.extend(next.to_le_bytes());
        self.0.extend((name.len() as u32).to_le_bytes());
        self.0.extend(kind.to_le_bytes());
        self.0.extend(name);
        self.0.resize(end, 0);
        true
    }
}

/// A device's number as FUSE has it (`new_encode_dev`, include/linux/kdev_t.h).
fn encode_device(major: u32, minor: u32) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12
}

/// And back: major, minor.
pub(super) fn decode_device(number: u32) -> (u32, u32) {
    (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_from_its_front_and_no_further_than_it_is() {
        let mut args = Args(b"\x01\x00\x00\x00name\0rest");
        assert_eq!((args.u32(), args.name()), (Ok(1), Ok(&b"name"[..])));
        assert_eq!((args.text(), args.u64(), args.0), (Err(Errno::INVAL), Err(Errno::INVAL), &b"rest"[..]));
    }

    #[test]
    fn what_leads_out_of_a_directory_is_no_name() {
        for name in [&b"\0"[..], b".\0", b"..\0", b"a/b\0", b"/\0", b"no end"] {
            assert_eq!(Args(name).name(), Err(Errno::INVAL), "{name:?}");
        }
        assert_eq!(Args(&[vec![b'x'; 256], vec![0]].concat()).name(), Err(Errno::NAMETOOLONG));
        assert_eq!(Args(b"...\0").name(), Ok(&b"..."[..]));
    }

    #[test]
    fn a_devices_number_survives() {
        for device in [(1, 3), (8, 300), (0xfff, 0xfffff)] {
            assert_eq!(decode_device(encode_device(device.0, device.1)), device);
        }
    }
}
