//! A way out of a network, and none between networks: rules of the kernel's packet filter, nf_tables.
//!
//! A container's address means nothing outside of this machine. So what leaves is given the machine's own address, and the
//! answers the container's again (*masquerading*, a kind of network address translation). Each network has two chains of
//! its own in one table, as `nft list table ip lab` shows them, and the same in `ip6 lab` where it has IPv6 addresses:
//!
//! ```text
//!  chain lab-1234abcd-nat { type nat hook postrouting priority 100;
//!     ip saddr 10.213.0.0/24 oifname != "lab-1234abcd" masquerade }
//!  chain lab-1234abcd     { type filter hook forward priority 0;
//!     oifname "lab-1234abcd" iifname != "lab-1234abcd" ct state & (established|related) == 0 drop }    answers only
//! ```
//!
//! The second chain also parts the lab's networks from each other: to each of them the others are outside. In one transaction
//! these rules are said to the kernel as what `nft` would send; how that looks as bytes is in `message.rs`. Published ports
//! need none of it: those are a proxy's.

mod message;

use std::fs;
use std::io;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Error;
use super::error::Context as _;
use message::{
    ACK, CREATE, DELETE_CHAIN, DELETE_RULE, DELETE_TABLE, DUMP, EQUAL, Family, GET_CHAIN, GET_TABLE,
    HOOK_FORWARD, HOOK_POSTROUTING, IN, Message, NEW_TABLE, NOT_EQUAL, OUT, TABLE, chain, drop_it,
    expression, interface, listen, rule, source, talk, unasked,
};

/// A network, as the rules see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zone<'a> {
    /// Its bridge.
    pub bridge: &'a str,
    /// Its addresses.
    pub subnet: Ipv4Net,
    /// Its IPv6 addresses, if it has any.
    pub subnet6: Option<Ipv6Net>,
    /// Whether nothing may leave it.
    pub internal: bool,
    /// Whether what leaves is given the machine's own address.
    pub masquerade: bool,
}

impl Zone<'_> {
    fn blocks(&self) -> impl Iterator<Item = (Family, IpNet)> {
        let six = self.subnet6.map(|net| (Family::Six, net.into()));
        std::iter::once((Family::Four, self.subnet.into())).chain(six)
    }
}

/// Opens the way out of a network, unless that is done; of an internal one, closes it.
///
/// # Errors
/// Where the kernel has no nf_tables, or refuses.
pub(crate) fn open(zone: Zone<'_>) -> Result<(), Error> {
    let what = || format!("the packet filter (nf_tables) for {}", zone.bridge);
    for (family, block) in zone.blocks() {
        if !zone.internal {
            forward(family)?;
        }
        let known = talk(&[Message::new(family, GET_CHAIN, ACK).text(1, TABLE).text(3, zone.bridge)], false);
        match known {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                talk(&rules(zone, family, block), true).context("set up", what())?;
            }
            Err(error) => return Err(error).context("ask", what()),
        }
    }
    Ok(())
}

/// Lets the kernel pass packets on between its interfaces.
fn forward(family: Family) -> Result<(), Error> {
    let path = match family {
        Family::Four => "/proc/sys/net/ipv4/ip_forward",
        Family::Six => "/proc/sys/net/ipv6/conf/all/forwarding",
    };
    if fs::read_to_string(path).context("read", path)?.trim() == "1" {
        return Ok(());
    }
    fs::write(path, "1").context("let packets pass, by", path)
}

/// Removes a network's rules, and the tables with the last of them.
///
/// # Errors
/// Where the kernel refuses; that there are none is no error.
pub(crate) fn close(bridge: &str) -> Result<(), Error> {
    close_family(Family::Four, bridge)?;
    // A kernel without IPv6 has no such tables.
    if exists(Family::Six) { close_family(Family::Six, bridge) } else { Ok(()) }
}

