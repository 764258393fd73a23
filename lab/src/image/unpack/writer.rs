//! Writing a layer's entries to a directory that nothing in them can lead out of.
//!
//! Every path is resolved by `openat2(2)` with `RESOLVE_IN_ROOT`: a symbolic link in the layer means what it would mean
//! inside the container, never a place of the host. Entries are made by the `*at` calls relative to the directory so
//! found, with `O_EXCL` and `O_NOFOLLOW`, so the last part of a path is never followed at all.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::rights::Rights;
use crate::image::error::{Error, Result};
use crate::image::layer::{Entry, Kind, LayerReader, Metadata};

/// While it is being filled, a directory is open to its owner only; its own mode comes at the end.
const IN_THE_MAKING: Mode = Mode::RWXU;

/// Writes a whole layer, and checks its digest.
pub(super) fn write_layer(mut layer: LayerReader, root: &Path, rights: Rights) -> Result<()> {
    let opened = rustix::fs::open(root, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mut writer = Writer {
        root: opened.map_err(Error::io("opening", root))?,
        rights,
        parent: None,
        directories: BTreeMap::from([(Vec::new(), Metadata::implied_directory())]),
    };
    while let Some(entry) = layer.next()? {
        let display = entry.display();
        writer.write(entry, &mut layer).map_err(|failure| match failure {
            Failure::Layer(error) => error,
            Failure::Refused(reason) => layer.refuse(&display, reason),
            Failure::System(Errno::LOOP) => layer.refuse(&display, "its path leads through too many links"),
            Failure::System(errno) if is_about_the_path(errno) => {
                layer.refuse(&display, io::Error::from(errno))
            }
            Failure::System(errno) => Error::io("unpacking", root.join(&display))(errno),
        })?;
    }
    writer.finish_directories().map_err(Error::io("unpacking into", root))?;
    layer.finish()
}

enum Failure {
    Layer(Error),
    Refused(&'static str),
    System(Errno),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Layer(error)
    }
}

/// Errors that only the layer's own paths can cause.
fn is_about_the_path(errno: Errno) -> bool {
    matches!(errno, Errno::NAMETOOLONG | Errno::NOTDIR | Errno::XDEV | Errno::NOENT)
}

struct Writer {
    root: OwnedFd,
    rights: Rights,
    /// The directory of the last entry: archives list a directory's entries together.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories get their mode and times when nothing more is put into them.
    directories: BTreeMap<Vec<u8>, Metadata>,
}

impl Writer {
    fn write(&mut self, entry: Entry, layer: &mut LayerReader) -> Result<(), Failure> {
        let (parent_path, name) = split(&entry.path);
        if name.is_empty() || entry.kind == Kind::Opaque {
            // The root itself, or a mark on a directory.
            self.enter(&entry.path)?;
            if entry.kind == Kind::Opaque {
                let directory = self.open(&entry.path, OFlags::RDONLY)?;
                return Ok(self.make_opaque(directory.as_fd())?);
            }
            self.directories.insert(entry.path, entry.metadata);
            return Ok(());
        }
        self.enter(parent_path)?;
        let Some((_, parent)) = &self.parent else { return Err(Failure::Refused("it has no parent")) };
        let parent = parent.as_fd();
        match &entry.kind {
            Kind::Directory => {
                self.make_directory(parent, name, true)?;
                self.directories.insert(entry.path, entry.metadata);
            }
            Kind::File { .. } => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let private = Mode::RUSR | Mode::WUSR;
                let file = replacing(parent, name, || rustix::fs::openat(parent, name, flags, private))?;
                let mut file = File::from(file);
                loop {
                    let chunk = layer.chunk()?;
                    let length = chunk.len();
                    if length == 0 {
                        break;
                    }
                    file.write_all(chunk).map_err(|error| errno(&error))?;
                    layer.consume(length);
                }
                self.apply(file.as_fd(), &entry.metadata)?;
            }
            Kind::HardLink { target } => self.hard_link(parent, name, target)?,
            Kind::Whiteout => self.white_out(parent, name)?,
            Kind::Symlink { target } => {
                replacing(parent, name, || rustix::fs::symlinkat(&target[..], parent, name))?;
                self.apply_by_name(parent, name, &entry.metadata)?;
                // What was found at this path before may be somewhere else from now on.
                self.parent = None;
            }
            Kind::Fifo => {
                replacing(parent, name, || {
                    rustix::fs::mknodat(parent, name, FileType::Fifo, IN_THE_MAKING, 0)
                })?;
                self.apply_by_name(parent, name, &entry.metadata)?;
            }
            Kind::Device { block, major, minor } if self.rights.devices => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                let number = rustix::fs::makedev(*major, *minor);
                replacing(parent, name, || rustix::fs::mknodat(parent, name, kind, IN_THE_MAKING, number))?;
                self.apply_by_name(parent, name, &entry.metadata)?;
            }
            // Left out: see the text of `super`.
            Kind::Device { .. } | Kind::Opaque => {}
        }
        Ok(())
    }

    /// Makes `path` the parent of what comes next, and makes it where the archive does not list it.
    fn enter(&mut self, path: &[u8]) -> Result<(), Failure> {
        if self.parent.as_ref().is_some_and(|(at, _)| at == path) {
            return Ok(());
        }
        let directory = match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.make_parents(path)?;
                self.open(path, OFlags::PATH)?
            }
            opened => opened?,
        };
        self.parent = Some((path.to_vec(), directory));
        Ok(())
    }

    fn make_parents(&mut self, path: &[u8]) -> Result<(), Failure> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let path = &path[..end];
            if self.open(path, OFlags::PATH).is_ok() {
                continue;
            }
            let (above, name) = split(path);
            let above = self.open(above, OFlags::PATH)?;
            if self.make_directory(above.as_fd(), name, false)? {
                self.directories.insert(path.to_vec(), Metadata::implied_directory());
            }
        }
        Ok(())
    }

    /// A directory below the root, wherever links in the layer lead.
    fn open(&self, path: &[u8], access: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { &b"."[..] } else { path };
        let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            // EAGAIN: something was renamed elsewhere meanwhile (openat2(2), "RESOLVE_IN_ROOT").
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Makes a directory; true where there was none. One that was listed takes the place of whatever has its name; one
    /// that is only implied does not.
    fn make_directory(&self, parent: BorrowedFd<'_>, name: &[u8], listed: bool) -> Result<bool, Failure> {
        let make = || rustix::fs::mkdirat(parent, name, IN_THE_MAKING);
        match make() {
            Err(Errno::EXIST) => {}
            result => return Ok(result.map(|()| true)?),
        }
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(false);
        }
        let hidden = is_whiteout(&stat);
        if !listed && !hidden {
            return Err(Failure::Refused("its path leads through something that is no directory"));
        }
        rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
        make()?;
        if hidden {
            // The lower layers' directory was hidden, so nothing of it may shine through the new one.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            self.make_opaque(rustix::fs::openat(parent, name, flags, Mode::empty())?.as_fd())?;
        }
        Ok(true)
    }

    fn make_opaque(&self, directory: BorrowedFd<'_>) -> Result<(), Errno> {
        rustix::fs::fsetxattr(directory, self.rights.opaque_attribute(), b"y", XattrFlags::empty())
    }

    /// A whiteout hides what the lower layers have, not what this layer has (OCI image specification, "Layer").
    fn white_out(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Failure> {
        // Character device 0:0; anyone may make this one since Linux 5.8.
        let made = rustix::fs::mknodat(
            parent,
            name,
            FileType::CharacterDevice,
            Mode::empty(),
            rustix::fs::makedev(0, 0),
        );
        if made != Err(Errno::EXIST) {
            return Ok(made?);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(directory) => Ok(self.make_opaque(directory.as_fd())?),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn hard_link(&self, parent: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> Result<(), Failure> {
        let (target_parent, target_name) = split(target);
        let missing = Failure::Refused("its hard link's target is not in this layer");
        let from = match self.open(target_parent, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(missing),
            opened => opened?,
        };
        let stat = match rustix::fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Err(missing),
            stat => stat?,
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(Failure::Refused("it is a hard link to a directory"));
        }
        // Under both names it is the same already; replacing would delete what it should link to.
        let here = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
        if here.is_ok_and(|here| (here.st_dev, here.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        let link = || rustix::fs::linkat(&from, target_name, parent, name, AtFlags::empty());
        Ok(replacing(parent, name, link)?)
    }

    /// Owner first: `chown(2)` clears set-user-id bits and file capabilities.
    fn apply(&self, file: BorrowedFd<'_>, metadata: &Metadata) -> Result<(), Errno> {
        // Everything here was made by this process, so it belongs to root until it is given away.
        if self.rights.owners && (metadata.uid, metadata.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(u32::from(metadata.mode)))?;
        for (name, value) in &metadata.xattrs {
            self.permit(rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()))?;
        }
        rustix::fs::futimens(file, &times(metadata))
    }

    /// For what cannot be opened without effect: links, devices, FIFOs. It was made a moment ago in a directory that
    /// only this process reaches, so its name is still its own.
    fn apply_by_name(&self, parent: BorrowedFd<'_>, name: &[u8], metadata: &Metadata) -> Result<(), Errno> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        if self.rights.owners && (metadata.uid, metadata.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), nofollow)?;
        }
        let stat = rustix::fs::statat(parent, name, nofollow)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            rustix::fs::chmodat(
                parent,
                name,
                Mode::from_raw_mode(u32::from(metadata.mode)),
                AtFlags::empty(),
            )?;
        }
        if !metadata.xattrs.is_empty() {
            // There is no *at call for attributes before Linux 6.13; proc(5) gives the open directory a path.
            let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
            path.extend_from_slice(name);
            for (name, value) in &metadata.xattrs {
                self.permit(rustix::fs::lsetxattr(&path[..], &name[..], value, XattrFlags::empty()))?;
            }
        }
        rustix::fs::utimensat(parent, name, &times(metadata), nofollow)
    }

    /// An attribute that this file system or this user cannot have is left out.
    fn permit(&self, result: Result<(), Errno>) -> Result<(), Errno> {
        match result {
            Err(Errno::NOTSUP) => Ok(()),
            Err(Errno::PERM) if !self.rights.devices => Ok(()),
            other => other,
        }
    }

    fn finish_directories(&mut self) -> Result<(), Errno> {
        // The deepest first: a directory may be closed to its own owner.
        for (path, metadata) in std::mem::take(&mut self.directories).into_iter().rev() {
            match self.open(&path, OFlags::RDONLY | OFlags::NOFOLLOW) {
                Ok(directory) => self.apply(directory.as_fd(), &metadata)?,
                // A later entry took its place.
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// Makes something; where its name is taken, by an earlier entry of this layer, that goes: the last entry stands.
fn replacing<T>(
    parent: BorrowedFd<'_>,
    name: &[u8],
    mut make: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match make() {
        Err(Errno::EXIST) => {}
        result => return result,
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {
            // Resolved from the directory's descriptor; the standard library follows no links below it.
            let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
            path.extend_from_slice(name);
            super::remove_tree(Path::new(OsStr::from_bytes(&path))).map_err(|error| errno(&error))?;
        }
        result => result?,
    }
    make()
}

/// A path's directory and last part.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn times(metadata: &Metadata) -> Timestamps {
    let (tv_sec, nanoseconds) = metadata.mtime;
    let time = Timespec { tv_sec, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
