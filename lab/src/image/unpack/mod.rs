//! Layers as directories: what the container's overlay mounts as its lower directories.
//!
//! Each layer is unpacked once, by its diff-id, however many images share it: into `tmp/`, then synced, then renamed to
//! `layers/HEX`. A process that dies half-way leaves nothing that could be taken for a layer.
//!
//! Without privilege, what only root can make is left out, as podman does: owners (all is the user's, who is root in
//! the container's user namespace), device nodes (the container gets its own `/dev`), attributes that need a capability.
//! The virtual machine's root disk has them all the same, because [`super::disk`] is built from the blobs.

mod rights;
mod writer;

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::FlockOperation;

use super::config::{Image, Layer};
use super::error::{Error, Result};
use super::layer::LayerReader;
use super::progress::Progress;
use super::store::{Store, lock};

pub use rights::Rights;

impl Store {
    /// The unpacked layers of an image, the topmost first as overlay wants them. Those that are not yet unpacked are.
    ///
    /// Keep the [`Image`] for as long as the directories are mounted. Where [`Rights::of_process`] says so, opaque
    /// directories are marked by `user.` attributes and the mount needs the option `userxattr` (since Linux 5.11).
    ///
    /// # Errors
    /// Where a layer is missing, damaged or hostile, or cannot be written.
    pub fn layer_dirs(&self, image: &Image, progress: &dyn Progress) -> Result<Vec<PathBuf>> {
        let missing: Vec<Layer> =
            image.layers().iter().copied().filter(|layer| !self.layer_path(layer).exists()).collect();
        if !missing.is_empty() {
            self.unpack(missing, progress)?;
        }
        let rights = Rights::of_process();
        let mut directories = Vec::with_capacity(image.layers().len());
        for layer in image.layers().iter().rev() {
            let path = self.layer_path(layer);
            // Overlay always looks through the roots of its layers, so an opaque root is ours to see.
            let opaque = rights.is_opaque(&path);
            directories.push(path);
            if opaque {
                break;
            }
        }
        Ok(directories)
    }

    fn layer_path(&self, layer: &Layer) -> PathBuf {
        self.path("layers").join(layer.diff_id.hex())
    }

    /// Unpacks layers side by side: they do not depend on each other.
    fn unpack(&self, layers: Vec<Layer>, progress: &dyn Progress) -> Result<()> {
        let _adding = self.adding()?;
        let workers = thread::available_parallelism().map_or(1, usize::from).min(layers.len());
        let queue = Mutex::new(layers);
        let failures = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    // Popped in a statement of its own, so that the queue is free while the layer is unpacked.
                    let next = || held(&queue).pop();
                    while let Some(layer) = next() {
                        if let Err(error) = self.unpack_layer(layer, progress) {
                            held(&failures).push(error);
                            held(&queue).clear();
                        }
                    }
                });
            }
        });
        failures.into_inner().unwrap_or_else(PoisonError::into_inner).pop().map_or(Ok(()), Err)
    }

    // ANCHOR: once
    fn unpack_layer(&self, layer: Layer, progress: &dyn Progress) -> Result<()> {
        let blob = self.open_blob(layer.blob, "a layer")?;
        // One process unpacks, the others wait for it. The blob's own file is the lock, so none is left behind.
        lock(&blob, FlockOperation::LockExclusive)
            .map_err(Error::io("locking", self.blob_path(layer.blob)))?;
        let path = self.layer_path(&layer);
        if path.exists() {
            return Ok(());
        }
        let scratch = Scratch::new(&self.path("tmp"))?;
        let step = progress.begin(&format!("unpacking {}", &layer.diff_id.hex()[..12]), Some(layer.size));
        let blob = blob.try_clone().map_err(Error::io("opening", self.blob_path(layer.blob)))?;
        let reader = LayerReader::new(blob, layer.blob, layer.diff_id, step);
        writer::write_layer(reader, &scratch.0, Rights::of_process())?;
        scratch.publish(&path)?;
        self.sync_directory("layers").map_err(Error::io("syncing", self.path("layers")))
    }
    // ANCHOR_END: once
}

/// A list is as good after a panic of its holder as before.
fn held<T>(list: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory in the making; gone when dropped before it is published.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("layer-").tempdir_in(parent);
        Ok(Self(directory.map_err(Error::io("making a directory in", parent))?.keep()))
    }

    fn publish(self, path: &Path) -> Result<()> {
        let publish = || {
            // One call for all files: fsync(2) of each would cost more than writing them.
            rustix::fs::syncfs(File::open(&self.0)?)?;
            match fs::rename(&self.0, path) {
                // Another blob with the same content was faster.
                Err(error)
                    if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) =>
                {
                    Ok(())
                }
                other => other,
            }
        };
        publish().map_err(Error::io("writing", path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.exists() {
            let _ = remove_tree(&self.0);
        }
    }
}

/// `remove_dir_all`, also through directories that their owner may not enter, which layers may have.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn open_up(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}
