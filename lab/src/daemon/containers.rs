//! Containers: made, listed, looked at, removed.

use std::time::Duration;

use bollard_stubs::models::ContainerCreateBody;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Daemon;
use super::query::{Query, body};
use super::reply::{Handled, Refusal, done, json as answer, line, ok, streamed};
use crate::engine;
use crate::engine::limits::machine_memory;
use crate::engine::stored::networks::DEFAULT;
use crate::engine::stored::{Engine, Filters, Record};

/// Docker's period of statistics.
const PERIOD: Duration = Duration::from_secs(1);

pub(super) async fn list(daemon: &Daemon, query: Query) -> Handled {
    daemon
        .work(move |engine| {
            let filters = Filters::from_json(query.get("filters").unwrap_or_default())?;
            let last: Option<i64> = query.number("limit")?;
            let last = last.filter(|&last| last > 0).map(|last| last as usize);
            let now = Timestamp::now();
            let records = engine.list(query.is("all"), last, &filters)?;
            let mut list: Vec<Value> = records.iter().map(|record| record.summary(now)).collect();
            engine.add_networks(&records, &mut list)?;
            if query.is("size") {
                for (entry, record) in list.iter_mut().zip(&records) {
                    add_sizes(engine, record, entry);
                }
            }
            Ok(ok(&list))
        })
        .await
}

pub(super) async fn create(daemon: &Daemon, query: Query, request: Request<Incoming>) -> Handled {
    let raw: Value = body(request).await?;
    if raw.is_null() {
        return Err(Refusal::bad("invalid JSON: the configuration is empty"));
    }
    let mut wanted: ContainerCreateBody = serde_json::from_value(raw.clone())?;
    // Where docker-py's lower half puts it.
    if let Some(runtime) = raw["Runtime"].as_str() {
        wanted.host_config.get_or_insert_default().runtime.get_or_insert_with(|| runtime.to_owned());
    }
    // Before version 1.44 the hardware address was the container's; it is that of its place in its first network.
    if let Some(mac) = raw["MacAddress"].as_str().filter(|mac| !mac.is_empty()) {
        let mode = wanted.host_config.as_ref().and_then(|host| host.network_mode.clone()).unwrap_or_default();
        let name = if matches!(&*mode, "" | "default") { DEFAULT.to_owned() } else { mode };
        let endpoints =
            wanted.networking_config.get_or_insert_default().endpoints_config.get_or_insert_default();
        endpoints.entry(name).or_default().mac_address.get_or_insert_with(|| mac.to_owned());
    }
    daemon
        .work(move |engine| {
            let record = engine.create(query.get("name"), wanted).map_err(|error| match error {
                // To the client, 404 means that the image is to be pulled.
                engine::Error::Missing { kind: "network", name } => {
                    Refusal::bad(format!("network {name} not found"))
                }
                error @ engine::Error::Missing { .. } => Refusal::bad(error.to_string()),
                error => error.into(),
            })?;
            Ok(answer(StatusCode::CREATED, &json!({"Id": record.id, "Warnings": []})))
        })
        .await
}

pub(super) async fn inspect(daemon: &Daemon, id: &str, query: &Query) -> Handled {
    let (id, size) = (id.to_owned(), query.is("size"));
    daemon
        .work(move |engine| {
            let record = engine.find(&id)?;
            let mut told = engine.inspect(&record)?;
            if size {
                add_sizes(engine, &record, &mut told);
            }
            Ok(ok(&told))
        })
        .await
}

/// What is computed only where it is asked for.
pub(super) fn add_sizes(engine: &Engine, record: &Record, entry: &mut Value) {
    entry["SizeRw"] = engine.written(record).into();
    // Without its image a container still has a size of its own.
    entry["SizeRootFs"] = engine.size_with_image(record).unwrap_or_default().into();
}

pub(super) async fn remove(daemon: &Daemon, id: &str, query: Query) -> Handled {
    let id = id.to_owned();
    daemon
        .work(move |engine| {
            engine.remove(&engine.find(&id)?, query.is("force"), query.is("v"))?;
            Ok(done())
        })
        .await
}

/// Removes all that do not run.
pub(super) async fn prune(daemon: &Daemon, query: Query) -> Handled {
    daemon
        .work(move |engine| {
            let filters = Filters::from_json(query.get("filters").unwrap_or_default())?;
            let (removed, freed) = engine.prune_containers(&filters)?;
            Ok(ok(&json!({"ContainersDeleted": removed, "SpaceReclaimed": freed})))
        })
        .await
}

