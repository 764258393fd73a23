//! The nested rig: both walls on a machine with hardware-like KVM and pure cgroup v2, in every test run.
//!
//! One boot of the rig tries everything, for each boot takes seconds of an emulated machine's time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// One rig at a time, and one that fetches what it needs.
static ALONE: Mutex<()> = Mutex::new(());

/// What the rig lacks here, if it lacks anything.
fn missing() -> Option<&'static str> {
    let no = |paths: &[&str]| !paths.iter().any(|path| Path::new(path).exists());
    if no(&["/usr/bin/qemu-system-x86_64"]) {
        return Some("apt-get install qemu-system-x86");
    }
    if no(&["/bin/busybox", "/usr/bin/busybox"]) {
        return Some("apt-get install busybox-static");
    }
    if no(&["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"]) {
        return Some("apt-get install virtiofsd (Debian 12: qemu-system-common)");
    }
    if !rustix::process::geteuid().is_root() {
        return Some("the rig serves the host's files as root");
    }
    None
}

fn skip(reason: &str) {
    eprintln!("SKIPPED (no nested rig: {reason})");
    assert!(std::env::var_os("CI").is_none(), "SKIPPED in CI (no nested rig: {reason})");
}

/// The rig's kernel, fetched where there is none.
fn kernel_at_hand() {
    let at_hand = lab::kernel::list().expect("the cache").iter().any(|kernel| kernel.for_rig().is_some());
    if !at_hand {
        lab::kernel::fetch(None, &AtomicBool::new(false), &mut |_| ()).expect("the distribution's kernel");
    }
}

/// The newest program of a test of the workspace.
fn test_program(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_BIN_EXE_lab")).with_file_name("deps");
    let programs = std::fs::read_dir(folder).ok()?.flatten().filter(|entry| {
        let file = entry.file_name();
        let hash = file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('-'));
        hash.is_some_and(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
    });
    programs
        .max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok())
        .map(|entry| entry.path())
}

#[test]
fn the_runtimes_own_tests_of_cgroup_v2_and_apparmor_pass_there() {
    if let Some(reason) = missing() {
        return skip(reason);
    }
    let programs = ["cgroup2", "limits", "labels"].map(test_program);
    let [Some(cgroup2), Some(limits), Some(labels)] = programs else {
        return skip("cargo test --workspace builds the tests of `container` that run in it");
    };
    let _alone = ALONE.lock();
    kernel_at_hand();
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["rig", "sh", "-c", "for test in \"$@\"; do \"$test\" --nocapture; done", "rig-test"])
        .args([cgroup2, limits, labels])
        .output()
        .expect("lab rig starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let passed = stdout.lines().filter(|line| line.starts_with("test result: ok. 1 passed")).count();
    for (promise, kept) in [
        ("three tests pass", passed == 3),
        ("every limit is tried", stdout.contains("not tried: []")),
        ("AppArmor is there", stdout.contains("a profile of AppArmor was in force")),
    ] {
        assert!(kept, "{promise}\n--- {stdout}\n--- {stderr}");
    }
}

#[test]
fn both_walls_hold_on_hardware_like_kvm_and_pure_cgroup_v2() {
    if let Some(reason) = missing() {
        return skip(reason);
    }
    let _alone = ALONE.lock();
    kernel_at_hand();
    // The lean kernel of a machine whose KVM has no hardware behind it is built for one CPU, whoever boots it.
    let lean = lab::kernel::list().expect("the cache").into_iter().find(lab::kernel::Kernel::is_current);
    let config = lean.and_then(|kernel| std::fs::read_to_string(kernel.image.with_file_name("config")).ok());
    let several = config.is_some_and(|config| config.lines().any(|line| line == "CONFIG_SMP=y"));
    let vm_cpus = format!("vm cpus: {}", if several { 2 } else { 1 });
    // Everything in one boot; each line of the answer is one promise.
    let script = r#"
        lab=$1
        export LAB_HOME=/tmp/lab XDG_RUNTIME_DIR=/run
        ls -l /dev/kvm >/dev/null && echo kvm: there
        grep -qw memory /sys/fs/cgroup/cgroup.controllers && echo cgroup: v2
        echo "container: $("$lab" run lab hello)"
        "$lab" run lab sh -c 'exit 7'; echo "container exit: $?"
        echo "container limit: $("$lab" run -m 64m lab cat /sys/fs/cgroup/memory.max)"
        echo "vm: $("$lab" run --quiet --runtime vm lab hello)"
        "$lab" run --quiet --runtime vm lab sh -c 'exit 9'; echo "vm exit: $?"
        echo "vm cpus: $("$lab" run --quiet --runtime vm --cpus 2 lab cat /proc/stat | grep -c '^cpu[0-9]')"
        mkdir /tmp/shared; echo given > /tmp/shared/file
        script='cat /data/file; echo written > /data/new; echo x 2>/dev/null > /fixed/x || echo refused'
        echo "vm volume: $(echo $("$lab" run --quiet --runtime vm -v /tmp/shared:/data -v /tmp/shared:/fixed:ro lab sh -c "$script"))"
        echo "vm wrote: $(cat /tmp/shared/new)"
        for name in first second; do
            echo "warm $name: $("$lab" run --quiet --runtime vm --warm --hostname $name lab hostname)"
        done
        find /sys/fs/cgroup -path '*lab*' | grep -c . | sed 's/^/cgroups left: /'
    "#;
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["rig", "sh", "-c", script, "rig-test", env!("CARGO_BIN_EXE_lab")])
        .output()
        .expect("lab rig starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for promise in [
        "kvm: there",
        "cgroup: v2",
        "container: hello, world",
        "container exit: 7",
        "vm: hello, world",
        "vm exit: 9",
        "vm volume: given refused",
        "vm wrote: written",
        vm_cpus.as_str(),
        "warm first: first",
        "warm second: second",
    ] {
        assert!(stdout.lines().any(|line| line == promise), "{promise}\n--- {stdout}\n--- {stderr}");
    }
}
