//! The promises of stored containers by `lab`'s own commands, without a daemon.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::leftovers::Traces;
use common::{Lab, Output, Wall, skip};

struct Own(Lab);

impl Own {
    fn new(what: &str) -> Option<Self> {
        if let Some(why) = Wall::Container.missing() {
            skip(what, why);
            return None;
        }
        Some(Self(Lab::empty()))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.0.run(arguments, "")
    }

    fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.code, 0, "lab {arguments:?}: {output:?}");
        output.stdout.trim_end().to_owned()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        for id in self.run(&["ps", "-aq"]).stdout.split_whitespace() {
            self.run(&["rm", "-f", "-v", id]);
        }
    }
}

#[test]
fn a_container_is_run_looked_at_and_removed_without_a_daemon() {
    let Some(lab) = Own::new("container: lab's own commands") else { return };
    lab.says(&["images"]);
    let traces = Traces::of(lab.0.home());
    let id = lab.says(&[
        "run",
        "-d",
        "--name",
        "web",
        "-l",
        "tier=front",
        "lab",
        "sh",
        "-c",
        "echo begun; sleep 1000",
    ]);
    assert!(lab.says(&["ps"]).contains("web"));
    assert_eq!(lab.says(&["ps", "-q", "--filter", "label=tier=front"]), id[..12]);
    assert_eq!(lab.says(&["ps", "--format", "{{.Names}} {{.State}}"]), "web running");
    let begun = Instant::now();
    while lab.says(&["logs", "web"]) != "begun" {
        assert!(begun.elapsed() < Duration::from_secs(60), "no log");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        lab.says(&["inspect", "-f", "{{.State.Status}} {{json .Config.Cmd}}", "web"]),
        r#"running ["sh","-c","echo begun; sleep 1000"]"#
    );
    let output = lab.0.run(&["exec", "-i", "-w", "/tmp", "web", "sh", "-c", "pwd; cat; exit 3"], "piped");
    assert_eq!((output.code, &*output.stdout), (3, "/tmp\npiped"));
    assert_eq!(lab.run(&["exec", "web", "no-such-command"]).code, 127);
    assert!(lab.says(&["top", "web"]).contains("sleep 1000"));
    lab.says(&["pause", "web"]);
    assert_eq!(lab.says(&["ps", "--filter", "status=paused", "-q"]), id[..12]);
    lab.says(&["unpause", "web"]);
    lab.says(&["rename", "web", "db"]);
    let output = lab.run(&["rm", "db"]);
    assert!(output.code == 1 && output.stderr.contains("stop the container"), "{output:?}");
    lab.says(&["stop", "-t", "1", "db"]);
    assert_eq!(lab.says(&["wait", "db"]), "143");
    lab.says(&["start", "db"]);
    lab.says(&["rm", "-f", "db"]);
    assert!(lab.run(&["inspect", "db"]).stderr.contains("No such container: db"));
    traces.assert_unchanged();
}

#[test]
fn run_shows_folders_and_volumes_and_changes_rights_as_it_is_told() {
    let Some(lab) = Own::new("container: flags of run") else { return };
    let folder = lab.0.home().join("folder");
    std::fs::create_dir(&folder).expect("a directory");
    std::fs::write(folder.join("file"), "from the host\n").expect("a file");
    let bind = format!("{}:/data:ro", folder.display());
    let script = "cat /data/file; echo x 2>/dev/null >/data/new || echo refused";
    assert_eq!(lab.says(&["run", "-v", &bind, "lab", "sh", "-c", script]), "from the host\nrefused");
    lab.says(&["run", "-v", "kept:/d", "lab", "sh", "-c", "echo 1 >/d/file"]);
    assert_eq!(lab.says(&["run", "-v", "kept:/d", "lab", "cat", "/d/file"]), "1");
    let bounding = |flags: &[&str]| {
        let mut arguments = vec!["run"];
        arguments.extend(flags);
        arguments.extend(["lab", "cat", "/proc/self/status"]);
        let status = lab.says(&arguments);
        status.lines().find(|line| line.starts_with("CapBnd")).expect("a line").to_owned()
    };
    assert!(bounding(&["--cap-drop", "ALL"]).ends_with("0000000000000000"));
    // CAP_CHOWN is capability 0 (capabilities(7)).
    assert!(bounding(&["--cap-drop", "ALL", "--cap-add", "CHOWN"]).ends_with("0000000000000001"));
    let limits = lab.says(&["run", "--ulimit", "nofile=123:456", "lab", "cat", "/proc/self/limits"]);
    assert!(limits.contains("123") && limits.contains("456"), "{limits}");
}
