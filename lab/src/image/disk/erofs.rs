//! EROFS on disk: the part of the format that an uncompressed image needs, as bytes.
//!
//! Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of the kernel. All numbers are little-endian. An inode is
//! named by its *nid*: its distance from the metadata area's beginning, in slots of 32 bytes. Behind each inode lie its
//! extended attributes, then the *tail* of its data (the last partial block) where the layout says so.

use crate::image::layer::Metadata;

/// The block size: that of x86's pages, which every kernel can mount.
pub(super) const BLOCK: u64 = 4096;
/// nids count in these.
pub(super) const SLOT: u64 = 32;
/// Where the superblock is; what is before it is for boot loaders.
pub(super) const SUPER_OFFSET: u64 = 1024;
/// The extended form of an inode: 32-bit owners, 64-bit sizes, its own modification time.
pub(super) const INODE_SIZE: u64 = 64;
/// A directory entry without its name.
pub(super) const DIRENT_SIZE: usize = 12;

const MAGIC: u32 = 0xe0f5_e1e2;
const BLOCK_BITS: u8 = BLOCK.ilog2() as u8;
/// Inodes have the time of the last change, not that of the image's making.
const COMPAT_MTIME: u32 = 2;

/// How an inode's data is stored (`i_format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// All in blocks, one after the other.
    Plain = 0,
    /// Whole blocks as in `Plain`, the rest behind the inode.
    Inline = 2,
}

/// What the superblock says.
pub(super) struct Superblock {
    /// 16 bits on disk, so the root comes first in the metadata area.
    pub root: u16,
    pub inodes: u64,
    pub blocks: u32,
    pub metadata_block: u32,
}

impl Superblock {
    pub fn encode(&self) -> [u8; 128] {
        let mut bytes = [0; 128];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_le_bytes());
        put(8, &COMPAT_MTIME.to_le_bytes());
        put(12, &[BLOCK_BITS]);
        put(14, &self.root.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(40, &self.metadata_block.to_le_bytes());
        put(64, b"lab");
        bytes
    }
}

/// An inode without what follows it.
pub(super) struct Inode<'a> {
    pub layout: Layout,
    pub xattr_size: u64,
    /// Type and permissions (`inode(7)`).
    pub mode: u16,
    pub size: u64,
    /// The first block of the data, or the device's number.
    pub location: u32,
    pub number: u32,
    pub links: u32,
    pub metadata: &'a Metadata,
}

impl Inode<'_> {
    pub fn encode(&self) -> [u8; INODE_SIZE as usize] {
        let mut bytes = [0; INODE_SIZE as usize];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        // Bit 0: the extended form. Bits 1 to 3: the layout.
        put(0, &(1 | (self.layout as u16) << 1).to_le_bytes());
        put(2, &xattr_count(self.xattr_size).to_le_bytes());
        put(4, &self.mode.to_le_bytes());
        put(8, &self.size.to_le_bytes());
        put(16, &self.location.to_le_bytes());
        put(20, &self.number.to_le_bytes());
        put(24, &self.metadata.uid.to_le_bytes());
        put(28, &self.metadata.gid.to_le_bytes());
        put(32, &self.metadata.mtime.0.to_le_bytes());
        put(40, &self.metadata.mtime.1.to_le_bytes());
        put(44, &self.links.to_le_bytes());
        bytes
    }
}

/// A device's number as the kernel's `new_encode_dev` writes it (include/linux/kdev_t.h).
pub(super) fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | major << 8 | (minor & !0xff) << 12
}

/// `erofs_xattr_ibody_size` backwards: a header of 12 bytes counts one, then one for every four bytes.
fn xattr_count(size: u64) -> u16 {
    if size == 0 { 0 } else { ((size - XATTR_HEADER) / 4 + 1) as u16 }
}

const XATTR_HEADER: u64 = 12;
/// The count above has 16 bits.
const LARGEST_XATTRS: usize = XATTR_HEADER as usize + 4 * (u16::MAX as usize - 1);

