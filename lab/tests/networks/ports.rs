//! Published ports: what is reached from outside.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::common::Wall;
use super::town::{Town, ask, eventually, links, server};

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
fn datagrams_find_their_way_in_and_back() {
    let Some(town) = Town::new("container: -p /udp", &[Wall::Container]) else { return };
    town.network(&["datagrams"]);
    town.start("echo", &["--network", "datagrams", "-p", "127.0.0.1::5300/udp"], "sleep 1000");
    let pid = town.says(&["inspect", "-f", "{{.State.Pid}}", "echo"]);
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("it runs");
    let inside = thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("the container's network");
        UdpSocket::bind("0.0.0.0:5300").expect("a port inside")
    });
    let inside = inside.join().expect("a socket");
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = inside.recv_from(&mut buffer) {
            let _ = inside.send_to(&buffer[..len], from);
        }
    });
    let address = town.says(&["port", "echo", "5300/udp"]);
    for word in ["one", "two"] {
        let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        client.set_read_timeout(Some(Duration::from_secs(2))).expect("a patient socket");
        let mut buffer = [0; 64];
        eventually("an echo", || {
            client.send_to(word.as_bytes(), &address).expect("an address");
            client.recv(&mut buffer).is_ok_and(|len| &buffer[..len] == word.as_bytes())
        });
    }
}

#[test]
fn of_a_range_of_ports_each_container_has_another_and_what_is_taken_is_refused() {
    let Some(town) = Town::new("container: -p with a range", &[Wall::Container]) else { return };
    for name in ["range-1", "range-2"] {
        town.start(name, &["-p", "127.0.0.1:18100-18101:8080"], &server(name));
        let address = town.says(&["port", name, "8080"]);
        eventually("the server", || {
            ask(address.parse().expect("an address")).is_some_and(|said| said.ends_with(&format!("{name}\n")))
        });
    }
    let third = town.lab(&["run", "-p", "127.0.0.1:18100-18101:8080", "box", "true"]);
    assert!(third.code == 125 && third.stderr.contains("already allocated"), "{third:?}");
    assert_eq!(third.stderr.lines().count(), 1, "{third:?}");
    town.says(&["rm", "-f", "range-1", "range-2"]);
    assert!(ask("127.0.0.1:18100".parse().expect("an address")).is_none());
}

#[test]
fn a_container_that_changes_its_network_is_reached_in_the_new_one() {
    let Some(town) = Town::new("container: -p after connect", &[Wall::Container]) else { return };
    town.network(&["before"]);
    town.network(&["after"]);
    town.start("mover", &["--network", "before", "-p", "127.0.0.1::8080"], &server("moved"));
    let address = town.says(&["port", "mover", "8080"]).parse().expect("an address");
    let is_there = || ask(address).is_some_and(|said| said.ends_with("moved\n"));
    eventually("the server", is_there);
    town.says(&["network", "disconnect", "before", "mover"]);
    town.says(&["network", "connect", "after", "mover"]);
    eventually("the server in its new network", is_there);
    assert_eq!(links().iter().filter(|link| link.starts_with("lab-")).count(), 1, "{:?}", links());
}

#[test]
fn what_is_exposed_is_published_where_the_host_chooses() {
    let Some(town) = Town::new("container: run -P", &[Wall::Container]) else { return };
    town.start("exposed", &["-P", "--expose", "8080"], &server("exposed"));
    let address = town.says(&["port", "exposed", "8080"]);
    let first = address.lines().next().expect("a line").replace("0.0.0.0", "127.0.0.1");
    let first = first.parse().expect("an address");
    eventually("the server", || ask(first).is_some_and(|said| said.ends_with("exposed\n")));
}
