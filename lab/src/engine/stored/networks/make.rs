//! Networks come and go.

use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;

use bollard_stubs::models::IpamConfig;
use ipnet::{IpNet, Ipv4Net};
use rusqlite::{Connection, params};

use super::{Config, DEFAULT, NETWORKS, Network, Pool, pool};
use crate::engine::error::Context as _;
use crate::engine::stored::Engine;
use crate::engine::stored::record::now;
use crate::engine::{Error, bridge, id, passt};

/// Subnets that nobody chooses are taken from here, each with 256 addresses: a corner of the private 10.0.0.0/8 that few use.
const POOL: [u8; 2] = [10, 213];
const PREFIX: u8 = 24;

/// Names that mean something else.
const TAKEN: [&str; 6] = [DEFAULT, "host", "none", "default", "container", passt::NAME];
/// The longest name, in bytes.
const LONGEST: usize = 255;
/// The longest name of a device (IFNAMSIZ without its zero).
const LONGEST_DEVICE: usize = 15;

/// The network that somebody wants.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Labels.
    pub labels: HashMap<String, String>,
    /// Options of docker's driver `bridge`.
    pub options: HashMap<String, String>,
    /// Whether nothing may leave it.
    pub internal: bool,
    /// Told again, without meaning here.
    pub attachable: bool,
    /// Whether its containers have IPv6 addresses as well.
    pub ipv6: bool,
    /// Told again.
    pub ipam_options: Option<HashMap<String, String>>,
    /// Its subnets, where they matter; at most one of each family.
    pub pools: Vec<IpamConfig>,
    /// Whether there may be another network of this name, as older clients may ask for.
    pub twin: bool,
}

impl Engine {
    /// Makes a network. Its bridge comes with its first container.
    ///
    /// # Errors
    /// Where the name is taken or breaks the rules, the subnet is another network's, or all are in use.
    pub fn create_network(&self, wanted: &Wanted) -> Result<Network, Error> {
        let name = wanted.name.as_str();
        if name.trim().is_empty() || name.len() > LONGEST || name.chars().any(|c| c.is_control() || c == '/')
        {
            let rule = format!("use 1 to {LONGEST} characters, not only blanks, and no /");
            return Err(Error::bad(format!("invalid network name '{}': {rule}", name.escape_debug())));
        }
        if TAKEN.contains(&name) {
            return Err(Error::conflict(format!("network with name {name} already exists")));
        }
        if !rustix::process::geteuid().is_root() {
            return Err(Error::bad(
                "a network is a bridge, which only root may make; others' containers and machines take --network passt",
            ));
        }
        if let Some(device) = wanted.options.get("com.docker.network.bridge.name") {
            let good = !device.is_empty()
                && device.len() <= LONGEST_DEVICE
                && device.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
                && !matches!(device.as_str(), "." | "..");
            if !good {
                return Err(Error::bad(format!(
                    "invalid bridge name '{device}': at most 15 letters and digits"
                )));
            }
        }
        let mut config = Config {
            labels: wanted.labels.clone(),
            options: wanted.options.clone(),
            internal: wanted.internal,
            attachable: wanted.attachable,
            ipv6: wanted.ipv6,
            ipam_options: wanted.ipam_options.clone(),
            pools: Vec::new(),
        };
        for asked in &wanted.pools {
            if let Some(pool) = Pool::asked(asked)? {
                let four = pool.subnet.addr().is_ipv4();
                if config.pools.iter().any(|other| other.subnet.addr().is_ipv4() == four) {
                    let family = if four { "IPv4" } else { "IPv6" };
                    return Err(Error::bad(format!("a bridge network has one {family} subnet, not several")));
                }
                config.pools.push(pool);
            }
        }
        if config.ipv6 && fs::metadata("/proc/sys/net/ipv6").is_err() {
            return Err(Error::bad("--ipv6: this machine's kernel has no IPv6 (it is off, or not built in)"));
        }
        self.insert_network(name, config, wanted.twin)
    }

    /// The default network, which is made where it is not there yet.
    ///
    /// # Errors
    /// As [`Engine::create_network`].
    pub fn default_network(&self) -> Result<Network, Error> {
        match self.network(DEFAULT) {
            Err(Error::Missing { .. }) => match self.insert_network(DEFAULT, Config::default(), false) {
                // Another process was faster.
                Err(Error::Conflict { .. }) => self.network(DEFAULT),
                other => other,
            },
            other => other,
        }
    }

