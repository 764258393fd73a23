//! Signals sent to `lab run` reach the program behind either wall.

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use common::{Lab, Output, Wall, finish, for_each_wall, image};
use rustix::process::{Pid, Signal, kill_process};

/// Starts a script behind a wall and waits until it says that it is ready.
fn start(wall: Wall, script: &str) -> Child {
    let arguments = ["run", "--quiet", "--runtime", wall.name(), image::NAME, "sh", "-c", script];
    let mut command = Lab::shared().command(&arguments);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("lab starts");
    let mut line = String::new();
    let mut stdout = BufReader::with_capacity(1, child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("a pipe reads");
    child.stdout = Some(stdout.into_inner());
    if line != "ready\n" {
        let Output { code, stderr, .. } = finish(child);
        panic!("said {line:?}, then ended with {code}: {stderr}");
    }
    child
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("a child of ours");
}

#[test]
fn a_program_that_handles_a_signal_gets_it_and_ends_as_it_likes() {
    for_each_wall("a handled signal", |wall| {
        let script = "trap 'echo got HUP' HUP; trap 'echo got TERM; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
        let child = start(wall, script);
        send(&child, Signal::HUP);
        std::thread::sleep(std::time::Duration::from_millis(500));
        send(&child, Signal::TERM);
        let Output { code, stdout, stderr } = finish(child);
        assert_eq!((code, stdout.as_str()), (5, "got HUP\ngot TERM\n"), "{}: {stderr}", wall.name());
    });
}

#[test]
fn what_the_caller_ignores_is_no_matter_of_the_program() {
    for_each_wall("signals ignored by the caller", |wall| {
        let arguments = ["run", "--quiet", "--runtime", wall.name(), image::NAME, "cat", "/proc/self/status"];
        let lab = Lab::shared().command(&arguments);
        // As nohup(1), and a shell for what it starts in the background, leave SIGHUP and SIGINT.
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap '' HUP INT; exec \"$@\"", "sh"])
            .arg(lab.get_program())
            .args(lab.get_args());
        for (name, value) in lab.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let Output { code, stdout, stderr } = finish(child.expect("sh starts"));
        let ignored = stdout.lines().find_map(|line| line.strip_prefix("SigIgn:\t"));
        assert_eq!((code, ignored), (0, Some("0000000000000000")), "{}: {stderr}", wall.name());
    });
}

#[test]
fn the_third_interrupt_ends_a_program_that_ignores_it() {
    for_each_wall("the third interrupt", |wall| {
        let child = start(wall, "trap '' INT; echo ready; while :; do sleep 1; done");
        for _ in 0..3 {
            send(&child, Signal::INT);
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        let Output { code, stderr, .. } = finish(child);
        assert_eq!(code, 137, "{}: {stderr}", wall.name());
    });
}
