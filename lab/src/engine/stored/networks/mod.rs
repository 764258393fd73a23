//! Networks: which containers are in one, and at which addresses.
//!
//! Those that users make, and the default one, `bridge`, which is made when it is first asked for. A network's bridge and
//! its way out are there as long as somebody is plugged in.
//!
//! Reading order: here what is kept; `pool.rs`, addresses; `make.rs`, networks come and go; `connect.rs`, containers in
//! them; `ready.rs`, from what is kept to devices and rules of the kernel; `hosts.rs`, who is who.

mod connect;
mod hosts;
mod make;
mod pool;
mod ready;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard_stubs::models::EndpointSettings;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rusqlite::{Row, types::Type};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Engine;
use crate::engine::Error;
use crate::engine::bridge::{self, Bridge};
use crate::engine::nat::{self, Zone};
pub use make::Wanted;
pub use pool::Pool;

/// The network of those that ask for none in particular. As docker's, it knows no names.
pub const DEFAULT: &str = "bridge";

/// A network.
#[derive(Clone, Debug)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// Its IPv4 addresses, and the bridge's own: the way to what is elsewhere, and where names are asked for.
    pub subnet: (Ipv4Net, Ipv4Addr),
    /// The same of IPv6, where it is wanted.
    pub subnet6: Option<(Ipv6Net, Ipv6Addr)>,
    /// What else it was made with.
    pub config: Config,
}

/// How a network is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Labels.
    pub labels: HashMap<String, String>,
    /// The driver's options, docker's names for them.
    pub options: HashMap<String, String>,
    /// Whether nothing may leave it.
    pub internal: bool,
    /// Whether services may attach containers by themselves; without meaning here, and told again.
    pub attachable: bool,
    /// Whether its containers have IPv6 addresses as well.
    pub ipv6: bool,
    /// Options of the address management, told again.
    pub ipam_options: Option<HashMap<String, String>>,
    /// Its addresses: one pool of IPv4, and those of IPv6 that were asked for.
    pub pools: Vec<Pool>,
}

/// A container's place in a network.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The network.
    pub network: Network,
    /// The container's id.
    pub container: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its IPv6 address, where the network has them.
    pub address6: Option<Ipv6Addr>,
    /// What was asked for: names, links, a hardware address, ...
    pub settings: EndpointSettings,
}

impl Network {
    /// The address of its bridge.
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.1
    }

    /// Whether it is the network of those that ask for none in particular.
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT
    }

    /// Whether its containers find each other by name.
    pub(crate) fn has_names(&self) -> bool {
        !self.is_default()
    }

    /// What it lacks on this machine, if anything.
    pub fn warning(&self) -> Option<String> {
        if self.config.internal { None } else { no_way_out() }
    }

    /// The value of an option of docker's driver `bridge`, such as `bridge.name`.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.config.options.get(&format!("com.docker.network.{name}")).map(String::as_str)
    }

    /// Where ports of its containers are published that name no address.
    pub(crate) fn publish_at(&self) -> Option<IpAddr> {
        self.option("bridge.host_binding_ipv4").and_then(|text| text.parse().ok())
    }

    fn zone<'a>(&self, bridge: &'a str) -> Zone<'a> {
        Zone {
            bridge,
            subnet: self.subnet.0,
            subnet6: self.subnet6.map(|(net, _)| net),
            internal: self.config.internal,
            masquerade: self.option("bridge.enable_ip_masquerade") != Some("false"),
        }
    }

    fn bridge(&self) -> Bridge {
        let name = self.option("bridge.name").map_or_else(|| format!("lab-{}", &self.id[..8]), str::to_owned);
        let (net, gateway) = self.subnet;
        let mut addresses = vec![within(gateway, &net.into())];
        addresses.extend(self.subnet6.map(|(net, gateway)| within(gateway, &net.into())));
        let mtu = self.option("driver.mtu").and_then(|text| text.parse().ok()).unwrap_or(bridge::MTU);
        Bridge { name, mac: bridge::hardware(gateway), addresses, mtu }
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let wrong = |error| rusqlite::Error::FromSqlConversionFailure(3, Type::Text, error);
        let text: String = row.get(3)?;
        let config: Config = serde_json::from_str(&text).map_err(|error| wrong(error.into()))?;
        let (mut subnet, mut subnet6) = (None, None);
        for pool in &config.pools {
            match (pool.subnet, pool.gateway) {
                (IpNet::V4(net), IpAddr::V4(gateway)) => subnet = subnet.or(Some((net, gateway))),
                (IpNet::V6(net), IpAddr::V6(gateway)) if config.ipv6 => {
                    subnet6 = subnet6.or(Some((net, gateway)));
                }
                _ => {}
            }
        }
        let subnet = subnet.ok_or_else(|| wrong("a network without IPv4 addresses".into()))?;
        Ok(Self { id: row.get(0)?, name: row.get(1)?, created: row.get(2)?, subnet, subnet6, config })
    }
}

/// Why networks of this machine have no way out, if they have none.
pub fn no_way_out() -> Option<String> {
    nat::missing()
}

/// An address with the prefix of the block that it is in.
fn within(address: impl Into<IpAddr>, block: &IpNet) -> IpNet {
    IpNet::new_assert(address.into(), block.prefix_len())
}

/// An address of the link alone (RFC 3927, RFC 4291) with its prefix.
fn within_link(address: IpAddr) -> IpNet {
    IpNet::new_assert(address, if address.is_ipv4() { 16 } else { 64 })
}

impl Endpoint {
    /// Names by which others find it, beside its own.
    pub fn aliases(&self) -> &[String] {
        self.settings.aliases.as_deref().unwrap_or_default()
    }

