//! An image as its users see it: what it runs, and which layers it is made of.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use oci_spec::image::{Config, ImageConfiguration};

use super::digest::Digest;
use super::reference::Reference;

/// An image in the store. While this value or a clone of it lives, in any process, the image's content is not removed:
/// keep it for as long as a sandbox runs from it.
#[derive(Clone, Debug)]
pub struct Image {
    name: Option<Reference>,
    manifest: (Digest, u64),
    id: Digest,
    raw: Vec<u8>,
    config: ImageConfiguration,
    layers: Vec<Layer>,
    _lease: Arc<File>,
}

/// A layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the blob, which may be compressed.
    pub blob: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// The digest of its plain content.
    pub diff_id: Digest,
}

impl Image {
    pub(super) fn new(
        name: Option<Reference>,
        manifest: (Digest, u64),
        id: Digest,
        (raw, config): (Vec<u8>, ImageConfiguration),
        layers: Vec<Layer>,
        lease: File,
    ) -> Self {
        Self { name, manifest, id, raw, config, layers, _lease: Arc::new(lease) }
    }

    /// The name under which it was found, where it has one.
    pub fn name(&self) -> Option<&Reference> {
        self.name.as_ref()
    }

    /// The digest of its configuration: docker's image id.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// The digest of its manifest.
    pub fn manifest(&self) -> Digest {
        self.manifest.0
    }

    pub(super) fn manifest_size(&self) -> u64 {
        self.manifest.1
    }

    /// The bytes of its blobs as they are stored.
    pub fn size(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(|layer| layer.size).sum();
        layers + self.raw.len() as u64 + self.manifest.1
    }

    /// Its layers, the lowest first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The configuration's JSON as it came, with what only docker knows (health check, shell, …).
    pub fn raw_config(&self) -> &[u8] {
        &self.raw
    }

    /// The configuration.
    pub fn config(&self) -> &ImageConfiguration {
        &self.config
    }

    fn run(&self) -> Option<&Config> {
        self.config.config().as_ref()
    }

    /// What is always run, before the command.
    pub fn entrypoint(&self) -> &[String] {
        list(self.run().and_then(|run| run.entrypoint().as_ref()))
    }

    /// The command that runs where none is given.
    pub fn cmd(&self) -> &[String] {
        list(self.run().and_then(|run| run.cmd().as_ref()))
    }

    /// The environment, each `NAME=VALUE`.
    pub fn env(&self) -> &[String] {
        list(self.run().and_then(|run| run.env().as_ref()))
    }

    /// The directory where the command starts; `/` where the image does not say.
    pub fn working_dir(&self) -> &str {
        non_empty(self.run().and_then(|run| run.working_dir().as_ref())).unwrap_or("/")
    }

    /// The user as the image says it, `USER[:GROUP]` by name or number; see [`super::users`].
    pub fn user(&self) -> Option<&str> {
        non_empty(self.run().and_then(|run| run.user().as_ref()))
    }

    /// What its maker noted on it.
    pub fn labels(&self) -> HashMap<String, String> {
        self.run().and_then(|run| run.labels().clone()).unwrap_or_default()
    }

    /// The signal that asks the workload to stop, by name or number.
    pub fn stop_signal(&self) -> Option<&str> {
        non_empty(self.run().and_then(|run| run.stop_signal().as_ref()))
    }

    /// The directories that are to be volumes, in order.
    pub fn volumes(&self) -> Vec<&str> {
        sorted(self.run().and_then(|run| run.volumes().as_ref()))
    }

    /// The ports that it listens on, as `80/tcp`, in order.
    pub fn exposed_ports(&self) -> Vec<&str> {
        sorted(self.run().and_then(|run| run.exposed_ports().as_ref()))
    }
}

fn list(list: Option<&Vec<String>>) -> &[String] {
    list.map_or(&[], Vec::as_slice)
}

/// Docker writes "" for what is not set.
fn non_empty(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

/// In the JSON these are the keys of a map, so their order means nothing.
fn sorted(list: Option<&Vec<String>>) -> Vec<&str> {
    let mut list: Vec<&str> = list.map_or(&[][..], Vec::as_slice).iter().map(String::as_str).collect();
    list.sort_unstable();
    list
}
