//! What `docker save` wrote until version 25, and skopeo and podman write still: `manifest.json`, a configuration for
//! each image, and tars of layers, which other tools compress. It has no OCI manifest, so one is made.

use oci_spec::image::{
    DescriptorBuilder, ImageConfiguration, ImageManifestBuilder, MediaType, SCHEMA_VERSION,
};
use serde::Deserialize;

use super::archive::{Contents, compression};
use super::{Found, parse};
use crate::image::digest::Digest;
use crate::image::error::{Error, Result};
use crate::image::reference::Reference;
use crate::image::store::Store;

/// One image in `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    /// Null where the image was saved by its id.
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The images of an archive whose blobs are in the store.
pub(super) fn from_archive(store: &Store, contents: &Contents, object: &str) -> Result<Vec<Found>> {
    let Some(manifest) = &contents.manifest else {
        let reason = "it is neither an OCI layout (it has no oci-layout and index.json) nor what `docker save` writes \
                      (it has no manifest.json)";
        return Err(Error::malformed(object, reason));
    };
    let images: Vec<Saved> = parse(manifest, format!("{object}: manifest.json"))?;
    if images.is_empty() {
        return Err(Error::malformed(object, "its manifest.json names no image"));
    }
    images.iter().map(|image| translate(store, contents, image, object)).collect()
}

/// The names of all images in a `manifest.json`.
pub(super) fn names(manifest: &[u8], object: &str) -> Result<Vec<Reference>> {
    let images: Vec<Saved> = parse(manifest, format!("{object}: manifest.json"))?;
    images.iter().flat_map(|image| image.repo_tags.iter().flatten()).map(|name| name.parse()).collect()
}

fn translate(store: &Store, contents: &Contents, image: &Saved, object: &str) -> Result<Found> {
    let blob = |path: &str| {
        let missing =
            || Error::malformed(object, format!("its manifest.json names '{path}', which is not in it"));
        contents.blob(path).ok_or_else(missing)
    };
    let (id, config_size) = blob(&image.config)?;
    let json = store.read_json(id, "its configuration")?;
    let config: ImageConfiguration = parse(&json, format!("{object}: {}", image.config))?;
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != image.layers.len() {
        let reason =
            format!("it describes {} layers, manifest.json lists {}", diff_ids.len(), image.layers.len());
        return Err(Error::malformed(format!("{object}: {}", image.config), reason));
    }
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (path, diff_id) in image.layers.iter().zip(diff_ids) {
        let (digest, size) = blob(path)?;
        let expected: Digest = diff_id.parse()?;
        if let Some(compressed) = compression(path) {
            // What is inside is compared with the diff-id when it is unpacked.
            layers.push(descriptor(compressed, digest, size, object)?);
            continue;
        }
        // Layers are plain tars here, so their digest is the diff-id; a damaged one is found now, not at its first use.
        if digest != expected {
            return Err(Error::Mismatch {
                object: format!("{object}: layer {path}"),
                expected,
                actual: digest,
            });
        }
        layers.push(descriptor(MediaType::ImageLayer, digest, size, object)?);
    }
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(MediaType::ImageConfig, id, config_size, object)?)
        .layers(layers)
        .build()
        .map_err(|error| Error::malformed(object, error))?;
    let manifest = serde_json::to_vec(&manifest).map_err(|error| Error::malformed(object, error))?;
    let names: Result<Vec<Reference>> = image.repo_tags.iter().flatten().map(|name| name.parse()).collect();
    Ok(Found { manifest: store.add_bytes(&manifest)?, size: manifest.len() as u64, id, names: names? })
}

fn descriptor(
    media_type: MediaType,
    digest: Digest,
    size: u64,
    object: &str,
) -> Result<oci_spec::image::Descriptor> {
    DescriptorBuilder::default()
        .media_type(media_type)
        .digest(digest)
        .size(size)
        .build()
        .map_err(|error| Error::malformed(object, error))
}
