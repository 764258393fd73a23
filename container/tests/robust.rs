//! What a runtime must stand: to be killed at any moment, and to be called two hundred times at once.

mod common;

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Bundle, traces};

const LAB: &str = env!("CARGO_BIN_EXE_lab-container");

fn delete(bundle: &Bundle) {
    let delete = ["delete", "--force", &bundle.id];
    let output = Command::new(LAB).arg("--root").arg(bundle.state_root()).args(delete).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `create` under strace, with more of its options.
fn traced(bundle: &Bundle, options: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command.arg("-qq").args(options).arg(LAB).arg("--root").arg(bundle.state_root());
    command.args(["create", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn killed_at_any_system_call_the_runtime_leaves_nothing_that_delete_does_not_find() {
    needs_program!("strace", "strace");
    // The calls of the runtime itself from its first change of the machine on: each is a place to die at.
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.write();
    let log = bundle.directory.join("strace");
    assert!(traced(&bundle, &["-o", log.to_str().unwrap()]).status().unwrap().success());
    delete(&bundle);
    let text = fs::read_to_string(log).unwrap();
    let (mut seen, mut places) = (HashMap::<&str, u32>::new(), Vec::new());
    let mut changing = false;
    for line in text.lines() {
        let Some((name, _)) = line.split_once('(') else { continue };
        let count = seen.entry(name).or_default();
        *count += 1;
        changing |= name == "mkdir";
        if changing && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            places.push((name, *count));
        }
    }
    assert!(places.len() > 30, "{places:?}");
    for (name, count) in places {
        let inject = format!("inject={name}:signal=KILL:when={count}");
        traced(&bundle, &["-o", "/dev/null", "-e", &inject]).status().unwrap();
        delete(&bundle);
        // A first process whose runtime died before it was written down ends itself; it may take a moment.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !traces(&bundle).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
            delete(&bundle);
        }
        assert_eq!(traces(&bundle), [].into(), "killed at {name} number {count}");
    }
}

#[test]
fn two_hundred_at_once_lose_none() {
    needs_root!();
    let bundle = Bundle::new(&["sh", "-c", "exit 7"]);
    bundle.write();
    let start = |number: u32| {
        let mut command = Command::new(LAB);
        command.arg("--root").arg(bundle.state_root()).args(["run", "--bundle"]).arg(&bundle.directory);
        command.arg(format!("{}-{number}", bundle.id)).stdin(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let all: Vec<_> = (0..200).map(start).collect();
    for child in all {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(traces(&bundle), [].into());
}
