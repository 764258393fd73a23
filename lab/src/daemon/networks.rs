//! Networks.

use std::collections::HashMap;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Daemon;
use super::query::{Query, body};
use super::reply::{Handled, Refusal, done, empty, json as answer, ok};
use crate::engine;
use crate::engine::stored::networks::Network;
use crate::engine::stored::{Engine, Filters, Scope};

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Wanted {
    name: String,
    driver: Option<String>,
    labels: Option<HashMap<String, String>>,
    #[serde(rename = "EnableIPv6")]
    ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    ipam: Option<Ipam>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Ipam {
    config: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Change {
    container: String,
    endpoint_config: Option<bollard_stubs::models::EndpointSettings>,
}

/// The networks that are always there: a container's own loopback, and the host's.
const BUILT_IN: [(&str, &str); 3] = [("bridge", "null"), ("host", "host"), ("none", "null")];

fn describe(engine: &Engine, network: &Network) -> Result<Value, Refusal> {
    let mut containers = Map::new();
    for endpoint in engine.endpoints_in(network)? {
        let Ok(record) = engine.find(&endpoint.container) else { continue };
        if record.status.is_live() {
            let address = format!("{}/24", endpoint.address());
            containers.insert(record.id.clone(), json!({"Name": record.name, "EndpointID": record.id, "MacAddress": "", "IPv4Address": address, "IPv6Address": ""}));
        }
    }
    Ok(json!({
        "Name": network.name, "Id": network.id, "Created": network.created, "Scope": "local", "Driver": "bridge", "EnableIPv4": true,
        "EnableIPv6": false, "Internal": true, "Attachable": false, "Ingress": false, "Options": {}, "Labels": network.labels,
        "IPAM": {"Driver": "default", "Options": null, "Config": [{"Subnet": network.subnet_text(), "Gateway": network.address(1).to_string()}]},
        "Containers": containers,
    }))
}

fn built_in(name: &str, driver: &str) -> Value {
    json!({
        "Name": name, "Id": name, "Created": "1970-01-01T00:00:00Z", "Scope": "local", "Driver": driver, "EnableIPv4": true,
        "EnableIPv6": false, "Internal": false, "Attachable": false, "Ingress": false, "Options": {}, "Labels": {},
        "IPAM": {"Driver": "default", "Config": []}, "Containers": {},
    })
}

pub(super) async fn list(daemon: &Daemon, query: Query) -> Handled {
    daemon
        .work(move |engine| {
            let filters = Filters::from_json(query.get("filters").unwrap_or_default())?;
            filters.check(&["driver", "id", "label", "name", "scope", "type", "dangling"])?;
            let mut all: Vec<Value> = BUILT_IN.iter().map(|(name, driver)| built_in(name, driver)).collect();
            for network in engine.networks()? {
                all.push(describe(engine, &network)?);
            }
            let text = |network: &Value, key: &str| network[key].as_str().unwrap_or_default().to_owned();
            all.retain(|network| {
                let labels: HashMap<String, String> =
                    serde_json::from_value(network["Labels"].clone()).unwrap_or_default();
                let custom = !BUILT_IN.iter().any(|(name, _)| network["Name"] == *name);
                filters.fits("name", |name| text(network, "Name").contains(name))
                    && filters.fits("id", |id| text(network, "Id").starts_with(id))
                    && filters.fits("driver", |driver| text(network, "Driver") == driver)
                    && filters.fits("scope", |scope| scope == "local")
                    && filters.fits("type", |kind| (kind == "custom") == custom)
                    && filters.fits_labels(&labels)
            });
            Ok(ok(&all))
        })
        .await
}

pub(super) async fn create(daemon: &Daemon, request: Request<Incoming>) -> Handled {
    let wanted: Wanted = body(request).await?;
    daemon
        .work(move |engine| {
            if let Some(driver) =
                wanted.driver.filter(|driver| !matches!(driver.as_str(), "" | "bridge" | "default"))
            {
                return Err(Refusal::missing(format!(
                    "could not find plugin {driver} in v1 plugin registry: plugin not found"
                )));
            }
            if wanted.ipv6.unwrap_or(false) {
                return Err(Refusal::bad("IPv6 in networks is not supported by the lab yet"));
            }
            if wanted.ipam.and_then(|ipam| ipam.config).is_some_and(|config| !config.is_empty()) {
                return Err(Refusal::bad(
                    "a subnet of your choice is not supported by the lab yet: leave --subnet out",
                ));
            }
            let network = engine.create_network(&wanted.name, &wanted.labels.unwrap_or_default())?;
            Ok(answer(StatusCode::CREATED, &json!({"Id": network.id, "Warning": ""})))
        })
        .await
}

/// Docker's wording for a network that is not there.
fn find(engine: &Engine, name: &str) -> Result<Network, Refusal> {
    engine.network(name).map_err(|error| match error {
        engine::Error::Missing { .. } => Refusal::missing(format!("network {name} not found")),
        error => error.into(),
    })
}

pub(super) async fn inspect(daemon: &Daemon, name: &str) -> Handled {
    let name = name.to_owned();
    daemon
        .work(move |engine| match BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            Some((name, driver)) => Ok(ok(&built_in(name, driver))),
            None => Ok(ok(&describe(engine, &find(engine, &name)?)?)),
        })
        .await
}

pub(super) async fn remove(daemon: &Daemon, name: &str) -> Handled {
    let name = name.to_owned();
    daemon
        .work(move |engine| {
            if BUILT_IN.iter().any(|(built_in, _)| *built_in == name) {
                let message = format!("{name} is a pre-defined network and cannot be removed");
                return Err(Refusal { code: StatusCode::FORBIDDEN, message });
            }
            engine.remove_network(&find(engine, &name)?)?;
            Ok(done())
        })
        .await
}

pub(super) async fn change(
    daemon: &Daemon,
    name: &str,
    connect: bool,
    request: Request<Incoming>,
) -> Handled {
    let name = name.to_owned();
    let change: Change = body(request).await?;
    daemon
        .work(move |engine| {
            let network = find(engine, &name)?;
            let record = engine.find(&change.container)?;
            if connect {
                let aliases = change.endpoint_config.and_then(|config| config.aliases).unwrap_or_default();
                engine.connect_network(&network, &record, &aliases)?;
            } else {
                engine.disconnect_network(&network, &record)?;
            }
            Ok(empty(StatusCode::OK))
        })
        .await
}

/// Networks that no container is in.
pub(super) async fn prune(daemon: &Daemon, query: Query) -> Handled {
    daemon
        .work(move |engine| {
            let filters = Filters::from_json(query.get("filters").unwrap_or_default())?;
            let scope = Scope::of(&filters, &[])?;
            let mut removed = Vec::new();
            for network in engine.networks()? {
                if scope.takes(Some(&network.created), &network.labels)
                    && engine.endpoints_in(&network)?.is_empty()
                {
                    engine.remove_network(&network)?;
                    removed.push(network.name);
                }
            }
            Ok(ok(&json!({"NetworksDeleted": removed})))
        })
        .await
}