/// `docker rm --link`: the link goes, both containers stay.
pub(super) async fn unlink(daemon: &Daemon, id: &str, alias: &str) -> Handled {
    let (id, alias) = (id.to_owned(), alias.to_owned());
    daemon
        .work(move |engine| {
            engine.unlink(&engine.find(&id)?, &alias)?;
            Ok(done())
        })
        .await
}

pub(super) async fn top(daemon: &Daemon, id: &str, query: &Query) -> Handled {
    let (id, options) = (id.to_owned(), query.get("ps_args").map(str::to_owned));
    daemon
        .work(move |engine| {
            let (titles, processes) = engine.top(&engine.find(&id)?, options.as_deref())?;
            Ok(ok(&json!({"Titles": titles, "Processes": processes})))
        })
        .await
}

pub(super) async fn stats(daemon: &Daemon, id: &str, query: &Query) -> Handled {
    let id = id.to_owned();
    let record = daemon.work(move |engine| Ok(engine.find(&id)?)).await?;
    let stream = query.get("stream").is_none() || query.is("stream");
    let once = query.is("one-shot");
    let (sender, reply) = streamed("application/json");
    let daemon = daemon.clone();
    tokio::spawn(async move {
        let mut before: Option<Value> = None;
        loop {
            let record = record.clone();
            let Ok(mut now) = daemon.work(move |engine| sample(engine, &record)).await else { return };
            let is_first = before.is_none();
            now["precpu_stats"] = before.take().map_or_else(
                || json!({"cpu_usage": {"total_usage": 0}}),
                |mut before| before["cpu_stats"].take(),
            );
            // Without a stream, the answer compares two moments, unless the client wants but one.
            let wanted = stream || once || !is_first;
            if wanted && (sender.send(line(&now)).await.is_err() || !stream) {
                return;
            }
            before = Some(now);
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = sender.closed() => return,
            }
        }
    });
    Ok(reply)
}

/// What a container uses now, in docker's words.
fn sample(engine: &Engine, record: &Record) -> Result<Value, Refusal> {
    let record = engine.find(&record.id)?;
    let usage = engine.usage(&record)?.unwrap_or_default();
    let limit = usage.memory_limit.unwrap_or_else(machine_memory);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(json!({
        "id": record.id, "name": format!("/{}", record.name), "read": Timestamp::now().to_string(), "preread": "0001-01-01T00:00:00Z",
        "cpu_stats": {
            "cpu_usage": {"total_usage": usage.cpu_nanos.unwrap_or(0), "usage_in_kernelmode": 0, "usage_in_usermode": 0},
            "system_cpu_usage": system_cpu(), "online_cpus": cpus, "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
        },
        "memory_stats": {"usage": usage.memory.unwrap_or(0), "max_usage": usage.memory_peak.unwrap_or(0), "limit": limit, "stats": {}},
        "pids_stats": {"current": usage.pids.unwrap_or(0), "limit": usage.pids_limit.unwrap_or(0)},
        "blkio_stats": {"io_service_bytes_recursive": [], "io_serviced_recursive": []}, "num_procs": 0, "storage_stats": {}, "networks": traffic(&record),
    }))
}

/// What went through a container's devices, by their names: the columns of its /proc/net/dev (proc(5)). The host's are not its own.
fn traffic(record: &Record) -> Value {
    if record.network_name() == "host" {
        return json!({});
    }
    let pid = record.pid;
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let device = |line: &str| {
        let (name, counts) = line.split_once(':').filter(|(name, _)| name.trim() != "lo")?;
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        let &[
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = &counts[..]
        else {
            return None;
        };
        let told = json!({
            "rx_bytes": rx_bytes, "rx_packets": rx_packets, "rx_errors": rx_errors, "rx_dropped": rx_dropped,
            "tx_bytes": tx_bytes, "tx_packets": tx_packets, "tx_errors": tx_errors, "tx_dropped": tx_dropped,
        });
        Some((name.trim().to_owned(), told))
    };
    Value::Object(text.lines().filter_map(device).collect())
}

/// All processor time of the machine, in nanoseconds (proc_stat(5): user to steal, in hundredths of a second).
fn system_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let ticks: u64 =
        first.split_whitespace().skip(1).take(8).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks * 10_000_000
}
