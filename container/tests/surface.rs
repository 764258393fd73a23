//! The details of runc's command line that engines and other people's suites rely on.

mod common;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use common::command::{lab, ok, output, quietly, state};
use common::{Bundle, traces};
use serde_json::{Value, json};

fn sleeper() -> Bundle {
    let bundle = Bundle::new(&["sleep", "100"]);
    quietly(&bundle, &["run", "-d", &bundle.id]);
    bundle
}

fn refused(bundle: &Bundle, arguments: &[&str]) -> String {
    let output = output(bundle, arguments);
    assert!(!output.status.success(), "{arguments:?} was accepted");
    String::from_utf8(output.stderr).unwrap()
}

fn gone(bundle: &Bundle) {
    ok(bundle, &["delete", "--force", &bundle.id]);
    assert_eq!(traces(bundle), [].into());
}

#[test]
fn the_state_has_all_that_engines_read() {
    needs_root!();
    let mut bundle = Bundle::new(&["sleep", "100"]);
    bundle.config["annotations"] = json!({"a.b": "c"});
    quietly(&bundle, &["run", "-d", &bundle.id]);
    let state = state(&bundle);
    for (field, value) in [
        ("ociVersion", json!("1.2.0")),
        ("id", json!(bundle.id)),
        ("status", json!("running")),
        ("bundle", json!(bundle.directory)),
        ("rootfs", json!(bundle.rootfs())),
        ("annotations", json!({"a.b": "c"})),
        ("owner", json!("root")),
    ] {
        assert_eq!(state[field], value, "{field}");
    }
    let list: Value = serde_json::from_str(&ok(&bundle, &["list", "--format", "json"])).unwrap();
    assert_eq!(list, json!([state]));
    let table = ok(&bundle, &["ps", &bundle.id, "-o", "pid,comm"]);
    assert!(table.contains("sleep") && table.lines().count() == 2, "{table}");
    gone(&bundle);
    assert!(refused(&bundle, &["state", &bundle.id]).contains("does not exist"));
}

#[test]
fn what_a_state_does_not_allow_changes_nothing() {
    needs_root!();
    let bundle = sleeper();
    let id = bundle.id.as_str();
    for arguments in [&["start", id][..], &["delete", id], &["resume", id], &["run", id], &["create", id]] {
        refused(&bundle, arguments);
        assert_eq!(state(&bundle)["status"], "running");
    }
    ok(&bundle, &["kill", "--all", id, "SIGKILL"]);
    while state(&bundle)["status"] != "stopped" {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // containerd takes these words for "there is nothing left to kill".
    assert!(refused(&bundle, &["kill", id, "9"]).contains("container not running"));
    ok(&bundle, &["kill", "--all", id, "9"]);
    for arguments in [&["start", id][..], &["exec", id, "true"], &["pause", id]] {
        refused(&bundle, arguments);
    }
    assert_eq!(state(&bundle)["pid"], 0);
    ok(&bundle, &["delete", id]);
    for command in ["start", "state", "delete", "kill", "pause", "resume", "ps", "events", "update", "exec"] {
        assert!(refused(&bundle, &[command]).contains("id is missing"), "{command}");
        if command != "exec" {
            assert!(refused(&bundle, &[command, id]).contains("does not exist"), "{command}");
        }
    }
    for command in ["checkpoint", "restore"] {
        assert!(refused(&bundle, &[command, id]).contains("not supported"));
    }
}

#[test]
fn exec_changes_only_what_it_is_told_to() {
    needs_root!();
    let mut bundle = Bundle::new(&["sleep", "100"]);
    bundle.config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7], "umask": 0o27});
    quietly(&bundle, &["run", "-d", &bundle.id]);
    let id = bundle.id.as_str();
    let who = "umask; grep -E '^(Uid|Gid|Groups)' /proc/self/status | tr -s '\\t ' ' '; pwd; echo $X";
    let own = "0027\nUid: 5 5 5 5\nGid: 6 6 6 6\nGroups: 7 \n/\n\n";
    let busybox = format!("busybox sh -c '{}'", who.replace('\'', "'\\''").replace("tr -s", "busybox tr -s"));
    let shell = ["sh", "-c", &busybox];
    let exec = |options: &[&str]| ok(&bundle, &[&["exec"], options, &[id], &shell].concat());
    assert_eq!(exec(&[]), own);
    assert_eq!(exec(&["--user", "8"]), own.replace("Uid: 5 5 5 5", "Uid: 8 8 8 8"));
    assert_eq!(
        exec(&["-u", "8:9", "-g", "10", "--cwd", "/tmp", "--env", "X=y"]),
        "0027\nUid: 8 8 8 8\nGid: 9 9 9 9\nGroups: 7 10 \n/tmp\ny\n"
    );
    let process = json!({"args": ["sh", "-c", "echo $Y; pwd"], "cwd": "/etc", "env": ["PATH=/bin", "Y=z"]});
    fs::write(bundle.directory.join("process.json"), process.to_string()).unwrap();
    assert_eq!(ok(&bundle, &["exec", "--process", "process.json", id]), "z\n/etc\n");
    quietly(&bundle, &["exec", "-d", "--pid-file", "pid", id, "sleep", "50"]);
    let pid: i32 = fs::read_to_string(bundle.directory.join("pid")).unwrap().parse().unwrap();
    let pids: Vec<i32> = serde_json::from_str(&ok(&bundle, &["ps", "-f", "json", id])).unwrap();
    assert!(pids.contains(&pid) && pids.len() == 2, "{pids:?}");
    gone(&bundle);
}

