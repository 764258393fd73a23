//! `docker pull`, `push` and `login`: the store's transfers, told line by line as they go on.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Request};
use serde_json::{Value, json};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::Daemon;
use super::query::{Query, body};
use super::reply::{Handled, Refusal, line, ok, streamed};
use crate::engine::stored::Engine;
use crate::image::registry::{self, Credentials, Listener, News, Wanted};
use crate::image::{Error, Reference};

/// How long a client that reads slowly is waited for between two looks.
const SLOW: Duration = Duration::from_millis(5);

/// Writes each piece of news as a line of JSON, and says when the first one was written: until then the answer's code is
/// open.
struct Lines {
    sender: mpsc::Sender<Bytes>,
    begun: RefCell<Option<oneshot::Sender<Result<(), Refusal>>>>,
}

impl Lines {
    /// A line; false where the client has gone. What is told too often for a slow client may be left out.
    fn write(&self, value: &Value, may_be_left_out: bool) -> bool {
        if let Some(begun) = self.begun.take() {
            let _ = begun.send(Ok(()));
        }
        let mut bytes = line(value);
        loop {
            bytes = match self.sender.try_send(bytes) {
                Ok(()) => return true,
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(_)) if may_be_left_out => return true,
                Err(TrySendError::Full(bytes)) => bytes,
            };
            // Not `blocking_send`: the transfer is a runtime's task, in which tokio forbids it.
            std::thread::sleep(SLOW);
        }
    }

    /// The end of a transfer that failed: an answer of its own where nothing was written, else the last line.
    fn fail(&self, error: &Error) {
        let refusal = super::reply::image_refusal(error);
        if let Some(begun) = self.begun.take() {
            let _ = begun.send(Err(refusal));
            return;
        }
        let message = refusal.message;
        self.write(&json!({"errorDetail": {"message": message}, "error": message}), false);
    }
}

impl Listener for Lines {
    fn hear(&self, news: &News<'_>) -> bool {
        let mut value = json!({"status": news.status});
        if let Some(id) = news.id {
            value["id"] = id.into();
        }
        if let Some((done, total)) = news.progress {
            value["progressDetail"] = json!({"current": done, "total": total});
            value["progress"] = bar(done, total).into();
        } else if news.id.is_some() {
            value["progressDetail"] = json!({});
        }
        self.write(&value, news.progress.is_some())
    }
}

/// The bar that docker's daemon draws for clients that do not draw their own.
fn bar(done: u64, total: u64) -> String {
    let filled = (done * 50).checked_div(total).unwrap_or(0).min(50) as usize;
    let bytes = |size| crate::report::figures::docker_size(size, 4);
    format!("[{}>{}] {}/{}", "=".repeat(filled), " ".repeat(50 - filled), bytes(done), bytes(total))
}

/// Runs a transfer on a thread of its own, and answers when it has begun.
async fn transfer(
    daemon: &Daemon,
    work: impl FnOnce(&Engine, &Lines) -> Result<(), Error> + Send + 'static,
) -> Handled {
    let (sender, reply) = streamed("application/json");
    let (begun, begins) = oneshot::channel();
    let engine = Arc::clone(&daemon.engine);
    tokio::task::spawn_blocking(move || {
        let lines = Lines { sender, begun: RefCell::new(Some(begun)) };
        if let Err(error) = work(&engine, &lines) {
            lines.fail(&error);
        }
    });
    begins.await.unwrap_or_else(|_| Err(Refusal::internal("the transfer ended without a word")))?;
    Ok(reply)
}

fn credentials(headers: &HeaderMap) -> Result<Credentials, Refusal> {
    let header = headers.get("X-Registry-Auth").map(|value| value.to_str().unwrap_or("%"));
    Credentials::from_header(header.unwrap_or_default()).map_err(|error| Refusal::bad(error.to_string()))
}

