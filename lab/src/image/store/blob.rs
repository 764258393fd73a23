//! Blobs: written once, whole, under the digest of their content.

use std::fs::{self, File};
use std::io::{BufRead, ErrorKind, Read, Write};
use std::path::PathBuf;

use super::Store;
use crate::image::digest::{Digest, Hasher};
use crate::image::error::{Error, Result};

/// The largest manifest, index or configuration that is read into memory. The distribution specification asks
/// registries to take manifests of 4 MB at least; none in the field comes near.
pub(crate) const LARGEST_JSON: u64 = 4 << 20;

const BUFFER: usize = 256 * 1024;

impl Store {
    pub(crate) fn blob_path(&self, digest: Digest) -> PathBuf {
        self.path("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is here with this size.
    pub(crate) fn has_blob(&self, digest: Digest, size: u64) -> bool {
        fs::metadata(self.blob_path(digest)).is_ok_and(|blob| blob.len() == size)
    }

    pub(crate) fn open_blob(&self, digest: Digest, role: &'static str) -> Result<File> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::MissingBlob { digest, role },
            _ => Error::io("opening", &path)(error),
        })
    }

    /// A manifest, index or configuration, its digest checked: it may have been tampered with since it was stored.
    pub(crate) fn read_json(&self, digest: Digest, role: &'static str) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        self.open_blob(digest, role)?
            .take(LARGEST_JSON)
            .read_to_end(&mut content)
            .map_err(Error::io("reading", self.blob_path(digest)))?;
        let actual = Digest::of(&content);
        if actual != digest {
            return Err(Error::Mismatch {
                object: format!("stored blob {digest} ({role})"),
                expected: digest,
                actual,
            });
        }
        Ok(content)
    }

    /// Stores a blob from memory.
    pub(crate) fn add_bytes(&self, bytes: &[u8]) -> Result<Digest> {
        self.add_blob(bytes, None, "blob").map(|(digest, _)| digest)
    }

    /// Stores a blob; its digest and size. Where `expected` says what it is, anything else is refused and not kept.
    /// `object` names the blob's origin in messages. The caller holds [`Store::adding`].
    pub(crate) fn add_blob(
        &self,
        mut content: impl BufRead,
        expected: Option<Digest>,
        object: &str,
    ) -> Result<(Digest, u64)> {
        let reading = |error| Error::malformed(object, format!("{error}; fetch or save the image again"));
        let temporary = self.path("tmp");
        // One that is here is read all the same: the archive's copy may be damaged, which is worth saying.
        let here = expected.is_some_and(|digest| self.blob_path(digest).exists());
        let mut file = if here {
            None
        } else {
            Some(
                tempfile::NamedTempFile::new_in(&temporary)
                    .map_err(Error::io("making a file in", &temporary))?,
            )
        };
        let mut hasher = Hasher::default();
        let mut size = 0;
        loop {
            let chunk = match content.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                chunk => chunk.map_err(reading)?,
            };
            let length = chunk.len().min(BUFFER);
            if length == 0 {
                break;
            }
            hasher.update(&chunk[..length]);
            if let Some(file) = &mut file {
                file.write_all(&chunk[..length]).map_err(Error::io("writing to", &temporary))?;
            }
            size += length as u64;
            content.consume(length);
        }
        let digest = hasher.finish();
        if let Some(expected) = expected
            && digest != expected
        {
            return Err(Error::Mismatch { object: object.to_owned(), expected, actual: digest });
        }
        if let Some(file) = file {
            let path = self.blob_path(digest);
            let finish = || {
                file.as_file().sync_all()?;
                file.persist(&path)?;
                self.sync_directory("blobs/sha256")
            };
            finish().map_err(Error::io("writing", &path))?;
        }
        Ok((digest, size))
    }
}