fn close_family(family: Family, bridge: &str) -> Result<(), Error> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.context("remove the packet filter's rules for", bridge),
    };
    for chain in [bridge.to_owned(), nat_chain(bridge)] {
        let flush = Message::new(family, DELETE_RULE, ACK).text(1, TABLE).text(2, &chain);
        let delete = Message::new(family, DELETE_CHAIN, ACK).text(1, TABLE).text(3, &chain);
        gone(talk(&[flush, delete], true))?;
    }
    let chains =
        listen(&Message::new(family, GET_CHAIN, DUMP)).context("list", "the packet filter's chains")?;
    // A dump is of all tables; in a message of a chain the table's name is the first attribute.
    let mut wanted = Vec::new();
    message::attribute(&mut wanted, 1, &message::terminated(TABLE));
    if !chains.iter().any(|message| message.get(4..).is_some_and(|rest| rest.starts_with(&wanted))) {
        gone(talk(&[Message::new(family, DELETE_TABLE, ACK).text(1, TABLE)], true))?;
    }
    Ok(())
}

fn exists(family: Family) -> bool {
    talk(&[Message::new(family, GET_TABLE, ACK).text(1, TABLE)], false).is_ok()
}

/// Why networks have no way out on this machine, if they have none.
pub(crate) fn missing() -> Option<String> {
    // Asking for a table that is not there changes nothing, and every kernel with nf_tables answers.
    match talk(&[Message::new(Family::Four, GET_TABLE, ACK).text(1, TABLE)], false) {
        Ok(()) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(format!(
            "this kernel's packet filter cannot be used (nf_tables: {error}): networks have no way out; published ports work"
        )),
    }
}

fn nat_chain(bridge: &str) -> String {
    format!("{bridge}-nat")
}

/// The transaction that sets a network up, for the packets of one family.
fn rules(zone: Zone<'_>, family: Family, block: IpNet) -> Vec<Message> {
    let (bridge, nat) = (zone.bridge, nat_chain(zone.bridge));
    let leaves = [interface(IN, bridge, EQUAL), interface(OUT, bridge, NOT_EQUAL)];
    let enters = [interface(OUT, bridge, EQUAL), interface(IN, bridge, NOT_EQUAL)];
    let mut rules = vec![
        Message::new(family, NEW_TABLE, CREATE).text(1, TABLE),
        chain(family, bridge, "filter", HOOK_FORWARD, 0),
        chain(family, &nat, "nat", HOOK_POSTROUTING, 100),
    ];
    if zone.internal {
        rules.push(rule(family, bridge, &[&leaves.concat(), &drop_it()]));
        rules.push(rule(family, bridge, &[&enters.concat(), &drop_it()]));
        return rules;
    }
    rules.push(rule(family, bridge, &[&enters.concat(), &unasked(), &drop_it()]));
    if zone.masquerade {
        let ours = [source(block), interface(OUT, bridge, NOT_EQUAL)].concat();
        rules.push(rule(family, &nat, &[&ours, &expression("masq", &[])]));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_networks_rules_come_and_go_as_one_and_the_last_takes_the_table_along() {
        let ran = std::thread::spawn(|| {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                return false;
            }
            let has_six = fs::metadata("/proc/sys/net/ipv6").is_ok();
            let zone = |bridge, subnet: &str, internal| Zone {
                bridge,
                subnet: subnet.parse().unwrap(),
                subnet6: has_six.then(|| "fd00:1::/64".parse().unwrap()),
                internal,
                masquerade: true,
            };
            assert_eq!(missing(), None);
            close("lab-one").unwrap();
            open(zone("lab-one", "10.213.1.0/24", false)).unwrap();
            open(zone("lab-one", "10.213.1.0/24", false)).unwrap();
            open(zone("lab-two", "172.28.16.0/20", true)).unwrap();
            let count = |family: Family, chain: &str| {
                let rules = Message::new(family, 7, DUMP).text(1, TABLE).text(2, chain);
                listen(&rules).unwrap().len()
            };
            let families: &[Family] = if has_six { &[Family::Four, Family::Six] } else { &[Family::Four] };
            for &family in families {
                assert_eq!((count(family, "lab-one"), count(family, "lab-one-nat")), (1, 1));
                assert_eq!((count(family, "lab-two"), count(family, "lab-two-nat")), (2, 0));
            }
            close("lab-one").unwrap();
            assert!(families.iter().all(|family| exists(*family)));
            close("lab-two").unwrap();
            assert!(!families.iter().any(|family| exists(*family)));
            true
        });
        if !ran.join().unwrap() {
            println!("SKIPPED (needs root for a network namespace): rules of the packet filter");
            assert!(std::env::var_os("CI").is_none(), "in CI every test must run");
        }
    }
}
