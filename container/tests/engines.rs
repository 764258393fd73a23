//! podman with this runtime plugged in, and containerd's shim, through their own command lines.
//!
//! Each gets a mount and a network namespace of its own (`unshare(1)`) and keeps its state in the test's directory, so that
//! nothing of it touches the machine.

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Bundle, traces};

const LAB: &str = env!("CARGO_BIN_EXE_lab-container");

/// A command in namespaces of its own.
fn apart(script: &str, directory: &Path) -> Command {
    let mut command = Command::new("unshare");
    let script = format!("mount --make-rprivate / && {script}");
    command.args(["--mount", "--net", "sh", "-c", &script, "sh"]);
    command.env("D", directory).env("LAB", LAB).stdin(Stdio::null());
    command
}

#[test]
fn podman_drives_the_runtime() {
    needs_program!("podman", "podman");
    let bundle = Bundle::new(&[]);
    let podman = |arguments: &[&str]| {
        let script = r#"exec podman --root "$D/podman" --runroot "$D/run" --tmpdir "$D/tmp" --storage-driver vfs \
            --cgroup-manager cgroupfs --events-backend none --conmon "$(command -v conmon)" --runtime "$LAB" "$@""#;
        let output = apart(script, &bundle.directory).args(arguments).output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text.trim().to_owned())
    };
    let rootfs = bundle.rootfs().display().to_string();
    // podman raises these limits by itself, which not every root may. They stay as they are; of processes podman leaves
    // itself no more than 32768.
    let limit = |name: &str, resource, most: u64| {
        let hard = rustix::process::getrlimit(resource).maximum.unwrap_or(most).min(most);
        format!("--ulimit={name}={hard}:{hard}")
    };
    let files = limit("nofile", rustix::process::Resource::Nofile, 1 << 20);
    let processes = limit("nproc", rustix::process::Resource::Nproc, 32_768);
    let options =
        ["run", "--rm", &files, &processes, "--network", "none", "--log-driver", "none", "--rootfs"];
    let run = |more: &[&str], command: &[&str]| {
        let (before, after) = options.split_at(2);
        podman(&[before, more, after, &[&rootfs], command].concat())
    };
    assert_eq!(run(&[], &["echo", "hello"]), (Some(0), "hello".into()));
    assert_eq!(run(&[], &["sh", "-c", "exit 42"]).0, Some(42));
    assert_eq!(run(&[], &["nonesuch"]).0, Some(127));
    assert_eq!(run(&[], &["/etc"]).0, Some(126));
    assert_eq!(run(&["-u", "7:8"], &["sh", "-c", "id -u; id -g"]).1, "7\n8");
    assert_eq!(run(&["-t"], &["sh", "-c", "tty"]).1, "/dev/pts/0");
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn containerds_shim_drives_the_runtime() {
    needs_program!("containerd", "containerd");
    needs_program!("ctr", "containerd");
    let bundle = Bundle::new(&[]);
    let log = fs::File::create(bundle.directory.join("containerd.log")).unwrap();
    let configuration = format!(
        "version = 2\nroot = \"{0}/c-root\"\nstate = \"{0}/c-state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{0}/c.sock\"\n",
        bundle.directory.display()
    );
    fs::write(bundle.directory.join("c.toml"), configuration).unwrap();
    let mut daemon = apart(r#"exec containerd --config "$D/c.toml""#, &bundle.directory)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0)
        .spawn()
        .unwrap();
    let ctr = |arguments: &[&str]| {
        let socket = bundle.directory.join("c.sock");
        let output =
            Command::new("ctr").arg("--address").arg(socket).args(arguments).stdin(Stdio::null()).output();
        let output = output.unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text.trim().to_owned())
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while ctr(&["version"]).0 != Some(0) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    let rootfs = bundle.rootfs().display().to_string();
    let run = |name: &str, command: &[&str]| {
        let id = format!("{}-{name}", bundle.id);
        let options = ["run", "--rm", "--runc-binary", LAB, "--env", "PATH=/bin", "--rootfs", &rootfs, &id];
        ctr(&[&options[..], command].concat())
    };
    let results = [run("a", &["echo", "hello"]), run("b", &["sh", "-c", "exit 42"]), run("c", &["nonesuch"])];
    let pid = rustix::process::Pid::from_raw(daemon.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    daemon.wait().unwrap();
    let log = fs::read_to_string(bundle.directory.join("containerd.log")).unwrap();
    assert_eq!(results[0], (Some(0), "hello".into()), "{log}");
    assert_eq!(results[1].0, Some(42), "{:?} {log}", results[1]);
    assert!(results[2].0 != Some(0) && results[2].1.contains("nonesuch"), "{:?}", results[2]);
    assert_eq!(traces(&bundle), [].into());
}
