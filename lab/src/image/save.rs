//! Saving images: one tar that is an OCI layout and what `docker save` writes at once, so that every tool reads it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::AsFd as _;

use rustix::fs::{Mode, OFlags, open};
use serde_json::{Value, json};

use super::config::Image;
use super::digest::Digest;
use super::error::{Error, Result};
use super::pack::{Options, Packer};
use super::reference::Reference;
use super::registry::media_type;
use super::store::Store;

impl Store {
    /// Writes images, each with the names that it is to have.
    ///
    /// # Errors
    /// Where a blob is missing, or the output ends early.
    pub fn save(&self, images: &[(Image, Vec<Reference>)], output: impl Write) -> Result<()> {
        let blobs = self.path("blobs/sha256");
        let directory = open(&blobs, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::io("opening", &blobs))?;
        let mut needed: BTreeSet<Digest> = BTreeSet::new();
        let (mut index, mut saved): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
        for (image, names) in images {
            needed
                .extend(image.layers().iter().map(|layer| layer.blob).chain([image.id(), image.manifest()]));
            let media = media_type(&self.read_json(image.manifest(), "its manifest")?);
            let descriptor = |annotations: Value| {
                json!({
                    "mediaType": media, "digest": image.manifest(),
                    "size": image.manifest_size(), "annotations": annotations,
                })
            };
            index.extend(names.iter().map(|name| {
                descriptor(json!({"io.containerd.image.name": name.to_string(), "org.opencontainers.image.ref.name": name.tag()}))
            }));
            if names.is_empty() {
                index.push(descriptor(json!({})));
            }
            let path = |digest: Digest| format!("blobs/sha256/{}", digest.hex());
            saved.push(json!({
                "Config": path(image.id()),
                "RepoTags": names.iter().map(Reference::familiar).collect::<Vec<_>>(),
                "Layers": image.layers().iter().map(|layer| path(layer.blob)).collect::<Vec<_>>(),
            }));
        }
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index});
        let write = || -> io::Result<()> {
            let mut packer = Packer::new(output, Options::default());
            for blob in &needed {
                let name = blob.hex();
                packer.add(
                    directory.as_fd(),
                    OsStr::new(&name),
                    format!("blobs/sha256/{name}").as_bytes(),
                )?;
            }
            packer.add_bytes("index.json", index.to_string().as_bytes())?;
            packer.add_bytes("manifest.json", Value::Array(saved).to_string().as_bytes())?;
            packer.add_bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
            packer.finish().map(drop)
        };
        write().map_err(Error::io("saving images from", &blobs))
    }
}
