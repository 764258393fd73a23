//! OCI layouts: from `index.json` to manifests for this machine (OCI image specification, "Image Layout").

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use oci_spec::image::{
    ANNOTATION_REF_NAME, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType,
};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::archive::Contents;
use super::platform::Platforms;
use super::{BUFFER, Found, docker, parse, platform};
use crate::image::digest::Digest;
use crate::image::error::{Error, Result};
use crate::image::progress::{Progress, Watched};
use crate::image::reference::Reference;
use crate::image::store::{LARGEST_JSON, Store, annotation};

/// containerd's name of an image, with host and tag; docker writes it too.
const ANNOTATION_CONTAINERD_NAME: &str = "io.containerd.image.name";
/// On what buildkit puts beside an image's manifests: signed statements, nothing to run.
const ANNOTATION_REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// An index may point to indexes. Two levels occur; a cycle cannot, for a digest cannot be inside its own content.
const DEEPEST: usize = 8;

/// The images of a layout whose blobs are in the store.
pub(super) fn from_archive(store: &Store, contents: &Contents, object: &str) -> Result<Vec<Found>> {
    let index: ImageIndex =
        parse(contents.index.as_deref().unwrap_or_default(), format!("{object}: index.json"))?;
    let fetch = |_: &Descriptor, _: &'static str| Ok(());
    let mut found = follow(store, &index, &fetch, object)?;
    if let ([only], Some(manifest)) = (&mut found[..], &contents.manifest)
        && only.names.is_empty()
    {
        // Docker's table has the full names.
        only.names = docker::names(manifest, object)?;
    }
    Ok(found)
}

/// The images of a layout in a directory; only what they need is copied.
pub(super) fn from_directory(store: &Store, path: &Path, progress: &dyn Progress) -> Result<Vec<Found>> {
    let root = File::open(path).map_err(Error::io("opening", path))?;
    // A link in the directory must not make us read what the user never meant to load.
    let open = |name: &str| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve).map(File::from)
    };
    let object = path.display().to_string();
    let file = open("index.json").map_err(|errno| match std::io::Error::from(errno) {
        error if error.kind() == ErrorKind::NotFound => Error::malformed(
            &object,
            "it is no OCI layout: index.json is missing; to make an image of a folder, put it into a tar",
        ),
        error => Error::io("opening", path.join("index.json"))(error),
    })?;
    let mut index = Vec::new();
    file.take(LARGEST_JSON).read_to_end(&mut index).map_err(Error::io("reading", path.join("index.json")))?;
    let index: ImageIndex = parse(&index, format!("{object}/index.json"))?;
    let fetch = |descriptor: &Descriptor, role: &'static str| {
        let digest = Digest::try_from(descriptor.digest())?;
        if store.has_blob(digest, descriptor.size()) {
            return Ok(());
        }
        let name = format!("blobs/sha256/{}", digest.hex());
        let blob = open(&name).map_err(|errno| match std::io::Error::from(errno) {
            error if error.kind() == ErrorKind::NotFound => Error::MissingBlob { digest, role },
            error => Error::io("opening", path.join(&name))(error),
        })?;
        let step = progress.begin(&format!("loading {}", &digest.hex()[..12]), Some(descriptor.size()));
        let watched = BufReader::with_capacity(BUFFER, Watched { inner: blob, step: &*step });
        store.add_blob(watched, Some(digest), &format!("{object}/{name}")).map(drop)
    };
    follow(store, &index, &fetch, &object)
}

