//! From what is kept to what the kernel has: bridges, cables, the way out, as long as somebody is plugged in.

use std::net::IpAddr;

use super::connect::way_out;
use super::{Endpoint, Network};
use crate::engine::Error;
use crate::engine::bridge::{self, Plug};
use crate::engine::nat;
use crate::engine::stored::{Engine, Record};

impl Engine {
    /// Makes the networks of a container or machine ready that is being started: its places in them.
    pub(crate) fn raise_all(&self, record: &Record) -> Result<Vec<Endpoint>, Error> {
        let endpoints = self.endpoints_of(&record.id)?;
        if endpoints.is_empty() {
            return Ok(endpoints);
        }
        let _lock = bridge::lock()?;
        self.claim_addresses(record)?;
        endpoints.iter().try_for_each(|endpoint| self.raise(&endpoint.network).map(drop))?;
        // One may have moved to another subnet.
        self.endpoints_of(&record.id)
    }

    /// Makes a network's bridge and its way out, where they are not there. With the lock.
    fn raise(&self, network: &Network) -> Result<Network, Error> {
        let mut network = network.clone();
        // Without a bridge nobody is in it, so it can move out of the way of what has come there meanwhile.
        let chosen = network.config.pools.iter().any(|pool| pool.chosen && pool.subnet.addr().is_ipv4());
        let subnet = network.subnet.0;
        let is_taken =
            || bridge::routes().into_iter().any(|route| route.contains(&subnet) || subnet.contains(&route));
        if !chosen && !bridge::is_up(&network.bridge())? && is_taken() {
            network = self.move_network(&network)?;
        }
        stand(&network)?;
        Ok(network)
    }

    /// Plugs a container in that runs.
    pub(super) fn plug_live(&self, network: &Network, record: &Record) -> Result<(), Error> {
        {
            let _lock = bridge::lock()?;
            self.raise(network)?;
            let endpoints = self.endpoints_of(&record.id)?;
            if let Some(at) = endpoints.iter().position(|endpoint| endpoint.network.id == network.id) {
                let out = way_out(&endpoints) == Some(at);
                let plugged = bridge::plug(&plug_of(&endpoints[at], out), record.pid);
                if plugged.is_err() {
                    take_out(&endpoints[at])?;
                }
                plugged?;
            }
        }
        self.write_names(network)
    }

    /// Takes a container out that runs, and shows it another way out where that was it.
    pub(super) fn unplug_live(&self, endpoint: &Endpoint, record: &Record) -> Result<(), Error> {
        unplug(endpoint)?;
        let left = self.endpoints_of(&record.id)?;
        if let Some(at) = way_out(&left) {
            bridge::lead_out(record.pid, &gateways(&left[at]))?;
        }
        self.write_own_names(record)?;
        self.write_names(&endpoint.network)
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

    /// Removes the cables, bridges and rules of networks that nobody runs in: what a monitor left that was killed.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn clear_networks(&self) -> Result<(), Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        for network in self.networks()? {
            let endpoints = self.endpoints_in(&network)?;
            let _lock = bridge::lock()?;
            let up = bridge::is_up(&network.bridge())?;
            for endpoint in endpoints.into_iter().filter(|_| up) {
                let live = self.find(&endpoint.container).is_ok_and(|record| record.status.is_live());
                if !live {
                    bridge::unplug(&endpoint.device())?;
                }
            }
            lower(&network)?;
        }
        Ok(())
    }
}

fn gateways(endpoint: &Endpoint) -> Vec<IpAddr> {
    let network = &endpoint.network;
    let six = network.subnet6.map(|(_, gateway)| IpAddr::V6(gateway));
    std::iter::once(IpAddr::V4(network.gateway())).chain(six).collect()
}

fn plug_of(endpoint: &Endpoint, out: bool) -> Plug {
    let links = endpoint.settings.ipam_config.as_ref().and_then(|config| config.link_local_ips.clone());
    let links = links.unwrap_or_default().into_iter().filter_map(|text| text.parse::<IpAddr>().ok());
    let own = links.map(super::within_link);
    Plug {
        bridge: endpoint.network.bridge(),
        address: endpoint.address,
        addresses: endpoint.addresses().into_iter().chain(own).collect(),
        prefix: endpoint.network.subnet.0.prefix_len(),
        mac: endpoint.mac(),
        device: endpoint.device(),
        gateways: if out { gateways(endpoint) } else { Vec::new() },
    }
}

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
    let out = way_out(endpoints);
    let each = endpoints.iter().enumerate().map(|(number, endpoint)| {
        stand(&endpoint.network)?;
        plug(&plug_of(endpoint, out == Some(number)))
    });
    each.collect()
}

/// Takes a container or machine out of a network, and removes the bridge after the last one.
fn unplug(endpoint: &Endpoint) -> Result<(), Error> {
    let _lock = bridge::lock()?;
    take_out(endpoint)
}

/// The same with the lock.
fn take_out(endpoint: &Endpoint) -> Result<(), Error> {
    bridge::unplug(&endpoint.device())?;
    lower(&endpoint.network)
}

/// Removes a bridge that nothing is plugged into, with its rules.
fn lower(network: &Network) -> Result<(), Error> {
    let bridge = network.bridge().name;
    if bridge::lower(&bridge)? && nat::missing().is_none() {
        nat::close(&bridge)?;
    }
    Ok(())
}
