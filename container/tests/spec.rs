//! The parts of the specification that few engines ask for, each carried out or refused by name.

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use common::{Bundle, run_to_end, traces};
use container::{ExecOptions, Exit, spec};
use serde_json::{Value, json};

fn script(script: &str) -> Bundle {
    Bundle::new(&["sh", "-c", script])
}

/// What it printed; it must succeed and leave nothing.
fn inside(bundle: &Bundle) -> String {
    let (exit, text) = bundle.run();
    assert_eq!(exit, Exit::Code(0), "{text}");
    assert_eq!(traces(bundle), [].into());
    text
}

fn refusal(bundle: &Bundle) -> String {
    let error = bundle.create().map(|_| ()).unwrap_err().to_string();
    assert_eq!(traces(bundle), [].into());
    error
}

fn namespaces(bundle: &mut Bundle) -> &mut Vec<Value> {
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap()
}

/// A process in namespaces of its own, to be joined; killed when dropped.
struct Other(Child);

impl Other {
    fn new(options: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        command
            .args(options)
            .args(["sh", "-c", "echo; exec sleep 1000"])
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        Self(child)
    }

    fn path(&self, typ: &str) -> String {
        format!("/proc/{}/ns/{typ}", self.0.id())
    }

    fn id(&self, typ: &str) -> String {
        fs::read_link(self.path(typ)).unwrap().display().to_string()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_raw(self.0.id() as i32).unwrap();
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

#[test]
fn namespaces_are_joined_by_path_beside_new_ones() {
    needs_root!();
    let other = Other::new(&["--net", "--ipc", "--uts"]);
    let mut bundle = script("for n in net ipc uts pid; do readlink /proc/self/ns/$n; done");
    for namespace in namespaces(&mut bundle) {
        let (typ, link) = match namespace["type"].as_str().unwrap() {
            "network" => ("network", "net"),
            "ipc" => ("ipc", "ipc"),
            "uts" => ("uts", "uts"),
            _ => continue,
        };
        *namespace = json!({"type": typ, "path": other.path(link)});
    }
    let text = inside(&bundle);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..3], [other.id("net"), other.id("ipc"), other.id("uts")]);
    assert_ne!(lines[3], other.id("pid"));
}

