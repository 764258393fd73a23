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
    bundle.write();
    Command::new("setpriv")
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
    assert_eq!(traces(&bundle), [].into());
}