    fn insert_network(&self, name: &str, mut config: Config, twin: bool) -> Result<Network, Error> {
        let id = id::new().context("read", "/dev/urandom")?;
        self.db.change(|db| {
            let failed = self.db.failed();
            let known = all(db).map_err(&failed)?;
            if !twin && known.iter().any(|other| other.name == name) {
                return Err(Error::conflict(format!("network with name {name} already exists")));
            }
            if let Some(device) = config.options.get("com.docker.network.bridge.name")
                && known.iter().any(|other| other.option("bridge.name") == Some(device))
            {
                return Err(Error::forbidden(format!("bridge name {device} is another network's already")));
            }
            for pool in &config.pools {
                let other = known.iter().find(|other| others(other).any(|subnet| pool.overlaps(&subnet)));
                if let Some(other) = other {
                    return Err(Error::forbidden(format!(
                        "invalid pool request: Pool overlaps with other one on this address space: {} with network {}'s",
                        pool.subnet, other.name
                    )));
                }
            }
            if !config.pools.iter().any(|pool| pool.subnet.addr().is_ipv4()) {
                let also = config.pools.iter().map(|pool| pool.subnet);
                config.pools.insert(0, Pool::new(free_subnet(&known, also)?));
            }
            if config.ipv6 && config.pools.iter().all(|pool| pool.subnet.addr().is_ipv4()) {
                config.pools.push(Pool::new(pool::unique_local(&id)));
            }
            let text = serde_json::to_string(&config)?;
            let sql = "INSERT INTO networks (id, name, created, config) VALUES (?1, ?2, ?3, ?4)";
            db.execute(sql, params![id, name, now(), text]).map(drop).map_err(failed)
        })?;
        self.tell("network", "create", &id, &[("name", name), ("type", "bridge")])?;
        self.network(&id)
    }

    /// Removes a network that no container is in.
    ///
    /// # Errors
    /// [`Error::Forbidden`] where one is.
    pub fn remove_network(&self, network: &Network) -> Result<(), Error> {
        if network.is_default() {
            return Err(Error::forbidden(format!(
                "{DEFAULT} is a pre-defined network and cannot be removed"
            )));
        }
        let live = self.endpoints_in(network)?.into_iter().find_map(|endpoint| {
            self.find(&endpoint.container).ok().filter(|record| record.status.is_live())
        });
        if let Some(record) = live {
            return Err(Error::forbidden(format!(
                "error while removing network: network {} has active endpoints (name:\"{}\" id:\"{}\")",
                network.name,
                record.name,
                record.short_id()
            )));
        }
        self.db.with(|db| db.execute("DELETE FROM networks WHERE id = ?1", [&network.id]).map(drop))?;
        self.tell("network", "destroy", &network.id, &[("name", &network.name), ("type", "bridge")])
    }

    /// Moves a network whose subnet nobody chose to a free one, with all who are in it.
    pub(super) fn move_network(&self, network: &Network) -> Result<Network, Error> {
        self.db.change(|db| {
            let failed = self.db.failed();
            let mut known = all(db).map_err(&failed)?;
            let Some(at) = known.iter().position(|other| other.id == network.id) else {
                return Err(Error::Missing { kind: "network", name: network.name.clone() });
            };
            let mut config = known.swap_remove(at).config;
            let to = free_subnet(&known, std::iter::empty())?;
            for pool in config.pools.iter_mut().filter(|pool| pool.subnet.addr().is_ipv4()) {
                let old = std::mem::replace(pool, Pool::new(to));
                let mut list =
                    db.prepare("SELECT rowid, address FROM endpoints WHERE network = ?1").map_err(&failed)?;
                let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
                let list: Vec<(i64, String)> =
                    list.query_map([&network.id], read).and_then(Iterator::collect).map_err(&failed)?;
                for (row, address) in list {
                    let Ok(address) = address.parse::<Ipv4Addr>() else { continue };
                    let moved = old.moved(address.into(), &to.into()).to_string();
                    let sql = "UPDATE endpoints SET address = ?2 WHERE rowid = ?1";
                    db.execute(sql, params![row, moved]).map_err(&failed)?;
                }
            }
            let text = serde_json::to_string(&config)?;
            let sql = "UPDATE networks SET config = ?2 WHERE id = ?1";
            db.execute(sql, [&network.id, &text]).map_err(failed)
        })?;
        self.network(&network.id)
    }
}

fn all(db: &Connection) -> rusqlite::Result<Vec<Network>> {
    db.prepare(NETWORKS)?.query_map([], Network::from_row)?.collect()
}

/// The subnets of a network that nobody else may have.
fn others(network: &Network) -> impl Iterator<Item = IpNet> + '_ {
    let six = network.subnet6.map(|(net, _)| IpNet::from(net));
    std::iter::once(IpNet::from(network.subnet.0)).chain(six)
}

/// A subnet that neither a network of this lab has nor anything else on this machine.
fn free_subnet(known: &[Network], also: impl Iterator<Item = IpNet>) -> Result<Ipv4Net, Error> {
    let mut used: Vec<IpNet> = known.iter().flat_map(others).chain(also).collect();
    used.extend(bridge::routes().into_iter().map(IpNet::from));
    (0..=u8::MAX)
        .map(|third| Ipv4Net::new_assert(Ipv4Addr::new(POOL[0], POOL[1], third, 0), PREFIX))
        .find(|subnet| !used.iter().any(|other| Pool::new(*subnet).overlaps(other)))
        .ok_or_else(|| {
            Error::conflict("all 256 subnets are in use: remove networks, or choose one by --subnet")
        })
}
