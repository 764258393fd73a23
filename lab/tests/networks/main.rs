//! The promises of networks, behind both walls: who finds whom by which name, what is reached from outside, and what leads
//! out. Each test plays the host in a network namespace of its own, and the world around it in another (`town.rs`).

#[path = "../common/mod.rs"]
mod common;

mod addresses;
mod names;
mod passt;
mod ports;
mod robust;
mod town;

use common::Wall;
use town::{FAR, GREETER, HOST, Town, WORLD, ask, eventually, fetch, links, server, word};

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
    let first = run("warm-1");
    town.start("other", &["--network", "warm"], "sleep 1000");
    let second = run("warm-2");
    for (name, said) in [("warm-1", &first), ("warm-2", &second)] {
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
