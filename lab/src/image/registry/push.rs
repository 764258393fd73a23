//! Push: an image of the store to a registry. What the registry has is not sent again.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use oci_client::RegistryOperation;
use oci_client::errors::OciDistributionError;
use serde_json::Value;

use super::fetch::Blob;
use super::session::{Session, run};
use super::{Credentials, Listener, PARALLEL_UPLOADS};
use crate::image::config::Image;
use crate::image::digest::Digest;
use crate::image::error::{Error, Result};
use crate::image::reference::Reference;
use crate::image::store::Store;

/// How often a layer is tried to be sent.
const ATTEMPTS: u32 = 3;
/// A terminal shows no more.
const NEWS: Duration = Duration::from_millis(100);
/// Bytes of a layer that are read at once.
const CHUNK: usize = 256 * 1024;
/// Other repositories of the registry that are asked to lend a layer.
const LENDERS: usize = 3;

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Under this tag.
    pub tag: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's size in bytes.
    pub size: u64,
}

impl Store {
    /// Pushes an image under a name that it has.
    ///
    /// # Errors
    /// Where there is no such image, or the registry refuses or fails.
    pub fn push(
        &self,
        name: &Reference,
        credentials: &Credentials,
        listener: &dyn Listener,
    ) -> Result<Pushed> {
        let image = self.resolve(&name.to_string())?;
        run(async {
            let session = Session::open(name, credentials, RegistryOperation::Push, listener).await?;
            let pushed = self.send(&session, &image).await?;
            self.set_name(pushed.digest, pushed.size, Some(&name.with_digest(pushed.digest)), None)?;
            Ok(pushed)
        })
    }

    async fn send(&self, session: &Session<'_>, image: &Image) -> Result<Pushed> {
        let body = self.read_json(image.manifest(), "its manifest")?;
        let mut layers: Vec<Blob> = Vec::new();
        for layer in image.layers() {
            if !layers.iter().any(|other| other.digest == layer.blob) {
                layers.push(Blob { digest: layer.blob, size: layer.size });
            }
        }
        for layer in &layers {
            session.tell(Some(&layer.short()), "Preparing", None)?;
        }
        stream::iter(layers)
            .map(|layer| self.send_blob(session, layer, false))
            .buffer_unordered(PARALLEL_UPLOADS)
            .try_collect::<()>()
            .await?;
        let config = Blob { digest: image.id(), size: image.raw_config().len() as u64 };
        self.send_blob(session, config, true).await?;

        let size = body.len() as u64;
        let media = media_type(&body);
        let media = media
            .parse()
            .map_err(|error| Error::malformed(format!("manifest {}", image.manifest()), error))?;
        let tag = session.name.tag().unwrap_or("latest").to_owned();
        let remote = session.remote(Some(&tag), None);
        let sent = session.client.push_manifest_raw(&remote, body, media).await;
        sent.map_err(|error| session.refused(error, "push"))?;
        let digest = image.manifest();
        session.tell(None, &format!("{tag}: digest: {digest} size: {size}"), None)?;
        Ok(Pushed { tag, digest, size })
    }

