//! What the integration tests share: a bundle made of busybox, and a look at what a container could leave behind.
#![allow(dead_code)]

pub mod command;
pub mod version2;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use container::{Container, CreateOptions, Error, Exit, Stdio, create};
use serde_json::{Value, json};

/// A reason why this machine cannot run containers as root, or none.
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root; run `sudo -E cargo test -p container`".into());
    }
    if !Path::new("/bin/busybox").exists() && !Path::new("/usr/bin/busybox").exists() {
        return Some("needs a static busybox; install the package busybox-static".into());
    }
    None
}

/// Says loudly that a test cannot run here, which is a failure in CI: nothing passes by not running.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not by a macro: the test harness would keep its output to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test} ({reason})");
    assert!(std::env::var_os("CI").is_none(), "SKIPPED in CI ({reason})");
}

/// Leaves the test, loudly, where it is not root's.
#[macro_export]
macro_rules! needs_root {
    () => {
        if let Some(reason) = common::obstacle() {
            return common::skip(&reason);
        }
    };
}

/// Leaves the test, loudly, where a program is not installed.
#[macro_export]
macro_rules! needs_program {
    ($program:literal, $package:literal) => {
        needs_root!();
        if !common::installed($program) {
            return common::skip(concat!("needs ", $program, "; install the package ", $package));
        }
    };
}

/// Whether a program is in one of the usual directories.
pub fn installed(program: &str) -> bool {
    ["/bin", "/usr/bin", "/usr/sbin", "/usr/local/bin"]
        .iter()
        .any(|place| Path::new(place).join(program).exists())
}

/// A bundle in a directory of its own, which goes when it is dropped.
pub struct Bundle {
    pub directory: PathBuf,
    pub id: String,
    pub config: Value,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Bundle {
    /// A root file system of busybox and the configuration that engines give by default.
    pub fn new(arguments: &[&str]) -> Self {
        let id = format!("test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(format!("lab-container-{id}"));
        let bin = directory.join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        for empty in ["proc", "sys", "dev", "etc", "tmp", "root"] {
            fs::create_dir(directory.join("rootfs").join(empty)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        // Copied by another process: a file open for writing here could be inherited by a clone of another thread, and
        // would then be "busy" for execve(2).
        let copied =
            Command::new("cp").arg(busybox.expect("busybox")).arg(bin.join("busybox")).status().unwrap();
        assert!(copied.success());
        for applet in [
            "sh", "cat", "true", "sleep", "id", "ls", "mount", "hostname", "touch", "echo", "ip", "tty",
            "grep", "kill", "wc", "readlink", "stat", "env", "pwd", "umask", "dd", "test",
        ] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        Self { config: config(arguments), directory, id }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    pub fn state_root(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Writes the configuration down.
    pub fn write(&self) -> &Self {
        fs::write(self.directory.join("config.json"), self.config.to_string()).unwrap();
        self
    }

    pub fn options(&self) -> CreateOptions {
        self.write();
        CreateOptions::new(self.state_root(), &self.id, &self.directory)
    }

    /// Runs it to its end with its output caught.
    pub fn run(&self) -> (Exit, String) {
        self.run_with(self.options())
    }

    pub fn run_with(&self, options: CreateOptions) -> (Exit, String) {
        run_to_end(self.create_with(options).expect("create"))
    }

    /// Creates it with its output caught.
    pub fn create(&self) -> Result<(Container, File), Error> {
        self.create_with(self.options())
    }

    #[allow(clippy::unused_self)] // reads like create()
    pub fn create_with(&self, mut options: CreateOptions) -> Result<(Container, File), Error> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let write = write;
        options.stdio = Stdio::Fds {
            stdin: File::open("/dev/null").unwrap().into(),
            stdout: write.try_clone().unwrap(),
            stderr: write,
        };
        Ok((create(options)?, File::from(read)))
    }
}

/// Runs what was created to its end: how it ended, and what it printed.
pub fn run_to_end((mut container, mut output): (Container, File)) -> (Exit, String) {
    container.start().expect("start");
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    let exit = container.wait().expect("wait");
    container.delete(false).expect("delete");
    (exit, text)
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // A test that failed half-way leaves nothing either.
        let _ = Container::delete_forced(&self.state_root(), &self.id);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A configuration as an engine would write it.
pub fn config(arguments: &[&str]) -> Value {
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
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// Everything of the machine that a container could leave behind and that carries its name.
pub fn traces(bundle: &Bundle) -> BTreeSet<String> {
    let mut traces = BTreeSet::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    traces.extend(mounts.lines().filter(|line| line.contains(&bundle.id)).map(str::to_owned));
    let mut directories = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|typ| typ.is_dir()) {
                if entry.file_name().to_string_lossy().contains(&bundle.id) {
                    traces.insert(entry.path().display().to_string());
                }
                directories.push(entry.path());
            }
        }
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path().join("root");
        if fs::read_link(&path).is_ok_and(|root| root.starts_with(&bundle.directory)) {
            traces.insert(path.display().to_string());
        }
    }
    let state = fs::read_dir(bundle.state_root()).into_iter().flatten().flatten();
    traces.extend(state.map(|entry| entry.path().display().to_string()));
    traces
}

/// Gives the container a user namespace of its own, and its files to the ids mapped there.
pub fn user_namespace(bundle: &mut Bundle, first: u32) {
    let map = json!([{"containerID": 0, "hostID": first, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let owner = format!("{first}:{first}");
    assert!(Command::new("chown").arg("-R").arg(owner).arg(bundle.rootfs()).status().unwrap().success());
}

/// The first lines of a container's output.
pub fn first_lines(output: File, count: usize) -> String {
    use std::io::{BufRead, BufReader};
    BufReader::new(output).lines().take(count).map(|line| line.unwrap() + "\n").collect()
}

/// A text and the descriptor that came with it over a socket.
pub fn receive_descriptor(socket: &std::os::unix::net::UnixStream) -> (Vec<u8>, std::os::fd::OwnedFd) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut data = vec![0; 65_536];
    let mut parts = [std::io::IoSliceMut::new(&mut data)];
    let received = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let Some(RecvAncillaryMessage::ScmRights(mut fds)) = control.drain().next() else {
        panic!("no descriptor")
    };
    let descriptor = fds.next().unwrap();
    data.truncate(received.bytes);
    (data, descriptor)
}
