//! A bootable disk, as a machine without the lab boots it: QEMU's PC, its BIOS, no KVM.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn lab(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(arguments)
        .env("LAB_HOME", home)
        .output()
        .expect("lab starts")
}

/// What the machine printed on its serial port, to its end.
fn boot(disk: &Path) -> String {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-m", "256", "-display", "none", "-serial", "stdio", "-monitor", "none"]);
    command.args(["-no-reboot", "-drive", &format!("file={},format=raw", disk.display())]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("QEMU starts");
    let mut printed = String::new();
    let pid = rustix::process::Pid::from_child(&child);
    // A machine that hangs must not hang the test.
    let (ended, watch) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if watch.recv_timeout(Duration::from_secs(240)).is_err() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut child.stdout.take().expect("a pipe"), &mut bytes).expect("a pipe");
    printed.push_str(&String::from_utf8_lossy(&bytes));
    let _ = ended.send(());
    watchdog.join().expect("it does not panic");
    let status = child.wait().expect("a child of ours");
    assert!(status.success(), "QEMU ended with {status}: {printed}");
    printed
}

#[test]
fn an_image_with_its_kernel_is_a_disk_that_a_plain_machine_boots() {
    if lab::doctor::find_program("qemu-system-x86_64").is_none() {
        return skipped("no QEMU: install the package qemu-system-x86");
    }
    if !matches!(lab::kernel::resolve(None), Ok(Some(_))) {
        return skipped("no guest kernel; `lab kernel build` makes one");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (home, disk) = (folder.path().join("home"), folder.path().join("a.img"));
    let path = disk.to_str().expect("temporary paths are UTF-8");
    // Words with blanks and quotes arrive as they are; files are there; the code of the end is told.
    let script = "echo \"it's $1\"; ls /bin/hello; id; cat /proc/version; exit 7";
    let made = lab(&home, &["image", "disk", "-o", path, "lab", "sh", "-c", script, "sh", "two  blanks"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(String::from_utf8_lossy(&made.stderr).contains("qemu-system-x86_64 -m "));
    let printed = boot(&disk);
    for part in ["it's two  blanks", "/bin/hello", "uid=0", "Linux version", "lab: the workload ended with 7"]
    {
        assert!(printed.contains(part), "{part}: {printed}");
    }
}

#[test]
fn what_cannot_be_made_a_disk_is_one_line_and_leaves_no_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (home, disk) = (folder.path().join("home"), folder.path().join("a.img"));
    let path = disk.to_str().expect("temporary paths are UTF-8");
    for (arguments, part) in [
        (&["image", "disk", "-o", path, "no-such-image"][..], "no-such-image"),
        (&["image", "disk", "-o", path, "--kernel", "no-such-kernel", "lab"], "no-such-kernel"),
        (&["image", "disk", "-o", "/no-such-folder/a.img", "lab"], "no-such-folder"),
    ] {
        let output = lab(&home, arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.lines().count() == 1, "{error}");
        // Without any kernel, that is what is said.
        assert!(error.contains(part) || error.contains("no guest kernel"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 1, "only the home");
    }
}

/// Says loudly that a test did not run; in CI that is a failure.
fn skipped(reason: &str) {
    println!("SKIPPED ({reason})");
    assert!(std::env::var_os("CI").is_none(), "SKIPPED ({reason}), and CI must run everything");
}
