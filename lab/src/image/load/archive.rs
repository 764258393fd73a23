//! A tar of blobs into the store, in one pass.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};

use oci_spec::image::MediaType;
use tar_core::EntryType;

use crate::image::digest::Digest;
use crate::image::error::{Error, Result};
use crate::image::store::{LARGEST_JSON, Store};
use crate::image::tar::{Archive, Member};

/// Small files in an archive that name what is in it. More than one image has of them is no image.
const MOST_FILES: usize = 100_000;

/// What an archive had: blobs (in the store by now) by the paths they had there, and its tables of contents.
#[derive(Default)]
pub(super) struct Contents {
    /// Path → the blob's digest and size.
    pub blobs: HashMap<String, (Digest, u64)>,
    /// Docker's older archives have a layer that several images share once, and links to it.
    links: HashMap<String, String>,
    pub index: Option<Vec<u8>>,
    pub manifest: Option<Vec<u8>>,
    layout: bool,
}

impl Contents {
    /// Whether the archive is an OCI layout; new docker archives are both.
    pub fn is_layout(&self) -> bool {
        self.layout && self.index.is_some()
    }

    /// The blob at a path, through links.
    pub fn blob(&self, path: &str) -> Option<(Digest, u64)> {
        let mut path = path.to_owned();
        // A cycle of links ends, too.
        for _ in 0..8 {
            if let Some(blob) = self.blobs.get(&path) {
                return Some(*blob);
            }
            path.clone_from(self.links.get(&path)?);
        }
        None
    }
}

/// Reads an archive, keeping its blobs in the store.
pub(super) fn read(store: &Store, input: impl BufRead, object: &str) -> Result<Contents> {
    let mut archive = Archive::new(input);
    let mut contents = Contents::default();
    let malformed = |error: io::Error| {
        Error::malformed(object, format!("{error}; an OCI layout or what `docker save` writes is expected"))
    };
    while let Some(member) = archive.next().map_err(malformed)? {
        if contents.blobs.len() + contents.links.len() > MOST_FILES {
            return Err(Error::malformed(object, "it has too many files for an archive of images"));
        }
        let Some(path) = path_of(&member.path) else { continue };
        match member.kind {
            EntryType::Symlink => {
                if let Some(target) = relative_to(&path, &member.link) {
                    contents.links.insert(path, target);
                }
            }
            EntryType::Link => {
                if let Some(target) = path_of(&member.link) {
                    contents.links.insert(path, target);
                }
            }
            EntryType::Regular => keep(store, path, &member, &mut archive, &mut contents, object)?,
            _ => {}
        }
    }
    // Whatever compressed the archive may have a checksum at its very end.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(malformed)?;
    Ok(contents)
}

fn keep(
    store: &Store,
    path: String,
    member: &Member,
    archive: &mut Archive<impl BufRead>,
    contents: &mut Contents,
    object: &str,
) -> Result<()> {
    let malformed = |error: io::Error| Error::malformed(format!("{object}: {path}"), error);
    match path.as_str() {
        "oci-layout" => contents.layout = true,
        "index.json" => contents.index = Some(archive.content(LARGEST_JSON).map_err(malformed)?),
        "manifest.json" => contents.manifest = Some(archive.content(LARGEST_JSON).map_err(malformed)?),
        _ => {
            let expected = match path.strip_prefix("blobs/sha256/") {
                Some(hex) => Digest::from_hex(hex),
                // Docker's older form: the configuration's digest is its name, that of a layer only in other tools'
                // archives. `HEX/json` and `HEX/VERSION` are for docker before 1.10.
                None => match path.rsplit_once('.') {
                    Some((stem, "json")) => Digest::from_hex(stem),
                    Some((_, "tar")) => None,
                    _ if compression(&path).is_some() => None,
                    _ => return Ok(()),
                },
            };
            let blob = store.add_blob(
                io::BufReader::new(Content(archive)),
                expected,
                &format!("{object}: {path}"),
            )?;
            if blob.1 != member.size {
                return Err(Error::malformed(
                    format!("{object}: {path}"),
                    "the archive ends in the middle of it",
                ));
            }
            contents.blobs.insert(path, blob);
        }
    }
    Ok(())
}

/// How a layer is compressed, by its name: what build tools write, `docker save` does not.
pub(super) fn compression(path: &str) -> Option<MediaType> {
    let ends = |all: &[&str]| all.iter().any(|end| path.ends_with(end));
    match () {
        () if ends(&[".tar.gz", ".tgz"]) => Some(MediaType::ImageLayerGzip),
        () if ends(&[".tar.zst", ".tar.zstd"]) => Some(MediaType::ImageLayerZstd),
        () => None,
    }
}

/// A member's content as a reader of its own.
struct Content<'a, R>(&'a mut Archive<R>);

impl<R: BufRead> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

/// A member's path in one form; None for one that could not be referred to.
fn path_of(path: &[u8]) -> Option<String> {
    let path = str::from_utf8(path).ok()?;
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!parts.is_empty() && !parts.contains(&"..")).then(|| parts.join("/"))
}

/// Where a link at `path` points, inside the archive.
fn relative_to(path: &str, target: &[u8]) -> Option<String> {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in str::from_utf8(target).ok()?.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_between_layers_stay_inside_the_archive() {
        assert_eq!(relative_to("a/layer.tar", b"../b/layer.tar").as_deref(), Some("b/layer.tar"));
        assert_eq!(relative_to("a/layer.tar", b"../../etc/passwd"), None);
        assert_eq!(path_of(b"../etc/passwd"), None);
        assert_eq!(path_of(b"./blobs//sha256/x").as_deref(), Some("blobs/sha256/x"));
    }

    #[test]
    fn a_cycle_of_links_ends() {
        let link = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        let contents =
            Contents { links: HashMap::from([link("a", "b"), link("b", "a")]), ..Contents::default() };
        assert_eq!(contents.blob("a"), None);
    }
}
