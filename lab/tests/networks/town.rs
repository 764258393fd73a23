//! A host with a world around it, to try networks on.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use super::common::{Lab, Output, Wall, image, skip};

/// The host's and the world's ends of the cable between them: addresses for documentation (RFC 5737).
pub const HOST: &str = "192.0.2.1";
pub const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Where the world greets who comes with the address it is seen under.
pub const GREETER: u16 = 7000;
/// A name that only the world's DNS server knows.
pub const FAR: &str = "far.example";

/// How long something may take that does not happen at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A host with a world around it, and a lab on it.
pub struct Town {
    pub lab: &'static Lab,
    containers: RefCell<Vec<String>>,
    networks: RefCell<Vec<String>>,
    /// The world ends when this is dropped.
    _world: mpsc::Sender<()>,
}

impl Town {
    /// `None`, loudly, where a wall cannot be tried here.
    pub fn new(what: &str, walls: &[Wall]) -> Option<Self> {
        let missing = walls.iter().find_map(|wall| wall.missing()).or_else(image::missing);
        if let Some(why) = missing.or_else(|| (!tool("ip", &["-V"])).then_some("no ip: install iproute2")) {
            skip(what, why);
            return None;
        }
        let lab = Lab::shared();
        // From here on this thread, and what it starts, is on another host.
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        ip("link set lo up");
        let (world, end) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || live(&tell, &end));
        let there: i32 = told.recv().expect("the world begins");
        ip(&format!("link add wan0 type veth peer name lan0 netns {there}"));
        ip(&format!("address add {HOST}/24 dev wan0"));
        ip("link set wan0 up");
        told.recv().expect("the world goes on");
        Some(Self { lab, containers: RefCell::default(), networks: RefCell::default(), _world: world })
    }

    pub fn lab(&self, arguments: &[&str]) -> Output {
        self.lab.run(arguments, "")
    }

    pub fn says(&self, arguments: &[&str]) -> String {
        let output = self.lab(arguments);
        assert_eq!(output.code, 0, "lab {arguments:?}: {output:?}");
        output.stdout.trim_end().to_owned()
    }

    pub fn network(&self, arguments: &[&str]) -> String {
        let id = self.says(&[&["network", "create"], arguments].concat());
        self.networks.borrow_mut().push(id.clone());
        id
    }

    /// Starts one in the background, to be removed at the end.
    pub fn start(&self, name: &str, flags: &[&str], script: &str) {
        self.containers.borrow_mut().push(name.to_owned());
        let begin = ["run", "-d", "--name", name];
        self.says(&[&begin, flags, &["box", "sh", "-c", script]].concat());
    }

    pub fn inside(&self, name: &str, script: &str) -> Output {
        self.lab(&["exec", name, "sh", "-c", script])
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        for name in self.containers.take() {
            self.lab(&["rm", "-f", &name]);
        }
        for id in self.networks.take() {
            self.lab(&["network", "rm", "-f", &id]);
        }
    }
}

pub fn tool(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

pub fn ip(line: &str) {
    let arguments: Vec<&str> = line.split(' ').collect();
    assert!(tool("ip", &arguments), "ip {line}");
}

/// The world: a greeter, and a DNS server that knows one name. It has no way to any address but the host's own.
fn live(tell: &mpsc::Sender<i32>, end: &mpsc::Receiver<()>) {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    let _ = tell.send(nix::unistd::gettid().as_raw());
    let begun = Instant::now();
    while !tool("ip", &["link", "show", "lan0"]) {
        assert!(begun.elapsed() < PATIENCE, "no cable");
        thread::sleep(Duration::from_millis(10));
    }
    ip(&format!("address add {WORLD}/24 dev lan0"));
    ip("link set lan0 up");
    let greeter = TcpListener::bind((WORLD, GREETER)).expect("a port");
    thread::spawn(move || {
        for mut client in greeter.incoming().flatten() {
            let from = client.peer_addr().expect("a peer");
            let _ = client.write_all(format!("{}\n", from.ip()).as_bytes());
        }
    });
    let names = UdpSocket::bind((WORLD, 53)).expect("a port");
    thread::spawn(move || answer(&names));
    let _ = tell.send(0);
    let _ = end.recv();
}

/// Answers every question about [`FAR`] with the world's address, and others by their absence.
fn answer(socket: &UdpSocket) {
    let mut question = [0; 512];
    while let Ok((len, from)) = socket.recv_from(&mut question) {
        let mut reply = question[..len].to_vec();
        let knows = reply.windows(11).any(|bytes| bytes == b"\x03far\x07exampl");
        let is_a = reply.get(len - 4..len - 2) == Some(&[0, 1]);
        // A response with recursion; name error where the name is not known (RFC 1035, section 4.1.1).
        reply[2..4].copy_from_slice(&[0x81, if knows { 0x80 } else { 0x83 }]);
        if knows && is_a {
            reply[7] = 1;
            // The name as in the question, A, IN, 60 seconds, four bytes.
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            reply.extend(WORLD.octets());
        }
        let _ = socket.send_to(&reply, from);
    }
}

/// The links of this host, by name.
pub fn links() -> Vec<String> {
    let output = Command::new("ip").args(["-o", "link"]).output().expect("ip");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let name =
        |line: &str| line.split(": ").nth(1).map(|name| name.split('@').next().unwrap_or(name).to_owned());
    text.lines().filter_map(name).collect()
}

pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        thread::sleep(Duration::from_millis(50));
    }
}

/// What a web server at this address says.
pub fn ask(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A web server that says one word.
pub fn server(word: &str) -> String {
    format!("echo {word} > /tmp/index.html; exec busybox httpd -f -p 8080 -h /tmp")
}

/// Asks such a server for its word: the last line of what it says.
pub fn fetch(host: &str) -> String {
    format!(
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' > /tmp/asked; busybox timeout 10 busybox nc {host} 8080 < /tmp/asked"
    )
}

/// The word that was fetched; nothing where nobody answered.
pub fn word(output: &Output) -> &str {
    output.stdout.lines().next_back().unwrap_or_default()
}
