//! Collecting what no image needs any more.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;

use oci_spec::image::{ImageConfiguration, ImageManifest};
use rustix::fs::FlockOperation;

use super::{PUT_OFF, Store, lock};
use crate::image::digest::Digest;
use crate::image::error::{Error, Result};
use crate::image::registry::forget_partial;
use crate::image::{disk, unpack};

impl Store {
    /// Deletes what no named and no used image needs. Does nothing while somebody adds to the store: the last one who does
    /// will see to it. The bytes that were given back; none where nothing was done.
    ///
    /// # Errors
    /// Where something cannot be read or deleted.
    pub fn collect_garbage(&self) -> Result<Option<u64>> {
        let path = self.path("lock");
        let guard = OpenOptions::new().create(true).append(true).open(&path);
        let guard = guard.map_err(Error::io("opening", &path))?;
        if lock(&guard, FlockOperation::NonBlockingLockExclusive).is_err() {
            let put_off = self.path(PUT_OFF);
            File::create(&put_off).map_err(Error::io("making", &put_off))?;
            return Ok(None);
        }
        let _ = fs::remove_file(self.path(PUT_OFF));
        let mut freed = 0;
        let mut needed = Needed::default();
        for descriptor in self.read_index()? {
            self.mark(Digest::try_from(descriptor.digest())?, &mut needed);
        }
        // What has no name but is in use: leases are on manifests, so any other blob is free. The locks taken here are
        // held until the end, so that nobody can take a lease on what is about to go.
        let mut free = Vec::new();
        for (digest, path) in self.entries("blobs/sha256")? {
            if needed.blobs.contains(&digest) {
                continue;
            }
            let file = File::open(&path).map_err(Error::io("opening", &path))?;
            if lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                free.push((digest, path, file));
            } else {
                self.mark(digest, &mut needed);
            }
        }
        for (digest, path, _lease) in free {
            if !needed.blobs.contains(&digest) {
                freed += fs::metadata(&path).map_or(0, |blob| blob.len());
                fs::remove_file(&path).map_err(Error::io("deleting", &path))?;
            }
        }
        for (digest, path) in self.entries("layers")? {
            if !needed.layers.contains(&digest) {
                unpack::remove_tree(&path).map_err(Error::io("deleting", &path))?;
            }
        }
        for (digest, path) in self.entries("disks")? {
            if !needed.disks.contains(&digest) {
                fs::remove_file(&path).map_err(Error::io("deleting", &path))?;
            }
        }
        self.empty_temporary()?;
        let partial = self.path("partial");
        forget_partial(&partial).map_err(Error::io("emptying", &partial))?;
        Ok(Some(freed))
    }

    /// Notes what an image needs. A damaged image needs what can still be read of it.
    fn mark(&self, manifest: Digest, needed: &mut Needed) {
        needed.blobs.insert(manifest);
        let read = |digest| self.read_json(digest, "").unwrap_or_default();
        let Ok(parsed) = serde_json::from_slice::<ImageManifest>(&read(manifest)) else {
            return;
        };
        let blobs = parsed.layers().iter().chain([parsed.config()]);
        needed.blobs.extend(blobs.filter_map(|blob| Digest::try_from(blob.digest()).ok()));
        let Ok(config) = Digest::try_from(parsed.config().digest()) else {
            return;
        };
        if let Ok(config) = serde_json::from_slice::<ImageConfiguration>(&read(config)) {
            let diff_ids: Vec<Digest> =
                config.rootfs().diff_ids().iter().filter_map(|id| id.parse().ok()).collect();
            needed.disks.insert(disk::chain_id(&diff_ids));
            needed.layers.extend(diff_ids);
        }
    }

    /// The files of a directory that are named by a digest; others are not ours to judge.
    fn entries(&self, directory: &str) -> Result<Vec<(Digest, std::path::PathBuf)>> {
        let path = self.path(directory);
        let read = || -> io::Result<Vec<_>> {
            let mut entries = Vec::new();
            for entry in fs::read_dir(&path)? {
                let path = entry?.path();
                if let Some(digest) = path.file_stem().and_then(OsStr::to_str).and_then(Digest::from_hex) {
                    entries.push((digest, path));
                }
            }
            Ok(entries)
        };
        read().map_err(Error::io("listing", &path))
    }

    /// Nobody is adding, so whatever is there was left by a process that died.
    fn empty_temporary(&self) -> Result<()> {
        let path = self.path("tmp");
        for entry in fs::read_dir(&path).map_err(Error::io("listing", &path))? {
            let path = entry.map_err(Error::io("listing", &path))?.path();
            remove(&path).map_err(Error::io("deleting", &path))?;
        }
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => unpack::remove_tree(path),
        other => other,
    }
}

#[derive(Default)]
struct Needed {
    blobs: HashSet<Digest>,
    layers: HashSet<Digest>,
    disks: HashSet<Digest>,
}
