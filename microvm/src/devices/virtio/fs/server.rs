//! What the guest asks about names and attributes, and what is done.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{
    AtFlags, Dev, FileType, Mode, OFlags, RenameFlags, Statx, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
    chmodat, chownat, fstatvfs, ftruncate, linkat, makedev, mkdirat, mknodat, openat2, readlinkat,
    renameat_with, symlinkat, syncfs, unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::umask;

use super::caller::Owners;
use super::nodes::{CONFINED, Nodes, TOP, child, status};
use super::protocol::{Answer, Args, GETATTR_FH, MAJOR, MINOR, Request, can, decode_device, op, set};
use super::{MAX_PAGES, MAX_WRITE};

/// The flags of an open file that matter on the host; what else the guest says is its own business.
const OPEN_FLAGS: OFlags =
    OFlags::WRONLY.union(OFlags::RDWR).union(OFlags::TRUNC).union(OFlags::SYNC).union(OFlags::DSYNC);

/// The device files that may be made: what every container has, and what overlayfs marks a removed file with. One that made
/// others could open any disk of the host by them, together with somebody there.
const DEVICES: [(u32, u32); 9] = [(0, 0), (1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];

/// An open file or directory.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) node: u64,
    pub(super) kind: Kind,
}

/// What is open.
#[derive(Debug)]
pub(super) enum Kind {
    /// A regular file.
    File(Arc<File>),
    /// A directory.
    Directory(File),
    /// The list of the shares.
    Shares,
}

/// All that the guest holds, and how it is answered.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) nodes: Nodes,
    pub(super) handles: HashMap<u64, Handle>,
    next_handle: u64,
    most_handles: usize,
    pub(super) owners: Owners,
    has_own_umask: bool,
}

type Result<T> = std::result::Result<T, Errno>;

impl Server {
    pub(super) fn new(nodes: Nodes, most_handles: usize) -> Self {
        let owners = Owners::of_process();
        Self { nodes, handles: HashMap::new(), next_handle: 1, most_handles, owners, has_own_umask: false }
    }

    pub(super) fn reset(&mut self) {
        self.handles.clear();
        // It read the same at the start; if it cannot now, look-ups say so.
        let _ = self.nodes.reset();
    }

    /// Answers a request, other than those whose data does not come through memory of ours.
    pub(super) fn answer(&mut self, request: Request, args: &mut Args<'_>) -> Result<Answer> {
        self.take_umask()?;
        let node = request.node;
        match request.opcode {
            op::INIT => Self::init(args),
            op::DESTROY => {
                self.reset();
                Ok(Answer::default())
            }
            op::LOOKUP => {
                let found = self.nodes.look_up(node, args.name()?)?;
                Ok(self.entry(found))
            }
            op::GETATTR => self.get_attributes(node, args),
            op::SETATTR => self.set_attributes(node, args),
            op::READLINK => {
                let target = readlinkat(self.nodes.fd(node)?, "", Vec::new())?;
                Ok(Answer(target.into_bytes()))
            }
            op::SYMLINK => {
                let (name, target) = (args.name()?, args.text()?);
                self.make(request, name, |directory| symlinkat(target, directory, name))
            }
            op::MKNOD => {
                let (mode, device, _umask, _) = (args.u32()?, args.u32()?, args.u32()?, args.u32()?);
                self.make_node(request, args.name()?, mode, device)
            }
            op::MKDIR => {
                let (mode, _umask) = (args.u32()?, args.u32()?);
                let name = args.name()?;
                self.make(request, name, |directory| {
                    mkdirat(directory, name, Mode::from_raw_mode(mode & 0o7777))
                })
            }
            op::UNLINK => self.remove(node, args.name()?, AtFlags::empty()),
            op::RMDIR => self.remove(node, args.name()?, AtFlags::REMOVEDIR),
            op::RENAME => {
                let to = args.u64()?;
                self.rename((node, args.name()?), (to, args.name()?), RenameFlags::empty())
            }
            op::RENAME2 => {
                let (to, flags, _) = (args.u64()?, args.u32()?, args.u32()?);
                let flags = RenameFlags::from_bits(flags)
                    .filter(|flags| (RenameFlags::NOREPLACE | RenameFlags::EXCHANGE).contains(*flags))
                    .ok_or(Errno::INVAL)?;
                self.rename((node, args.name()?), (to, args.name()?), flags)
            }
            op::LINK => {
                let old = args.u64()?;
                self.link(old, node, args.name()?)
            }
            op::OPEN => {
                let flags = args.u32()?;
                self.open(node, flags)
            }
            op::CREATE => {
                let (flags, mode, _umask, _) = (args.u32()?, args.u32()?, args.u32()?, args.u32()?);
                self.create(request, args.name()?, flags, mode)
            }
            op::OPENDIR => self.open_directory(node),
            op::READDIR => self.read_directory(node, args),
            op::RELEASE | op::RELEASEDIR => {
                let handle = args.u64()?;
                if self.handles.get(&handle).is_some_and(|open| open.node == node) {
                    self.handles.remove(&handle);
                }
                Ok(Answer::default())
            }
            op::FSYNC | op::FSYNCDIR => self.sync(node, args),
            op::FALLOCATE => self.allocate(node, args),
            op::LSEEK => self.seek(node, args),
            op::COPY_FILE_RANGE => self.copy(node, args),
            op::STATFS => self.file_system(node),
            op::SYNCFS => self.sync_all(),
            op::SETXATTR => self.set_xattr(node, args),
            op::GETXATTR => self.get_xattr(node, args),
            op::LISTXATTR => self.list_xattrs(node, args),
            op::REMOVEXATTR => self.remove_xattr(node, args),
            // Locks among them: the guest's kernel then keeps them itself.
            _ => Err(Errno::NOSYS),
        }
    }

