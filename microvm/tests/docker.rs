//! A real dockerd with `lab-vm` plugged in: `docker run --runtime lab-vm` gives an image a kernel of its own.
//!
//! dockerd gets mount and network namespaces of its own (`unshare(1)`), so that nothing of it touches the machine.

#[path = "common/bundle.rs"]
mod bundle;
mod common;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bundle::{Bundle, can_run};
use common::skip;

/// dockerd, until it is dropped.
struct Docker {
    daemon: Child,
    folder: PathBuf,
}

impl Docker {
    fn start(folder: &Path) -> Self {
        let script = r#"mount --make-rprivate / && ip link set lo up 2>/dev/null
            exec dockerd --data-root "$D/data" --exec-root "$D/exec" -H "unix://$D/sock" --pidfile "$D/pid" \
            --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
            --userland-proxy=false --add-runtime "lab-vm=$LAB""#;
        let log = fs::File::create(folder.join("log")).unwrap();
        let daemon = Command::new("unshare")
            .args(["--mount", "--net", "sh", "-c", script])
            .env("D", folder)
            .env("LAB", env!("CARGO_BIN_EXE_lab-vm"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let docker = Self { daemon, folder: folder.to_owned() };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !docker.command(&["info"]).output().unwrap().status.success() {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "dockerd does not come up: {log}");
            std::thread::sleep(Duration::from_millis(100));
        }
        docker
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(format!("unix://{}", self.folder.join("sock").display())).args(arguments);
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
fn dockerd_runs_images_in_virtual_machines() {
    let test = "dockerd_runs_images_in_virtual_machines";
    if !can_run(test) {
        return;
    }
    let places = ["/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd"];
    if !places.iter().any(|path| Path::new(path).exists()) {
        skip(test, "needs dockerd; install the package docker.io");
        return;
    }
    let bundle = Bundle::new(&[]);
    let tar = bundle.folder.join("image.tar");
    let packed = Command::new("tar").arg("-C").arg(bundle.rootfs()).arg("-cf").arg(&tar).arg(".").status();
    assert!(packed.unwrap().success());
    let docker = Docker::start(&bundle.folder);
    docker.ok(&["import", "--change", "ENV PATH=/bin", tar.to_str().unwrap(), "box"]);
    let run = |options: &[&str], command: &[&str]| {
        docker
            .run(&[&["run", "--rm", "--runtime", "lab-vm", "-m", "64m"], options, &["box"], command].concat())
    };

    let volume = format!("{}:/v:ro", bundle.folder.display());
    let script = "cat /proc/version; id -u; id -g; pwd; echo $X; ls /v/image.tar; touch /x; exit 42";
    let options = ["-u", "7:8", "-w", "/tmp", "-e", "X=y", "-v", &volume, "--read-only"];
    let (code, text) = run(&options, &["sh", "-c", script]);
    let host = fs::read_to_string("/proc/version").unwrap();
    let (version, rest) = text.split_once('\n').unwrap();
    assert!(version.starts_with("Linux version") && version != host.trim(), "{text}");
    assert!(
        rest.starts_with("7\n8\n/tmp\ny\n/v/image.tar\n") && rest.contains("Read-only file system"),
        "{text}"
    );
    assert_eq!(code, Some(42));
    let (code, text) = run(&[], &["nonesuch"]);
    assert!(code == Some(127) && text.contains("executable file not found"), "{text}");
    assert_eq!(run(&["-t"], &["tty"]), (Some(0), "/dev/pts/0".into()));

    let script = "echo started; echo new >/etc/new; exec sleep 1000";
    let id = docker.ok(&["run", "-d", "--runtime", "lab-vm", "box", "sh", "-c", script]);
    assert_eq!(docker.run(&["exec", &id, "sh", "-c", "hostname; exit 9"]), (Some(9), id[..12].into()));
    assert!(docker.ok(&["exec", "-t", &id, "tty"]).starts_with("/dev/pts/"));
    docker.ok(&["pause", &id]);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.Status}}", &id]), "paused");
    docker.ok(&["unpause", &id]);
    assert!(docker.ok(&["diff", &id]).contains("A /etc/new"));
    assert!(docker.ok(&["top", &id]).contains("lab-vm"));
    docker.ok(&["stop", "-t", "1", &id]);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.ExitCode}}", &id]), "137");
    assert_eq!(docker.ok(&["logs", &id]), "started");
    docker.ok(&["rm", &id]);
}
