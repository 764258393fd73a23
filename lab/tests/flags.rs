//! The flags of `lab run` that docker's users expect, on the command line without a daemon.

mod common;

use common::{Lab, Output, Wall, skip};

fn run(words: &[&str]) -> Output {
    Lab::shared().run(&[&["run", "--quiet"], words].concat(), "")
}

fn says(words: &[&str]) -> String {
    let output = run(words);
    assert_eq!(output.code, 0, "lab run {words:?}: {output:?}");
    output.stdout.trim_end().to_owned()
}

#[test]
fn further_choices_of_a_container() {
    if let Some(why) = Wall::Container.missing() {
        return skip("container: further flags", why);
    }
    let home = Lab::shared().home().display().to_string();
    assert!(says(&["--init", "box", "cat", "/proc/1/comm"]).contains("init"));
    assert_eq!(
        says(&[
            "--mount",
            &format!("type=bind,src={home},dst=/h,ro"),
            "box",
            "sh",
            "-c",
            "touch /h/x || echo ro"
        ]),
        "ro"
    );
    assert_eq!(
        says(&[
            "--mount",
            "type=tmpfs,dst=/t,tmpfs-mode=1700",
            "box",
            "sh",
            "-c",
            "ls -ld /t | cut -c1-10 || ls -ld /t"
        ])
        .get(..4),
        Some("drwx")
    );
    assert_eq!(says(&["--pid", "host", "box", "sh", "-c", "test -e /proc/2 && echo host"]), "host");
    assert_eq!(
        says(&["--device", "/dev/full:/dev/many", "box", "sh", "-c", "echo x >/dev/many || echo full"]),
        "full"
    );
    assert_eq!(says(&["--cpuset-cpus", "0", "box", "nproc"]), "1");
    assert!(says(&["--add-host", "peer:10.1.2.3", "box", "cat", "/etc/hosts"]).contains("10.1.2.3\tpeer"));
    assert_eq!(says(&["--log-driver", "none", "box", "echo", "heard"]), "heard");

    let file = Lab::shared().home().join("cid");
    let file = file.to_str().expect("a path");
    says(&["--cidfile", file, "box", "true"]);
    assert_eq!(std::fs::read_to_string(file).expect("the id").len(), 64);
    let again = run(&["--cidfile", file, "box", "true"]);
    assert!(again.code == 125 && again.stderr.contains("must be a new file"), "{again:?}");
    let missing = run(&["--pull", "never", "no-such-image", "true"]);
    assert!(missing.code == 125 && missing.stderr.contains("no-such-image"), "{missing:?}");
    for wrong in [
        ["--mount", "type=fly,dst=/x"],
        ["--device", "fuse"],
        ["--cgroupns", "mine"],
        ["--log-opt", "max-size=x"],
    ] {
        let refused = run(&[&wrong[..], &["box", "true"]].concat());
        assert!(refused.code == 125 && refused.stderr.lines().count() == 1, "{wrong:?}: {refused:?}");
    }
}

#[test]
fn volumes_and_namespaces_of_another() {
    if let Some(why) = Wall::Container.missing() {
        return skip("container: another's volumes", why);
    }
    says(&["-d", "--name", "flags-donor", "--ipc", "shareable", "-v", "/data", "box", "sleep", "1000"]);
    let lab = |words: &[&str]| Lab::shared().run(words, "");
    lab(&["exec", "flags-donor", "sh", "-c", "echo kept >/data/file; echo shared >/dev/shm/note"]);
    assert_eq!(says(&["--volumes-from", "flags-donor:ro", "box", "cat", "/data/file"]), "kept");
    assert_eq!(says(&["--ipc", "container:flags-donor", "box", "cat", "/dev/shm/note"]), "shared");
    assert!(says(&["--pid", "container:flags-donor", "box", "ps"]).contains("sleep 1000"));
    says(&[
        "-d",
        "--name",
        "flags-well",
        "--health-cmd",
        "true",
        "--health-interval",
        "100ms",
        "box",
        "sleep",
        "1000",
    ]);
    common::daemon::eventually("health", || {
        lab(&["inspect", "-f", "{{.State.Health.Status}}", "flags-well"]).stdout.trim() == "healthy"
    });
    assert_eq!(lab(&["rm", "-f", "flags-donor", "flags-well"]).code, 0);
}