    /// The guest's kernel has applied the umask of whoever asks; this thread shall have none. The others' stays (unshare(2)).
    fn take_umask(&mut self) -> Result<()> {
        if !self.has_own_umask {
            unshare(CloneFlags::CLONE_FS).map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
            umask(Mode::empty());
            self.has_own_umask = true;
        }
        Ok(())
    }

    /// The first request of all: what both sides can do.
    fn init(args: &mut Args<'_>) -> Result<Answer> {
        let (major, _minor, read_ahead, flags) = (args.u32()?, args.u32()?, args.u32()?, args.u32()?);
        if major != MAJOR {
            return Err(Errno::PROTO);
        }
        let all = can::ASYNC_READ
            | can::ATOMIC_O_TRUNC
            | can::BIG_WRITES
            | can::AUTO_INVAL_DATA
            | can::PARALLEL_DIROPS
            | can::MAX_PAGES;
        let background = 16u32 | 12 << 16;
        Ok(Answer::default()
            .u32(MAJOR)
            .u32(MINOR)
            .u32(read_ahead)
            .u32(flags & all)
            .u32(background)
            .u32(MAX_WRITE)
            .u32(1) // time_gran: nanoseconds
            .u32(u32::from(MAX_PAGES))
            .zeroes(32))
    }

    fn entry(&mut self, (number, status): (u64, Statx)) -> Answer {
        let (status, ino) = self.seen(status);
        Answer::default().entry(number, &status, ino)
    }

    /// A file's attributes as the guest sees them.
    fn seen(&mut self, mut status: Statx) -> (Statx, u64) {
        let ino = self.nodes.ino(&status);
        (status.stx_uid, status.stx_gid) = self.owners.seen(status.stx_uid, status.stx_gid);
        (status, ino)
    }

    fn get_attributes(&mut self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let (flags, _, handle) = (args.u32()?, args.u32()?, args.u64()?);
        if node == TOP {
            return self.top();
        }
        let status = match self.file(node, handle) {
            Ok(file) if flags & GETATTR_FH != 0 => status(&*file)?,
            _ => status(self.nodes.fd(node)?)?,
        };
        let (status, ino) = self.seen(status);
        Ok(Answer::default().attr_out(&status, ino))
    }

    /// The directory of the shares, which is nowhere on the host: as a share's, but for its kind and mode.
    fn top(&mut self) -> Result<Answer> {
        let first = self.nodes.shares().next().map(|(number, _)| number).ok_or(Errno::NOENT)?;
        let mut status = status(self.nodes.fd(first)?)?;
        (status.stx_mode, status.stx_nlink, status.stx_size) = (0o40555, 2, 0);
        (status.stx_uid, status.stx_gid) = (0, 0);
        Ok(Answer::default().attr_out(&status, TOP))
    }

