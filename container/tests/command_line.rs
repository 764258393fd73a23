//! `lab-container`, driven as an engine drives it.

mod common;

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use common::command::{lab, ok, output, quietly, state};
use common::{Bundle, traces};
use serde_json::{Value, json};

#[test]
fn run_passes_output_and_exit_code_on() {
    needs_root!();
    let bundle = Bundle::new(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    let output = output(&bundle, &["run", &bundle.id]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn each_command_of_a_life_works_from_its_own_process() {
    needs_root!();
    let bundle = Bundle::new(&["sleep", "100"]);
    let id = bundle.id.as_str();
    let pid_file = bundle.directory.join("pid");
    // Streams of its own: the container outlives this call, which must not wait for it.
    let created = lab(&bundle, &["create", id, "--bundle", ".", "--pid-file"])
        .arg(&pid_file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(created.success());
    let pid: i64 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    assert_eq!((&state(&bundle)["status"], &state(&bundle)["pid"]), (&json!("created"), &json!(pid)));
    ok(&bundle, &["start", id]);
    assert_eq!(state(&bundle)["status"], "running");
    assert_eq!(ok(&bundle, &["ps", "--format", "json", id]).trim(), format!("[{pid}]"));
    ok(&bundle, &["pause", id]);
    assert_eq!(state(&bundle)["status"], "paused");
    ok(&bundle, &["resume", id]);
    ok(&bundle, &["update", "--pids-limit", "9", id]);
    let stats: Value = serde_json::from_str(&ok(&bundle, &["events", "--stats", id])).unwrap();
    assert_eq!(stats["data"]["pids"]["limit"], 9);
    assert!(ok(&bundle, &["list", "--quiet"]).contains(id));
    ok(&bundle, &["kill", id, "KILL"]);
    while state(&bundle)["status"] != "stopped" {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    ok(&bundle, &["delete", id]);
    assert_eq!(traces(&bundle), [].into());
    ok(&bundle, &["delete", "--force", id]);
}

#[test]
fn exec_joins_the_container_and_gives_its_exit_code() {
    needs_root!();
    let mut bundle = Bundle::new(&["sleep", "100"]);
    for user in [false, true] {
        if user {
            common::user_namespace(&mut bundle, 100_000);
        }
        let id = bundle.id.clone();
        let script =
            "hostname; echo $X; readlink /proc/1/ns/pid; cat /proc/self/cgroup | grep -c ':/$'; exit 5";
        quietly(&bundle, &["run", "-d", &id]);
        let result = output(&bundle, &["exec", "-e", "X=y", &id, "sh", "-c", script]);
        assert_eq!(result.status.code(), Some(5), "{}", String::from_utf8_lossy(&result.stderr));
        let text = String::from_utf8(result.stdout).unwrap();
        assert!(text.starts_with("walled\ny\npid:["), "{text}");
        let trees = fs::read_to_string("/proc/self/cgroup").unwrap().lines().count();
        assert!(text.ends_with(&format!("]\n{trees}\n")), "all cgroups are the container's: {text}");
        let missing = output(&bundle, &["exec", &id, "nonesuch"]);
        assert_eq!(missing.status.code(), Some(127));
        assert!(String::from_utf8_lossy(&missing.stderr).starts_with("error: exec \"nonesuch\""));
        ok(&bundle, &["delete", "--force", &id]);
        assert_eq!(traces(&bundle), [].into());
    }
}

#[test]
fn standard_streams_that_are_closed_become_the_null_device() {
    needs_root!();
    let bundle = Bundle::new(&["sh", "-c", "for n in 0 1 2; do readlink /proc/self/fd/$n; done > /tmp/out"]);
    bundle.write();
    let mut command = Command::new("sh");
    let script = "exec \"$0\" --root state run \"$1\" <&- >&- 2>&-";
    command.args(["-c", script, env!("CARGO_BIN_EXE_lab-container"), &bundle.id]);
    assert!(command.current_dir(&bundle.directory).status().unwrap().success());
    let inside = fs::read_to_string(bundle.rootfs().join("tmp/out")).unwrap();
    assert_eq!(inside, "/dev/null\n/tmp/out\n/dev/null\n");
}

#[test]
fn a_configuration_that_changes_after_create_changes_nothing() {
    needs_root!();
    let mut bundle = Bundle::new(&["sleep", "100"]);
    bundle.config["process"]["env"] = json!(["PATH=/bin", "X=first"]);
    let id = bundle.id.clone();
    quietly(&bundle, &["create", &id]);
    bundle.config = json!({"ociVersion": "9.0.0"});
    ok(&bundle, &["start", &id]);
    assert_eq!(ok(&bundle, &["exec", &id, "sh", "-c", "echo $X"]), "first\n");
    ok(&bundle, &["delete", "--force", &id]);
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn an_error_names_the_field_on_stderr_and_as_json_in_the_log() {
    needs_root!();
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_FLY"]);
    let output = output(&bundle, &["--log", "log", "--log-format", "json", "create", &bundle.id]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("error: process.capabilities.bounding[1]: "), "{stderr}");
    assert_eq!(output.status.code(), Some(125));
    let log: Value =
        serde_json::from_str(&fs::read_to_string(bundle.directory.join("log")).unwrap()).unwrap();
    assert_eq!(log["level"], "error");
    assert!(log["msg"].as_str().unwrap().starts_with("process.capabilities.bounding[1]"));
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn the_terminal_comes_over_the_console_socket() {
    needs_root!();
    let mut bundle = Bundle::new(&["sh", "-c", "tty; stat -c %t:%T /dev/console; read line; echo got $line"]);
    bundle.config["process"]["terminal"] = json!(true);
    let listener = UnixListener::bind(bundle.directory.join("console")).unwrap();
    ok(&bundle, &["create", "--console-socket", "console", &bundle.id]);
    let (socket, _) = listener.accept().unwrap();
    let (_, master) = common::receive_descriptor(&socket);
    ok(&bundle, &["start", &bundle.id]);
    rustix::io::write(&master, b"hello\n").unwrap();
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains("got hello") {
        let length = rustix::io::read(&master, &mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert!(text.contains("/dev/pts/0\r\n") && text.contains("88:0\r\n"), "{text:?}");
    ok(&bundle, &["delete", "--force", &bundle.id]);
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn delete_force_cleans_up_after_a_runtime_that_was_killed() {
    needs_root!();
    for microseconds in (0..6000).step_by(300) {
        let bundle = Bundle::new(&["sleep", "100"]);
        let mut runtime = lab(&bundle, &["create", &bundle.id])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_micros(microseconds));
        runtime.kill().unwrap();
        runtime.wait().unwrap();
        ok(&bundle, &["delete", "--force", &bundle.id]);
        // A first process whose runtime died before it was written down ends itself; it may take a moment.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while !traces(&bundle).is_empty() && std::time::Instant::now() < deadline {
            ok(&bundle, &["delete", "--force", &bundle.id]);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(traces(&bundle), [].into(), "killed after {microseconds} µs");
    }
}
