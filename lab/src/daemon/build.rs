//! `docker build`, as the client without buildx asks for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{HeaderMap, Request};
use serde_json::json;

use super::Daemon;
use super::images::Arriving;
use super::query::Query;
use super::reply::{Handled, Refusal, line, ok, streamed};
use crate::engine::build::{Build, Keys};
use crate::engine::stored::Filters;
use crate::image::registry::Credentials;
use crate::image::{self, Reference};

pub(super) fn build(daemon: &Daemon, query: &Query, request: Request<Incoming>) -> Handled {
    if query.get("version") == Some("2") {
        return Err(Refusal::bad("BuildKit is not spoken here: set DOCKER_BUILDKIT=0"));
    }
    if query.get("remote").is_some() {
        return Err(Refusal::bad("a remote context is not supported: send a folder"));
    }
    let names: Result<Vec<Reference>, _> =
        query.all("t").iter().filter(|name| !name.is_empty()).map(|name| name.parse()).collect();
    let arguments: HashMap<String, Option<String>> = parsed(query, "buildargs")?;
    let labels: BTreeMap<String, String> = parsed(query, "labels")?;
    let keys = keys(request.headers())?;
    let build = Build {
        dockerfile: query.get("dockerfile").unwrap_or("Dockerfile").to_owned(),
        names: names?,
        arguments: arguments.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        labels,
        target: query.get("target").map(str::to_owned),
        platform: query.get("platform").map(str::to_owned),
        no_cache: query.is("nocache"),
        pull: query.is("pull"),
        host_network: query.get("networkmode") == Some("host"),
        keys,
        ..Build::default()
    };
    let quiet = query.is("q");
    let (feed, arriving) = Arriving::of(request);
    let (sender, reply) = streamed("application/json");
    let engine = Arc::clone(&daemon.engine);
    tokio::task::spawn_blocking(move || {
        // A client that goes away is noticed at the next word; the build's layers stay remembered.
        let mut say = |text: &str| {
            if !quiet {
                drop(sender.blocking_send(line(&json!({"stream": text}))));
            }
        };
        match engine.build(&build, arriving, &mut say) {
            Ok(image) => {
                let _ = sender.blocking_send(line(&json!({"aux": {"ID": image.id()}})));
                if quiet {
                    let _ = sender.blocking_send(line(&json!({"stream": format!("{}\n", image.id())})));
                    return;
                }
                // Each a line of its own: clients look for the id at a line's end.
                let mut lines = vec![format!("Successfully built {}\n", &image.id().hex()[..12])];
                for name in &build.names {
                    lines.push(format!("Successfully tagged {}\n", name.familiar()));
                }
                for text in lines {
                    let _ = sender.blocking_send(line(&json!({"stream": text})));
                }
            }
            Err(error) => {
                let message = error.to_string();
                let _ = sender
                    .blocking_send(line(&json!({"errorDetail": {"message": message}, "error": message})));
            }
        }
        feed.abort();
    });
    Ok(reply)
}

/// The header `X-Registry-Config`: credentials by the hosts of registries.
fn keys(headers: &HeaderMap) -> Result<Keys, Refusal> {
    let Some(header) = headers.get("X-Registry-Config") else { return Ok(Keys::default()) };
    let wrong = |error: image::Error| Refusal::bad(error.to_string());
    let all = Credentials::all_from_header(header.to_str().unwrap_or("%")).map_err(wrong)?;
    Ok(Keys::new(move |host| all.get(host).cloned().unwrap_or_default()))
}

fn parsed<T: serde::de::DeserializeOwned + Default>(query: &Query, name: &str) -> Result<T, Refusal> {
    query.get(name).map_or_else(|| Ok(T::default()), |text| Ok(serde_json::from_str(text)?))
}

/// Forgets which layers steps made; the layers themselves go with the images.
pub(super) async fn prune(daemon: &Daemon, query: Query) -> Handled {
    daemon
        .work(move |engine| {
            let filters = Filters::from_json(query.get("filters").unwrap_or_default())?;
            let (forgotten, freed) = engine.forget_builds(&filters)?;
            Ok(ok(&json!({"CachesDeleted": forgotten, "SpaceReclaimed": freed})))
        })
        .await
}
