//! What is left when something is killed, and what works where something is missing.

use super::common::Wall;
use super::town::{Town, links};

#[test]
fn what_a_killed_monitor_leaves_is_taken_away_by_the_next_start() {
    let Some(town) = Town::new("container: a killed monitor", &[Wall::Container]) else { return };
    town.network(&["crash"]);
    town.start("killed", &["--network", "crash"], "sleep 1000");
    let before = links();
    assert!(before.iter().any(|link| link.starts_with("lv")), "{before:?}");
    let pid = town.says(&["inspect", "-f", "{{.State.Pid}}", "killed"]);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim();
    let monitor = nix::unistd::Pid::from_raw(parent.parse().expect("a number"));
    nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGKILL).expect("a monitor");
    // The container is known to be gone as soon as somebody looks, and starts again at its address.
    super::town::eventually("the end", || {
        town.says(&["inspect", "-f", "{{.State.Running}}", "killed"]) == "false"
    });
    town.says(&["start", "killed"]);
    let address = town.inside("killed", "busybox ip address show eth0");
    assert!(address.code == 0 && address.stdout.contains("10.213."), "{address:?}");
    town.says(&["rm", "-f", "killed"]);
    assert_eq!(links(), ["lo", "wan0"], "nothing is left");
}
