//! A sandbox's place on disk while it lives: its bundle and state below the run directory, its writable layer below the
//! data directory (a run directory is often a tmpfs, where a workload's files would eat memory that nobody counted).
//!
//! A place is locked (flock(2)) by the process that made it. So a place whose lock is free belongs to a process that was
//! killed, and [`abandoned`] finds it for clearing.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::Error;
use super::error::Context as _;
use crate::{image, paths};

/// How long a monitor waits for the one before it to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// The roots below which places are made.
#[derive(Clone, Debug)]
pub struct Roots {
    run: PathBuf,
    data: PathBuf,
}

impl Roots {
    /// This machine's.
    ///
    /// # Errors
    /// Where no variable names them.
    pub fn of_process() -> Result<Self, Error> {
        Ok(Self { run: paths::run()?, data: paths::data()? })
    }

    /// Where the container wall keeps the states of its containers.
    pub fn containers(&self) -> PathBuf {
        self.run.join("containers")
    }

    /// Where the VM wall keeps the states of its machines.
    pub fn machines(&self) -> PathBuf {
        self.run.join("machines")
    }

    /// Where GDB may connect to a machine: a short path, as that of a socket must be (unix(7)).
    pub fn debugger(&self, id: &str) -> PathBuf {
        self.machines().join(format!("{}.gdb", super::id::short(id)))
    }

    /// Where the images are, as [`crate::image::Store::open_default`] has it.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// What must last.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The engine's state.
    pub fn database(&self) -> PathBuf {
        self.data.join("state.db")
    }

    /// What a stored container keeps between its runs: its writable layer, its log, the files of its network.
    pub fn stored(&self, id: &str) -> PathBuf {
        self.data.join("containers").join(id)
    }

    /// Where named volumes are.
    pub fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// Where builds keep what `RUN --mount=type=cache` keeps.
    pub fn build_caches(&self) -> PathBuf {
        self.data.join("build-cache")
    }

    /// Where a sandbox that runs has its bundle, and its monitor's socket.
    pub fn sandbox(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }

    /// Where snapshots of virtual machines are, from which `--warm` starts others.
    pub fn snapshots(&self) -> PathBuf {
        self.data.join("snapshots")
    }

    fn sandboxes(&self) -> PathBuf {
        self.run.join("sandboxes")
    }

    fn names(&self) -> PathBuf {
        self.run.join("names")
    }

    fn layers(&self) -> PathBuf {
        self.data.join("sandboxes")
    }
}

/// One sandbox's place. Dropping it removes it.
#[derive(Debug)]
pub struct Place {
    bundle: PathBuf,
    layer: PathBuf,
    name: Option<PathBuf>,
    /// Whether the writable layer is a stored container's.
    keep: bool,
    _lock: File,
}

impl Place {
    /// Makes and locks a place for this id, and takes the name if one is given.
    ///
    /// # Errors
    /// Where a directory cannot be made, or the name is taken.
    pub fn create(roots: &Roots, id: &str, name: Option<&str>) -> Result<Self, Error> {
        let bundle = roots.sandboxes().join(id);
        let lock = make_locked(&roots.sandboxes(), &bundle)?;
        let mut place = Self { bundle, layer: roots.layers().join(id), name: None, keep: false, _lock: lock };
        if let Some(name) = name {
            place.name = Some(take_name(roots, name, id)?);
        }
        Ok(place)
    }

