//! Images.

use std::io;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::Daemon;
use super::files::Outgoing;
use super::query::Query;
use super::reply::{Handled, Refusal, Reply, empty, line, ok, streamed};
use crate::engine::stored::Filters;
use crate::image::{Image, Reference, Summary};

pub(super) async fn list(daemon: &Daemon, query: Query) -> Handled {
    daemon
        .work(move |engine| {
            let filters = Filters::from_json(query.get("filters").unwrap_or_default())?;
            filters.check(&["reference", "dangling", "label", "before", "since", "until"])?;
            let all = engine.images_with_embedded()?.list()?;
            let records = engine.records()?;
            let mut images: Vec<Value> = Vec::new();
            for image in &all {
                let id = image.id.to_string();
                let name = image.name.as_ref().map(Reference::familiar);
                if !fits(image, &filters) {
                    continue;
                }
                // One image under two names is one entry.
                if let Some(known) = images.iter_mut().find(|known| known["Id"] == id.as_str()) {
                    if let (Some(tags), Some(name)) = (known["RepoTags"].as_array_mut(), name) {
                        tags.push(name.into());
                    }
                    continue;
                }
                let users = records.iter().filter(|record| record.image_id == id).count();
                images.push(json!({
                    "Id": id, "ParentId": "", "RepoTags": name.into_iter().collect::<Vec<_>>(), "RepoDigests": [],
                    "Created": seconds(image.created.as_deref()), "Size": image.size, "SharedSize": -1, "Containers": users,
                    "Labels": image.labels,
                }));
            }
            images.sort_by_key(|image| std::cmp::Reverse(image["Created"].as_i64()));
            Ok(ok(&images))
        })
        .await
}

fn seconds(created: Option<&str>) -> i64 {
    created.and_then(|created| created.parse::<Timestamp>().ok()).map_or(0, Timestamp::as_second)
}

fn fits(image: &Summary, filters: &Filters) -> bool {
    let dangling = image.name.as_ref().is_none_or(|name| name.tag().is_none());
    filters.fits_labels(&image.labels)
        && filters.fits("dangling", |wanted| matches!(wanted, "1" | "true") == dangling)
        && filters.fits("reference", |pattern| {
            image.name.as_ref().is_some_and(|name| {
                matches_pattern(&name.familiar(), pattern)
                    || matches_pattern(&name.familiar_repository(), pattern)
            })
        })
}

/// `*` stands for any part of a name without a slash (Go's path.Match).
fn matches_pattern(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            let end = rest.find('/').unwrap_or(rest.len());
            (0..=end).filter(|&at| rest.is_char_boundary(at)).any(|at| matches_pattern(&rest[at..], after))
        }),
    }
}

/// Loads what `docker save` wrote, as it arrives.
pub(super) fn load(daemon: &Daemon, request: Request<Incoming>) -> Reply {
    let (feed, arriving) = Arriving::of(request);
    let (sender, reply) = streamed("application/json");
    let engine = std::sync::Arc::clone(&daemon.engine);
    tokio::task::spawn_blocking(move || {
        let loaded = engine.images().load_from(arriving, "the archive", &());
        feed.abort();
        match loaded {
            Ok(all) => {
                for loaded in all {
                    let text = match &loaded.name {
                        Some(name) => format!("Loaded image: {}\n", name.familiar()),
                        None => format!("Loaded image ID: {}\n", loaded.id),
                    };
                    let _ = sender.blocking_send(line(&json!({"stream": text})));
                    let _ = engine.tell("image", "load", &loaded.id.to_string(), &[]);
                }
            }
            Err(error) => {
                let message = error.to_string();
                let _ = sender
                    .blocking_send(line(&json!({"errorDetail": {"message": message}, "error": message})));
            }
        }
    });
    reply
}

/// `docker save`: the names are in the path, or several times in the query.
pub(super) async fn save(daemon: &Daemon, path: &[String], query: &Query) -> Handled {
    let names: Vec<String> = path.iter().chain(query.all("names")).cloned().collect();
    let images = daemon
        .work(move |engine| {
            let store = engine.images_with_embedded()?;
            let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
            for name in &names {
                let image = store.resolve(name)?;
                // One that was asked for by its id is saved without a name.
                let known = name.parse::<Reference>().ok().filter(|name| image.name() == Some(name));
                match images.iter_mut().find(|(other, _)| other.id() == image.id()) {
                    Some((_, names)) => names.extend(known),
                    None => images.push((image, known.into_iter().collect())),
                }
            }
            Ok(images)
        })
        .await?;
    let (sender, reply) = streamed("application/x-tar");
    let engine = std::sync::Arc::clone(&daemon.engine);
    tokio::task::spawn_blocking(move || engine.images().save(&images, Outgoing::new(sender)));
    Ok(reply)
}

/// A body that is read where reading may block.
pub(super) struct Arriving {
    incoming: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Arriving {
    /// The body of a request, and the task that receives it.
    pub(super) fn of(request: Request<Incoming>) -> (tokio::task::JoinHandle<()>, Self) {
        let (bytes, incoming) = mpsc::channel::<Bytes>(16);
        let mut body = request.into_body();
        let feed = tokio::spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(data) = frame.into_data()
                    && bytes.send(data).await.is_err()
                {
                    return;
                }
            }
        });
        (feed, Self { incoming, chunk: Bytes::new() })
    }
}

