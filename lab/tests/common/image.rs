//! An image to test with: busybox and a few accounts, as the archive that `docker save` writes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

/// The image's name.
pub const NAME: &str = "box";

/// The static shell and tools (Debian and Ubuntu: package busybox-static).
pub const BUSYBOX: &str = "/bin/busybox";

/// Programs of the image, each a link to busybox.
const APPLETS: [&str; 22] = [
    "sh", "cat", "echo", "env", "false", "grep", "hostname", "id", "kill", "ls", "mount", "nproc", "printf",
    "ps", "pwd", "sleep", "stty", "touch", "tr", "true", "tty", "wc",
];

/// Why there is no image, if there is none.
pub fn missing() -> Option<&'static str> {
    (!Path::new(BUSYBOX).exists()).then_some("no /bin/busybox: install busybox-static")
}

/// Writes the archive into a directory and returns its path.
pub fn archive(directory: &Path) -> PathBuf {
    let root = directory.join("rootfs");
    for path in ["bin", "etc", "home/eva", "proc", "sys", "dev", "tmp", "root"] {
        fs::create_dir_all(root.join(path)).expect("a directory");
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).expect("busybox");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    let accounts = "root:x:0:0:root:/root:/bin/sh\neva:x:1000:1000:Eva:/home/eva:/bin/sh\n";
    fs::write(root.join("etc/passwd"), accounts).expect("a file");
    fs::write(root.join("etc/group"), "root:x:0:\neva:x:1000:\nvideo:x:44:eva\n").expect("a file");
    fs::write(root.join("etc/not-a-program"), "text\n").expect("a file");

    let save = directory.join("save");
    fs::create_dir_all(&save).expect("a directory");
    tar(&root, &save.join("layer.tar"), "--owner=0 --group=0 --numeric-owner --mtime=@0 --sort=name");
    let layer = hex(&fs::read(save.join("layer.tar")).expect("the layer"));
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["echo", "the image's command"], "WorkingDir": "/tmp"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
    });
    let config = config.to_string();
    let config_name = format!("{}.json", hex(config.as_bytes()));
    fs::write(save.join(&config_name), &config).expect("a file");
    let manifest =
        serde_json::json!([{"Config": config_name, "RepoTags": ["box:latest"], "Layers": ["layer.tar"]}]);
    fs::write(save.join("manifest.json"), manifest.to_string()).expect("a file");
    let archive = directory.join("box.tar");
    tar(&save, &archive, "");
    archive
}

fn tar(directory: &Path, archive: &Path, options: &str) {
    let mut tar = Command::new("tar");
    tar.args(options.split_whitespace()).arg("-C").arg(directory).arg("-cf").arg(archive).arg(".");
    assert!(tar.status().expect("tar is installed").success());
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
