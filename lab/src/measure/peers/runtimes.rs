//! OCI runtimes: each gets a bundle of the image's files, read-only, and otherwise the specification's default configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use super::{Candidate, Ground, Peer, program};
use crate::measure::child::Call;
use crate::measure::record::Obtained;

const RUNTIMES: [(&str, &str); 3] =
    [("runc", "package runc"), ("crun", "package crun"), ("youki", "from its releases")];

/// Names must differ in one state directory.
static NUMBER: AtomicU32 = AtomicU32::new(0);

pub(super) fn candidates(ground: &Ground<'_>) -> Vec<Candidate> {
    let rootfs = rootfs(ground);
    let candidate = |&(name, package): &(&'static str, &'static str)| {
        let mut ways = Vec::new();
        if let (Ok(program), Ok(rootfs)) = (program(name, package), &rootfs) {
            // crun refuses a machine with both versions of control groups: then without any.
            let own: [(&[&str], &str); 2] =
                [(&[], ""), (&["--cgroup-manager=disabled"], "without control groups")];
            ways = own
                .into_iter()
                .map(|(options, remark)| {
                    (way(program.clone(), options, rootfs.clone(), ground.scratch.join(name)), remark)
                })
                .collect();
        }
        let found = program(name, package).and_then(|program| rootfs.clone().map(|_| program));
        Candidate { name, title: name, obtained: Obtained::HostKernel, program: found, ways }
    };
    RUNTIMES.iter().map(candidate).collect()
}

/// The image's files: the default image has one layer, and only such an image needs no overlay.
pub(super) fn rootfs(ground: &Ground<'_>) -> Result<PathBuf, String> {
    let layers = ground.store.layer_dirs(ground.image, &()).map_err(|error| error.to_string())?;
    match <[PathBuf; 1]>::try_from(layers) {
        Ok([layer]) => Ok(layer),
        Err(_) => Err("it takes an image with one layer".into()),
    }
}

fn way(program: PathBuf, options: &'static [&'static str], rootfs: PathBuf, place: PathBuf) -> Peer {
    Peer::new(move |command| {
        let bundle = bundle(&place, &rootfs, command)?;
        let id = format!("lab-peer-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let before = options.iter().map(Into::into).chain([
            "--root".into(),
            place.join("state").into(),
            "run".into(),
            "--bundle".into(),
            bundle.into(),
            id.into(),
        ]);
        Ok(Call { program: program.clone(), before: before.collect(), marks: false, after: Vec::new() })
    })
}

/// A bundle for this command, made where there is none yet.
fn bundle(place: &Path, rootfs: &Path, command: &[&str]) -> Result<PathBuf, String> {
    let name: String =
        command.join("-").chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let bundle = place.join(name);
    let config = bundle.join("config.json");
    if config.exists() {
        return Ok(bundle);
    }
    let told = |error: std::io::Error| format!("write {}: {error}", config.display());
    fs::create_dir_all(&bundle).map_err(told)?;
    let mut spec =
        serde_json::to_value(oci_spec::runtime::Spec::default()).map_err(|error| error.to_string())?;
    let arguments: Vec<_> = std::iter::once(format!("/bin/{}", command.first().copied().unwrap_or("hello")))
        .chain(command.iter().skip(1).map(ToString::to_string))
        .collect();
    spec["root"] = json!({ "path": rootfs, "readonly": true });
    spec["process"]["args"] = json!(arguments);
    spec["process"]["terminal"] = false.into();
    spec["linux"]["resources"] = json!({});
    fs::write(&config, spec.to_string()).map_err(told)?;
    Ok(bundle)
}
