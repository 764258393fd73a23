//! Engines: what a user of docker or podman waits for, all of it: client, daemon or monitor, image, network left out.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, umount2};

use super::{Candidate, Ground, Peer, program, runtimes};
use crate::measure::child::Call;
use crate::measure::record::Obtained;

/// The image's name in dockerd: not one that a user has.
const NAME: &str = "lab-bench-peer:latest";

pub(super) fn candidates(ground: &Ground<'_>) -> Vec<Candidate> {
    vec![docker(ground), podman(ground)]
}

fn docker(ground: &Ground<'_>) -> Candidate {
    let ready = program("docker", "package docker.io").and_then(|program| {
        load(&program, ground)?;
        Ok(program)
    });
    let ways = ready.clone().into_iter().map(|program| {
        let peer = Peer::new(move |command| {
            let options = ["run", "--rm", "--network", "none", NAME];
            let before = options.iter().chain(command).map(Into::into).collect();
            Ok(Call { program: program.clone(), before, marks: false, after: Vec::new() })
        });
        (peer, "")
    });
    Candidate {
        name: "docker",
        title: "docker run (dockerd)",
        obtained: Obtained::HostKernel,
        ways: ways.collect(),
        program: ready,
    }
}

/// Gives dockerd the image; where that is already so, it costs one request.
fn load(docker: &PathBuf, ground: &Ground<'_>) -> Result<(), String> {
    let run = |arguments: &[&str], stdin: Stdio| {
        let output = Command::new(docker).args(arguments).stdin(stdin).output();
        let output = output.map_err(|error| format!("start docker: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(said.lines().next_back().unwrap_or("docker failed").to_owned())
    };
    run(&["info"], Stdio::null())?;
    let archive = ground.scratch.join("docker-image.tar");
    let name = NAME.parse().map_err(|error| format!("{NAME}: {error}"))?;
    let told = |error: std::io::Error| format!("write {}: {error}", archive.display());
    let file = File::create(&archive).map_err(told)?;
    ground
        .store
        .save(&[(ground.image.clone(), vec![name])], &file)
        .map_err(|error| format!("save the image for docker: {error}"))?;
    run(&["load", "--input", &archive.display().to_string()], Stdio::null())
}

/// Takes the image from dockerd again, and from podman what a run that was interrupted left: its containers, and what is
/// still mounted below the bench's own folder, which could not be removed otherwise.
pub fn tidy(scratch: &Path) {
    if let Some(docker) = crate::doctor::find_program("docker") {
        let _ = Command::new(docker).args(["image", "rm", NAME]).stdin(Stdio::null()).output();
    }
    let storage = scratch.join(STORAGE);
    if let Some(podman) = crate::doctor::find_program("podman").filter(|_| storage.exists()) {
        let mut command = Command::new(podman);
        command.args(podman_options(&storage)).args(["rm", "--all", "--force", "--time", "0"]);
        let _ = command.stdin(Stdio::null()).output();
    }
    unmount_below(scratch);
}

/// Unmounts all below a folder, the last mounted first.
fn unmount_below(folder: &Path) {
    let Ok(folder) = folder.canonicalize() else { return };
    let mounts = procfs::process::Process::myself().and_then(|own| own.mountinfo());
    let Ok(mounts) = mounts else { return };
    let mounts: Vec<_> = mounts.into_iter().map(|mount| mount.mount_point).collect();
    for point in mounts.iter().rev().filter(|point| point.starts_with(&folder)) {
        // Detached: whoever still has a file open there keeps it, and the folder can go (umount2(2)).
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
}

/// Where podman keeps what is its own, below the bench's folder.
const STORAGE: &str = "podman";

/// Podman's options that keep it out of the user's own storage.
fn podman_options(storage: &Path) -> Vec<std::ffi::OsString> {
    vec![
        "--root".into(),
        storage.join("root").into_os_string(),
        "--runroot".into(),
        storage.join("run").into_os_string(),
        "--cgroup-manager=cgroupfs".into(),
    ]
}

fn podman(ground: &Ground<'_>) -> Candidate {
    let found = program("podman", "package podman")
        .and_then(|program| runtimes::rootfs(ground).map(|rootfs| (program, rootfs)));
    let ways = found.clone().into_iter().flat_map(|(program, rootfs)| {
        let storage = ground.scratch.join(STORAGE);
        let variants: [(&'static [&'static str], &str); 2] =
            [(&[], ""), (&["--cgroups=disabled"], "without control groups")];
        variants.map(|(more, remark)| {
            let (program, rootfs, storage) = (program.clone(), rootfs.clone(), storage.clone());
            let peer = Peer::new(move |command| {
                // Overlaid, so that nothing is written into the image's own files.
                let mut root = rootfs.clone().into_os_string();
                root.push(":O");
                let mut before = podman_options(&storage);
                before.extend(["run", "--rm", "--network", "none"].map(Into::into));
                before.extend(more.iter().map(Into::into));
                before.extend(["--rootfs".into(), root]);
                before.extend(command.iter().map(Into::into));
                Ok(Call { program: program.clone(), before, marks: false, after: Vec::new() })
            });
            (peer, remark)
        })
    });
    Candidate {
        name: "podman",
        title: "podman run",
        obtained: Obtained::HostKernel,
        ways: ways.collect(),
        program: found.map(|(program, _)| program),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_below_the_folder_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (below, other) = (folder.path().join("scratch/a"), folder.path().join("scratch-other"));
        std::fs::create_dir_all(&below).unwrap();
        std::fs::create_dir_all(&other).unwrap();
        let none: Option<&str> = None;
        let mounted = |place: &Path| {
            nix::mount::mount(Some("tmpfs"), place, Some("tmpfs"), nix::mount::MsFlags::empty(), none)
        };
        // Threads share the mounts of their process: what is mounted here is nobody else's folder.
        if let Err(error) = mounted(&below).and_then(|()| mounted(&below)).and_then(|()| mounted(&other)) {
            println!("SKIPPED (mount: {error})");
            assert!(std::env::var_os("CI").is_none(), "SKIPPED (mount: {error}), and CI must run everything");
            return;
        }
        unmount_below(&folder.path().join("scratch"));
        let left = procfs::process::Process::myself().unwrap().mountinfo().unwrap();
        let left: Vec<_> = left.into_iter().map(|mount| mount.mount_point).collect();
        umount2(&other, MntFlags::MNT_DETACH).unwrap();
        assert!(!left.contains(&below) && left.contains(&other), "{left:?}");
    }
}