#[test]
fn a_pid_namespace_is_joined_and_its_processes_are_seen() {
    needs_root!();
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    let (mut first, _output) = bundle.create().unwrap();
    first.start().unwrap();
    let path = format!("/proc/{}/ns/pid", first.pid().unwrap());
    let own = fs::read_link("/proc/self/ns/pid_for_children").unwrap();
    bundle = {
        let mut second =
            script("readlink /proc/self/ns/pid; cat /proc/1/cmdline; echo; echo $$ | grep -v '^1$' | wc -l");
        namespaces(&mut second)[0] = json!({"type": "pid", "path": path});
        let text = inside(&second);
        let mut lines = text.lines();
        assert_eq!(lines.next().unwrap(), fs::read_link(path).unwrap().display().to_string());
        assert!(lines.next().unwrap().starts_with("sleep"), "{text}");
        assert_eq!(lines.next(), Some("1"), "the workload is not process 1 there");
        bundle
    };
    assert_eq!(fs::read_link("/proc/self/ns/pid_for_children").unwrap(), own, "this thread came back");
    first.delete(true).unwrap();
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn a_user_namespace_is_joined_and_owns_the_new_ones() {
    needs_root!();
    let other = Other::new(&["--user", "--map-root-user"]);
    let mut bundle = script("readlink /proc/self/ns/user; id -u; hostname; sleep 1000");
    namespaces(&mut bundle).push(json!({"type": "user", "path": other.path("user")}));
    bundle.config["mounts"][2]["options"] = json!(["nosuid", "noexec", "newinstance"]); // no gid=5: 0 alone is mapped
    let (mut container, output) = bundle.create().unwrap();
    container.start().unwrap();
    assert_eq!(common::first_lines(output, 3), format!("{}\n0\nwalled\n", other.id("user")));
    let process = spec::Process { args: vec!["true".into()], cwd: "/".into(), ..spec::Process::default() };
    assert_eq!(container.exec(ExecOptions::new(process)).unwrap().wait().unwrap(), Exit::Code(0));
    container.delete(true).unwrap();
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn a_path_to_another_kind_of_namespace_is_refused_by_name() {
    needs_root!();
    for path in ["/proc/self/ns/uts", "/etc/passwd", "/nonesuch"] {
        let mut bundle = script("true");
        namespaces(&mut bundle)[1] = json!({"type": "network", "path": path});
        let error = refusal(&bundle);
        assert!(error.starts_with("linux.namespaces[1].path: ") && error.contains(path), "{error}");
    }
}

#[test]
fn a_time_namespace_has_its_offsets() {
    needs_root!();
    let mut bundle = script("cat /proc/uptime; readlink /proc/self/ns/time; sleep 1000");
    namespaces(&mut bundle).push(json!({"type": "time"}));
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
    let (mut container, output) = match bundle.create() {
        Err(error) if error.to_string().contains("needs Linux 6.3") => {
            return common::skip(&error.to_string());
        }
        created => created.unwrap(),
    };
    container.start().unwrap();
    let text = common::first_lines(output, 2);
    assert!(text.starts_with("100"), "{text}");
    let own = fs::read_link("/proc/self/ns/time").unwrap().display().to_string();
    assert!(!text.contains(&own), "{text}");
    let process = spec::Process {
        args: ["sh", "-c", "grep -q ^100 /proc/uptime"].map(str::to_owned).to_vec(),
        cwd: "/".into(),
        ..spec::Process::default()
    };
    assert_eq!(container.exec(ExecOptions::new(process)).unwrap().wait().unwrap(), Exit::Code(0));
    container.delete(true).unwrap();

    bundle.config["linux"]["timeOffsets"] = json!({"realtime": {"secs": 1}});
    assert!(refusal(&bundle).starts_with("linux.timeOffsets.realtime: "));
}

#[test]
fn a_process_has_its_turns_at_the_machine() {
    needs_root!();
    // Fields 19 and 41 of proc_pid_stat(5): the nice value, the scheduling policy.
    let mut bundle = script("set -- $(cat /proc/self/stat); echo ${19} ${41}");
    bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
    bundle.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
    bundle.config["linux"]["personality"] = json!({"domain": "LINUX32"});
    assert_eq!(inside(&bundle), "7 3\n");
    for (pointer, value) in [
        ("/process/scheduler", json!({"policy": "SCHED_FAST"})),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8})),
        ("/process/execCPUAffinity", json!({"initial": "a"})),
    ] {
        let mut bundle = script("true");
        let field = pointer.rsplit('/').next().unwrap();
        bundle.config["process"][field] = value;
        let error = refusal(&bundle);
        assert!(error.starts_with(&pointer[1..].replace('/', ".")), "{error}");
    }
}

#[test]
fn memory_comes_from_the_nodes_of_the_policy() {
    needs_root!();
    let mut bundle = script("grep -c ' bind' /proc/self/numa_maps | grep -qv '^0$' && echo bound");
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        return common::skip("needs a kernel with CONFIG_NUMA");
    }
    let policy = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    bundle.config["linux"]["memoryPolicy"] = policy;
    assert_eq!(inside(&bundle), "bound\n");
    bundle.config["linux"]["memoryPolicy"]["nodes"] = json!("0-");
    assert!(refusal(&bundle).starts_with("linux.memoryPolicy.nodes: "));
    bundle.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "900"});
    assert!(refusal(&bundle).starts_with("set linux.memoryPolicy of"));
}

#[test]
fn an_added_process_has_the_processors_it_asks_for() {
    needs_root!();
    let bundle = Bundle::new(&["sleep", "1000"]);
    let (mut container, _output) = bundle.create().unwrap();
    container.start().unwrap();
    let process: spec::Process = serde_json::from_value(json!({
        "args": ["sh", "-c", "grep -q '^Cpus_allowed_list:.0$' /proc/self/status"], "cwd": "/",
        "execCPUAffinity": {"initial": "0", "final": "0"}
    }))
    .unwrap();
    assert_eq!(container.exec(ExecOptions::new(process)).unwrap().wait().unwrap(), Exit::Code(0));
    container.delete(true).unwrap();
}

