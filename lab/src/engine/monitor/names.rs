//! Who a container or machine is, whom it knows, and whom it asks: its own `/etc/hosts`, `hostname` and `resolv.conf`, and
//! the DNS servers that the last of them names.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::pipe::{PipeFlags, pipe_with};

use super::dns::{self, Names, Server};
use crate::engine::Error;
use crate::engine::error::Context as _;
use crate::engine::stored::networks::Endpoint;
use crate::engine::stored::{Engine, Record, plan};

/// The host's own resolv.conf(5).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Serves names at the bridges of these places. What ends the servers when it is closed, and the first place's server; none
/// where another program has its port.
pub(super) fn serve(
    engine: &Arc<Engine>,
    endpoints: &[Endpoint],
) -> Result<(Vec<OwnedFd>, Option<Ipv4Addr>), Error> {
    let (mut stops, mut first) = (Vec::new(), None);
    for endpoint in endpoints {
        let gateway = endpoint.network.gateway();
        // Without it there are still the names in /etc/hosts.
        let Ok(server) = Server::bind(SocketAddr::new(gateway.into(), dns::PORT)) else { continue };
        let (end, stop) = pipe_with(PipeFlags::CLOEXEC).context("make", "a pipe")?;
        let known = Known { engine: Arc::clone(engine), network: endpoint.network.id.clone() };
        server.serve(Arc::new(known), end)?;
        stops.push(stop);
        first.get_or_insert(gateway);
    }
    Ok((stops, first))
}

/// The names of one network, as the engine's state has them.
struct Known {
    engine: Arc<Engine>,
    network: String,
}

impl Known {
    /// Who asks, if it is one of the network.
    fn asker(&self, address: Ipv4Addr) -> Option<Record> {
        let network = self.engine.network(&self.network).ok()?;
        let mut endpoints = self.engine.endpoints_in(&network).ok()?.into_iter();
        let endpoint = endpoints.find(|endpoint| endpoint.address == address)?;
        self.engine.find(&endpoint.container).ok()
    }

    /// Those that it may know: the containers that run in any of its networks.
    fn peers(&self, asker: Ipv4Addr) -> Vec<(Endpoint, Record)> {
        let own = self.asker(asker).and_then(|record| self.engine.endpoints_of(&record.id).ok());
        let networks = match own {
            Some(endpoints) => endpoints.into_iter().map(|endpoint| endpoint.network).collect(),
            None => self.engine.network(&self.network).into_iter().collect::<Vec<_>>(),
        };
        let named = networks.into_iter().filter(crate::engine::stored::networks::Network::has_names);
        named
            .flat_map(|network| self.engine.endpoints_in(&network).unwrap_or_default())
            .filter_map(|endpoint| {
                let record = self.engine.find(&endpoint.container).ok()?;
                record.status.is_live().then_some((endpoint, record))
            })
            .collect()
    }
}

impl Names for Known {
    fn addresses(&self, asker: Ipv4Addr, name: &str) -> Option<Vec<IpAddr>> {
        // A link is a name that its owner alone knows another by.
        let own = self.asker(asker).and_then(|record| self.engine.endpoints_of(&record.id).ok());
        let links = own.iter().flatten().filter_map(|endpoint| endpoint.settings.links.as_ref()).flatten();
        let linked =
            links.filter_map(|link| link.split_once(':')).find(|(_, alias)| alias.eq_ignore_ascii_case(name));
        let name =
            linked.map_or(name.to_owned(), |(other, _)| other.trim_start_matches('/').to_ascii_lowercase());
        let is_it = |own: &str, network: &str| {
            let own = own.to_ascii_lowercase();
            let rest = name.strip_prefix(own.as_str()).filter(|_| !own.is_empty());
            rest.is_some_and(|rest| {
                rest.is_empty()
                    || rest.strip_prefix('.').is_some_and(|rest| rest == network.to_ascii_lowercase())
            })
        };
        let mut found: Vec<Endpoint> = self
            .peers(asker)
            .into_iter()
            .filter(|(endpoint, record)| {
                let hostname = record.body.hostname.as_deref().unwrap_or_default();
                let own = [record.name.as_str(), record.short_id(), hostname];
                let mut all = own.into_iter().chain(endpoint.aliases().iter().map(String::as_str));
                all.any(|own| is_it(own, &endpoint.network.name))
            })
            .map(|(endpoint, _)| endpoint)
            .collect();
        if found.is_empty() {
            return None;
        }
        // Those who share an alias share its work: each is the first in turn.
        let turn = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_micros() as usize);
        let len = found.len();
        found.rotate_left(turn % len);
        let mut addresses: Vec<IpAddr> =
            found.iter().flat_map(Endpoint::addresses).map(|address| address.addr()).collect();
        addresses.dedup();
        Some(addresses)
    }

    fn name(&self, asker: Ipv4Addr, address: IpAddr) -> Option<String> {
        let peers = self.peers(asker).into_iter();
        let mut own =
            peers.filter(|(endpoint, _)| endpoint.addresses().iter().any(|own| own.addr() == address));
        own.next().map(|(endpoint, record)| format!("{}.{}", record.name, endpoint.network.name))
    }

    fn servers(&self, asker: Ipv4Addr) -> Vec<SocketAddr> {
        let chosen = self.asker(asker).and_then(|record| record.host().dns).unwrap_or_default();
        let chosen: Vec<SocketAddr> = chosen
            .iter()
            .filter_map(|server| server.parse::<IpAddr>().ok())
            .map(|server| SocketAddr::new(server, dns::PORT))
            .collect();
        if !chosen.is_empty() {
            return chosen;
        }
        dns::servers_of(&fs::read_to_string(RESOLV_CONF).unwrap_or_default())
    }
}

