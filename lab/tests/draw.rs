//! `lab draw` shows what runs, as it is.

mod common;

use std::time::{Duration, Instant};

use common::leftovers::Traces;
use common::{Lab, Wall, skip};

#[test]
fn a_container_is_drawn_with_its_namespaces_mounts_limits_and_interfaces() {
    if let Some(why) = Wall::Container.missing() {
        return skip("drawing a container", why);
    }
    let lab = Lab::empty();
    let traces = Traces::of(lab.home());
    let run = |arguments: &[&str]| {
        let output = lab.run(arguments, "");
        assert_eq!(output.code, 0, "{arguments:?}: {}", output.stderr);
        output.stdout
    };
    run(&["network", "create", "drawn"]);
    run(&["run", "-d", "--name", "pictured", "--network", "drawn", "-m", "64m", "lab", "sleep", "1000"]);
    run(&["exec", "-d", "pictured", "sleep", "1000"]);

    let namespaces = run(&["draw", "namespaces", "pictured"]);
    assert!(namespaces.contains("1  sleep  (outside "), "{namespaces}");
    // The user namespace is the host's, the others are its own.
    assert_eq!(namespaces.matches("its own").count(), 6, "{namespaces}");
    let mounts = run(&["draw", "mounts", "pictured"]);
    assert!(mounts.contains("/  overlay") && mounts.contains("/proc  proc"), "{mounts}");
    let cgroups = run(&["draw", "cgroups", "pictured"]);
    assert!(cgroups.contains(" of 64.0 MiB") && cgroups.contains("processes  2 of no limit"), "{cgroups}");
    let network = run(&["draw", "network", "pictured"]);
    assert!(network.contains("its own namespace") && network.contains("lo  127.0.0.1/8  "), "{network}");
    // Its address, the host's end of its cable, and the way to all others.
    let record: serde_json::Value = serde_json::from_str(&run(&["inspect", "pictured"])).expect("JSON");
    let inside = &record[0]["NetworkSettings"]["Networks"]["drawn"];
    let (address, gateway) = (inside["IPAddress"].as_str(), inside["Gateway"].as_str());
    let (address, gateway) = (address.expect("an address"), gateway.expect("a gateway"));
    assert!(network.contains(&format!("eth0  {address}/24  ")), "{network}");
    assert!(network.contains(" on the host, at the bridge lab-"), "{network}");
    assert!(network.contains(&format!("everything else by {gateway}")), "{network}");
    // Without a kind: every picture of it.
    let all = run(&["draw", "pictured"]);
    for title in ["namespaces\n", "mounts\n", "control groups\n", "network\n"] {
        assert!(all.contains(title), "{all}");
    }

    let file = lab.home().join("picture.svg");
    run(&["draw", "namespaces", "pictured", "--svg", file.to_str().expect("a text")]);
    let svg = std::fs::read_to_string(file).expect("the picture");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert_eq!(svg.matches("<rect x").count(), namespaces.lines().count());

    run(&["rm", "-f", "pictured"]);
    run(&["network", "rm", "drawn"]);
    let gone = lab.run(&["draw", "namespaces", "pictured"], "");
    assert!(gone.code != 0 && gone.stderr.contains("no sandbox 'pictured' runs"), "{}", gone.stderr);
    traces.assert_unchanged();
}

#[test]
fn a_vm_is_drawn_with_its_processors_its_memory_and_its_queues() {
    if let Some(why) = Wall::Container.missing().or_else(|| Wall::Vm.missing()) {
        return skip("drawing a virtual machine", why);
    }
    let lab = Lab::empty();
    let traces = Traces::of(lab.home());
    let script = "echo up; sleep 1000";
    let started = lab.run(
        &["run", "-d", "--name", "drawn", "--runtime", "vm", "-m", "96m", "lab", "sh", "-c", script],
        "",
    );
    assert_eq!(started.code, 0, "{}", started.stderr);
    let begun = Instant::now();
    while !lab.run(&["logs", "drawn"], "").stdout.contains("up") {
        assert!(begun.elapsed() < Duration::from_secs(120), "the workload never spoke");
        std::thread::sleep(Duration::from_millis(50));
    }
    let picture = lab.run(&["draw", "machine", "drawn"], "").stdout;
    assert!(picture.contains("vcpu0  (thread ") && picture.contains("guest memory  96.0 MiB"), "{picture}");
    assert!(picture.contains("0x0000100000 … 0x0006000000  RAM, 95.0 MiB"), "{picture}");
    assert!(
        picture.contains("0x00d0000000  block, called ") && picture.contains("console, called "),
        "{picture}"
    );
    // The disk's queue was used, and the device has given back what it was given.
    let block = picture.split("block, called").nth(1).and_then(|rest| rest.split("console, called").next());
    let block = block.expect("the disk's part");
    assert!(block.contains("queue 0: 0 chains wait, the device holds 0"), "{block}");
    let index = |ring: &str| -> u32 {
        let rest = block.split(ring).nth(1).expect("the ring");
        rest.lines().next().and_then(|line| line.split(' ').next_back()?.parse().ok()).expect("an index")
    };
    let (offered, returned) =
        (index("available ring, the driver's: index"), index("used ring, the device's: index"));
    assert!(offered > 0 && offered == returned, "{block}");
    assert_eq!(lab.run(&["rm", "-f", "drawn"], "").code, 0);
    traces.assert_unchanged();
}
