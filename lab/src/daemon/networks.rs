//! Networks.

use std::collections::HashMap;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Daemon;
use super::query::{Query, body};
use super::reply::{Handled, Refusal, done, empty, json as answer, ok};
use crate::engine;
use crate::engine::stored::network_view::BUILT_IN;
use crate::engine::stored::networks::Network;
use crate::engine::stored::{Engine, Filters};

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Wanted {
    name: String,
    driver: Option<String>,
    labels: Option<HashMap<String, String>>,
    internal: Option<bool>,
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

pub(super) async fn list(daemon: &Daemon, query: Query) -> Handled {
    daemon
        .work(move |engine| {
            let filters = Filters::from_json(query.get("filters").unwrap_or_default())?;
            Ok(ok(&engine.list_networks(&filters)?))
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
            let (labels, internal) = (wanted.labels.unwrap_or_default(), wanted.internal.unwrap_or(false));
            let network = engine.create_network(&wanted.name, &labels, internal)?;
            let warning = network.warning().unwrap_or_default();
            Ok(answer(StatusCode::CREATED, &json!({"Id": network.id, "Warning": warning})))
        })
        .await
}

/// Docker's wording for a network that is not there.
fn missing(error: engine::Error, name: &str) -> Refusal {
    match error {
        engine::Error::Missing { .. } => Refusal::missing(format!("network {name} not found")),
        error => error.into(),
    }
}

fn find(engine: &Engine, name: &str) -> Result<Network, Refusal> {
    engine.network(name).map_err(|error| missing(error, name))
}

pub(super) async fn inspect(daemon: &Daemon, name: &str) -> Handled {
    let name = name.to_owned();
    daemon
        .work(move |engine| Ok(ok(&engine.inspect_network(&name).map_err(|error| missing(error, &name))?)))
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
            let removed = engine.prune_networks(&filters)?;
            Ok(ok(&json!({"NetworksDeleted": removed})))
        })
        .await
}
