//! Networks: which containers are in one, and at which addresses.
//!
//! Those that users make, and the default one, `bridge`, which is made when it is first asked for. A network's bridge and
//! its way out are there as long as somebody is plugged in.

use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::record::now;
use super::{Engine, Record};
use crate::engine::bridge::{self, Bridge, Plug};
use crate::engine::error::Context as _;
use crate::engine::nat::{self, Zone};
use crate::engine::{Error, Runtime, id};

/// Subnets are taken from here, each with 256 addresses: a corner of the private 10.0.0.0/8 that few use.
const POOL: [u8; 2] = [10, 213];
const PREFIX: u8 = 24;

/// The network of those that ask for none in particular. As docker's, it knows no names.
pub const DEFAULT: &str = "bridge";

/// Names that mean something else.
const TAKEN: [&str; 5] = [DEFAULT, "host", "none", "default", "container"];

/// A network.
#[derive(Clone, Debug)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, unique.
    pub name: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// The third byte of its addresses.
    pub subnet: u8,
    /// Labels.
    pub labels: HashMap<String, String>,
    /// Whether nothing may leave it.
    pub internal: bool,
}

/// A container's place in a network.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The network.
    pub network: Network,
    /// The container's id.
    pub container: String,
    /// The last byte of its address.
    pub host: u8,
    /// Names by which others find it, beside its own.
    pub aliases: Vec<String>,
}

impl Network {
    /// The addresses, as `10.213.0.0/24`.
    pub fn subnet_text(&self) -> String {
        format!("{}/{PREFIX}", self.address(0))
    }

    /// An address in it.
    pub fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(POOL[0], POOL[1], self.subnet, host)
    }

    /// The address of its bridge: the way to what is elsewhere, and where names are asked for.
    pub fn gateway(&self) -> Ipv4Addr {
        self.address(1)
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
        if self.internal { None } else { nat::missing() }
    }

    fn zone<'a>(&self, bridge: &'a str) -> Zone<'a> {
        Zone { bridge, subnet: self.address(0), internal: self.internal }
    }

    fn bridge(&self) -> Bridge {
        Bridge { name: format!("lab-{}", &self.id[..8]), address: self.gateway(), prefix: PREFIX }
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let labels: String = row.get(4)?;
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            created: row.get(2)?,
            subnet: row.get(3)?,
            labels: serde_json::from_str(&labels).unwrap_or_default(),
            internal: row.get(5)?,
        })
    }
}

impl Endpoint {
    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.network.address(self.host)
    }

    /// The hardware address of its device, as people write it.
    pub fn hardware(&self) -> String {
        bridge::hardware(self.address()).map(|byte| format!("{byte:02x}")).join(":")
    }

    fn plug(&self, number: usize) -> Plug {
        let (address, device) = (self.address(), self.device());
        Plug { bridge: self.network.bridge(), address, device, number, leads_out: !self.network.internal }
    }

    fn device(&self) -> String {
        format!("lv{:02x}{:02x}{}", self.network.subnet, self.host, &self.container[..6])
    }
}

const NETWORKS: &str = "SELECT id, name, created, subnet, labels, internal FROM networks";

impl Engine {
    /// Makes a network. Its bridge comes with its first container.
    ///
    /// # Errors
    /// Where the name is taken or breaks the rules, or all subnets are in use.
    pub fn create_network(
        &self,
        name: &str,
        labels: &HashMap<String, String>,
        internal: bool,
    ) -> Result<Network, Error> {
        id::check_name(name)?;
        if TAKEN.contains(&name) {
            return Err(Error::conflict(format!("network with name {name} already exists")));
        }
        self.insert_network(name, labels, internal)
    }

    /// The default network, which is made where it is not there yet.
    ///
    /// # Errors
    /// As [`Engine::create_network`].
    pub fn default_network(&self) -> Result<Network, Error> {
        match self.network(DEFAULT) {
            Err(Error::Missing { .. }) => match self.insert_network(DEFAULT, &HashMap::new(), false) {
                // Another process was faster.
                Err(Error::Conflict { .. }) => self.network(DEFAULT),
                other => other,
            },
            other => other,
        }
    }

