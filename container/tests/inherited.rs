//! Namespaces that a configuration does not list are the runtime's own (config-linux.md, "Namespaces"): the container
//! lives in them, and leaves nothing of its own there.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Bundle, traces};
use container::{Container, ExecOptions, Exit, RootFs, spec};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use serde_json::{Value, json};

/// The types that are listed, and their links in /proc.
const TYPES: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

fn without(bundle: &mut Bundle, typ: &str) {
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != typ);
    if typ == "uts" {
        bundle.config.as_object_mut().unwrap().remove("hostname");
    }
}

fn run_in(container: &Container, script: &str) -> Exit {
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    let process = spec::Process { args, cwd: "/".into(), ..spec::Process::default() };
    container.exec(ExecOptions::new(process)).unwrap().wait().unwrap()
}

fn add_mount(bundle: &mut Bundle, mount: Value) {
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
}

#[test]
fn a_namespace_that_is_not_listed_is_the_runtimes() {
    needs_root!();
    let own = |link: &str| fs::read_link(format!("/proc/self/ns/{link}")).unwrap().display().to_string();
    let links = TYPES.map(|(_, link)| link).join(" ");
    let script = format!("for n in {links}; do readlink /proc/self/ns/$n; done; sleep 1000");
    for (left_out, _) in TYPES {
        let mut bundle = Bundle::new(&["sh", "-c", &script]);
        without(&mut bundle, left_out);
        let (mut container, output) = bundle.create().unwrap();
        container.start().unwrap();
        let text = common::first_lines(output, TYPES.len());
        for (typ, link) in TYPES {
            let same = text.lines().any(|line| line == own(link));
            assert_eq!(same, typ == left_out, "without {left_out}: {typ}\n{text}");
        }
        // A process that is added is where the first one is, and sees the container's files.
        let of_first = fs::read_link(format!("/proc/{}/ns/uts", container.pid().unwrap())).unwrap();
        let script =
            format!("[ $(readlink /proc/self/ns/uts) = '{}' ] && [ -e /bin/busybox ]", of_first.display());
        assert_eq!(run_in(&container, &script), Exit::Code(0), "without {left_out}");
        container.delete(true).unwrap();
        assert_eq!(traces(&bundle), [].into(), "without {left_out}");
    }
}

#[test]
fn a_container_without_any_namespace_is_a_process_with_another_root() {
    needs_root!();
    let mut bundle = Bundle::new(&["sh", "-c", "sleep 1000 & echo $$; wait"]);
    for (typ, _) in TYPES {
        without(&mut bundle, typ);
    }
    let (mut container, output) = bundle.create().unwrap();
    container.start().unwrap();
    let pid = container.pid().unwrap();
    assert_eq!(common::first_lines(output, 1), format!("{pid}\n"), "it has the same id inside as outside");
    assert_eq!(container.processes().len(), 2);
    container.delete(true).unwrap(); // the other processes too
    assert_eq!(traces(&bundle), [].into());
}

/// A directory of the host with a mount in it, both in a group of shared mounts as systemd makes all of them; gone
/// when dropped.
struct Shared<'a>(&'a Path);

impl<'a> Shared<'a> {
    fn new(at: &'a Path) -> Self {
        fs::create_dir(at).unwrap();
        mount("tmpfs", at, "tmpfs", MountFlags::empty(), None).unwrap();
        mount_change(at, MountPropagationFlags::SHARED).unwrap();
        fs::create_dir(at.join("below")).unwrap();
        mount_bind("/etc", at.join("below")).unwrap();
        Self(at)
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

fn mounts_below(path: &Path) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with(path)).map(str::to_owned).collect()
}