    /// Brings one blob to the registry: it has it, another repository of it has it, or it is sent.
    async fn send_blob(&self, session: &Session<'_>, blob: Blob, quiet: bool) -> Result<()> {
        let id = blob.short();
        let tell =
            |status: &str, progress| if quiet { Ok(()) } else { session.tell(Some(&id), status, progress) };
        let digest = blob.digest.to_string();
        let remote = session.remote(session.name.tag(), None);
        let refused = |error| session.refused(error, "push");
        match session.client.blob_exists(&remote, &digest).await {
            Ok(true) => return tell("Layer already exists", None),
            Ok(false) => {}
            // Some registries do not let ask who may only push.
            Err(OciDistributionError::RequestError(error)) if error.status().is_some() => {}
            Err(error) => return Err(refused(error)),
        }
        for lender in self.lenders(&session.name, blob.digest)?.into_iter().take(LENDERS) {
            let source = oci_client::Reference::with_tag(
                lender.host().to_owned(),
                lender.repository().to_owned(),
                "latest".to_owned(),
            );
            if session.client.mount_blob(&remote, &source, &digest).await.is_ok() {
                return tell(&format!("Mounted from {}", lender.repository()), None);
            }
        }
        for attempt in 1.. {
            tell("Pushing", Some((0, blob.size)))?;
            let sent = self.upload(session, blob, &tell).await?;
            match sent {
                Ok(()) => break,
                Err(error) if attempt < ATTEMPTS && may_be_tried_again(&error) => {
                    let seconds = 1 << (attempt - 1);
                    tell(
                        &format!("Retrying in {seconds} second{}", if seconds == 1 { "" } else { "s" }),
                        None,
                    )?;
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
                Err(error) => return Err(refused(error)),
            }
        }
        tell("Pushed", None)
    }

    /// Sends a blob whole, and tells from time to time how much of it has gone.
    async fn upload(
        &self,
        session: &Session<'_>,
        blob: Blob,
        tell: &impl Fn(&str, Option<(u64, u64)>) -> Result<()>,
    ) -> Result<Result<(), OciDistributionError>> {
        let file = self.open_blob(blob.digest, "a layer")?;
        let gone = Arc::new(AtomicU64::new(0));
        let chunks = chunks(file, Arc::clone(&gone));
        let (remote, digest) = (session.remote(session.name.tag(), None), blob.digest.to_string());
        let sending = session.client.push_blob_stream(&remote, chunks, &digest, Some(blob.size));
        tokio::pin!(sending);
        let mut told = 0;
        loop {
            tokio::select! {
                sent = &mut sending => return Ok(sent.map(drop)),
                () = tokio::time::sleep(NEWS) => {
                    let now = gone.load(Ordering::Relaxed);
                    if now != told {
                        told = now;
                        tell("Pushing", Some((now, blob.size)))?;
                    }
                }
            }
        }
    }

    /// Repositories of the same registry that are known to have a blob: what was pulled from them or pushed to them has it.
    fn lenders(&self, name: &Reference, blob: Digest) -> Result<Vec<Reference>> {
        let mut lenders: Vec<Reference> = Vec::new();
        for (other, manifest) in self.names()? {
            let same_place = other.host() == name.host() && other.repository() != name.repository();
            if !same_place || other.digest().is_none() {
                continue;
            }
            let body = self.read_json(manifest, "its manifest").unwrap_or_default();
            let has = String::from_utf8_lossy(&body).contains(&blob.to_string());
            if has && !lenders.iter().any(|known| known.repository() == other.repository()) {
                lenders.push(other);
            }
        }
        Ok(lenders)
    }
}

/// A file as a stream of its parts.
fn chunks(
    file: File,
    gone: Arc<AtomicU64>,
) -> impl futures_util::Stream<Item = Result<hyper::body::Bytes, OciDistributionError>> + Send + 'static {
    stream::unfold(Some(file), move |file| {
        let gone = Arc::clone(&gone);
        async move {
            let mut file = file?;
            let mut chunk = vec![0; CHUNK];
            match file.read(&mut chunk) {
                Ok(0) => None,
                Ok(read) => {
                    chunk.truncate(read);
                    gone.fetch_add(read as u64, Ordering::Relaxed);
                    Some((Ok(chunk.into()), Some(file)))
                }
                Err(error) => Some((Err(error.into()), None)),
            }
        }
    })
}

fn may_be_tried_again(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ServerError { code, .. } => *code >= 500,
        OciDistributionError::RequestError(_) => true,
        _ => false,
    }
}

/// A manifest says itself of which kind it is; OCI's need not.
pub(crate) fn media_type(manifest: &[u8]) -> String {
    let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
    manifest["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json").to_owned()
}