#[test]
fn descriptors_of_a_service_manager_come_with_their_number() {
    needs_root!();
    let bundle = Bundle::new(&["sh", "-c", "echo $LISTEN_FDS $LISTEN_PID; cat <&3; cat <&4"]);
    let (one, two) = (bundle.directory.join("one"), bundle.directory.join("two"));
    fs::write(&one, "first\n").unwrap();
    fs::write(&two, "second\n").unwrap();
    let script = "LISTEN_FDS=1; export LISTEN_FDS; exec \"$@\" 3<one 4<two";
    let call = lab(&bundle, &["run", "--preserve-fds", "1", &bundle.id]);
    let output = std::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(call.get_program())
        .args(call.get_args())
        .current_dir(&bundle.directory)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 1\nfirst\nsecond\n");
}

#[test]
fn limits_come_from_options_files_and_standard_input() {
    needs_root!();
    let bundle = sleeper();
    let id = bundle.id.as_str();
    let stats = || -> Value { serde_json::from_str(&ok(&bundle, &["events", "--stats", id])).unwrap() };
    ok(&bundle, &["update", id, "--memory", "64M", "--pids-limit", "30"]);
    assert_eq!(stats()["data"]["memory"]["usage"]["limit"], 64 << 20);
    assert_eq!(stats()["data"]["pids"]["limit"], 30);
    let mut update = lab(&bundle, &["update", "-r", "-", id]).stdin(Stdio::piped()).spawn().unwrap();
    let text = br#"{"memory": {"limit": 33554432}, "pids": {"limit": 12}, "unknown": {"x": 1}}"#;
    update.stdin.take().unwrap().write_all(text).unwrap();
    assert!(update.wait().unwrap().success());
    assert_eq!(stats()["data"]["memory"]["usage"]["limit"], 32 << 20);
    let error = refused(&bundle, &["update", "--memory", "much", id]);
    assert!(error.contains("--memory much"), "{error}");
    let mut events = lab(&bundle, &["events", "--interval", "100ms", id]);
    let mut events = events.stdout(Stdio::piped()).spawn().unwrap();
    let lines =
        common::first_lines(fs::File::from(std::os::fd::OwnedFd::from(events.stdout.take().unwrap())), 2);
    for line in lines.lines() {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["type"], "stats");
    }
    events.kill().unwrap();
    events.wait().unwrap();
    gone(&bundle);
}

