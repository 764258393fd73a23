//! `commit`: an image from a container, its changes the topmost layer.

use std::io::{BufReader, Seek as _};
use std::path::Path;

use bollard_stubs::models::ContainerConfig;
use serde_json::{Value, json};

use super::record::now;
use super::root::host_directory;
use super::{Engine, Record, Status};
use crate::engine::build::apply_changes;
use crate::engine::error::Context as _;
use crate::engine::{Error, Runtime};
use crate::image::pack::{Options, Packer};
use crate::image::{Digest, Image, Reference};

/// What a commit says about itself.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// The image's name.
    pub name: Option<Reference>,
    /// Who made it.
    pub author: String,
    /// What it is.
    pub comment: String,
    /// The step that led to it, for the image's history; the container's command where empty.
    pub step: String,
    /// What the image is to run; the container's configuration where not given.
    pub config: Option<ContainerConfig>,
    /// Instructions of a Dockerfile for it.
    pub changes: Vec<String>,
    /// Whether a container that runs is held still meanwhile.
    pub pause: bool,
}

impl Engine {
    /// Makes an image from a container's image and its changes.
    ///
    /// # Errors
    /// Where the changes cannot be read or stored.
    pub fn commit(&self, record: &Record, commit: &Commit) -> Result<Image, Error> {
        // What cannot be held still has just ended: then it is still.
        let held = commit.pause && record.status == Status::Running && self.pause(record, true).is_ok();
        let image = self.commit_as_it_is(record, commit);
        if held {
            match self.pause(&self.find(&record.id)?, false) {
                Err(Error::Conflict { .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        image
    }

    fn commit_as_it_is(&self, record: &Record, commit: &Commit) -> Result<Image, Error> {
        if record.runtime() == Runtime::Vm {
            let reason = "its files are in the machine's memory";
            return Err(Error::Unsupported { flag: "commit", runtime: "vm", reason });
        }
        let base = self.images().resolve(&record.image_id)?;
        let upper = self.roots.stored(&record.id).join("upper");
        let config = if let Some(config) = &commit.config {
            serde_json::to_value(config)?
        } else {
            let mut config = serde_json::to_value(&record.body)?;
            for foreign in ["HostConfig", "NetworkingConfig", "Hostname", "Image"] {
                config.as_object_mut().map(|config| config.remove(foreign));
            }
            config
        };
        let config = apply_changes(config, &commit.changes)?;
        let command = record.command();
        let text = if commit.step.is_empty() { &command } else { &commit.step };
        let store = self.images();
        let adding = store.adding()?;
        let layer = if upper.exists() { Some(self.store_layer(&upper)?) } else { None };
        let step = Step { text, comment: &commit.comment, author: &commit.author, created: None };
        let image = self.extend_image(&base, layer, &config, &step)?;
        store.name_image(&image, commit.name.as_ref())?;
        drop(adding);
        self.tell_container(record, "commit", &[("imageID", &image.id().to_string())])?;
        Ok(image)
    }

    /// Stores an overlay's upper directory as a layer. The caller holds the store's lock for adding.
    pub(crate) fn store_layer(&self, upper: &Path) -> Result<NewLayer, Error> {
        let store = self.images();
        let mut file = tempfile::tempfile_in(store.path("tmp")).context("make", "a layer's file")?;
        let mut packer = Packer::new(std::io::BufWriter::new(&mut file), Options { whiteouts: true });
        packer.add_directory(&host_directory(upper)?, b"").context("read", upper.display())?;
        packer.finish().context("write", "a layer")?;
        file.rewind().context("read", "a layer")?;
        let reader = BufReader::with_capacity(256 * 1024, &file);
        // Not compressed: its digest is that of its content.
        let (digest, size) = store.add_blob(reader, None, "the new layer")?;
        Ok(NewLayer { digest, size })
    }

    /// An image with one more layer, or with another configuration only. It has no name yet, and is kept by the returned
    /// value.
    pub(crate) fn extend_image(
        &self,
        base: &Image,
        layer: Option<NewLayer>,
        config: &Value,
        step: &Step<'_>,
    ) -> Result<Image, Error> {
        let store = self.images();
        let mut raw: Value = serde_json::from_slice(base.raw_config())?;
        let created = step.created.map_or_else(now, str::to_owned);
        raw["created"] = created.clone().into();
        raw["config"] = config.clone();
        if !step.author.is_empty() {
            raw["author"] = step.author.into();
        }
        let mut layers: Vec<(Digest, u64)> =
            base.layers().iter().map(|layer| (layer.blob, layer.size)).collect();
        let mut media: Vec<String> = store.layer_media(base)?;
        let mut entry = json!({"created": created, "created_by": step.text, "comment": step.comment});
        if let Some(layer) = layer {
            layers.push((layer.digest, layer.size));
            media.push("application/vnd.oci.image.layer.v1.tar".to_owned());
            push(&mut raw["rootfs"]["diff_ids"], json!(layer.digest));
        } else {
            entry["empty_layer"] = true.into();
        }
        push(&mut raw["history"], entry);
        let text = serde_json::to_vec(&raw)?;
        let id = store.add_bytes(&text)?;
        let described: Vec<Value> = layers
            .iter()
            .zip(media)
            .map(|((digest, size), media)| json!({"mediaType": media, "digest": digest, "size": size}))
            .collect();
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": id, "size": text.len()},
            "layers": described,
        }))?;
        Ok(store.unnamed(store.add_bytes(&manifest)?, manifest.len() as u64)?)
    }
}

/// A layer that has just been stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewLayer {
    pub digest: Digest,
    pub size: u64,
}

/// What an image's history says of the step that made it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Step<'a> {
    pub text: &'a str,
    pub comment: &'a str,
    pub author: &'a str,
    /// When it was done (RFC 3339); now where not given.
    pub created: Option<&'a str>,
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}
