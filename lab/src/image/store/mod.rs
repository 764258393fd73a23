//! The store: one directory, which is itself an OCI image layout.
//!
//! ```text
//! ROOT/oci-layout            version of the layout
//!      index.json            names → manifests            (index.rs)
//!      blobs/sha256/HEX      manifests, configurations, layers as they came   (blob.rs)
//!      layers/HEX            a layer unpacked, by its diff-id: an overlay lower directory
//!      disks/HEX.erofs       an image's root disk, by the chain of its diff-ids
//!      tmp/                  whatever is being made; renamed into place when it is whole
//!      partial/HEX           what has come of a blob from a registry; it outlives its process
//!      garbage               there when collecting garbage was put off
//!      lock, index.lock      see below
//! ```
//!
//! Names live in `index.json` and not in a database: they are all there is to say about images, other tools (skopeo,
//! umoci) read the store as it is, and finding an image costs a few small reads.
//!
//! Several processes use a store at once, without a daemon:
//! - What is added is immutable and named by its content; it appears by `rename(2)`, whole and synced, so nobody sees
//!   half of it, and whoever comes second finds it done.
//! - `index.json` is replaced under an exclusive `flock(2)` of `index.lock`; readers need no lock.
//! - Whoever adds holds `lock` shared; collecting garbage takes it exclusively, so nothing just added and not yet named
//!   is collected, and everything in `tmp/` is then a dead process's. Where that is not possible, the last one who adds
//!   collects.
//! - Whoever uses an image holds a shared `flock(2)` on its manifest's blob for as long ([`Image`] does): garbage
//!   collection keeps what such images need. The kernel drops these locks with their process, however it ends.

mod blob;
mod garbage;
mod index;
mod remove;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageManifest};
use rustix::fs::{FlockOperation, flock};

use super::config::{Image, Layer};
use super::digest::Digest;
use super::error::{Error, Result};
use super::reference::Reference;

pub(crate) use blob::LARGEST_JSON;
pub(crate) use index::{ANNOTATION_EMBEDDED, annotation, name_of};
pub(crate) use remove::Removal;
pub use remove::{Nameless, Removed, Target};

/// Images by name and by content.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// What a list of images shows.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The name, where the image has one.
    pub name: Option<Reference>,
    /// The digest of the image's configuration: docker's image id.
    pub id: Digest,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// When it was built, as it says itself (RFC 3339).
    pub created: Option<String>,
    /// The bytes of its blobs as they are stored.
    pub size: u64,
    /// What its maker noted on it.
    pub labels: HashMap<String, String>,
}

impl Store {
    /// Opens the store in this directory, and makes it where there is none.
    ///
    /// # Errors
    /// Where the directory cannot be made.
    pub fn open(root: &Path) -> Result<Self> {
        let store = Self { root: root.to_owned() };
        // One look in the usual case: `oci-layout` is the last thing that making a store does.
        if !store.path("oci-layout").exists() {
            store.create()?;
        }
        Ok(store)
    }

    /// Opens the store at its usual place, below [`crate::paths::data`].
    ///
    /// # Errors
    /// Where there is no such place, or the store cannot be made there.
    pub fn open_default() -> anyhow::Result<Self> {
        Ok(Self::open(&crate::paths::data()?.join("images"))?)
    }