    fn insert_network(
        &self,
        name: &str,
        labels: &HashMap<String, String>,
        internal: bool,
    ) -> Result<Network, Error> {
        let conflict = || Error::conflict(format!("network with name {name} already exists"));
        let id = id::new().context("read", "/dev/urandom")?;
        let labels = serde_json::to_string(labels)?;
        self.db.change(|db| {
            let failed = self.db.failed();
            let known: Option<String> = db
                .query_row("SELECT id FROM networks WHERE name = ?1", [name], |row| row.get(0))
                .optional()
                .map_err(&failed)?;
            if known.is_some() {
                return Err(conflict());
            }
            let subnet = self.free_subnet(db)?;
            let sql = "INSERT INTO networks (id, name, created, subnet, labels, internal) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            db.execute(sql, params![id, name, now(), subnet, labels, internal]).map(drop).map_err(failed)
        })?;
        self.tell("network", "create", &id, &[("name", name), ("type", "bridge")])?;
        self.network(&id)
    }

    /// A subnet that neither a network of this lab has nor anything else on this machine.
    fn free_subnet(&self, db: &Connection) -> Result<u8, Error> {
        let failed = self.db.failed();
        let mut used = db.prepare("SELECT subnet FROM networks").map_err(&failed)?;
        let used: Vec<u8> =
            used.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)?;
        let routes = bridge::routes();
        let free =
            |subnet: &u8| !used.contains(subnet) && !routes.iter().any(|route| covers(*route, *subnet));
        (0..=u8::MAX).find(free).ok_or_else(|| Error::conflict("all 256 subnets are in use: remove networks"))
    }

    /// A network by its name, its id, or the beginning of its id.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn network(&self, asked: &str) -> Result<Network, Error> {
        let found = self.db.with(|db| {
            let sql =
                format!("{NETWORKS} WHERE name = ?1 OR id LIKE ?1 || '%' ORDER BY name = ?1 DESC LIMIT 1");
            db.query_row(&sql, [asked], Network::from_row).optional()
        })?;
        found.ok_or_else(|| Error::Missing { kind: "network", name: asked.to_owned() })
    }

    /// All networks that users made, by name.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn networks(&self) -> Result<Vec<Network>, Error> {
        self.db.with(|db| {
            db.prepare(&format!("{NETWORKS} ORDER BY name"))?.query_map([], Network::from_row)?.collect()
        })
    }

    /// The places of a container in its networks.
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

    fn endpoints(&self, column: &str, value: &str) -> Result<Vec<Endpoint>, Error> {
        self.db.with(|db| {
            let sql = format!(
                "SELECT id, name, created, subnet, labels, internal, container, host, aliases FROM endpoints
                 JOIN networks ON id = network WHERE {column} = ?1 ORDER BY endpoints.rowid"
            );
            let read = |row: &Row<'_>| {
                let aliases: String = row.get(8)?;
                Ok(Endpoint {
                    network: Network::from_row(row)?,
                    container: row.get(6)?,
                    host: row.get(7)?,
                    aliases: serde_json::from_str(&aliases).unwrap_or_default(),
                })
            };
            db.prepare(&sql)?.query_map([value], read)?.collect()
        })
    }

    /// Puts a container into a network, also while it runs.
    ///
    /// # Errors
    /// Where it is in it already, the network is full, or it is a machine that runs.
    pub fn connect_network(
        &self,
        network: &Network,
        record: &Record,
        aliases: &[String],
    ) -> Result<(), Error> {
        if record.runtime() == Runtime::Vm && record.status.is_live() {
            let reason = "a machine has the network cards that it was started with; stop it first";
            return Err(Error::Unsupported { flag: "network connect", runtime: "vm", reason });
        }
        let aliases = serde_json::to_string(aliases)?;
        self.db.change(|db| {
            let failed = self.db.failed();
            let mut list =
                db.prepare("SELECT host, container FROM endpoints WHERE network = ?1").map_err(&failed)?;
            let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let used: Vec<(u8, String)> =
                list.query_map([&network.id], read).and_then(Iterator::collect).map_err(&failed)?;
            if used.iter().any(|(_, container)| *container == record.id) {
                return Err(Error::conflict(format!(
                    "endpoint with name {} already exists in network {}",
                    record.name, network.name
                )));
            }
            let free = (2..255).find(|host| !used.iter().any(|(other, _)| other == host));
            let host: u8 =
                free.ok_or_else(|| Error::conflict(format!("network {} is full", network.name)))?;
            let sql = "INSERT INTO endpoints (network, container, host, aliases) VALUES (?1, ?2, ?3, ?4)";
            db.execute(sql, params![network.id, record.id, host, aliases]).map(drop).map_err(failed)
        })?;
        if record.status.is_live() {
            let _lock = bridge::lock()?;
            self.raise(network)?;
            let endpoints = self.endpoints_of(&record.id)?;
            if let Some((number, endpoint)) =
                endpoints.iter().enumerate().find(|(_, endpoint)| endpoint.network.id == network.id)
            {
                bridge::plug(&endpoint.plug(number), record.pid)?;
            }
            self.write_names(network)?;
        }
        self.tell("network", "connect", &network.id, &[("container", &record.id), ("name", &network.name)])
    }

    /// Takes a container out of a network.
    ///
    /// # Errors
    /// Where it is not in it.
    pub fn disconnect_network(&self, network: &Network, record: &Record) -> Result<(), Error> {
        let endpoint =
            self.endpoints_of(&record.id)?.into_iter().find(|endpoint| endpoint.network.id == network.id);
        let endpoint = endpoint.ok_or_else(|| {
            Error::conflict(format!("container {} is not connected to network {}", record.name, network.name))
        })?;
        self.db.with(|db| {
            let sql = "DELETE FROM endpoints WHERE network = ?1 AND container = ?2";
            db.execute(sql, [&network.id, &record.id]).map(drop)
        })?;
        if record.status.is_live() {
            unplug(&endpoint)?;
            self.write_names(network)?;
        }
        self.tell("network", "disconnect", &network.id, &[("container", &record.id), ("name", &network.name)])
    }

    /// Removes a network that no container is in.
    ///
    /// # Errors
    /// [`Error::Conflict`] where one is.
    pub fn remove_network(&self, network: &Network) -> Result<(), Error> {
        if network.is_default() {
            return Err(Error::conflict(format!("{DEFAULT} is a pre-defined network and cannot be removed")));
        }
        let live = self
            .endpoints_in(network)?
            .into_iter()
            .find(|endpoint| self.find(&endpoint.container).is_ok_and(|record| record.status.is_live()));
        if let Some(endpoint) = live {
            return Err(Error::conflict(format!(
                "error while removing network: network {} has active endpoints (container {})",
                network.name,
                id::short(&endpoint.container)
            )));
        }
        self.db.with(|db| db.execute("DELETE FROM networks WHERE id = ?1", [&network.id]).map(drop))?;
        self.tell("network", "destroy", &network.id, &[("name", &network.name), ("type", "bridge")])
    }

    /// Makes the networks of a container or machine ready that is being started: its places in them.
    pub(crate) fn raise_all(&self, record: &Record) -> Result<Vec<Endpoint>, Error> {
        let endpoints = self.endpoints_of(&record.id)?;
        if endpoints.is_empty() {
            return Ok(endpoints);
        }
        let _lock = bridge::lock()?;
        endpoints.iter().try_for_each(|endpoint| self.raise(&endpoint.network))?;
        // One may have moved to another subnet.
        self.endpoints_of(&record.id)
    }

    /// Makes a network's bridge and its way out, where they are not there. With the lock.
    fn raise(&self, network: &Network) -> Result<(), Error> {
        let mut network = network.clone();
        // Without a bridge nobody is in it, so it can move out of the way of what has come there meanwhile.
        let is_taken = || bridge::routes().into_iter().any(|route| covers(route, network.subnet));
        if !bridge::is_up(&network.bridge())? && is_taken() {
            network.subnet = self.db.change(|db| {
                let subnet = self.free_subnet(db)?;
                let sql = "UPDATE networks SET subnet = ?2 WHERE id = ?1";
                db.execute(sql, params![network.id, subnet]).map_err(self.db.failed())?;
                Ok(subnet)
            })?;
        }
        stand(&network)
    }

    /// Plugs a container that is being started into its networks.
    pub(crate) fn plug(endpoints: &[Endpoint], pid: i64) -> Result<(), Error> {
        plug_each(endpoints, |plug| bridge::plug(plug, pid)).map(drop)
    }

    /// The network cards of a machine that is being started, plugged in.
    pub(crate) fn cards(endpoints: &[Endpoint]) -> Result<Vec<microvm::network::Interface>, Error> {
        plug_each(endpoints, bridge::plug_machine)
    }

    /// Takes a container or machine that has ended out of its networks.
    pub(crate) fn unplug_all(&self, record: &Record) -> Result<(), Error> {
        self.endpoints_of(&record.id)?.iter().try_for_each(unplug)
    }

    /// Tells the containers of a container's networks who is there, after one has come or gone.
    pub(crate) fn write_all_names(&self, record: &Record) -> Result<(), Error> {
        self.endpoints_of(&record.id)?.iter().try_for_each(|endpoint| self.write_names(&endpoint.network))
    }

    /// Writes the names of a network's containers into `/etc/hosts` of each that runs. In place: the file is mounted.
    fn write_names(&self, network: &Network) -> Result<(), Error> {
        let live = |endpoint: &Endpoint| {
            self.find(&endpoint.container).ok().filter(|record| record.status.is_live())
        };
        if !network.has_names() {
            return Ok(());
        }
        for endpoint in self.endpoints_in(network)? {
            // A machine has its files inside, and asks the network's DNS server.
            let Some(record) = live(&endpoint).filter(|record| record.runtime() == Runtime::Container) else {
                continue;
            };
            let mut lines = Vec::new();
            for own in self.endpoints_of(&record.id)?.into_iter().filter(|own| own.network.has_names()) {
                for other in self.endpoints_in(&own.network)? {
                    let Some(peer) = live(&other) else { continue };
                    let aliases = other.aliases.join(" ");
                    lines.push(format!("{}\t{} {} {aliases}", other.address(), peer.name, peer.short_id()));
                }
            }
            let path = self.roots.stored(&record.id).join("hosts");
            let text = fs::read_to_string(&path).unwrap_or_default();
            let own = text.split(MARK).next().unwrap_or_default();
            fs::write(&path, format!("{own}{MARK}{}\n", lines.join("\n")))
                .context("write", path.display())?;
        }
        Ok(())
    }
}

