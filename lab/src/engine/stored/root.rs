//! A container's root as a directory, whether it runs or not.
//!
//! Of one that runs it is what its first process sees, volumes and all. Of one that does not, the overlay is mounted
//! again, but to no place: a detached mount (fsmount(2)) that only its descriptor holds, and that ends with it.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use super::{Engine, Record, plan};
use crate::engine::error::Context as _;
use crate::engine::place::make_all;
use crate::engine::{Error, Runtime};

/// Where nothing leads out of a container's root.
pub(super) const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);

/// A container's root.
pub(crate) struct Root {
    /// Its directory.
    pub directory: OwnedFd,
    /// Kept for as long, as its layers are.
    _image: Option<crate::image::Image>,
}

/// A path in a root: the directory, opened, and the last part, which may be anything.
pub(super) struct Found {
    pub parent: OwnedFd,
    pub name: Vec<u8>,
}

impl Engine {
    /// Opens a container's root.
    pub(super) fn root(&self, record: &Record) -> Result<Root, Error> {
        self.reconcile(record)?;
        let record = self.find(&record.id)?;
        if record.runtime() == Runtime::Vm {
            let reason = "its files are in the machine's memory";
            return Err(Error::Unsupported { flag: "cp, diff, export and commit", runtime: "vm", reason });
        }
        let image = self.images().resolve(&record.image_id)?;
        if record.status.is_live() && record.pid > 0 {
            let path = format!("/proc/{}/root", record.pid);
            let directory = open(path.as_str(), DIRECTORY, Mode::empty()).context("open", path)?;
            return Ok(Root { directory, _image: Some(image) });
        }
        let layers = self.images().layer_dirs(&image, &())?;
        let directory =
            self.mount_detached(&record, &layers).context("mount the files of", record.short_id())?;
        Ok(Root { directory, _image: Some(image) })
    }

    /// Opens what a path of a container lies in, and tells the path in it: the container's root, or, of one that does not
    /// run, the volume or folder of the host that would be mounted there.
    pub(super) fn root_of(&self, record: &Record, path: &str) -> Result<(Root, String), Error> {
        let root = self.root(record)?;
        if self.find(&record.id)?.status.is_live() {
            return Ok((root, path.to_owned()));
        }
        let asked = clean(path);
        let inside = |wish: &plan::Wish| Some(asked.strip_prefix(clean(&wish.target)).ok()?.to_owned());
        let wishes = plan::wishes(&record.body)?;
        let deepest = wishes
            .iter()
            .filter_map(|wish| Some((self.source(wish).filter(|source| source.is_dir())?, inside(wish)?)))
            .min_by_key(|(_, rest)| rest.components().count());
        let Some((source, rest)) = deepest else { return Ok((root, path.to_owned())) };
        let end = if path.ends_with('/') { "/" } else { "" };
        Ok((Root::of(&source)?, format!("/{}{end}", rest.display())))
    }

    fn mount_detached(&self, record: &Record, layers: &[PathBuf]) -> std::io::Result<OwnedFd> {
        let stored = self.roots.stored(&record.id);
        let (upper, work) = (stored.join("upper"), stored.join("work"));
        for directory in [&upper, &work] {
            make_all(directory).map_err(std::io::Error::other)?;
        }
        // What the workload will see as `/`: readable by all its users.
        std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(0o755))?;
        mount_overlay(layers, &upper, &work)
    }
}

/// Mounts an overlay to no place.
pub(crate) fn mount_overlay(layers: &[PathBuf], upper: &Path, work: &Path) -> std::io::Result<OwnedFd> {
    // fsconfig(2) takes 255 bytes of a value: paths of descriptors are short.
    let opened: Vec<OwnedFd> = layers
        .iter()
        .map(|layer| open(layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()))
        .collect::<Result<_, _>>()?;
    let named = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // One by one since Linux 6.5; before, all at once, which fifteen layers fit into.
    let one_by_one =
        opened.iter().try_for_each(|fd| fsconfig_set_string(context.as_fd(), "lowerdir+", named(fd)));
    if one_by_one.is_err() {
        let all: Vec<String> = opened.iter().map(named).collect();
        fsconfig_set_string(context.as_fd(), "lowerdir", all.join(":"))?;
    }
    let own = [upper, work]
        .map(|path| open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()));
    let [upper, work] = own;
    let (upper, work) = (upper?, work?);
    fsconfig_set_string(context.as_fd(), "upperdir", named(&upper))?;
    fsconfig_set_string(context.as_fd(), "workdir", named(&work))?;
    fsconfig_create(context.as_fd())?;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    // A descriptor for reading, as the mount's own is one of O_PATH.
    Ok(rustix::fs::openat(&mount, ".", DIRECTORY, Mode::empty())?)
}

impl Root {
    /// Where nothing leads out of a root.
    pub(crate) const INSIDE: ResolveFlags = INSIDE;

    /// The host's own root.
    pub(super) fn host() -> Result<Self, Error> {
        Self::of(Path::new("/"))
    }

    /// A directory of the host as a root.
    pub(super) fn of(path: &Path) -> Result<Self, Error> {
        Ok(Self { directory: host_directory(path)?, _image: None })
    }

    /// Opens the directory in which a path's last part lies, and tells that part. A path that ends in `/` or `/.` means
    /// the directory itself, whose last part is `.`.
    pub(super) fn find(&self, path: &str) -> Result<Found, Error> {
        let clean = clean(path);
        let wants_directory = path.ends_with('/') || path.ends_with("/.") || clean.as_os_str().is_empty();
        let (parent, name) = if wants_directory {
            (clean.as_path(), OsStr::new("."))
        } else {
            (clean.parent().unwrap_or(Path::new("")), clean.file_name().unwrap_or(OsStr::new(".")))
        };
        Ok(Found { parent: self.open_directory(parent, path)?, name: name.as_bytes().to_vec() })
    }

    /// Opens a directory by its path inside.
    pub(super) fn open_directory(&self, path: &Path, asked: &str) -> Result<OwnedFd, Error> {
        let relative = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(&self.directory, relative, DIRECTORY, Mode::empty(), INSIDE).map_err(|errno| match errno {
            rustix::io::Errno::NOENT => missing(asked),
            rustix::io::Errno::NOTDIR => Error::bad(format!("{asked}: not a directory")),
            errno => Error::io("open", asked, errno),
        })
    }
}

/// No such path in the container, in docker's words.
pub(super) fn missing(path: &str) -> Error {
    Error::Missing { kind: "path in the container", name: path.to_owned() }
}

/// The path without `.`, `..` and the first `/`: lexically, as docker does.
pub(super) fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// Opens a host's directory for reading.
pub(crate) fn host_directory(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()).context("open", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cleaned_and_cannot_climb_out() {
        assert_eq!(clean("/a/./b/../c"), Path::new("a/c"));
        assert_eq!(clean("../../etc"), Path::new("etc"));
        assert_eq!(clean("/"), Path::new(""));
    }
}
