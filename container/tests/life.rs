//! The life of a container, from its bundle to nothing left.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use common::{Bundle, traces};
use container::{Container, Error, Exit, RootFs, Status};
use lab_clock::{Mark, Timeline};
use serde_json::json;

#[test]
fn the_workload_speaks_and_its_exit_code_comes_back() {
    needs_root!();
    let bundle = Bundle::new(&["sh", "-c", "echo hello; exit 42"]);
    assert_eq!(bundle.run(), (Exit::Code(42), "hello\n".into()));
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn a_workload_killed_by_a_signal_is_told_from_one_that_exits() {
    needs_root!();
    let bundle = Bundle::new(&["sleep", "100"]);
    let (mut container, _output) = bundle.create().unwrap();
    container.start().unwrap();
    container.kill(libc::SIGKILL).unwrap();
    assert_eq!(container.wait().unwrap(), Exit::Signal(libc::SIGKILL));
    assert!(matches!(container.kill(libc::SIGKILL), Err(Error::State { .. })));
    container.delete(false).unwrap();
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn the_status_follows_the_life() {
    needs_root!();
    let bundle = Bundle::new(&["sleep", "100"]);
    let (mut container, _output) = bundle.create().unwrap();
    let seen_by_another = || Container::load(&bundle.state_root(), &bundle.id).unwrap().status();
    assert_eq!((container.status(), seen_by_another()), (Status::Created, Status::Created));
    container.start().unwrap();
    assert_eq!((container.status(), seen_by_another()), (Status::Running, Status::Running));
    container.pause().unwrap();
    assert_eq!((container.status(), seen_by_another()), (Status::Paused, Status::Paused));
    container.resume().unwrap();
    assert_eq!(container.status(), Status::Running);
    container.kill(libc::SIGKILL).unwrap();
    container.wait().unwrap();
    assert_eq!((container.status(), seen_by_another()), (Status::Stopped, Status::Stopped));
    container.delete(false).unwrap();
}

#[test]
fn another_process_can_start_and_delete_what_one_created() {
    needs_root!();
    let bundle = Bundle::new(&["sh", "-c", "echo started; sleep 100"]);
    let (_container, _output) = bundle.create().unwrap();
    let load = || Container::load(&bundle.state_root(), &bundle.id).unwrap();
    load().start().unwrap();
    assert!(
        matches!(load().delete(false), Err(Error::State { .. })),
        "a running container is not deleted unforced"
    );
    load().delete(true).unwrap();
    assert_eq!(traces(&bundle), [].into());
    assert!(matches!(Container::load(&bundle.state_root(), &bundle.id), Err(Error::Missing { .. })));
}

#[test]
fn an_id_is_taken_once() {
    needs_root!();
    let bundle = Bundle::new(&["true"]);
    let (container, _output) = bundle.create().unwrap();
    assert!(matches!(bundle.create(), Err(Error::Exists { .. })));
    container.delete(false).unwrap();
}

#[test]
fn a_missing_command_is_127_and_a_file_that_is_no_program_126() {
    needs_root!();
    for (command, code) in [("nonesuch", 127), ("/bin/nonesuch", 127), ("/etc/text", 126), ("/etc", 126)] {
        let bundle = Bundle::new(&[command]);
        fs::write(bundle.rootfs().join("etc/text"), "text").unwrap();
        let error = bundle.create().map(|_| ()).unwrap_err();
        assert_eq!(error.exit_code(), code, "{command}: {error}");
        assert!(error.to_string().contains(command), "{error}");
        assert_eq!(traces(&bundle), [].into());
    }
}

#[test]
fn an_executable_file_that_the_kernel_refuses_is_126_at_start() {
    needs_root!();
    let bundle = Bundle::new(&["/etc/text"]);
    let text = bundle.rootfs().join("etc/text");
    fs::write(&text, "no program").unwrap();
    fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
    let (mut container, _output) = bundle.create().unwrap();
    let error = container.start().unwrap_err();
    assert_eq!(error.exit_code(), 126, "{error}");
    container.delete(false).unwrap();
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn a_failed_create_says_what_failed_and_leaves_nothing() {
    needs_root!();
    let cases = [
        ("/mounts/0/type", json!("nonesuchfs"), "nonesuchfs"),
        ("/root/path", json!("elsewhere"), "elsewhere"),
        ("/process/cwd", json!("/bin/sh"), "/bin/sh"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/linux/cgroupsPath", json!("/../../x"), "linux.cgroupsPath"),
        ("/linux/namespaces/0", json!({"type": "pid", "path": "/nonesuch"}), "/nonesuch"),
        ("/linux/resources/pids", json!({"limit": "many"}), "linux.resources.pids.limit"),
        ("/linux/sysctl", json!({"kernel.panic": "1"}), "kernel.panic"),
    ];
    for (pointer, value, word) in cases {
        let mut bundle = Bundle::new(&["true"]);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match bundle.config.pointer_mut(parent).unwrap() {
            serde_json::Value::Array(array) => array[key.parse::<usize>().unwrap()] = value,
            object => object[key] = value,
        }
        let error = bundle.create().map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(word), "{pointer}: {error}");
        assert_eq!(error.exit_code(), 125);
        assert_eq!(traces(&bundle), [].into());
    }
}

#[test]
fn an_overlay_takes_the_changes_and_is_seen_by_nobody_else() {
    needs_root!();
    let bundle = Bundle::new(&["sh", "-c", "echo new > /etc/file; cat /etc/lower"]);
    fs::write(bundle.rootfs().join("etc/lower"), "from below\n").unwrap();
    let (upper, work) = (bundle.directory.join("upper"), bundle.directory.join("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let mut options = bundle.options();
    options.rootfs = RootFs::Overlay { lower: vec![bundle.rootfs()], upper: upper.clone(), work };
    let (exit, text) = bundle.run_with(options);
    assert_eq!((exit, text.as_str()), (Exit::Code(0), "from below\n"));
    assert_eq!(fs::read_to_string(upper.join("etc/file")).unwrap(), "new\n");
    assert!(!bundle.rootfs().join("etc/file").exists());
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn the_clock_shows_every_step() {
    needs_root!();
    let bundle = Bundle::new(&["true"]);
    let timeline = Arc::new(Timeline::new().unwrap());
    let mut options = bundle.options();
    options.timeline = Some(timeline.clone());
    bundle.run_with(options);
    let marks = [
        Mark::Cloned,
        Mark::CgroupReady,
        Mark::Mounted,
        Mark::Pivoted,
        Mark::Secured,
        Mark::Executed,
        Mark::Exited,
        Mark::Deleted,
    ];
    for mark in marks {
        assert!(timeline.get(mark).is_some(), "{} is missing", mark.name());
    }
}

#[test]
fn a_relative_state_directory_is_the_callers_not_the_bundles() {
    needs_root!();
    let bundle = Bundle::new(&["true"]);
    let mut options = bundle.options();
    options.root = Path::new("target").join(&bundle.id);
    let (container, _output) = bundle.create_with(options).unwrap();
    let root = std::env::current_dir().unwrap().join("target").join(&bundle.id);
    assert!(root.join(&bundle.id).is_dir());
    container.delete(true).unwrap();
    fs::remove_dir(root).unwrap();
}

#[test]
fn containers_made_at_once_do_not_lose_each_other() {
    needs_root!();
    let threads: Vec<_> = (0..20)
        .map(|_| {
            std::thread::spawn(|| {
                let bundle = Bundle::new(&["true"]);
                assert_eq!(bundle.run().0, Exit::Code(0));
                assert_eq!(traces(&bundle), [].into());
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
