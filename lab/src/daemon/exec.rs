//! Processes that are added to a container.

use bollard_stubs::models::{ExecConfig, ExecStartConfig};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, StatusCode};
use serde_json::json;

use super::Daemon;
use super::life::size;
use super::query::{Query, body};
use super::reply::{Handled, empty, json as answer, ok};
use super::streams::{detach_keys, hijack};
use crate::engine;
use crate::engine::monitor::Channel;
use crate::engine::monitor::protocol::Attach;

pub(super) async fn create(daemon: &Daemon, id: &str, request: Request<Incoming>) -> Handled {
    let id = id.to_owned();
    let config: ExecConfig = body(request).await?;
    detach_keys(config.detach_keys.as_deref().filter(|keys| !keys.is_empty()))?;
    daemon
        .work(move |engine| {
            let record = engine.find(&id)?;
            engine.reconcile(&record)?;
            let exec = engine.create_exec(&engine.find(&id)?, &config)?;
            Ok(answer(StatusCode::CREATED, &json!({"Id": exec})))
        })
        .await
}

pub(super) async fn start(daemon: &Daemon, id: &str, mut request: Request<Incoming>) -> Handled {
    let id = id.to_owned();
    // The connection is needed after the body was read from it.
    let upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
    let headers = request.headers().clone();
    let (parts, incoming) = request.into_parts();
    let config: ExecStartConfig = body(Request::from_parts(parts, incoming)).await?;
    let detached = config.detach.unwrap_or(false);
    // Whether there are frames is said by who starts it, whatever the process has.
    let raw = config.tty.unwrap_or(false);
    let started = daemon
        .work(move |engine| {
            let exec = engine.exec_record(&id)?;
            let keys = detach_keys(exec.config.detach_keys.as_deref().filter(|keys| !keys.is_empty()))?;
            let on = |flag: Option<bool>| flag.unwrap_or(false);
            let attach = (!detached).then(|| Attach {
                stdin: on(exec.config.attach_stdin),
                stdout: on(exec.config.attach_stdout),
                stderr: on(exec.config.attach_stderr),
                detach: keys,
                raw: Some(raw),
            });
            match engine.start_exec(&exec, attach) {
                // Docker has answered before it tries: the client reads the reason where it expects the output.
                Err(error @ engine::Error::Command { .. }) if !detached => Ok(Err(error.to_string())),
                started => Ok(Ok(started?)),
            }
        })
        .await?;
    if detached {
        return Ok(empty(StatusCode::OK));
    }
    match started {
        Ok(stream) => hijack(&headers, upgrade, Bytes::new(), Some(stream), raw),
        Err(reason) => {
            let text = format!("OCI runtime exec failed: exec failed: {reason}: unknown\r\n");
            let mut past = if raw { Vec::new() } else { Channel::Stdout.header(text.len()).to_vec() };
            past.extend(text.as_bytes());
            hijack(&headers, upgrade, past.into(), None, raw)
        }
    }
}

pub(super) async fn inspect(daemon: &Daemon, id: &str) -> Handled {
    let id = id.to_owned();
    daemon
        .work(move |engine| {
            let exec = engine.exec_record(&id)?;
            let words = exec.config.cmd.clone().unwrap_or_default();
            Ok(ok(&json!({
                "ID": exec.id, "ContainerID": exec.container, "Running": exec.running, "ExitCode": exec.exit_code, "Pid": exec.pid,
                "OpenStdin": exec.config.attach_stdin.unwrap_or(false), "OpenStdout": exec.config.attach_stdout.unwrap_or(false),
                "OpenStderr": exec.config.attach_stderr.unwrap_or(false), "CanRemove": false, "DetachKeys": "",
                "ProcessConfig": {
                    "tty": exec.terminal(), "entrypoint": words.first(), "arguments": words.get(1..).unwrap_or_default(),
                    "privileged": exec.config.privileged.unwrap_or(false), "user": exec.config.user,
                },
            })))
        })
        .await
}

pub(super) async fn resize(daemon: &Daemon, id: &str, query: Query) -> Handled {
    let id = id.to_owned();
    let (rows, columns) = size(&query)?;
    daemon
        .work(move |engine| {
            let exec = engine.exec_record(&id)?;
            engine.resize(&engine.find(&exec.container)?, Some(&exec.id), rows, columns)?;
            Ok(empty(StatusCode::OK))
        })
        .await
}