impl io::Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.incoming.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.chunk.len());
        buffer[..length].copy_from_slice(&self.chunk.split_to(length));
        Ok(length)
    }
}

/// `docker pull` and `docker import`.
pub(super) fn create(_daemon: &Daemon, query: &Query) -> Handled {
    let name = query.get("fromImage").or(query.get("fromSrc")).unwrap_or_default();
    Err(Refusal::missing(format!(
        "the lab's daemon does not pull or import images yet ({name}): save it elsewhere, then `docker load`"
    )))
}

pub(super) async fn inspect(daemon: &Daemon, name: &str) -> Handled {
    let name = name.to_owned();
    daemon
        .work(move |engine| {
            let store = engine.images_with_embedded()?;
            let image = store.resolve(&name)?;
            let all = store.list()?;
            let names = all.iter().filter(|other| other.id == image.id()).filter_map(|other| other.name.as_ref());
            let raw: Value = serde_json::from_slice(image.raw_config())?;
            let field = |name: &str| raw.get(name).cloned().unwrap_or_default();
            let layers: Vec<_> = image.layers().iter().map(|layer| layer.diff_id).collect();
            let mut config = raw.get("config").cloned().unwrap_or_else(|| Value::Object(Map::new()));
            for key in ["Env", "Cmd", "Entrypoint", "Labels", "Volumes", "ExposedPorts"] {
                config.as_object_mut().map(|config| config.entry(key).or_insert(Value::Null));
            }
            Ok(ok(&json!({
                "Id": image.id(), "RepoTags": names.map(Reference::familiar).collect::<Vec<_>>(), "RepoDigests": [], "Parent": "",
                "Comment": "", "Created": field("created"), "DockerVersion": "", "Author": raw["author"].as_str().unwrap_or_default(),
                "Config": config, "Architecture": field("architecture"), "Os": field("os"), "Size": image.size(),
                "GraphDriver": {"Name": "overlay", "Data": null}, "RootFS": {"Type": "layers", "Layers": layers},
                "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
            })))
        })
        .await
}

pub(super) async fn history(daemon: &Daemon, name: &str) -> Handled {
    let name = name.to_owned();
    daemon
        .work(move |engine| {
            let image = engine.images_with_embedded()?.resolve(&name)?;
            let raw: Value = serde_json::from_slice(image.raw_config())?;
            let mut sizes = image.layers().iter().map(|layer| layer.size);
            let mut steps: Vec<Value> = Vec::new();
            for step in raw["history"].as_array().into_iter().flatten() {
                let empty = step["empty_layer"].as_bool().unwrap_or(false);
                let size = if empty { 0 } else { sizes.next().unwrap_or(0) };
                steps.push(json!({
                    "Id": "<missing>", "Created": seconds(step["created"].as_str()), "CreatedBy": step["created_by"].as_str().unwrap_or_default(),
                    "Tags": null, "Size": size, "Comment": step["comment"].as_str().unwrap_or_default(),
                }));
            }
            steps.reverse();
            if let Some(top) = steps.first_mut() {
                top["Id"] = image.id().to_string().into();
                top["Tags"] = json!(image.name().map(|name| vec![name.familiar()]));
            }
            Ok(ok(&steps))
        })
        .await
}

pub(super) async fn tag(daemon: &Daemon, name: &str, query: Query) -> Handled {
    let name = name.to_owned();
    daemon
        .work(move |engine| {
            let repository = query.get("repo").ok_or_else(|| Refusal::bad("repo is not given"))?;
            let target = match query.get("tag") {
                Some(tag) => format!("{repository}:{tag}"),
                None => repository.to_owned(),
            };
            let store = engine.images_with_embedded()?;
            let image = store.resolve(&name)?;
            store.tag(&image, &target.parse()?)?;
            engine.tell("image", "tag", &image.id().to_string(), &[("name", &target)])?;
            Ok(empty(StatusCode::CREATED))
        })
        .await
}

pub(super) async fn remove(daemon: &Daemon, name: &str, query: Query) -> Handled {
    let name = name.to_owned();
    daemon
        .work(move |engine| {
            let removed = engine.remove_image(&name, query.is("force"))?;
            let mut answer: Vec<Value> =
                removed.untagged.iter().map(|name| json!({"Untagged": name.familiar()})).collect();
            answer.extend(removed.deleted.map(|id| json!({"Deleted": id})));
            Ok(ok(&answer))
        })
        .await
}

/// Images without a tag that no container uses; with the filter `dangling=false`, also those with one.
pub(super) async fn prune(daemon: &Daemon, query: Query) -> Handled {
    daemon
        .work(move |engine| {
            let filters = Filters::from_json(query.get("filters").unwrap_or_default())?;
            let pruned = engine.prune_images(&filters)?;
            let mut all: Vec<Value> = pruned.untagged.iter().map(|name| json!({"Untagged": name})).collect();
            all.extend(pruned.deleted.iter().map(|id| json!({"Deleted": id})));
            Ok(ok(&json!({"ImagesDeleted": all, "SpaceReclaimed": pruned.freed})))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_a_part_without_slash() {
        assert!(matches_pattern("busybox:latest", "busy*"));
        assert!(matches_pattern("a/b:1", "*/b:*"));
        assert!(!matches_pattern("a/b", "a*"));
        assert!(!matches_pattern("busybox", "box"));
    }
}
