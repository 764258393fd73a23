//! `cp`, `diff`, `export`: a container's files, in and out.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat, linkat, mkdirat,
    openat, openat2, readlinkat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use serde_json::{Value, json};
use tar_core::EntryType;

use super::root::{INSIDE, Root, host_directory, missing};
use super::{Engine, Record};
use crate::engine::Error;
use crate::engine::error::Context as _;
use crate::image::pack::{Options, Packer};
use crate::image::tar::{Archive, Member};

/// How a path differs from the image's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: String,
    /// 0 modified, 1 added, 2 deleted: docker's numbers.
    pub kind: u8,
}

impl Engine {
    /// What a path in a container is, as docker's client wants to know it before it copies.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn stat_path(&self, record: &Record, path: &str) -> Result<Value, Error> {
        let (root, inside) = self.root_of(record, path)?;
        stat(&root, &inside, path)
    }

    /// Writes a path of a container as a tar, under its own name.
    ///
    /// # Errors
    /// [`Error::Missing`]; where the output ends early.
    pub fn copy_out(&self, record: &Record, path: &str, output: impl Write) -> Result<(), Error> {
        let (root, inside) = self.root_of(record, path)?;
        let found = root.find(&inside)?;
        statat(&found.parent, found.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing(path))?;
        let mut packer = Packer::new(output, Options::default());
        // The content of a directory goes under the directory's own name, unless the path ends in `/.`.
        let own = Path::new(path).file_name().map(OsStr::as_bytes).filter(|_| !path.ends_with("/."));
        let name = if found.name == b"." { own.unwrap_or(b".") } else { &found.name };
        packer.add(found.parent.as_fd(), OsStr::from_bytes(&found.name), name).context("read", path)?;
        packer.finish().context("read", path).map(drop)
    }

    /// Unpacks a tar into a directory of a container.
    ///
    /// # Errors
    /// Where the directory is missing, or the archive is damaged or would lead out of it.
    pub fn copy_in(&self, record: &Record, path: &str, input: impl BufRead) -> Result<(), Error> {
        let (root, inside) = self.root_of(record, path)?;
        let found = root.find(&format!("{inside}/"))?;
        let mut archive = Archive::new(input);
        loop {
            let member =
                archive.next().map_err(|error| Error::bad(format!("the archive is damaged: {error}")))?;
            let Some(member) = member else { return Ok(()) };
            let name = String::from_utf8_lossy(&member.path).into_owned();
            unpack(&found.parent, &member, &mut archive).context("unpack", format!("{path}/{name}"))?;
        }
    }

    /// All files of a container as one tar, without its volumes.
    ///
    /// # Errors
    /// Where they cannot be read, or the output ends early.
    pub fn export(&self, record: &Record, output: impl Write) -> Result<(), Error> {
        let root = self.root(record)?;
        let mut packer = Packer::new(output, Options::default());
        // What the kernel shows in a container that runs is no part of it.
        for name in names(&root.directory)? {
            let kernel = record.status.is_live() && matches!(&name[..], b"proc" | b"sys" | b"dev");
            if !kernel {
                packer
                    .add(root.directory.as_fd(), OsStr::from_bytes(&name), &name)
                    .context("export", record.short_id())?;
            }
        }
        packer.finish().context("export", record.short_id()).map(drop)
    }

    /// How a container's files differ from its image's.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn changes(&self, record: &Record) -> Result<Vec<Change>, Error> {
        if record.runtime() == crate::engine::Runtime::Vm {
            let reason = "its files are in the machine's memory";
            return Err(Error::Unsupported { flag: "diff", runtime: "vm", reason });
        }
        let upper = self.roots.stored(&record.id).join("upper");
        if !upper.exists() {
            return Ok(Vec::new());
        }
        let image = self.images().resolve(&record.image_id)?;
        let layers = self.images().layer_dirs(&image, &())?;
        let lowers: Vec<OwnedFd> =
            layers.iter().map(|layer| host_directory(layer)).collect::<Result<_, _>>()?;
        let mut changes = Vec::new();
        walk(&host_directory(&upper)?, "", &lowers, &mut changes)
            .context("read the changes of", record.short_id())?;
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }
}

/// What is made in every container for something to be mounted on; no change of the workload's.
const MADE: [&str; 10] = [
    "/dev/console",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc/",
    "/sys/",
    "/dev/ptmx",
];

fn names(directory: &OwnedFd) -> Result<Vec<Vec<u8>>, Error> {
    let read = || -> Result<Vec<Vec<u8>>, Errno> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(directory)? {
            names.push(entry?.file_name().to_bytes().to_vec());
        }
        Ok(names)
    };
    let mut names = read().context("list", "a container's directory")?;
    names.retain(|name| !matches!(&name[..], b"." | b".."));
    names.sort_unstable();
    Ok(names)
}

