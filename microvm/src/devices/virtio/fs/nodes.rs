//! What the guest knows: files and directories of the shares, each by a number.
//!
//! The guest's kernel names a file by the number that a look-up gave it, and later forgets it. Here a number stands for an
//! `O_PATH` descriptor (open(2)), which is the file, whatever its name becomes. So a path is never walked: every step is one name
//! in one open directory, without following links, and nothing that host or guest rename meanwhile leads out of a share.
//!
//! A process may have so many descriptors and no more, but a guest's cache may hold any number of files. So the descriptors that
//! were opened first are closed again when there are too many; such a file is found by its name in its parent when it is needed,
//! and is only taken if it is still the same.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat, openat2, statx};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::super::sys;
use crate::Error;

/// The directory whose entries are the shares.
pub(super) const TOP: u64 = 1;

/// The first share's number; the others follow.
const FIRST: u64 = 2;

/// How deep a file may lie below the last directory that has a descriptor: as deep as a path can be (PATH_MAX / 2).
const DEPTH: usize = 2048;

/// A directory or file of the host that a guest sees.
#[derive(Clone, Debug)]
pub struct Share {
    pub(super) name: String,
    fd: Arc<OwnedFd>,
    pub(super) read_only: bool,
}

impl Share {
    /// Opens what is to be shared. A symbolic link is followed here, and from here on none.
    ///
    /// # Errors
    /// [`Error::File`] where it is not there.
    pub fn open(name: &str, path: &Path, read_only: bool) -> Result<Self, Error> {
        let fd = detached(path, read_only).map_err(|errno| Error::file("share", path)(errno.into()))?;
        Ok(Self { name: name.into(), fd: Arc::new(fd), read_only })
    }

    /// Whether it is a directory, rather than a file.
    pub(crate) fn is_directory(&self) -> bool {
        status(&self.fd).is_ok_and(|status| u32::from(status.stx_mode) & 0o170_000 == 0o040_000)
    }
}

/// A place of the host, cut out of its tree: `..` ends at it, so whoever holds only this descriptor has nothing else of the host,
/// even where no name is checked (open_tree(2), mount_setattr(2)). Devices cannot be opened there. Only root may cut; for others
/// it stays where it is.
// ANCHOR: detached
fn detached(path: &Path, read_only: bool) -> Result<OwnedFd, Errno> {
    let whole = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE;
    match open_tree(CWD, path, whole | OpenTreeFlags::OPEN_TREE_CLOEXEC) {
        Ok(tree) => {
            // Kernels before 5.12 cannot; the server's own rules are then the only ones.
            let _ = sys::restrict_mounts(&tree, read_only);
            Ok(tree)
        }
        Err(_) => openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()),
    }
}
// ANCHOR_END: detached

/// What tells a file from all others. An inode's number is used again after its end; its time of birth is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    share: usize,
    device: (u32, u32),
    ino: u64,
    born: (i64, u32),
}

#[derive(Debug)]
struct Node {
    key: Key,
    /// Where it was found last.
    parent: u64,
    name: Box<[u8]>,
    /// How often the guest was given its number, less how often it forgot it.
    known: u64,
    fd: Option<Arc<OwnedFd>>,
    /// It cannot be found by its name any more, or it is a share: its descriptor stays.
    keep: bool,
}

/// The table.
#[derive(Debug)]
pub(super) struct Nodes {
    shares: Vec<Share>,
    by_number: HashMap<u64, Node>,
    by_key: HashMap<Key, u64>,
    next: u64,
    /// Nodes with a descriptor, in the order in which they got it; and some that are forgotten.
    open: VecDeque<u64>,
    most_open: usize,
    most: usize,
    /// Each host device seen so far: their inodes may have equal numbers.
    devices: Vec<(u32, u32)>,
    /// `/proc/self/fd`, where an `O_PATH` descriptor is opened for good.
    own_fds: OwnedFd,
}

impl Nodes {
    /// A table that knows the shares, with at most `most_open` descriptors, for `most` files.
    pub(super) fn new(shares: Vec<Share>, most_open: usize, most: usize) -> Result<Self, Errno> {
        let mut this = Self {
            own_fds: detached(Path::new("/proc/self/fd"), false)?,
            shares,
            by_number: HashMap::new(),
            by_key: HashMap::new(),
            next: FIRST,
            open: VecDeque::new(),
            most_open,
            most,
            devices: Vec::new(),
        };
        this.reset()?;
        Ok(this)
    }