/// Brings a blob into the store where it is not there yet.
pub(crate) type Fetch<'a> = &'a dyn Fn(&Descriptor, &'static str) -> Result<()>;

fn follow(store: &Store, index: &ImageIndex, fetch: Fetch<'_>, object: &str) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut offered = Vec::new();
    for descriptor in index.manifests().iter().filter(|descriptor| !is_attestation(descriptor)) {
        if let Some(manifest) = choose(store, descriptor, fetch, &mut offered, 0)? {
            found.push(complete(store, &manifest, names(descriptor), fetch, &Platforms::this_machine())?);
        }
    }
    match (found.is_empty(), offered.is_empty()) {
        (true, true) => Err(Error::malformed(object, "its index.json names no image")),
        (true, false) => Err(Error::Platform {
            wanted: Platforms::this_machine().to_string(),
            offered: offered.join(", "),
        }),
        _ => Ok(found),
    }
}

/// The manifest for this machine that a descriptor leads to; the platforms of others are noted.
fn choose(
    store: &Store,
    descriptor: &Descriptor,
    fetch: Fetch<'_>,
    offered: &mut Vec<String>,
    depth: usize,
) -> Result<Option<Descriptor>> {
    if let Some(platform) = descriptor.platform()
        && !Platforms::this_machine().fits(platform)
    {
        offered.push(platform::text(platform));
        return Ok(None);
    }
    if !is_index(descriptor.media_type()) {
        return Ok(Some(descriptor.clone()));
    }
    if depth == DEEPEST {
        return Err(Error::malformed(format!("index {}", descriptor.digest()), "it is nested too deeply"));
    }
    fetch(descriptor, "an index")?;
    let digest = Digest::try_from(descriptor.digest())?;
    let index: ImageIndex = parse(&store.read_json(digest, "an index")?, format!("index {digest}"))?;
    for descriptor in index.manifests().iter().filter(|descriptor| !is_attestation(descriptor)) {
        if let Some(chosen) = choose(store, descriptor, fetch, offered, depth + 1)? {
            return Ok(Some(chosen));
        }
    }
    Ok(None)
}

/// Checks that all a manifest needs is in the store, and that it is for one of these machines.
pub(crate) fn complete(
    store: &Store,
    descriptor: &Descriptor,
    names: Vec<Reference>,
    fetch: Fetch<'_>,
    platforms: &Platforms,
) -> Result<Found> {
    fetch(descriptor, "its manifest")?;
    let digest = Digest::try_from(descriptor.digest())?;
    let json = store.read_json(digest, "its manifest")?;
    let manifest: ImageManifest = parse(&json, format!("manifest {digest}"))?;
    let config = manifest.config();
    for (blob, role) in
        manifest.layers().iter().map(|layer| (layer, "a layer")).chain([(config, "its configuration")])
    {
        fetch(blob, role)?;
        let digest = Digest::try_from(blob.digest())?;
        if !store.has_blob(digest, blob.size()) {
            return Err(Error::MissingBlob { digest, role });
        }
    }
    let id = Digest::try_from(config.digest())?;
    let object = format!("image configuration {id}");
    let config: ImageConfiguration = parse(&store.read_json(id, "its configuration")?, &object)?;
    // Older manifests have no platform in their descriptor; the configuration has it always.
    if !platforms.fits_configuration(&config) {
        let offered = format!("{}/{}", config.os(), config.architecture());
        return Err(Error::Platform { wanted: platforms.to_string(), offered });
    }
    let (layers, described) = (manifest.layers().len(), config.rootfs().diff_ids().len());
    if layers != described {
        let reason = format!("it describes {described} layers, its manifest has {layers}");
        return Err(Error::malformed(object, reason));
    }
    Ok(Found { manifest: digest, size: json.len() as u64, id, names })
}

fn names(descriptor: &Descriptor) -> Vec<Reference> {
    let full = annotation(descriptor, ANNOTATION_CONTAINERD_NAME);
    // The specification leaves open whether this is a tag or a whole name. A bare tag says too little.
    let reference = annotation(descriptor, ANNOTATION_REF_NAME).filter(|name| name.contains([':', '/']));
    full.or(reference).and_then(|name| name.parse().ok()).into_iter().collect()
}

pub(super) fn is_attestation(descriptor: &Descriptor) -> bool {
    annotation(descriptor, ANNOTATION_REFERENCE_TYPE).is_some()
}

fn is_index(media_type: &MediaType) -> bool {
    const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    matches!(media_type, MediaType::ImageIndex) || media_type.as_ref() == DOCKER_LIST
}
