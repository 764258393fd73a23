//! The first root file system: a cpio archive with `/init` and, for kernels that have them apart, modules.
//!
//! The archive is written straight into guest memory, so it never exists as a file, and costs one copy. The format is "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst): for each file a header of 110 characters, its name and its
//! bytes, each padded to four.

use std::fs::File;
use std::path::{Path, PathBuf};

use vm_memory::GuestMemoryMmap;

use crate::Error;
use crate::arch::layout;
use crate::memory::{self, LoadError};

const HEADER: u64 = 110;
const TRAILER: &str = "TRAILER!!!";
const EXECUTABLE: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;
const DIRECTORY: u32 = 0o040_755;

/// The files of an initramfs, in order.
#[derive(Debug, Default)]
pub struct Initramfs {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    mode: u32,
    content: Content,
    len: u64,
}

#[derive(Debug)]
enum Content {
    Bytes(&'static [u8]),
    File(File, PathBuf),
}

impl Initramfs {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an executable that is part of the VMM's own program.
    pub fn add_executable(&mut self, name: &str, bytes: &'static [u8]) {
        self.add(name, EXECUTABLE, Content::Bytes(bytes), bytes.len() as u64);
    }

    /// Adds a directory.
    pub fn add_directory(&mut self, name: &str) {
        self.add(name, DIRECTORY, Content::Bytes(&[]), 0);
    }

    /// Adds a file of the host.
    ///
    /// # Errors
    /// The file cannot be opened, or is 4 GiB or more, which the format has no room for.
    pub fn add_file(&mut self, name: &str, executable: bool, path: &Path) -> Result<(), Error> {
        let file = File::open(path).map_err(Error::file("open", path))?;
        let len = file.metadata().map_err(Error::file("look at", path))?.len();
        if len > u32::MAX.into() {
            let too_big = std::io::Error::from(std::io::ErrorKind::FileTooLarge);
            return Err(Error::file("put into the initramfs", path)(too_big));
        }
        self.add(name, if executable { EXECUTABLE } else { PLAIN }, Content::File(file, path.into()), len);
        Ok(())
    }

    fn add(&mut self, name: &str, mode: u32, content: Content, len: u64) {
        self.entries.push(Entry { name: name.trim_start_matches('/').to_owned(), mode, content, len });
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The archive's length in bytes.
    pub fn len(&self) -> u64 {
        let files: u64 =
            self.entries.iter().map(|entry| padded_head(&entry.name) + entry.len.next_multiple_of(4)).sum();
        files + padded_head(TRAILER)
    }

    /// Writes the archive to guest memory at `start`, which is a multiple of four.
    ///
    /// # Errors
    /// A file changed while it was read, or there is no memory for it.
    pub fn write(self, guest: &GuestMemoryMmap, start: u64) -> Result<(), Error> {
        let mut at = start;
        for (number, entry) in self.entries.into_iter().enumerate() {
            write_head(guest, at, number as u32 + 1, entry.mode, entry.len as u32, &entry.name)?;
            at += padded_head(&entry.name);
            match entry.content {
                Content::Bytes(bytes) => memory::write(guest, "initramfs", at, bytes)?,
                Content::File(mut file, path) => memory::load_file(guest, &mut file, 0, at, entry.len)
                    .map_err(|error| load_error(error, path))?,
            }
            at += entry.len.next_multiple_of(4);
        }
        write_head(guest, at, 0, 0, 0, TRAILER)
    }

    /// Where an archive of this length goes in a machine with so much RAM: at the end of the low RAM, because the kernel
    /// grows from below.
    pub fn place(len: u64, ram: u64) -> Option<u64> {
        let end = ram.min(layout::HOLE).min(layout::INITRAMFS_END_MAX);
        Some(end.checked_sub(len)? / layout::PAGE * layout::PAGE)
    }
}

fn load_error(error: LoadError, path: PathBuf) -> Error {
    let source = match error {
        LoadError::Io(source) => source,
        LoadError::Truncated => std::io::Error::other("it became shorter while it was read"),
        LoadError::OutsideMemory => std::io::Error::other("no guest memory is left for it; raise -m"),
    };
    Error::file("put into the initramfs", path)(source)
}

/// Length of a header with its name and their padding.
fn padded_head(name: &str) -> u64 {
    (HEADER + name.len() as u64 + 1).next_multiple_of(4)
}

fn write_head(
    guest: &GuestMemoryMmap,
    at: u64,
    inode: u32,
    mode: u32,
    size: u32,
    name: &str,
) -> Result<(), Error> {
    // magic, inode, mode, uid, gid, links, mtime, size, device (2), device it is (2), name length with NUL, checksum
    let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    let mut head = b"070701".to_vec();
    for field in fields {
        head.extend(format!("{field:08x}").bytes());
    }
    head.extend(name.bytes());
    head.push(0);
    head.resize(head.len().next_multiple_of(4), 0);
    memory::write(guest, "initramfs", at, &head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vm_memory::{Bytes, GuestAddress};

    fn written(archive: Initramfs) -> Vec<u8> {
        let guest = memory::allocate(4).unwrap();
        let mut bytes = vec![0; archive.len() as usize];
        archive.write(&guest, 0x10_0000).unwrap();
        guest.read_slice(&mut bytes, GuestAddress(0x10_0000)).unwrap();
        bytes
    }

    #[test]
    fn the_archive_is_the_format_byte_by_byte() {
        let mut archive = Initramfs::new();
        archive.add_executable("/init", b"#!");
        let head = "070701\
            00000001000081ed00000000000000000000000100000000\
            0000000200000000000000000000000000000000\
            0000000500000000init\0\0\0";
        let tail = "070701\
            00000000000000000000000000000000000000010000000000000000\
            00000000000000000000000000000000\
            0000000b00000000TRAILER!!!\0\0\0\0";
        // "init\0" ends at 115, so one byte of padding; the content is padded to four.
        let expected = [&head.as_bytes()[..116], b"#!\0\0", tail.as_bytes()].concat();
        assert_eq!(String::from_utf8_lossy(&written(archive)), String::from_utf8_lossy(&expected));
    }

    #[test]
    fn a_hosts_file_is_in_it_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 9000]).unwrap();
        let mut archive = Initramfs::new();
        archive.add_directory("modules");
        archive.add_file("modules/a.ko", false, file.path()).unwrap();
        let bytes = written(archive);
        let at = padded_head("modules") + padded_head("modules/a.ko");
        assert!(bytes[at as usize..at as usize + 9000] == [7; 9000]);
    }

    #[test]
    fn the_archive_ends_with_the_low_memory_and_below_2_gib() {
        assert_eq!(Initramfs::place(5000, 64 << 20), Some((64 << 20) - 8192));
        assert_eq!(Initramfs::place(4096, 16 << 30), Some((2 << 30) - 4096));
        assert_eq!(Initramfs::place(5000, 4096), None);
    }
}
