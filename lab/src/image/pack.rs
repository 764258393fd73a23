//! Writing trees as tar archives: what `docker cp` and `export` send, and the layers that `commit` makes.
//!
//! A tree may change while it is read, by a workload that means harm: every entry is opened relative to its directory's
//! descriptor and never through a symbolic link.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use tar_core::{EntryBuilder, EntryType};

const BLOCK: usize = 512;

/// How a tree is written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// The tree is an overlay's upper directory: what hides lower entries is written as whiteouts (OCI image
    /// specification, "Layer", section "Whiteouts").
    pub whiteouts: bool,
}

/// Says of a path in the archive, and whether it is a directory, that it is left out.
pub(crate) type Hidden = Box<dyn Fn(&[u8], bool) -> bool>;

/// A tar archive in the making.
pub(crate) struct Packer<W> {
    output: W,
    options: Options,
    /// What is left out, by its path and whether it is a directory.
    hidden: Option<Hidden>,
    /// Files with several names, by device and inode: the path they were written under.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<W> {
    pub fn new(output: W, options: Options) -> Self {
        Self { output, options, hidden: None, links: HashMap::new() }
    }

    /// Leaves out what this says, from now on.
    pub fn leave_out(&mut self, hidden: Hidden) {
        self.hidden = Some(hidden);
    }

    /// Writes an entry of a directory, with all below it, under this path.
    pub fn add(&mut self, parent: BorrowedFd<'_>, name: &OsStr, path: &[u8]) -> io::Result<()> {
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Gone since its directory was read.
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            stat => stat?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.hidden.as_ref().is_some_and(|hidden| hidden(path, kind == FileType::Directory)) {
            return Ok(());
        }
        match kind {
            FileType::Directory => self.add_directory_at(parent, name, path),
            FileType::RegularFile => self.add_file(parent, name, path, &stat),
            FileType::Symlink => {
                let target = readlinkat(parent, name, Vec::new())?;
                self.header(path, EntryType::Symlink, &stat, 0, target.to_bytes(), &[])
            }
            // A device without a driver is overlay's whiteout (Documentation/filesystems/overlayfs.rst).
            FileType::CharacterDevice if self.options.whiteouts && stat.st_rdev == 0 => {
                let at = path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
                let path = [&path[..at], b".wh.", &path[at..]].concat();
                self.header(&path, EntryType::Regular, &stat, 0, b"", &[])
            }
            FileType::CharacterDevice => self.header(path, EntryType::Char, &stat, 0, b"", &[]),
            FileType::BlockDevice => self.header(path, EntryType::Block, &stat, 0, b"", &[]),
            FileType::Fifo => self.header(path, EntryType::Fifo, &stat, 0, b"", &[]),
            // A socket means nothing without the process that listens at it.
            _ => Ok(()),
        }
    }

    /// Writes a directory of a directory, with all below it, under this path.
    pub fn add_directory_at(&mut self, parent: BorrowedFd<'_>, name: &OsStr, path: &[u8]) -> io::Result<()> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.add_directory(&openat(parent, name, flags, Mode::empty())?, path)
    }

