//! A real dockerd with this runtime plugged in.
//!
//! dockerd gets mount and network namespaces of its own (`unshare(1)`), so that nothing of it touches the machine.

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::Bundle;

/// dockerd, until it is dropped.
struct Docker {
    daemon: Child,
    directory: PathBuf,
}

impl Docker {
    fn start(directory: &Path) -> Self {
        let script = r#"mount --make-rprivate / && ip link set lo up 2>/dev/null
            exec dockerd --data-root "$D/data" --exec-root "$D/exec" -H "unix://$D/sock" --pidfile "$D/pid" \
            --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
            --userland-proxy=false --add-runtime "lab=$LAB""#;
        let log = fs::File::create(directory.join("log")).unwrap();
        let daemon = Command::new("unshare")
            .args(["--mount", "--net", "sh", "-c", script])
            .env("D", directory)
            .env("LAB", env!("CARGO_BIN_EXE_lab-container"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let docker = Self { daemon, directory: directory.to_owned() };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !docker.command(&["info"]).output().unwrap().status.success() {
            let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "dockerd does not come up: {log}");
            std::thread::sleep(Duration::from_millis(100));
        }
        docker
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .arg("--host")
            .arg(format!("unix://{}", self.directory.join("sock").display()))
            .args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// The exit code and what was printed, warnings of docker's own left out.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command(arguments).output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let lines = text.lines().filter(|line| !line.contains("forwarding is disabled"));
        (output.status.code(), lines.collect::<Vec<_>>().join("\n").trim().to_owned())
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let (code, text) = self.run(arguments);
        assert_eq!(code, Some(0), "docker {arguments:?}: {text}");
        text
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.daemon.wait();
    }
}

#[test]
fn dockerd_drives_the_runtime() {
    needs_program!("dockerd", "docker.io");
    let bundle = Bundle::new(&[]);
    let tar = bundle.directory.join("image.tar");
    assert!(
        Command::new("tar")
            .arg("-C")
            .arg(bundle.rootfs())
            .arg("-cf")
            .arg(&tar)
            .arg(".")
            .status()
            .unwrap()
            .success()
    );
    let docker = Docker::start(&bundle.directory);
    docker.ok(&["import", "--change", "ENV PATH=/bin", tar.to_str().unwrap(), "box"]);
    let run = |options: &[&str], command: &[&str]| {
        docker.run(&[&["run", "--rm", "--runtime", "lab"], options, &["box"], command].concat())
    };

    assert_eq!(run(&[], &["echo", "hello"]), (Some(0), "hello".into()));
    assert_eq!(run(&[], &["sh", "-c", "exit 42"]).0, Some(42));
    assert_eq!(run(&[], &["nonesuch"]).0, Some(127));
    assert_eq!(run(&[], &["/etc"]).0, Some(126));
    assert_eq!(run(&["-u", "7:8"], &["sh", "-c", "id -u; id -g"]).1, "7\n8");
    assert_eq!(run(&["-w", "/tmp", "-e", "X=y"], &["sh", "-c", "pwd; echo $X"]).1, "/tmp\ny");
    assert_eq!(run(&["-t"], &["tty"]).1, "/dev/pts/0");
    assert_eq!(run(&["--init"], &["sh", "-c", "exit 3"]).0.map(|code| code == 3 || code == 127), Some(true));
    assert_eq!(run(&["--read-only"], &["touch", "/x"]).0, Some(1));
    assert_eq!(run(&["--privileged"], &["sh", "-c", "test -e /dev/kmsg"]).0, Some(0));
    for (option, link) in
        [("--pid=host", "pid"), ("--ipc=host", "ipc"), ("--uts=host", "uts"), ("--cgroupns=host", "cgroup")]
    {
        let link = format!("/proc/self/ns/{link}");
        let own = fs::read_link(&link).unwrap().display().to_string();
        assert_eq!(run(&[option], &["readlink", &link]), (Some(0), own), "{option}");
    }
    let tmpfs = run(
        &["--read-only", "--tmpfs", "/tmp:size=1m,mode=1777"],
        &["sh", "-c", "touch /tmp/x; stat -c %a /tmp"],
    );
    assert_eq!(tmpfs, (Some(0), "1777".into()));
    let ulimits = run(&["--ulimit", "nofile=100:200"], &["sh", "-c", "ulimit -n; ulimit -Hn"]);
    assert_eq!(ulimits, (Some(0), "100\n200".into()));
    assert_eq!(
        run(&["--cpuset-cpus", "0"], &["grep", "-c", "Cpus_allowed_list:.0$", "/proc/self/status"]).1,
        "1"
    );
    let volume = format!("{}:/v:ro", bundle.directory.display());
    assert_eq!(run(&["-v", &volume], &["test", "-f", "/v/image.tar"]).0, Some(0));
    let limit = run(
        &["-m", "64m", "--pids-limit", "10"],
        &["sh", "-c", "cat /sys/fs/cgroup/*/pids.max /sys/fs/cgroup/pids.max"],
    );
    assert!(limit.1.lines().any(|line| line == "10"), "{limit:?}");

    let id =
        docker.ok(&["run", "-d", "--runtime", "lab", "box", "sh", "-c", "echo started; exec sleep 1000"]);
    assert_eq!(docker.ok(&["exec", &id, "sh", "-c", "cat /proc/1/comm"]), "sleep");
    assert_eq!(docker.run(&["exec", &id, "sh", "-c", "exit 9"]).0, Some(9));
    assert_eq!(docker.ok(&["exec", "-t", &id, "tty"]), "/dev/pts/0");
    let options = ["exec", "-u", "7", "-w", "/tmp", "-e", "A=b", &id, "sh", "-c", "id -u; pwd; echo $A"];
    assert_eq!(docker.ok(&options), "7\n/tmp\nb");
    docker.ok(&["restart", "-t", "1", &id]);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.Status}}", &id]), "running");
    docker.ok(&["pause", &id]);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.Status}}", &id]), "paused");
    docker.ok(&["unpause", &id]);
    docker.ok(&["update", "--pids-limit", "20", &id]);
    assert!(docker.ok(&["top", &id]).contains("sleep 1000"));
    docker.ok(&["stop", "-t", "1", &id]);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.ExitCode}}", &id]), "137");
    assert_eq!(docker.ok(&["logs", &id]), "started\nstarted");
    docker.ok(&["rm", &id]);
}
