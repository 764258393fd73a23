//! `GET /events`.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Daemon;
use super::query::Query;
use super::reply::{Handled, Refusal, line, streamed};
use crate::engine;
use crate::engine::stored::{Event, Filters};

/// How often the state is looked at while somebody listens. Other processes write to it, too.
const PERIOD: Duration = Duration::from_millis(50);

pub(super) async fn events(daemon: &Daemon, query: &Query) -> Handled {
    let filters = Filters::from_json(query.get("filters").unwrap_or_default())?;
    filters.check(&[
        "type",
        "event",
        "container",
        "image",
        "volume",
        "network",
        "label",
        "daemon",
        "scope",
    ])?;
    let since = query.get("since").map(moment).transpose()?;
    let until = query.get("until").map(moment).transpose()?;
    let mut last = if since.is_some() { 0 } else { daemon.work(|engine| Ok(engine.last_event()?)).await? };
    let (sender, reply) = streamed("application/json");
    let daemon = daemon.clone();
    tokio::spawn(async move {
        loop {
            let now = Timestamp::now();
            let Ok(events) = daemon.work(move |engine| Ok(engine.events_after(last)?)).await else { return };
            for event in events {
                last = event.number;
                let at = i128::from(event.nanos);
                let in_time = since.is_none_or(|since| at >= since.as_nanosecond())
                    && until.is_none_or(|until| at <= until.as_nanosecond());
                if in_time && fits(&event, &filters) && sender.send(line(&describe(&event))).await.is_err() {
                    return;
                }
            }
            if until.is_some_and(|until| now >= until) {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = sender.closed() => return,
            }
        }
    });
    Ok(reply)
}

/// A moment of the query.
pub(super) fn moment(text: &str) -> Result<Timestamp, Refusal> {
    Ok(engine::moment::parse(text, Timestamp::now())?)
}

fn fits(event: &Event, filters: &Filters) -> bool {
    let attribute = |name: &str| event.attributes.get(name).and_then(Value::as_str).unwrap_or_default();
    let object = |kind: &str| {
        filters.fits(kind, |asked| {
            event.kind == kind
                && (event.object.starts_with(asked)
                    || attribute("name") == asked
                    || attribute("image") == asked)
        })
    };
    let labels =
        event.attributes.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    filters.fits("type", |kind| event.kind == kind)
        // `exec_start: CMD` is an exec_start.
        && filters.fits("event", |action| {
            event.action.strip_prefix(action).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        })
        && object("container")
        && object("image")
        && object("volume")
        && object("network")
        && filters.fits("scope", |scope| scope == "local")
        && filters.fits_labels(&labels.collect())
}

fn describe(event: &Event) -> Value {
    let mut value = json!({
        "Type": event.kind, "Action": event.action, "Actor": {"ID": event.object, "Attributes": event.attributes},
        "scope": "local", "time": event.nanos / 1_000_000_000, "timeNano": event.nanos,
    });
    if event.kind == "container" {
        // What clients before API 1.22 read.
        value["status"] = event.action.clone().into();
        value["id"] = event.object.clone().into();
        value["from"] = event.attributes.get("image").cloned().unwrap_or_default();
    }
    value
}
