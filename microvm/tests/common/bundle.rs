//! A bundle made of busybox, `lab-vm` as an engine calls it, and a look at what a machine could leave behind.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Whether machines can be run from bundles here. Where not, the test says so and ends; in CI it fails.
pub fn can_run(test: &str) -> bool {
    if !crate::common::kvm(test) {
        return false;
    }
    if !rustix::process::geteuid().is_root() {
        return crate::common::skip(test, "needs root; run `sudo -E cargo test -p microvm`");
    }
    if busybox().is_none() {
        return crate::common::skip(test, "needs a static busybox; install the package busybox-static");
    }
    match microvm::runtime::kernels::find(None) {
        Ok(_) => true,
        Err(error) => crate::common::skip(test, &error.to_string()),
    }
}

fn busybox() -> Option<&'static str> {
    ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists())
}

/// A bundle in a folder of its own, which goes when it is dropped.
pub struct Bundle {
    pub folder: PathBuf,
    pub id: String,
    pub config: Value,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Bundle {
    /// A root file system of busybox and the configuration that engines give by default.
    pub fn new(arguments: &[&str]) -> Self {
        let id = format!("vmtest-{}-{}x", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("lab-{id}"));
        for empty in ["bin", "proc", "sys", "dev", "etc", "tmp", "root"] {
            fs::create_dir_all(folder.join("rootfs").join(empty)).unwrap();
        }
        let bin = folder.join("rootfs/bin");
        fs::copy(busybox().expect("busybox"), bin.join("busybox")).unwrap();
        for applet in [
            "sh", "cat", "true", "sleep", "id", "ls", "hostname", "touch", "echo", "tty", "stty", "kill",
            "ps", "pwd",
        ] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        Self { config: config(arguments), folder, id }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.folder.join("rootfs")
    }

    pub fn state_root(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// One call of the binary, with the bundle's own state folder.
    pub fn lab(&self, arguments: &[&str]) -> Command {
        fs::write(self.folder.join("config.json"), self.config.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab-vm"));
        command.arg("--root").arg(self.state_root()).args(arguments).current_dir(&self.folder);
        command.stdin(Stdio::null());
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.lab(arguments).output().unwrap()
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Creates it, with streams of its own: the machine outlives the call, which must not wait for it.
    pub fn create(&self, options: &[&str]) {
        let log = self.folder.join("create.log");
        let file = fs::File::create(&log).unwrap();
        let mut command = self.lab(&[&["create"], options, &[&self.id]].concat());
        let status = command.stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
        assert!(status.success(), "{}", fs::read_to_string(log).unwrap());
    }

    /// What the workload of [`Bundle::create`] printed.
    pub fn printed(&self) -> String {
        fs::read_to_string(self.folder.join("create.log")).unwrap()
    }

    pub fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", &self.id])).unwrap()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// What is left of the machine.
    pub fn traces(&self) -> BTreeSet<String> {
        let mut traces = BTreeSet::new();
        let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if entry.file_name().to_string_lossy().contains(&self.id) {
                        traces.insert(entry.path().display().to_string());
                    }
                    folders.push(entry.path());
                }
            }
        }
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&words).contains(&self.state_root().display().to_string()) {
                traces.insert(entry.path().display().to_string());
            }
        }
        let state = fs::read_dir(self.state_root()).into_iter().flatten().flatten();
        traces.extend(state.map(|entry| entry.path().display().to_string()));
        traces
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // A test that failed half-way leaves nothing either.
        let _ = self.output(&["delete", "--force", &self.id]);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Waits until something is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A configuration as an engine would write it.
fn config(arguments: &[&str]) -> Value {
    let capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID"];
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": arguments,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "walled",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "cgroup"}
            ],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"]
        },
        "annotations": {"lab.vm.memory": "64"}
    })
}
