//! Names: `index.json`, one descriptor for each name of each image (OCI image specification, "Image Layout").

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;

use oci_spec::image::{
    ANNOTATION_REF_NAME, Descriptor, DescriptorBuilder, ImageIndex, ImageIndexBuilder, ImageManifest,
    MediaType, SCHEMA_VERSION,
};
use rustix::fs::FlockOperation;

use super::{Store, lock};
use crate::image::digest::Digest;
use crate::image::error::{Error, Result};
use crate::image::reference::Reference;

/// Says which build of the embedded image a descriptor is; see [`crate::image::embedded`].
pub(crate) const ANNOTATION_EMBEDDED: &str = "lab.embedded";

/// On an image that is kept for a stopped container only: it is not listed.
const ANNOTATION_HIDDEN: &str = "lab.hidden";

/// The fewest digits that are taken for the beginning of an id, so that `a` is a name.
const SHORTEST_ID: usize = 4;

/// The name of a descriptor in our index.
pub(crate) fn name_of(descriptor: &Descriptor) -> Option<Reference> {
    annotation(descriptor, ANNOTATION_REF_NAME)?.parse().ok()
}

pub(crate) fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(key).map(String::as_str)
}

/// Takes an image out of the lists.
pub(super) fn hide(descriptor: &mut Descriptor) {
    descriptor.set_annotations(Some(HashMap::from([(ANNOTATION_HIDDEN.to_owned(), "true".to_owned())])));
}

pub(super) fn is_hidden(descriptor: &Descriptor) -> bool {
    annotation(descriptor, ANNOTATION_HIDDEN).is_some()
}

/// A manifest's entry in the index.
pub(super) fn descriptor(
    manifest: Digest,
    size: u64,
    annotations: HashMap<String, String>,
) -> Result<Descriptor> {
    let builder =
        DescriptorBuilder::default().media_type(MediaType::ImageManifest).digest(manifest).size(size);
    builder
        .annotations(annotations)
        .build()
        .map_err(|error| Error::malformed(format!("manifest {manifest}"), error))
}

