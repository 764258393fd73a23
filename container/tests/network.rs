//! Network devices of the host that a container takes over, tried in a network namespace that stands for the host's.

mod common;

use std::process::Command;

use common::{Bundle, run_to_end, traces};
use container::Exit;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::{Value, json};

/// Gives this thread, which plays the host, a network namespace of its own.
fn host() {
    // SAFETY: only the network namespace changes; CLONE_FILES is not among the flags (unshare(2)).
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
}

fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A host with a pair of devices, the first of which has addresses: two that last, one that is not valid everywhere.
fn pair() {
    host();
    ip("link add wire0 type veth peer name wire1");
    ip("link set wire0 mtu 1400");
    ip("addr add 192.0.2.7/24 dev wire0");
    ip("addr add 2001:db8::7/64 dev wire0 nodad");
    ip("addr add 10.9.9.9/8 dev wire0 scope link");
}

fn bundle(script: &str, devices: Value) -> Bundle {
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    bundle.config["linux"]["netDevices"] = devices;
    bundle
}

#[test]
fn a_device_comes_with_its_addresses_under_another_name_and_up() {
    needs_program!("ip", "iproute2");
    pair();
    let bundle = bundle(
        "ls /sys/class/net; ip addr show net0; cat /sys/class/net/net0/mtu",
        json!({"wire0": {"name": "net0"}}),
    );
    let (exit, text) = bundle.run();
    assert_eq!(exit, Exit::Code(0), "{text}");
    assert!(text.starts_with("lo\nnet0\n") && text.ends_with("1400\n"), "{text}");
    for part in ["192.0.2.7/24", "2001:db8::7/64", ",UP"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("10.9.9.9"), "an address of the link only stays behind: {text}");
    // The namespace is gone, and with it a virtual device.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while ip("link").contains("wire1") && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!ip("link").contains("wire"));
    assert_eq!(traces(&bundle), [].into());
}

#[test]
fn a_name_can_be_kept_or_numbered_by_the_kernel() {
    needs_program!("ip", "iproute2");
    pair();
    let (exit, text) = bundle("ls /sys/class/net", json!({"wire0": {}, "wire1": {"name": "eth%d"}})).run();
    assert_eq!((exit, text.as_str()), (Exit::Code(0), "eth0\nlo\nwire0\n"));
}

#[test]
fn a_container_with_users_of_its_own_gets_devices_too() {
    needs_program!("ip", "iproute2");
    pair();
    let mut bundle = bundle("ls /sys/class/net", json!({"wire0": {}}));
    common::user_namespace(&mut bundle, 100_000);
    let (exit, text) = run_to_end(bundle.create().unwrap());
    assert_eq!((exit, text.as_str()), (Exit::Code(0), "lo\nwire0\n"));
}

#[test]
fn where_create_fails_the_devices_go_back_as_they_were() {
    needs_program!("ip", "iproute2");
    pair();
    for (devices, word) in [
        (json!({"wire0": {}, "wire9": {}}), "linux.netDevices[\"wire9\"]: there is no such device"),
        (
            json!({"wire0": {}, "wire1": {"name": "lo"}}),
            "linux.netDevices[\"wire1\"]: the container's network namespace has",
        ),
        (json!({"lo": {"name": "x"}}), "linux.netDevices[\"lo\"]: "),
        (json!({"wire0": {"name": "net0"}}), "no such file"),
    ] {
        let mut bundle = bundle("true", devices);
        if word == "no such file" {
            bundle.config["process"]["args"] = json!(["/bin/nonesuch"]); // found out after the devices have moved
        }
        let error = bundle.create().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        let shown = ip("addr show wire0");
        for part in ["192.0.2.7/24", "2001:db8::7/64", "mtu 1400"] {
            assert!(shown.contains(part), "{part} after {word}: {shown}");
        }
        assert!(ip("link").contains("wire1"));
        assert_eq!(traces(&bundle), [].into());
    }
    let mut bundle = bundle("true", json!({"wire0": {}}));
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|namespace| namespace["type"] != "network");
    let error = bundle.create().map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("linux.netDevices: needs a namespace"), "{error}");
}