/// The name of a request: a repository, and a tag or digest beside it.
fn named(repository: &str, tag: Option<&str>) -> Result<Reference, Refusal> {
    let joined = match tag {
        None => repository.to_owned(),
        Some(tag) if tag.contains(':') => format!("{repository}@{tag}"),
        Some(tag) => format!("{repository}:{tag}"),
    };
    Ok(joined.parse()?)
}

/// `docker pull`.
pub(super) async fn pull(daemon: &Daemon, query: &Query, headers: &HeaderMap) -> Handled {
    let asked = query.get("fromImage").unwrap_or_default();
    let name = named(asked, query.get("tag"))?;
    let credentials = credentials(headers)?;
    let platform = query.get("platform").map(str::to_owned);
    // Without a tag, all are meant.
    let all = query.get("tag").is_none() && name.digest().is_none() && !asked.ends_with(&name.suffix());
    transfer(daemon, move |engine, lines| {
        let mut wanted = Wanted { name, platform, credentials };
        if !all {
            return pull_one(engine, &wanted, lines);
        }
        for tag in registry::tags(&wanted.name, &wanted.credentials)? {
            wanted.name = wanted.name.with_tag(&tag)?;
            pull_one(engine, &wanted, lines)?;
        }
        Ok(())
    })
    .await
}

fn pull_one(engine: &Engine, wanted: &Wanted, lines: &Lines) -> Result<(), Error> {
    let pulled = engine.images().pull(wanted, lines)?;
    let name = wanted.name.familiar();
    let status = if pulled.newer { "Downloaded newer image" } else { "Image is up to date" };
    lines.write(&json!({"status": format!("Status: {status} for {name}")}), false);
    // That nobody can be told is no reason to say that the pull failed.
    let _ = engine.tell("image", "pull", &name, &[("name", &wanted.name.familiar_repository())]);
    Ok(())
}

/// `docker push`.
pub(super) async fn push(daemon: &Daemon, asked: &str, query: &Query, headers: &HeaderMap) -> Handled {
    let name = named(asked, query.get("tag"))?;
    let credentials = credentials(headers)?;
    let all = query.get("tag").is_none() && !asked.ends_with(&name.suffix());
    transfer(daemon, move |engine, lines| {
        let store = engine.images();
        let repository = name.familiar_repository();
        let full = format!("{}/{}", name.host(), name.repository());
        lines.write(&json!({"status": format!("The push refers to repository [{full}]")}), false);
        let mut names = Vec::new();
        for (other, _) in store.names()? {
            let fits = if all { other.familiar_repository() == repository } else { other == name };
            if fits && other.tag().is_some() {
                names.push(other);
            }
        }
        if names.is_empty() {
            let shown = if all { repository } else { name.familiar() };
            return Err(Error::NotHere { name: shown });
        }
        for name in names {
            let pushed = store.push(&name, &credentials, lines)?;
            let aux = json!({"Tag": pushed.tag, "Digest": pushed.digest, "Size": pushed.size});
            lines.write(&json!({"progressDetail": {}, "aux": aux}), false);
            let _ = engine.tell("image", "push", &name.familiar(), &[("name", &name.familiar_repository())]);
        }
        Ok(())
    })
    .await
}

/// `docker login`: the client keeps what the registry has taken.
pub(super) async fn log_in(daemon: &Daemon, request: Request<Incoming>) -> Handled {
    let asked: Value = body(request).await?;
    daemon
        .work(move |_| {
            let credentials =
                Credentials::from_body(&asked).map_err(|error| Refusal::bad(error.to_string()))?;
            let server = asked["serveraddress"].as_str().unwrap_or_default();
            registry::log_in(server, &credentials)?;
            Ok(ok(&json!({"Status": "Login Succeeded", "IdentityToken": ""})))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_docker_s_whatever_it_is_told() {
        for (done, total) in [(0, 0), (1, 3), (3, 3), (5, 3)] {
            assert_eq!(bar(done, total).find(']'), Some(52), "{done}/{total}");
        }
        assert!(bar(1_500_000, 3_000_000).ends_with("] 1.5MB/3MB"), "{}", bar(1_500_000, 3_000_000));
    }
}
