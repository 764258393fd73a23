//! Where the daemon listens: TCP for clients with a certificate, and sockets that systemd hands over.

mod common;

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Lab, Output, Wall, finish, skip};

/// A daemon that ends with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Starts it and reads where it listens.
fn start(command: &mut Command) -> (Daemon, String) {
    let mut child = command.stderr(Stdio::piped()).spawn().expect("lab starts");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("a pipe")).read_line(&mut line).expect("a line");
    (Daemon(child), line)
}

fn missing(what: &str) -> bool {
    let why = Wall::Container.missing().or_else(|| {
        let none = |program: &str| Command::new(program).arg("version").output().is_err();
        if none("openssl") {
            Some("no openssl to make certificates: install openssl")
        } else {
            none("docker").then_some("no docker client: install docker.io")
        }
    });
    why.inspect(|why| skip(what, why)).is_some()
}

fn docker(lab: &Lab, arguments: &[&str]) -> Output {
    let mut command = Command::new("docker");
    command.args(arguments).env("DOCKER_CONFIG", lab.home().join("docker-config"));
    finish(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker starts"),
    )
}

/// A signer, and a certificate of it for the daemon and for a client; another signer with a client of its own.
fn certificates(folder: &Path) {
    let script = r#"
        set -e
        signer() { openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$1" -keyout $1.key -out $1.pem; }
        signed() {
            openssl req -newkey rsa:2048 -nodes -subj "/CN=$2" -keyout $2.key -out $2.csr
            printf "$3" >$2.ext
            openssl x509 -req -in $2.csr -CA $1.pem -CAkey $1.key -CAcreateserial -days 2 -extfile $2.ext -out $2.pem
        }
        signer ca; signer other
        signed ca server "subjectAltName=IP:127.0.0.1"
        signed ca client "extendedKeyUsage=clientAuth"
        signed other stranger "extendedKeyUsage=clientAuth"
    "#;
    let output = Command::new("sh").args(["-c", script]).current_dir(folder).output().expect("sh starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn over_tcp_only_clients_with_a_certificate_are_heard() {
    let what = "container: TCP under TLS";
    if missing(what) {
        return;
    }
    let lab = Lab::empty();
    certificates(lab.home());
    let file = |name: &str| lab.home().join(name).to_string_lossy().into_owned();
    let plain = lab.run(&["daemon", "-H", "tcp://127.0.0.1:0"], "");
    assert!(plain.code != 0 && plain.stderr.contains("--tlsverify"), "{plain:?}");
    let (ca, certificate, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
    let tls = ["--tlsverify", "--tlscacert", &ca, "--tlscert", &certificate, "--tlskey", &key];
    let words = [&["daemon", "-H", "tcp://127.0.0.1:0"][..], &tls].concat();
    let (_daemon, line) = start(&mut lab.command(&words));
    let address =
        line.split_whitespace().find(|word| word.starts_with("tcp://")).expect("an address").to_owned();
    let asks = |client: &str, words: &[&str]| {
        let (certificate, key) = (file(&format!("{client}.pem")), file(&format!("{client}.key")));
        let tls =
            ["--tlsverify", "--tlscacert", &ca, "--tlscert", &certificate, "--tlskey", &key, "-H", &address];
        docker(&lab, &[&tls[..], words].concat())
    };
    let output = asks("client", &["run", "--rm", "-i", "lab", "sh", "-c", "echo hello; exit 3"]);
    assert_eq!((output.code, &*output.stdout), (3, "hello\n"), "{output:?}");
    let output = asks("stranger", &["ps"]);
    assert!(output.code != 0 && output.stdout.is_empty(), "{output:?}");
    let output = docker(&lab, &["-H", &address, "ps"]);
    assert!(output.code != 0, "{output:?}");
}

#[test]
fn a_socket_that_was_handed_over_is_served_and_left_there() {
    let what = "container: socket activation";
    if missing(what) {
        return;
    }
    let lab = Lab::empty();
    let path = lab.home().join("handed.sock");
    let socket = UnixListener::bind(&path).expect("a socket");
    // The shell gives its own number, which exec keeps, and moves the socket to where systemd puts it.
    let script = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" daemon -H fd:// 3<&0 </dev/null"#;
    let model = lab.command(&[""; 0]);
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(model.get_program());
    command.envs(model.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().expect("a descriptor"))));
    let (daemon, line) = start(&mut command);
    assert!(line.contains("fd://"), "{line}");
    let host = format!("unix://{}", path.display());
    let output = docker(&lab, &["-H", &host, "run", "--rm", "lab", "echo", "handed"]);
    assert_eq!(&*output.stdout, "handed\n", "{output:?}");
    drop(daemon);
    assert!(path.exists());
    let none = lab.run(&["daemon", "-H", "fd://"], "");
    assert!(none.code != 0 && none.stderr.contains("systemd"), "{none:?}");
    // Somebody else's port is an error that names it.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp://{}", taken.local_addr().expect("an address"));
    let output = lab.run(&["daemon", "-H", &address, "--insecure-tcp"], "");
    assert!(output.code != 0 && output.stderr.contains(&address[6..]), "{output:?}");
}
