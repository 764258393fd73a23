//! A layer as a stream of entries: decompressed, its digest known, each entry judged and in one form.
//!
//! ```text
//!  blob ──► thread: decompress, hash ──► channel of buffers ──► tar members ──► Entry
//!                                                                  (entry.rs: paths, whiteouts, attributes)
//! ```
//!
//! Both ways of using a layer read it here, so both walls see the same tree: [`super::unpack`] makes directories for the
//! container's overlay, [`super::disk`] makes the virtual machine's root disk.

mod entry;
mod pipe;

use std::fs::File;
use std::io;

pub(crate) use entry::{Entry, Kind, Metadata};

use super::digest::Digest;
use super::error::{Error, Result};
use super::progress::Step;
use super::tar::Archive;
use pipe::Pipe;

/// Whether a plain tar would do as a layer.
///
/// # Errors
/// Where it is no tar, or has an entry that no layer may have.
pub(crate) fn check(file: &mut File, object: &str) -> Result<()> {
    use std::io::Seek as _;
    let malformed = |error: io::Error| Error::malformed(object, error);
    file.rewind().map_err(malformed)?;
    let mut archive = Archive::new(io::BufReader::with_capacity(256 * 1024, file));
    let mut any = false;
    while let Some(member) = archive.next().map_err(malformed)? {
        any = true;
        let path = String::from_utf8_lossy(&member.path).into_owned();
        Entry::new(member).map_err(|reason| Error::malformed(format!("{object}: entry '{path}'"), reason))?;
    }
    let empty = "it has no entry: a tar of a root file system is expected";
    if any { Ok(()) } else { Err(Error::malformed(object, empty)) }
}

/// A layer being read from front to back.
pub(crate) struct LayerReader {
    archive: Archive<Pipe>,
    blob: Digest,
    diff_id: Digest,
}

impl LayerReader {
    /// Begins to read the blob of this digest, whose plain content has the digest `diff_id`.
    pub fn new(file: File, blob: Digest, diff_id: Digest, step: Box<dyn Step>) -> Self {
        Self { archive: Archive::new(Pipe::new(file, step)), blob, diff_id }
    }

    /// The next entry that means anything.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            let Some(member) = self.archive.next().map_err(|error| self.damaged(&error))? else {
                return Ok(None);
            };
            let path = String::from_utf8_lossy(&member.path).into_owned();
            match Entry::new(member) {
                Ok(Some(entry)) => return Ok(Some(entry)),
                Ok(None) => {}
                Err(reason) => return Err(self.refuse(&path, reason)),
            }
        }
    }

    /// Some of the current entry's content, empty at its end.
    pub fn chunk(&mut self) -> Result<&[u8]> {
        let blob = self.blob;
        self.archive.chunk().map_err(|error| damaged(blob, &error))
    }

    /// So much of the chunk was used.
    pub fn consume(&mut self, used: usize) {
        self.archive.consume(used);
    }

    /// Reads what is behind the archive's end and checks the digest of it all. Until this has passed, nothing made of
    /// the layer may be used.
    pub fn finish(self) -> Result<()> {
        let (blob, expected) = (self.blob, self.diff_id);
        let actual = self.archive.into_inner().finish().map_err(|error| damaged(blob, &error))?;
        if actual == expected {
            return Ok(());
        }
        Err(Error::Mismatch { object: format!("layer {blob}, unpacked"), expected, actual })
    }

    /// An entry that must not be.
    pub fn refuse(&self, path: &str, reason: impl std::fmt::Display) -> Error {
        Error::Entry { layer: self.blob, entry: path.to_owned(), reason: reason.to_string() }
    }

    fn damaged(&self, error: &io::Error) -> Error {
        damaged(self.blob, error)
    }
}

fn damaged(blob: Digest, error: &io::Error) -> Error {
    Error::malformed(format!("layer {blob}"), format!("{error}; fetch or save the image again"))
}