#[test]
fn a_label_is_put_in_force_or_refused_where_the_kernel_would_ignore_it() {
    needs_root!();
    // What a kernel with the module makes of a profile or a label that nobody has loaded: an error of the step.
    let supported = container::supported::apparmor();
    for (field, module, there) in [
        ("apparmorProfile", "AppArmor", supported),
        ("selinuxLabel", "SELinux", container::supported::selinux()),
    ] {
        let mut bundle = script("true");
        bundle.config["process"][field] = json!("two-walls-nonesuch");
        let Ok(created) = bundle.create() else {
            let error = refusal(&bundle);
            assert!(
                !there && error.starts_with(&format!("process.{field}: this kernel has no {module}")),
                "{error}"
            );
            continue;
        };
        let (mut container, _output) = created;
        let error = container.start().unwrap_err().to_string();
        assert!(there && error.starts_with("set process.apparmorProfile or selinuxLabel"), "{error}");
        container.delete(true).unwrap();
    }
    let mut bundle = script("cat /proc/self/attr/current 2>/dev/null || echo none");
    bundle.config["process"]["apparmorProfile"] = json!("unconfined");
    let said = inside(&bundle);
    assert!(!supported || said.starts_with("unconfined"), "{said}");
}

#[test]
fn landlock_leaves_only_the_paths_of_the_annotations() {
    needs_root!();
    for no_new_privileges in [true, false] {
        let mut bundle = script(
            "cat /etc/in /root/out 2>/dev/null; echo x > /tmp/x && cat /tmp/x; echo y > /etc/y || echo kept",
        );
        fs::write(bundle.rootfs().join("etc/in"), "in\n").unwrap();
        fs::write(bundle.rootfs().join("root/out"), "out\n").unwrap();
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["annotations"] = json!({
            "org.two-walls.landlock.read": "/bin:/etc", "org.two-walls.landlock.write": "/tmp:/dev/null"
        });
        let (exit, text) = match bundle.create() {
            Err(error) if error.to_string().contains("no Landlock") => {
                assert!(error.to_string().starts_with("annotations["), "{error}");
                return common::skip(&error.to_string());
            }
            Err(error) => panic!("{error}"),
            Ok(created) => run_to_end(created),
        };
        let lines: Vec<_> = text.lines().filter(|line| !line.contains("ermission denied")).collect();
        assert_eq!((exit, lines), (Exit::Code(0), vec!["in", "x", "kept"]), "{text}");
    }
}

#[test]
fn an_idmapped_mount_shows_other_owners() {
    needs_root!();
    for own_users in [false, true] {
        let mut bundle = script("stat -c '%u %g' /v/file; touch /v/new");
        let shared = bundle.directory.join("shared");
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("file"), "").unwrap();
        std::os::unix::fs::chown(shared.join("file"), Some(1000), Some(1001)).unwrap();
        std::os::unix::fs::chown(&shared, Some(1000), Some(1001)).unwrap();
        let mut mount =
            json!({"destination": "/v", "type": "bind", "source": shared, "options": ["bind", "idmap"]});
        if own_users {
            // The container's own map: what belongs to 0 on disk belongs to 0 inside.
            common::user_namespace(&mut bundle, 100_000);
            std::os::unix::fs::chown(shared.join("file"), Some(0), Some(0)).unwrap();
            std::os::unix::fs::chown(&shared, Some(0), Some(0)).unwrap();
        } else {
            mount["uidMappings"] = json!([{"containerID": 1000, "hostID": 0, "size": 1}]);
            mount["gidMappings"] = json!([{"containerID": 1001, "hostID": 0, "size": 1}]);
        }
        bundle.config["mounts"].as_array_mut().unwrap().push(mount);
        let (exit, text) = match bundle.create() {
            Err(error) if error.to_string().contains("cannot be idmapped") => {
                return common::skip(&error.to_string());
            }
            Err(error) => panic!("{error}"),
            Ok(created) => run_to_end(created),
        };
        assert_eq!((exit, text.as_str()), (Exit::Code(0), "0 0\n"), "own user namespace: {own_users}");
        let new = std::os::unix::fs::MetadataExt::uid(&fs::metadata(shared.join("new")).unwrap());
        assert_eq!(new, if own_users { 0 } else { 1000 });
        assert_eq!(traces(&bundle), [].into());
    }
    let mut bundle = script("true");
    let mount = json!({"destination": "/v", "type": "bind", "source": "/", "options": ["bind", "idmap"]});
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    assert!(refusal(&bundle).starts_with("mounts[7]: an idmapped mount needs"));
}

