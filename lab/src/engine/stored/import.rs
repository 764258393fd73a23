//! `import`: an image of one layer from a tar of a root file system.

use std::io::{BufReader, Read, Write as _};

use serde_json::json;

use super::Engine;
use super::record::now;
use crate::engine::Error;
use crate::engine::build::apply_changes;
use crate::engine::error::Context as _;
use crate::image::{self, Image, Platforms, Reference, check_layer, plain};

/// What is to be imported, beside the tar.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// The image's name.
    pub name: Option<Reference>,
    /// Instructions of a Dockerfile for its configuration.
    pub changes: Vec<String>,
    /// What its history is to say.
    pub message: String,
    /// For which machine it is; this one where not given.
    pub platform: Option<String>,
    /// Where the tar is from, for the history.
    pub source: String,
}

impl Engine {
    /// Makes an image from a tar, which may be compressed.
    ///
    /// # Errors
    /// Where it is no tar, or has what no layer may have.
    pub fn import(&self, import: &Import, tar: impl Read + Send) -> Result<Image, Error> {
        let config = apply_changes(json!({}), &import.changes)?;
        let platform = Platforms::of(import.platform.as_deref())?;
        let store = self.images();
        let adding = store.adding()?;
        let stored = || -> Result<Image, Error> {
            let damaged = |error: std::io::Error| image::Error::malformed(&import.source, error);
            // Kept plain, as layers are that are made here; looked at before it is a layer, so that a bad one never is.
            let mut file = tempfile::tempfile_in(store.path("tmp")).context("make", "a layer's file")?;
            let mut plain = plain(tar).map_err(damaged)?;
            let mut buffer = vec![0; 256 * 1024];
            loop {
                let read = plain.read(&mut buffer).map_err(damaged)?;
                if read == 0 {
                    break;
                }
                file.write_all(&buffer[..read]).map_err(image::Error::io("writing to", store.path("tmp")))?;
            }
            check_layer(&mut file, &import.source)?;
            std::io::Seek::rewind(&mut file).context("read", "the layer")?;
            let (layer, size) =
                store.add_blob(BufReader::with_capacity(256 * 1024, file), None, &import.source)?;
            let comment = format!("Imported from {}", import.source);
            let comment = if import.message.is_empty() { comment } else { import.message.clone() };
            let config = serde_json::to_vec(&json!({
                "architecture": platform.architecture().to_string(), "os": platform.os().to_string(), "created": now(),
                "config": config, "rootfs": {"type": "layers", "diff_ids": [layer]},
                "history": [{"created": now(), "comment": comment}],
            }))?;
            let id = store.add_bytes(&config)?;
            let manifest = serde_json::to_vec(&json!({
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": id, "size": config.len()},
                "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": size}],
            }))?;
            let image = store.unnamed(store.add_bytes(&manifest)?, manifest.len() as u64)?;
            store.name_image(&image, import.name.as_ref())?;
            Ok(image)
        };
        let image = stored();
        drop(adding);
        let image = image?;
        self.tell("image", "import", &image.id().to_string(), &[])?;
        Ok(image)
    }
}
