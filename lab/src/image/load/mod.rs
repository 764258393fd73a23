//! Loading images: an OCI layout (directory or tar) or what `docker save` writes, of either form, compressed or not.
//!
//! A tar is read once, from front to back, so it may come through a pipe: every blob goes into the store as it passes,
//! its digest checked, and the small files that say what the blobs mean are kept until the end (archive.rs). Then
//! `index.json` is followed (oci.rs) or, where there is none, `manifest.json` is translated (docker.rs). What was stored
//! for nothing, because the archive turns out to be no image, is collected again.

mod archive;
mod docker;
mod oci;
mod platform;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::compression::decompress;
use super::digest::Digest;
use super::error::{Error, Result};
use super::progress::{Progress, Watched};
use super::reference::Reference;
use super::store::Store;

pub(crate) use oci::complete;
pub(crate) use platform::{Platforms, architecture};

/// What [`Store::load`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image's name, where the file gave it one.
    pub name: Option<Reference>,
    /// The image's id.
    pub id: Digest,
}

/// A manifest in the store that has just been loaded.
#[derive(Debug)]
pub(crate) struct Found {
    manifest: Digest,
    size: u64,
    pub id: Digest,
    names: Vec<Reference>,
}

const BUFFER: usize = 256 * 1024;

impl Store {
    /// Loads all images of an OCI layout (a directory or a tar) or of a `docker save` archive. Tars may be compressed
    /// by gzip or zstd.
    ///
    /// # Errors
    /// Where the file is none of these, a blob is damaged or missing, or no image is for this machine.
    pub fn load(&self, path: &Path, progress: &dyn Progress) -> Result<Vec<Loaded>> {
        let opening = || Error::io("opening", path);
        let metadata = std::fs::metadata(path).map_err(opening())?;
        let stem = name_from_path(path);
        if metadata.is_dir() {
            return self.loading(|| oci::from_directory(self, path, progress), stem.as_deref());
        }
        let file = File::open(path).map_err(opening())?;
        let object = path.display().to_string();
        let total = metadata.is_file().then_some(metadata.len());
        self.load_stream(file, &object, total, stem.as_deref(), progress)
    }

    /// Loads a tar as [`Store::load`] does, from a pipe. `object` names it in messages.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_from(
        &self,
        input: impl Read + Send,
        object: &str,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>> {
        self.load_stream(input, object, None, None, progress)
    }

    fn load_stream(
        &self,
        input: impl Read + Send,
        object: &str,
        total: Option<u64>,
        stem: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>> {
        self.loading(
            || {
                let step = progress.begin("loading", total);
                let watched = Watched { inner: input, step: &*step };
                let plain = decompress(BufReader::with_capacity(BUFFER, watched));
                let plain = plain.map_err(|error| Error::malformed(object, error))?;
                let contents = archive::read(self, BufReader::with_capacity(BUFFER, plain), object)?;
                if contents.is_layout() {
                    return oci::from_archive(self, &contents, object);
                }
                docker::from_archive(self, &contents, object)
            },
            stem,
        )
    }

    /// Runs a load under the lock that keeps garbage collection away, and names what it found.
    fn loading(&self, load: impl FnOnce() -> Result<Vec<Found>>, stem: Option<&str>) -> Result<Vec<Loaded>> {
        let adding = self.adding()?;
        let load = || -> Result<Vec<Loaded>> {
            let mut loaded = Vec::new();
            for found in load()? {
                self.name(found, stem, &mut loaded)?;
            }
            Ok(loaded)
        };
        let loaded = load();
        drop(adding);
        if loaded.is_err() {
            // What the failed load has stored is nobody's. That it failed is what matters to the caller.
            let _ = self.collect_garbage();
        }
        loaded
    }

    fn name(&self, found: Found, stem: Option<&str>, loaded: &mut Vec<Loaded>) -> Result<()> {
        let mut names = found.names;
        if names.is_empty() {
            // skopeo's and umoci's layouts name tags only, or nothing; the file's own name is the best there is.
            names.extend(stem.and_then(|stem| stem.parse().ok()));
        }
        if names.is_empty() {
            self.set_name(found.manifest, found.size, None, None)?;
            loaded.push(Loaded { name: None, id: found.id });
        }
        for name in names {
            self.set_name(found.manifest, found.size, Some(&name), None)?;
            loaded.push(Loaded { name: Some(name), id: found.id });
        }
        Ok(())
    }
}

/// `images/busybox.tar.gz` → `busybox`.
fn name_from_path(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let known = |name: &str| {
        [".gz", ".tgz", ".zst", ".tar", ".oci"]
            .iter()
            .find_map(|end| name.strip_suffix(end).map(str::to_owned))
    };
    let mut name = name;
    while let Some(shorter) = known(&name) {
        name = shorter;
    }
    Some(name)
}

/// Parses JSON that came with an image.
fn parse<T: serde::de::DeserializeOwned>(json: &[u8], object: impl Into<String>) -> Result<T> {
    serde_json::from_slice(json).map_err(|error| Error::malformed(object, error))
}
