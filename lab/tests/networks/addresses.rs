//! Addresses: which there are, who has which, what keeps them.

use super::common::Wall;
use super::town::{GREETER, HOST, Town, WORLD};

#[test]
fn a_subnet_of_the_users_choice_gives_the_addresses_that_are_asked_for() {
    let Some(town) = Town::new("container: --subnet", &[Wall::Container]) else { return };
    let flags = [
        "--subnet",
        "172.28.0.0/16",
        "--ip-range",
        "172.28.5.0/30",
        "--gateway",
        "172.28.0.254",
        "--aux-address",
        "printer=172.28.5.2",
        "-o",
        "com.docker.network.driver.mtu=1400",
        "chosen",
    ];
    town.network(&flags);
    let shown = town.says(&["network", "inspect", "-f", "{{json .IPAM.Config}}", "chosen"]);
    for part in [r#""Subnet":"172.28.0.0/16""#, r#""IPRange":"172.28.5.0/30""#, r#""printer":"172.28.5.2""#] {
        assert!(shown.contains(part), "{shown}");
    }
    town.start("chosen-1", &["--network", "chosen"], "sleep 1000");
    town.start("chosen-2", &["--network", "bridge"], "sleep 1000");
    town.says(&["network", "connect", "--ip", "172.28.9.9", "chosen", "chosen-2"]);
    let own = town
        .inside("chosen-1", "busybox ip address show eth0; busybox ip route; busybox ping -c 1 172.28.9.9");
    assert!(own.stdout.contains("172.28.5.0/16") && own.stdout.contains("mtu 1400"), "{own:?}");
    assert!(own.stdout.contains("default via 172.28.0.254") && own.code == 0, "{own:?}");
    // The way out is the first network's, and there is one when that is left.
    let route = || town.inside("chosen-2", "busybox ip route").stdout;
    assert!(route().contains("default via 10.213."), "{}", route());
    town.says(&["network", "disconnect", "bridge", "chosen-2"]);
    assert!(route().contains("default via 172.28.0.254"), "{}", route());
    let greeting =
        town.inside("chosen-2", &format!("busybox timeout 5 busybox nc {WORLD} {GREETER} < /dev/null"));
    assert_eq!(greeting.stdout, format!("{HOST}\n"), "{greeting:?}");
    let asked = ["--network", "chosen", "--ip", "172.28.9.10", "--mac-address", "02:00:00:00:00:07"];
    town.start("chosen-4", &asked, "sleep 1000");
    let shown = town.inside("chosen-4", "busybox ip address show eth0").stdout;
    assert!(shown.contains("172.28.9.10/16") && shown.contains("02:00:00:00:00:07"), "{shown}");
    let nowhere = town.lab(&["run", "--ip", "172.28.9.11", "box", "true"]);
    assert!(nowhere.code == 125 && nowhere.stderr.contains("--network"), "{nowhere:?}");
    // What cannot be had.
    let connect = |ip: &'static str| ["network", "connect", "--ip", ip, "chosen", "chosen-3"];
    town.start("chosen-3", &["--network", "bridge"], "sleep 1000");
    town.network(&["auto"]);
    for (arguments, part) in [
        (&connect("172.28.9.9")[..], "already in use"),
        (&connect("172.29.0.1"), "no configured subnet"),
        (&connect("172.28.0.254"), "gateway"),
        (&connect("nowhere"), "invalid IP address"),
        (&["network", "connect", "--ip", "10.213.0.77", "auto", "chosen-3"], "user configured subnets"),
        (&["network", "create", "--subnet", "172.28.128.0/24", "clash"], "overlaps"),
        (&["network", "create", "--subnet", "172.30.0.0", "clash"], "172.30.0.0"),
        (&["network", "create", "--subnet", "172.30.0.0/16", "--gateway", "10.0.0.1", "clash"], "10.0.0.1"),
    ] {
        let output = town.lab(arguments);
        assert!(output.code != 0 && output.stderr.contains(part), "{arguments:?}: {output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
}

#[test]
fn a_container_keeps_its_address_over_a_restart_and_one_that_needs_it_gets_it() {
    let Some(town) = Town::new("container: addresses that stay", &[Wall::Container]) else { return };
    town.network(&["--subnet", "172.28.0.0/16", "kept"]);
    let address = |name: &str| town.inside(name, "busybox hostname -i").stdout.trim().to_owned();
    town.start("stays", &["--network", "kept"], "trap 'exit 0' TERM; while :; do sleep 0.1; done");
    let first = address("stays");
    town.says(&["stop", "stays"]);
    town.start("later", &["--network", "kept"], "sleep 1000");
    assert_ne!(address("later"), first, "it is kept for one that is stopped");
    town.says(&["start", "stays"]);
    assert_eq!(address("stays"), first);
    // One that insists on it gets it from one that does not run, which has another from then on.
    town.says(&["stop", "stays"]);
    town.start("taker", &["--network", "bridge"], "sleep 1000");
    town.says(&["network", "connect", "--ip", &first, "kept", "taker"]);
    town.says(&["start", "stays"]);
    let second = address("stays");
    assert!(second.starts_with("172.28.") && second != first, "{second}");
}

#[test]
fn a_network_with_ipv6_has_addresses_of_both_families() {
    let Some(town) = Town::new("container: --ipv6", &[Wall::Container]) else { return };
    if std::fs::metadata("/proc/sys/net/ipv6").is_err() {
        let refused = town.lab(&["network", "create", "--ipv6", "six"]);
        assert!(refused.code != 0 && refused.stderr.contains("no IPv6"), "{refused:?}");
        return;
    }
    town.network(&["--ipv6", "--subnet", "fd00:beef::/64", "six"]);
    town.network(&["--ipv6", "local"]);
    let subnet = town.says(&["network", "inspect", "-f", "{{json .IPAM.Config}}", "local"]);
    assert!(subnet.contains(r#""Subnet":"fd"#), "a unique local one: {subnet}");
    town.start("six-1", &["--network", "six"], "sleep 1000");
    town.start("six-2", &["--network", "bridge"], "sleep 1000");
    town.says(&["network", "connect", "--ip6", "fd00:beef::f00d", "six", "six-2"]);
    let seen = town.inside(
        "six-1",
        "busybox ping -6 -c 1 six-2; busybox nslookup -type=aaaa six-2; busybox ip -6 route",
    );
    assert!(seen.stdout.contains("fd00:beef::f00d"), "{seen:?}");
    assert!(seen.stdout.contains("1 packets received") || seen.stdout.contains("1 received"), "{seen:?}");
    assert!(seen.stdout.contains("default via fd00:beef::1"), "{seen:?}");
    let told = town.says(&["inspect", "-f", "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}", "six-2"]);
    assert_eq!(told, "fd00:beef::f00d");
}
