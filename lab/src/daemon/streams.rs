//! Streams: attach, logs, and the joining of a client's raw connection with a monitor's.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::Daemon;
use super::events::moment;
use super::query::Query;
use super::reply::{Handled, Refusal, empty, streamed};
use super::stream::Stream;
use crate::engine::monitor::Channel;
use crate::engine::monitor::protocol::Attach;
use crate::engine::stored::{Line, LogOptions};

/// How long a log that is followed may lie unread.
const PERIOD: Duration = Duration::from_millis(20);

pub(super) async fn attach(
    daemon: &Daemon,
    id: &str,
    query: &Query,
    mut request: Request<Incoming>,
) -> Handled {
    let join = query.is("stream");
    let attach = Attach {
        stdin: join && query.is("stdin"),
        stdout: join && query.is("stdout"),
        stderr: join && query.is("stderr"),
        detach: detach_keys(query.get("detachKeys"))?,
        raw: None,
    };
    let past = query.is("logs").then(|| LogOptions {
        stdout: query.is("stdout"),
        stderr: query.is("stderr"),
        ..LogOptions::default()
    });
    let id = id.to_owned();
    let (lines, stream, terminal) = daemon
        .work(move |engine| {
            let record = engine.find(&id)?;
            if record.status == crate::engine::stored::Status::Paused {
                return Err(Refusal {
                    code: StatusCode::CONFLICT,
                    message: format!("container {id} is paused, unpause the container before attach"),
                });
            }
            let raw = record.has_terminal();
            let mut lines = Vec::new();
            if let Some(options) = past {
                let mut reader = engine.logs(&record, options)?;
                while let Some(line) = reader.next_line()? {
                    lines.extend(frame(&line, raw));
                }
            }
            let stream = if join { Some(engine.attach(&record, &attach)?) } else { None };
            Ok((lines, stream, raw))
        })
        .await?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    hijack(request.headers(), upgrade, lines.into(), stream, terminal)
}

/// A line of a log as a client gets it.
fn frame(line: &Line, raw: bool) -> Vec<u8> {
    let mut frame = Vec::with_capacity(8 + line.text.len());
    if !raw {
        let channel = if line.stderr { Channel::Stderr } else { Channel::Stdout };
        frame.extend(channel.header(line.text.len()));
    }
    frame.extend(line.text.as_bytes());
    frame
}

/// The keys that end a connection, as `ctrl-p,ctrl-q`; docker's default where none are given.
pub(super) fn detach_keys(text: Option<&str>) -> Result<Vec<u8>, Refusal> {
    let key = |word: &str| -> Option<u8> {
        match word.strip_prefix("ctrl-").map(str::as_bytes) {
            Some(&[letter @ b'a'..=b'z']) => Some(letter - b'a' + 1),
            Some(&[b'@']) => Some(0),
            Some(&[sign @ b'['..=b'_']) => Some(sign - b'[' + 27),
            Some(_) => None,
            None => <[u8; 1]>::try_from(word.as_bytes()).ok().map(|[byte]| byte),
        }
    };
    let text = text.unwrap_or("ctrl-p,ctrl-q");
    let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
    keys.ok_or_else(|| Refusal::bad(format!("invalid detach keys ({text})")))
}

/// Hands a client's connection over to the monitor's, after what was said before. With an `Upgrade` header both ways, by
/// raw bytes; without one the outputs only, as the body of the answer.
pub(super) fn hijack(
    headers: &HeaderMap,
    upgrade: Option<OnUpgrade>,
    past: Bytes,
    stream: Option<StdStream>,
    terminal: bool,
) -> Handled {
    let stream = stream
        .map(|stream| {
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        })
        .transpose()?;
    let kind = if terminal {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    };
    let Some(upgrade) = upgrade.filter(|_| headers.contains_key(UPGRADE)) else {
        let (sender, reply) = streamed(kind);
        tokio::spawn(async move {
            if !past.is_empty() && sender.send(past).await.is_err() {
                return;
            }
            let Some(mut stream) = stream else { return };
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let read = tokio::select! {
                    read = stream.read(&mut buffer) => read,
                    () = sender.closed() => return,
                };
                let Ok(read @ 1..) = read else { return };
                if sender.send(Bytes::copy_from_slice(&buffer[..read])).await.is_err() {
                    return;
                }
            }
        });
        return Ok(reply);
    };
    tokio::spawn(async move {
        if let Ok(client) = upgrade.await {
            join(client, &past, stream).await;
        }
    });
    let mut reply = empty(StatusCode::SWITCHING_PROTOCOLS);
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    reply.headers_mut().insert(UPGRADE, HeaderValue::from_static("tcp"));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(reply)
}

