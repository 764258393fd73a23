//! Other people's clients: docker-py from PyPI, in an environment of its own in a temporary folder.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::daemon::Daemon;
use common::{finish, skip};

/// The library, pinned: the newest that reads an upgrade's head through a buffer, as older ones do.
const LIBRARY: &str = "docker==7.1.0";

#[test]
fn docker_py_finds_what_it_expects() {
    let what = "container: docker-py";
    let folder = tempfile::tempdir().expect("a temporary directory");
    let run = |program: &Path, words: &[&str]| {
        let output = Command::new(program).args(words).stdin(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success())
    };
    let environment = folder.path().to_string_lossy().into_owned();
    if !run(Path::new("python3"), &["-m", "venv", &environment]) {
        skip(what, "no python3 with venv: install python3-venv");
        return;
    }
    let python = folder.path().join("bin/python");
    if !run(&python, &["-m", "pip", "install", "-q", "--disable-pip-version-check", LIBRARY]) {
        skip(what, "PyPI cannot be reached for docker-py");
        return;
    }
    let Some(daemon) = Daemon::start(what) else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/docker_py.py");
    let child = Command::new(&python)
        .arg(script)
        .env("DOCKER_HOST", format!("unix://{}", daemon.lab.home().join("d.sock").display()))
        .env("DOCKER_CONFIG", daemon.lab.home().join("docker-config"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python starts");
    let output = finish(child);
    assert_eq!(output.code, 0, "docker-py:\n{}", output.stderr);
    // unittest tells how many; none would pass as well.
    assert!(output.stderr.contains("Ran 23 tests"), "{}", output.stderr);
}
