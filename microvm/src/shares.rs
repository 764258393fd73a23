//! What the host shares with a guest: the bundle's bind mounts, and its root where that is a directory.
//!
//! All of it goes through one virtio-fs device, whose top directory has an entry for each share. The guest mounts that once and
//! binds each entry to its place; a guest that has no share has no device.

use std::path::Path;

use oci_spec::runtime::Mount;

use crate::Error;
use crate::devices::virtio::fs::Share;
use crate::spec::Spec;

/// By what the guest finds the device (virtio 1.2, section 5.11.4).
pub(crate) const TAG: &str = "lab";

/// The share that is the root.
pub(crate) const ROOT: &str = "root";

/// Whether a mount is a directory or file of the host.
pub(crate) fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind")
        || options(mount).any(|option| option == "bind" || option == "rbind")
}

/// The bundle's bind mounts, in order.
pub(crate) fn binds(spec: &Spec) -> impl Iterator<Item = &Mount> {
    spec.mounts.iter().filter(|mount| is_bind(mount))
}

/// What the bind mounts' shares are called, in the same order.
pub(crate) fn names() -> impl Iterator<Item = String> {
    (0u32..).map(|number| number.to_string())
}

/// All that is to be shared: the root, if it is this directory, then the bind mounts of the bundle.
///
/// # Errors
/// [`Error::Bundle`] for a bind mount without a source; [`Error::File`] for one that is not there.
pub(crate) fn of(spec: &Spec, bundle: &Path, root: Option<&Path>) -> Result<Vec<Share>, Error> {
    let mut all = Vec::new();
    if let Some(root) = root {
        all.push(Share::open(ROOT, &bundle.join(root), false)?);
    }
    for (mount, name) in binds(spec).zip(names()) {
        // A relative source starts at the bundle (runtime specification, "Mounts").
        let source = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty());
        let Some(source) = source else {
            let reason =
                format!("mounts: {} is a bind mount without a source", mount.destination().display());
            return Err(Error::Bundle { path: bundle.join("config.json"), reason });
        };
        // Of two options that contradict each other the last one counts (mount(8)).
        let last = options(mount).filter(|option| matches!(*option, "ro" | "rro" | "rw")).last();
        let read_only = last.is_some_and(|option| option != "rw");
        all.push(Share::open(&name, &bundle.join(source), read_only)?);
    }
    Ok(all)
}

fn options(mount: &Mount) -> impl Iterator<Item = &str> {
    mount.options().iter().flatten().map(String::as_str)
}