fn walk(directory: &OwnedFd, path: &str, lowers: &[OwnedFd], changes: &mut Vec<Change>) -> Result<(), Errno> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let path = format!("{path}/{}", name.to_string_lossy());
        if MADE.contains(&&*path) {
            continue;
        }
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let below = lowers.iter().any(|lower| {
            openat2(
                lower,
                &path[1..],
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
                INSIDE,
            )
            .is_ok()
        });
        let deleted = kind == FileType::CharacterDevice && stat.st_rdev == 0;
        changes.push(Change { path: path.clone(), kind: if deleted { 2 } else { u8::from(!below) } });
        if kind == FileType::Directory {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let before = changes.len();
            walk(&openat(directory, name, flags, Mode::empty())?, &path, lowers, changes)?;
            let only_made =
                changes.len() == before && MADE.iter().any(|made| made.starts_with(&format!("{path}/")));
            if only_made {
                changes.pop();
            }
        }
    }
    Ok(())
}

fn stat(root: &Root, inside: &str, path: &str) -> Result<Value, Error> {
    let found = root.find(inside)?;
    let stat =
        statat(&found.parent, found.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing(path))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let link = if kind == FileType::Symlink {
        readlinkat(&found.parent, found.name.as_slice(), Vec::new())
            .map(|link| link.to_string_lossy().into_owned())
    } else {
        Ok(String::new())
    };
    let name = match &found.name[..] {
        b"." => Path::new(path)
            .file_name()
            .map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned()),
        name => String::from_utf8_lossy(name).into_owned(),
    };
    let changed = jiff::Timestamp::new(stat.st_mtime, stat.st_mtime_nsec as i32).unwrap_or_default();
    Ok(json!({
        "name": name, "size": stat.st_size, "mode": go_mode(stat.st_mode), "mtime": changed.to_string(),
        "linkTarget": link.unwrap_or_default(),
    }))
}

/// The bits of Go's io/fs.FileMode, which the client reads.
fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    special
        .iter()
        .fold(kind | mode & 0o777, |bits, &(unix, go)| if mode & unix == 0 { bits } else { bits | go })
}

/// One entry of an archive that is copied in. Its parents are resolved inside the directory, and made where missing.
pub(crate) fn unpack<R: BufRead>(
    directory: &OwnedFd,
    member: &Member,
    archive: &mut Archive<R>,
) -> std::io::Result<()> {
    let refused = |reason: &str| std::io::Error::new(std::io::ErrorKind::InvalidInput, reason.to_owned());
    let parts: Vec<&[u8]> =
        member.path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.iter().any(|part| *part == b"..") {
        return Err(refused("its path climbs"));
    }
    let Some((&name, parents)) = parts.split_last() else { return Ok(()) };
    let mut parent = directory.try_clone()?;
    let open = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    for part in parents {
        match mkdirat(&parent, *part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        // A link below is followed only as far as the copied-to directory reaches.
        parent = openat2(&parent, *part, open, Mode::empty(), INSIDE)?;
    }
    let present = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .ok()
        .map(|stat| FileType::from_raw_mode(stat.st_mode));
    let is_directory = matches!(member.kind, EntryType::Directory);
    if present.is_some_and(|kind| kind != FileType::Directory) {
        unlinkat(&parent, name, AtFlags::empty())?;
    } else if present.is_some() && !is_directory {
        return Err(refused("cannot overwrite directory with non-directory"));
    }
    let mode = Mode::from_raw_mode(member.mode & 0o7777);
    match member.kind {
        EntryType::Regular | EntryType::Continuous => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?);
            loop {
                let chunk = archive.chunk()?;
                if chunk.is_empty() {
                    break;
                }
                file.write_all(chunk)?;
                let used = chunk.len();
                archive.consume(used);
            }
        }
        EntryType::Directory => match mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        },
        EntryType::Symlink => symlinkat(member.link.as_slice(), &parent, name)?,
        EntryType::Link => {
            let target = openat2(
                directory,
                member.link.as_slice(),
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
                INSIDE,
            )?;
            linkat(&target, "", &parent, name, AtFlags::EMPTY_PATH)?;
            return Ok(());
        }
        _ => return Err(refused("it is no file, directory or link")),
    }
    let (uid, gid) = (u32::try_from(member.uid).unwrap_or(0), u32::try_from(member.gid).unwrap_or(0));
    chownat(&parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?;
    if !matches!(member.kind, EntryType::Symlink) {
        chmodat(&parent, name, mode, AtFlags::empty())?;
    }
    let time = Timespec { tv_sec: member.mtime.0, tv_nsec: i64::from(member.mtime.1) };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_s_mode_has_its_own_bits() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o040_755), 1 << 31 | 0o755);
        assert_eq!(go_mode(0o104_755), 1 << 23 | 0o755);
        assert_eq!(go_mode(0o120_777), 1 << 27 | 0o777);
    }

    #[test]
    fn an_archive_cannot_lead_out_of_the_directory_it_is_copied_to() {
        let base = tempfile::tempdir().unwrap();
        let inside = base.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink("..", inside.join("up")).unwrap();
        let directory: OwnedFd = File::open(&inside).unwrap().into();
        for path in ["../escaped", "up/escaped"] {
            let mut packer = Packer::new(Vec::new(), Options::default());
            packer.add_bytes(path, b"x").unwrap();
            let bytes = packer.finish().unwrap();
            let mut archive = Archive::new(&bytes[..]);
            let member = archive.next().unwrap().unwrap();
            let _ = unpack(&directory, &member, &mut archive);
            assert!(!base.path().join("escaped").exists(), "{path}");
        }
    }
}
