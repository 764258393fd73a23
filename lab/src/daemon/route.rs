//! Which request goes where: the API as one table.

use std::convert::Infallible;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request};

use super::query::{Query, decode};
use super::reply::{Handled, Refusal, Reply};
use super::{
    API, Daemon, build, containers, events, exec, files, images, life, networks, registry, streams, system,
    volumes,
};

/// Answers any request.
pub(super) async fn answer(daemon: Daemon, request: Request<Incoming>) -> Result<Reply, Infallible> {
    let begun = Instant::now();
    let asked = daemon.trace.then(|| format!("{} {}", request.method(), request.uri()));
    let handled = match version(request.uri().path()) {
        Ok((version, path)) => {
            let path = path.to_owned();
            let query = Query::of(request.uri().query().unwrap_or_default(), version);
            route(&daemon, &path, query, request).await
        }
        Err(refusal) => Err(refusal),
    };
    let refused = handled.as_ref().err().map(|refusal| format!(": {}", refusal.message)).unwrap_or_default();
    let mut reply = handled.unwrap_or_else(Refusal::into_reply);
    if let Some(asked) = asked {
        anstream::eprintln!(
            "{asked} → {}{refused} ({:.1} ms)",
            reply.status(),
            begun.elapsed().as_secs_f64() * 1000.0
        );
    }
    let headers = reply.headers_mut();
    headers.insert("Api-Version", HeaderValue::from_static(API.0));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers
        .insert("Server", HeaderValue::from_static(concat!("lab/", env!("CARGO_PKG_VERSION"), " (linux)")));
    Ok(reply)
}

