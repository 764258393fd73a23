//! Registries that die, lie, and ask for passwords.

use std::io::Read as _;
use std::time::Duration;

use crate::common::Lab;
use crate::fixture::{Saved, Tar, entries};
use crate::pull::{OCI, put};
use crate::server::{Plan, Proxy, Registry};

/// Bytes that no two places of a layer share, so that a part in the wrong place is found.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    next.take(length).collect()
}

fn large() -> Saved {
    Saved::new([Tar::new().file("marked", "TRUE-CONTENT"), Tar::new().file("large", noise(4 << 20))])
}

fn left(lab: &Lab, directory: &str) -> usize {
    let path = lab.home().join("data/images").join(directory);
    if path.exists() { entries(&path).len() } else { 0 }
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let Some(registry) = Registry::start("registry: broken connections") else { return };
    put(&registry, "app", "1", &large(), OCI);
    let cuts = [1_000_000, 700_000, 900_000, 1_500_000].into();
    let proxy = Proxy::before(&registry, Plan { cuts, ..Plan::default() });
    let lab = Lab::empty();
    let output = lab.run(&["pull", &proxy.name("app:1")], "");
    assert!(output.code == 0 && output.stdout.contains("Retrying in 1 second"), "{output:?}");
    let resumed = proxy.count("GET /v2/app/blobs/", "range: bytes=")
        - proxy.count("GET /v2/app/blobs/", "range: bytes=0-");
    assert!(resumed >= 2, "the layer was taken up again");
    let sent = proxy.plan.lock().expect("a plan").sent;
    assert!(sent < (4 << 20) + 1_500_000, "{sent} bytes were sent for 4 MiB");
    assert_eq!(left(&lab, "partial"), 0);
}

#[test]
fn a_registry_that_dies_halfway_is_told_and_the_next_pull_goes_on_where_it_stopped() {
    let Some(mut registry) = Registry::start("registry: dies halfway") else { return };
    put(&registry, "app", "1", &large(), OCI);
    let proxy = Proxy::before(&registry, Plan { delay: Duration::from_millis(15), ..Plan::default() });
    let lab = Lab::empty();
    let mut command = lab.command(&["pull", &proxy.name("app:1")]);
    let mut pull = command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("lab");
    let partial = lab.home().join("data/images/partial");
    let half = || {
        let sizes = std::fs::read_dir(&partial)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.metadata().ok());
        sizes.map(|file| file.len()).max().unwrap_or(0)
    };
    while half() < 1 << 20 {
        assert!(pull.try_wait().expect("a child").is_none(), "it ended before the registry did");
        std::thread::sleep(Duration::from_millis(5));
    }
    registry.kill();
    let mut told = String::new();
    pull.stderr.take().expect("a pipe").read_to_string(&mut told).expect("text");
    assert_eq!(pull.wait().expect("a child").code(), Some(1));
    assert!(told.contains("broke off at byte") && told.contains("pull again"), "{told}");
    assert!(left(&lab, "partial") >= 1 && half() >= 1 << 20);
    registry.restart();
    // Removing something else meanwhile collects garbage; what is half here is none.
    lab.run(&["image", "rm", "lab"], "");
    let before = proxy.plan.lock().expect("a plan").sent;
    let output = lab.run(&["pull", &proxy.name("app:1")], "");
    assert_eq!(output.code, 0, "{output:?}");
    let sent = proxy.plan.lock().expect("a plan").sent - before;
    assert!(sent < (3 << 20) + 200_000, "{sent} bytes were sent for what was missing");
    assert_eq!(left(&lab, "partial"), 0);
}