    /// 64 hexadecimal digits that no other place has.
    pub fn id(&self) -> String {
        let digest = Sha256::digest(format!("{}/{}", self.network.id, self.container));
        digest.iter().fold(String::new(), |id, byte| id + &format!("{byte:02x}"))
    }

    /// The hardware address of its device, as people write it.
    pub fn hardware(&self) -> String {
        self.mac().map(|byte| format!("{byte:02x}")).join(":")
    }

    fn mac(&self) -> [u8; 6] {
        let asked = self.settings.mac_address.as_deref().and_then(bridge::parse_mac);
        asked.unwrap_or_else(|| bridge::hardware(self.address))
    }

    /// Its addresses, with their networks' prefixes.
    pub fn addresses(&self) -> Vec<IpNet> {
        let mut all = vec![within(self.address, &self.network.subnet.0.into())];
        let six = self.address6.zip(self.network.subnet6);
        all.extend(six.map(|(address, (net, _))| within(address, &net.into())));
        all
    }

    /// The name of the host's end of its cable.
    fn device(&self) -> String {
        format!("lv{}{}", &self.network.id[..5], &self.container[..6])
    }

    fn priority(&self) -> i64 {
        self.settings.gw_priority.unwrap_or(0)
    }
}

const NETWORKS: &str = "SELECT id, name, created, networks.config FROM networks";

impl Engine {
    /// A network by its id, its name, or the beginning of its id, in this order, as docker does.
    ///
    /// # Errors
    /// [`Error::Missing`]; [`Error::Bad`] where several are called so.
    pub fn network(&self, asked: &str) -> Result<Network, Error> {
        let mut found = self.db.with(|db| {
            let sql = format!(
                "{NETWORKS} WHERE id = ?1 OR name = ?1 OR (length(?1) > 0 AND substr(id, 1, length(?1)) = ?1)
                 ORDER BY id = ?1 DESC, name = ?1 DESC LIMIT 2"
            );
            db.prepare(&sql)?.query_map([asked], Network::from_row)?.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let exact = |network: &Network| network.id == asked || network.name == asked;
        match &found[..] {
            [] => Err(Error::Missing { kind: "network", name: asked.to_owned() }),
            [first, second] if first.id != asked && exact(first) == exact(second) => Err(Error::bad(
                format!("network {asked} is ambiguous (2 matches found): give more of the id"),
            )),
            _ => Ok(found.swap_remove(0)),
        }
    }

    /// All networks, by name.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn networks(&self) -> Result<Vec<Network>, Error> {
        self.db.with(|db| {
            db.prepare(&format!("{NETWORKS} ORDER BY name, id"))?.query_map([], Network::from_row)?.collect()
        })
    }

    /// The places of a container in its networks, in the order in which it was put into them.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn endpoints_of(&self, container: &str) -> Result<Vec<Endpoint>, Error> {
        self.endpoints("container", container)
    }

    /// The containers of a network.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn endpoints_in(&self, network: &Network) -> Result<Vec<Endpoint>, Error> {
        self.endpoints("network", &network.id)
    }

    /// The place of a container in one network, if it has one.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn endpoint(&self, network: &Network, container: &str) -> Result<Option<Endpoint>, Error> {
        let all = self.endpoints_of(container)?;
        Ok(all.into_iter().find(|endpoint| endpoint.network.id == network.id))
    }

    /// All places of all containers, by these.
    pub(super) fn all_endpoints(&self) -> Result<HashMap<String, Vec<Endpoint>>, Error> {
        let networks = self.networks()?.into_iter().map(|network| (network.id.clone(), network));
        let networks: HashMap<String, Network> = networks.collect();
        let sql = "SELECT network, container, address, address6, settings FROM endpoints ORDER BY rowid";
        let read = |row: &Row<'_>| -> rusqlite::Result<[String; 5]> {
            Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?])
        };
        let rows: Vec<[String; 5]> = self.db.with(|db| db.prepare(sql)?.query_map([], read)?.collect())?;
        let mut all: HashMap<String, Vec<Endpoint>> = HashMap::new();
        for [network, container, address, address6, settings] in rows {
            let (Some(network), Ok(address)) = (networks.get(&network), address.parse()) else { continue };
            let settings = serde_json::from_str(&settings).unwrap_or_default();
            let endpoint = Endpoint {
                network: network.clone(),
                container: container.clone(),
                address,
                address6: address6.parse().ok(),
                settings,
            };
            all.entry(container).or_default().push(endpoint);
        }
        Ok(all)
    }

    fn endpoints(&self, column: &str, value: &str) -> Result<Vec<Endpoint>, Error> {
        self.db.with(|db| {
            let sql = format!(
                "SELECT id, name, created, networks.config, container, address, address6, settings FROM endpoints
                 JOIN networks ON id = network WHERE {column} = ?1 ORDER BY endpoints.rowid"
            );
            let read = |row: &Row<'_>| {
                let (address, six): (String, String) = (row.get(5)?, row.get(6)?);
                let settings: String = row.get(7)?;
                let wrong = |error| rusqlite::Error::FromSqlConversionFailure(5, Type::Text, error);
                Ok(Endpoint {
                    network: Network::from_row(row)?,
                    container: row.get(4)?,
                    address: address.parse().map_err(|_| wrong("no address".into()))?,
                    address6: six.parse().ok(),
                    settings: serde_json::from_str(&settings).unwrap_or_default(),
                })
            };
            db.prepare(&sql)?.query_map([value], read)?.collect()
        })
    }
}
