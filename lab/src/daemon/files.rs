//! A container's files: cp, diff, export, commit.

use std::io::{self, BufReader, Write};
use std::sync::Arc;

use bollard_stubs::models::ContainerConfig;
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Daemon;
use super::images::Arriving;
use super::query::{Query, body};
use super::reply::{Handled, Refusal, empty, json as answer, ok, streamed};
use crate::engine;
use crate::engine::stored::Commit;

/// What the client wants to know of a path before it copies.
const STAT: &str = "X-Docker-Container-Path-Stat";

/// The size of what is sent at once.
const CHUNK: usize = 64 * 1024;

/// `HEAD` looks, `GET` takes out, `PUT` puts in.
pub(super) async fn archive(daemon: &Daemon, id: &str, query: Query, request: Request<Incoming>) -> Handled {
    let id = id.to_owned();
    let path = query.get("path").ok_or_else(|| Refusal::bad("missing parameter: path"))?.to_owned();
    if request.method() == Method::PUT {
        let (feed, arriving) = Arriving::of(request);
        let done = daemon
            .work(move |engine| {
                let record = engine.find(&id)?;
                engine.copy_in(&record, &path, BufReader::with_capacity(CHUNK, arriving)).map_err(explain)?;
                Ok(empty(StatusCode::OK))
            })
            .await;
        feed.abort();
        return done;
    }
    let (asked, at) = (id.clone(), path.clone());
    let (record, stat) = daemon
        .work(move |engine| {
            let record = engine.find(&asked)?;
            let stat = engine.stat_path(&record, &at).map_err(explain)?;
            Ok((record, stat))
        })
        .await?;
    let stat = HeaderValue::try_from(base64(stat.to_string().as_bytes()))
        .map_err(|error| Refusal::internal(error.to_string()))?;
    let mut reply = if request.method() == Method::HEAD {
        empty(StatusCode::OK)
    } else {
        let (sender, reply) = streamed("application/x-tar");
        let engine = Arc::clone(&daemon.engine);
        // What goes wrong from here on the client sees as an archive that ends early.
        tokio::task::spawn_blocking(move || engine.copy_out(&record, &path, Outgoing::new(sender)));
        reply
    };
    reply.headers_mut().insert(STAT, stat);
    Ok(reply)
}

fn explain(error: engine::Error) -> Refusal {
    match error {
        engine::Error::Missing { kind: "path in the container", name } => {
            Refusal::missing(format!("Could not find the file {name} in container"))
        }
        error => error.into(),
    }
}

pub(super) async fn changes(daemon: &Daemon, id: &str) -> Handled {
    let id = id.to_owned();
    daemon
        .work(move |engine| {
            let changes = engine.changes(&engine.find(&id)?)?;
            let told: Vec<Value> =
                changes.iter().map(|change| json!({"Path": change.path, "Kind": change.kind})).collect();
            Ok(ok(&told))
        })
        .await
}

pub(super) async fn export(daemon: &Daemon, id: &str) -> Handled {
    let id = id.to_owned();
    let record = daemon.work(move |engine| Ok(engine.find(&id)?)).await?;
    let (sender, reply) = streamed("application/octet-stream");
    let engine = Arc::clone(&daemon.engine);
    tokio::task::spawn_blocking(move || engine.export(&record, Outgoing::new(sender)));
    Ok(reply)
}

pub(super) async fn commit(daemon: &Daemon, query: Query, request: Request<Incoming>) -> Handled {
    let config: Option<ContainerConfig> = body(request).await?;
    daemon
        .work(move |engine| {
            let record =
                engine.find(query.get("container").ok_or_else(|| Refusal::bad("container is not given"))?)?;
            let name = match (query.get("repo"), query.get("tag")) {
                (None, _) => None,
                (Some(repository), None) => Some(repository.parse()?),
                (Some(repository), Some(tag)) => Some(format!("{repository}:{tag}").parse()?),
            };
            let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
            // The client always sends a configuration; one that says nothing means the container's own.
            let config = config.filter(|config| *config != ContainerConfig::default());
            let commit = Commit {
                name,
                author: text("author"),
                comment: text("comment"),
                step: String::new(),
                config,
                changes: query
                    .all("changes")
                    .iter()
                    .flat_map(|text| text.lines().map(str::to_owned))
                    .collect(),
                pause: query.is("pause"),
            };
            let image = engine.commit(&record, &commit)?;
            Ok(answer(StatusCode::CREATED, &json!({"Id": image.id()})))
        })
        .await
}

/// A streamed body, written where writing may block.
pub(super) struct Outgoing {
    sender: mpsc::Sender<Bytes>,
    held: Vec<u8>,
}

impl Outgoing {
    pub(super) fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self { sender, held: Vec::with_capacity(CHUNK) }
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend(bytes);
        if self.held.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::take(&mut self.held);
        if chunk.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(chunk.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            if place > group.len() {
                text.push('=');
            } else {
                text.push(char::from(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_s() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