/// What follows it in `/etc/hosts` is the network's.
const MARK: &str = "# containers of the same networks\n";

/// Has a network's bridge and its way out there. With the lock.
fn stand(network: &Network) -> Result<(), Error> {
    let bridge = network.bridge();
    if !bridge::is_up(&bridge)? {
        bridge::raise(&bridge)?;
    }
    // Without a packet filter there is no way out, which was said when the network was made.
    let _ = nat::open(network.zone(&bridge.name));
    Ok(())
}

/// Plugs each place in. A bridge that was made for it may have gone with another that ended meanwhile.
fn plug_each<T>(endpoints: &[Endpoint], plug: impl Fn(&Plug) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    if endpoints.is_empty() {
        return Ok(Vec::new());
    }
    let _lock = bridge::lock()?;
    let each = endpoints.iter().enumerate().map(|(number, endpoint)| {
        stand(&endpoint.network)?;
        plug(&endpoint.plug(number))
    });
    each.collect()
}

/// Takes a container or machine out of a network, and removes the bridge after the last one.
fn unplug(endpoint: &Endpoint) -> Result<(), Error> {
    let bridge = endpoint.network.bridge().name;
    let _lock = bridge::lock()?;
    bridge::unplug(&endpoint.device())?;
    if bridge::lower(&bridge)? && nat::missing().is_none() {
        nat::close(&bridge)?;
    }
    Ok(())
}

/// Whether a route leads into this subnet, or from it.
fn covers((to, mask): (Ipv4Addr, Ipv4Addr), subnet: u8) -> bool {
    let (mask, own) = (u32::from(mask), u32::MAX << (32 - u32::from(PREFIX)));
    let both = mask & own;
    u32::from(to) & both == u32::from(Ipv4Addr::new(POOL[0], POOL[1], subnet, 0)) & both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_within_a_route_or_around_it_is_taken() {
        let route = |to: [u8; 4], mask: [u8; 4]| (Ipv4Addr::from(to), Ipv4Addr::from(mask));
        assert!(covers(route([10, 213, 3, 0], [255, 255, 255, 0]), 3));
        assert!(!covers(route([10, 213, 3, 0], [255, 255, 255, 0]), 4));
        assert!(covers(route([10, 0, 0, 0], [255, 0, 0, 0]), 200));
        assert!(covers(route([10, 213, 3, 128], [255, 255, 255, 128]), 3));
        assert!(!covers(route([172, 16, 0, 0], [255, 240, 0, 0]), 0));
    }
}