#[test]
fn a_tmpfs_can_begin_with_what_it_covers() {
    needs_root!();
    let mut bundle =
        script("cat /etc/a/file /etc/link; stat -c '%a %u' /etc/a /etc/a/file; echo new > /etc/a/file");
    let etc = bundle.rootfs().join("etc");
    fs::create_dir(etc.join("a")).unwrap();
    fs::write(etc.join("a/file"), "old\n").unwrap();
    std::os::unix::fs::symlink("a/file", etc.join("link")).unwrap();
    std::os::unix::fs::chown(etc.join("a/file"), Some(7), None).unwrap();
    let mode = |path: &str, mode| {
        fs::set_permissions(etc.join(path), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    mode("a/file", 0o664);
    mode("a", 0o711);
    let mount = json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "tmpcopyup"]});
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    assert_eq!(inside(&bundle), "old\nold\n711 0\n664 7\n");
    assert_eq!(fs::read_to_string(etc.join("a/file")).unwrap(), "old\n", "the image is as it was");
}

#[test]
fn a_class_of_service_needs_its_file_system() {
    needs_root!();
    let mut bundle = script("true");
    bundle.config["linux"]["intelRdt"] = json!({"l3CacheSchema": "L3:0=1"});
    if fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - resctrl ") {
        assert_eq!(inside(&bundle), ""); // where the kernel has it, it is put in force
        return;
    }
    let error = refusal(&bundle);
    assert!(error.starts_with("linux.intelRdt: no resctrl"), "{error}");
}

#[test]
fn a_seccomp_listener_gets_its_descriptor_and_the_state() {
    needs_root!();
    let mut bundle = script("busybox mkdir /tmp/x 2>&1 | grep -c 'not implemented'");
    let path = bundle.directory.join("seccomp");
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "for the test",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]
    });
    let error = refusal(&bundle);
    assert!(error.starts_with("linux.seccomp.listenerPath: ") && error.contains("listen"), "{error}");

    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        common::receive_descriptor(&socket)
    });
    let (mut container, mut output) = bundle.create().unwrap();
    let pid = container.pid().unwrap();
    container.start().unwrap();
    let (text, descriptor) = thread.join().unwrap();
    let state: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((&state["pid"], &state["state"]["id"]), (&json!(pid), &json!(bundle.id)));
    assert_eq!((&state["metadata"], &state["fds"]), (&json!("for the test"), &json!(["seccompFd"])));
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&descriptor));
    assert_eq!(fs::read_link(link).unwrap().to_str(), Some("anon_inode:seccomp notify"));
    drop(descriptor); // nobody decides any more: such calls are "not implemented" (seccomp(2))
    let mut said = String::new();
    std::io::Read::read_to_string(&mut output, &mut said).unwrap();
    assert_eq!((container.wait().unwrap(), said.as_str()), (Exit::Code(0), "1\n"));
    container.delete(false).unwrap();
    assert_eq!(traces(&bundle), [].into());

    bundle.config["linux"]["seccomp"]["syscalls"][0]["names"][0] = json!("sendmsg");
    assert!(refusal(&bundle).starts_with("linux.seccomp.syscalls[0].names: sendmsg cannot"));
}
