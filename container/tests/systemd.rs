//! Cgroups made by a real systemd: one of its own is process 1 of namespaces made here, with a tree of version 2 of its own.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Bundle, traces};
use serde_json::json;

const SYSTEMD: &str = "/lib/systemd/systemd";

/// A systemd that runs; its machine ends with it.
struct Machine {
    outer: Child,
    inner: String,
    directory: PathBuf,
    cgroup: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let name = format!("lab-systemd-{}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir_all(directory.join("units")).unwrap();
        fs::write(directory.join("units/lab.target"), "[Unit]\nDefaultDependencies=no\n").unwrap();
        let v2 = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let v2 =
            v2.into_iter().find(|path| path.join("cgroup.controllers").exists()).expect("cgroup2 is mounted");
        let cgroup = v2.join(&name);
        fs::create_dir(&cgroup).unwrap();
        for controller in fs::read_to_string(v2.join("cgroup.controllers")).unwrap().split_whitespace() {
            let _ = fs::write(v2.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        let script = "echo 0 > $0/cgroup.procs && exec unshare --cgroup sh -c '\
            mount --make-rprivate / && mount -t proc proc /proc && mount -t tmpfs tmpfs /run && \
            umount -l /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && \
            exec \"$0\" --system --unit=lab.target --log-target=null --show-status=no' \"$1\"";
        let outer = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script])
            .arg(&cgroup)
            .arg(SYSTEMD)
            .env("SYSTEMD_UNIT_PATH", directory.join("units"))
            .env("container", "two-walls")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", outer.id());
        let mut machine = Self { outer, inner: String::new(), directory, cgroup };
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            fs::read_to_string(&children).unwrap().trim().clone_into(&mut machine.inner);
            let socket = format!("/proc/{}/root/run/systemd/private", machine.inner);
            if !machine.inner.is_empty() && Path::new(&socket).exists() {
                return machine;
            }
            assert!(Instant::now() < deadline, "systemd did not begin to listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn inside(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.inner, "--mount", "--pid", "--cgroup", program]).args(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn lab(&self, bundle: &Bundle, arguments: &[&str]) -> (Option<i32>, String) {
        bundle.write();
        let root = bundle.state_root();
        let fixed = ["--systemd-cgroup", "--root", root.to_str().unwrap()];
        let output = self.inside(env!("CARGO_BIN_EXE_lab-container"), &[&fixed[..], arguments].concat());
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    fn property(&self, unit: &str, name: &str) -> String {
        let output = self.inside("systemctl", &["show", "--property", name, "--value", unit]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A file of the container's cgroup, as seen from outside.
    fn value(&self, path: &str) -> String {
        fs::read_to_string(self.cgroup.join(path)).unwrap_or_default().trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.outer.kill(); // and with it, by --kill-child, process 1 and all of its namespace
        let _ = self.outer.wait();
        let remove = |path: &Path| {
            let deadline = Instant::now() + Duration::from_secs(5);
            while path.exists() && Instant::now() < deadline {
                let _ = Command::new("find")
                    .arg(path)
                    .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
                    .output();
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        remove(&self.cgroup);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn systemd_makes_the_cgroup_and_forgets_it() {
    needs_root!();
    if !Path::new(SYSTEMD).exists() {
        return common::skip("needs systemd; install the package systemd");
    }
    let machine = Machine::new();
    let mut bundle = Bundle::new(&["true"]);
    let (id, unit) = (bundle.id.clone(), format!("lab-{}.scope", bundle.id));
    bundle.config["linux"]["cgroupsPath"] = json!(format!("two-walls.slice:lab:{id}"));
    let controllers = machine.value("cgroup.controllers");
    let has = |name: &str| controllers.split_whitespace().any(|controller| controller == name);
    let resources = &mut bundle.config["linux"]["resources"];
    if has("memory") {
        resources["memory"] = json!({"limit": 67_108_864});
    }
    if has("pids") {
        resources["pids"] = json!({"limit": 20});
    }
    if has("hugetlb") {
        resources["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": 4_194_304}]); // none of systemd's
    }

    // Its streams are files inside: open, ours would keep this call from ending.
    let script = "exec sleep 100 >/dev/null 2>&1";
    bundle.config["process"]["args"] = json!(["sh", "-c", script]);
    let place = bundle.directory.to_str().unwrap().to_owned();
    let call = "exec \"$@\" >/dev/null 2>$0/stderr </dev/null";
    let program = env!("CARGO_BIN_EXE_lab-container");
    let root = bundle.state_root();
    let arguments =
        ["--systemd-cgroup", "--root", root.to_str().unwrap(), "run", "--detach", "--bundle", &place, &id];
    bundle.write();
    let output = machine.inside("sh", &[&["-c", call, &place, program][..], &arguments].concat());
    assert!(output.status.success(), "{}", fs::read_to_string(bundle.directory.join("stderr")).unwrap());

    let path = format!("two.slice/two-walls.slice/{unit}");
    assert_eq!(machine.property(&unit, "ControlGroup"), format!("/{path}"));
    assert_eq!(machine.property(&unit, "Slice"), "two-walls.slice");
    assert_eq!(
        (machine.property(&unit, "ActiveState").as_str(), machine.property(&unit, "Delegate").as_str()),
        ("active", "yes")
    );
    assert_eq!(machine.value(&format!("{path}/cgroup.procs")).lines().count(), 1, "the holder is gone");
    if has("memory") {
        assert_eq!(machine.property(&unit, "MemoryMax"), "67108864");
        assert_eq!(machine.value(&format!("{path}/memory.max")), "67108864");
    }
    if has("hugetlb") {
        assert_eq!(machine.value(&format!("{path}/hugetlb.2MB.max")), "4194304");
    }
    assert_eq!(
        machine.lab(&bundle, &["exec", &id, "cat", "/proc/self/cgroup"]).1.lines().last(),
        Some("0::/")
    );
    machine.lab(&bundle, &["pause", &id]);
    assert_eq!(machine.value(&format!("{path}/cgroup.freeze")), "1");
    machine.lab(&bundle, &["resume", &id]);
    assert_eq!(
        machine.lab(&bundle, &["update", "--pids-limit", "7", &id]).0,
        Some(i32::from(!has("pids")) * 125)
    );
    assert_eq!(machine.property(&unit, "TasksMax"), "7", "systemd knows, so that a reload keeps it");

    assert_eq!(machine.lab(&bundle, &["delete", "--force", &id]), (Some(0), String::new()));
    let deadline = Instant::now() + Duration::from_secs(5);
    while machine.property(&unit, "LoadState") != "not-found" && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(machine.property(&unit, "LoadState"), "not-found");
    assert!(!machine.cgroup.join(&path).exists());

    // What fails after systemd has made the unit takes it along.
    bundle.config["process"]["args"][0] = json!("/bin/nonesuch");
    let (code, text) = machine.lab(&bundle, &["run", "--bundle", &place, &id]);
    assert_eq!((code, text.starts_with("error: exec \"/bin/nonesuch\"")), (Some(127), true), "{text}");
    assert!(!machine.cgroup.join(&path).exists());
    for (path, word) in [("/a/b", "slice:prefix:name"), ("x:y:z", "slice")] {
        bundle.config["linux"]["cgroupsPath"] = json!(path);
        let (code, text) = machine.lab(&bundle, &["create", "--bundle", &place, &id]);
        assert!(
            code == Some(125) && text.starts_with("error: linux.cgroupsPath: ") && text.contains(word),
            "{text}"
        );
    }
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn without_systemd_the_error_says_so() {
    needs_root!();
    if Path::new("/run/systemd/private").exists() {
        return; // the machine's own systemd would answer
    }
    let bundle = Bundle::new(&["true"]);
    let output = common::command::output(&bundle, &["--systemd-cgroup", "create", &bundle.id]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("error: speak to systemd over /run/systemd/private: "), "{stderr}");
    assert!(stderr.contains("leave --systemd-cgroup out"), "{stderr}");
    assert_eq!(traces(&bundle), [].into());
}
