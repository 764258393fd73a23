//! `lab-vm`, driven as an engine drives a runtime: the life of a machine from its bundle to nothing left.

#[path = "common/bundle.rs"]
mod bundle;
mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

use bundle::{Bundle, can_run, until};
use common::{kvm, skip};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

#[test]
fn run_passes_output_and_exit_code_on_and_what_is_written_is_in_the_bundle() {
    if !can_run("run_passes_output_and_exit_code_on_and_what_is_written_is_in_the_bundle") {
        return;
    }
    let script = "hostname; id -u; pwd; echo err >&2; read word; echo $word >/etc/new; exit 7";
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    bundle.config["process"]["user"] = json!({"uid": 7, "gid": 8});
    bundle.config["process"]["cwd"] = json!("/tmp");
    fs::set_permissions(bundle.rootfs().join("etc"), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .unwrap();
    let mut child = bundle.lab(&["run", &bundle.id]);
    let mut child =
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"said\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("walled\n7\n/tmp\n".into(), "err\n".into()));
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(fs::read_to_string(bundle.rootfs().join("etc/new")).unwrap(), "said\n");
    assert_eq!(bundle.traces(), [].into());
}

#[test]
fn each_command_of_a_life_works_from_its_own_process() {
    if !can_run("each_command_of_a_life_works_from_its_own_process") {
        return;
    }
    let mut bundle =
        Bundle::new(&["sh", "-c", "trap 'echo term; exit 3' TERM; echo up; while :; do sleep 0.1; done"]);
    let id = bundle.id.clone();
    let log = bundle.folder.join("hooks");
    let hook = |name: &str| {
        let net = "$(readlink /proc/self/ns/net)";
        let script = format!("read state; echo {name} {net} \"$state\" >>{}", log.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
    };
    let kinds = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    bundle.config["hooks"] = kinds.iter().map(|kind| ((*kind).to_owned(), hook(kind))).collect();
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/lab-test/{id}"));

    bundle.create(&["--bundle", ".", "--pid-file", "pid"]);
    let pid: i64 = fs::read_to_string(bundle.folder.join("pid")).unwrap().parse().unwrap();
    assert_eq!((&bundle.state()["status"], &bundle.state()["pid"]), (&json!("created"), &json!(pid)));
    assert!(
        fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap().contains(&format!("/lab-test/{id}\n"))
    );
    let taken = bundle.output(&["create", &id]);
    assert!(String::from_utf8_lossy(&taken.stderr).contains("exists already"), "{taken:?}");

    bundle.ok(&["start", &id]);
    assert_eq!(bundle.status(), "running");
    assert!(
        !bundle.output(&["start", &id]).status.success() && !bundle.output(&["delete", &id]).status.success()
    );
    assert!(bundle.ok(&["list", "--quiet"]).contains(&id));
    assert_eq!(bundle.ok(&["ps", "--format", "json", &id]).trim(), format!("[{pid}]"));

    let output =
        bundle.output(&["exec", "-e", "X=y", "--cwd", "/tmp", &id, "sh", "-c", "echo $X; pwd; exit 5"]);
    assert_eq!((output.status.code(), &*output.stdout), (Some(5), &b"y\n/tmp\n"[..]), "{output:?}");
    assert_eq!(bundle.output(&["exec", &id, "nonesuch"]).status.code(), Some(127));
    // A detached one has a process of its own on the host, for an engine to watch and to kill.
    fs::write(
        bundle.folder.join("process.json"),
        json!({"args": ["sleep", "77"], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}})
        .to_string(),
    )
    .unwrap();
    let mut detached =
        bundle.lab(&["exec", "--detach", "--pid-file", "exec.pid", "--process", "process.json", &id]);
    assert!(detached.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let sleepers = || bundle.ok(&["exec", &id, "ps"]).matches("sleep 77").count();
    assert_eq!(sleepers(), 1);
    let stands: i32 = fs::read_to_string(bundle.folder.join("exec.pid")).unwrap().parse().unwrap();
    kill_process(Pid::from_raw(stands).unwrap(), Signal::KILL).unwrap();
    until("the guest's process ends with the one that stands for it", || sleepers() == 0);

    assert_jailed(pid);
    bundle.ok(&["pause", &id]);
    assert_eq!(bundle.status(), "paused");
    assert!(!bundle.output(&["exec", &id, "true"]).status.success());
    bundle.ok(&["resume", &id]);
    bundle.ok(&["update", "--cpu-share", "512", &id]);
    let stats: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", &id])).unwrap();
    assert!(stats["data"]["cpu"]["usage"]["total"].as_u64() > Some(0), "{stats}");
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 64 << 20);
    assert!(stats["data"]["vm"]["exits"]["port-write"].as_u64() > Some(0), "{stats}");

    bundle.ok(&["kill", &id, "TERM"]);
    until("the workload acts upon SIGTERM", || bundle.status() == "stopped");
    assert_eq!(bundle.printed(), "up\nterm\n");
    assert!(!bundle.output(&["kill", &id, "KILL"]).status.success());
    fs::remove_file(bundle.folder.join("config.json")).unwrap();
    bundle.ok(&["delete", &id]);
    assert_eq!(bundle.traces(), [].into());
    bundle.ok(&["delete", "--force", &id]);

    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<Vec<&str>> = log.lines().map(|line| line.splitn(3, ' ').collect()).collect();
    assert_eq!(lines.iter().map(|line| line[0]).collect::<Vec<_>>(), kinds);
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    for line in &lines {
        let inside = line[1] != own.to_str().unwrap();
        assert_eq!(inside, ["createContainer", "startContainer"].contains(&line[0]), "{line:?}");
        let state: Value = serde_json::from_str(line[2]).unwrap();
        assert_eq!(state["id"], id.as_str());
    }
    let _ = fs::remove_dir("/sys/fs/cgroup/lab-test");
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = fs::remove_dir(hierarchy.path().join("lab-test"));
    }
}

