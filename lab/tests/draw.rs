//! `lab draw` shows what runs, as it is.

mod common;

use std::process::Stdio;
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
    run(&["run", "-d", "--name", "pictured", "-m", "64m", "lab", "sleep", "1000"]);

    let namespaces = run(&["draw", "namespaces", "pictured"]);
    assert!(namespaces.contains("1  sleep  (outside "), "{namespaces}");
    // The user namespace is the host's, the others are its own.
    assert_eq!(namespaces.matches("its own").count(), 6, "{namespaces}");
    let mounts = run(&["draw", "mounts", "pictured"]);
    assert!(mounts.contains("/  overlay") && mounts.contains("/proc  proc"), "{mounts}");
    let cgroups = run(&["draw", "cgroups", "pictured"]);
    assert!(cgroups.contains(" of 64.0 MiB") && cgroups.contains("processes  1 of no limit"), "{cgroups}");
    let network = run(&["draw", "network", "pictured"]);
    assert!(network.contains("its own namespace") && network.contains("lo  0 bytes in"), "{network}");

    let file = lab.home().join("picture.svg");
    run(&["draw", "namespaces", "pictured", "--svg", file.to_str().expect("a text")]);
    let svg = std::fs::read_to_string(file).expect("the picture");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert_eq!(svg.matches("<rect x").count(), namespaces.lines().count());

    run(&["rm", "-f", "pictured"]);
    let gone = lab.run(&["draw", "namespaces", "pictured"], "");
    assert!(gone.code != 0 && gone.stderr.contains("no sandbox 'pictured' runs"), "{}", gone.stderr);
    traces.assert_unchanged();
}

#[test]
fn a_vm_is_drawn_with_its_processors_and_its_memory() {
    if let Some(why) = Wall::Container.missing().or_else(|| Wall::Vm.missing()) {
        return skip("drawing a virtual machine", why);
    }
    let lab = Lab::empty();
    let mut machine = lab
        .command(&["run", "--quiet", "--runtime", "vm", "-m", "96m", "lab", "sleep", "1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("lab starts");
    let begun = Instant::now();
    let picture = loop {
        let output = lab.run(&["draw", "machine"], "");
        // Other tests may have machines of their own on this host: ours has an odd size.
        if output.stdout.contains("guest memory  96.0 MiB") || begun.elapsed() > Duration::from_secs(60) {
            break output.stdout;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    machine.kill().expect("a child of ours");
    machine.wait().expect("a child of ours");
    assert!(picture.contains("vcpu0  (thread ") && picture.contains("guest memory  96.0 MiB"), "{picture}");
    assert!(picture.contains("0x0000100000 … 0x0006000000  RAM, 95.0 MiB"), "{picture}");
}
