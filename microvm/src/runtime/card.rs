//! The guest's network cards. Engines put interfaces into the container's network namespace, which here is the monitor's
//! (dockerd by a hook, podman and CNI before). A guest cannot use those; so each is handed on to a card of the guest's:
//!
//! ```text
//!   monitor's network namespace                                  guest
//!   engine's network ── eth0 ── bridge lab0 ── TAP tap0 ── virtio-net ── eth0: its hardware and IP address
//! ```
//!
//! The interface loses both addresses to the card, and passes frames on. To the engine's network nothing has changed.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::network::{Interface, Link, Network, Tap};

/// An interface, as `ip -json address` tells it; of all fields, those that are needed.
#[derive(Debug, Deserialize)]
struct Found {
    ifname: String,
    /// A loopback's is larger than a card's can be.
    mtu: u32,
    #[serde(default)]
    address: String,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct Address {
    family: String,
    local: String,
    prefixlen: u8,
}

/// A route, as `ip -json route` tells it.
#[derive(Debug, Deserialize)]
struct Route {
    dst: String,
    #[serde(default)]
    gateway: Option<Ipv4Addr>,
    #[serde(default)]
    dev: String,
}

/// Hands the interfaces of this process's network namespace on to a guest. To be called in a namespace of the machine's own.
///
/// # Errors
/// iproute2 is missing, or the kernel refuses a step.
pub(crate) fn take_over() -> Result<Network, Error> {
    if !has_interfaces() {
        return Ok(Network::default());
    }
    let found: Vec<Found> = ask(&["-json", "address", "show"])?;
    let routes: Vec<Route> = ask(&["-json", "-4", "route", "show", "default"])?;
    let mut interfaces = Vec::new();
    for (found, number) in found.iter().filter(|found| found.ipv4().is_some()).zip(0u8..) {
        interfaces.push(found.hand_on(number, &routes)?);
    }
    Ok(Network { interfaces, files: Vec::new() })
}

/// Whether there is any interface but the loopback; asked without another program (proc_pid_net(5), "dev": two lines of titles).
fn has_interfaces() -> bool {
    let text = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    text.lines().skip(2).filter_map(|line| line.split(':').next()).any(|name| name.trim() != "lo")
}

impl Found {
    /// Its address and what tells its network, if it has one that can be reached from outside.
    fn ipv4(&self) -> Option<(Ipv4Addr, u8)> {
        let address = self.addr_info.iter().find(|address| address.family == "inet")?;
        let local: Ipv4Addr = address.local.parse().ok()?;
        (!local.is_loopback() && address.prefixlen <= 32).then_some((local, address.prefixlen))
    }

    fn hand_on(&self, number: u8, routes: &[Route]) -> Result<Interface, Error> {
        let wrong = |reason: &str| failed(&format!("{}: {reason}", self.ifname));
        let (address, prefix) = self.ipv4().ok_or_else(|| wrong("no IPv4 address"))?;
        let mac = mac(&self.address).ok_or_else(|| wrong("no hardware address"))?;
        let gateway = routes.iter().find(|route| route.dst == "default" && route.dev == self.ifname);
        let (name, bridge, tap) = (self.ifname.as_str(), format!("lab{number}"), format!("tap{number}"));
        let link = Tap::create(&tap)?;
        // The card keeps the address that the engine gave; a port of a bridge needs one of its own.
        let other =
            format!("02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[1], mac[2], mac[3], mac[4], mac[5] ^ 0xff);
        for step in [
            &["link", "set", "dev", name, "down"][..],
            &["address", "flush", "dev", name],
            &["link", "set", "dev", name, "address", &other],
            &["link", "add", "name", &bridge, "type", "bridge", "forward_delay", "0"],
            &["link", "set", "dev", name, "master", &bridge, "up"],
            &["link", "set", "dev", &tap, "mtu", &self.mtu.to_string(), "master", &bridge, "up"],
            &["link", "set", "dev", &bridge, "up"],
        ] {
            ip(step)?;
        }
        let gateway = gateway.and_then(|route| route.gateway);
        let mtu = u16::try_from(self.mtu).unwrap_or(u16::MAX);
        Ok(Interface { link: Link::Tap(link), mac, mtu, address, prefix, gateway })
    }
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

fn ask<T: DeserializeOwned>(words: &[&str]) -> Result<T, Error> {
    let text = ip(words)?;
    // Where there is nothing to tell, some versions print nothing.
    let text = if text.trim().is_empty() { "[]" } else { &text };
    serde_json::from_str(text).map_err(|error| failed(&format!("ip {}: {error}", words.join(" "))))
}

fn ip(words: &[&str]) -> Result<String, Error> {
    let output = Command::new("ip").args(words).output();
    let output = output.map_err(|error| failed(&format!("run ip: {error}; install the package iproute2")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(&format!("ip {}: {}", words.join(" "), said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn failed(reason: &str) -> Error {
    Error::Device { device: "network", reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ip_tells_is_understood() {
        let text = r#"[{"ifname":"lo","mtu":65536,"link_type":"loopback","address":"00:00:00:00:00:00",
            "addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8}]},
            {"ifname":"eth0","mtu":1500,"address":"02:42:ac:11:00:02","addr_info":[
            {"family":"inet","local":"172.17.0.2","prefixlen":16},{"family":"inet6","local":"fe80::1","prefixlen":64}]},
            {"ifname":"none0","mtu":1500}]"#;
        let found: Vec<Found> = serde_json::from_str(text).unwrap();
        let addresses: Vec<_> = found.iter().map(Found::ipv4).collect();
        assert_eq!(addresses, [None, Some((Ipv4Addr::new(172, 17, 0, 2), 16)), None]);
        assert_eq!(mac(&found[1].address), Some([2, 0x42, 0xac, 0x11, 0, 2]));
        assert_eq!((mac("02:42"), mac("none")), (None, None));
    }
}