#[test]
fn mounts_in_the_runtimes_own_namespace_are_all_taken_away_again_and_nothing_else_is() {
    needs_root!();
    for propagation in [None, Some("shared"), Some("rprivate")] {
        for options in [json!(["rbind"]), json!(["rbind", "rshared"]), json!(["rbind", "rslave", "ro"])] {
            let script = "cat /proc/keys; true > /proc/sys/kernel/printk; test -e /v/below/passwd && echo bound; \
                          mount -t tmpfs tmpfs /v/below && echo mounted; sleep 1000";
            let mut bundle = Bundle::new(&["sh", "-c", script]);
            without(&mut bundle, "mount");
            let shared = bundle.directory.join("shared");
            let host = Shared::new(&shared);
            if let Some(propagation) = propagation {
                bundle.config["linux"]["rootfsPropagation"] = json!(propagation);
            }
            let all = json!(["CAP_SYS_ADMIN"]);
            bundle.config["process"]["capabilities"] =
                json!({"bounding": all, "effective": all, "permitted": all});
            let mount = json!({"destination": "/v", "type": "bind", "source": shared, "options": options});
            add_mount(&mut bundle, mount);
            let before = mounts_below(&shared);
            let (mut container, output) = bundle.create().unwrap();
            let place = bundle.state_root().join(&bundle.id).join("root");
            assert!(mounts_below(&place).len() > 8, "they are there for all to see");
            container.start().unwrap();
            let text = common::first_lines(output, 3);
            assert!(text.contains("Read-only") && text.ends_with("bound\nmounted\n"), "{text}");
            // Inside, and on its files: also who comes later.
            assert_eq!(
                run_in(&container, "test -e /v/below -a ! -e /etc/passwd && pwd | grep -qx /"),
                Exit::Code(0)
            );
            container.delete(true).unwrap();
            assert_eq!(traces(&bundle).iter().filter(|trace| !trace.contains("/shared")).count(), 0);
            assert_eq!(
                &mounts_below(&shared)[..before.len()],
                before,
                "{propagation:?} {options}: the host's stay"
            );
            // Only what was asked to be shared shows outside, and stays there as any mount of the host's.
            let covered = !shared.join("below/passwd").exists();
            assert_eq!(
                covered,
                propagation == Some("shared") && options[2] != "ro",
                "{propagation:?} {options}"
            );
            drop(host);
        }
    }
}

#[test]
fn an_overlay_in_the_runtimes_own_namespace_goes_too() {
    needs_root!();
    let mut bundle = Bundle::new(&["sh", "-c", "echo x > /new; cat /new"]);
    without(&mut bundle, "mount");
    // An upper layer on a file system that takes one, whatever the bundle's is.
    let scratch = bundle.directory.join("scratch");
    fs::create_dir(&scratch).unwrap();
    mount("tmpfs", &scratch, "tmpfs", MountFlags::empty(), None).unwrap();
    let host = Shared(&scratch);
    let [upper, work] = ["upper", "work"].map(|name| scratch.join(name));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let mut options = bundle.options();
    options.rootfs = RootFs::Overlay { lower: vec![bundle.rootfs()], upper: upper.clone(), work };
    assert_eq!(bundle.run_with(options), (Exit::Code(0), "x\n".into()));
    assert!(upper.join("new").exists() && !bundle.rootfs().join("new").exists());
    drop(host);
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn a_mount_namespace_that_is_joined_keeps_its_own_root() {
    needs_root!();
    let mut other = Command::new("unshare").args(["--mount", "sleep", "1000"]).spawn().unwrap();
    let path = format!("/proc/{}/ns/mnt", other.id());
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    while fs::read_link(&path).is_ok_and(|link| link == own) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mounts = || fs::read_to_string(format!("/proc/{}/mountinfo", other.id())).unwrap();
    let before = mounts();
    let mut bundle = Bundle::new(&["sh", "-c", "readlink /proc/self/ns/mnt; sleep 1000"]);
    without(&mut bundle, "mount");
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "mount", "path": path}));
    let (mut container, output) = bundle.create().unwrap();
    container.start().unwrap();
    assert_eq!(common::first_lines(output, 1).trim_end(), fs::read_link(&path).unwrap().to_str().unwrap());
    assert!(mounts().contains(&bundle.id) && mounts_below(&bundle.state_root()).is_empty());
    assert_eq!(run_in(&container, "test -e /bin/busybox -a ! -e /etc/passwd"), Exit::Code(0));
    container.delete(true).unwrap();
    assert_eq!((mounts(), traces(&bundle)), (before, [].into()));
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_user_namespace_needs_a_mount_namespace() {
    needs_root!();
    let mut bundle = Bundle::new(&["true"]);
    without(&mut bundle, "mount");
    common::user_namespace(&mut bundle, 100_000);
    let error = bundle.create().map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("linux.namespaces: ") && error.contains("\"mount\""), "{error}");
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn what_fails_half_way_takes_its_mounts_along() {
    needs_root!();
    let mut bundle = Bundle::new(&["true"]);
    without(&mut bundle, "mount");
    add_mount(
        &mut bundle,
        json!({"destination": "/v", "type": "bind", "source": "/nonesuch", "options": ["bind"]}),
    );
    let error = bundle.create().map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("prepare mounts: /v"), "{error}");
    assert_eq!(traces(&bundle), [].into());
}
