//! A container's life: start, stop, kill, pause, wait, rename, update.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::UnixStream;

use super::Daemon;
use super::query::{Query, body};
use super::reply::{Handled, Refusal, done, empty, line, ok, streamed};
use crate::engine::monitor::protocol::Answer;
use crate::engine::stored::Stop;

pub(super) async fn change(daemon: &Daemon, id: &str, change: &str, query: Query) -> Handled {
    let (id, change) = (id.to_owned(), change.to_owned());
    let stop = Stop { signal: query.get("signal").map(str::to_owned), seconds: query.number("t")? };
    daemon
        .work(move |engine| {
            let record = engine.find(&id)?;
            match change.as_str() {
                "start" => engine.start(&record)?,
                "stop" => engine.stop(&record, &stop)?,
                "restart" => engine.restart(&record, &stop)?,
                "pause" => engine.pause(&record, true)?,
                "unpause" => engine.pause(&record, false)?,
                _ => engine.kill(&record, stop.signal.as_deref().unwrap_or("SIGKILL"))?,
            }
            Ok(done())
        })
        .await
}

/// The headers go out at once: the client sends its start only after them.
pub(super) async fn wait(daemon: &Daemon, id: &str, query: &Query) -> Handled {
    let id = id.to_owned();
    let condition = query.get("condition").unwrap_or("not-running").to_owned();
    let next = match condition.as_str() {
        "not-running" => false,
        "next-exit" | "removed" => true,
        other => return Err(Refusal::bad(format!("invalid condition: \"{other}\""))),
    };
    let waited = daemon
        .work(move |engine| {
            let record = engine.find(&id)?;
            engine.reconcile(&record)?;
            let record = engine.find(&id)?;
            let stream = if next {
                Some(engine.wait_for_next(&record)?)
            } else if record.status.is_live() {
                engine.wait_for_this(&record)
            } else {
                None
            };
            if let Some(stream) = stream {
                stream.set_nonblocking(true)?;
                return Ok((Some(stream), record));
            }
            // It may have ended since it was looked at.
            Ok((None, engine.find(&record.id).unwrap_or(record)))
        })
        .await?;
    let (stream, record) = waited;
    let (sender, reply) = streamed("application/json");
    let daemon = daemon.clone();
    tokio::spawn(async move {
        let code = match stream.map(UnixStream::from_std) {
            None => record.exit_code,
            Some(Err(_)) => return,
            Some(Ok(stream)) => {
                let mut text = String::new();
                let mut stream = BufReader::new(stream);
                let heard = tokio::select! {
                    heard = stream.read_line(&mut text) => heard,
                    // The client has gone: nobody is told.
                    () = sender.closed() => return,
                };
                if let (Ok(1..), Ok(Answer::Exited { code })) = (heard, serde_json::from_str(&text)) {
                    code
                } else {
                    // Its monitor was killed, or ended without a run.
                    let id = record.id.clone();
                    let found = daemon.work(move |engine| Ok(engine.find(&id)?)).await;
                    found.map_or(record.exit_code, |record| record.exit_code)
                }
            }
        };
        let _ = sender.send(line(&json!({"StatusCode": code}))).await;
    });
    Ok(reply)
}

pub(super) async fn resize(daemon: &Daemon, id: &str, query: Query) -> Handled {
    let id = id.to_owned();
    let (rows, columns) = size(&query)?;
    daemon
        .work(move |engine| {
            engine.resize(&engine.find(&id)?, None, rows, columns)?;
            Ok(empty(StatusCode::OK))
        })
        .await
}

/// A terminal's size from the query.
pub(super) fn size(query: &Query) -> Result<(u16, u16), Refusal> {
    Ok((query.number("h")?.unwrap_or_default(), query.number("w")?.unwrap_or_default()))
}

pub(super) async fn rename(daemon: &Daemon, id: &str, query: Query) -> Handled {
    let id = id.to_owned();
    daemon
        .work(move |engine| {
            let name =
                query.get("name").ok_or_else(|| Refusal::bad("Neither old nor new names may be empty"))?;
            engine.rename(&engine.find(&id)?, name)?;
            Ok(done())
        })
        .await
}

pub(super) async fn update(daemon: &Daemon, id: &str, request: Request<Incoming>) -> Handled {
    let id = id.to_owned();
    let change = body(request).await?;
    daemon
        .work(move |engine| {
            engine.update(&engine.find(&id)?, &change)?;
            Ok(ok(&json!({"Warnings": null})))
        })
        .await
}
