//! Pull: from a name to an image in the store.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use oci_client::RegistryOperation;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;

use super::fetch::{Blob, fetch};
use super::session::{Session, run};
use super::{Credentials, Listener, PARALLEL_DOWNLOADS};
use crate::image::digest::Digest;
use crate::image::error::{Error, Refused, Result};
use crate::image::load::{self, Platforms};
use crate::image::reference::Reference;
use crate::image::store::{LARGEST_JSON, Store};

/// What may be answered: an image, or an index of images for several platforms; OCI's and docker's.
const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// An index may point to indexes, as in a layout.
const DEEPEST: usize = 4;

/// What is to be pulled.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// By its tag or its digest.
    pub name: Reference,
    /// For which machine; this one where not given. `OS/ARCHITECTURE[/VARIANT]`.
    pub platform: Option<String>,
    /// Whom the registry is shown.
    pub credentials: Credentials,
}

/// What was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The image's id.
    pub id: Digest,
    /// The digest that the registry knows it by: of its manifest, or of the index that has it.
    pub digest: Digest,
    /// Whether the name meant another image before, or none.
    pub newer: bool,
}

/// What tells the kinds of manifests apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl Store {
    /// Pulls an image. What the store has is not fetched again; two pulls of one image at once share the work.
    ///
    /// # Errors
    /// Where the registry refuses, fails or sends what it did not promise, where no image is for the platform, or where the
    /// store cannot be written. What was fetched until then is kept for the next attempt.
    pub fn pull(&self, wanted: &Wanted, listener: &dyn Listener) -> Result<Pulled> {
        run(async {
            let session =
                Session::open(&wanted.name, &wanted.credentials, RegistryOperation::Pull, listener).await?;
            let platforms = Platforms::of(wanted.platform.as_deref())?;
            let (digest, body) = manifest(&session, wanted.name.tag(), wanted.name.digest()).await?;
            let shown = wanted.name.digest().map(|digest| digest.to_string());
            let shown = wanted.name.tag().map(str::to_owned).or(shown).unwrap_or_default();
            session.tell(Some(&shown), &format!("Pulling from {}", wanted.name.repository()), None)?;
            let _adding = self.adding()?;
            let pulled = self.take(&session, digest, body, &platforms).await?;
            session.tell(None, &format!("Digest: {digest}"), None)?;
            Ok(pulled)
        })
    }

    async fn take(
        &self,
        session: &Session<'_>,
        digest: Digest,
        body: Vec<u8>,
        platforms: &Platforms,
    ) -> Result<Pulled> {
        let (chosen, body) = resolve(session, digest, body, platforms).await?;
        let object = format!("manifest {chosen}");
        let manifest: ImageManifest =
            serde_json::from_slice(&body).map_err(|error| Error::malformed(&object, error))?;
        fetch(session, self, blob(manifest.config())?, true).await?;
        let mut missing = Vec::new();
        for layer in manifest.layers() {
            let layer = blob(layer)?;
            if self.has_blob(layer.digest, layer.size) {
                session.tell(Some(&layer.short()), "Already exists", None)?;
            } else if !missing.iter().any(|other: &Blob| other.digest == layer.digest) {
                session.tell(Some(&layer.short()), "Pulling fs layer", None)?;
                missing.push(layer);
            }
        }
        stream::iter(missing)
            .map(|layer| async move {
                fetch(session, self, layer, false).await?;
                session.tell(Some(&layer.short()), "Pull complete", None)
            })
            .buffer_unordered(PARALLEL_DOWNLOADS)
            .try_collect::<()>()
            .await?;
        self.add_bytes(&body)?;
        let descriptor = Descriptor::new(MediaType::ImageManifest, body.len() as u64, chosen);
        let found = load::complete(self, &descriptor, Vec::new(), &|_, _| Ok(()), platforms)?;

        let before = self.named(&session.name)?;
        let by_digest = session.name.with_digest(digest);
        self.set_name(chosen, body.len() as u64, Some(&by_digest), None)?;
        if session.name.tag().is_some() && session.name.digest().is_none() {
            self.set_name(chosen, body.len() as u64, Some(&session.name), None)?;
        }
        Ok(Pulled { id: found.id, digest, newer: before != Some(chosen) })
    }
}

/// The manifest of a tag or digest, checked.
async fn manifest(
    session: &Session<'_>,
    tag: Option<&str>,
    digest: Option<Digest>,
) -> Result<(Digest, Vec<u8>)> {
    let remote = session.remote(tag, digest);
    // The session has shown the credentials; these would be taken only if it had not.
    let auth = oci_client::secrets::RegistryAuth::Anonymous;
    let answer = session.client.pull_manifest_raw(&remote, &auth, &ACCEPTED).await;
    let (body, _) = answer.map_err(|error| session.refused(error, "pull"))?;
    let actual = Digest::of(&body);
    let object = format!("manifest of {} from {}", session.name.familiar(), session.name.host());
    if let Some(expected) = digest.filter(|expected| *expected != actual) {
        return Err(Error::Mismatch { object, expected, actual });
    }
    if body.len() as u64 > LARGEST_JSON {
        return Err(Error::malformed(object, "it is larger than any manifest may be"));
    }
    Ok((actual, body.to_vec()))
}

/// From what a name means to the manifest of one image.
async fn resolve(
    session: &Session<'_>,
    mut digest: Digest,
    mut body: Vec<u8>,
    platforms: &Platforms,
) -> Result<(Digest, Vec<u8>)> {
    for _ in 0..DEEPEST {
        let object = format!("manifest {digest}");
        let kind: Kind = serde_json::from_slice(&body).map_err(|error| Error::malformed(&object, error))?;
        if kind.schema_version != 2 {
            return Err(Error::Registry {
                refused: Refused::Failed,
                message: format!(
                    "{} is an image of docker's first kind (schema {}), which nobody makes since 2016: push it again",
                    session.name.familiar(),
                    kind.schema_version
                ),
            });
        }
        if kind.manifests.is_none() {
            if let Some(other) = kind.media_type.filter(|media| !ACCEPTED.contains(&media.as_str())) {
                return Err(Error::malformed(object, format!("{other} is no image")));
            }
            return Ok((digest, body));
        }
        let index: ImageIndex =
            serde_json::from_slice(&body).map_err(|error| Error::malformed(&object, error))?;
        let chosen = platforms.choose(&index)?;
        (digest, body) = manifest(session, None, Some(Digest::try_from(chosen.digest())?)).await?;
    }
    Err(Error::malformed(format!("index {digest}"), "it is nested too deeply"))
}

fn blob(descriptor: &Descriptor) -> Result<Blob> {
    Ok(Blob { digest: Digest::try_from(descriptor.digest())?, size: descriptor.size() })
}
