//! What docker's clients may ask of a container beyond its plain life: health, sharing, rights, resources, logs.

mod common;

use std::path::Path;

use common::daemon::{Daemon, eventually};

/// A container that sleeps, with these flags.
fn sleeper(daemon: &Daemon, name: &str, flags: &[&str]) -> String {
    let mut words = vec!["run", "-d", "--name", name];
    words.extend(flags);
    words.extend(["lab", "sleep", "1000"]);
    daemon.says(&words)
}

#[test]
fn health_is_checked_told_and_filtered() {
    let Some(daemon) = Daemon::start("container: health checks") else { return };
    let quick = ["--health-interval", "100ms", "--health-retries", "2"];
    let with = |command: &'static str| [&quick[..], &["--health-cmd", command]].concat();
    sleeper(&daemon, "well", &with("test -e /tmp"));
    sleeper(&daemon, "ill", &with("echo broken; test -e /sick"));
    sleeper(&daemon, "plain", &[]);
    let state = |name: &str| daemon.says(&["inspect", "-f", "{{.State.Health.Status}}", name]);
    eventually("health", || state("well") == "healthy" && state("ill") == "unhealthy");
    let log = daemon.says(&["inspect", "-f", "{{json .State.Health}}", "ill"]);
    assert!(log.contains(r#""Output":"broken\n""#) && log.contains(r#""ExitCode":1"#), "{log}");
    assert_eq!(daemon.says(&["ps", "--filter", "health=unhealthy", "--format", "{{.Names}}"]), "ill");
    assert_eq!(daemon.says(&["ps", "--filter", "health=none", "--format", "{{.Names}}"]), "plain");
    assert!(daemon.says(&["ps", "--filter", "name=well"]).contains("(healthy)"));
    let events = ["events", "--since", "1h", "--until", "0s", "--filter", "event=health_status"];
    eventually("its event", || daemon.says(&events).contains("health_status: unhealthy"));
    daemon.says(&["exec", "ill", "touch", "/sick"]);
    eventually("a recovery", || state("ill") == "healthy");

    sleeper(
        &daemon,
        "slow",
        &[&quick[..], &["--health-cmd", "sleep 60", "--health-timeout", "100ms"]].concat(),
    );
    eventually("a timeout", || state("slow") == "unhealthy");
    let log = daemon.says(&["inspect", "-f", "{{(index .State.Health.Log 0).Output}}", "slow"]);
    assert!(log.contains("exceeded timeout"), "{log}");
    eventually("the end of what took too long", || daemon.says(&["top", "slow"]).lines().count() <= 3);
    let wrong =
        daemon.docker(&["run", "--rm", "--health-cmd", "true", "--health-interval", "1us", "lab", "true"]);
    assert!(wrong.code != 0, "{wrong:?}");
}

#[test]
fn namespaces_memory_and_volumes_are_shared_as_asked() {
    let Some(daemon) = Daemon::start("container: sharing") else { return };
    sleeper(&daemon, "donor", &["--ipc", "shareable", "-v", "/data", "-v", "named:/named"]);
    daemon.says(&[
        "exec",
        "donor",
        "sh",
        "-c",
        "echo seen >/dev/shm/note; echo kept >/data/file; echo n >/named/n",
    ]);
    assert_eq!(
        daemon.says(&["run", "--rm", "--ipc", "container:donor", "lab", "cat", "/dev/shm/note"]),
        "seen"
    );
    assert!(daemon.says(&["run", "--rm", "--pid", "container:donor", "lab", "ps"]).contains("sleep 1000"));
    let from = [
        "run",
        "--rm",
        "--volumes-from",
        "donor:ro",
        "lab",
        "sh",
        "-c",
        "cat /data/file /named/n; touch /data/x",
    ];
    let output = daemon.docker(&from);
    assert!(
        output.stdout == "kept\nn\n" && output.code != 0 && output.stderr.contains("Read-only"),
        "{output:?}"
    );
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert_eq!(daemon.says(&["run", "--rm", "--uts", "host", "lab", "hostname"]), host);
    let own = std::process::id().to_string();
    let all = daemon.says(&[
        "run",
        "--rm",
        "--pid",
        "host",
        "lab",
        "sh",
        "-c",
        &format!("test -d /proc/{own} && echo yes"),
    ]);
    assert_eq!(all, "yes");
    let refused = daemon.docker(&["run", "--rm", "--ipc", "container:nobody", "lab", "true"]);
    assert!(refused.code == 125 && refused.stderr.contains("No such container"), "{refused:?}");
    sleeper(&daemon, "private", &[]);
    let refused = daemon.docker(&["run", "--rm", "--ipc", "container:private", "lab", "true"]);
    assert!(refused.stderr.contains("non-shareable"), "{refused:?}");
    daemon.says(&["stop", "-t", "0", "donor"]);
    let refused = daemon.docker(&["run", "--rm", "--pid", "container:donor", "lab", "true"]);
    assert!(refused.stderr.contains("non running"), "{refused:?}");
    // Without it the workload is process 1; with it, its child.
    assert_eq!(daemon.says(&["run", "--rm", "lab", "sh", "-c", "echo $$"]), "1");
    let first = daemon.says(&["run", "--rm", "--init", "lab", "sh", "-c", "echo $$; cat /proc/1/cmdline"]);
    assert!(first.starts_with("2\n/sbin/docker-init"), "{first}");
    assert_eq!(daemon.docker(&["run", "--rm", "--init", "lab", "sh", "-c", "exit 9"]).code, 9);
}

#[test]
fn a_new_volume_has_what_the_image_has_there() {
    let Some(daemon) = Daemon::start("container: volumes are filled") else { return };
    daemon.says(&["run", "--name", "maker", "lab", "sh", "-c", "mkdir /site; echo index >/site/index"]);
    daemon.says(&["commit", "maker", "site"]);
    assert_eq!(daemon.says(&["run", "--rm", "-v", "web:/site", "site", "cat", "/site/index"]), "index");
    // It is the volume's own now, and stays as it is.
    daemon.says(&["run", "--rm", "-v", "web:/site", "site", "sh", "-c", "echo changed >/site/index"]);
    assert_eq!(daemon.says(&["run", "--rm", "-v", "web:/site", "site", "cat", "/site/index"]), "changed");
    assert_eq!(daemon.says(&["run", "--rm", "-v", "bare:/site:nocopy", "site", "ls", "/site"]), "");
    daemon.says(&["create", "--name", "still", "-v", "web:/site", "site"]);
    assert!(daemon.says(&["cp", "still:/site/index", "-"]).contains("changed"));
    daemon.says(&["rm", "maker", "still"]);
    daemon.says(&["volume", "rm", "web", "bare"]);
}

#[test]
fn rights_devices_and_resources_are_those_asked_for() {
    let Some(daemon) = Daemon::start("container: rights") else { return };
    let profile = daemon.lab.home().join("profile.json");
    let rules = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&profile, rules).expect("a file");
    let option = format!("seccomp={}", profile.display());
    let refused = daemon.docker(&["run", "--rm", "--security-opt", &option, "lab", "mkdir", "/x"]);
    assert!(refused.code != 0 && refused.stderr.contains("not permitted"), "{refused:?}");
    assert_eq!(daemon.docker(&["run", "--rm", "lab", "mkdir", "/x"]).code, 0);
    let full = ["run", "--rm", "--device", "/dev/full:/dev/brim:rw", "lab", "sh", "-c", "echo x >/dev/brim"];
    let output = daemon.docker(&full);
    assert!(output.code != 0, "{output:?}");
    let privileged = ["run", "--rm", "--privileged", "lab", "sh", "-c", "test -e /dev/kmsg && echo there"];
    if Path::new("/dev/kmsg").exists() {
        assert_eq!(daemon.says(&privileged), "there");
    }
    let limits = ["run", "--rm", "--cpuset-cpus", "0", "lab", "cat", "/proc/self/status"];
    assert!(daemon.says(&limits).lines().any(|line| line == "Cpus_allowed_list:\t0"));
    let wrong = daemon.docker(&["run", "--rm", "--cpuset-cpus", "x", "lab", "true"]);
    assert!(wrong.code == 125 && wrong.stderr.contains("cpuset"), "{wrong:?}");
    let quiet = daemon.docker(&["run", "--name", "quiet", "--log-driver", "none", "lab", "echo", "said"]);
    assert_eq!((quiet.code, &*quiet.stdout), (0, "said\n"));
    assert!(daemon.docker(&["logs", "quiet"]).stderr.contains("does not support reading"));
    let wrong = daemon.docker(&["run", "--rm", "--log-driver", "pigeon", "lab", "true"]);
    assert!(wrong.stderr.contains("no log driver named 'pigeon'"), "{wrong:?}");
    let sizes = daemon.says(&["ps", "-a", "-s", "--filter", "name=quiet", "--format", "{{.Size}}"]);
    assert!(sizes.contains("virtual"), "{sizes}");
}
