//! What is left when something is killed, and what works where something is missing.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::common::daemon::Daemon;
use super::common::{Lab, Output, Wall};
use super::town::{Town, ask, eventually, links};

/// The monitor of a container: its process's parent.
fn monitor_of(pid: &str) -> Pid {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    Pid::from_raw(parent.trim().parse().expect("a number"))
}

#[test]
fn what_a_killed_monitor_leaves_is_taken_away_by_the_next_start() {
    let Some(town) = Town::new("container: a killed monitor", &[Wall::Container]) else { return };
    town.network(&["crash"]);
    town.start("killed", &["--network", "crash"], "sleep 1000");
    let before = links();
    assert!(before.iter().any(|link| link.starts_with("lv")), "{before:?}");
    let pid = town.says(&["inspect", "-f", "{{.State.Pid}}", "killed"]);
    kill(monitor_of(&pid), Signal::SIGKILL).expect("a monitor");
    // The container is known to be gone as soon as somebody looks, and starts again at its address.
    eventually("the end", || town.says(&["inspect", "-f", "{{.State.Running}}", "killed"]) == "false");
    town.says(&["start", "killed"]);
    let address = town.inside("killed", "busybox ip address show eth0");
    assert!(address.code == 0 && address.stdout.contains("10.213."), "{address:?}");
    town.says(&["rm", "-f", "killed"]);
    assert_eq!(links(), ["lo", "wan0"], "nothing is left");
}

#[test]
fn a_daemon_that_starts_takes_away_what_was_left_when_everything_was_killed() {
    let what = "container: a killed daemon";
    let Some(_town) = Town::new(what, &[Wall::Container]) else { return };
    let Some(mut daemon) = Daemon::start(what) else { return };
    daemon.says(&["network", "create", "left"]);
    daemon.says(&["run", "-d", "--name", "left-1", "--network", "left", "lab", "sleep", "1000"]);
    assert_eq!(links().len(), 4, "a bridge and a cable: {:?}", links());
    let pid = daemon.says(&["inspect", "-f", "{{.State.Pid}}", "left-1"]);
    kill(monitor_of(&pid), Signal::SIGKILL).expect("a monitor");
    // It listens when it has cleared.
    daemon.crash();
    assert_eq!(links(), ["lo", "wan0"], "nobody had to ask");
    daemon.says(&["start", "left-1"]);
    assert_eq!(links().len(), 4, "and it can start again: {:?}", links());
}

#[test]
fn two_labs_with_folders_of_their_own_do_not_get_in_each_others_way() {
    let Some(_town) = Town::new("container: two labs on a host", &[Wall::Container]) else { return };
    let labs = [Lab::empty(), Lab::empty()];
    let run = |lab: &Lab, arguments: &[&str]| -> Output {
        let output = lab.run(arguments, "");
        assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
        output
    };
    // Both would have the same subnet, were each alone.
    let template = "{{.NetworkSettings.Networks.bridge.IPAddress}}";
    let addresses = labs.each_ref().map(|lab| {
        run(
            lab,
            &["run", "-d", "--name", "same", "--network", "bridge", "-p", "127.0.0.1::8080", "lab", "http"],
        );
        run(lab, &["inspect", "-f", template, "same"]).stdout
    });
    assert_ne!(addresses[0], addresses[1]);
    for lab in &labs {
        let address = run(lab, &["port", "same", "8080"]).stdout.trim().parse().expect("an address");
        eventually("the server", || ask(address).is_some_and(|said| said.contains("hello")));
    }
    run(&labs[0], &["rm", "-f", "same"]);
    let left = run(&labs[1], &["exec", "same", "cat", "/proc/net/route"]).stdout;
    assert!(left.contains("eth0"), "one's end is not the other's: {left}");
    run(&labs[1], &["rm", "-f", "same"]);
    assert_eq!(links(), ["lo", "wan0"], "nothing is left");
}
