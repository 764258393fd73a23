//! What `lab run` and `lab create` say of a container's place in its network.

use std::collections::HashMap;

use bollard_stubs::models::{ContainerCreateBody, EndpointIpamConfig, EndpointSettings, NetworkingConfig};

/// Its place in its network, beside the network's name.
#[derive(Debug, Default, clap::Args)]
pub struct Place {
    /// A further name by which others in the network find it
    #[arg(long, value_name = "NAME")]
    network_alias: Vec<String>,
    /// Its address, in a network whose subnet was chosen
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Its IPv6 address, in such a network with --ipv6
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// Its hardware address
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// A name that it alone knows another container by
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    link: Vec<String>,
    /// Say that it serves a port: -P publishes it
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    expose: Vec<String>,
    /// Publish all ports that it or its image exposes, each at one that the host chooses
    #[arg(short = 'P', long)]
    publish_all: bool,
}

impl Place {
    /// The flag that needs a network, if one was given.
    pub fn needs_network(&self) -> Option<&'static str> {
        [
            ("--ip", self.ip.is_some()),
            ("--ip6", self.ip6.is_some()),
            ("--mac-address", self.mac_address.is_some()),
            ("--network-alias", !self.network_alias.is_empty()),
            ("--link", !self.link.is_empty()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }

    /// Whether ports are published.
    pub fn publishes(&self) -> bool {
        self.publish_all
    }

    /// Writes it into the request.
    pub fn apply(&self, network: &str, body: &mut ContainerCreateBody) {
        let host = body.host_config.get_or_insert_default();
        host.publish_all_ports = Some(self.publish_all);
        host.links = Some(self.link.clone()).filter(|links| !links.is_empty());
        let exposed = self.expose.iter();
        let exposed =
            exposed.map(|port| if port.contains('/') { port.clone() } else { format!("{port}/tcp") });
        body.exposed_ports.get_or_insert_default().extend(exposed);
        let address = EndpointIpamConfig {
            ipv4_address: self.ip.clone(),
            ipv6_address: self.ip6.clone(),
            link_local_ips: None,
        };
        let settings = EndpointSettings {
            aliases: Some(self.network_alias.clone()).filter(|aliases| !aliases.is_empty()),
            mac_address: self.mac_address.clone(),
            ipam_config: Some(address).filter(|address| *address != EndpointIpamConfig::default()),
            ..EndpointSettings::default()
        };
        if settings != EndpointSettings::default() {
            let endpoints = HashMap::from([(network.to_owned(), settings)]);
            body.networking_config = Some(NetworkingConfig { endpoints_config: Some(endpoints) });
        }
    }
}