/// Copies both ways until the monitor hangs up. The client's end of input is passed on as such.
async fn join(client: Upgraded, past: &[u8], monitor: Option<UnixStream>) {
    let (client, unread) = match client.downcast::<TokioIo<Stream>>() {
        Ok(parts) => (parts.io.into_inner(), parts.read_buf),
        Err(_) => return,
    };
    let socket = client.unix();
    let (mut from_client, mut to_client) = tokio::io::split(client);
    if !past.is_empty() {
        head_read(socket.as_ref()).await;
        if to_client.write_all(past).await.is_err() {
            return;
        }
    }
    let Some(monitor) = monitor else {
        let _ = to_client.shutdown().await;
        return;
    };
    let (mut from_monitor, mut to_monitor) = monitor.into_split();
    let inward = tokio::spawn(async move {
        let begun = to_monitor.write_all(&unread).await;
        if begun.is_ok() && tokio::io::copy(&mut from_client, &mut to_monitor).await.is_ok() {
            let _ = to_monitor.shutdown().await;
        }
        (from_client, to_monitor)
    });
    let mut first = vec![0; 16 * 1024];
    if let Ok(read @ 1..) = from_monitor.read(&mut first).await {
        head_read(socket.as_ref()).await;
        drop(socket);
        if to_client.write_all(&first[..read]).await.is_ok() {
            drop(first);
            let _ = tokio::io::copy(&mut from_monitor, &mut to_client).await;
        }
    }
    let _ = to_client.shutdown().await;
    inward.abort();
}

/// Waits, not for long, until the client has read the answer's head. Some read it through a buffer and then take the bare
/// connection: what came together with the head is lost to them (docker-py before 7.2 is one).
async fn head_read(client: Option<&OwnedFd>) {
    // Over TCP nobody tells, and it takes its time anyway.
    let Some(client) = client else { return };
    for _ in 0..20 {
        if !crate::sys::has_unread(client).unwrap_or(false) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(super) async fn logs(daemon: &Daemon, id: &str, query: &Query) -> Handled {
    let options = LogOptions {
        stdout: query.is("stdout"),
        stderr: query.is("stderr"),
        tail: query.get("tail").filter(|&tail| tail != "all").and_then(|tail| tail.parse().ok()),
        since: query.get("since").filter(|&since| since != "0").map(moment).transpose()?,
        until: query.get("until").filter(|&until| until != "0").map(moment).transpose()?,
        timestamps: query.is("timestamps"),
        details: query.is("details"),
    };
    if !options.stdout && !options.stderr {
        return Err(Refusal::bad("Bad parameters: you must choose at least one stream"));
    }
    let (id, follow) = (id.to_owned(), query.is("follow"));
    let (mut reader, record) = daemon
        .work(move |engine| {
            let record = engine.find(&id)?;
            Ok((engine.logs(&record, options)?, record))
        })
        .await?;
    let raw = record.has_terminal();
    let kind =
        if raw { "application/vnd.docker.raw-stream" } else { "application/vnd.docker.multiplexed-stream" };
    let (sender, reply) = streamed(kind);
    let engine = std::sync::Arc::clone(&daemon.engine);
    tokio::task::spawn_blocking(move || {
        loop {
            // Looked at before the file: what is written until the end is read after it.
            let live = follow && engine.find(&record.id).is_ok_and(|record| record.status.is_live());
            while let Ok(Some(line)) = reader.next_line() {
                if sender.blocking_send(frame(&line, raw).into()).is_err() {
                    return;
                }
            }
            if !live || reader.is_over() || sender.is_closed() {
                return;
            }
            std::thread::sleep(PERIOD);
        }
    });
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_letters_and_control_characters() {
        assert_eq!(detach_keys(None).unwrap(), [16, 17]);
        assert_eq!(detach_keys(Some("ctrl-a,x,ctrl-@,ctrl-[")).unwrap(), [1, b'x', 0, 27]);
        assert!(detach_keys(Some("ctrl-1")).is_err());
    }
}
