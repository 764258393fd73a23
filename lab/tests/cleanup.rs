//! Nothing of a run stays, however it ends: by itself, by a signal, or with `lab` itself killed.

mod common;

use std::io::Read as _;
use std::process::{Child, Stdio};

use common::leftovers::Traces;
use common::{Lab, Output, Wall, finish, for_each_wall, image, skip};
use rustix::process::{Pid, Signal, kill_process};

const ENDLESS: &str = "sleep 1000 & echo ready; touch /tmp/file; sleep 1000";

fn start(lab: &Lab, wall: Wall, flags: &[&str]) -> Child {
    let mut arguments = vec!["run", "--quiet", "--runtime", wall.name()];
    arguments.extend(flags);
    arguments.extend([image::NAME, "sh", "-c", ENDLESS]);
    let mut command = lab.command(&arguments);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("lab starts");
    let mut word = [0; 6];
    let stdout = child.stdout.as_mut().expect("a pipe");
    if let Err(error) = stdout.read_exact(&mut word) {
        let Output { code, stderr, .. } = finish(child);
        panic!("{}: not ready: {error}; it ended with {code}: {stderr}", wall.name());
    }
    child
}

#[test]
fn a_run_that_ends_leaves_nothing() {
    for_each_wall("leftovers of a run", |wall| {
        let lab = Lab::shared();
        let before = Traces::of(lab.home());
        let script = "sleep 1000 & touch /tmp/file; exit 0";
        let limits = ["run", "--quiet", "-m", "64m", "--cpus", "0.5", "--runtime", wall.name()];
        let output = lab.run(&[&limits[..], &[image::NAME, "sh", "-c", script]].concat(), "");
        assert_eq!(output.code, 0, "{}: {output:?}", wall.name());
        before.assert_unchanged();
    });
}

#[test]
fn a_run_that_is_killed_by_signals_leaves_nothing() {
    for_each_wall("leftovers of a killed program", |wall| {
        let lab = Lab::shared();
        let before = Traces::of(lab.home());
        let child = start(lab, wall, &[]);
        for _ in 0..3 {
            kill_process(Pid::from_child(&child), Signal::TERM).expect("a child of ours");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(finish(child).code, 137, "{}", wall.name());
        before.assert_unchanged();
    });
}

#[test]
fn what_a_killed_lab_leaves_the_next_run_clears() {
    for_each_wall("leftovers of a killed lab", |wall| {
        let lab = Lab::shared();
        let before = Traces::of(lab.home());
        let mut child = start(lab, wall, &["--name", "orphan"]);
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
        let next = lab.run(&["run", "--quiet", "--name", "orphan", image::NAME, "true"], "");
        assert_eq!(next.code, 0, "{}: {next:?}", wall.name());
        before.assert_unchanged();
    });
}

#[test]
fn a_name_belongs_to_one_sandbox_at_a_time() {
    if let Some(why) = Wall::Container.missing().or_else(image::missing) {
        skip("container: names", why);
        return;
    }
    let lab = Lab::shared();
    let child = start(lab, Wall::Container, &["--name", "only-one"]);
    let second = lab.run(&["run", "--name", "only-one", image::NAME, "true"], "");
    assert_eq!(second.code, 125, "{second:?}");
    assert!(second.stderr.contains("only-one is in use"), "{second:?}");
    for _ in 0..3 {
        kill_process(Pid::from_child(&child), Signal::INT).expect("a child of ours");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    finish(child);
    assert_eq!(lab.run(&["run", "--name", "only-one", image::NAME, "true"], "").code, 0);
}