/// The machine's process can do little to its host: see `jail`.
fn assert_jailed(pid: i64) {
    let field = |status: &str, name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap().trim().to_owned()
    };
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        // A thread of the kernel's, which KVM hangs onto the process; or one that has just ended.
        if status.is_empty() || field(&status, "Name").starts_with("kvm-") {
            continue;
        }
        let name = field(&status, "Name");
        assert_eq!((&*field(&status, "NoNewPrivs"), &*field(&status, "Seccomp")), ("1", "2"), "{name}");
        let rights = u64::from_str_radix(&field(&status, "CapEff"), 16).unwrap();
        // CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_MODULE: nobody's. Any: only of who serves the shares' files.
        assert_eq!(rights & (1 << 21 | 1 << 12 | 1 << 19 | 1 << 16), 0, "{name}: {rights:#x}");
        assert!(rights == 0 || name == "devices", "{name}: {rights:#x}");
        assert!(field(&status, "NSpid").ends_with("\t1") || name != "lab-vm", "{status}");
    }
    assert_eq!(fs::read_dir(format!("/proc/{pid}/root/")).unwrap().count(), 0, "its root is an empty folder");
    // Nor does a way lead out of a folder that it has open, such as a share: `..` ends there.
    let host = fs::metadata("/").unwrap();
    for open in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let up = fs::metadata(open.path().join("../".repeat(32)));
        let is_host = up.is_ok_and(|up| (up.dev(), up.ino()) == (host.dev(), host.ino()));
        assert!(!is_host, "{:?} leads out", fs::read_link(open.path()));
    }
    for namespace in ["mnt", "ipc", "uts", "net", "pid"] {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{namespace}")).unwrap();
        assert_ne!(of("self"), of(&pid.to_string()), "{namespace}");
    }
}

