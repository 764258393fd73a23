//! Containers in networks: connecting, with an address that is kept, and disconnecting.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard_stubs::models::EndpointSettings;
use rusqlite::{Connection, Row, params};

use super::{Endpoint, Network};
use crate::engine::bridge;
use crate::engine::stored::{Engine, Record};
use crate::engine::{Error, Runtime};

impl Engine {
    /// Puts a container into a network, also while it runs.
    ///
    /// # Errors
    /// Where it is in it already, the network is full or has no such address, or it is a machine that runs.
    pub fn connect_network(
        &self,
        network: &Network,
        record: &Record,
        settings: &EndpointSettings,
    ) -> Result<(), Error> {
        if record.runtime() == Runtime::Vm && record.status.is_live() {
            let reason = "a machine has the network cards that it was started with; stop it first";
            return Err(Error::Unsupported { flag: "network connect", runtime: "vm", reason });
        }
        let mode = record.network_name();
        if mode == "host" || mode.starts_with("container:") {
            return Err(Error::forbidden(
                "container sharing network namespace with another container or host cannot be connected to any other network",
            ));
        }
        let choice = Choice::of(network, settings)?;
        let text = serde_json::to_string(&kept(settings))?;
        self.db.change(|db| {
            let failed = self.db.failed();
            let places = places(db, network).map_err(&failed)?;
            if places.iter().any(|place| place.container == record.id) {
                return Err(Error::forbidden(format!(
                    "endpoint with name {} already exists in network {}",
                    record.name, network.name
                )));
            }
            let (four, six) = choice.settle(network, &places, record.status.is_live())?;
            let sql = "INSERT INTO endpoints (network, container, address, address6, settings) VALUES (?1, ?2, ?3, ?4, ?5)";
            let six = six.map(|address| address.to_string()).unwrap_or_default();
            let values = params![network.id, record.id, four.to_string(), six, text];
            db.execute(sql, values).map(drop).map_err(failed)
        })?;
        if record.status.is_live()
            && let Err(error) = self.plug_live(network, record)
        {
            let sql = "DELETE FROM endpoints WHERE network = ?1 AND container = ?2";
            self.db.with(|db| db.execute(sql, [&network.id, &record.id]).map(drop))?;
            return Err(error);
        }
        self.tell("network", "connect", &network.id, &[("container", &record.id), ("name", &network.name)])
    }

    /// Takes a container out of a network.
    ///
    /// # Errors
    /// Where it is not in it.
    pub fn disconnect_network(&self, network: &Network, record: &Record) -> Result<(), Error> {
        let Some(endpoint) = self.endpoint(network, &record.id)? else {
            return Err(Error::forbidden(format!(
                "container {} is not connected to network {}",
                record.name, network.name
            )));
        };
        if record.runtime() == Runtime::Vm && record.status.is_live() {
            let reason = "a machine has the network cards that it was started with; stop it first";
            return Err(Error::Unsupported { flag: "network disconnect", runtime: "vm", reason });
        }
        self.db.with(|db| {
            let sql = "DELETE FROM endpoints WHERE network = ?1 AND container = ?2";
            db.execute(sql, [&network.id, &record.id]).map(drop)
        })?;
        if record.status.is_live() {
            self.unplug_live(&endpoint, record)?;
        }
        self.tell("network", "disconnect", &network.id, &[("container", &record.id), ("name", &network.name)])
    }

    /// Sees to it that a container that is being started has addresses that nobody else has now. Those of one that does not
    /// run are kept for it as long as they are not needed.
    pub(super) fn claim_addresses(&self, record: &Record) -> Result<(), Error> {
        for endpoint in self.endpoints_of(&record.id)? {
            let network = &endpoint.network;
            self.db.change(|db| {
                let failed = self.db.failed();
                let places: Vec<Place> = places(db, network).map_err(&failed)?;
                let others = || places.iter().filter(|place| place.live && place.container != record.id);
                let mine = [Some(IpAddr::V4(endpoint.address)), endpoint.address6.map(IpAddr::V6)];
                let lost =
                    others().any(|other| other.addresses().any(|address| mine.contains(&Some(address))));
                if !lost {
                    return Ok(());
                }
                let rest: Vec<Place> =
                    places.iter().filter(|place| place.container != record.id).cloned().collect();
                let (four, six) = Choice::of(network, &endpoint.settings)?.settle(network, &rest, true)?;
                let six = six.map(|address| address.to_string()).unwrap_or_default();
                let sql =
                    "UPDATE endpoints SET address = ?3, address6 = ?4 WHERE network = ?1 AND container = ?2";
                let values = params![network.id, record.id, four.to_string(), six];
                db.execute(sql, values).map(drop).map_err(failed)
            })?;
        }
        Ok(())
    }
}

/// What is kept of an endpoint's settings: what was asked for, not what a client copied from an inspection.
fn kept(settings: &EndpointSettings) -> EndpointSettings {
    EndpointSettings {
        network_id: None,
        endpoint_id: None,
        gateway: None,
        ip_address: None,
        ip_prefix_len: None,
        ipv6_gateway: None,
        global_ipv6_address: None,
        global_ipv6_prefix_len: None,
        dns_names: None,
        mac_address: settings.mac_address.clone().filter(|text| !text.is_empty()),
        ..settings.clone()
    }
}