#[test]
fn the_features_are_what_was_built() {
    needs_root!();
    let bundle = Bundle::new(&["true"]);
    let features: Value = serde_json::from_str(&ok(&bundle, &["features"])).unwrap();
    assert_eq!((&features["ociVersionMin"], &features["ociVersionMax"]), (&json!("1.0.0"), &json!("1.3.0")));
    for name in ["apparmor", "selinux", "seccomp", "intelRdt", "netDevices"] {
        assert_eq!(features["linux"][name]["enabled"], true, "{name}");
    }
    // Every option that is listed can be given.
    for option in features["mountOptions"].as_array().unwrap() {
        if ["idmap", "ridmap", "remount", "bind", "rbind"].contains(&option.as_str().unwrap()) {
            continue;
        }
        let mut bundle = Bundle::new(&["true"]);
        let mount = json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": [option]});
        bundle.config["mounts"].as_array_mut().unwrap().push(mount);
        let output = output(&bundle, &["run", &bundle.id]);
        assert!(output.status.success(), "{option}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn what_the_specification_forbids_is_refused_by_its_field() {
    needs_root!();
    let hook = |path: &str, timeout: i64| json!({"poststop": [{"path": path, "timeout": timeout}]});
    let allow = |rule: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    for (pointer, value, field) in [
        ("/hooks", hook("bin/true", 1), "hooks.poststop[0].path: "),
        ("/hooks", hook("/bin/true", 0), "hooks.poststop[0].timeout: "),
        ("/ociVersion", json!("1.2"), "ociVersion: "),
        (
            "/linux/seccomp",
            allow(json!({"names": [], "action": "SCMP_ACT_ERRNO"})),
            "linux.seccomp.syscalls[0].names: ",
        ),
        (
            "/linux/seccomp",
            allow(json!({"names": ["chmod"], "action": "SCMP_ACT_KILL", "errnoRet": 1})),
            "linux.seccomp.syscalls[0].errnoRet: ",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            "linux.seccomp.listenerMetadata: ",
        ),
    ] {
        let mut bundle = Bundle::new(&["true"]);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        bundle.config.pointer_mut(parent).unwrap()[key] = value;
        let error = refused(&bundle, &["create", &bundle.id]);
        assert!(error.starts_with(&format!("error: {field}")), "{error}");
        assert_eq!(traces(&bundle), [].into());
    }
}

#[test]
fn a_capability_that_cannot_be_granted_is_a_warning() {
    needs_root!();
    let mut bundle = Bundle::new(&["true"]);
    let sets = json!({"bounding": ["CAP_WAKE_ALARM"], "permitted": ["CAP_WAKE_ALARM"], "effective": ["CAP_WAKE_ALARM"]});
    bundle.config["process"]["capabilities"] = sets;
    let call = lab(&bundle, &["--log", "log", "--log-format", "json", "run", &bundle.id]);
    let without = ["--bounding-set", "-wake_alarm", "--inh-caps", "-wake_alarm"];
    let mut command = std::process::Command::new("setpriv");
    command.args(without).arg(call.get_program()).args(call.get_args()).current_dir(&bundle.directory);
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    let line: Value =
        serde_json::from_str(&fs::read_to_string(bundle.directory.join("log")).unwrap()).unwrap();
    assert_eq!(line["level"], "warning");
    assert!(line["msg"].as_str().unwrap().contains("CAP_WAKE_ALARM"), "{line}");
}

#[test]
fn only_start_needs_a_process() {
    needs_root!();
    let mut bundle = Bundle::new(&[]);
    bundle.config.as_object_mut().unwrap().remove("process");
    let id = bundle.id.as_str();
    quietly(&bundle, &["create", id]);
    assert!(refused(&bundle, &["start", id]).starts_with("error: process: is missing"));
    assert_eq!(state(&bundle)["status"], "created");
    gone(&bundle);
    bundle.config["process"] = json!({"cwd": "/", "args": []});
    assert!(refused(&bundle, &["create", &bundle.id]).starts_with("error: process.args: names no command"));
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn what_is_unknown_or_missing_is_no_error() {
    needs_root!();
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["org.example"] = json!({"x": [1, {}]});
    bundle.config["linux"]["future"] = json!([1, 2]);
    bundle.config["process"]["future"] = json!(null);
    bundle.config["ociVersion"] = json!("1.9.0-dev");
    assert!(output(&bundle, &["run", &bundle.id]).status.success());
    let mut bundle = Bundle::new(&["true"]);
    let namespaces = json!([{"type": "mount"}, {"type": "pid"}]);
    bundle.config = json!({
        "ociVersion": "1.0.0", "root": {"path": "rootfs"}, "linux": {"namespaces": namespaces},
        "process": {"cwd": "/", "args": ["/bin/true"]}
    });
    assert!(output(&bundle, &["run", &bundle.id]).status.success());
    bundle.config["mounts"] = Value::Null;
    bundle.config["hooks"] = Value::Null;
    bundle.config["annotations"] = Value::Null;
    bundle.config["linux"]["resources"] = Value::Null;
    bundle.config["linux"]["maskedPaths"] = Value::Null;
    bundle.config["process"]["env"] = Value::Null;
    bundle.config["process"]["capabilities"] = Value::Null;
    bundle.config["process"]["rlimits"] = Value::Null;
    let output = output(&bundle, &["run", &bundle.id]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(traces(&bundle), [].into());
}
