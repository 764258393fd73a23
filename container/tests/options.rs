//! Options of runc's and crun's command lines that few engines use: each does what it says, or is refused by name.

mod common;

use std::fs;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::command::{lab, ok, output, quietly, state};
use common::{Bundle, traces};
use serde_json::json;

fn sleeper(options: &[&str]) -> Bundle {
    let bundle = Bundle::new(&["sleep", "100"]);
    quietly(&bundle, &[&["run", "-d"], options, &[&bundle.id]].concat());
    bundle
}

fn gone(bundle: &Bundle) {
    ok(bundle, &["delete", "--force", &bundle.id]);
    assert_eq!(traces(bundle), [].into());
}

#[test]
fn every_option_of_other_runtimes_is_there_or_refused_by_name() {
    needs_root!();
    let bundle = sleeper(&["--no-subreaper", "--no-pivot=false", "--keep=false"]);
    let id = bundle.id.as_str();
    for global in
        [&["--criu", "criu"][..], &["--debug"], &["--rootless", "auto"], &["--systemd-cgroup=false"]]
    {
        ok(&bundle, &[global, &["state", id]].concat());
    }
    assert_eq!(ok(&bundle, &["exec", "--tty=false", "--no-new-privs=true", id, "echo", "x"]), "x\n");
    assert!(ok(&bundle, &["help"]).contains("Usage") && ok(&bundle, &["-V"]).contains("spec: 1.3"));
    ok(&bundle, &["update", "--kernel-memory", "1g", "--cpu-share", "512", id]);
    for (arguments, reason) in [
        (
            &["update", "--l3-cache-schema", "L3:0=f", id][..],
            "linux.intelRdt: this container was created without",
        ),
        (&["kill", "--regex", id], "no option --regex"),
        (&["delete", "--all", id], "no option --all"),
        (&["exec", "--detach=maybe", id, "true"], "--detach maybe"),
        (&["--cgroup-manager", "x", "state", id], "--cgroup-manager x"),
        (&["exec", "--cgroup", "/nonesuch", id, "true"], "--cgroup /nonesuch: "),
        (&["exec", "--cgroup", "../..", id, "true"], "--cgroup ../..: "),
    ] {
        let output = output(&bundle, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.starts_with("error: ") && stderr.contains(reason),
            "{stderr}"
        );
    }
    gone(&bundle);
}

#[test]
fn a_configuration_can_have_another_name() {
    needs_root!();
    let bundle = Bundle::new(&["echo", "mine"]);
    let mut other = bundle.config.clone();
    other["process"]["args"] = json!(["echo", "other"]);
    fs::write(bundle.directory.join("other.json"), other.to_string()).unwrap();
    assert_eq!(ok(&bundle, &["run", "--config", "other.json", &bundle.id]), "other\n");
    ok(&bundle, &["spec", "--file", "example.json"]);
    assert!(bundle.directory.join("example.json").exists());
}

#[test]
fn a_descriptor_of_the_process_comes_over_a_socket() {
    needs_root!();
    let bundle = Bundle::new(&["sleep", "100"]);
    let listener = UnixListener::bind(bundle.directory.join("socket")).unwrap();
    let received = |pid: i64| {
        let (socket, _) = listener.accept().unwrap();
        let (name, pidfd) = common::receive_descriptor(&socket);
        let number = std::os::fd::AsRawFd::as_raw_fd(&pidfd);
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        assert!(name == b"pidfd" && info.contains(&format!("Pid:\t{pid}\n")), "{info}");
    };
    quietly(&bundle, &["create", "--pidfd-socket", "socket", &bundle.id]);
    received(state(&bundle)["pid"].as_i64().unwrap());
    ok(&bundle, &["start", &bundle.id]);
    let options = ["exec", "-d", "--pid-file", "pid", "--pidfd-socket", "socket"];
    quietly(&bundle, &[&options[..], &[&bundle.id, "sleep", "50"]].concat());
    received(fs::read_to_string(bundle.directory.join("pid")).unwrap().parse().unwrap());
    gone(&bundle);
    let output = output(&bundle, &["create", "--pidfd-socket", "nonesuch", &bundle.id]);
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: --pidfd-socket nonesuch: "));
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn without_a_manager_a_container_stays_in_the_callers_cgroup() {
    needs_root!();
    let mut bundle = Bundle::new(&["cat", "/proc/self/cgroup"]);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().pop(); // its own cgroup would be the root it sees
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    assert_ne!(ok(&bundle, &["run", &bundle.id]), own);
    bundle.config["linux"].as_object_mut().unwrap().remove("resources");
    assert_eq!(ok(&bundle, &["--cgroup-manager", "disabled", "run", &bundle.id]), own);
    bundle.config["linux"]["resources"] = json!({"pids": {"limit": 5}});
    let output = output(&bundle, &["--cgroup-manager", "disabled", "run", &bundle.id]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.starts_with("error: linux.resources.pids.limit: "),
        "a limit is not passed over: {stderr}"
    );
    assert_eq!(traces(&bundle), [].into());
}

/// The container's directory in a tree of version 1.
fn version_1(bundle: &Bundle, controller: &str) -> Option<std::path::PathBuf> {
    let path = Path::new("/sys/fs/cgroup").join(controller).join(format!("lab-{}", bundle.id));
    path.is_dir().then_some(path)
}

#[test]
fn a_process_can_be_added_to_a_cgroup_below() {
    needs_root!();
    let bundle = sleeper(&[]);
    let (Some(pids), Some(memory)) = (version_1(&bundle, "pids"), version_1(&bundle, "memory")) else {
        gone(&bundle);
        return; // version 2 is tried in the test of it
    };
    fs::create_dir(pids.join("below")).unwrap();
    let cgroups = ["exec", "--cgroup", "pids:below", &bundle.id, "cat", "/proc/self/cgroup"];
    let text = ok(&bundle, &cgroups);
    assert!(text.lines().any(|line| line.ends_with(":pids:/below")), "{text}");
    assert!(text.lines().any(|line| line.ends_with(":memory:/")), "the others are the container's: {text}");
    drop(memory);
    gone(&bundle); // with the one below
}

#[test]
fn the_session_keyring_is_new_or_the_callers() {
    needs_root!();
    if !Path::new("/proc/keys").exists() {
        return common::skip("needs a kernel with CONFIG_KEYS");
    }
    for (options, callers) in [(&[][..], false), (&["--no-new-keyring"], true)] {
        let mut bundle = Bundle::new(&["cat", "/proc/keys"]);
        bundle.config["linux"].as_object_mut().unwrap().remove("maskedPaths");
        bundle.config["process"]["user"] = json!({"uid": 4321, "gid": 4321}); // who sees but the keys that it holds
        let mut command = lab(&bundle, &[&["run"], options, &[&bundle.id]].concat());
        // SAFETY: one system call, which takes a name that is NUL-terminated (keyctl(2)).
        unsafe {
            command.pre_exec(|| {
                let joined = libc::syscall(libc::SYS_keyctl, 1, c"two-walls-test".as_ptr());
                if joined < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
            });
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(text.contains("two-walls-test"), callers, "{options:?}: {text}");
    }
}

#[test]
fn what_is_unknown_is_named() {
    needs_root!();
    let bundle = Bundle::new(&["true"]);
    let output = Command::new(env!("CARGO_BIN_EXE_lab-container")).arg("nonesuch").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("no command \"nonesuch\""));
    let output = lab(&bundle, &["run", "--cpu-affinity", "0", &bundle.id]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("no option --cpu-affinity"));
}
