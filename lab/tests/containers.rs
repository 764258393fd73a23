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

#[test]
fn files_go_in_and_out_and_what_changed_becomes_an_image() {
    let Some(lab) = Own::new("container: cp, diff, export, commit, update, stats, prune") else { return };
    let (here, text) = (lab.0.home().join("here"), |path: &std::path::Path| path.display().to_string());
    std::fs::create_dir_all(here.join("site/css")).expect("a directory");
    std::fs::write(here.join("site/css/a.css"), "blue").expect("a file");
    lab.says(&["run", "-d", "--name", "box", "lab", "sh", "-c", "sleep 1000"]);
    // Into a folder that is there, under its own name; to one that is not, as that; with `/.`, its content only.
    lab.says(&["cp", &text(&here.join("site")), "box:/tmp"]);
    lab.says(&["cp", &text(&here.join("site")), "box:/srv"]);
    lab.says(&["cp", &(text(&here.join("site")) + "/."), "box:/home"]);
    for path in ["/tmp/site/css/a.css", "/srv/css/a.css", "/home/css/a.css"] {
        assert_eq!(lab.says(&["exec", "box", "cat", path]), "blue");
    }
    lab.says(&["cp", "box:/srv/css", &text(&here.join("back"))]);
    assert_eq!(std::fs::read_to_string(here.join("back/a.css")).expect("a file"), "blue");
    lab.says(&["cp", "box:/srv/css/a.css", &text(&here)]);
    assert_eq!(std::fs::read_to_string(here.join("a.css")).expect("a file"), "blue");
    let output = lab.run(&["cp", "box:/nothing", &text(&here)]);
    assert!(output.code == 1 && output.stderr.contains("/nothing"), "{output:?}");
    let output = lab.run(&["cp", &text(&here.join("site")), "box:/srv/css/a.css"]);
    assert!(output.code == 1 && output.stderr.contains("cannot copy the directory"), "{output:?}");

    let changes = lab.says(&["diff", "box"]);
    assert!(changes.contains("A /srv/css/a.css") && changes.contains("C /tmp"), "{changes}");
    lab.says(&["update", "-m", "64m", "box"]);
    assert_eq!(lab.says(&["inspect", "-f", "{{.HostConfig.Memory}}", "box"]), "67108864");
    let line = lab.says(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", "box"]);
    assert!(line.starts_with("box ") && line.ends_with(" / 67.1MB"), "{line}");
    let tar = here.join("all.tar");
    lab.says(&["export", "-o", &text(&tar), "box"]);
    let bytes = std::fs::read(&tar).expect("a tar");
    assert!(bytes.windows(13).any(|window| window == b"srv/css/a.css"));
    assert!(lab.says(&["commit", "-m", "with files", "box", "site:1"]).starts_with("sha256:"));
    assert_eq!(lab.says(&["run", "site:1", "cat", "/srv/css/a.css"]), "blue");

    let output = lab.run(&["prune"]);
    assert!(output.code == 1 && output.stderr.contains("--force"), "{output:?}");
    let id = lab.says(&["inspect", "-f", "{{.Id}}", "box"]);
    lab.says(&["kill", "box"]);
    lab.says(&["wait", "box"]);
    let said = lab.says(&["prune", "-f"]);
    assert!(said.starts_with(&format!("Deleted container: {id}\nTotal reclaimed space: ")), "{said}");
    assert!(!said.ends_with(" 0B"), "{said}");
}

#[test]
fn an_image_is_built_from_a_folder_without_what_it_ignores() {
    let Some(lab) = Own::new("container: build") else { return };
    let folder = lab.0.home().join("folder");
    std::fs::create_dir_all(folder.join("logs")).expect("a directory");
    for (name, content) in [
        (
            "Dockerfile",
            "FROM lab\nARG WHO=nobody\nCOPY . /app\nRUN echo $WHO >/app/who\nCMD [\"cat\", \"/app/who\"]\n",
        ),
        (".dockerignore", "logs\n*.tmp\n"),
        ("logs/a", "x"),
        ("b.tmp", "x"),
        ("kept", "x"),
    ] {
        std::fs::write(folder.join(name), content).expect("a file");
    }
    let folder = folder.display().to_string();
    let said = lab.says(&["build", "-t", "app:1", "--build-arg", "WHO=eva", &folder]);
    assert!(said.contains("Step 3/5 : COPY . /app") && said.ends_with("Successfully tagged app:1"), "{said}");
    assert_eq!(lab.says(&["run", "app:1"]), "eva");
    let files = lab.says(&["run", "app:1", "ls", "/app"]);
    assert!(files.contains("kept") && !files.contains("logs") && !files.contains("b.tmp"), "{files}");
    let again = lab.says(&["build", "--build-arg", "WHO=eva", &folder]);
    assert_eq!(again.matches("Using cache").count(), 2, "{again}");
    let write = |text: &str| std::fs::write(format!("{folder}/Dockerfile"), text).expect("a file");
    write(
        "FROM lab\nONBUILD ARG GREET=hi\nONBUILD RUN echo $GREET >/greeting\nRUN <<END\necho 1 >/one\necho 2 >/two\nEND\n",
    );
    lab.says(&["build", "-t", "base", &folder]);
    assert_eq!(lab.says(&["run", "base", "cat", "/one", "/two"]), "1\n2");
    write("FROM base\nRUN cat /greeting >/copy\n");
    lab.says(&["build", "-t", "above", "--build-arg", "GREET=hello", &folder]);
    assert_eq!(lab.says(&["run", "above", "cat", "/copy"]), "hello");
    write("FROM above\nENV A=b\n");
    lab.says(&["build", "-t", "third", "--build-arg", "GREET=again", &folder]);
    assert_eq!(lab.says(&["run", "third", "cat", "/greeting"]), "hello", "triggers are for one generation");
    write("FROM lab\nCPOY a b\n");
    let output = lab.run(&["build", &folder]);
    assert!(output.code == 1 && output.stderr.contains("Dockerfile:2"), "{output:?}");
}
