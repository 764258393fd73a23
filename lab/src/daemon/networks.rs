//! Networks.

use std::collections::HashMap;

use bollard_stubs::models::{ConfigReference, EndpointSettings, Ipam};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::Daemon;
use super::query::{Query, body};
use super::reply::{Handled, Refusal, done, empty, json as answer, ok};
use crate::engine;
use crate::engine::stored::network_view::BUILT_IN;
use crate::engine::stored::networks::{DEFAULT, Network, Wanted};
use crate::engine::stored::{Engine, Filters};

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Body {
    name: String,
    /// Whether there may be two of this name; newer clients never ask for that.
    check_duplicate: Option<bool>,
    driver: Option<String>,
    scope: Option<String>,
    labels: Option<HashMap<String, String>>,
    options: Option<HashMap<String, String>>,
    internal: Option<bool>,
    attachable: Option<bool>,
    ingress: Option<bool>,
    config_only: Option<bool>,
    config_from: Option<ConfigReference>,
    #[serde(rename = "EnableIPv4")]
    ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    ipam: Option<Ipam>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Change {
    container: String,
    endpoint_config: Option<EndpointSettings>,
    force: Option<bool>,
}

/// What a client says that wants what only swarms have.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

/// The endpoints of swarm mode, which the lab does not have: docker's answers where it is off.
pub(super) fn swarm(path: &[&str]) -> Refusal {
    let unavailable =
        |message: &str| Refusal { code: StatusCode::SERVICE_UNAVAILABLE, message: message.into() };
    match path {
        ["swarm", "leave"] => unavailable("This node is not part of a swarm"),
        ["swarm", "init" | "join"] => Refusal {
            code: StatusCode::NOT_IMPLEMENTED,
            message: "the lab has no swarm mode: its networks and containers are this machine's".into(),
        },
        _ => unavailable(NO_SWARM),
    }
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
    let asked: Body = body(request).await?;
    daemon
        .work(move |engine| {
            let network = engine.create_network(&wanted(asked)?)?;
            let warning = network.warning().unwrap_or_default();
            Ok(answer(StatusCode::CREATED, &json!({"Id": network.id, "Warning": warning})))
        })
        .await
}

/// What a request asks for, as far as the engine can do it.
fn wanted(asked: Body) -> Result<Wanted, Refusal> {
    let forbidden = |message: String| Refusal { code: StatusCode::FORBIDDEN, message };
    match asked.driver.as_deref().unwrap_or_default() {
        "" | "bridge" | "default" => {}
        driver @ ("host" | "null") => {
            return Err(forbidden(format!("only one instance of \"{driver}\" network is allowed")));
        }
        "overlay" => return Err(swarm(&[])),
        driver => {
            return Err(Refusal::missing(format!(
                "could not find plugin {driver} in v1 plugin registry: plugin not found; there is bridge"
            )));
        }
    }
    if asked.scope.as_deref() == Some("swarm") {
        return Err(swarm(&[]));
    }
    if asked.ingress.unwrap_or(false) {
        return Err(forbidden("Ingress network is not supported without swarm mode".to_owned()));
    }
    let from = asked.config_from.and_then(|from| from.network).unwrap_or_default();
    if asked.config_only.unwrap_or(false) || !from.is_empty() {
        return Err(Refusal::bad("configuration-only networks are not supported by the lab"));
    }
    if asked.ipv4 == Some(false) {
        return Err(Refusal::bad(
            "networks without IPv4 are not supported by the lab: leave --ipv4=false out",
        ));
    }
    let ipam = asked.ipam.unwrap_or_default();
    if let Some(driver) = ipam.driver.filter(|driver| !matches!(driver.as_str(), "" | "default")) {
        return Err(Refusal::bad(format!("could not find IPAM driver {driver}: there is default")));
    }
    Ok(Wanted {
        name: asked.name,
        labels: asked.labels.unwrap_or_default(),
        options: asked.options.unwrap_or_default(),
        internal: asked.internal.unwrap_or(false),
        attachable: asked.attachable.unwrap_or(false),
        ipv6: asked.ipv6.unwrap_or(false),
        ipam_options: ipam.options.filter(|options| !options.is_empty()),
        pools: ipam.config.unwrap_or_default(),
        twin: asked.check_duplicate == Some(false),
    })
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

pub(super) async fn inspect(daemon: &Daemon, name: &str, query: &Query) -> Handled {
    let name = name.to_owned();
    // All networks are of this machine.
    if query.get("scope").is_some_and(|scope| scope != "local") {
        return Err(Refusal::missing(format!("network {name} not found")));
    }
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
            if matches!(name.as_str(), "host" | "none") {
                let message = format!("container cannot be connected to or disconnected from network {name}");
                return Err(Refusal { code: StatusCode::FORBIDDEN, message });
            }
            // The default network comes into being when it is first needed.
            if name == DEFAULT {
                engine.default_network()?;
            }
            let network = find(engine, &name)?;
            let record = match engine.find(&change.container) {
                // A container that is gone has left its networks with that.
                Err(engine::Error::Missing { .. }) if !connect && change.force.unwrap_or(false) => {
                    return Ok(empty(StatusCode::OK));
                }
                found => found?,
            };
            if connect {
                engine.connect_network(&network, &record, &change.endpoint_config.unwrap_or_default())?;
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
