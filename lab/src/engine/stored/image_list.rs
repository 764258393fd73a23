//! Looking at images: lists with docker's filters, and what one says about itself.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Engine, Filters};
use crate::engine::{Error, glob, moment};
use crate::image::{Digest, Image, Reference};

/// An image with all its names.
#[derive(Clone, Debug)]
pub struct ImageEntry {
    /// Its id.
    pub id: Digest,
    /// Its names with a tag.
    pub tags: Vec<Reference>,
    /// The digests by which registries know it.
    pub digests: Vec<Reference>,
    /// When it was built, as it says itself (RFC 3339).
    pub created: Option<String>,
    /// The bytes of its blobs as they are stored.
    pub size: u64,
    /// What its maker noted on it.
    pub labels: std::collections::HashMap<String, String>,
}

impl ImageEntry {
    /// When it was built; the beginning of time where it does not say.
    pub fn moment(&self) -> Timestamp {
        self.created.as_deref().and_then(|created| created.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// The filters that images have.
const KNOWN: [&str; 6] = ["reference", "dangling", "label", "before", "since", "until"];

impl Engine {
    /// The images that fit, the youngest first. With the filter `reference`, only with the names that fit it.
    ///
    /// # Errors
    /// Filters that make no sense.
    pub fn list_images(&self, filters: &Filters) -> Result<Vec<ImageEntry>, Error> {
        filters.check(&KNOWN)?;
        let store = self.images_with_embedded()?;
        let dangling = filters.truth("dangling")?;
        let edge = |name: &str| -> Result<Option<Timestamp>, Error> {
            let Some([asked, ..]) = filters.get(name) else { return Ok(None) };
            let image = store.resolve(asked)?;
            Ok(image.config().created().as_deref().and_then(|created| created.parse().ok()))
        };
        let (before, since) = (edge("before")?, edge("since")?);
        let until = match filters.get("until") {
            Some([asked, ..]) => Some(moment::parse(asked, Timestamp::now())?),
            _ => None,
        };
        let mut images: Vec<ImageEntry> = Vec::new();
        for image in store.list()? {
            let at = images.iter().position(|known| known.id == image.id).unwrap_or(images.len());
            if at == images.len() {
                let (id, created, size, labels) = (image.id, image.created, image.size, image.labels);
                images.push(ImageEntry { id, tags: Vec::new(), digests: Vec::new(), created, size, labels });
            }
            if let Some(name) = image.name {
                let list = if name.tag().is_some() { &mut images[at].tags } else { &mut images[at].digests };
                list.push(name);
            }
        }
        images.retain(|image| {
            let moment = image.moment();
            filters.fits_labels(&image.labels)
                && dangling.is_none_or(|dangling| dangling == image.tags.is_empty())
                && before.is_none_or(|before| moment < before)
                && since.is_none_or(|since| moment > since)
                && until.is_none_or(|until| moment < until)
        });
        if filters.get("reference").is_some() {
            let fits = |name: &Reference| {
                let (full, repository) = (name.familiar(), name.familiar_repository());
                filters.fits("reference", |pattern| {
                    [&full, &repository].iter().any(|name| glob::matches(name.as_bytes(), pattern.as_bytes()))
                })
            };
            for image in &mut images {
                image.tags.retain(&fits);
                image.digests.retain(&fits);
            }
            images.retain(|image| !image.tags.is_empty() || !image.digests.is_empty());
        }
        images.sort_by_key(|image| std::cmp::Reverse(image.moment()));
        Ok(images)
    }

    /// What an image says about itself, in the words of `docker image inspect`.
    ///
    /// # Errors
    /// Where there is no such image.
    pub fn inspect_image(&self, name: &str) -> Result<Value, Error> {
        let image = self.images_with_embedded()?.resolve(name)?;
        let (tags, digests) = self.names_of(&image)?;
        // As it came, so that nothing is lost that only docker knows.
        let raw: Value = serde_json::from_slice(image.raw_config())?;
        let field = |name: &str| raw.get(name).cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let layers: Vec<_> = image.layers().iter().map(|layer| layer.diff_id).collect();
        let mut config = raw.get("config").filter(|config| config.is_object()).cloned();
        let config = config.get_or_insert_with(|| Value::Object(Map::new()));
        for key in ["Env", "Cmd", "Entrypoint", "Labels", "Volumes", "ExposedPorts", "OnBuild"] {
            config.as_object_mut().map(|config| config.entry(key).or_insert(Value::Null));
        }
        let last = raw["history"].as_array().and_then(|history| history.last()).cloned().unwrap_or_default();
        let mut described = json!({
            "Id": image.id(), "RepoTags": tags, "RepoDigests": digests, "Parent": "", "Comment": text(&last["comment"]),
            "Created": field("created"), "DockerVersion": "", "Author": text(&raw["author"]), "Config": config,
            "Architecture": field("architecture"), "Os": field("os"), "Size": image.size(),
            "GraphDriver": {"Name": "overlay", "Data": null}, "RootFS": {"Type": "layers", "Layers": layers},
            "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
        });
        if raw["variant"].is_string() {
            described["Variant"] = field("variant");
        }
        Ok(described)
    }

    /// The steps that made an image, the last first, in the words of `GET /images/x/history`.
    ///
    /// # Errors
    /// Where there is no such image.
    pub fn image_history(&self, name: &str) -> Result<Vec<Value>, Error> {
        let image = self.images_with_embedded()?.resolve(name)?;
        let raw: Value = serde_json::from_slice(image.raw_config())?;
        let mut sizes = image.layers().iter().map(|layer| layer.size);
        let mut steps: Vec<Value> = Vec::new();
        for step in raw["history"].as_array().into_iter().flatten() {
            let empty = step["empty_layer"].as_bool().unwrap_or(false);
            let size = if empty { 0 } else { sizes.next().unwrap_or(0) };
            let created = step["created"].as_str().and_then(|created| created.parse::<Timestamp>().ok());
            steps.push(json!({
                "Id": "<missing>", "Created": created.map_or(0, Timestamp::as_second),
                "CreatedBy": step["created_by"].as_str().unwrap_or_default(), "Tags": null, "Size": size,
                "Comment": step["comment"].as_str().unwrap_or_default(),
            }));
        }
        steps.reverse();
        if let Some(top) = steps.first_mut() {
            let (tags, _) = self.names_of(&image)?;
            top["Id"] = image.id().to_string().into();
            top["Tags"] = if tags.is_empty() { Value::Null } else { json!(tags) };
        }
        Ok(steps)
    }

    /// The tags of an image, and the digests by which registries know it.
    fn names_of(&self, image: &Image) -> Result<(Vec<String>, Vec<String>), Error> {
        let mut names: Vec<Reference> = Vec::new();
        for other in self.images().list()? {
            if other.id == image.id() {
                names.extend(other.name);
            }
        }
        let (tags, digests): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.tag().is_some());
        let familiar = |names: Vec<Reference>| names.iter().map(Reference::familiar).collect();
        Ok((familiar(tags), familiar(digests)))
    }
}
