//! What the guest asks about open files and directories.

use std::fs::File;
use std::mem::MaybeUninit;

use rustix::fs::{
    FallocateFlags, FileType, OFlags, RawDir, SeekFrom, copy_file_range, fallocate, fdatasync, fsync, seek,
};
use rustix::io::Errno;

use super::nodes::TOP;
use super::protocol::{Answer, Args, FDATASYNC};
use super::server::{Handle, Kind, Server};

/// The most bytes of a directory that are read at once.
const LISTING: usize = 32 * 1024;

/// The most bytes that one request copies: the device does nothing else meanwhile.
const MOST_COPIED: u64 = 16 << 20;

type Result<T> = std::result::Result<T, Errno>;

impl Server {
    pub(super) fn open_directory(&mut self, node: u64) -> Result<Answer> {
        let kind = match node {
            TOP => Kind::Shares,
            node => {
                let file = self.nodes.reopen(node, OFlags::RDONLY | OFlags::DIRECTORY)?;
                Kind::Directory(file)
            }
        };
        let handle = self.add(node, kind)?;
        Ok(Answer::default().opened(handle))
    }

    pub(super) fn read_directory(&mut self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let (handle, offset, size) = (args.u64()?, args.u64()?, args.u32()?);
        let most = (size as usize).min(LISTING);
        match self.handles.get(&handle) {
            Some(Handle { node: of, kind }) if *of == node => match kind {
                Kind::Directory(file) => list(file, offset, most),
                Kind::Shares => {
                    let mut answer = Answer::default();
                    for (place, (number, share)) in (1..).zip(self.nodes.shares()).skip(offset as usize) {
                        if !answer.dirent(number, place, 0, share.name.as_bytes(), most) {
                            break;
                        }
                    }
                    Ok(answer)
                }
                Kind::File(_) => Err(Errno::NOTDIR),
            },
            _ => Err(Errno::BADF),
        }
    }

    pub(super) fn sync(&mut self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let (handle, flags, _) = (args.u64()?, args.u32()?, args.u32()?);
        match self.handles.get(&handle) {
            Some(Handle { node: of, kind }) if *of == node => match kind {
                Kind::File(file) if flags & FDATASYNC != 0 => fdatasync(&**file)?,
                Kind::File(file) => fsync(&**file)?,
                Kind::Directory(file) => fsync(file)?,
                Kind::Shares => {}
            },
            _ => return Err(Errno::BADF),
        }
        Ok(Answer::default())
    }

    pub(super) fn allocate(&mut self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let (handle, offset, len, mode) = (args.u64()?, args.u64()?, args.u64()?, args.u32()?);
        let mode = FallocateFlags::from_bits_retain(mode);
        fallocate(&*self.file(node, handle)?, mode, offset, len)?;
        Ok(Answer::default())
    }

    /// Where a file's data and holes are.
    pub(super) fn seek(&mut self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let (handle, offset, whence) = (args.u64()?, args.u64()?, args.u32()?);
        let to = match whence {
            3 => SeekFrom::Data(offset), // SEEK_DATA
            4 => SeekFrom::Hole(offset), // SEEK_HOLE
            _ => return Err(Errno::INVAL),
        };
        // The place in the open file matters to nobody: all reads and writes name theirs.
        Ok(Answer::default().u64(seek(&*self.file(node, handle)?, to)?))
    }

    pub(super) fn copy(&mut self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let (from, mut from_offset) = (args.u64()?, args.u64()?);
        let (to_node, to, mut to_offset, len) = (args.u64()?, args.u64()?, args.u64()?, args.u64()?);
        let (from, to) = (self.file(node, from)?, self.file(to_node, to)?);
        let len = len.min(MOST_COPIED) as usize;
        let copied = copy_file_range(&*from, Some(&mut from_offset), &*to, Some(&mut to_offset), len)?;
        Ok(Answer::default().u32(copied as u32).u32(0))
    }
}

/// Entries of a directory from `offset` on, as many as fit.
fn list(file: &File, offset: u64, most: usize) -> Result<Answer> {
    seek(file, SeekFrom::Start(offset))?;
    let mut answer = Answer::default();
    // The kernel's entries are never shorter than FUSE's by more than a third; what does not fit is read again.
    let mut buffer = vec![MaybeUninit::uninit(); most.clamp(1024, LISTING)];
    let mut entries = RawDir::new(file, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let kind = match entry.file_type() {
            FileType::Unknown => 0,
            known => known.as_raw_mode() >> 12, // DT_*, as dirent.h derives them
        };
        if !answer.dirent(entry.ino(), entry.next_entry_cookie(), kind, entry.file_name().to_bytes(), most) {
            break;
        }
        if entries.is_buffer_empty() {
            break;
        }
    }
    Ok(answer)
}
