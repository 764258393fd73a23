//! Which ports are to be published: what `-p`, `-P` and `--expose` ask for.

use std::fmt;
use std::net::IpAddr;

use bollard_stubs::models::ContainerCreateBody;

use crate::engine::Error;

/// What a port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port inside.
    pub container: u16,
    /// What it carries.
    pub protocol: Protocol,
    /// The host's address; none is every one.
    pub address: Option<IpAddr>,
    /// The host's port: one of these, the first that is free; 0 is any.
    pub host: (u16, u16),
}

/// The ports that `-p` and `-P` ask for, in order.
///
/// # Errors
/// What is no port, or one of SCTP, which the proxy does not pass on.
pub fn ports(body: &ContainerCreateBody) -> Result<Vec<Port>, Error> {
    let host = body.host_config.clone().unwrap_or_default();
    let mut ports = Vec::new();
    for (key, bindings) in host.port_bindings.iter().flatten() {
        let (container, protocol) = inner(key)?;
        let wrong = |text: &str| Error::bad(format!("invalid port or address \"{text}\" for {key}"));
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        for binding in bindings.iter().flatten() {
            let range = |text: &str| {
                let (from, to) = text.split_once('-').unwrap_or((text, text));
                let (from, to): (u16, u16) = (from.parse().ok()?, to.parse().ok()?);
                (from <= to && (from > 0 || to == 0)).then_some((from, to))
            };
            let number = given(&binding.host_port);
            let host = number.as_deref().map_or(Ok((0, 0)), |text| range(text).ok_or_else(|| wrong(text)))?;
            let address = given(&binding.host_ip);
            let address = address.as_deref().map(|text| text.parse().map_err(|_| wrong(text))).transpose()?;
            ports.push(Port { container, protocol, address, host });
        }
        // A key without a binding, too, asks for any port.
        if bindings.as_ref().is_none_or(Vec::is_empty) {
            ports.push(Port { container, protocol, address: None, host: (0, 0) });
        }
    }
    if host.publish_all_ports.unwrap_or(false) {
        for key in body.exposed_ports.iter().flatten().filter(|key| !key.ends_with("/sctp")) {
            let (container, protocol) = inner(key)?;
            if !ports.iter().any(|port| (port.container, port.protocol) == (container, protocol)) {
                ports.push(Port { container, protocol, address: None, host: (0, 0) });
            }
        }
    }
    ports.sort_by_key(|port| (port.container, port.protocol, port.host));
    Ok(ports)
}

/// The ports of TCP and UDP that a container exposes, published or not.
pub(crate) fn exposed(body: &ContainerCreateBody) -> Vec<(u16, Protocol)> {
    let bound = body.host_config.as_ref().and_then(|host| host.port_bindings.as_ref());
    let keys = body.exposed_ports.iter().flatten().chain(bound.into_iter().flat_map(|map| map.keys()));
    let mut all: Vec<(u16, Protocol)> = keys.filter_map(|key| inner(key).ok()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// `80/tcp`, or `80` for the same.
fn inner(key: &str) -> Result<(u16, Protocol), Error> {
    let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(Error::bad(format!("--publish {key}: only TCP and UDP ports can be published"))),
    };
    let port = port.parse().ok().filter(|port| *port > 0);
    Ok((port.ok_or_else(|| Error::bad(format!("invalid port specification: \"{key}\"")))?, protocol))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard_stubs::models::{HostConfig, PortBinding};
    use std::collections::HashMap;

    fn published(key: &str, host: &str) -> Result<Vec<Port>, Error> {
        let binding = PortBinding { host_ip: None, host_port: Some(host.into()) };
        let map = HashMap::from([(key.to_owned(), Some(vec![binding]))]);
        let host = HostConfig { port_bindings: Some(map), ..HostConfig::default() };
        ports(&ContainerCreateBody { host_config: Some(host), ..ContainerCreateBody::default() })
    }

    #[test]
    fn ports_are_numbers_or_ranges_of_tcp_or_udp() {
        let port = |protocol, host| Port { container: 80, protocol, address: None, host };
        assert_eq!(published("80/tcp", "8080").unwrap(), [port(Protocol::Tcp, (8080, 8080))]);
        assert_eq!(published("80/udp", "").unwrap(), [port(Protocol::Udp, (0, 0))]);
        assert_eq!(published("80", "8000-8010").unwrap(), [port(Protocol::Tcp, (8000, 8010))]);
        for (key, host) in
            [("80/sctp", "1"), ("x/tcp", "1"), ("0/tcp", "1"), ("80/tcp", "99999"), ("80/tcp", "9-8")]
        {
            assert!(published(key, host).is_err(), "{key} {host}");
        }
    }

    #[test]
    fn all_that_is_exposed_is_published_once() {
        let host = HostConfig { publish_all_ports: Some(true), ..HostConfig::default() };
        let exposed = ["80/tcp", "53/udp", "9/sctp"].map(str::to_owned).to_vec();
        let body = ContainerCreateBody {
            host_config: Some(host),
            exposed_ports: Some(exposed),
            ..ContainerCreateBody::default()
        };
        let all = ports(&body).unwrap();
        let all: Vec<(u16, Protocol)> = all.iter().map(|port| (port.container, port.protocol)).collect();
        assert_eq!(all, [(53, Protocol::Udp), (80, Protocol::Tcp)]);
    }
}
