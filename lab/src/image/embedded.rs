//! The default image: the lab's own programs, carried in this binary, so that nothing needs a registry.
//!
//! `build.rs` compiles `lab/workloads` to one static program without libc; here it becomes an ordinary image with one
//! layer, stored by digest like any other when it is first asked for. Each byte of it follows from the program's: two
//! builds of the same sources have the same image id.

use std::fmt::{Display, Write as _};

use oci_spec::image::{Descriptor, DescriptorBuilder, ImageManifestBuilder, MediaType, SCHEMA_VERSION};
use serde_json::{Value, json};
use tar_core::{EntryBuilder, EntryType, HeaderError};

use super::digest::Digest;
use super::error::{Error, Result};
use super::load::architecture;
use super::reference::Reference;
use super::store::{ANNOTATION_EMBEDDED, Store, annotation, name_of};

/// The name of the default image.
pub const NAME: &str = "lab:latest";

/// The program: every applet, by the name it is called.
pub(crate) static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lab-workloads"));

/// The program itself, to be run without any wall.
pub fn program() -> &'static [u8] {
    PROGRAM
}

/// The names, written by `build.rs` from `lab_workloads::APPLETS`, one a line.
const APPLETS: &str = include_str!(concat!(env!("OUT_DIR"), "/applets"));

/// Says which program this binary carries; to be changed with what this file puts around it.
pub(crate) const BUILD: &str = concat!(env!("LAB_WORKLOADS_HASH"), "-1");

/// Where the program lies in the image.
const PROGRAM_PATH: &str = "bin/lab-workloads";

/// Makes sure that the store has the default image of this build. Costs a look at the index if it has, or if the name
/// was given to another image by somebody, which stays so.
///
/// # Errors
/// Where the image cannot be stored.
pub fn ensure(store: &Store) -> Result<()> {
    let name: Reference = NAME.parse()?;
    let index = store.read_index()?;
    let here = index.iter().find(|descriptor| name_of(descriptor).as_ref() == Some(&name));
    match here.map(|descriptor| annotation(descriptor, ANNOTATION_EMBEDDED)) {
        Some(None | Some(BUILD)) => Ok(()),
        // None yet, or that of another build of the lab.
        _ => add(store, &name),
    }
}

fn add(store: &Store, name: &Reference) -> Result<()> {
    let _adding = store.adding()?;
    let layer = layer(PROGRAM, APPLETS.lines()).map_err(unmade)?;
    let layer = (store.add_bytes(&layer)?, layer.len() as u64);
    // The layer is not compressed, so its digest is that of its content.
    let config = serde_json::to_vec(&config(layer.0)).map_err(unmade)?;
    let config = (store.add_bytes(&config)?, config.len() as u64);
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(MediaType::ImageConfig, config)?)
        .layers([descriptor(MediaType::ImageLayer, layer)?])
        .build()
        .map_err(unmade)?;
    let manifest = serde_json::to_vec(&manifest).map_err(unmade)?;
    store.set_name(store.add_bytes(&manifest)?, manifest.len() as u64, Some(name), Some(BUILD))
}

/// What went wrong with an image that is made here, and so is a mistake of this file.
fn unmade(error: impl Display) -> Error {
    Error::Malformed { object: format!("the image {NAME}"), reason: error.to_string() }
}

fn descriptor(media_type: MediaType, (digest, size): (Digest, u64)) -> Result<Descriptor> {
    let descriptor = DescriptorBuilder::default().media_type(media_type).digest(digest).size(size);
    descriptor.build().map_err(unmade)
}

fn config(layer: Digest) -> Value {
    // serde_json keeps maps sorted, so the bytes are always the same.
    json!({
        "architecture": architecture().to_string(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/bin"],
            "Cmd": ["/bin/hello"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "lab",
                "org.opencontainers.image.description": env!("CARGO_PKG_DESCRIPTION"),
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [layer]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "lab/workloads"}],
    })
}

/// The only layer: the program under all its names, and the files and folders that every program expects.
fn layer<'a>(program: &[u8], applets: impl Iterator<Item = &'a str>) -> Result<Vec<u8>, HeaderError> {
    let mut tar = Vec::new();
    let mut add = |path: &str, kind, mode, content: &[u8], target: &str| -> Result<(), HeaderError> {
        let mut entry = EntryBuilder::new_ustar();
        entry.path(path).entry_type(kind).link_name(target);
        entry.mode(mode)?.uid(0)?.gid(0)?.mtime(0)?.size(content.len() as u64)?;
        tar.extend(entry.finish_bytes());
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
        Ok(())
    };
    for (path, mode) in [
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("home/", 0o755),
        ("home/lab/", 0o755),
        ("proc/", 0o555),
        ("root/", 0o700),
        ("run/", 0o755),
        ("sys/", 0o555),
        ("tmp/", 0o1777),
        ("var/", 0o755),
    ] {
        add(path, EntryType::Directory, mode, b"", "")?;
    }
    for (path, content) in [
        ("etc/group", "root:x:0:\nlab:x:1000:\nnogroup:x:65534:\n"),
        ("etc/hostname", "lab\n"),
        ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("etc/os-release", "NAME=lab\nID=lab\nPRETTY_NAME=\"lab: one image, two walls\"\n"),
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nlab:x:1000:1000::/home/lab:/bin/sh\n\
             nobody:x:65534:65534::/:/bin/false\n",
        ),
        // What the sandbox has for it is put over this.
        ("etc/resolv.conf", ""),
    ] {
        add(path, EntryType::Regular, 0o644, content.as_bytes(), "")?;
    }
    add(PROGRAM_PATH, EntryType::Regular, 0o755, program, "")?;
    let mut path = String::new();
    for applet in applets {
        path.clear();
        let _ = write!(path, "bin/{applet}");
        // Hard links: one lookup less than symbolic ones, which a guest whose kernel is emulated would feel.
        add(&path, EntryType::Link, 0o755, b"", PROGRAM_PATH)?;
    }
    tar.resize(tar.len() + 1024, 0);
    Ok(tar)
}
