//! The programs, run on this machine as they run in a sandbox: one ELF, links for the names.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;

/// A folder with a link for each program, as an image has it in /bin.
static BIN: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let elf = freestanding::build::for_test("lab-workloads", lab_workloads::NAME, folder);
    let elf = elf.unwrap_or_else(|error| panic!("{error}"));
    let bin = folder.join("bin");
    let _ = std::fs::remove_dir_all(&bin);
    std::fs::create_dir_all(&bin).unwrap();
    for applet in lab_workloads::APPLETS {
        symlink(&elf, bin.join(applet.name)).unwrap();
    }
    bin
});

fn program(name: &str) -> Command {
    let mut command = Command::new(BIN.join(name));
    command.env_clear().env("PATH", &*BIN);
    command
}

fn sh(script: &str) -> Output {
    program("sh").args(["-c", script]).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn one_file_is_every_program_by_the_name_it_is_called() {
    let output = program("hello").output().unwrap();
    assert_eq!((text(&output.stdout), output.status.code()), ("hello, world\n", Some(0)));
    assert_eq!(program("true").status().unwrap().code(), Some(0));
    assert_eq!(program("false").status().unwrap().code(), Some(1));
    let elf = std::fs::read_link(BIN.join("hello")).unwrap();
    let output = Command::new(&elf).args(["echo", "by argument"]).output().unwrap();
    assert_eq!(text(&output.stdout), "by argument\n");
    assert_eq!(Command::new(&elf).arg("nope").output().unwrap().status.code(), Some(127));
    let size = std::fs::metadata(&elf).unwrap().len();
    assert!(size < 100 * 1024, "{size} bytes");
}

#[test]
fn each_says_in_one_line_how_it_is_used() {
    for applet in lab_workloads::APPLETS {
        if matches!(applet.name, "echo" | "true" | "false") {
            continue;
        }
        let output = program(applet.name).arg("--help").output().unwrap();
        assert_eq!(text(&output.stdout), format!("usage: {}\n", applet.help));
    }
}

#[test]
fn the_shell_does_what_a_shell_does() {
    for (script, stdout, code) in [
        ("echo a; echo b && false || echo c", "a\nb\nc\n", 0),
        ("for i in 1 2 3; do echo n$i; done | wc -l", "3\n", 0),
        ("i=0; while [ $i -lt 3 ]; do i=$((i + 1)); done; echo $i", "3\n", 0),
        ("if false; then echo a; elif true; then echo b; else echo c; fi", "b\n", 0),
        ("X='a  b'; echo $X; echo \"$X\"", "a b\na  b\n", 0),
        ("(cd /; exit 4); echo $?; (cd /; pwd)", "4\n/\n", 0),
        ("echo $(echo in $(echo side))", "in side\n", 0),
        ("! true; echo $?; exit 7", "1\n", 7),
        ("for x in a b; do for y in 1 2 3; do [ $y = 2 ] && break; echo $x$y; done; done", "a1\nb1\n", 0),
        ("set_nothing=; echo ${set_nothing:-default} ${UNSET:-\"a b\"}", "default a b\n", 0),
        ("trap 'echo bye' EXIT; echo x; exit 3", "x\nbye\n", 3),
        ("{ echo a; echo b; } 2>&1 | head -n 1", "a\n", 0),
        ("exec echo replaced; echo not reached", "replaced\n", 0),
        ("echo 'a # b' # comment\n\necho c", "a # b\nc\n", 0),
        ("kill -TERM $$; echo not reached", "", 143),
        ("trap 'echo T; exit 5' TERM; kill -TERM $$; echo not reached", "T\n", 5),
        ("sh -c 'kill -KILL $$'; echo $?", "137\n", 0),
    ] {
        let output = sh(script);
        assert_eq!((text(&output.stdout), output.status.code()), (stdout, Some(code)), "{script}");
        assert_eq!(text(&output.stderr), "", "{script}");
    }
}

#[test]
fn variables_before_a_command_are_for_it_alone() {
    let output = sh("A=1 sh -c 'echo in $A'; echo out $A; B=2; sh -c 'echo $B'; export B; sh -c 'echo $B'");
    assert_eq!(text(&output.stdout), "in 1\nout\n\n2\n");
}

#[test]
fn what_cannot_be_run_has_the_usual_exit_code() {
    for (script, stderr, code) in [
        ("nope", "sh: nope: not found\n", 127),
        ("/", "sh: /: Permission denied\n", 126),
        ("echo 'open", "sh: syntax: a quote or a compound command has no end\n", 2),
        ("echo a; if true; fi fi", "sh: syntax: something stands where it cannot\n", 2),
        ("echo a &", "sh: syntax: something stands where it cannot\n", 2),
        ("cat < /nowhere", "sh: /nowhere: No such file or directory\n", 1),
        ("echo $((1/0))", "sh: $((1/0)): bad substitution\n", 2),
    ] {
        let output = sh(script);
        assert_eq!(text(&output.stdout), "", "{script}: nothing runs before the mistake is found");
        assert_eq!((text(&output.stderr), output.status.code()), (stderr, Some(code)), "{script}");
    }
}

#[test]
fn a_script_that_nests_without_end_is_refused() {
    for script in
        ["(".repeat(5000), "if ".repeat(5000), format!("echo {}", "$(".repeat(5000)), "x".repeat(100_000)]
    {
        let output = sh(&script);
        assert!(matches!(output.status.code(), Some(2 | 127)), "{:?}", output.status);
    }
}

#[test]
fn redirections_make_append_and_read_files() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("redirections");
    let _ = std::fs::remove_dir_all(&folder);
    let script = format!(
        "mkdir -p {0}/a/b && cd {0}/a && echo one > f && echo two >> f && cat < f && echo lost 2> /dev/null >&2
         wc -w f; touch g; ls; cd ..; rm -r a; ls; rm none; echo $?",
        folder.display()
    );
    let output = sh(&script);
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    let (before, names) = lines.split_at(3);
    assert_eq!(before, ["one", "two", "2 f"]);
    let (mut names, after) = (names[..names.len() - 1].to_vec(), names.last().unwrap());
    names.sort_unstable();
    assert_eq!((names, *after), (vec!["b", "f", "g"], "1"));
    assert_eq!(text(&output.stderr), "rm: none: No such file or directory\n");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn commands_come_from_standard_input_line_by_line() {
    let mut shell = program("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    shell
        .stdin
        .take()
        .unwrap()
        .write_all(b"read X\nthe input\nif true\nthen echo got $X\nfi\nexit 6\n")
        .unwrap();
    let output = shell.wait_with_output().unwrap();
    assert_eq!((text(&output.stdout), output.status.code()), ("got the input\n", Some(6)));
}

#[test]
fn the_tools_see_the_machine() {
    assert_eq!(text(&program("uname").output().unwrap().stdout), "Linux\n");
    assert!(text(&program("id").output().unwrap().stdout).starts_with("uid="));
    assert!(text(&sh("ps").stdout).contains(" ps"));
    assert!(text(&program("mount").output().unwrap().stdout).contains(" on /proc type proc ("));
    assert_eq!(text(&sh("echo a b | cat - /dev/null | wc").stdout), "      1       2       4\n");
    assert_eq!(program("tty").stdin(Stdio::null()).output().unwrap().status.code(), Some(1));
}

#[test]
fn the_measuring_programs_report_what_they_measured() {
    for (name, arguments, word) in [
        ("cpu", &["1"][..], "cpu: 1 M rounds in "),
        ("memory", &["1"], "memory: touched 1 MiB in "),
        ("syscalls", &["100"], "syscalls: context switch by pipe: "),
        ("files", &["1", env!("CARGO_TARGET_TMPDIR")], "files: write(2) and fsync(2): 1 MiB in "),
    ] {
        let output = program(name).args(arguments).output().unwrap();
        assert!(text(&output.stdout).contains(word), "{name}: {}", text(&output.stdout));
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(program(name).arg("x").output().unwrap().status.code(), Some(2));
    }
}

/// A server on a port that the kernel chose, ready to answer.
fn serve(arguments: &[&str]) -> (Child, u16) {
    let mut server =
        program("http").args(["--port", "0"]).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim_end().strip_prefix("http: listening on port ").unwrap().parse().unwrap();
    assert_ne!(port, 0);
    (server, port)
}

fn ask(port: u16, request: &str) -> String {
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_web_server_answers_so_many_requests_and_ends() {
    let (mut server, port) = serve(&["--requests", "3"]);
    let answer = ask(port, "GET / HTTP/1.1\r\nHost: lab\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())) && body.starts_with("hello from "));
    assert!(ask(port, "HEAD / HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
    assert!(ask(port, "POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

#[test]
fn those_that_wait_end_when_asked_to() {
    let (mut server, _) = serve(&[]);
    let mut sleeper = program("sleep").arg("1000").spawn().unwrap();
    let mut shell = program("sh").args(["-c", "echo up; sleep 1000"]).stdout(Stdio::piped()).spawn().unwrap();
    // The shell's first line says that it collects signals by now; sleep may be asked before, and ends by the default.
    let mut line = String::new();
    BufReader::new(shell.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    for (child, clean) in [(&mut server, Some(0)), (&mut sleeper, Some(143)), (&mut shell, Some(143))] {
        let pid = child.id().to_string();
        assert!(program("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert!(status.code() == clean || status.code().is_none(), "{status}");
    }
}

#[test]
fn every_loop_prints_its_samples_one_a_line() {
    for (what, names) in [
        ("cpu", &["round"][..]),
        ("syscalls", &["getppid", "read", "open-close"]),
        ("switches", &["switch"]),
        ("processes", &["fork", "fork-exec"]),
        ("faults", &["first-touch", "touch-again"]),
        ("disk", &["write-rate", "write-sync-rate", "fsync", "cached-read-rate", "random-read"]),
    ] {
        let output = program("bench").args([what, "3", env!("CARGO_TARGET_TMPDIR"), "1"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{what}: {}", text(&output.stderr));
        let printed = text(&output.stdout);
        for name in names {
            let values = printed.lines().filter_map(|line| line.strip_prefix(&format!("sample {name} ")));
            let values: Vec<f64> = values.map(|value| value.parse().unwrap()).collect();
            assert!(values.len() == 3 && values.iter().all(|value| *value > 0.0), "{what} {name}: {printed}");
        }
    }
    for wrong in [&["nothing"][..], &["cpu", "0"], &["disk", "1", "/tmp", "0"], &["hog", "cpu", "x"], &[]] {
        let output = program("bench").args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_hog_takes_what_it_can_for_as_long_as_it_was_told() {
    let output = program("bench").args(["hog", "cpu", "1"]).output().unwrap();
    let printed = text(&output.stdout);
    assert!(printed.starts_with("hogging\n") && printed.matches("sample hogged ").count() == 2, "{printed}");
}

/// A program that does not outlive a test that failed.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_and_its_client_print_samples_of_their_traffic() {
    let mut server = Ending(program("bench").arg("serve").stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert!(matches!(words[..], ["listening", address, _] if address.split('.').count() == 4), "{line}");
    // The machine may have a card of the name that a sandbox's has; its loopback is there in any case.
    let output = program("bench").args(["net", "2", "127.0.0.1", words[2]]).output().unwrap();
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for name in ["round-trip", "out-rate", "in-rate", "connections"] {
        let values = printed.lines().filter_map(|line| line.strip_prefix(&format!("sample {name} ")));
        let values: Vec<f64> = values.map(|value| value.parse().unwrap()).collect();
        assert!(values.len() == 2 && values.iter().all(|value| *value > 0.0), "{name}: {printed}");
    }
    // A client that asks for nothing known, one that goes away, and one that speaks HTTP, twice on one connection.
    let port: u16 = words[2].parse().unwrap();
    assert_eq!(ask(port, "?"), "");
    drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    for _ in 0..2 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n").unwrap();
        let mut answer = [0; 70];
        client.read_exact(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(b"\r\n\r\nhello\n"));
    }
    // Asked to end while a client is connected.
    let pid = server.0.id().to_string();
    assert!(program("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
    for wrong in [&["net"][..], &["net", "1", "name", "1"], &["serve", "70000"]] {
        assert_eq!(program("bench").args(wrong).output().unwrap().status.code(), Some(2), "{wrong:?}");
    }
}