/// An inode's extended attributes, all inline. None where they are more than an inode can have.
pub(super) fn encode_xattrs(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Option<Vec<u8>> {
    // Name prefixes are numbers on disk (`EROFS_XATTR_INDEX_*`); ACLs have a number for their whole name.
    const PREFIXES: [(&[u8], u8); 5] = [
        (b"user.", 1),
        (b"system.posix_acl_access", 2),
        (b"system.posix_acl_default", 3),
        (b"trusted.", 4),
        (b"security.", 6),
    ];
    let mut bytes = Vec::new();
    for (name, value) in xattrs {
        let Some((rest, index)) =
            PREFIXES.iter().find_map(|(prefix, index)| Some((name.strip_prefix(*prefix)?, index)))
        else {
            continue;
        };
        if bytes.is_empty() {
            bytes.resize(XATTR_HEADER as usize, 0);
        }
        bytes.push(u8::try_from(rest.len()).ok()?);
        bytes.push(*index);
        bytes.extend_from_slice(&u16::try_from(value.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(rest);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    (bytes.len() <= LARGEST_XATTRS).then_some(bytes)
}

/// One name in a directory.
pub(super) struct Dirent<'a> {
    pub name: &'a [u8],
    pub nid: u64,
    /// The type as in `inode(7)`.
    pub mode: u16,
}

/// How many entries fit into each block of a directory, given their names in order.
pub(super) fn split_dirents<'a>(names: impl Iterator<Item = &'a [u8]>) -> Vec<(usize, usize)> {
    let mut blocks = Vec::new();
    let (mut count, mut used) = (0, 0);
    for name in names {
        let size = DIRENT_SIZE + name.len();
        if used + size > BLOCK as usize {
            blocks.push((count, used));
            (count, used) = (0, 0);
        }
        count += 1;
        used += size;
    }
    blocks.push((count, used));
    blocks
}

/// One block of a directory: its entries, then their names.
pub(super) fn encode_dirents(entries: &[Dirent<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK as usize);
    let mut name_at = entries.len() * DIRENT_SIZE;
    for entry in entries {
        bytes.extend_from_slice(&entry.nid.to_le_bytes());
        bytes.extend_from_slice(&(name_at as u16).to_le_bytes());
        bytes.extend_from_slice(&[file_type(entry.mode), 0]);
        name_at += entry.name.len();
    }
    for entry in entries {
        bytes.extend_from_slice(entry.name);
    }
    bytes
}

/// `FT_*` of include/linux/fs_types.h.
fn file_type(mode: u16) -> u8 {
    match mode & mode::FORMAT {
        mode::REGULAR => 1,
        mode::DIRECTORY => 2,
        mode::CHARACTER => 3,
        mode::BLOCK => 4,
        mode::FIFO => 5,
        mode::SYMLINK => 7,
        _ => 0,
    }
}

/// The file types of `inode(7)`.
pub(super) mod mode {
    pub const FORMAT: u16 = 0o170_000;
    pub const REGULAR: u16 = 0o100_000;
    pub const DIRECTORY: u16 = 0o040_000;
    pub const CHARACTER: u16 = 0o020_000;
    pub const BLOCK: u16 = 0o060_000;
    pub const FIFO: u16 = 0o010_000;
    pub const SYMLINK: u16 = 0o120_000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_to_four_bytes_behind_a_header() {
        assert_eq!(encode_xattrs(&[]), Some(Vec::new()));
        let bytes = encode_xattrs(&[(b"user.a".to_vec(), b"xyz".to_vec())]).unwrap();
        assert_eq!(bytes[12..], [1, 1, 3, 0, b'a', b'x', b'y', b'z']);
        assert_eq!(xattr_count(bytes.len() as u64), 3);
        let large = vec![(b"user.a".to_vec(), vec![0; 65535]); 5];
        assert_eq!(encode_xattrs(&large), None);
    }

    #[test]
    fn a_directory_s_names_never_cross_a_block() {
        let names: Vec<Vec<u8>> = (0..1000).map(|n| format!("file-{n:0200}").into_bytes()).collect();
        let blocks = split_dirents(names.iter().map(Vec::as_slice));
        assert_eq!(blocks.iter().map(|(count, _)| count).sum::<usize>(), 1000);
        assert!(blocks.iter().all(|(_, used)| *used <= BLOCK as usize));
    }

    #[test]
    fn device_numbers_are_encoded_as_the_kernel_does() {
        assert_eq!(device_number(1, 3), 0x103);
        assert_eq!(device_number(8, 0x12345), 0x1230_0845);
    }
}
