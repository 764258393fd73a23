//! The classes of attack that container runtimes have fallen to, each tried here: nothing of the host is reached or
//! changed. Those through the runtime's own program, leaked descriptors and mount targets are in `walls.rs`.

mod common;

use std::fs;
use std::os::unix::fs::symlink;

use common::{Bundle, traces};
use container::Exit;
use serde_json::{Value, json};

fn script(script: &str) -> Bundle {
    Bundle::new(&["sh", "-c", script])
}

/// A directory of the host's beside the root file system, with a file that must stay as it is.
fn prey(bundle: &Bundle) -> std::path::PathBuf {
    let directory = bundle.directory.join("prey");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("file"), "untouched").unwrap();
    directory
}

fn untouched(directory: &std::path::Path) {
    let names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
    assert_eq!(fs::read_to_string(directory.join("file")).unwrap(), "untouched");
}

#[test]
fn masks_are_the_hosts_dev_null_whatever_the_images_is() {
    // CVE-2025-31133: masked paths were bound from the container's own /dev/null, which could be a link.
    needs_root!();
    let mut bundle = script("cat /proc/keys | wc -c; stat -c %t:%T /proc/keys");
    let prey = prey(&bundle);
    bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    symlink(prey.join("file"), bundle.rootfs().join("dev/null")).unwrap();
    let error = bundle.create().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("/dev/null"), "a node that is something else is an error: {error}");
    fs::remove_file(bundle.rootfs().join("dev/null")).unwrap();
    assert_eq!(bundle.run(), (Exit::Code(0), "0\n1:3\n".into()));
    untouched(&prey);
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn a_console_that_is_a_link_leads_nowhere_outside() {
    // CVE-2025-52565: the terminal was bound over /dev/console through a link in the image.
    needs_root!();
    let mut bundle = script("true");
    let prey = prey(&bundle);
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    symlink(prey.join("new"), bundle.rootfs().join("dev/console")).unwrap();
    let (socket, _ours) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut options = bundle.options();
    options.stdio = container::Stdio::Console(socket);
    if let Ok(container) = container::create(options) {
        container.delete(true).unwrap();
    }
    untouched(&prey);
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn nothing_is_mounted_over_a_part_of_proc() {
    // CVE-2019-16884, CVE-2019-19921: what is written to /proc/self/attr or sysctl went to an attacker's file instead.
    needs_root!();
    for (destination, link) in [("/proc/self/attr", false), ("/proc/sys", false), ("/elsewhere/sys", true)] {
        let mut bundle = script("true");
        let prey = prey(&bundle);
        if link {
            symlink("/proc", bundle.rootfs().join("elsewhere")).unwrap();
        }
        let mount = json!({"destination": destination, "type": "bind", "source": prey, "options": ["bind"]});
        bundle.config["mounts"].as_array_mut().unwrap().push(mount);
        let error = bundle.create().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(destination), "{error}");
        untouched(&prey);
        assert_eq!(traces(&bundle), [].into());
    }
    let mut bundle = script("cat /proc/uptime");
    let file = bundle.directory.join("uptime");
    fs::write(&file, "of lxcfs\n").unwrap();
    let mount = json!({"destination": "/proc/uptime", "type": "bind", "source": file, "options": ["bind"]});
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    assert_eq!(bundle.run(), (Exit::Code(0), "of lxcfs\n".into()));
}

#[test]
fn a_sysctl_is_written_to_the_kernel_whatever_the_images_proc_is() {
    // CVE-2025-52881: a /proc that the image had prepared took the writes.
    needs_root!();
    let mut bundle = script("cat /proc/sys/net/ipv4/ip_forward");
    let prey = prey(&bundle);
    let proc = bundle.rootfs().join("proc/sys/net/ipv4");
    fs::create_dir_all(&proc).unwrap();
    symlink(prey.join("file"), proc.join("ip_forward")).unwrap();
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    assert_eq!(bundle.run(), (Exit::Code(0), "1\n".into()));
    untouched(&prey);
}

#[test]
fn read_only_and_masked_paths_through_links_stay_inside() {
    needs_root!();
    let mut bundle = script("touch /etc/x && echo written");
    let prey = prey(&bundle);
    symlink(&prey, bundle.rootfs().join("link")).unwrap();
    symlink("../../../../../..", bundle.rootfs().join("up")).unwrap();
    let outside = prey.strip_prefix("/").unwrap().display().to_string();
    bundle.config["linux"]["maskedPaths"] = json!(["/link/file", format!("/up/{outside}/file")]);
    bundle.config["linux"]["readonlyPaths"] = json!(["/link", format!("/up/{outside}")]);
    assert_eq!(bundle.run(), (Exit::Code(0), "written\n".into()));
    fs::write(prey.join("file"), "untouched").unwrap();
    untouched(&prey);
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn annotations_reach_hooks_as_they_are() {
    needs_root!();
    let mut bundle = Bundle::new(&["true"]);
    let hostile = "\"}\n{\"status\":\"running\"}\u{0}$(touch /tmp/x)`id`";
    bundle.config["annotations"] = json!({ "a": hostile });
    let seen = bundle.directory.join("seen");
    let command = format!("cat > {}", seen.display());
    bundle.config["hooks"] = json!({"createRuntime": [
        {"path": "/bin/sh", "args": ["sh", "-c", command], "env": ["PATH=/usr/bin:/bin"]}
    ]});
    assert_eq!(bundle.run().0, Exit::Code(0));
    let state: Value = serde_json::from_str(&fs::read_to_string(seen).unwrap()).unwrap();
    assert_eq!((&state["annotations"]["a"], &state["status"]), (&json!(hostile), &json!("creating")));
}