/// The files of its own, by their paths, and what they hold. `server` answers its questions about names, where there is one;
/// `linked` are further lines for `/etc/hosts`.
pub(super) fn files(
    record: &Record,
    endpoints: &[Endpoint],
    server: Option<Ipv4Addr>,
    linked: &str,
) -> Vec<(&'static str, String)> {
    let hostname = record.body.hostname.clone().unwrap_or_default();
    vec![
        ("/etc/hosts", hosts(record, endpoints, &hostname) + linked),
        ("/etc/resolv.conf", resolv_conf(record, server)),
        ("/etc/hostname", format!("{hostname}\n")),
    ]
}

fn hosts(record: &Record, endpoints: &[Endpoint], hostname: &str) -> String {
    let first = endpoints.first();
    let host = first.map_or(Ipv4Addr::LOCALHOST, |endpoint| endpoint.network.gateway()).to_string();
    let mut hosts = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for extra in record.host().extra_hosts.iter().flatten() {
        // Addresses of IPv6 have colons themselves, and brackets around them at will.
        if let Some((name, address)) = extra.split_once([':', '=']) {
            let address = address.trim_start_matches('[').trim_end_matches(']');
            let _ = writeln!(hosts, "{}\t{name}", address.replace("host-gateway", &host));
        }
    }
    let domain = record.body.domainname.as_deref().filter(|domain| !domain.is_empty());
    let name = domain.map_or(hostname.to_owned(), |domain| format!("{hostname}.{domain} {hostname}"));
    if endpoints.is_empty() {
        let _ = writeln!(hosts, "127.0.1.1\t{name}");
    }
    for address in endpoints.iter().flat_map(Endpoint::addresses) {
        let _ = writeln!(hosts, "{}\t{name}", address.addr());
    }
    hosts
}

fn resolv_conf(record: &Record, server: Option<Ipv4Addr>) -> String {
    let host = record.host();
    let theirs = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let lines = |text: &str, word: &str| -> String {
        text.lines().filter(|line| line.starts_with(word)).flat_map(|line| [line, "\n"]).collect()
    };
    let mut resolv = match (server, host.dns.as_deref().unwrap_or_default()) {
        (Some(server), _) => format!("nameserver {server}\n"),
        (None, []) => lines(&theirs, "nameserver"),
        (None, chosen) => chosen.iter().flat_map(|server| ["nameserver ", server, "\n"]).collect(),
    };
    for (word, chosen) in [("search", host.dns_search), ("options", host.dns_options)] {
        match chosen.filter(|chosen| !chosen.is_empty()) {
            Some(chosen) => drop(writeln!(resolv, "{word} {}", chosen.join(" "))),
            None => resolv.push_str(&lines(&theirs, word)),
        }
    }
    resolv
}

/// The mounts that put another container's files over the image's, as far as it has them.
pub(super) fn shared(
    directory: &Path,
    files: &[(&'static str, String)],
) -> Vec<crate::engine::request::Extra> {
    let paths = files.iter().map(|(target, _)| (*target, directory.join(target.trim_start_matches("/etc/"))));
    paths.filter(|(_, path)| path.exists()).map(|(target, path)| plan::own_file(target, &path)).collect()
}

/// Writes the files into a directory of the host: the mounts that put them over the image's.
pub(super) fn write(
    directory: &Path,
    files: Vec<(&'static str, String)>,
) -> Result<Vec<crate::engine::request::Extra>, Error> {
    let write = |(target, content): (&'static str, String)| {
        let path = directory.join(target.trim_start_matches("/etc/"));
        fs::write(&path, content).context("write", path.display())?;
        Ok(plan::own_file(target, &path))
    };
    files.into_iter().map(write).collect()
}