#[test]
fn an_interface_that_an_engine_gives_becomes_the_guests() {
    if !can_run("an_interface_that_an_engine_gives_becomes_the_guests") {
        return;
    }
    let script = "ip addr show eth0; ip route; wget -q -O - http://10.9.8.1/page";
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    for applet in ["ip", "wget"] {
        std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin").join(applet)).unwrap();
    }
    // As dockerd's hook does it: a pair of interfaces, one end here, one in the namespace of the container's process.
    let hook = r#"pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/')
        ip link add h0 type veth peer name eth0 netns $pid && ip addr add 10.9.8.1/24 dev h0 && ip link set h0 up &&
        nsenter -t $pid -n sh -c 'ip addr add 10.9.8.2/24 dev eth0 && ip link set eth0 address 02:42:0a:09:08:02 up &&
            ip route add default via 10.9.8.1'"#;
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", hook], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}]);
    bundle.config["hooks"] = json!({"prestart": hook});
    fs::write(bundle.folder.join("page"), "a page").unwrap();
    // All of it in a network namespace of the test's, so that nothing of it touches the machine.
    let lab = bundle.lab(&["run", &bundle.id]);
    let mut command = std::process::Command::new("unshare");
    let outer = "busybox httpd -f -p 80 -h . & server=$!; \"$@\"; code=$?; kill $server; exit $code";
    command.args(["--net", "sh", "-c", outer, "sh"]).arg(lab.get_program()).args(lab.get_args());
    let output = command.current_dir(&bundle.folder).stdin(Stdio::null()).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for word in ["inet 10.9.8.2/24", "02:42:0a:09:08:02", "default via 10.9.8.1 dev eth0", "a page"] {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(bundle.traces(), [].into());
}

#[test]
fn terminals_come_over_console_sockets_and_follow_their_size() {
    if !can_run("terminals_come_over_console_sockets_and_follow_their_size") {
        return;
    }
    let script =
        "tty; stty size; trap 'stty size' WINCH; echo ready; while :; do read line && echo got $line; done";
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 30, "width": 90});
    let listener = UnixListener::bind(bundle.folder.join("console")).unwrap();
    bundle.create(&["--console-socket", "console"]);
    let (socket, _) = listener.accept().unwrap();
    let mut master = Master::receive(&socket);
    bundle.ok(&["start", &bundle.id]);
    master.read_until("ready\r\n");
    assert!(master.text.contains("/dev/pts/0\r\n30 90\r\n"), "{:?}", master.text);
    master.resize(40, 120);
    master.read_until("40 120\r\n");
    master.file.write_all(b"hello\n").unwrap();
    master.read_until("got hello\r\n");

    let process = json!({"terminal": true, "args": ["sh", "-c", "tty; read x; stty size"], "cwd": "/",
        "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    fs::write(bundle.folder.join("process.json"), process.to_string()).unwrap();
    let words = ["exec", "-d", "--console-socket", "console", "--process", "process.json", &bundle.id];
    let exec = bundle.lab(&words).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(exec.success());
    let (socket, _) = listener.accept().unwrap();
    let mut second = Master::receive(&socket);
    second.read_until("/dev/pts/");
    second.resize(33, 99);
    std::thread::sleep(Duration::from_millis(500));
    second.file.write_all(b"\n").unwrap();
    second.read_until("33 99\r\n");
    bundle.ok(&["delete", "--force", &bundle.id]);
    assert_eq!(bundle.traces(), [].into());
}

/// The master side of a terminal.
struct Master {
    file: fs::File,
    text: String,
}

impl Master {
    fn receive(socket: &std::os::unix::net::UnixStream) -> Self {
        use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = [0; 64];
        let mut parts = [std::io::IoSliceMut::new(&mut data)];
        recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let Some(RecvAncillaryMessage::ScmRights(mut files)) = control.drain().next() else {
            panic!("no terminal came")
        };
        Self { file: files.next().unwrap().into(), text: String::new() }
    }

    fn read_until(&mut self, word: &str) {
        while !self.text.contains(word) {
            let mut buffer = [0; 1024];
            let count =
                self.file.read(&mut buffer).unwrap_or_else(|error| panic!("{error}: {:?}", self.text));
            assert_ne!(count, 0, "{:?}", self.text);
            self.text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.file, size).unwrap();
    }
}

#[test]
fn killed_at_any_time_a_machine_leaves_nothing_that_delete_does_not_find() {
    if !can_run("killed_at_any_time_a_machine_leaves_nothing_that_delete_does_not_find") {
        return;
    }
    for milliseconds in [0, 2, 5, 10, 30, 100, 1000] {
        let bundle = Bundle::new(&["sleep", "100"]);
        let mut command = bundle.lab(&["create", &bundle.id]);
        let mut create = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        create.kill().unwrap();
        create.wait().unwrap();
        until("nothing is left", || {
            bundle.ok(&["delete", "--force", &bundle.id]);
            bundle.traces().is_empty()
        });
    }
    // And the monitor itself, from outside: an engine's last resort.
    let bundle = Bundle::new(&["nonesuch"]);
    bundle.create(&["--pid-file", "pid"]);
    let pid: i32 = fs::read_to_string(bundle.folder.join("pid")).unwrap().parse().unwrap();
    let missing = bundle.output(&["start", &bundle.id]);
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");
    assert!(
        String::from_utf8_lossy(&missing.stderr).contains("exec \"nonesuch\": executable file not found")
    );
    until("a machine whose command does not exist ends", || bundle.status() == "stopped");
    bundle.ok(&["delete", &bundle.id]);
    let bundle = Bundle::new(&["sleep", "100"]);
    bundle.create(&["--pid-file", "pid"]);
    let other: i32 = fs::read_to_string(bundle.folder.join("pid")).unwrap().parse().unwrap();
    assert_ne!(pid, other);
    kill_process(Pid::from_raw(other).unwrap(), Signal::KILL).unwrap();
    until("a killed machine is stopped", || bundle.status() == "stopped");
    bundle.ok(&["delete", &bundle.id]);
    assert_eq!(bundle.traces(), [].into());
}

#[test]
fn what_cannot_be_made_is_told_in_one_line_and_leaves_nothing() {
    if !kvm("what_cannot_be_made_is_told_in_one_line_and_leaves_nothing") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        skip("what_cannot_be_made_is_told_in_one_line_and_leaves_nothing", "needs root");
        return;
    }
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]);
    let cases = [
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/root/path", json!("elsewhere"), "elsewhere"),
        ("/annotations", json!({"lab.vm.memory": "8"}), "8 MiB"),
        ("/annotations", json!({"lab.vm.cpus": "99"}), "99 vCPUs"),
        ("/linux/cgroupsPath", json!("/../../x"), "linux.cgroupsPath"),
        ("/linux/namespaces/1/path", json!("/nonesuch"), "/nonesuch"),
        ("/hooks", json!({"createRuntime": hook}), "hooks.createRuntime[0] (/bin/sh)"),
        ("/process", json!(null), "process"),
    ];
    let kernel = common::elf(&common::reset());
    for (pointer, value, word) in cases {
        let mut bundle = Bundle::new(&["true"]);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        bundle.config.pointer_mut(parent).unwrap()[key] = value;
        let kernel = kernel.path().to_str().unwrap();
        let output = bundle.output(&[
            "--log",
            "log",
            "--log-format",
            "json",
            "create",
            "--kernel",
            kernel,
            &bundle.id,
        ]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(word) && stderr.lines().count() == 1, "{pointer}: {stderr}");
        assert_eq!(output.status.code(), Some(125), "{pointer}");
        let log: Value =
            serde_json::from_str(&fs::read_to_string(bundle.folder.join("log")).unwrap()).unwrap();
        assert!(log["level"] == "error" && log["msg"].as_str().unwrap().contains(word), "{log}");
        assert_eq!(bundle.traces(), [].into(), "{pointer}");
    }
    let bundle = Bundle::new(&["true"]);
    let output = bundle.output(&["create", "--preserve-fds", "2", &bundle.id]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--preserve-fds") && said.lines().count() == 1, "{said}");
    assert_eq!((output.status.code(), bundle.traces()), (Some(125), [].into()));
    // A guest that ends instead of coming up is an error with the reason.
    let bundle = Bundle::new(&["true"]);
    let output = bundle.output(&["create", "--kernel", kernel.path().to_str().unwrap(), &bundle.id]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("the guest died"), "{output:?}");
    assert_eq!(bundle.traces(), [].into());
}