    fn create(&self) -> Result<()> {
        // The folder that holds the store also holds what a user namespace's other users pass through to their root.
        if let Some(parent) = self.root.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o711).create(parent);
            made.map_err(Error::io("making directory", parent))?;
        }
        // Layers have programs with the set-user-id bit: nobody else may reach them here.
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        for directory in ["blobs/sha256", "layers", "disks", "tmp"] {
            let path = self.path(directory);
            private.create(&path).map_err(Error::io("making directory", &path))?;
        }
        let _adding = self.adding()?;
        self.write_file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// Finds an image by its name, its id, or the beginning of its id, and keeps it from being removed while the
    /// returned value lives.
    ///
    /// # Errors
    /// Where there is no such image, or its manifest or configuration is damaged.
    pub fn resolve(&self, name: &str) -> Result<Image> {
        // A second look where the image was removed and loaded again between reading the index and taking the lease.
        for _ in 0..8 {
            let descriptor = self.find(name)?;
            if let Some(image) = self.image(&descriptor)? {
                return Ok(image);
            }
        }
        Err(Error::NotFound { name: name.to_owned() })
    }

    /// All images, named ones first, by name.
    ///
    /// # Errors
    /// Where the index or a manifest is damaged.
    pub fn list(&self) -> Result<Vec<Summary>> {
        let mut images = Vec::new();
        for descriptor in self.read_index()?.iter().filter(|descriptor| !index::is_hidden(descriptor)) {
            // One that was removed this moment is no longer listed.
            if let Some(image) = self.image(descriptor)? {
                images.push(Summary {
                    name: image.name().cloned(),
                    id: image.id(),
                    manifest: image.manifest(),
                    created: image.config().created().clone(),
                    size: image.size(),
                    labels: image.labels(),
                });
            }
        }
        images.sort_by(|a, b| (a.name.is_none(), &a.name, a.id).cmp(&(b.name.is_none(), &b.name, b.id)));
        Ok(images)
    }

    /// Gives an image a (further) name. An image that had the name before keeps its content, without the name.
    ///
    /// # Errors
    /// Where the index cannot be written.
    pub fn tag(&self, image: &Image, name: &Reference) -> Result<()> {
        self.set_name(image.manifest(), image.manifest_size(), Some(name), None)
    }

    /// An image by its manifest, which needs no name.
    pub(crate) fn unnamed(&self, manifest: Digest, size: u64) -> Result<Image> {
        let descriptor = index::descriptor(manifest, size, HashMap::new())?;
        self.image(&descriptor)?.ok_or_else(|| Error::NotFound { name: manifest.to_string() })
    }

    /// Lists an image, under this name or none.
    pub(crate) fn name_image(&self, image: &Image, name: Option<&Reference>) -> Result<()> {
        self.set_name(image.manifest(), image.manifest_size(), name, None)
    }

    /// The media types of an image's layers, the lowest first.
    pub(crate) fn layer_media(&self, image: &Image) -> Result<Vec<String>> {
        let manifest: ImageManifest =
            serde_json::from_slice(&self.read_json(image.manifest(), "its manifest")?)
                .map_err(|error| Error::malformed(format!("manifest {}", image.manifest()), error))?;
        Ok(manifest.layers().iter().map(|layer| layer.media_type().to_string()).collect())
    }

    /// The image of an entry in the index, under a lease; None where it has just been removed.
    fn image(&self, descriptor: &Descriptor) -> Result<Option<Image>> {
        let digest = Digest::try_from(descriptor.digest())?;
        let path = self.blob_path(digest);
        let lease = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            lease => lease.map_err(Error::io("opening", &path))?,
        };
        // Never waits long: only garbage collection locks manifests exclusively, and only in passing.
        lock(&lease, FlockOperation::LockShared).map_err(Error::io("locking", &path))?;
        if lease.metadata().map_err(Error::io("reading", &path))?.nlink() == 0 {
            return Ok(None);
        }
        let manifest = self.read_json(digest, "its manifest")?;
        let image = self.assemble(digest, &manifest, name_of(descriptor), lease)?;
        Ok(Some(image))
    }

    fn assemble(
        &self,
        digest: Digest,
        manifest: &[u8],
        name: Option<Reference>,
        lease: File,
    ) -> Result<Image> {
        let object = || format!("manifest {digest}");
        let size = manifest.len() as u64;
        let manifest: ImageManifest =
            serde_json::from_slice(manifest).map_err(|error| Error::malformed(object(), error))?;
        let id = Digest::try_from(manifest.config().digest())?;
        let raw = self.read_json(id, "its configuration")?;
        let config: oci_spec::image::ImageConfiguration = serde_json::from_slice(&raw)
            .map_err(|error| Error::malformed(format!("image configuration {id}"), error))?;
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != manifest.layers().len() {
            let reason = format!(
                "it has {} layers, the configuration {id} describes {}",
                manifest.layers().len(),
                diff_ids.len()
            );
            return Err(Error::malformed(object(), reason));
        }
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (layer, diff_id) in manifest.layers().iter().zip(diff_ids) {
            layers.push(Layer {
                blob: Digest::try_from(layer.digest())?,
                size: layer.size(),
                diff_id: diff_id.parse()?,
            });
        }
        Ok(Image::new(name, (digest, size), id, (raw, config), layers, lease))
    }

    /// Writes a small file whole or not at all. The caller holds [`Store::adding`].
    fn write_file(&self, name: &str, content: &[u8]) -> Result<()> {
        use std::io::Write;
        let path = self.path(name);
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(self.path("tmp"))?;
            file.write_all(content)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            self.sync_directory("")
        };
        write().map_err(Error::io("writing", &path))
    }

    /// Makes a rename within a directory last (fsync(2): "Calling fsync() does not necessarily ensure that the entry in
    /// the directory containing the file has also reached disk").
    pub(crate) fn sync_directory(&self, directory: &str) -> io::Result<()> {
        File::open(self.path(directory))?.sync_all()
    }

    /// Announces that something is being added; see the module's text.
    pub(crate) fn adding(&self) -> Result<Adding> {
        let path = self.path("lock");
        let open = || -> io::Result<File> {
            let file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
            lock(&file, FlockOperation::LockShared)?;
            Ok(file)
        };
        Ok(Adding { store: self.clone(), lock: Some(open().map_err(Error::io("locking", &path))?) })
    }
}

/// While it lives, no garbage is collected.
#[derive(Debug)]
pub(crate) struct Adding {
    store: Store,
    lock: Option<File>,
}

impl Drop for Adding {
    fn drop(&mut self) {
        drop(self.lock.take());
        if self.store.path(PUT_OFF).exists() {
            // What was added is there; that something else could not be collected is the next one's concern.
            let _ = self.store.collect_garbage();
        }
    }
}

/// The file that says that garbage is to be collected when nobody adds any more.
const PUT_OFF: &str = "garbage";

/// `flock(2)`, again where a signal interrupts the wait.
pub(crate) fn lock(file: &File, operation: FlockOperation) -> io::Result<()> {
    Ok(rustix::io::retry_on_intr(|| flock(file, operation))?)
}
