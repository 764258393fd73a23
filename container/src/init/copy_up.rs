//! `tmpcopyup`: a new tmpfs begins with what the image has in the directory that it covers.
//!
//! Everything is opened by name below an open directory and never through a link, so the image cannot lead out of
//! itself. No memory is allocated: the names come in a buffer on the stack, and so do the files' contents.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, Uid, chmodat, chownat, mkdirat, mknodat, openat,
    readlinkat_raw, statat, symlinkat,
};
use rustix::io::Errno;

use crate::sys;

/// Directories in directories in ...: the stack is not endless.
const DEPTH: u32 = 32;

/// Copies what is in one directory to another.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> sys::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    copy_below(&openat(from, c".", flags, Mode::empty())?, &openat(to, c".", flags, Mode::empty())?, DEPTH)
}

fn copy_below(from: &OwnedFd, to: &OwnedFd, depth: u32) -> sys::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(from, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
                mkdirat(to, name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let (below, new) =
                    (openat(from, name, flags, Mode::empty())?, openat(to, name, flags, Mode::empty())?);
                copy_below(&below, &new, depth)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = openat(from, name, flags | OFlags::RDONLY, Mode::empty())?;
                let new =
                    openat(to, name, flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::RUSR)?;
                let mut data = [0u8; 8192];
                loop {
                    let length = rustix::io::read(&source, &mut data)?;
                    if length == 0 {
                        break;
                    }
                    let mut rest = &data[..length];
                    while !rest.is_empty() {
                        rest = &rest[rustix::io::write(&new, rest)?..];
                    }
                }
            }
            FileType::Symlink => {
                // One byte stays for the NUL.
                let mut target = [0; libc::PATH_MAX as usize];
                let last = target.len() - 1;
                readlinkat_raw(from, name, &mut target[..last])?;
                symlinkat(CStr::from_bytes_until_nul(&target).map_err(|_| Errno::INVAL)?, to, name)?;
            }
            typ => mknodat(to, name, typ, mode, stat.st_rdev)?,
        }
        let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        chownat(to, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            chmodat(to, name, mode, AtFlags::empty())?; // last: a change of the owner takes set-user-id away (chown(2))
        }
    }
    Ok(())
}
