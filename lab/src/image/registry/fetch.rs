//! One blob from a registry: what came before an interruption is kept and not fetched again.
//!
//! ```text
//!   partial/HEX  ── locked by whoever fetches it ──► whole, digest right ──► blobs/sha256/HEX
//! ```
//!
//! A file in `partial/` outlives its process. Nothing in it is trusted: only the digest of all of it decides.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use oci_client::client::BlobResponse;
use oci_client::errors::OciDistributionError;
use rustix::fs::FlockOperation;

use super::session::{Session, chain};
use crate::image::digest::{Digest, Hasher};
use crate::image::error::{Error, Refused, Result};
use crate::image::store::{Store, lock};

/// How often a registry may fail without having sent anything before it is given up.
const ATTEMPTS: u32 = 4;
/// A terminal shows no more, and a network needs no more.
const NEWS: Duration = Duration::from_millis(100);

/// A blob that is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blob {
    pub digest: Digest,
    pub size: u64,
}

impl Blob {
    /// The first digits, by which docker tells layers apart.
    pub fn short(&self) -> String {
        self.digest.hex()[..12].to_owned()
    }
}

/// Brings a blob into the store, unless it is there. The caller holds [`Store::adding`]. `quiet` blobs are not told of.
pub(super) async fn fetch(session: &Session<'_>, store: &Store, blob: Blob, quiet: bool) -> Result<()> {
    if store.has_blob(blob.digest, blob.size) {
        return Ok(());
    }
    let Some(mut partial) = Partial::open(session, store, blob).await? else { return Ok(()) };
    let id = blob.short();
    let tell =
        |status: &str, progress| if quiet { Ok(()) } else { session.tell(Some(&id), status, progress) };
    let mut attempt = 0;
    let mut from_the_beginning = partial.done == 0;
    loop {
        let before = partial.done;
        match partial.receive(session, &tell).await {
            Ok(()) => {
                tell("Verifying Checksum", None)?;
                let actual = std::mem::take(&mut partial.hasher).finish();
                if actual == blob.digest {
                    break;
                }
                partial.clear()?;
                if from_the_beginning {
                    let _ = fs::remove_file(&partial.path);
                    let object = format!("layer {id} from {}", session.name.host());
                    return Err(Error::Mismatch { object, expected: blob.digest, actual });
                }
                // What was there from an earlier attempt may be to blame.
                from_the_beginning = true;
            }
            Err(Broken::Here(error)) => {
                // A full disk is not to be kept full by what is of no use yet.
                let _ = fs::remove_file(&partial.path);
                return Err(error);
            }
            Err(Broken::Refused(error)) => return Err(session.refused(error, "pull")),
            Err(Broken::Cancelled) => return Err(Error::Cancelled),
            Err(Broken::There(reason)) => {
                attempt = if partial.done > before { 1 } else { attempt + 1 };
                if attempt >= ATTEMPTS {
                    return Err(Error::Registry {
                        refused: Refused::Failed,
                        message: format!(
                            "pull {}: registry {} broke off at byte {} of {} of layer {id}: {reason}; pull again, and what is \
                             here is not fetched again",
                            session.name.familiar(),
                            session.name.host(),
                            partial.done,
                            blob.size
                        ),
                    });
                }
                let seconds = 1 << (attempt - 1);
                tell(&format!("Retrying in {seconds} second{}", if seconds == 1 { "" } else { "s" }), None)?;
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
        }
    }
    partial.publish(store)?;
    tell("Download complete", None)
}

/// Why a blob did not come.
enum Broken {
    /// Our side failed.
    Here(Error),
    /// The registry said no.
    Refused(OciDistributionError),
    /// The connection broke, or the registry failed: it may be tried again.
    There(String),
    Cancelled,
}

/// A blob of which some is here.
struct Partial {
    blob: Blob,
    path: std::path::PathBuf,
    file: File,
    done: u64,
    hasher: Hasher,
}

impl Partial {
    /// Opens the blob's file and waits until nobody else fetches it. None where somebody else has done so meanwhile.
    async fn open(session: &Session<'_>, store: &Store, blob: Blob) -> Result<Option<Self>> {
        let directory = store.path("partial");
        fs::create_dir_all(&directory).map_err(Error::io("making directory", &directory))?;
        let path = directory.join(blob.digest.hex());
        let mut told = false;
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(Error::io("opening", &path))?;
            while lock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                if !told {
                    session.tell(Some(&blob.short()), "Waiting", None)?;
                    told = true;
                }
                tokio::time::sleep(NEWS).await;
            }
            if store.has_blob(blob.digest, blob.size) {
                return Ok(None);
            }
            // Whoever had the lock may have given up and removed the file.
            let same = fs::metadata(&path)
                .is_ok_and(|there| file.metadata().is_ok_and(|here| here.ino() == there.ino()));
            if same {
                let mut partial = Self { blob, path, file, done: 0, hasher: Hasher::default() };
                partial.read_what_is_here()?;
                return Ok(Some(partial));
            }
        }
    }

    fn read_what_is_here(&mut self) -> Result<()> {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read = self.file.read(&mut buffer).map_err(Error::io("reading", &self.path))?;
            if read == 0 {
                return Ok(());
            }
            self.hasher.update(&buffer[..read]);
            self.done += read as u64;
            if self.done > self.blob.size {
                return self.clear();
            }
        }
    }

    fn clear(&mut self) -> Result<()> {
        self.done = 0;
        self.hasher = Hasher::default();
        self.file.set_len(0).map_err(Error::io("emptying", &self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(Error::io("emptying", &self.path)).map(drop)
    }

    /// Receives what is missing.
    async fn receive(
        &mut self,
        session: &Session<'_>,
        tell: &impl Fn(&str, Option<(u64, u64)>) -> Result<()>,
    ) -> Result<(), Broken> {
        let size = self.blob.size;
        if self.done == size {
            return Ok(());
        }
        let remote = session.remote(session.name.tag(), None);
        let digest = self.blob.digest.to_string();
        // Also for the whole blob: the library would compute the digest of what it calls whole, and so do we.
        let asked = session.client.pull_blob_stream_partial(&remote, digest.as_str(), self.done, None).await;
        let mut stream = match asked.map_err(of_registry)? {
            BlobResponse::Partial(stream) => stream.stream,
            BlobResponse::Full(stream) => {
                // This registry gives all or nothing.
                self.clear().map_err(Broken::Here)?;
                stream.stream
            }
        };
        let mut told = Instant::now();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| Broken::There(chain(&error)))?;
            if self.done + chunk.len() as u64 > size {
                let reason = format!("it sends more than the {size} bytes that the manifest says");
                let _ = self.clear();
                return Err(Broken::There(reason));
            }
            let written = self.file.write_all(&chunk).map_err(Error::io("writing to", &self.path));
            written.map_err(Broken::Here)?;
            self.hasher.update(&chunk);
            self.done += chunk.len() as u64;
            if told.elapsed() >= NEWS || self.done == size {
                told = Instant::now();
                tell("Downloading", Some((self.done, size))).map_err(|_| Broken::Cancelled)?;
            }
        }
        if self.done == size { Ok(()) } else { Err(Broken::There("the connection ended early".to_owned())) }
    }

    /// Makes it a blob of the store.
    fn publish(self, store: &Store) -> Result<()> {
        let path = store.blob_path(self.blob.digest);
        let publish = || -> std::io::Result<()> {
            self.file.sync_all()?;
            fs::rename(&self.path, &path)?;
            store.sync_directory("blobs/sha256")
        };
        publish().map_err(Error::io("writing", &path))
    }
}

fn of_registry(error: OciDistributionError) -> Broken {
    use OciDistributionError as E;
    match error {
        E::ServerError { code, message, .. } if code >= 500 => {
            Broken::There(format!("it answers {code}: {message}"))
        }
        E::RequestError(error) => Broken::There(chain(&error)),
        E::IoError(error) => Broken::There(chain(&error)),
        error => Broken::Refused(error),
    }
}

/// Half a blob that nobody has asked for since this long is given up.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

/// Removes what was half fetched and then forgotten. Nobody fetches meanwhile.
pub(crate) fn forget_partial(directory: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.metadata()?.modified()?.elapsed().is_ok_and(|age| age > FORGOTTEN) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
