//! Networks that users make: which containers are in one, and at which addresses.

use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;

use rusqlite::{OptionalExtension as _, Row, params};

use super::record::now;
use super::{Engine, Record};
use crate::engine::bridge::{self, Plug};
use crate::engine::error::Context as _;
use crate::engine::{Error, id};

/// Subnets are taken from here, each with 256 addresses: a corner of the private 10.0.0.0/8 that few use.
const POOL: [u8; 2] = [10, 213];
const PREFIX: u8 = 24;

/// Names that mean something else.
const TAKEN: [&str; 5] = ["bridge", "host", "none", "default", "container"];

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

    fn bridge(&self) -> String {
        format!("lab-{}", &self.id[..8])
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let labels: String = row.get(4)?;
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            created: row.get(2)?,
            subnet: row.get(3)?,
            labels: serde_json::from_str(&labels).unwrap_or_default(),
        })
    }
}

impl Endpoint {
    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.network.address(self.host)
    }

    fn plug(&self, number: usize) -> Plug {
        Plug {
            bridge: self.network.bridge(),
            gateway: self.network.address(1),
            address: self.address(),
            prefix: PREFIX,
            device: self.device(),
            number,
        }
    }

    fn device(&self) -> String {
        format!("lv{:02x}{:02x}{}", self.network.subnet, self.host, &self.container[..6])
    }
}

const NETWORKS: &str = "SELECT id, name, created, subnet, labels FROM networks";

impl Engine {
    /// Makes a network. Its bridge comes with its first container.
    ///
    /// # Errors
    /// Where the name is taken or breaks the rules, or all subnets are in use.
    pub fn create_network(&self, name: &str, labels: &HashMap<String, String>) -> Result<Network, Error> {
        id::check_name(name)?;
        let conflict = || Error::conflict(format!("network with name {name} already exists"));
        if TAKEN.contains(&name) {
            return Err(conflict());
        }
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
            let mut used = db.prepare("SELECT subnet FROM networks").map_err(&failed)?;
            let used: Vec<u8> =
                used.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(&failed)?;
            let free = (0..=u8::MAX).find(|subnet| !used.contains(subnet));
            let subnet =
                free.ok_or_else(|| Error::conflict("all 256 subnets are in use: remove networks"))?;
            let sql = "INSERT INTO networks (id, name, created, subnet, labels) VALUES (?1, ?2, ?3, ?4, ?5)";
            db.execute(sql, params![id, name, now(), subnet, labels]).map(drop).map_err(failed)
        })?;
        self.tell("network", "create", &id, &[("name", name), ("type", "bridge")])?;
        self.network(&id)
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
                "SELECT id, name, created, subnet, labels, container, host, aliases FROM endpoints
                 JOIN networks ON id = network WHERE {column} = ?1 ORDER BY endpoints.rowid"
            );
            let read = |row: &Row<'_>| {
                let aliases: String = row.get(7)?;
                Ok(Endpoint {
                    network: Network::from_row(row)?,
                    container: row.get(5)?,
                    host: row.get(6)?,
                    aliases: serde_json::from_str(&aliases).unwrap_or_default(),
                })
            };
            db.prepare(&sql)?.query_map([value], read)?.collect()
        })
    }

    /// Puts a container into a network, also while it runs.
    ///
    /// # Errors
    /// Where it is in it already, the network is full, or the wall has no network.
    pub fn connect_network(
        &self,
        network: &Network,
        record: &Record,
        aliases: &[String],
    ) -> Result<(), Error> {
        if record.runtime() == crate::engine::Runtime::Vm {
            let reason = "the machine has no network device";
            return Err(Error::Unsupported { flag: "--network", runtime: "vm", reason });
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
        bridge::unplug(&endpoint.device())?;
        self.write_names(network)?;
        self.tell("network", "disconnect", &network.id, &[("container", &record.id), ("name", &network.name)])
    }

    /// Removes a network that no container is in.
    ///
    /// # Errors
    /// [`Error::Conflict`] where one is.
    pub fn remove_network(&self, network: &Network) -> Result<(), Error> {
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
        bridge::remove(&network.bridge())?;
        self.tell("network", "destroy", &network.id, &[("name", &network.name), ("type", "bridge")])
    }

    /// Plugs a container that is being started into its networks.
    pub(crate) fn plug(&self, record: &Record, pid: i64) -> Result<(), Error> {
        for (number, endpoint) in self.endpoints_of(&record.id)?.iter().enumerate() {
            bridge::plug(&endpoint.plug(number), pid)?;
        }
        Ok(())
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
        for endpoint in self.endpoints_in(network)? {
            let Some(record) = live(&endpoint) else { continue };
            let mut lines = Vec::new();
            for own in self.endpoints_of(&record.id)? {
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
