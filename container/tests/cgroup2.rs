//! Control groups of version 2, for real: in a mount namespace of this program's own in which /sys/fs/cgroup is a cgroup2
//! file system, whatever the machine has there. One test only, since the namespace is entered by a thread.
//!
//! Which controllers the tree has is up to the machine: on one that gives them to version 1, few are left. What needs
//! none (freezer, devices, membership, removal) is tried everywhere; limits where their controller is there.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::{Bundle, traces};
use container::{ExecOptions, Exit, Status, spec};
use serde_json::json;

/// Where cgroups are mounted.
const ROOT: &str = "/sys/fs/cgroup";

#[test]
fn a_container_lives_in_version_2() {
    needs_root!();
    let controllers = match common::version2::only_version_2() {
        Ok(controllers) => controllers,
        Err(reason) => return common::skip(&reason),
    };
    eprintln!("controllers: {}", controllers.trim());

    let script = "grep ^0: /proc/self/cgroup; ls /sys/fs/cgroup | grep -c cgroup.procs; \
                  dd if=/dev/kmsg bs=1 count=0 2>&1 | grep -c 'not permitted'; echo x > /dev/null; sleep 1000";
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/lab-tests/{}", bundle.id));
    bundle.config["linux"]["devices"] = json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
    // With the right to the log, only the rules on devices stand in the way.
    let log = json!(["CAP_SYSLOG"]);
    let capabilities = json!({"bounding": log, "effective": log, "permitted": log});
    bundle.config["process"]["capabilities"] = capabilities.clone();
    let mut resources = json!({"devices": [{"allow": false, "access": "rwm"}]});
    let has = |name: &str| controllers.split_whitespace().any(|controller| controller == name);
    if has("pids") {
        resources["pids"] = json!({"limit": 20});
    }
    if has("memory") {
        resources["memory"] = json!({"limit": 67_108_864, "reservation": 1_048_576});
    }
    if has("cpu") {
        resources["cpu"] = json!({"shares": 512, "quota": 50_000, "period": 100_000});
    }
    if has("hugetlb") {
        resources["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": 4_194_304}]);
    }
    bundle.config["linux"]["resources"] = resources;
    let (mut container, output) = bundle.create().unwrap();
    container.start().unwrap();
    let text = common::first_lines(output, 3);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.contains(&"0::/"), "its own cgroup is the root that it sees: {text}");
    assert_eq!(lines[lines.len() - 2..], ["1", "1"], "the mount is there, the host's log is not: {text}");

    let own = Path::new(ROOT).join("lab-tests").join(&bundle.id);
    let value = |file: &str| fs::read_to_string(own.join(file)).unwrap_or_default().trim().to_owned();
    for (controller, file, expected) in [
        ("pids", "pids.max", "20"),
        ("memory", "memory.max", "67108864"),
        ("memory", "memory.low", "1048576"),
        ("cpu", "cpu.max", "50000 100000"),
        ("hugetlb", "hugetlb.2MB.max", "4194304"),
    ] {
        assert!(!has(controller) || value(file) == expected, "{file}: {}", value(file));
    }

    container.pause().unwrap();
    assert_eq!((container.status(), value("cgroup.freeze").as_str()), (Status::Paused, "1"));
    container.resume().unwrap();
    assert_eq!(container.status(), Status::Running);
    let process = spec::Process {
        args: ["sh", "-c", "grep -q '^0::/$' /proc/self/cgroup"].map(str::to_owned).to_vec(),
        cwd: "/".into(),
        ..spec::Process::default()
    };
    assert_eq!(container.exec(ExecOptions::new(process)).unwrap().wait().unwrap(), Exit::Code(0));

    // Other rules in the place of the first: now the log may be read.
    let update = json!({"devices": [{"allow": true, "access": "rwm"}]});
    container.update(&serde_json::from_value(update).unwrap()).unwrap();
    let arguments = ["dd", "if=/dev/kmsg", "bs=1", "count=0"];
    let process = json!({"args": arguments, "cwd": "/", "capabilities": capabilities});
    let process: spec::Process = serde_json::from_value(process).unwrap();
    assert_eq!(container.exec(ExecOptions::new(process)).unwrap().wait().unwrap(), Exit::Code(0));

    if has("memory") {
        let update = json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}});
        let error = container.update(&serde_json::from_value(update).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("linux.resources.memory.limit: "), "{error}");
        assert_eq!(container.status(), Status::Running);
    }
    container.delete(true).unwrap();
    assert_eq!(traces(&bundle), [].into());
    assert!(!Path::new(ROOT).join("lab-tests").exists(), "the parent that was made for it goes too");

    // A container that may write to its cgroup has it for its own user, who makes cgroups below it.
    let script =
        "mkdir /sys/fs/cgroup/below && echo $$ > /sys/fs/cgroup/below/cgroup.procs && cat /proc/self/cgroup";
    let mut bundle = Bundle::new(&["sh", "-c", &script.replace("mkdir", "busybox mkdir")]);
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let (container, _output) = bundle.create().unwrap();
    let place = Path::new(ROOT).join(format!("lab-{}", bundle.id));
    assert_eq!(
        fs::metadata(place.join("cgroup.procs")).unwrap().uid(),
        0,
        "read-only: it stays the runtime's"
    );
    container.delete(true).unwrap();
    let mount = bundle.config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    mount["options"] = json!(["nosuid", "noexec", "nodev"]);
    let created = bundle.create().unwrap();
    for (file, uid) in
        [("", 1000), ("cgroup.procs", 1000), ("cgroup.subtree_control", 1000), ("cgroup.freeze", 0)]
    {
        assert_eq!(fs::metadata(place.join(file)).unwrap().uid(), uid, "{file}");
    }
    let (exit, text) = common::run_to_end(created);
    assert!(exit == Exit::Code(0) && text.contains("0::/below\n"), "{text}");
    assert_eq!(traces(&bundle), [].into());

    // A process can be added to a cgroup below; and where the container's own may have none any more, since it hands a
    // controller on, it goes to where the first process is.
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/lab-tests/{}", bundle.id));
    let (mut container, _output) = bundle.create().unwrap();
    container.start().unwrap();
    let own = Path::new(ROOT).join("lab-tests").join(&bundle.id);
    fs::create_dir(own.join("below")).unwrap();
    let exec = |cgroups: &[&str], place: &str| {
        let args = ["grep", "-qx", place, "/proc/self/cgroup"].map(str::to_owned).to_vec();
        let process = spec::Process { args, cwd: "/".into(), ..spec::Process::default() };
        let cgroups = cgroups.iter().map(|&path| path.to_owned()).collect();
        container
            .exec(ExecOptions { cgroups, ..ExecOptions::new(process) })
            .map(|mut added| added.wait().unwrap())
    };
    assert_eq!(exec(&["below"], "0::/below").unwrap(), Exit::Code(0));
    assert_eq!(exec(&[], "0::/").unwrap(), Exit::Code(0));
    assert!(exec(&["pids:below"], "").unwrap_err().to_string().starts_with("--cgroup pids:below: "));
    if let Some(controller) = controllers.split_whitespace().next() {
        fs::write(own.join("below/cgroup.procs"), container.pid().unwrap().to_string()).unwrap();
        fs::write(own.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
        assert_eq!(exec(&[], "0::/below").unwrap(), Exit::Code(0));
        assert!(exec(&["/"], "").is_err(), "where it was told to go it cannot go");
    }
    container.delete(true).unwrap();
    assert_eq!(traces(&bundle), [].into());

    // A file that the kernel does not have is named.
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["resources"] = json!({"unified": {"memory.nonesuch": "1"}});
    let error = bundle.create().map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("linux.resources.unified[\"memory.nonesuch\"]: "), "{error}");
    assert_eq!(traces(&bundle), [].into());
}
