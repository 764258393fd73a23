//! `lab run` by an ordinary user: no root, no helper that is set-user-id, nothing but what the kernel gives to everyone.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Output, finish, skip};

/// Nobody: a user whom no file belongs to.
const NOBODY: u32 = 65534;

/// A home, and the program where this user can reach it: the build may be below a folder of root's alone.
struct User {
    home: tempfile::TempDir,
}

impl User {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("lab-test-").tempdir().expect("a temporary directory");
        let program = home.path().join("lab");
        fs::copy(env!("CARGO_BIN_EXE_lab"), &program).expect("a copy of lab");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its rights");
        chown(home.path(), Some(NOBODY), Some(NOBODY)).expect("a home of nobody's");
        Self { home }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let home = self.home.path();
        let child = Command::new(home.join("lab"))
            .args(arguments)
            .env_clear()
            .env("HOME", home)
            .env("PATH", "/usr/bin:/bin")
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .env("NO_COLOR", "1")
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("lab starts");
        finish(child)
    }
}

fn missing() -> Option<&'static str> {
    let switch = Path::new("/proc/sys/kernel/unprivileged_userns_clone");
    if !rustix::process::geteuid().is_root() {
        Some("becoming another user needs root")
    } else if fs::read_to_string(switch).is_ok_and(|text| text.trim() == "0") {
        Some("user namespaces are switched off: sysctl kernel.unprivileged_userns_clone=1")
    } else {
        None
    }
}

#[test]
fn a_container_needs_no_root() {
    if let Some(why) = missing() {
        return skip("container: no root", why);
    }
    let user = User::new();

    let hello = user.run(&["run", "lab", "hello"]);
    assert_eq!((hello.code, hello.stdout.as_str()), (0, "hello, world\n"), "{hello:?}");

    let inside = user.run(&["run", "lab", "sh", "-c", "id; hostname; echo made > /made; cat /made; exit 3"]);
    let lines: Vec<_> = inside.stdout.lines().collect();
    assert_eq!(inside.code, 3, "{inside:?}");
    assert!(
        matches!(lines[..], ["uid=0 gid=0", host, "made"] if host.len() == 12),
        "root inside, a host name, a root: {inside:?}"
    );

    let other = user.run(&["run", "--user", "1000", "lab", "hello"]);
    assert_eq!(other.code, 125, "{other:?}");
    assert!(
        other.stderr.starts_with("lab: error: user 1000:") && other.stderr.contains("--user 0:0"),
        "{other:?}"
    );

    let left: Vec<_> = fs::read_dir(user.home.path().join("run/lab/sandboxes"))
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect())
        .unwrap_or_default();
    assert!(left.iter().all(|name| name.as_encoded_bytes().starts_with(b".")), "left behind: {left:?}");
    // The user's own rights suffice to remove all that was stored.
    let emptied = Command::new("rm")
        .arg("-rf")
        .arg(user.home.path().join(".local"))
        .uid(NOBODY)
        .gid(NOBODY)
        .status()
        .expect("rm starts");
    assert!(emptied.success());
}
