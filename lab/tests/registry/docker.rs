//! The same by the real docker client, through the daemon.

use crate::common::daemon::Daemon;
use crate::common::{image, skip};
use crate::server::{Plan, Proxy, Registry};

/// A daemon with the image `box`.
fn daemon(what: &str) -> Option<Daemon> {
    let daemon = Daemon::start(what)?;
    if let Some(why) = image::missing() {
        skip(what, why);
        return None;
    }
    let archive = image::archive(daemon.lab.home());
    daemon.says(&["load", "-i", archive.to_str().expect("a text")]);
    Some(daemon)
}

#[test]
fn docker_pushes_pulls_and_runs_what_is_not_here() {
    let Some(registry) = Registry::start("container: docker pull") else { return };
    let Some(daemon) = daemon("container: docker pull") else { return };
    let name = registry.name("box:1");
    daemon.says(&["tag", "box", &name]);
    let said = daemon.says(&["push", &name]);
    assert!(said.contains("The push refers to repository") && said.contains("1: digest: sha256:"), "{said}");
    let digests = daemon.says(&["inspect", "-f", "{{json .RepoDigests}}", "box"]);
    assert!(digests.contains(&registry.name("box@sha256:")), "{digests}");
    let id = daemon.says(&["images", "-q", "--no-trunc", "box"]);
    let said = daemon.says(&["rmi", &name]);
    assert_eq!(said.matches("Untagged").count(), 2, "the tag, and the digest with it: {said}");
    daemon.says(&["rmi", "box"]);
    let said = daemon.says(&["pull", &name]);
    assert!(said.contains("Status: Downloaded newer image") && said.ends_with(&name), "{said}");
    assert!(daemon.says(&["pull", &name]).contains("Image is up to date"));
    assert_eq!(daemon.says(&["images", "-q", "--no-trunc", &registry.name("box")]), id);
    assert!(daemon.says(&["images", "--digests", &registry.name("box")]).contains("sha256:"));
    daemon.says(&["rmi", "-f", &id]);
    let output = daemon.docker(&["run", "--rm", &name]);
    assert!(
        output.stdout == "the image's command\n" && output.stderr.contains("Unable to find image"),
        "{output:?}"
    );
    daemon.says(&["rmi", &name]);
    assert!(daemon.says(&["pull", "-q", "-a", &registry.name("box")]).ends_with(&registry.name("box")));
    assert_eq!(daemon.says(&["images", "-q", "--no-trunc", &registry.name("box")]), id);
}

#[test]
fn docker_logs_in_and_is_refused_without() {
    let Some(registry) = Registry::with_accounts("container: docker login") else { return };
    let Some(daemon) = daemon("container: docker login") else { return };
    let (name, host) = (registry.name("box:1"), registry.name("").trim_end_matches('/').to_owned());
    daemon.says(&["tag", "box", &name]);
    let output = daemon.docker(&["push", &name]);
    assert!(output.code == 1 && output.stderr.contains("denied"), "{output:?}");
    let output = daemon.docker_with(&["login", "-u", "eva", "--password-stdin", &host], "wrong");
    assert!(output.code == 1 && output.stderr.contains("incorrect username or password"), "{output:?}");
    let output = daemon.docker_with(&["login", "-u", "eva", "--password-stdin", &host], "secret");
    assert!(output.code == 0 && output.stdout.contains("Login Succeeded"), "{output:?}");
    daemon.says(&["push", &name]);
    daemon.says(&["rmi", &name]);
    daemon.says(&["pull", &name]);
    daemon.says(&["logout", &host]);
    let output = daemon.docker(&["pull", &name]);
    assert!(output.code == 1 && output.stderr.contains("pull access denied"), "{output:?}");
}

#[test]
fn docker_is_told_why_a_pull_failed_and_one_that_it_gives_up_ends() {
    let Some(registry) = Registry::start("container: docker pull that fails") else { return };
    let Some(daemon) = daemon("container: docker pull that fails") else { return };
    for (name, words) in [
        (registry.name("nothing:1"), "manifest unknown"),
        ("localhost:1/nothing".to_owned(), "onnection refused"),
        ("NOTHING".to_owned(), "must be lowercase"),
    ] {
        let output = daemon.docker(&["pull", &name]);
        assert!(output.code == 1 && output.stderr.contains(words), "{name}: {output:?}");
    }
    let output = daemon.docker(&["push", &registry.name("nothing")]);
    assert!(output.code == 1 && output.stderr.contains("does not exist locally with the tag"), "{output:?}");

    let name = registry.name("box:1");
    daemon.says(&["tag", "box", &name]);
    daemon.says(&["push", &name]);
    daemon.says(&["rmi", &name, "box"]);
    let delay = std::time::Duration::from_millis(200);
    let proxy = Proxy::before(&registry, Plan { delay, ..Plan::default() });
    let mut pull = daemon.client(&["pull", &proxy.name("box:1")]).spawn().expect("docker starts");
    crate::common::daemon::eventually("a layer begins", || proxy.count("GET /v2/box/blobs/", "") > 1);
    pull.kill().expect("a child of ours");
    pull.wait().expect("a child of ours");
    // The file's lock is free as soon as nobody fetches any more.
    let partial = daemon.lab.home().join("data/images/partial");
    crate::common::daemon::eventually("the pull's end", || {
        std::fs::read_dir(&partial).into_iter().flatten().flatten().all(|entry| {
            let file = std::fs::File::open(entry.path()).expect("a file");
            rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
        })
    });
    proxy.plan.lock().expect("a plan").delay = std::time::Duration::ZERO;
    daemon.says(&["pull", &proxy.name("box:1")]);
}
