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

/// A call of the runtime under strace, with more of its options.
fn traced(bundle: &Bundle, options: &[&str], call: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command.arg("-qq").args(options).arg(LAB).arg("--root").arg(bundle.state_root()).args(call);
    command.current_dir(&bundle.directory);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn create(bundle: &Bundle) {
    assert!(traced(bundle, &["-o", "/dev/null"], &["create", &bundle.id]).status().unwrap().success());
}

/// The system calls that a call of the runtime makes from the first of a name on: each is a place to die at.
fn places(bundle: &Bundle, call: &[&str], from: &str) -> Vec<(String, u32)> {
    let log = bundle.directory.join("strace");
    assert!(traced(bundle, &["-o", log.to_str().unwrap()], call).status().unwrap().success());
    let text = fs::read_to_string(log).unwrap();
    let (mut seen, mut places) = (HashMap::<&str, u32>::new(), Vec::new());
    let mut changing = false;
    for line in text.lines() {
        let Some((name, _)) = line.split_once('(') else { continue };
        let count = seen.entry(name).or_default();
        *count += 1;
        changing |= name == from;
        if changing && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            places.push((name.to_owned(), *count));
        }
    }
    places
}

/// That `delete --force` finds all that is left. A first process whose runtime died before it was written down ends
/// itself; it may take a moment.
fn nothing_is_left(bundle: &Bundle, when: &str) {
    delete(bundle);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !traces(bundle).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
        delete(bundle);
    }
    assert_eq!(traces(bundle), [].into(), "killed {when}");
}

#[test]
fn killed_at_any_system_call_the_runtime_leaves_nothing_that_delete_does_not_find() {
    needs_program!("strace", "strace");
    // With mounts that nobody else sees, and with those that only `delete` takes away.
    for own_mounts in [true, false] {
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| own_mounts || namespace["type"] != "mount");
        bundle.write();
        // From its first change of the machine on.
        let calls = places(&bundle, &["create", &bundle.id], "mkdir");
        delete(&bundle);
        assert!(calls.len() > 30, "{calls:?}");
        for (name, count) in calls {
            let inject = format!("inject={name}:signal=KILL:when={count}");
            let options = ["-o", "/dev/null", "-e", &inject];
            traced(&bundle, &options, &["create", &bundle.id]).status().unwrap();
            nothing_is_left(
                &bundle,
                &format!("in create at {name} number {count}, own mounts: {own_mounts}"),
            );
        }
    }
}

#[test]
fn killed_while_it_starts_or_deletes_it_leaves_nothing_either() {
    needs_program!("strace", "strace");
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "mount"); // there is more to take away then
    bundle.write();
    for (command, from) in [(&["start"][..], "connect"), (&["delete", "--force"], "pidfd_open")] {
        let call = [command, &[&bundle.id]].concat();
        create(&bundle);
        let calls = places(&bundle, &call, from);
        delete(&bundle);
        assert!(calls.len() > 3, "{calls:?}");
        for (name, count) in calls {
            create(&bundle);
            let inject = format!("inject={name}:signal=KILL:when={count}");
            traced(&bundle, &["-o", "/dev/null", "-e", &inject], &call).status().unwrap();
            nothing_is_left(&bundle, &format!("in {command:?} at {name} number {count}"));
        }
    }
}

#[test]
fn killed_at_any_mark_of_the_first_process_it_takes_that_along() {
    needs_program!("strace", "strace");
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.write();
    // A system call of the first process just before each of its marks (`lab_clock::Mark`), held up while the runtime dies.
    for (mark, call) in [
        ("cloned", "setsid"),
        ("cgroup ready", "unshare"),
        ("overlay mounted", "open_tree"),
        ("mounted", "move_mount"),
        ("pivoted", "pivot_root"),
        ("rights taken", "capset"),
        ("waiting", "accept4"),
    ] {
        let inject = format!("inject={call}:delay_enter=400ms:when=1");
        let options = ["-f", "-o", "/dev/null", "-e", &inject];
        let mut strace = traced(&bundle, &options, &["create", &bundle.id]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", strace.id())).unwrap();
        let runtime = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        if let Some(runtime) = runtime.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(runtime, rustix::process::Signal::KILL);
        }
        delete(&bundle); // or the last of them would wait to be started, and strace for it
        strace.wait().unwrap();
        nothing_is_left(&bundle, &format!("at the mark {mark:?}"));
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