    /// Writes a directory, with all below it, under this path; an empty one is the archive's root, which has no entry.
    pub fn add_directory(&mut self, directory: &OwnedFd, path: &[u8]) -> io::Result<()> {
        let stat = fstat(directory)?;
        let attributes = attributes(directory.as_fd());
        if !path.is_empty() {
            let path = [path, b"/"].concat();
            self.header(&path, EntryType::Directory, &stat, 0, b"", &attributes)?;
        }
        let join = |name: &[u8]| if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() };
        if self.options.whiteouts && is_opaque(directory.as_fd()) {
            self.header(&join(b".wh..wh..opq"), EntryType::Regular, &stat, 0, b"", &[])?;
        }
        let mut names: Vec<Vec<u8>> = Vec::new();
        for entry in Dir::read_from(directory)? {
            names.push(entry?.file_name().to_bytes().to_vec());
        }
        // Sorted, so that the same tree is the same archive.
        names.sort_unstable();
        for name in names.iter().filter(|name| !matches!(&name[..], b"." | b"..")) {
            self.add(directory.as_fd(), OsStr::from_bytes(name), &join(name))?;
        }
        Ok(())
    }

    fn add_file(&mut self, parent: BorrowedFd<'_>, name: &OsStr, path: &[u8], stat: &Stat) -> io::Result<()> {
        let key = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(first) = self.links.get(&key)
        {
            let first = first.clone();
            return self.header(path, EntryType::Link, stat, 0, &first, &[]);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::empty())?;
        // What was looked at may have been replaced since; what is open stays the same.
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let size = stat.st_size as u64;
        self.header(path, EntryType::Regular, &stat, size, b"", &attributes(file.as_fd()))?;
        // One that shrinks meanwhile is filled up with zeros: the header has promised its size.
        let copied = io::copy(&mut File::from(file).take(size), &mut self.output)?;
        io::copy(&mut io::repeat(0).take(size - copied), &mut self.output)?;
        self.pad(size)?;
        if stat.st_nlink > 1 {
            self.links.insert(key, path.to_vec());
        }
        Ok(())
    }

    /// Writes a file that is in memory.
    pub fn add_bytes(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let mut entry = EntryBuilder::new_ustar();
        entry.path(path).entry_type(EntryType::Regular);
        let set = |entry: &mut EntryBuilder| -> Result<(), tar_core::HeaderError> {
            entry.mode(0o644)?.uid(0)?.gid(0)?.mtime(0)?.size(content.len() as u64)?;
            Ok(())
        };
        set(&mut entry).map_err(io::Error::other)?;
        self.output.write_all(&entry.finish_bytes())?;
        self.output.write_all(content)?;
        self.pad(content.len() as u64)
    }

    fn header(
        &mut self,
        path: &[u8],
        kind: EntryType,
        stat: &Stat,
        size: u64,
        link: &[u8],
        attributes: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        let mut entry = EntryBuilder::new_ustar();
        entry.path(path).entry_type(kind);
        if !link.is_empty() {
            entry.link_name(link);
        }
        let mut set = || -> Result<(), tar_core::HeaderError> {
            entry.mode(stat.st_mode & 0o7777)?.uid(u64::from(stat.st_uid))?.gid(u64::from(stat.st_gid))?;
            entry.mtime(u64::try_from(stat.st_mtime).unwrap_or(0))?.size(size)?;
            if matches!(kind, EntryType::Char | EntryType::Block) {
                entry.device(rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))?;
            }
            Ok(())
        };
        set().map_err(io::Error::other)?;
        for (name, value) in attributes {
            entry.add_pax(&format!("SCHILY.xattr.{}", String::from_utf8_lossy(name)), value);
        }
        self.output.write_all(&entry.finish_bytes())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = size as usize % BLOCK;
        if over == 0 { Ok(()) } else { self.output.write_all(&[0; BLOCK][over..]) }
    }

    /// Ends the archive: two blocks of zeros.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.write_all(&[0; 2 * BLOCK])?;
        self.output.flush()?;
        Ok(self.output)
    }
}

/// The extended attributes that an archive carries: overlay's own are none of them.
fn attributes(file: BorrowedFd<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 64 * 1024];
    let Ok(length) = rustix::fs::flistxattr(file, &mut names) else { return Vec::new() };
    let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let wanted = names.filter(|name| !name.starts_with(b"trusted.") && !name.starts_with(b"user.overlay."));
    wanted
        .filter_map(|name| {
            let mut value = vec![0; 64 * 1024];
            let length = rustix::fs::fgetxattr(file, OsStr::from_bytes(name), &mut value).ok()?;
            value.truncate(length);
            Some((name.to_vec(), value))
        })
        .collect()
}

fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    let mut value = [0; 1];
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        rustix::fs::fgetxattr(directory, *name, &mut value)
            .is_ok_and(|length| length == 1 && value[0] == b'y')
    })
}

#[cfg(test)]
mod tests {
    use super::super::tar::Archive;
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_comes_back_as_it_was_and_links_are_links() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("folder")).unwrap();
        std::fs::write(tree.path().join("folder/file"), "content").unwrap();
        std::fs::hard_link(tree.path().join("folder/file"), tree.path().join("twin")).unwrap();
        symlink("folder/file", tree.path().join("link")).unwrap();
        let mut packer = Packer::new(Vec::new(), Options::default());
        packer.add_directory(&File::open(tree.path()).unwrap().into(), b"").unwrap();
        let bytes = packer.finish().unwrap();
        let mut archive = Archive::new(&bytes[..]);
        let mut seen = Vec::new();
        while let Some(member) = archive.next().unwrap() {
            let content = archive.content(100).unwrap();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            seen.push((text(&member.path), text(&member.link), text(&content)));
        }
        let entry =
            |path: &str, link: &str, content: &str| (path.to_owned(), link.to_owned(), content.to_owned());
        assert_eq!(
            seen,
            [
                entry("folder/", "", ""),
                entry("folder/file", "", "content"),
                entry("link", "folder/file", ""),
                entry("twin", "folder/file", "")
            ]
        );
    }

    #[test]
    fn names_longer_than_a_header_s_field_are_kept() {
        let tree = tempfile::tempdir().unwrap();
        let name = "n".repeat(200);
        std::fs::write(tree.path().join(&name), "x").unwrap();
        let mut packer = Packer::new(Vec::new(), Options::default());
        packer.add_directory(&File::open(tree.path()).unwrap().into(), b"deep").unwrap();
        let bytes = packer.finish().unwrap();
        let mut archive = Archive::new(&bytes[..]);
        archive.next().unwrap();
        assert_eq!(archive.next().unwrap().unwrap().path, format!("deep/{name}").as_bytes());
    }
}