    fn set_attributes(&mut self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let (valid, _, handle, size, _lock) =
            (args.u32()?, args.u32()?, args.u64()?, args.u64()?, args.u64()?);
        let (atime, mtime, _ctime) = (args.u64()?, args.u64()?, args.u64()?);
        let (atime_nanos, mtime_nanos, _ctime_nanos) = (args.u32()?, args.u32()?, args.u32()?);
        let (mode, _, uid, gid) = (args.u32()?, args.u32()?, args.u32()?, args.u32()?);
        self.nodes.check_writable(node)?;

        if valid & (set::UID | set::GID) != 0 {
            let uid = (valid & set::UID != 0).then_some(uid);
            let gid = (valid & set::GID != 0).then_some(gid);
            let (uid, gid) = self.owners.owner(uid, gid)?;
            chownat(self.nodes.fd(node)?, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        // After the owner, whose change takes the set-ID bits.
        if valid & set::MODE != 0 {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            self.nodes.as_path(node, |fds, name| chmodat(fds, name, mode, AtFlags::empty()))?;
        }
        if valid & set::SIZE != 0 {
            match self.file(node, handle) {
                Ok(file) if valid & set::FH != 0 => ftruncate(&*file, size)?,
                _ => ftruncate(self.nodes.reopen(node, OFlags::WRONLY)?, size)?,
            }
        }
        if valid & (set::ATIME | set::MTIME) != 0 {
            let time = |wanted, now, seconds: u64, nanos: u32| match () {
                () if valid & wanted == 0 => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                () if valid & now != 0 => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
                () => Timespec { tv_sec: seconds as i64, tv_nsec: nanos.into() },
            };
            let times = Timestamps {
                last_access: time(set::ATIME, set::ATIME_NOW, atime, atime_nanos),
                last_modification: time(set::MTIME, set::MTIME_NOW, mtime, mtime_nanos),
            };
            self.nodes.as_path(node, |fds, name| utimensat(fds, name, &times, AtFlags::empty()))?;
        }
        let (status, ino) = {
            let status = status(self.nodes.fd(node)?)?;
            self.seen(status)
        };
        Ok(Answer::default().attr_out(&status, ino))
    }

    /// A directory in which something is to be made or removed.
    fn directory(&mut self, node: u64) -> Result<Arc<std::os::fd::OwnedFd>> {
        self.nodes.check_writable(node)?;
        self.nodes.fd(node)
    }

    /// Makes a name in a directory, and looks it up.
    fn make(
        &mut self,
        request: Request,
        name: &[u8],
        how: impl FnOnce(&std::os::fd::OwnedFd) -> Result<()>,
    ) -> Result<Answer> {
        let directory = self.directory(request.node)?;
        self.owners.as_caller(request.uid, request.gid, || how(&directory))?;
        let found = self.nodes.look_up(request.node, name)?;
        Ok(self.entry(found))
    }

    fn make_node(&mut self, request: Request, name: &[u8], mode: u32, device: u32) -> Result<Answer> {
        let (major, minor) = decode_device(device);
        let kind = FileType::from_raw_mode(mode);
        let device: Dev = match kind {
            FileType::RegularFile | FileType::Fifo | FileType::Socket => 0,
            FileType::CharacterDevice if DEVICES.contains(&(major, minor)) => makedev(major, minor),
            FileType::CharacterDevice | FileType::BlockDevice => return Err(Errno::PERM),
            _ => return Err(Errno::INVAL),
        };
        let mode = Mode::from_raw_mode(mode & 0o7777);
        self.make(request, name, |directory| mknodat(directory, name, kind, mode, device))
    }

    fn remove(&mut self, node: u64, name: &[u8], how: AtFlags) -> Result<Answer> {
        let directory = self.directory(node)?;
        let known = self.nodes.behind(node, name);
        unlinkat(directory, name, how)?;
        if let Some(known) = known {
            self.nodes.keep(known);
        }
        Ok(Answer::default())
    }

    fn rename(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), flags: RenameFlags) -> Result<Answer> {
        let (old, new) = (self.directory(from.0)?, self.directory(to.0)?);
        self.check_same_share(from.0, to.0)?;
        let (moved, replaced) = (self.nodes.behind(from.0, from.1), self.nodes.behind(to.0, to.1));
        renameat_with(old, from.1, new, to.1, flags)?;
        match replaced {
            Some((number, _)) if flags.contains(RenameFlags::EXCHANGE) => {
                self.nodes.place(number, from.0, from.1);
            }
            Some(known) => self.nodes.keep(known),
            None => {}
        }
        if let Some((number, _)) = moved {
            self.nodes.place(number, to.0, to.1);
        }
        Ok(Answer::default())
    }

    fn link(&mut self, old: u64, node: u64, name: &[u8]) -> Result<Answer> {
        let directory = self.directory(node)?;
        // Else what is read-only in one share could be written through another.
        self.check_same_share(old, node)?;
        // With AT_EMPTY_PATH it would take a capability (linkat(2)).
        self.nodes.as_path(old, |fds, own| linkat(fds, own, directory, name, AtFlags::SYMLINK_FOLLOW))?;
        let found = self.nodes.look_up(node, name)?;
        Ok(self.entry(found))
    }

    fn check_same_share(&self, one: u64, other: u64) -> Result<()> {
        if self.nodes.share(one)? == self.nodes.share(other)? { Ok(()) } else { Err(Errno::XDEV) }
    }

    fn open(&mut self, node: u64, flags: u32) -> Result<Answer> {
        let flags = OFlags::from_bits_truncate(flags) & OPEN_FLAGS;
        self.check_open(node, flags)?;
        let file = self.nodes.reopen(node, flags)?;
        let handle = self.add(node, Kind::File(Arc::new(file)))?;
        Ok(Answer::default().opened(handle))
    }

    fn check_open(&self, node: u64, flags: OFlags) -> Result<()> {
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        if writes { self.nodes.check_writable(node) } else { Ok(()) }
    }

    fn create(&mut self, request: Request, name: &[u8], flags: u32, mode: u32) -> Result<Answer> {
        let wanted = OFlags::from_bits_truncate(flags);
        let flags = wanted & OPEN_FLAGS;
        let directory = self.directory(request.node)?;
        // Only a new file is opened by its name: one that is there may be a device by now.
        let new = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let made = self
            .owners
            .as_caller(request.uid, request.gid, || openat2(&directory, name, new, mode, CONFINED));
        let (file, fd) = match made {
            Ok(file) => {
                let file = File::from(file);
                let fd = self.nodes.path_of(&file)?;
                (file, fd)
            }
            Err(Errno::EXIST) if !wanted.contains(OFlags::EXCL) => {
                let fd = child(&directory, name)?;
                (self.nodes.reopen_fd(&fd, flags)?, fd)
            }
            Err(errno) => return Err(errno),
        };
        let (number, status) = self.nodes.enter(request.node, name, fd)?;
        let handle = match self.add(number, Kind::File(Arc::new(file))) {
            Ok(handle) => handle,
            Err(errno) => {
                self.nodes.forget(number, 1);
                return Err(errno);
            }
        };
        Ok(self.entry((number, status)).opened(handle))
    }

    /// A number for what is open.
    pub(super) fn add(&mut self, node: u64, kind: Kind) -> Result<u64> {
        if self.handles.len() >= self.most_handles {
            return Err(Errno::NFILE);
        }
        let handle = self.next_handle;
        self.next_handle += 1;
        self.handles.insert(handle, Handle { node, kind });
        Ok(handle)
    }

    /// An open regular file.
    pub(super) fn file(&self, node: u64, handle: u64) -> Result<Arc<File>> {
        match self.handles.get(&handle) {
            Some(Handle { node: of, kind: Kind::File(file) }) if *of == node => Ok(file.clone()),
            _ => Err(Errno::BADF),
        }
    }

    fn file_system(&mut self, node: u64) -> Result<Answer> {
        let node = match node {
            TOP => self.nodes.shares().next().map(|(number, _)| number).ok_or(Errno::NOENT)?,
            node => node,
        };
        let all = fstatvfs(self.nodes.fd(node)?)?;
        Ok(Answer::default()
            .u64(all.f_blocks)
            .u64(all.f_bfree)
            .u64(all.f_bavail)
            .u64(all.f_files)
            .u64(all.f_ffree)
            .u32(all.f_bsize as u32)
            .u32(all.f_namemax as u32)
            .u32(all.f_frsize as u32)
            .zeroes(28))
    }

    /// All that was written to any share, to its disk.
    fn sync_all(&mut self) -> Result<Answer> {
        let shares: Vec<u64> =
            self.nodes.shares().filter(|(_, share)| !share.read_only).map(|(number, _)| number).collect();
        for share in shares {
            syncfs(self.nodes.reopen(share, OFlags::RDONLY)?)?;
        }
        Ok(Answer::default())
    }
}
