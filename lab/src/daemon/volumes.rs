//! Volumes.

use std::collections::HashMap;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Daemon;
use super::query::{Query, body};
use super::reply::{Handled, Refusal, done, json as answer, ok};
use crate::engine;
use crate::engine::stored::volumes::Volume;
use crate::engine::stored::{Engine, Filters, Scope};

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Wanted {
    name: Option<String>,
    driver: Option<String>,
    driver_opts: Option<Map<String, Value>>,
    labels: Option<Map<String, Value>>,
}

pub(super) fn describe(engine: &Engine, volume: &Volume) -> Value {
    json!({
        "Name": volume.name, "Driver": "local", "Mountpoint": engine.volume_path(&volume.name), "CreatedAt": volume.created,
        "Labels": volume.labels, "Scope": "local", "Options": volume.options,
    })
}

pub(super) async fn list(daemon: &Daemon, query: Query) -> Handled {
    daemon
        .work(move |engine| {
            let filters = Filters::from_json(query.get("filters").unwrap_or_default())?;
            filters.check(&["dangling", "driver", "label", "name"])?;
            let volumes: Vec<Value> = engine
                .volumes()?
                .iter()
                .filter(|volume| fits(volume, &filters))
                .map(|volume| describe(engine, volume))
                .collect();
            Ok(ok(&json!({"Volumes": volumes, "Warnings": null})))
        })
        .await
}

fn labels(volume: &Volume) -> HashMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    volume.labels.iter().map(|(key, value)| (key.clone(), text(value))).collect()
}

fn fits(volume: &Volume, filters: &Filters) -> bool {
    filters.fits("name", |name| volume.name.contains(name))
        && filters.fits("driver", |driver| driver == "local")
        && filters.fits("dangling", |dangling| matches!(dangling, "1" | "true") == (volume.used == 0))
        && filters.fits_labels(&labels(volume))
}

pub(super) async fn create(daemon: &Daemon, request: Request<Incoming>) -> Handled {
    let wanted: Wanted = body(request).await?;
    daemon
        .work(move |engine| {
            if let Some(driver) = wanted.driver.filter(|driver| !matches!(driver.as_str(), "" | "local")) {
                return Err(Refusal::missing(format!(
                    "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
                )));
            }
            let volume = engine.create_volume(
                wanted.name.as_deref(),
                &wanted.labels.unwrap_or_default(),
                &wanted.driver_opts.unwrap_or_default(),
            )?;
            Ok(answer(StatusCode::CREATED, &describe(engine, &volume)))
        })
        .await
}

pub(super) async fn inspect(daemon: &Daemon, name: &str) -> Handled {
    let name = name.to_owned();
    daemon
        .work(move |engine| {
            let volume = engine.volume(&name).map_err(|error| match error {
                engine::Error::Missing { .. } => Refusal::missing(format!("get {name}: no such volume")),
                error => error.into(),
            })?;
            Ok(ok(&describe(engine, &volume)))
        })
        .await
}

pub(super) async fn remove(daemon: &Daemon, name: &str, query: Query) -> Handled {
    let name = name.to_owned();
    daemon
        .work(move |engine| match engine.remove_volume(&name) {
            Err(engine::Error::Missing { .. }) if query.is("force") => Ok(done()),
            Err(engine::Error::Missing { .. }) => {
                Err(Refusal::missing(format!("get {name}: no such volume")))
            }
            result => Ok(result.map(|()| done())?),
        })
        .await
}

/// Anonymous ones that nobody uses; with the filter `all`, named ones too.
pub(super) async fn prune(daemon: &Daemon, query: Query) -> Handled {
    daemon
        .work(move |engine| {
            let filters = Filters::from_json(query.get("filters").unwrap_or_default())?;
            // Docker has no `until` here: a volume's age says nothing about its content.
            filters.check(&["all", "label", "label!"])?;
            let scope = Scope::of(&filters, &["all"])?;
            // Before 1.42 a prune took the named ones, too.
            let all = filters.truth("all")?.unwrap_or(false) || query.before((1, 42));
            let (mut removed, mut freed) = (Vec::new(), 0);
            let unused = |volume: &Volume| volume.used == 0 && (all || volume.anonymous);
            for volume in engine.volumes()?.into_iter().filter(unused) {
                if !scope.takes(Some(&volume.created), &labels(&volume)) {
                    continue;
                }
                let bytes = engine.volume_size(&volume.name);
                match engine.remove_volume(&volume.name) {
                    Ok(()) => freed += bytes,
                    // Taken into use or removed by somebody else meanwhile.
                    Err(engine::Error::Conflict { .. } | engine::Error::Missing { .. }) => continue,
                    Err(error) => return Err(error.into()),
                }
                removed.push(volume.name);
            }
            Ok(ok(&json!({"VolumesDeleted": removed, "SpaceReclaimed": freed})))
        })
        .await
}
