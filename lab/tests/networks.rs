//! The promises of networks, behind both walls: who finds whom by which name, what is reached from outside, and what leads
//! out. Each test plays the host in a network namespace of its own, and the world around it in another.

mod common;

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{Lab, Output, Wall, image, skip};
use nix::sched::{CloneFlags, unshare};

/// The host's and the world's ends of the cable between them: addresses for documentation (RFC 5737).
const HOST: &str = "192.0.2.1";
const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Where the world greets who comes with the address it is seen under.
const GREETER: u16 = 7000;
/// A name that only the world's DNS server knows.
const FAR: &str = "far.example";

/// How long something may take that does not happen at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host with a world around it, and a lab on it.
struct Town {
    lab: &'static Lab,
    containers: RefCell<Vec<String>>,
    networks: RefCell<Vec<String>>,
    /// The world ends when this is dropped.
    _world: mpsc::Sender<()>,
}

impl Town {
    /// `None`, loudly, where a wall cannot be tried here.
    fn new(what: &str, walls: &[Wall]) -> Option<Self> {
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

    fn lab(&self, arguments: &[&str]) -> Output {
        self.lab.run(arguments, "")
    }

    fn says(&self, arguments: &[&str]) -> String {
        let output = self.lab(arguments);
        assert_eq!(output.code, 0, "lab {arguments:?}: {output:?}");
        output.stdout.trim_end().to_owned()
    }

    fn network(&self, arguments: &[&str]) -> String {
        let id = self.says(&[&["network", "create"], arguments].concat());
        self.networks.borrow_mut().push(id.clone());
        id
    }

    /// Starts one in the background, to be removed at the end.
    fn start(&self, name: &str, flags: &[&str], script: &str) {
        self.containers.borrow_mut().push(name.to_owned());
        let begin = ["run", "-d", "--name", name];
        self.says(&[&begin, flags, &["box", "sh", "-c", script]].concat());
    }

    fn inside(&self, name: &str, script: &str) -> Output {
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

fn tool(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn ip(line: &str) {
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
fn links() -> Vec<String> {
    let output = Command::new("ip").args(["-o", "link"]).output().expect("ip");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let name =
        |line: &str| line.split(": ").nth(1).map(|name| name.split('@').next().unwrap_or(name).to_owned());
    text.lines().filter_map(name).collect()
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        thread::sleep(Duration::from_millis(50));
    }
}

/// What a web server at this address says.
fn ask(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A web server that says one word.
fn server(word: &str) -> String {
    format!("echo {word} > /tmp/index.html; exec busybox httpd -f -p 8080 -h /tmp")
}

/// Asks such a server for its word: the last line of what it says.
fn fetch(host: &str) -> String {
    format!(
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' > /tmp/asked; busybox timeout 10 busybox nc {host} 8080 < /tmp/asked"
    )
}

/// The word that was fetched; nothing where nobody answered.
fn word(output: &Output) -> &str {
    output.stdout.lines().next_back().unwrap_or_default()
}

#[test]
fn a_container_and_a_machine_of_one_network_find_each_other_and_the_world() {
    let Some(town) = Town::new("both walls: one network", &Wall::ALL) else { return };
    let network = town.network(&["both"]);
    let place = ["--network", "both", "--dns", &WORLD.to_string()].map(str::to_owned);
    let place: Vec<&str> = place.iter().map(String::as_str).collect();
    town.start("web", &place, &server("from-the-container"));
    let flags =
        [&["--runtime", "vm", "--network-alias", "engine", "-p", "127.0.0.1::8080"], &place[..]].concat();
    town.start("machine", &flags, &server("from-the-machine"));

    // From the container to the machine, by name and alias; and the other way.
    eventually("the machine's server", || word(&town.inside("web", &fetch("machine"))) == "from-the-machine");
    assert_eq!(word(&town.inside("web", &fetch("engine"))), "from-the-machine");
    let other = town.inside("machine", &format!("cat /etc/hosts; {}", fetch("web")));
    assert_eq!(word(&other), "from-the-container", "{other:?}");
    assert!(other.stdout.contains("10.213."), "its own name has its address: {other:?}");

    // From the host by the published port.
    let port = town.says(&["port", "machine", "8080"]);
    let answer = ask(port.parse().expect("an address")).expect("an answer");
    assert!(answer.ends_with("from-the-machine\n"), "{answer}");

    // To the world, which sees the host; names of the world come from its server.
    let greeting = town.inside("machine", &format!("busybox nc {FAR} {GREETER} < /dev/null"));
    assert_eq!(greeting.stdout, format!("{HOST}\n"), "{greeting:?}");

    let shown = town.says(&["network", "inspect", "-f", "{{json .Containers}}", &network]);
    assert!(shown.contains("\"web\"") && shown.contains("\"machine\""), "{shown}");
    let busy = town.lab(&["network", "rm", "both"]);
    assert!(busy.code != 0 && busy.stderr.contains("active endpoints"), "{busy:?}");
    let late = town.lab(&["network", "connect", "bridge", "machine"]);
    assert!(late.code != 0 && late.stderr.contains("stop it first"), "{late:?}");
    town.says(&["rm", "-f", "web", "machine"]);
    assert_eq!(links(), ["lo", "wan0"], "nothing is left");
}

#[test]
fn a_machine_of_a_snapshot_has_its_own_place_in_the_network() {
    let Some(town) = Town::new("vm: warm in a network", &Wall::ALL) else { return };
    town.network(&["warm"]);
    town.start("served", &["--network", "warm"], &server("served"));
    let run = |name: &str| {
        let always = ["run", "--runtime", "vm", "--warm", "-m", "64m", "--network", "warm", "--name", name];
        let look = "hostname; grep -v localhost /etc/hosts; cat /sys/class/net/eth0/address";
        let script = format!("{look}; {}", fetch("served"));
        let output = town.lab(&[&always[..], &["--hostname", name, "box", "sh", "-c", &script]].concat());
        assert_eq!(output.code, 0, "{output:?}");
        output.stdout
    };
    // The first leaves the snapshot, the others begin from it; one keeps the first's address busy.
    let first = run("first");
    town.start("other", &["--network", "warm"], "sleep 1000");
    let second = run("second");
    for (name, said) in [("first", &first), ("second", &second)] {
        let lines: Vec<&str> = said.lines().collect();
        let [host, own, hardware, .., served] = lines[..] else { panic!("{said}") };
        assert_eq!((host, served), (name, "served"));
        let (address, named) = own.split_once('\t').expect("an address and a name");
        let last: u8 = address.rsplit('.').next().and_then(|last| last.parse().ok()).expect("an address");
        assert_eq!(named, name);
        assert!(hardware.starts_with("02:42:0a:d5:") && hardware.ends_with(&format!("{last:02x}")), "{said}");
    }
    assert_ne!(first.lines().nth(2), second.lines().nth(2), "addresses of their own");
}

#[test]
fn networks_lead_out_to_the_world_but_not_into_each_other_and_internal_ones_nowhere() {
    let Some(town) = Town::new("container: ways out", &[Wall::Container]) else { return };
    town.network(&["one"]);
    town.network(&["two"]);
    town.network(&["--internal", "inner"]);
    let places =
        [("out-1", "one"), ("out-2", "two"), ("in-1", "inner"), ("in-2", "inner"), ("plain", "bridge")];
    for (name, network) in places {
        town.start(name, &["--network", network], &server(name));
    }
    let greet = format!("busybox timeout 5 busybox nc {WORLD} {GREETER} < /dev/null");
    for name in ["out-1", "out-2", "plain"] {
        let output = town.inside(name, &greet);
        assert_eq!(output.stdout, format!("{HOST}\n"), "{name}: {output:?}");
    }
    assert_eq!(town.inside("in-1", &greet).stdout, "", "an internal network leads nowhere");
    let address = |name: &str, network: &str| {
        let template = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
        town.says(&["inspect", "-f", &template, name])
    };
    let ask = |from: &str, host: &str| word(&town.inside(from, &fetch(host))).to_owned();
    let (second, inner) = (address("out-2", "two"), address("in-2", "inner"));
    assert_eq!(ask("in-1", &inner), "in-2", "within it they reach each other");
    for (from, to) in [("out-1", &second), ("out-1", &inner), ("plain", &second)] {
        assert_eq!(ask(from, to), "", "from {from} to {to}");
    }
    // One that is in both networks reaches both, while it runs as well.
    town.says(&["network", "connect", "--alias", "visitor", "two", "out-1"]);
    assert_eq!(ask("out-1", &second), "out-2");
    assert_eq!(ask("out-2", "visitor"), "out-1");
    town.says(&["network", "disconnect", "two", "out-1"]);
    assert_eq!(ask("out-1", &second), "");
}

#[test]
fn the_dns_server_of_a_network_knows_its_names_and_asks_others_for_the_rest() {
    let Some(town) = Town::new("container: names", &[Wall::Container]) else { return };
    town.network(&["names"]);
    let world = WORLD.to_string();
    town.start(
        "first",
        &["--network", "names", "--network-alias", "shared", "--hostname", "box-1"],
        "sleep 1000",
    );
    town.start("second", &["--network", "names", "--network-alias", "shared"], "sleep 1000");
    town.start("asker", &["--network", "names", "--dns", &world], "sleep 1000");
    town.start("elsewhere", &["--network", "bridge"], "sleep 1000");
    let id = town.says(&["inspect", "-f", "{{.Id}}", "first"]);
    let address = town.says(&["inspect", "-f", "{{.NetworkSettings.Networks.names.IPAddress}}", "first"]);
    let lookup = |from: &str, name: &str| town.inside(from, &format!("busybox nslookup {name} 2>&1"));
    let answers = |name: &str| {
        let output = lookup("asker", name);
        // The first address is the server's.
        output.stdout.lines().skip(2).filter(|line| line.starts_with("Address")).count()
    };
    for name in ["first", "FIRST", "first.names", "box-1", &id[..12]] {
        let output = lookup("asker", name);
        assert!(output.stdout.contains(&address), "{name}: {output:?}");
    }
    assert_eq!(answers("shared"), 2, "both of those who share an alias");
    let back = lookup("asker", &address);
    assert!(back.stdout.contains("first.names"), "{back:?}");
    let far = lookup("asker", FAR);
    assert!(far.stdout.contains(&world), "{far:?}");
    let nobody = lookup("asker", "nobody");
    assert!(nobody.code != 0 && nobody.stdout.contains("NXDOMAIN"), "{nobody:?}");
    assert!(!lookup("elsewhere", "first").stdout.contains(&address), "not for those outside");
    // Those who come and go.
    town.says(&["rm", "-f", "second"]);
    assert_eq!(answers("shared"), 1);
    town.says(&["network", "connect", "names", "elsewhere"]);
    assert!(lookup("asker", "elsewhere").stdout.contains("10.213."));
}

#[test]
fn networks_are_made_listed_looked_at_and_pruned() {
    let Some(town) = Town::new("container: lab network", &[Wall::Container]) else { return };
    let id = town.network(&["--label", "tier=front", "--internal", "listed"]);
    assert_eq!(town.says(&["network", "ls", "-q", "--filter", "label=tier=front"]), id[..12]);
    let line = town.says(&[
        "network",
        "ls",
        "--format",
        "{{.Name}} {{.Driver}} {{.Internal}}",
        "--filter",
        "name=listed",
    ]);
    assert_eq!(line, "listed bridge true");
    assert!(town.says(&["network", "ls"]).contains("bridge"));
    assert_eq!(
        town.says(&["network", "inspect", "--format", "{{.Labels.tier}} {{.Id}}", "listed"]),
        format!("front {id}")
    );
    let again = town.lab(&["network", "create", "listed"]);
    assert!(again.code != 0 && again.stderr.contains("already exists"), "{again:?}");
    for (arguments, part) in [
        (&["network", "rm", "bridge"][..], "pre-defined"),
        (&["network", "rm", "nothing"], "nothing"),
        (&["network", "create", "host"], "already exists"),
        (&["network", "ls", "--filter", "colour=red"], "colour"),
        (&["run", "--network", "nothing", "box", "true"], "nothing"),
    ] {
        let output = town.lab(arguments);
        assert!(output.code != 0 && output.stderr.contains(part), "{arguments:?}: {output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
    town.start("user", &["--network", "listed"], "sleep 1000");
    assert_eq!(town.says(&["network", "prune", "-f", "--filter", "label=tier=front"]), "");
    town.says(&["rm", "-f", "user"]);
    assert_eq!(
        town.says(&["network", "prune", "-f", "--filter", "label=tier=front"]),
        "Deleted network: listed"
    );
    assert_eq!(town.says(&["network", "ls", "-q", "--filter", "name=listed"]), "");
}

#[test]
fn a_run_in_the_foreground_publishes_ports_and_leaves_nothing() {
    let Some(town) = Town::new("container: run -p", &[Wall::Container]) else { return };
    let served = town.lab(&[
        "run",
        "-p",
        "127.0.0.1:18080:8080",
        "box",
        "sh",
        "-c",
        "busybox nc -l -p 8080 -e echo hi & sleep 1; exit 3",
    ]);
    assert_eq!((served.code, served.stderr.as_str()), (3, ""), "{served:?}");
    let output = town.lab.run(&["run", "-i", "--network", "bridge", "box", "wc", "-c"], "twelve bytes");
    assert_eq!((output.code, output.stdout.as_str()), (0, "12\n"), "{output:?}");
    assert_eq!(town.says(&["ps", "-aq", "--filter", "status=exited"]), "");
    eventually("the end of the bridge", || links() == ["lo", "wan0"]);
}

#[test]
fn a_machine_is_refused_what_it_cannot_have_before_anything_starts() {
    let Some(town) = Town::new("vm: networks that it cannot have", &[Wall::Container]) else { return };
    for (flags, part) in [
        (&["--network", "host"][..], "--network host"),
        (&["--network", "none", "-p", "80:80"], "--publish"),
        (&["--network", "nothing"], "nothing"),
    ] {
        let output = town.lab(&[&["run", "--runtime", "vm"], flags, &["box", "true"]].concat());
        assert!(output.code == 125 && output.stderr.contains(part), "{flags:?}: {output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
    assert_eq!(links(), ["lo", "wan0"]);
}
