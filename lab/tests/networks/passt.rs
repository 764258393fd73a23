//! Networks without rights: a program's own sockets instead of devices of the host.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::common::{Output, Wall, finish, skip};
use super::town::{GREETER, HOST, Town, WORLD, ask, eventually, ip, links, server, tool};

/// Nobody: a user whom no file belongs to.
const NOBODY: u32 = 65534;

#[test]
fn a_machine_without_a_device_of_the_host_reaches_the_world_by_passt_and_is_reached() {
    let Some(town) = Town::new("vm: passt", &Wall::ALL) else { return };
    if !tool("passt", &["--version"]) {
        return skip("vm: passt", "no passt: install it");
    }
    // It wants to know by which interface the world is reached.
    ip(&format!("route add default via {WORLD}"));
    let flags = ["--runtime", "vm", "--network", "passt", "-p", "127.0.0.1::8080"];
    town.start("passt-vm", &flags, &server("by-sockets"));
    assert_eq!(links(), ["lo", "wan0"], "no device of the host");
    let greet = format!("busybox timeout 20 busybox nc {WORLD} {GREETER} < /dev/null");
    let greeting = town.inside("passt-vm", &greet);
    assert_eq!(greeting.stdout, format!("{HOST}\n"), "{greeting:?}");
    let address = town.says(&["port", "passt-vm", "8080"]).parse().expect("an address");
    let mut answer = None;
    eventually("an answer", || {
        answer = ask(address).filter(|answer| !answer.is_empty());
        answer.is_some()
    });
    assert!(answer.as_deref().is_some_and(|answer| answer.ends_with("by-sockets\n")), "{answer:?}");
    town.says(&["rm", "-f", "passt-vm"]);
    assert!(ask(address).is_none(), "the program has ended with its machine");
    let container = town.lab(&["run", "--network", "passt", "box", "true"]);
    assert!(container.code == 125 && container.stderr.contains("takes bridge"), "{container:?}");
}

#[test]
fn a_container_of_a_user_without_root_reaches_the_world_by_pasta() {
    let what = "container: pasta";
    let Some(_town) = Town::new(what, &[Wall::Container]) else { return };
    if !tool("pasta", &["--version"]) {
        return skip(what, "no pasta: install passt");
    }
    ip(&format!("route add default via {WORLD}"));
    // Where /dev/net/tun is root's alone, this thread sees another, which is everybody's as it usually is.
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    for line in [
        "mount --make-rprivate /",
        "mount -t tmpfs -o mode=755 tun /dev/net",
        "mknod -m 666 /dev/net/tun c 10 200",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(tool(words[0], &words[1..]), "{line}");
    }
    let home = tempfile::Builder::new().prefix("lab-test-").tempdir().expect("a temporary directory");
    let program = home.path().join("lab");
    fs::copy(env!("CARGO_BIN_EXE_lab"), &program).expect("a copy of lab");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its rights");
    chown(home.path(), Some(NOBODY), Some(NOBODY)).expect("a home of nobody's");
    let lab = |arguments: &[&str]| -> Output {
        let mut command = Command::new(&program);
        command.args(arguments).env_clear().env("HOME", home.path()).env("PATH", "/usr/bin:/bin");
        command.env("XDG_RUNTIME_DIR", home.path().join("run")).env("NO_COLOR", "1").current_dir("/");
        command.uid(NOBODY).gid(NOBODY);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command.spawn().expect("lab starts"))
    };
    let started = lab(&["run", "-d", "--name", "pasta-1", "--network", "passt", "lab", "sleep", "1000"]);
    assert_eq!(started.code, 0, "{started:?}");
    let pid = lab(&["inspect", "-f", "{{.State.Pid}}", "pasta-1"]).stdout.trim().to_owned();
    let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("it runs");
    let greeting = thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("the container's network");
        let mut greeting = String::new();
        let mut stream = TcpStream::connect((WORLD, GREETER)).expect("a way to the world");
        stream.read_to_string(&mut greeting).expect("a greeting");
        greeting
    });
    let greeting = greeting.join();
    let resolv = lab(&["exec", "pasta-1", "cat", "/etc/resolv.conf"]).stdout;
    let removed = lab(&["rm", "-f", "pasta-1"]);
    assert_eq!(greeting.expect("a greeting"), format!("{HOST}\n"));
    assert!(resolv.contains("nameserver 10.0.2.3"), "{resolv}");
    assert_eq!((removed.code, links()), (0, vec!["lo".to_owned(), "wan0".to_owned()]), "{removed:?}");
    let network = lab(&["network", "create", "mine"]);
    assert!(network.code != 0 && network.stderr.contains("--network passt"), "{network:?}");
}
