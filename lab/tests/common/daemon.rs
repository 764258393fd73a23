//! A daemon to test with, and the real docker client to ask it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Lab, Output, Wall, finish, skip};

/// A lab with a daemon; gone, with all its containers, when dropped.
pub struct Daemon {
    pub lab: Lab,
    process: Child,
}

impl Daemon {
    /// Starts one; says why not where it cannot be tried here.
    pub fn start(what: &str) -> Option<Self> {
        if let Some(why) = Wall::Container.missing() {
            skip(what, why);
            return None;
        }
        if Command::new("docker").arg("--version").output().is_err() {
            skip(what, "no docker client: install docker.io");
            return None;
        }
        let lab = Lab::empty();
        let process = spawn(&lab);
        Some(Self { lab, process })
    }

    /// Kills the daemon without a chance to clean up, and starts another.
    pub fn crash(&mut self) {
        self.process.kill().expect("a child of ours");
        self.process.wait().expect("a child of ours");
        self.process = spawn(&self.lab);
    }

    pub fn docker(&self, arguments: &[&str]) -> Output {
        self.docker_with(arguments, "")
    }

    pub fn docker_with(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut child = self.client(arguments).spawn().expect("docker starts");
        let mut input = child.stdin.take().expect("a pipe");
        let text = stdin.to_owned();
        thread::spawn(move || input.write_all(text.as_bytes()));
        finish(child)
    }

    pub fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.lab.home().join("d.sock").display())).args(arguments);
        command.env("DOCKER_CONFIG", self.lab.home().join("docker-config"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The standard output of a command that must succeed, without its last newline.
    pub fn says(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        assert_eq!(output.code, 0, "docker {arguments:?}: {output:?}");
        output.stdout.trim_end().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let all = self.docker(&["ps", "-aq"]).stdout;
        let mut remove = vec!["rm", "-f", "-v"];
        remove.extend(all.split_whitespace());
        if remove.len() > 3 {
            self.docker(&remove);
        }
        // The bridge of a network is the machine's.
        self.docker(&["network", "prune", "-f"]);
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.process.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.process.wait();
    }
}

fn spawn(lab: &Lab) -> Child {
    let socket = lab.home().join("d.sock");
    let mut process = lab
        .command(&["daemon".as_ref(), "--socket".as_ref(), socket.as_os_str()])
        .stderr(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .expect("lab starts");
    let mut line = String::new();
    BufReader::new(process.stderr.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert!(line.contains("listening"), "{line}");
    process
}

/// Waits for something that another process does.
pub fn eventually(what: &str, mut happens: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happens() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} does not happen");
        thread::sleep(Duration::from_millis(20));
    }
}