    /// Makes and locks a place for one run of a stored container, whose writable layer stays when the place goes. What
    /// a killed monitor left of an earlier run is cleared away.
    ///
    /// # Errors
    /// Where a directory cannot be made, or another monitor has it.
    pub fn of_stored(roots: &Roots, id: &str) -> Result<Self, Error> {
        let bundle = roots.sandboxes().join(id);
        if let Ok(old) = File::open(&bundle) {
            // The monitor of the run before ends within moments of its container.
            let begun = Instant::now();
            while flock(&old, FlockOperation::NonBlockingLockExclusive).is_err() {
                if begun.elapsed() > PATIENCE {
                    return Err(Error::conflict(format!(
                        "container {} has a monitor already",
                        super::id::short(id)
                    )));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            remove_tree(&bundle)?;
        }
        let lock = make_locked(&roots.sandboxes(), &bundle)?;
        Ok(Self { bundle, layer: roots.stored(id), name: None, keep: true, _lock: lock })
    }

    /// The bundle's directory.
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// Makes the two directories of a writable layer: what is written, and overlayfs's own workspace beside it.
    ///
    /// # Errors
    /// Where they cannot be made.
    pub fn writable_layer(&self) -> Result<(PathBuf, PathBuf), Error> {
        let (upper, work) = (self.layer.join("upper"), self.layer.join("work"));
        make_all(&self.layer)?;
        if self.keep && upper.exists() {
            // Whatever overlayfs left of the run before: it wants its workspace empty.
            remove_tree(&work)?;
            DirBuilder::new().mode(0o700).create(&work).context("create", work.display())?;
            return Ok((upper, work));
        }
        // The upper directory is what the workload sees as `/`: readable by all its users.
        for (path, mode) in [(&upper, 0o755), (&work, 0o700)] {
            DirBuilder::new().mode(mode).create(path).context("create", path.display())?;
        }
        Ok((upper, work))
    }

    /// The directory of what is written.
    pub fn upper(&self) -> PathBuf {
        self.layer.join("upper")
    }

    /// Removes the place.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove(mut self) -> Result<(), Error> {
        self.clear()
    }

    fn clear(&mut self) -> Result<(), Error> {
        if let Some(name) = self.name.take() {
            let _ = fs::remove_file(name);
        }
        if !self.keep {
            remove_tree(&self.layer)?;
        }
        remove_tree(&self.bundle)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

/// The ids of places whose maker was killed, each as a place that is now ours.
pub fn abandoned(roots: &Roots) -> Vec<(String, Place)> {
    // Whoever makes a place holds this lock, shared, until the place is locked itself: see `make_locked`.
    let Ok(parent) = File::open(roots.sandboxes()) else { return Vec::new() };
    if flock(&parent, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Vec::new();
    }
    let entries = fs::read_dir(roots.sandboxes()).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id = entry.file_name().into_string().ok()?;
            let lock = File::open(entry.path()).ok()?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
            let name = name_of(roots, &id);
            let layer = roots.layers().join(&id);
            Some((id, Place { bundle: entry.path(), layer, name, keep: false, _lock: lock }))
        })
        .collect()
}

fn make_locked(parent: &Path, path: &Path) -> Result<File, Error> {
    make_all(parent)?;
    let guard = File::open(parent).context("open", parent.display())?;
    flock(&guard, FlockOperation::LockShared).context("lock", parent.display())?;
    DirBuilder::new().mode(0o700).create(path).context("create", path.display())?;
    let lock = File::open(path).context("open", path.display())?;
    flock(&lock, FlockOperation::LockExclusive).context("lock", path.display())?;
    Ok(lock)
}

/// A name is a symbolic link to an id: made atomically, so that two cannot take the same.
fn take_name(roots: &Roots, name: &str, id: &str) -> Result<PathBuf, Error> {
    make_all(&roots.names())?;
    let link = roots.names().join(name);
    for _ in 0..2 {
        match symlink(id, &link) {
            Ok(()) => return Ok(link),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("create", link.display(), error)),
        }
        let owner = fs::read_link(&link).map(|id| id.display().to_string()).unwrap_or_default();
        if roots.sandboxes().join(&owner).exists() {
            return Err(Error::NameInUse { name: name.to_owned(), id: super::id::short(&owner).to_owned() });
        }
        // Its sandbox is gone: the link was left by a process that was killed.
        let _ = fs::remove_file(&link);
    }
    Err(Error::NameInUse { name: name.to_owned(), id: "another".to_owned() })
}

fn name_of(roots: &Roots, id: &str) -> Option<PathBuf> {
    let links = fs::read_dir(roots.names()).ok()?;
    links
        .flatten()
        .map(|link| link.path())
        .find(|link| fs::read_link(link).is_ok_and(|owner| owner == Path::new(id)))
}

pub(super) fn make_all(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o711).create(path).context("create", path.display())
}

pub(super) fn remove_tree(path: &Path) -> Result<(), Error> {
    // Overlay's own folder is closed even to its owner, which only root does not feel.
    let mut removed = image::remove_tree(path);
    // A monitor on its way out, or another's that tells its names, may still write a file into what is being removed.
    for _ in 0..10 {
        if !matches!(&removed, Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        removed = image::remove_tree(path);
    }
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path.display(), error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots() -> (tempfile::TempDir, Roots) {
        let base = tempfile::tempdir().unwrap();
        let roots = Roots { run: base.path().join("run"), data: base.path().join("data") };
        (base, roots)
    }

    #[test]
    fn a_dropped_place_leaves_nothing() {
        let (_base, roots) = roots();
        let place = Place::create(&roots, "id1", Some("web")).unwrap();
        place.writable_layer().unwrap();
        drop(place);
        for parent in [roots.sandboxes(), roots.names(), roots.layers()] {
            assert_eq!(fs::read_dir(parent).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_name_belongs_to_one_sandbox_while_that_lives() {
        let (_base, roots) = roots();
        let first = Place::create(&roots, "id1", Some("web")).unwrap();
        assert!(matches!(Place::create(&roots, "id2", Some("web")), Err(Error::NameInUse { .. })));
        assert!(!roots.sandboxes().join("id2").exists());
        drop(first);
        assert!(Place::create(&roots, "id3", Some("web")).is_ok());
    }

    #[test]
    fn only_a_place_whose_maker_is_gone_counts_as_abandoned() {
        let (_base, roots) = roots();
        let place = Place::create(&roots, "id1", None).unwrap();
        assert!(abandoned(&roots).is_empty());
        // As after a kill: the directory is there, the lock is not.
        fs::create_dir(roots.sandboxes().join("id2")).unwrap();
        let ids: Vec<_> = abandoned(&roots).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["id2"]);
        drop(place);
    }
}
