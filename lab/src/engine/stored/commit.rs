//! `commit`: an image from a container, its changes the topmost layer.

use std::io::{BufReader, Seek as _};

use bollard_stubs::models::ContainerConfig;
use serde_json::{Value, json};

use super::record::now;
use super::root::host_directory;
use super::{Engine, Record};
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
}

impl Engine {
    /// Makes an image from a container's image and its changes.
    ///
    /// # Errors
    /// Where the changes cannot be read or stored.
    pub fn commit(&self, record: &Record, commit: &Commit) -> Result<Image, Error> {
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
        let step = if commit.step.is_empty() { record.command() } else { commit.step.clone() };
        let layer = if upper.exists() { Some(&upper) } else { None };
        let image =
            self.extend_image(&base, layer.map(std::path::PathBuf::as_path), &config, commit, &step)?;
        self.tell_container(record, "commit", &[("imageID", &image.id().to_string())])?;
        Ok(image)
    }

    /// An image with one more layer, from an overlay's upper directory, or with another configuration only.
    pub(crate) fn extend_image(
        &self,
        base: &Image,
        upper: Option<&std::path::Path>,
        config: &Value,
        commit: &Commit,
        step: &str,
    ) -> Result<Image, Error> {
        let store = self.images();
        let mut raw: Value = serde_json::from_slice(base.raw_config())?;
        let created = now();
        raw["created"] = created.clone().into();
        raw["config"] = config.clone();
        if !commit.author.is_empty() {
            raw["author"] = commit.author.clone().into();
        }
        let mut layers: Vec<(Digest, u64)> =
            base.layers().iter().map(|layer| (layer.blob, layer.size)).collect();
        let mut media: Vec<String> = store.layer_media(base)?;
        let adding = store.adding()?;
        if let Some(upper) = upper {
            let mut file = tempfile::tempfile_in(store.path("tmp")).context("make", "a layer's file")?;
            let mut packer = Packer::new(std::io::BufWriter::new(&mut file), Options { whiteouts: true });
            packer.add_directory(&host_directory(upper)?, b"").context("read", upper.display())?;
            packer.finish().context("write", "a layer")?;
            file.rewind().context("read", "a layer")?;
            let (digest, size) =
                store.add_blob(BufReader::with_capacity(256 * 1024, &file), None, "the new layer")?;
            layers.push((digest, size));
            media.push("application/vnd.oci.image.layer.v1.tar".to_owned());
            push(&mut raw["rootfs"]["diff_ids"], json!(digest));
        }
        let mut entry = json!({"created": created, "created_by": step, "comment": commit.comment});
        if upper.is_none() {
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
        let digest = store.add_bytes(&manifest)?;
        store.set_name(digest, manifest.len() as u64, commit.name.as_ref(), None)?;
        drop(adding);
        Ok(store.resolve(&id.to_string())?)
    }
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}
