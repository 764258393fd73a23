//! Who finds whom by which name.

use super::common::Wall;
use super::town::{FAR, Town, WORLD};

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
fn an_alias_of_several_is_each_in_turn_and_questions_are_answered_over_tcp_as_well() {
    let Some(town) = Town::new("container: round robin", &[Wall::Container]) else { return };
    town.network(&["turns"]);
    for name in ["turn-1", "turn-2"] {
        town.start(name, &["--network", "turns", "--network-alias", "both"], "sleep 1000");
    }
    town.start("taker-of-turns", &["--network", "turns"], "sleep 1000");
    let template = "{{.NetworkSettings.Networks.turns.IPAddress}}";
    let addresses = ["turn-1", "turn-2"].map(|name| town.says(&["inspect", "-f", template, name]));
    // Each comes first at times.
    let script = "for i in $(busybox seq 40); do busybox nslookup -type=a both | busybox grep Address | busybox sed -n 2p; done";
    let first = town.inside("taker-of-turns", script).stdout;
    for address in &addresses {
        assert!(first.contains(address.as_str()), "{address} in {first}");
    }
    // A question as RFC 1035 has it, sections 4.1 and 4.2.2: its length, its head, the name, A, IN.
    let question = r"\0\36\0\7\1\0\0\1\0\0\0\0\0\0\6turn-1\5turns\0\0\1\0\1";
    let server = "$(busybox sed -n s/nameserver.//p /etc/resolv.conf)";
    let over = format!(
        "printf '{question}' > /tmp/q; busybox timeout 10 busybox nc {server} 53 < /tmp/q | busybox od -An -tu1"
    );
    let bytes = town.inside("taker-of-turns", &over).stdout;
    let bytes: Vec<&str> = bytes.split_whitespace().collect();
    let own: Vec<&str> = addresses[0].split('.').collect();
    assert!(bytes.len() > 20 && bytes.windows(4).any(|four| four == own), "{own:?} in {bytes:?}");
}

#[test]
fn a_link_tells_a_container_where_another_is() {
    let Some(town) = Town::new("container: --link", &[Wall::Container]) else { return };
    town.network(&["linked"]);
    town.start("linked-db", &["--network", "linked"], "sleep 1000");
    town.start("linked-web", &["--network", "linked"], "sleep 1000");
    town.says(&["network", "disconnect", "linked", "linked-web"]);
    town.says(&["network", "connect", "--link", "linked-db:store", "linked", "linked-web"]);
    let found = town.inside("linked-web", "busybox nslookup store");
    assert_eq!(found.code, 0, "{found:?}");
    let other = town.inside("linked-db", "busybox nslookup store");
    assert_ne!(other.code, 0, "the name is its owner's alone: {other:?}");
}

#[test]
fn who_is_in_another_containers_network_has_its_names_and_addresses() {
    let Some(town) = Town::new("container: --network container:", &[Wall::Container]) else { return };
    town.network(&["shared-net"]);
    town.start("sharer", &["--network", "shared-net", "--hostname", "house"], "sleep 1000");
    town.start("guest", &["--network", "container:sharer"], "sleep 1000");
    let look = "hostname; busybox ip -o -4 address show eth0 | busybox tr -s ' ' | busybox cut -d ' ' -f 4; cat /etc/hosts";
    let (own, guests) = (town.inside("sharer", look), town.inside("guest", look));
    assert_eq!(own.stdout, guests.stdout);
    assert!(guests.stdout.starts_with("house\n10.213.") && guests.stdout.contains("sharer"), "{guests:?}");
    let nobody = town.lab(&["run", "--network", "container:nobody-at-all", "box", "true"]);
    assert!(nobody.code == 125 && nobody.stderr.contains("nobody-at-all"), "{nobody:?}");
}