impl Store {
    /// The descriptors of all images.
    pub(crate) fn read_index(&self) -> Result<Vec<Descriptor>> {
        let path = self.path("index.json");
        let content = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            content => content.map_err(Error::io("reading", &path))?,
        };
        let index: ImageIndex = serde_json::from_slice(&content)
            .map_err(|error| Error::malformed(path.display().to_string(), error))?;
        Ok(index.manifests().clone())
    }

    /// Changes the index as one step among all processes.
    pub(super) fn change_index<T>(
        &self,
        change: impl FnOnce(&mut Vec<Descriptor>) -> Result<T>,
    ) -> Result<T> {
        // The new index is made in tmp/, which must not be emptied meanwhile.
        let _adding = self.adding()?;
        // A file of its own: index.json is another file after each change, so a lock on it would mean nothing.
        let path = self.path("index.lock");
        let guard = OpenOptions::new().create(true).append(true).open(&path);
        let guard = guard.map_err(Error::io("opening", &path))?;
        lock(&guard, FlockOperation::LockExclusive).map_err(Error::io("locking", &path))?;

        let mut descriptors = self.read_index()?;
        let result = change(&mut descriptors)?;
        let index = ImageIndexBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageIndex)
            .manifests(descriptors)
            .build()
            .map_err(|error| Error::malformed("index.json", error))?;
        let content = serde_json::to_vec(&index).map_err(|error| Error::malformed("index.json", error))?;
        self.write_file("index.json", &content)?;
        Ok(result)
    }

    /// Makes a stored manifest an image, under this name or none. Another image that has the name loses it.
    pub(crate) fn set_name(
        &self,
        manifest: Digest,
        size: u64,
        name: Option<&Reference>,
        embedded: Option<&str>,
    ) -> Result<()> {
        let mut annotations = HashMap::new();
        if let Some(name) = name {
            annotations.insert(ANNOTATION_REF_NAME.to_owned(), name.to_string());
        }
        if let Some(build) = embedded {
            annotations.insert(ANNOTATION_EMBEDDED.to_owned(), build.to_owned());
        }
        let descriptor = descriptor(manifest, size, annotations)?;
        self.change_index(|descriptors| {
            let same = |other: &Descriptor| other.digest() == descriptor.digest();
            if name.is_none() && descriptors.iter().any(|other| same(other) && !is_hidden(other)) {
                return Ok(());
            }
            if let Some(name) = name {
                take_name(descriptors, name);
            }
            // An image that was nameless until now is no longer so.
            descriptors.retain(|other| !(same(other) && name_of(other).is_none()));
            descriptors.push(descriptor.clone());
            Ok(())
        })
    }

    /// The manifest that a name means, if it means one.
    pub(crate) fn named(&self, name: &Reference) -> Result<Option<Digest>> {
        let index = self.read_index()?;
        let found = index.iter().find(|descriptor| name_of(descriptor).as_ref() == Some(name));
        found.map(|descriptor| Digest::try_from(descriptor.digest())).transpose()
    }

    /// The names of all images, each with its manifest.
    pub(crate) fn names(&self) -> Result<Vec<(Reference, Digest)>> {
        let mut names = Vec::new();
        for descriptor in self.read_index()? {
            if let Some(name) = name_of(&descriptor) {
                names.push((name, Digest::try_from(descriptor.digest())?));
            }
        }
        Ok(names)
    }

    /// The descriptor that a name, an id, or the beginning of an id means, in this order.
    pub(super) fn find(&self, asked: &str) -> Result<Descriptor> {
        let descriptors = self.read_index()?;
        let reference: Result<Reference> = asked.parse();
        if let Ok(reference) = &reference {
            let found = match reference.digest() {
                // The digest of the manifest, or of the index for several platforms that it was pulled by.
                Some(digest) => descriptors.iter().find(|descriptor| {
                    name_of(descriptor).is_some_and(|name| {
                        name.familiar_repository() == reference.familiar_repository()
                            && (name.digest() == Some(digest)
                                || descriptor.digest().as_ref() == digest.to_string())
                    })
                }),
                None => descriptors.iter().find(|descriptor| name_of(descriptor).as_ref() == Some(reference)),
            };
            if let Some(found) = found {
                return Ok(found.clone());
            }
        }
        let prefix = asked.strip_prefix("sha256:").unwrap_or(asked);
        let is_id = prefix.len() >= SHORTEST_ID
            && prefix.chars().all(|c| c.is_ascii_digit() || matches!(c, 'a'..='f'));
        if !is_id {
            // A name that breaks the rules is told so, rather than "not found".
            reference?;
            return Err(Error::NotFound { name: asked.to_owned() });
        }
        let mut found: Vec<(Digest, &Descriptor)> = Vec::new();
        for descriptor in &descriptors {
            let id = self.id_of(descriptor)?;
            let matches = descriptor.digest().digest().starts_with(prefix) || id.hex().starts_with(prefix);
            let hidden = is_hidden(descriptor) && prefix.len() < id.hex().len();
            // One image under two names, or with its layers in two forms, is one image.
            if matches && !hidden && !found.iter().any(|(other, _)| *other == id) {
                found.push((id, descriptor));
            }
        }
        match found[..] {
            [] => Err(Error::NotFound { name: asked.to_owned() }),
            [(_, found)] => Ok(found.clone()),
            _ => Err(Error::Ambiguous { prefix: asked.to_owned(), count: found.len() }),
        }
    }

    pub(super) fn id_of(&self, descriptor: &Descriptor) -> Result<Digest> {
        let digest = Digest::try_from(descriptor.digest())?;
        let manifest: ImageManifest = serde_json::from_slice(&self.read_json(digest, "its manifest")?)
            .map_err(|error| Error::malformed(format!("manifest {digest}"), error))?;
        Digest::try_from(manifest.config().digest())
    }
}

/// Takes a name away from whoever has it. An image whose last name that was stays, without a name.
fn take_name(descriptors: &mut Vec<Descriptor>, name: &Reference) {
    let Some(position) = descriptors.iter().position(|other| name_of(other).as_ref() == Some(name)) else {
        return;
    };
    let mut nameless = descriptors.remove(position);
    // The embedded image's last build is replaced by this one's, not kept.
    let embedded = annotation(&nameless, ANNOTATION_EMBEDDED).is_some();
    let named_otherwise = descriptors.iter().any(|other| other.digest() == nameless.digest());
    if !named_otherwise && !embedded {
        nameless.set_annotations(None);
        descriptors.push(nameless);
    }
}
