//! The root disk of a virtual machine: an image's layers merged into one EROFS file, built once.
//!
//! ```text
//!  layer blobs, lowest first ──► Builder ── contents ──► data area of the file (writer.rs)
//!                                   │
//!                                   └── names, attributes ──► Tree, whiteouts applied (tree.rs)
//!                                                               └──► inodes and directories behind the data
//! ```
//!
//! EROFS, and nothing compressed: where a guest's kernel is emulated, each instruction that decompresses is felt, and a
//! page of an uncompressed file is one read of the disk, at the offset of a block. It is read-only by design, keeps all
//! that an image can hold, and is in every distribution's kernel since Linux 5.4.
//!
//! Why the writer is ours (a few hundred lines, and the format is a page of the kernel's documentation,
//! Documentation/filesystems/erofs.rst): of the libraries, `erofs-rs` 0.3 reads only; `composefs` 0.9 writes EROFS but
//! keeps files' contents elsewhere, by fs-verity digest; `backhand` 0.25 writes squashfs without extended attributes,
//! and with every block passed through a compressor. `mkfs.erofs` would be one more thing to install, and could not see
//! the owners of files that an unprivileged user unpacked.
//!
//! Because it is built from the blobs and not from the unpacked layers, an unprivileged user's disk has the true owners,
//! devices and capabilities too.

mod erofs;
mod initramfs;
mod tree;
mod writer;

use std::fs::File;
use std::path::PathBuf;

use super::config::Image;
use super::digest::Digest;
use super::error::{Error, Result};
use super::layer::LayerReader;
use super::progress::Progress;
use super::store::Store;
use writer::Builder;

/// A disk that a virtual machine mounts read-only as its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootDisk {
    /// The file, a whole number of 4 KiB blocks.
    pub path: PathBuf,
    /// What `mount(2)` calls its file system.
    pub fs_type: &'static str,
}

impl Store {
    /// The image's root disk, built where it is not there yet. Keep the [`Image`] for as long as the disk is in use.
    ///
    /// # Errors
    /// Where a layer is missing, damaged or hostile, or the disk cannot be written.
    pub fn root_disk(&self, image: &Image, progress: &dyn Progress) -> Result<RootDisk> {
        let diff_ids: Vec<Digest> = image.layers().iter().map(|layer| layer.diff_id).collect();
        let path = self.path("disks").join(format!("{}.erofs", chain_id(&diff_ids).hex()));
        if !path.exists() {
            self.build_disk(image, &path, progress)?;
        }
        Ok(RootDisk { path, fs_type: "erofs" })
    }

    fn build_disk(&self, image: &Image, path: &PathBuf, progress: &dyn Progress) -> Result<()> {
        let _adding = self.adding()?;
        let temporary = self.path("tmp");
        let file = tempfile::NamedTempFile::new_in(&temporary);
        let file = file.map_err(Error::io("making a file in", &temporary))?;
        let writing = || Error::io("writing the root disk", path);
        let target: File = file.reopen().map_err(writing())?;
        let mut builder = Builder::new(target).map_err(writing())?;
        for layer in image.layers() {
            let blob = self.open_blob(layer.blob, "a layer")?;
            let label = format!("disk from {}", &layer.diff_id.hex()[..12]);
            let step = progress.begin(&label, Some(layer.size));
            let reader = LayerReader::new(blob, layer.blob, layer.diff_id, step);
            builder.add_layer(reader, path)?;
        }
        builder.finish().map_err(writing())?;
        let publish = || {
            file.as_file().sync_all()?;
            file.persist(path)?;
            self.sync_directory("disks")
        };
        publish().map_err(writing())
    }
}

/// One name for a stack of layers, whatever configuration stands on it (OCI image specification, "Image
/// Configuration", section "Layer ChainID").
pub(crate) fn chain_id(diff_ids: &[Digest]) -> Digest {
    let Some((first, rest)) = diff_ids.split_first() else {
        return Digest::of(b"");
    };
    rest.iter().fold(*first, |chain, diff_id| Digest::of(format!("{chain} {diff_id}").as_bytes()))
}
