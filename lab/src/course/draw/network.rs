//! Interfaces of a sandbox, with addresses, and where their cables end on the host.

use std::fs;
use std::net::Ipv4Addr;

use super::super::look::Look;
use super::{Kind, Node, Sandbox};

/// Where the kernel shows its interfaces: those of the network namespace of whoever mounted it (sysfs(5)).
const INTERFACES: &str = "/sys/class/net";

/// What a sandbox has of networks; nothing for a machine without a card.
pub(super) fn network(sandbox: &Sandbox) -> Vec<Node> {
    match sandbox.kind {
        Kind::Container => container(sandbox),
        Kind::Machine => host_ends(&sandbox.id)
            .into_iter()
            .map(|end| Node::new("a network card of the guest").with([end]))
            .collect(),
    }
}

fn container(sandbox: &Sandbox) -> Vec<Node> {
    let first = &sandbox.processes[0];
    if first.namespace("net") == Look::at(std::process::id() as i32).namespace("net") {
        return vec![Node::new("the host's own interfaces").with(interfaces(first, Vec::new()))];
    }
    vec![Node::new("its own namespace").with(interfaces(first, host_ends(&sandbox.id)))]
}

/// The interfaces of a process's network namespace (`/proc/PID/net/dev`: two head lines, then one each), each with its end
/// on the host: the lab plugs them in one after the other, `lo` has none.
fn interfaces(process: &Look, ends: Vec<Node>) -> Vec<Node> {
    let read = |file: &str| fs::read_to_string(process.path("net").join(file)).unwrap_or_default();
    let (devices, routes) = (read("dev"), Route::all(&read("route")));
    let (own, six) = (own_addresses(&read("fib_trie")), read("if_inet6"));
    let mut ends = ends.into_iter();
    let mut nodes: Vec<Node> = devices
        .lines()
        .skip(2)
        .filter_map(|line| {
            let (name, numbers) = line.split_once(':')?;
            let name = name.trim();
            let numbers: Vec<&str> = numbers.split_whitespace().collect();
            let (received, sent) = (numbers.first()?, numbers.get(8)?);
            let addresses = addresses(name, &own, &routes, &six);
            let text = format!("{name}  {addresses}{received} bytes in, {sent} out");
            Some(Node::new(text).with(if name == "lo" { None } else { ends.next() }))
        })
        .collect();
    let ways = routes.iter().filter(|route| route.gateway != Ipv4Addr::UNSPECIFIED && route.bits == 0);
    nodes.extend(ways.map(|route| Node::new(format!("everything else by {}", route.gateway))));
    nodes
}

/// An interface's addresses: those of IPv4 are told apart by the network that is reached through it.
fn addresses(name: &str, own: &[Ipv4Addr], routes: &[Route], six: &str) -> String {
    let through = routes.iter().filter(|route| route.interface == name && route.bits > 0);
    let mut all: Vec<String> = through
        .flat_map(|route| {
            let inside = own.iter().filter(|address| route.holds(**address));
            inside.map(|address| format!("{address}/{}", route.bits))
        })
        .collect();
    if name == "lo" {
        all.extend(own.iter().filter(|address| address.is_loopback()).map(|address| format!("{address}/8")));
    }
    // if_inet6: address, index, length, scope (0x20 is that of the link), flags, name; all but the name hexadecimal.
    all.extend(six.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, _, length, scope, _, interface] = fields[..] else { return None };
        let address = std::net::Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
        let length = u8::from_str_radix(length, 16).ok()?;
        (interface == name && scope != "20").then(|| format!("{address}/{length}"))
    }));
    all.into_iter().map(|address| address + "  ").collect()
}

/// The addresses that are the namespace's own: in `/proc/net/fib_trie` a leaf before a line `/32 host LOCAL`.
fn own_addresses(text: &str) -> Vec<Ipv4Addr> {
    let (mut found, mut last) = (Vec::new(), None);
    for line in text.lines().map(str::trim) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            last = leaf.parse().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(last.filter(|address| !found.contains(address)));
        }
    }
    found
}

/// A line of `/proc/net/route`, whose numbers are hexadecimal, their bytes in the order of this machine.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    interface: String,
    destination: Ipv4Addr,
    gateway: Ipv4Addr,
    bits: u32,
}

impl Route {
    fn all(text: &str) -> Vec<Self> {
        let address = |field: &str| Some(Ipv4Addr::from(u32::from_str_radix(field, 16).ok()?.to_ne_bytes()));
        let read = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            Some(Self {
                interface: (*fields.first()?).to_owned(),
                destination: address(fields.get(1)?)?,
                gateway: address(fields.get(2)?)?,
                bits: u32::from(address(fields.get(7)?)?).count_ones(),
            })
        };
        text.lines().skip(1).filter_map(read).collect()
    }

    fn holds(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
        u32::from(address) & mask == u32::from(self.destination)
    }
}

/// The host's ends of a sandbox's cables: the engine names them by the beginning of its id.
fn host_ends(id: &str) -> Vec<Node> {
    let Some(start) = id.get(..6).filter(|_| id.len() == 64) else { return Vec::new() };
    let entries = fs::read_dir(INTERFACES).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("lv") && name.ends_with(start))
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let bridge = fs::read_link(format!("{INTERFACES}/{name}/master")).ok();
            let bridge = bridge.and_then(|path| path.file_name()?.to_str().map(str::to_owned));
            Node::new(match bridge {
                Some(bridge) => format!("{name} on the host, at the bridge {bridge}"),
                None => format!("{name} on the host"),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_proc_and_belong_to_the_interface_of_their_network() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.213.0.2\n        \
                    /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\nLocal:\n     |-- 10.213.0.2\n        \
                    /32 host LOCAL\n";
        let own = own_addresses(trie);
        assert_eq!(own, [Ipv4Addr::new(10, 213, 0, 2), Ipv4Addr::LOCALHOST]);
        let text = "Iface\tDestination\tGateway\nlan\t00000000\t0100D50A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    lan\t0000D50A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let routes = Route::all(text);
        assert_eq!((routes[0].gateway, routes[0].bits), (Ipv4Addr::new(10, 213, 0, 1), 0));
        let six = "fd000000000000000000000000000002 02 40 00 80      lan\n\
                   fe800000000000000042acfffe110002 02 40 20 80      lan\n";
        assert_eq!(addresses("lan", &own, &routes, six), "10.213.0.2/24  fd00::2/64  ");
        assert_eq!(addresses("lo", &own, &routes, six), "127.0.0.1/8  ");
        assert_eq!(addresses("other", &own, &routes, six), "");
    }
}