    /// Forgets all but the shares.
    pub(super) fn reset(&mut self) -> Result<(), Errno> {
        self.by_number.clear();
        self.by_key.clear();
        self.open.clear();
        for (index, share) in self.shares.iter().enumerate() {
            let status = status(&share.fd)?;
            let key = Key::of(index, &status);
            let name = share.name.as_bytes().into();
            let node = Node { key, parent: TOP, name, known: 1, fd: Some(share.fd.clone()), keep: true };
            self.by_number.insert(FIRST + index as u64, node);
            self.by_key.insert(key, FIRST + index as u64);
        }
        self.next = FIRST + self.shares.len() as u64;
        Ok(())
    }

    /// The shares, with their numbers.
    pub(super) fn shares(&self) -> impl Iterator<Item = (u64, &Share)> {
        (FIRST..).zip(&self.shares)
    }

    /// Whether the guest knows nothing but the shares.
    pub(super) fn is_fresh(&self) -> bool {
        self.by_number.len() == self.shares.len()
    }

    /// The share that a node is in, by its place; each of two shares of one directory has nodes of its own.
    pub(super) fn share(&self, number: u64) -> Result<usize, Errno> {
        self.by_number.get(&number).map(|node| node.key.share).ok_or(Errno::STALE)
    }

    /// Whether a node may be changed.
    pub(super) fn check_writable(&self, number: u64) -> Result<(), Errno> {
        match self.shares.get(self.share(number)?) {
            Some(share) if !share.read_only => Ok(()),
            _ => Err(Errno::ROFS),
        }
    }

    /// A node's descriptor, which names it and can do no more (`O_PATH`).
    pub(super) fn fd(&mut self, number: u64) -> Result<Arc<OwnedFd>, Errno> {
        // From the node up to one that is open, then back down.
        let mut way = vec![number];
        let mut fd = loop {
            let last = way[way.len() - 1];
            let node = self.by_number.get(&last).ok_or(Errno::STALE)?;
            match &node.fd {
                Some(fd) => break fd.clone(),
                None if way.len() > DEPTH => return Err(Errno::STALE),
                None => way.push(node.parent),
            }
        };
        way.pop();
        while let Some(number) = way.pop() {
            let node = self.by_number.get(&number).ok_or(Errno::STALE)?;
            let child = child(&fd, &node.name).map_err(|_| Errno::STALE)?;
            if Key::of(node.key.share, &status(&child)?) != node.key {
                return Err(Errno::STALE);
            }
            fd = Arc::new(child);
            self.open(number, fd.clone())?;
        }
        Ok(fd)
    }

    /// A node opened for good. Only files and directories: opening a device or a FIFO does something by itself.
    pub(super) fn reopen(&mut self, number: u64, flags: OFlags) -> Result<File, Errno> {
        let fd = self.fd(number)?;
        self.reopen_fd(&fd, flags)
    }

    /// The same for a descriptor.
    pub(super) fn reopen_fd(&self, fd: &OwnedFd, flags: OFlags) -> Result<File, Errno> {
        let mode = u32::from(status(fd)?.stx_mode);
        match rustix::fs::FileType::from_raw_mode(mode) {
            rustix::fs::FileType::RegularFile => {}
            rustix::fs::FileType::Directory => {
                let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
                return Ok(openat2(fd, ".", flags, Mode::empty(), CONFINED)?.into());
            }
            rustix::fs::FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::NXIO),
        }
        let name = fd.as_raw_fd().to_string();
        Ok(openat(&self.own_fds, name, flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?.into())
    }