/// A version of the API as numbers.
fn number(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The version that a path begins with, which must be one that is spoken, and the rest; without one it is the newest.
fn version(path: &str) -> Result<((u32, u32), &str), Refusal> {
    let newest = number(API.0).unwrap_or_default();
    let Some((version, rest)) = path.strip_prefix("/v").and_then(|rest| rest.split_once('/')) else {
        return Ok((newest, path));
    };
    let Some(asked) = number(version) else { return Ok((newest, path)) };
    if Some(asked) < number(API.1) {
        return Err(Refusal::bad(format!(
            "client version {version} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
            API.1
        )));
    }
    if asked > newest {
        return Err(Refusal::bad(format!(
            "client version {version} is too new. Maximum supported API version is {}",
            API.0
        )));
    }
    Ok((asked, &path[path.len() - rest.len() - 1..]))
}

async fn route(daemon: &Daemon, path: &str, query: Query, request: Request<Incoming>) -> Handled {
    let segments: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let method = request.method().clone();
    let is = |wanted: &Method| method == *wanted;
    match &segments[..] {
        ["_ping"] => Ok(system::ping()),
        ["version"] if is(&get) => Ok(system::version()),
        ["info"] if is(&get) => system::info(daemon).await,
        ["system", "df"] if is(&get) => system::usage(daemon).await,
        ["events"] if is(&get) => events::events(daemon, &query).await,
        ["auth"] if is(&post) => registry::log_in(daemon, request).await,

        // ANCHOR: table
        ["containers", "json"] if is(&get) => containers::list(daemon, query).await,
        ["containers", "create"] if is(&post) => containers::create(daemon, query, request).await,
        // ANCHOR_END: table
        ["containers", "prune"] if is(&post) => containers::prune(daemon, query).await,
        ["containers", id] if is(&delete) => containers::remove(daemon, id, query).await,
        ["containers", id, alias] if is(&delete) && query.is("link") => {
            containers::unlink(daemon, id, alias).await
        }
        ["containers", id, "json"] if is(&get) => containers::inspect(daemon, id, &query).await,
        ["containers", id, "top"] if is(&get) => containers::top(daemon, id, &query).await,
        ["containers", id, "stats"] if is(&get) => containers::stats(daemon, id, &query).await,
        ["containers", id, "logs"] if is(&get) => streams::logs(daemon, id, &query).await,
        ["containers", id, "attach"] if is(&post) => streams::attach(daemon, id, &query, request).await,
        ["containers", id, "wait"] if is(&post) => life::wait(daemon, id, &query).await,
        ["containers", id, "resize"] if is(&post) => life::resize(daemon, id, query).await,
        ["containers", id, "rename"] if is(&post) => life::rename(daemon, id, query).await,
        ["containers", id, "update"] if is(&post) => life::update(daemon, id, request).await,
        ["containers", id, "exec"] if is(&post) => exec::create(daemon, id, request).await,
        ["containers", id, change @ ("start" | "stop" | "restart" | "kill" | "pause" | "unpause")]
            if is(&post) =>
        {
            life::change(daemon, id, change, query).await
        }

        ["containers", id, "archive"] => files::archive(daemon, id, query, request).await,
        ["containers", id, "changes"] if is(&get) => files::changes(daemon, id).await,
        ["containers", id, "export"] if is(&get) => files::export(daemon, id).await,
        ["build"] if is(&post) => build::build(daemon, &query, request),
        ["build", "prune"] if is(&post) => build::prune(daemon, query).await,
        ["commit"] if is(&post) => files::commit(daemon, query, request).await,

        ["exec", id, "start"] if is(&post) => exec::start(daemon, id, request).await,
        ["exec", id, "json"] if is(&get) => exec::inspect(daemon, id).await,
        ["exec", id, "resize"] if is(&post) => exec::resize(daemon, id, query).await,

        ["images", "json"] if is(&get) => images::list(daemon, query).await,
        ["images", "load"] if is(&post) => Ok(images::load(daemon, request)),
        ["images", "create"] if is(&post) && query.get("fromImage").is_some() => {
            registry::pull(daemon, &query, request.headers()).await
        }
        ["images", "create"] if is(&post) => images::import(daemon, &query, request).await,
        ["images", name @ .., "push"] if is(&post) => {
            registry::push(daemon, &name.join("/"), &query, request.headers()).await
        }
        ["images", "prune"] if is(&post) => images::prune(daemon, query).await,
        ["images", "get"] if is(&get) => images::save(daemon, &[], &query).await,
        ["images", name @ .., "get"] if is(&get) => images::save(daemon, &[name.join("/")], &query).await,
        ["images", name @ .., "json"] if is(&get) => images::inspect(daemon, &name.join("/")).await,
        ["images", name @ .., "history"] if is(&get) => images::history(daemon, &name.join("/")).await,
        ["images", name @ .., "tag"] if is(&post) => images::tag(daemon, &name.join("/"), query).await,
        ["images", name @ ..] if is(&delete) && !name.is_empty() => {
            images::remove(daemon, &name.join("/"), query).await
        }

        ["networks"] if is(&get) => networks::list(daemon, query).await,
        ["networks", "create"] if is(&post) => networks::create(daemon, request).await,
        ["networks", "prune"] if is(&post) => networks::prune(daemon, query).await,
        ["networks", name] if is(&get) => networks::inspect(daemon, name, &query).await,
        ["networks", name] if is(&delete) => networks::remove(daemon, name).await,
        ["networks", name, how @ ("connect" | "disconnect")] if is(&post) => {
            networks::change(daemon, name, *how == "connect", request).await
        }

        ["volumes"] if is(&get) => volumes::list(daemon, query).await,
        ["volumes", "create"] if is(&post) => volumes::create(daemon, request).await,
        ["volumes", "prune"] if is(&post) => volumes::prune(daemon, query).await,
        ["volumes", name] if is(&get) => volumes::inspect(daemon, name).await,
        ["volumes", name] if is(&delete) => volumes::remove(daemon, name, query).await,

        ["swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs", ..] => {
            Err(networks::swarm(&segments))
        }

        _ => Err(Refusal::missing(format!("{method} {path}: the lab's daemon has no such endpoint"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_between_the_oldest_and_the_newest_are_spoken() {
        for (path, rest) in [
            ("/v1.24/info", "/info"),
            ("/v1.50/a/b", "/a/b"),
            ("/info", "/info"),
            ("/volumes/x", "/volumes/x"),
        ] {
            assert_eq!(version(path).ok().map(|(_, rest)| rest), Some(rest));
        }
        assert!(version("/v1.23/info").unwrap_err().message.contains("too old"));
        assert!(version("/v1.99/info").unwrap_err().message.contains("too new"));
    }
}
