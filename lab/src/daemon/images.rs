//! Images.

use std::io;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Daemon;
use super::files::Outgoing;
use super::query::Query;
use super::reply::{Handled, Refusal, Reply, empty, line, ok, streamed};
use crate::engine::stored::{Filters, ImageEntry, Import};
use crate::image::Reference;

pub(super) async fn list(daemon: &Daemon, query: Query) -> Handled {
    daemon
        .work(move |engine| {
            let mut filters = Filters::from_json(query.get("filters").unwrap_or_default())?;
            // The older form of the filter `reference`.
            if let Some(name) = query.get("filter") {
                filters.add("reference", name);
            }
            let records = engine.records()?;
            let familiar = |names: &[Reference]| names.iter().map(Reference::familiar).collect::<Vec<_>>();
            let describe = |image: &ImageEntry| {
                let id = image.id.to_string();
                let users = records.iter().filter(|record| record.image_id == id).count();
                json!({
                    "Id": id, "ParentId": "", "RepoTags": familiar(&image.tags), "RepoDigests": familiar(&image.digests),
                    "Created": image.moment().as_second(), "Size": image.size, "SharedSize": -1, "Containers": users,
                    "Labels": image.labels,
                })
            };
            Ok(ok(&engine.list_images(&filters)?.iter().map(describe).collect::<Vec<Value>>()))
        })
        .await
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
    let images = daemon.work(move |engine| Ok(engine.images_to_save(&names)?)).await?;
    let (sender, reply) = streamed("application/x-tar");
    let engine = std::sync::Arc::clone(&daemon.engine);
    tokio::task::spawn_blocking(move || engine.images().save(&images, Outgoing::new(sender)));
    Ok(reply)
}

/// A body that is read where reading may block.
pub(super) struct Arriving {
    incoming: mpsc::Receiver<io::Result<Bytes>>,
    chunk: Bytes,
}

impl Arriving {
    /// The body of a request, and the task that receives it.
    pub(super) fn of(request: Request<Incoming>) -> (tokio::task::JoinHandle<()>, Self) {
        let (bytes, incoming) = mpsc::channel::<io::Result<Bytes>>(16);
        let mut body = request.into_body();
        let feed = tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let broke = |error| {
                    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the client broke off: {error}"))
                };
                let data = match frame.map(hyper::body::Frame::into_data) {
                    Ok(Ok(data)) => Ok(data),
                    // Trailers.
                    Ok(Err(_)) => continue,
                    // Half a body must not be taken for a whole one.
                    Err(error) => Err(broke(error)),
                };
                let last = data.is_err();
                if bytes.send(data).await.is_err() || last {
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
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.chunk.len());
        buffer[..length].copy_from_slice(&self.chunk.split_to(length));
        Ok(length)
    }
}

/// `docker import`: the tar is the request's body.
pub(super) async fn import(daemon: &Daemon, query: &Query, request: Request<Incoming>) -> Handled {
    let source = query.get("fromSrc").unwrap_or_default().to_owned();
    if source != "-" {
        return Err(Refusal::bad(format!(
            "fromSrc {source}: the lab's daemon fetches nothing; send the archive, fromSrc=-"
        )));
    }
    let name = query.get("repo").map(|repository| match query.get("tag") {
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    });
    let import = Import {
        name: name.map(|name| name.parse()).transpose()?,
        changes: query.all("changes").to_vec(),
        message: query.get("message").unwrap_or_default().to_owned(),
        platform: query.get("platform").map(str::to_owned),
        source,
    };
    let (feed, arriving) = Arriving::of(request);
    let imported = daemon.work(move |engine| Ok(engine.import(&import, arriving)?)).await;
    feed.abort();
    let (sender, reply) = streamed("application/json");
    let _ = sender.try_send(line(&json!({"status": imported?.id()})));
    Ok(reply)
}

pub(super) async fn inspect(daemon: &Daemon, name: &str) -> Handled {
    let name = name.to_owned();
    daemon.work(move |engine| Ok(ok(&engine.inspect_image(&name)?))).await
}

pub(super) async fn history(daemon: &Daemon, name: &str) -> Handled {
    let name = name.to_owned();
    daemon.work(move |engine| Ok(ok(&engine.image_history(&name)?))).await
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