    /// The same file as an open one, as a descriptor that can do nothing.
    pub(super) fn path_of(&self, file: &File) -> Result<OwnedFd, Errno> {
        openat(&self.own_fds, file.as_raw_fd().to_string(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    }

    /// A node as a name below [`Nodes::own_fds`], for the system calls that take nothing else; it is to be followed.
    pub(super) fn as_path<T>(
        &mut self,
        number: u64,
        call: impl FnOnce(&OwnedFd, &str) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let fd = self.fd(number)?;
        call(&self.own_fds, &fd.as_raw_fd().to_string())
    }

    /// Looks a name up. Its number, and how it is.
    // ANCHOR: look_up
    pub(super) fn look_up(&mut self, parent: u64, name: &[u8]) -> Result<(u64, Statx), Errno> {
        if parent == TOP {
            let found = self.shares().find(|(_, share)| share.name.as_bytes() == name);
            let number = found.ok_or(Errno::NOENT)?.0;
            let status = status(&self.fd(number)?)?;
            return Ok((number, status));
        }
        let fd = child(&self.fd(parent)?, name)?;
        self.enter(parent, name, fd)
    }
    // ANCHOR_END: look_up

    /// Gives an open file its number.
    pub(super) fn enter(&mut self, parent: u64, name: &[u8], fd: OwnedFd) -> Result<(u64, Statx), Errno> {
        let status = status(&fd)?;
        let key = Key::of(self.share(parent)?, &status);
        let number = match self.by_key.get(&key) {
            Some(&number) => number,
            None if self.by_number.len() >= self.most => return Err(Errno::NFILE),
            None => {
                self.next += 1;
                let node = Node { key, parent, name: name.into(), known: 0, fd: None, keep: false };
                self.by_number.insert(self.next, node);
                self.by_key.insert(key, self.next);
                self.next
            }
        };
        let is_open = self.by_number.get(&number).is_some_and(|node| node.fd.is_some());
        if !is_open && let Err(errno) = self.open(number, Arc::new(fd)) {
            self.forget(number, 0);
            return Err(errno);
        }
        if let Some(node) = self.by_number.get_mut(&number) {
            node.known = node.known.saturating_add(1);
            self.place(number, parent, name);
        }
        Ok((number, status))
    }

    /// A node of this name is there now.
    pub(super) fn place(&mut self, number: u64, parent: u64, name: &[u8]) {
        let is_share = self.is_share(number);
        if let Some(node) = self.by_number.get_mut(&number)
            && !is_share
        {
            (node.parent, node.name, node.keep) = (parent, name.into(), false);
        }
    }

    /// The node behind a name, if the guest knows it: with its descriptor, for what happens to the name next.
    pub(super) fn behind(&mut self, parent: u64, name: &[u8]) -> Option<(u64, Arc<OwnedFd>)> {
        let share = self.share(parent).ok()?;
        let fd = child(&self.fd(parent).ok()?, name).ok()?;
        let key = Key::of(share, &status(&fd).ok()?);
        Some((*self.by_key.get(&key)?, Arc::new(fd)))
    }

    /// The node's name is gone: from now on only its descriptor leads to it.
    pub(super) fn keep(&mut self, (number, fd): (u64, Arc<OwnedFd>)) {
        // More than may be open, at worst: then the next look-up is refused.
        let _ = self.open(number, fd);
        if let Some(node) = self.by_number.get_mut(&number) {
            node.keep = true;
        }
    }

    /// The guest gave up so many of a node's uses.
    pub(super) fn forget(&mut self, number: u64, uses: u64) {
        if self.is_share(number) {
            return;
        }
        if let Some(node) = self.by_number.get_mut(&number) {
            node.known = node.known.saturating_sub(uses);
            if node.known == 0 {
                self.by_key.remove(&node.key);
                self.by_number.remove(&number);
            }
        }
    }

    /// The inode's number as the guest sees it: the host's own for the first device, and with the device above it for others.
    pub(super) fn ino(&mut self, status: &Statx) -> u64 {
        let device = (status.stx_dev_major, status.stx_dev_minor);
        let place = self.devices.iter().position(|known| *known == device).unwrap_or_else(|| {
            self.devices.push(device);
            self.devices.len() - 1
        });
        status.stx_ino ^ (place as u64) << 48
    }

    fn is_share(&self, number: u64) -> bool {
        (FIRST..FIRST + self.shares.len() as u64).contains(&number)
    }

    /// Notes a node's descriptor, and closes others if there are too many.
    fn open(&mut self, number: u64, fd: Arc<OwnedFd>) -> Result<(), Errno> {
        let Some(node) = self.by_number.get_mut(&number) else { return Err(Errno::STALE) };
        if node.fd.replace(fd).is_none() {
            self.open.push_back(number);
        }
        for _ in 0..self.open.len() {
            if self.open.len() <= self.most_open {
                return Ok(());
            }
            let Some(oldest) = self.open.pop_front() else { break };
            match self.by_number.get_mut(&oldest) {
                Some(node) if node.keep || oldest == number => self.open.push_back(oldest),
                Some(node) => node.fd = None,
                None => {}
            }
        }
        if self.open.len() <= self.most_open { Ok(()) } else { Err(Errno::NFILE) }
    }
}

impl Key {
    fn of(share: usize, status: &Statx) -> Self {
        Self {
            share,
            device: (status.stx_dev_major, status.stx_dev_minor),
            ino: status.stx_ino,
            born: (status.stx_btime.tv_sec, status.stx_btime.tv_nsec),
        }
    }
}

/// Nothing but what lies in the directory, and no links (openat2(2)).
pub(super) const CONFINED: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_SYMLINKS);

/// What a directory has of this name, as a descriptor that can do nothing; a symbolic link is the link itself.
// ANCHOR: child
pub(super) fn child(directory: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    // With O_PATH and O_NOFOLLOW the last part of a path may be a link, which RESOLVE_NO_SYMLINKS then takes as it is.
    openat2(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), CONFINED)
}
// ANCHOR_END: child

/// How a file is.
pub(super) fn status(fd: impl AsFd) -> Result<Statx, Errno> {
    statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}