#[test]
fn content_that_is_not_what_the_manifest_says_is_refused_and_not_kept() {
    let Some(registry) = Registry::start("registry: false content") else { return };
    put(&registry, "app", "1", &large(), OCI);
    let falsify = Some((b"TRUE-CONTENT".to_vec(), b"FALSE-CONTEN".to_vec()));
    let proxy = Proxy::before(&registry, Plan { falsify, ..Plan::default() });
    let lab = Lab::empty();
    let output = lab.run(&["pull", &proxy.name("app:1")], "");
    assert!(output.code == 1 && output.stderr.contains("expected sha256:"), "{output:?}");
    assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    assert!(lab.run(&["images", "-q"], "").stdout.lines().count() == 1, "the default image only");
    proxy.plan.lock().expect("a plan").falsify = None;
    assert_eq!(lab.run(&["pull", &proxy.name("app:1")], "").code, 0);
}

#[test]
fn names_that_are_not_there_and_registries_that_are_not_there_are_told() {
    let Some(mut registry) = Registry::start("registry: nothing there") else { return };
    put(&registry, "app", "1", &large(), OCI);
    let lab = Lab::empty();
    for (name, words) in [
        (registry.name("app:2"), "manifest unknown"),
        (registry.name("other"), "not found"),
        (format!("{}@sha256:{}", registry.name("app"), "0".repeat(64)), "not found"),
    ] {
        let output = lab.run(&["pull", &name], "");
        assert!(output.code == 1 && output.stderr.contains(words), "{name}: {output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
    registry.kill();
    let output = lab.run(&["pull", &registry.name("app:1")], "");
    assert!(output.code == 1 && output.stderr.to_lowercase().contains("connection refused"), "{output:?}");
}

#[test]
fn a_password_is_asked_for_checked_remembered_and_forgotten() {
    let Some(registry) = Registry::with_accounts("registry: passwords") else { return };
    let host = registry.name("").trim_end_matches('/').to_owned();
    let (name, lab) = (registry.name("app:1"), Lab::empty());
    let archive = lab.home().join("image.tar");
    std::fs::write(&archive, large().layout(&name)).expect("a file");
    assert_eq!(lab.run(&["image", "load", archive.to_str().expect("a text")], "").code, 0);
    let config = lab.home().join("docker-config");
    let run = |arguments: &[&str], stdin: &str| {
        let mut command = lab.command(arguments);
        command.env("DOCKER_CONFIG", &config).stdin(std::process::Stdio::piped());
        let mut child = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("lab starts");
        std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), stdin.as_bytes()).expect("input");
        crate::common::finish(child)
    };
    for arguments in [["push", &name], ["pull", &name]] {
        let output = run(&arguments, "");
        assert!(output.code == 1 && output.stderr.contains("lab login"), "{output:?}");
    }
    let output = run(&["login", "-u", "eva", "--password-stdin", &host], "wrong\n");
    assert!(output.code == 1 && output.stderr.contains("incorrect username or password"), "{output:?}");
    assert!(!config.join("config.json").exists());
    let output = run(&["login", "-u", "eva", "--password-stdin", &host], "secret\n");
    assert_eq!((output.code, &*output.stdout), (0, "Login Succeeded\n"), "{output:?}");
    assert!(!std::fs::read_to_string(config.join("config.json")).expect("a file").contains("secret"));
    for arguments in [["push", &name], ["pull", &name]] {
        let output = run(&arguments, "");
        assert_eq!(output.code, 0, "{output:?}");
    }
    assert!(run(&["logout", &host], "").stdout.contains("Removing login credentials"));
    assert!(run(&["pull", &name], "").stderr.contains("lab login"));

    // A credential helper, which is a program on the path.
    let helper = lab.home().join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread server\n[ \"$server\" = {host} ] || exit 1\necho '{{\"ServerURL\":\"\",\"Username\":\"eva\",\"Secret\":\"secret\"}}'\n"
    );
    std::fs::write(&helper, script).expect("a file");
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(&helper, mode).expect("a mode");
    std::fs::write(config.join("config.json"), format!("{{\"credHelpers\": {{\"{host}\": \"test\"}}}}"))
        .expect("a file");
    let path = format!("{}:{}", lab.home().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = lab.command(&["pull", &name]);
    let output = command.env("DOCKER_CONFIG", &config).env("PATH", path).output().expect("lab starts");
    assert!(output.status.success(), "{output:?}");
}
