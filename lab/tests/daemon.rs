//! The promises of `lab daemon`, tried with the real docker client: what a user of docker types works here.

mod common;

use std::io::Write as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::daemon::{Daemon, eventually};
use common::leftovers::Traces;
use common::{Wall, finish, skip};

#[test]
fn run_has_the_output_the_input_and_the_exit_code_of_the_program() {
    let Some(daemon) = Daemon::start("container: docker run") else { return };
    let output = daemon.docker(&["run", "--rm", "lab", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((output.code, &*output.stdout, &*output.stderr), (7, "out\n", "err\n"));
    let output = daemon.docker_with(&["run", "--rm", "-i", "lab", "cat"], "twelve bytes");
    assert_eq!((output.code, &*output.stdout), (0, "twelve bytes"));
    let output = daemon.docker(&["run", "--rm", "lab", "no-such-command"]);
    assert_eq!(output.code, 127);
    assert!(output.stderr.contains("no-such-command"), "{output:?}");
    assert_eq!(daemon.says(&["run", "--rm", "-t", "lab", "tty"]), "/dev/pts/0");
    assert_eq!(daemon.says(&["ps", "-aq"]), "");
}

#[test]
fn a_container_lives_on_its_own_from_create_to_rm() {
    let Some(daemon) = Daemon::start("container: a container's life") else { return };
    let id = daemon.says(&["run", "-d", "--name", "web", "lab", "sh", "-c", "echo begun; sleep 1000"]);
    assert_eq!(daemon.says(&["ps", "-q", "--no-trunc"]), id);
    eventually("output", || daemon.says(&["logs", "web"]) == "begun");
    assert_eq!(daemon.says(&["inspect", "-f", "{{.State.Status}} {{.Name}}", &id[..6]]), "running /web");
    let output =
        daemon.docker(&["exec", "-w", "/tmp", "-e", "A=b", "web", "sh", "-c", "pwd; echo $A; exit 3"]);
    assert_eq!((output.code, &*output.stdout), (3, "/tmp\nb\n"));
    assert_eq!(daemon.docker_with(&["exec", "-i", "web", "cat"], "piped").stdout, "piped");
    assert!(daemon.says(&["top", "web"]).contains("sleep 1000"));
    daemon.says(&["pause", "web"]);
    assert_eq!(daemon.says(&["inspect", "-f", "{{.State.Paused}}", "web"]), "true");
    daemon.says(&["unpause", "web"]);
    daemon.says(&["rename", "web", "db"]);
    assert_eq!(daemon.docker(&["rm", "db"]).code, 1);
    daemon.says(&["stop", "-t", "1", "db"]);
    let status = daemon.says(&["ps", "-a", "--filter", "name=db", "--format", "{{.Status}}"]);
    assert!(status.starts_with("Exited (143)"), "{status}");
    daemon.says(&["start", "db"]);
    daemon.says(&["kill", "db"]);
    assert_eq!(daemon.says(&["wait", "db"]), "137");
    daemon.says(&["rm", "db"]);
    assert!(daemon.docker(&["inspect", "db"]).stderr.contains("No such object"));
}

#[test]
fn containers_outlive_a_daemon_that_crashes_and_their_end_is_not_lost() {
    let Some(mut daemon) = Daemon::start("container: a crashed daemon") else { return };
    let script = "echo before; while [ ! -e /end ]; do sleep 0.1; done; echo after; exit 5";
    daemon.says(&["run", "-d", "--name", "survivor", "lab", "sh", "-c", script]);
    daemon.crash();
    assert_eq!(daemon.says(&["inspect", "-f", "{{.State.Running}}", "survivor"]), "true");
    daemon.says(&["exec", "survivor", "touch", "/end"]);
    assert_eq!(daemon.says(&["wait", "survivor"]), "5");
    assert_eq!(daemon.says(&["logs", "survivor"]), "before\nafter");
}

#[test]
fn a_killed_monitor_is_noticed_and_its_container_can_be_started_again() {
    let Some(daemon) = Daemon::start("container: a killed monitor") else { return };
    let id = daemon.says(&["run", "-d", "--name", "orphan", "lab", "sleep", "1000"]);
    let pid: i32 = daemon.says(&["inspect", "-f", "{{.State.Pid}}", "orphan"]).parse().expect("a number");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim();
    let monitor = nix::unistd::Pid::from_raw(monitor.parse().expect("a number"));
    nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGKILL).expect("a signal");
    eventually("the end of the monitor", || {
        daemon.says(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", &id]) == "exited 255"
    });
    daemon.says(&["start", "orphan"]);
    assert_eq!(daemon.says(&["inspect", "-f", "{{.State.Running}}", "orphan"]), "true");
}

#[test]
fn what_a_container_wrote_is_there_at_its_next_start_and_in_its_volumes_after_it() {
    let Some(daemon) = Daemon::start("container: files that stay") else { return };
    daemon.says(&[
        "create",
        "--name",
        "twice",
        "lab",
        "sh",
        "-c",
        "cat /mark 2>/dev/null; echo mark >>/mark",
    ]);
    daemon.says(&["start", "-a", "twice"]);
    assert_eq!(daemon.says(&["start", "-a", "twice"]), "mark");
    daemon.says(&["run", "--rm", "-v", "data:/d", "lab", "sh", "-c", "echo kept >/d/file"]);
    let output = daemon.docker(&[
        "run",
        "--rm",
        "-v",
        "data:/d:ro",
        "lab",
        "sh",
        "-c",
        "cat /d/file; echo x >/d/file",
    ]);
    assert!(output.stdout == "kept\n" && output.stderr.contains("Read-only"), "{output:?}");
    assert!(daemon.says(&["volume", "ls", "-q"]).lines().any(|name| name == "data"));
    daemon.says(&["volume", "rm", "data"]);
}

#[test]
fn a_restart_policy_starts_a_container_again_until_it_is_stopped() {
    let Some(daemon) = Daemon::start("container: restart policies") else { return };
    daemon.says(&[
        "run",
        "-d",
        "--name",
        "again",
        "--restart",
        "on-failure:2",
        "lab",
        "sh",
        "-c",
        "echo x; exit 1",
    ]);
    eventually("the last of three runs", || {
        daemon.says(&["inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "again"]) == "exited 2"
    });
    assert_eq!(daemon.says(&["logs", "again"]), "x\nx\nx");
    daemon.says(&["run", "-d", "--name", "always", "--restart", "always", "lab", "sleep", "0.05"]);
    eventually("a restart", || daemon.says(&["inspect", "-f", "{{.RestartCount}}", "always"]) != "0");
    daemon.says(&["stop", "-t", "0", "always"]);
    assert_eq!(daemon.says(&["inspect", "-f", "{{.State.Status}}", "always"]), "exited");
}

#[test]
fn errors_have_docker_s_codes_and_words() {
    let Some(daemon) = Daemon::start("container: errors") else { return };
    daemon.says(&["create", "--name", "one", "lab", "true"]);
    for (arguments, words) in [
        (&["create", "--name", "one", "lab", "true"][..], "already in use"),
        (&["rm", "nothing"], "No such container: nothing"),
        (&["ps", "--filter", "colour=red"], "invalid filter 'colour'"),
        (&["run", "--rm", "--link", "one:other", "lab", "true"], "Cannot link to a non running container"),
        (&["run", "--rm", "--runtime", "fly", "lab", "true"], "runtime name: fly"),
        (&["run", "--rm", "-m", "1m", "lab", "true"], "minimum memory limit"),
        (&["run", "--rm", "--runtime", "vm", "--privileged", "lab", "true"], "--privileged"),
        (&["run", "--rm", "--runtime", "vm", "--network", "host", "lab", "true"], "--network host"),
        (&["exec", "one", "true"], "is not running"),
        (&["kill", "one"], "is not running"),
        (&["rmi", "lab"], "is using its referenced image"),
        (&["volume", "rm", "nothing"], "no such volume"),
    ] {
        let output = daemon.docker(arguments);
        assert!(output.code != 0 && output.stderr.contains(words), "docker {arguments:?}: {output:?}");
    }
}

#[test]
fn an_image_is_loaded_listed_tagged_and_removed() {
    let Some(daemon) = Daemon::start("container: images") else { return };
    if let Some(why) = common::image::missing() {
        return skip("container: images", why);
    }
    let archive = common::image::archive(daemon.lab.home());
    let archive = archive.to_str().expect("a text");
    assert_eq!(daemon.says(&["load", "-i", archive]), "Loaded image: box:latest");
    daemon.says(&["tag", "box", "other:1"]);
    assert_eq!(daemon.says(&["images", "-q", "box"]), daemon.says(&["images", "-q", "other"]));
    assert_eq!(daemon.says(&["run", "--rm", "other:1"]), "the image's command");
    assert!(daemon.says(&["rmi", "other:1"]).contains("Untagged: other:1"));
    assert!(daemon.says(&["rmi", "box"]).contains("Deleted: sha256:"));
    let output = daemon.docker(&["run", "--rm", "box"]);
    assert!(output.code == 125 && output.stderr.contains("Unable to find image"), "{output:?}");
}

#[test]
fn files_are_copied_in_and_out_of_containers_whether_they_run_or_not() {
    let Some(daemon) = Daemon::start("container: docker cp") else { return };
    let folder = daemon.lab.home().join("folder");
    std::fs::create_dir_all(folder.join("below")).expect("a directory");
    std::fs::write(folder.join("below/file"), "from the host\n").expect("a file");
    let source = folder.to_str().expect("a text");
    daemon.says(&[
        "create",
        "--name",
        "box",
        "lab",
        "sh",
        "-c",
        "cat /tmp/folder/below/file; echo made >/made; sleep 1000",
    ]);
    daemon.says(&["cp", source, "box:/tmp"]);
    daemon.says(&["start", "box"]);
    eventually("the copied file", || daemon.says(&["logs", "box"]) == "from the host");
    eventually("the container's file", || daemon.docker(&["exec", "box", "cat", "/made"]).code == 0);
    for state in ["running", "stopped"] {
        let back = daemon.lab.home().join(state);
        daemon.says(&["cp", "box:/made", back.to_str().expect("a text")]);
        assert_eq!(std::fs::read_to_string(&back).expect("a file"), "made\n");
        let folder = daemon.lab.home().join(format!("{state}-folder"));
        daemon.says(&["cp", "box:/tmp/folder", folder.to_str().expect("a text")]);
        assert_eq!(std::fs::read_to_string(folder.join("below/file")).expect("a file"), "from the host\n");
        assert!(daemon.docker(&["cp", "box:/nothing", "/tmp"]).stderr.contains("Could not find the file"));
        let changes = daemon.says(&["diff", "box"]);
        assert!(changes.contains("A /made") && changes.contains("C /tmp"), "{changes}");
        daemon.docker(&["stop", "-t", "0", "box"]);
    }
}

#[test]
fn a_container_s_changes_become_an_image_that_can_be_saved_and_loaded() {
    let Some(daemon) = Daemon::start("container: docker commit and save") else { return };
    daemon.says(&["run", "--name", "base", "lab", "sh", "-c", "echo kept >/mark; rm /etc/os-release"]);
    daemon.says(&["commit", "-m", "a mark", "base", "marked:1"]);
    let script = "cat /mark; [ -e /etc/os-release ] || echo gone";
    assert_eq!(daemon.says(&["run", "--rm", "marked:1", "sh", "-c", script]), "kept\ngone");
    assert!(daemon.says(&["history", "marked:1"]).contains("a mark"));
    let archive = daemon.lab.home().join("saved.tar");
    let archive = archive.to_str().expect("a text");
    daemon.says(&["save", "-o", archive, "marked:1"]);
    let id = daemon.says(&["images", "-q", "marked"]);
    daemon.says(&["rmi", "marked:1"]);
    assert_eq!(daemon.says(&["load", "-i", archive]), "Loaded image: marked:1");
    assert_eq!(daemon.says(&["images", "-q", "marked"]), id);
    assert_eq!(daemon.says(&["run", "--rm", "marked:1", "sh", "-c", script]), "kept\ngone");
    let exported = daemon.lab.home().join("exported.tar");
    daemon.says(&["export", "-o", exported.to_str().expect("a text"), "base"]);
    let list = Command::new("tar").arg("-tf").arg(&exported).output().expect("tar is installed");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.lines().any(|path| path == "mark") && !list.contains("etc/os-release"), "{list}");
}

#[test]
fn a_published_port_leads_into_the_container() {
    let Some(daemon) = Daemon::start("container: published ports") else { return };
    daemon.says(&["run", "-d", "--name", "web", "-p", "127.0.0.1::8080", "lab", "http"]);
    let address = daemon.says(&["port", "web", "8080"]);
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert!(daemon.says(&["ps", "--format", "{{.Ports}}"]).contains("->8080/tcp"));
    eventually("an answer", || {
        let Ok(mut stream) = std::net::TcpStream::connect(&address) else { return false };
        let mut answer = String::new();
        let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        asked.is_ok()
            && std::io::Read::read_to_string(&mut stream, &mut answer).is_ok()
            && answer.starts_with("HTTP/1")
    });
    let taken = format!("{address}:8080");
    let output = daemon.docker(&["run", "--rm", "-p", &taken, "lab", "true"]);
    assert!(output.stderr.contains("port is already allocated"), "{output:?}");
    daemon.says(&["stop", "-t", "0", "web"]);
    assert!(std::net::TcpStream::connect(&address).is_err());
}

#[test]
fn many_clients_at_once_lose_nothing_and_leave_nothing() {
    let Some(daemon) = Daemon::start("container: many clients") else { return };
    daemon.says(&["run", "--rm", "lab", "true"]);
    let traces = Traces::of(daemon.lab.home());
    thread::scope(|scope| {
        for number in 0..6 {
            let daemon = &daemon;
            scope.spawn(move || {
                for round in 0..4 {
                    let word = format!("{number}-{round}");
                    assert_eq!(daemon.says(&["run", "--rm", "lab", "echo", &word]), word);
                }
            });
        }
    });
    assert_eq!(daemon.says(&["ps", "-aq"]), "");
    traces.assert_unchanged();
}

#[test]
fn a_virtual_machine_is_run_by_the_same_client() {
    let what = "vm: docker run";
    if let Some(why) = Wall::Vm.missing() {
        return skip(what, why);
    }
    let Some(daemon) = Daemon::start(what) else { return };
    let output = daemon.docker(&[
        "run",
        "--runtime",
        "vm",
        "--name",
        "guest",
        "lab",
        "sh",
        "-c",
        "echo hello; exit 4",
    ]);
    assert_eq!((output.code, &*output.stdout), (4, "hello\n"), "{output:?}");
    assert_eq!(daemon.says(&["logs", "guest"]), "hello");
    assert_eq!(
        daemon.says(&["inspect", "-f", "{{.HostConfig.Runtime}} {{.State.ExitCode}}", "guest"]),
        "vm 4"
    );

    daemon.says(&["run", "-d", "--runtime", "vm", "--name", "long", "lab", "sleep", "1000"]);
    let script = ["sh", "-c", "cat; echo $WHO; exit 9"];
    let output = daemon.docker(&[&["exec", "-e", "WHO=me", "long"][..], &script].concat());
    assert_eq!((output.code, &*output.stdout), (9, "me\n"), "{output:?}");
    assert_ne!(daemon.docker(&["exec", "long", "nonesuch"]).code, 0);
    daemon.says(&["pause", "long"]);
    assert_eq!(daemon.says(&["inspect", "-f", "{{.State.Status}}", "long"]), "paused");
    daemon.says(&["unpause", "long"]);
    assert_eq!(daemon.says(&["exec", "-t", "long", "sh", "-c", "echo over >/dev/tty"]), "over");
    let used = daemon.says(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", "long"]);
    assert!(used.starts_with("long ") && used.ends_with(" / 128MiB") && !used.contains(" 0B"), "{used}");
    assert!(daemon.says(&["top", "long"]).contains("sleep 1000"));
    let lab = |arguments: &[&str]| daemon.lab.run(arguments, "");
    let report = lab(&["vm", "stats", "--format", "json", "long"]);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).expect("a report");
    assert!(report["exits"]["port-write"].as_u64() > Some(0), "{report}");
    assert!(report["devices"][0]["operations"].as_u64() > Some(0), "{report}");
    let table = lab(&["vm", "stats", "long"]);
    assert!(table.stdout.contains("port-write") && table.stdout.contains("  block"), "{table:?}");
    assert_eq!(lab(&["vm", "console", "long"]).code, 0);
    assert_eq!(lab(&["vm", "pause", "long"]).code, 0);
    assert_eq!(daemon.says(&["inspect", "-f", "{{.State.Status}}", "long"]), "paused");
    assert_eq!(lab(&["vm", "resume", "long"]).code, 0);
    daemon.says(&["rm", "-f", "long"]);
}

#[test]
fn a_dockerfile_becomes_an_image_and_what_did_not_change_is_not_done_again() {
    let Some(daemon) = Daemon::start("container: docker build") else { return };
    let folder = daemon.lab.home().join("context");
    std::fs::create_dir_all(folder.join("src")).expect("a directory");
    std::fs::write(folder.join("src/one.txt"), "one\n").expect("a file");
    std::fs::write(folder.join("src/two.txt"), "two\n").expect("a file");
    let dockerfile = "ARG BASE=lab\n\
        FROM $BASE AS made\n\
        RUN echo built >/made && \\\n    echo again >>/made\n\
        FROM lab\n\
        ARG WHO=nobody\n\
        ENV GREETING=\"hello $WHO\" OTHER=1\n\
        LABEL tier=front\n\
        WORKDIR /srv/app\n\
        COPY src/*.txt ./\n\
        COPY --from=made /made /made\n\
        RUN echo \"$GREETING\" >greeting\n\
        EXPOSE 8080\n\
        ENTRYPOINT [\"sh\", \"-c\"]\n\
        CMD [\"cat greeting /made one.txt two.txt; pwd\"]\n";
    std::fs::write(folder.join("Dockerfile"), dockerfile).expect("a file");
    let context = folder.to_str().expect("a text");
    let build = |more: &[&str]| {
        let mut arguments = vec!["build", "-t", "app:1", "--build-arg", "WHO=eva"];
        arguments.extend(more);
        arguments.push(context);
        let mut command = daemon.client(&arguments);
        finish(command.env("DOCKER_BUILDKIT", "0").spawn().expect("docker starts"))
    };
    let first = build(&[]);
    assert!(first.code == 0 && first.stdout.contains("Successfully tagged app:1"), "{first:?}");
    let said = daemon.says(&["run", "--rm", "app:1"]);
    assert_eq!(said, "hello eva\nbuilt\nagain\none\ntwo\n/srv/app");
    let config =
        daemon.says(&["inspect", "-f", "{{.Config.Labels.tier}} {{json .Config.ExposedPorts}}", "app:1"]);
    assert_eq!(config, r#"front {"8080/tcp":{}}"#);
    let second = build(&[]);
    assert_eq!(second.stdout.matches("Using cache").count(), 5, "{second:?}");
    std::fs::write(folder.join("src/two.txt"), "changed\n").expect("a file");
    assert!(build(&[]).stdout.matches("Using cache").count() < 5);
    assert!(daemon.says(&["run", "--rm", "app:1"]).contains("changed"));

    std::fs::write(folder.join("Dockerfile"), "FROM lab\nRUN exit 3\n").expect("a file");
    let failed = build(&[]);
    assert!(
        failed.code != 0 && failed.stderr.contains("Dockerfile:2") && failed.stderr.contains("code: 3"),
        "{failed:?}"
    );
    std::fs::write(folder.join("Dockerfile"), "FROM lab\nCOPPY a b\n").expect("a file");
    let wrong = build(&[]);
    assert!(
        wrong.code != 0 && wrong.stderr.contains("Dockerfile:2") && wrong.stderr.contains('^'),
        "{wrong:?}"
    );
}

#[test]
fn containers_of_one_network_find_each_other_by_name() {
    let Some(daemon) = Daemon::start("container: user networks") else { return };
    daemon.says(&["network", "create", "front"]);
    daemon.says(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "front",
        "--network-alias",
        "site",
        "lab",
        "http",
    ]);
    daemon.says(&["run", "-d", "--name", "peer", "--network", "front", "lab", "sleep", "1000"]);
    daemon.says(&["run", "-d", "--name", "late", "lab", "sleep", "1000"]);
    let address = daemon.says(&["inspect", "-f", "{{.NetworkSettings.Networks.front.IPAddress}}", "web"]);
    let hosts = daemon.says(&["exec", "peer", "cat", "/etc/hosts"]);
    let line = hosts.lines().find(|line| line.starts_with(&address)).expect("the web server's line");
    // Not the alias: more than one may have it, so the network's DNS server tells it.
    assert!(line.contains("web") && !line.contains("site"), "{hosts}");
    eventually("an answer", || reaches(&daemon, "peer", &address));
    let shown = daemon.says(&["network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{end}}", "front"]);
    assert!(shown.contains("web") && shown.contains("peer"), "{shown}");
    let busy = daemon.docker(&["network", "rm", "front"]);
    assert!(busy.code != 0 && busy.stderr.contains("active endpoints"), "{busy:?}");
    // Outside of it nobody answers.
    assert!(!reaches(&daemon, "late", &address));
    daemon.says(&["network", "connect", "front", "late"]);
    assert!(reaches(&daemon, "late", &address));
    daemon.says(&["network", "disconnect", "front", "late"]);
    assert!(!reaches(&daemon, "late", &address));
    daemon.says(&["rm", "-f", "web"]);
    assert!(!daemon.says(&["exec", "peer", "cat", "/etc/hosts"]).contains("web"));
    daemon.says(&["rm", "-f", "peer", "late"]);
    daemon.says(&["network", "rm", "front"]);
    assert!(!daemon.says(&["network", "ls", "--format", "{{.Name}}"]).contains("front"));
}

/// Whether a program in a container's network reaches the web server there. A thread of this program plays its part.
fn reaches(daemon: &Daemon, container: &str, address: &str) -> bool {
    let pid = daemon.says(&["inspect", "-f", "{{.State.Pid}}", container]);
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("a namespace");
    let address = std::net::SocketAddr::new(address.parse().expect("an address"), 8080);
    let client = thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may join");
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()
    });
    client.join().expect("a thread")
}
