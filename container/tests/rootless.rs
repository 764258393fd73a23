//! An ordinary user makes a container: no root, no setuid helper, one id mapped.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use common::{Bundle, traces};
use serde_json::{Value, json};

const USER: &str = "4242";

/// A bundle that belongs to the user, as `lab-container spec --rootless` would configure it.
fn bundle(arguments: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(arguments);
    let map = json!([{"containerID": 0, "hostID": 4242, "size": 1}]);
    let linux = bundle.config["linux"].as_object_mut().unwrap();
    linux.remove("resources");
    linux.insert("uidMappings".into(), map.clone());
    linux.insert("gidMappings".into(), map);
    linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        // Only the one group is mapped.
        mount["options"].as_array_mut().unwrap().retain(|option: &Value| option != "gid=5");
    }
    let program = bundle.directory.join("lab-container");
    // By another process, so that it is not "busy" when a clone of another thread holds it open.
    for arguments in [
        vec!["cp", env!("CARGO_BIN_EXE_lab-container"), program.to_str().unwrap()],
        vec!["chown", "-R", "4242:4242", bundle.directory.to_str().unwrap()],
    ] {
        assert!(Command::new(arguments[0]).args(&arguments[1..]).status().unwrap().success());
    }
    fs::set_permissions(&bundle.directory, fs::Permissions::from_mode(0o755)).unwrap();
    bundle
}

fn as_user(bundle: &Bundle, arguments: &[&str]) -> Output {
    through(Command::new("setpriv"), bundle, arguments)
}

fn through(mut setpriv: Command, bundle: &Bundle, arguments: &[&str]) -> Output {
    bundle.write();
    setpriv
        .args(["--reuid", USER, "--regid", USER, "--clear-groups", "--inh-caps=-all"])
        .arg(bundle.directory.join("lab-container"))
        .arg("--root")
        .arg(bundle.state_root())
        .args(arguments)
        .current_dir(&bundle.directory)
        .output()
        .unwrap()
}

/// Leaves the test, loudly, where an ordinary user may make no user namespace.
macro_rules! needs_user_namespaces {
    () => {
        needs_root!();
        let switch = fs::read_to_string("/proc/sys/kernel/unprivileged_userns_clone");
        if switch.is_ok_and(|text| text.trim() == "0") {
            return common::skip("needs user namespaces: sysctl kernel.unprivileged_userns_clone=1");
        }
    };
}

#[test]
fn a_user_is_root_inside_and_runs_exec_and_leaves_nothing() {
    needs_user_namespaces!();
    let inside =
        bundle(&["sh", "-c", "id -u; echo x > /dev/null; hostname; ls /sys/class/net; touch /made; exit 6"]);
    let output = as_user(&inside, &["run", &inside.id]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), stderr.as_ref()), (Some(6), ""));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\nwalled\nlo\n");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(inside.rootfs().join("made")).unwrap());
    assert_eq!(owner, 4242);
    assert_eq!(traces(&inside), [].into());
}

#[test]
fn a_second_process_joins_it() {
    needs_user_namespaces!();
    let bundle = bundle(&["sh", "-c", "sleep 100 >/dev/null 2>&1 </dev/null"]);
    let created = as_user(&bundle, &["run", "--detach", &bundle.id]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let output = as_user(&bundle, &["exec", &bundle.id, "sh", "-c", "id -u; hostname; exit 4"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), stderr.as_ref()), (Some(4), ""));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\nwalled\n");
    assert!(as_user(&bundle, &["delete", "--force", &bundle.id]).status.success());
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn a_limit_that_the_user_may_not_set_is_named() {
    needs_user_namespaces!();
    let mut bundle = bundle(&["true"]);
    bundle.config["linux"]["resources"] = json!({"memory": {"limit": 33_554_432}});
    let output = as_user(&bundle, &["run", &bundle.id]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr.contains("cgroup") && stderr.contains("memory"), "{stderr}");
    assert!(stderr.contains("; without root, ") && stderr.contains("-p Delegate=yes"), "{stderr}");
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn more_ids_than_the_own_come_from_the_helpers_as_subuid_allows() {
    needs_user_namespaces!();
    needs_program!("newuidmap", "uidmap");
    let script =
        "cat /proc/self/uid_map /proc/self/gid_map; id -u; busybox chown 5:6 /made; stat -c '%u %g' /made";
    let mut bundle = bundle(&["sh", "-c", script]);
    fs::write(bundle.rootfs().join("made"), "").unwrap();
    std::os::unix::fs::chown(bundle.rootfs().join("made"), Some(4242), Some(4242)).unwrap();
    // The user and its ranges, known to a mount namespace of the call's own only.
    for (file, text) in [
        ("passwd", "root:x:0:0::/:/bin/sh\nlearner:x:4242:4242::/:/bin/sh\n"),
        ("group", "root:x:0:\nlearner:x:4242:\n"),
        ("subuid", "learner:300000:65536\n"),
        ("subgid", "learner:300000:65536\n"),
    ] {
        fs::write(bundle.directory.join(file), text).unwrap();
    }
    let apart = |bundle: &Bundle| {
        let script = "mount --make-rprivate / && for f in passwd group subuid subgid; do \
                      [ -e /etc/$f ] || : > /etc/$f; mount --bind $0/$f /etc/$f || exit 99; done; exec setpriv \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(&bundle.directory);
        command
    };
    let map = json!([
        {"containerID": 0, "hostID": 4242, "size": 1}, {"containerID": 1, "hostID": 300_000, "size": 65_536}
    ]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    let output = through(apart(&bundle), &bundle, &["run", &bundle.id]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), stderr.as_ref()), (Some(0), ""), "{stdout}");
    let words: Vec<_> = stdout.split_whitespace().collect();
    let half = ["0", "4242", "1", "1", "300000", "65536"];
    assert_eq!(words, [&half[..], &half, &["0", "5", "6"]].concat());
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(bundle.rootfs().join("made")).unwrap());
    assert_eq!(owner, 300_004);
    assert_eq!(traces(&bundle), [].into());

    // A range that is not the user's is refused by the helper, in its words, and nothing is left.
    bundle.config["linux"]["uidMappings"][1]["hostID"] = json!(500_000);
    let output = through(apart(&bundle), &bundle, &["run", &bundle.id]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("error: linux.uidMappings: newuidmap: "), "{stderr}");
    assert_eq!(traces(&bundle), [].into());
}
