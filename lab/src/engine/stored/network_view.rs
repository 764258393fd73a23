//! Networks as docker's clients see them.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::networks::{DEFAULT, Network, Pool};
use super::prune::Scope;
use super::{Engine, Filters};
use crate::engine::Error;

/// Names that are always there, and their drivers: the default network where it cannot be made, the host's, and none.
pub const BUILT_IN: [(&str, &str); 3] = [(DEFAULT, "bridge"), ("host", "host"), ("none", "null")];

impl Engine {
    /// The networks that fit the filters, those that are always there first.
    ///
    /// # Errors
    /// A filter that there is not; where the state cannot be read.
    pub fn list_networks(&self, filters: &Filters) -> Result<Vec<Value>, Error> {
        filters.check(&["driver", "id", "label", "name", "scope", "type", "dangling"])?;
        self.make_default()?;
        let made = self.networks()?;
        let others = BUILT_IN.iter().filter(|(name, _)| !made.iter().any(|network| network.name == *name));
        let mut all: Vec<Value> = others.map(|(name, driver)| built_in(name, driver)).collect();
        for network in &made {
            all.push(self.describe_network(network)?);
        }
        let text = |network: &Value, key: &str| network[key].as_str().unwrap_or_default().to_owned();
        all.retain(|network| {
            let labels: HashMap<String, String> =
                serde_json::from_value(network["Labels"].clone()).unwrap_or_default();
            let custom = !BUILT_IN.iter().any(|(name, _)| network["Name"] == *name);
            let unused = network["Containers"].as_object().is_none_or(Map::is_empty);
            filters.fits("name", |name| text(network, "Name").contains(name))
                && filters.fits("id", |id| text(network, "Id").starts_with(id))
                && filters.fits("driver", |driver| text(network, "Driver") == driver)
                && filters.fits("scope", |scope| scope == "local")
                && filters.fits("type", |kind| (kind == "custom") == custom)
                && filters.fits("dangling", |wanted| matches!(wanted, "true" | "1") == (custom && unused))
                && filters.fits_labels(&labels)
        });
        Ok(all)
    }

    /// Everything about a network.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn inspect_network(&self, name: &str) -> Result<Value, Error> {
        self.make_default()?;
        match (self.network(name), BUILT_IN.iter().find(|(built_in, _)| *built_in == name)) {
            (Err(Error::Missing { .. }), Some((name, driver))) => Ok(built_in(name, driver)),
            (network, _) => self.describe_network(&network?),
        }
    }

    /// Removes the networks that no container is in and that the filters take; tells their names.
    ///
    /// # Errors
    /// A filter that there is not; where one cannot be removed.
    pub fn prune_networks(&self, filters: &Filters) -> Result<Vec<String>, Error> {
        let scope = Scope::of(filters, &[])?;
        let mut removed = Vec::new();
        for network in self.networks()?.into_iter().filter(|network| !network.is_default()) {
            if scope.takes(Some(&network.created), &network.config.labels)
                && self.endpoints_in(&network)?.is_empty()
            {
                self.remove_network(&network)?;
                removed.push(network.name);
            }
        }
        Ok(removed)
    }

    /// The default network is there before anybody is in it, as docker's. Only root may have one.
    fn make_default(&self) -> Result<(), Error> {
        if rustix::process::geteuid().is_root() {
            self.default_network()?;
        }
        Ok(())
    }

    fn describe_network(&self, network: &Network) -> Result<Value, Error> {
        let mut containers = Map::new();
        for endpoint in self.endpoints_in(network)? {
            let Ok(record) = self.find(&endpoint.container) else { continue };
            if record.status.is_live() {
                let text = |four: bool| {
                    let mut all = endpoint.addresses().into_iter();
                    all.find(|own| own.addr().is_ipv4() == four)
                        .map(|own| own.to_string())
                        .unwrap_or_default()
                };
                let shown = json!({
                    "Name": record.name, "EndpointID": endpoint.id(), "MacAddress": endpoint.hardware(),
                    "IPv4Address": text(true), "IPv6Address": text(false),
                });
                containers.insert(record.id.clone(), shown);
            }
        }
        let pool = |pool: &Pool| {
            let mut told = json!({"Subnet": pool.subnet.to_string(), "Gateway": pool.gateway.to_string()});
            if let Some(range) = pool.range {
                told["IPRange"] = range.to_string().into();
            }
            if !pool.taken.is_empty() {
                told["AuxiliaryAddresses"] = json!(pool.taken);
            }
            told
        };
        let config = &network.config;
        let mut shown = frame(&network.name, &network.id, "bridge");
        shown["Created"] = network.created.clone().into();
        shown["Internal"] = config.internal.into();
        shown["Attachable"] = config.attachable.into();
        shown["EnableIPv6"] = config.ipv6.into();
        shown["Labels"] = json!(config.labels);
        shown["Options"] = json!(config.options);
        shown["IPAM"]["Options"] = json!(config.ipam_options);
        shown["IPAM"]["Config"] = config.pools.iter().map(pool).collect::<Vec<_>>().into();
        shown["Containers"] = containers.into();
        Ok(shown)
    }
}

fn built_in(name: &str, driver: &str) -> Value {
    frame(name, name, driver)
}

/// What all networks have.
fn frame(name: &str, id: &str, driver: &str) -> Value {
    json!({
        "Name": name, "Id": id, "Created": "1970-01-01T00:00:00Z", "Scope": "local", "Driver": driver, "EnableIPv4": true,
        "EnableIPv6": false, "Internal": false, "Attachable": false, "Ingress": false, "Options": {}, "Labels": {},
        "IPAM": {"Driver": "default", "Options": null, "Config": []}, "Containers": {}, "ConfigOnly": false,
        "ConfigFrom": {"Network": ""},
    })
}
