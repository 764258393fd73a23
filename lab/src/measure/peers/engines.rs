//! Engines: what a user of docker or podman waits for, all of it: client, daemon or monitor, image, network left out.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

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

/// Takes the image from dockerd again.
pub fn tidy() {
    if let Some(docker) = crate::doctor::find_program("docker") {
        let _ = Command::new(docker).args(["image", "rm", NAME]).stdin(Stdio::null()).output();
    }
}

fn podman(ground: &Ground<'_>) -> Candidate {
    let found = program("podman", "package podman")
        .and_then(|program| runtimes::rootfs(ground).map(|rootfs| (program, rootfs)));
    let ways = found.clone().into_iter().flat_map(|(program, rootfs)| {
        let storage = ground.scratch.join("podman");
        let variants: [(&'static [&'static str], &str); 2] =
            [(&[], ""), (&["--cgroups=disabled"], "without control groups")];
        variants.map(|(more, remark)| {
            let (program, rootfs, storage) = (program.clone(), rootfs.clone(), storage.clone());
            let peer = Peer::new(move |command| {
                // Overlaid, so that nothing is written into the image's own files.
                let mut root = rootfs.clone().into_os_string();
                root.push(":O");
                let mut before = vec![
                    "--root".into(),
                    storage.join("root").into_os_string(),
                    "--runroot".into(),
                    storage.join("run").into_os_string(),
                    "--cgroup-manager=cgroupfs".into(),
                ];
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
