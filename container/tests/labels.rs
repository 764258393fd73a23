//! AppArmor in force: a profile that is loaded confines the container and what is added to it. Where the kernel has no
//! AppArmor, the refusal is tried (`tests/spec.rs`); the nested rig's kernel has it, and runs this too (`lab/tests/rig.rs`).

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::command::{ok, output, quietly};
use common::{Bundle, traces};
use rustix::mount::{MountFlags, mount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::json;

const PROFILE: &str = "two-walls-test";
const SECURITY: &str = "/sys/kernel/security";

/// The compiler of profiles with a profile on its standard input.
fn parser(option: &str, profile: &str) {
    let mut parser = Command::new("apparmor_parser")
        .args([option, "--skip-cache", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    parser.stdin.take().unwrap().write_all(profile.as_bytes()).unwrap();
    assert!(parser.wait().unwrap().success(), "apparmor_parser {option}");
}

#[test]
fn an_apparmor_profile_confines_the_container_and_what_is_added_to_it() {
    needs_root!();
    if !container::supported::apparmor() {
        println!("this kernel has no AppArmor: not tried");
        return;
    }
    needs_program!("apparmor_parser", "apparmor");
    // SAFETY: only the mount namespace of this thread changes; CLONE_FILES is not among the flags (unshare(2)).
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    if !Path::new(SECURITY).join("apparmor").exists() {
        mount("securityfs", SECURITY, "securityfs", MountFlags::empty(), None).unwrap();
    }
    let name = format!("{PROFILE}-{}", std::process::id());
    let profile = format!(
        "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  capability,\n  signal,\n  \
         deny /**/secret r,\n}}\n"
    );
    parser("--replace", &profile);
    for no_new_privileges in [true, false] {
        let script = "cat /proc/self/attr/current; cat /etc/secret; cat /etc/open; sleep 1000";
        let mut bundle = Bundle::new(&["sh", "-c", script]);
        fs::write(bundle.rootfs().join("etc/secret"), "secret\n").unwrap();
        fs::write(bundle.rootfs().join("etc/open"), "open\n").unwrap();
        bundle.config["process"]["apparmorProfile"] = json!(name);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let (mut container, output_of_first) = bundle.create().unwrap();
        container.start().unwrap();
        let text = common::first_lines(output_of_first, 3);
        assert!(text.starts_with(&format!("{name} (enforce)\n")), "{text}");
        assert!(text.contains("Permission denied") && text.ends_with("open\n"), "{text}");
        // Who is added is under the same profile, or the one that is named.
        let current = ["cat", "/proc/self/attr/current"];
        let id = bundle.id.as_str();
        assert_eq!(ok(&bundle, &[&["exec", id], &current[..]].concat()), format!("{name} (enforce)\n"));
        let free = [&["exec", "--apparmor", "unconfined", id], &current[..]].concat();
        assert_eq!(ok(&bundle, &free), "unconfined\n");
        let refused = output(&bundle, &["exec", id, "cat", "/etc/secret"]);
        assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stdout));
        container.delete(true).unwrap();
        assert_eq!(traces(&bundle), [].into());
    }
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["process"]["apparmorProfile"] = json!("two-walls-nonesuch");
    quietly(&bundle, &["create", &bundle.id]);
    let start = output(&bundle, &["start", &bundle.id]);
    let stderr = String::from_utf8_lossy(&start.stderr);
    assert!(
        stderr.starts_with("error: set process.apparmorProfile") && stderr.contains("loaded"),
        "{stderr}"
    );
    ok(&bundle, &["delete", "--force", &bundle.id]);
    parser("--remove", &profile);
    println!("a profile of AppArmor was in force");
}