/// Who has which addresses in a network.
#[derive(Clone, Debug)]
struct Place {
    container: String,
    four: Option<Ipv4Addr>,
    six: Option<Ipv6Addr>,
    live: bool,
}

impl Place {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.four.map(IpAddr::V4).into_iter().chain(self.six.map(IpAddr::V6))
    }
}

fn places(db: &Connection, network: &Network) -> rusqlite::Result<Vec<Place>> {
    let sql =
        "SELECT container, address, address6, status IN ('running', 'paused', 'restarting') FROM endpoints
               JOIN containers ON id = container WHERE network = ?1";
    let read = |row: &Row<'_>| {
        let (four, six): (String, String) = (row.get(1)?, row.get(2)?);
        Ok(Place {
            container: row.get(0)?,
            four: four.parse().ok(),
            six: six.parse().ok(),
            live: row.get(3)?,
        })
    };
    db.prepare(sql)?.query_map([&network.id], read)?.collect()
}

/// The addresses that an endpoint insists on.
struct Choice {
    four: Option<Ipv4Addr>,
    six: Option<Ipv6Addr>,
}

impl Choice {
    /// Reads and checks what is asked for.
    fn of(network: &Network, settings: &EndpointSettings) -> Result<Self, Error> {
        let asked = settings.ipam_config.clone().unwrap_or_default();
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let wrong = |text: &str| Error::bad(format!("invalid IP address: {text}"));
        let four =
            given(asked.ipv4_address).map(|text| text.parse().map_err(|_| wrong(&text))).transpose()?;
        let six = given(asked.ipv6_address).map(|text| text.parse().map_err(|_| wrong(&text))).transpose()?;
        let choice = Self { four, six };
        for text in asked.link_local_ips.iter().flatten() {
            text.parse::<IpAddr>().map_err(|_| wrong(text))?;
        }
        if let Some(mac) = settings.mac_address.as_deref().filter(|text| !text.is_empty())
            && bridge::parse_mac(mac).is_none()
        {
            return Err(Error::bad(format!("invalid MAC address: {mac}")));
        }
        if network.is_default() && settings.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
            return Err(Error::bad(
                "network-scoped alias is supported only for containers in user defined networks",
            ));
        }
        let both = [choice.four.map(IpAddr::V4), choice.six.map(IpAddr::V6)];
        for address in both.into_iter().flatten() {
            if network.is_default() {
                return Err(Error::bad(
                    "user specified IP address is supported on user defined networks only",
                ));
            }
            let mut pools = network.config.pools.iter().filter(|pool| pool.chosen);
            let Some(pool) = pools.find(|pool| pool.subnet.addr().is_ipv4() == address.is_ipv4()) else {
                return Err(Error::bad(
                    "user specified IP address is supported only when connecting to networks with user configured subnets",
                ));
            };
            if !pool.subnet.contains(&address) {
                return Err(Error::bad(format!(
                    "invalid endpoint settings: no configured subnet or ip-range contain the IP address {address}"
                )));
            }
            if address == pool.gateway {
                return Err(Error::conflict(format!("Address already in use: {address} is the gateway's")));
            }
        }
        Ok(choice)
    }

    /// The addresses to have. One that is insisted on may be kept by another that does not run, as long as this one does
    /// not either. One that nobody insists on comes from those that nobody keeps, and else from those of who does not run.
    fn settle(
        &self,
        network: &Network,
        places: &[Place],
        live: bool,
    ) -> Result<(Ipv4Addr, Option<Ipv6Addr>), Error> {
        let running = || places.iter().filter(|place| place.live).flat_map(Place::addresses);
        let (mut four, mut six) = (self.four, self.six);
        for address in [four.map(IpAddr::V4), six.map(IpAddr::V6)].into_iter().flatten() {
            if live && running().any(|other| other == address) {
                return Err(Error::forbidden(format!("Address already in use: {address}")));
            }
        }
        for pool in &network.config.pools {
            let is_six = pool.subnet.addr().is_ipv6();
            let asked = if is_six { six.is_some() } else { four.is_some() };
            if asked || (is_six && network.subnet6.is_none()) {
                continue;
            }
            let kept: HashSet<IpAddr> = places.iter().flat_map(Place::addresses).collect();
            let free = pool.free(&kept).or_else(|| pool.free(&running().collect()));
            match free.ok_or_else(|| {
                Error::conflict(format!("no available addresses in network {}", network.name))
            })? {
                IpAddr::V4(address) => four = Some(address),
                IpAddr::V6(address) => six = Some(address),
            }
        }
        let four =
            four.ok_or_else(|| Error::conflict(format!("network {} has no addresses", network.name)))?;
        Ok((four, six.filter(|_| network.subnet6.is_some())))
    }
}

/// Which of a container's places leads to what is elsewhere: of those whose network does, the one with the highest priority,
/// and of several the first.
pub(super) fn way_out(endpoints: &[Endpoint]) -> Option<usize> {
    let mut leading = endpoints.iter().enumerate().filter(|(_, endpoint)| !endpoint.network.config.internal);
    let first = leading.next()?;
    let best =
        leading.fold(first, |best, next| if next.1.priority() > best.1.priority() { next } else { best });
    Some(best.0)
}
