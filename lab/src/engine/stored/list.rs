//! Lists of containers: docker's filters, and what a line shows.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::networks::DEFAULT;
use super::{Engine, Record, Status, plan};
use crate::engine::{Error, Runtime, passt};

/// Filters by their names, each with the values of which one must fit.
#[derive(Clone, Debug, Default)]
pub struct Filters(HashMap<String, Vec<String>>);

/// The filters that containers have.
const KNOWN: [&str; 14] = [
    "id", "name", "label", "status", "exited", "ancestor", "before", "since", "volume", "network", "health",
    "is-task", "publish", "expose",
];

impl Filters {
    /// From docker's JSON: `{"name": ["x"]}`, or the older `{"name": {"x": true}}`.
    ///
    /// # Errors
    /// What is neither.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let wrong = || Error::bad(format!("invalid filter '{text}'"));
        let all: HashMap<String, Value> = serde_json::from_str(text).map_err(|_| wrong())?;
        let mut filters = HashMap::new();
        for (name, values) in all {
            let values = match values {
                Value::Array(list) => {
                    list.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
                }
                Value::Object(set) => {
                    set.into_iter().filter(|(_, on)| on == &Value::Bool(true)).map(|(key, _)| key).collect()
                }
                _ => return Err(wrong()),
            };
            filters.insert(name, values);
        }
        Ok(Self(filters))
    }

    /// From `NAME=VALUE` as the command line has them.
    ///
    /// # Errors
    /// What has no `=`.
    pub fn from_words(words: &[String]) -> Result<Self, Error> {
        let mut filters: HashMap<String, Vec<String>> = HashMap::new();
        for word in words {
            let (name, value) = word
                .split_once('=')
                .ok_or_else(|| Error::bad(format!("invalid argument \"{word}\" for \"-f, --filter\": bad format of filter (expected name=value)")))?;
            filters.entry(name.to_owned()).or_default().push(value.to_owned());
        }
        Ok(Self(filters))
    }

    /// One more value of a filter.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0.entry(name.to_owned()).or_default().push(value.to_owned());
    }

    /// The values of a filter; none where it is not set.
    pub fn get(&self, name: &str) -> Option<&[String]> {
        self.0.get(name).map(Vec::as_slice).filter(|values| !values.is_empty())
    }

    /// Whether a filter is not set, or one of its values fits.
    pub fn fits(&self, name: &str, fit: impl Fn(&str) -> bool) -> bool {
        self.get(name).is_none_or(|values| values.iter().any(|value| fit(value)))
    }

    /// Whether all values of `label` fit, a key or a key and its value, and none of `label!`.
    pub fn fits_labels(&self, labels: &HashMap<String, String>) -> bool {
        self.get("label").is_none_or(|values| Self::all_fit(values, labels))
    }

    fn all_fit(values: &[String], labels: &HashMap<String, String>) -> bool {
        values.iter().all(|value| match value.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|label| label == value),
            None => labels.contains_key(value),
        })
    }

    /// Whether all values of `label!` fit: then the object is left alone (moby, `matchLabels`).
    pub fn excludes_labels(&self, labels: &HashMap<String, String>) -> bool {
        self.get("label!").is_some_and(|values| Self::all_fit(values, labels))
    }

    /// A filter that is true or false, if it is set.
    ///
    /// # Errors
    /// Where its value is neither.
    pub fn truth(&self, name: &str) -> Result<Option<bool>, Error> {
        let Some([value, ..]) = self.get(name) else { return Ok(None) };
        match value.as_str() {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(Some(false)),
            _ => Err(Error::bad(format!("invalid filter '{name}={value}': true or false is expected"))),
        }
    }

    /// Refuses filters that are not among these.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self, known: &[&str]) -> Result<(), Error> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Error::bad(format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }
}

impl Engine {
    /// The containers that fit: those that run, or `all`.
    ///
    /// # Errors
    /// Filters that make no sense.
    pub fn list(&self, all: bool, last: Option<usize>, filters: &Filters) -> Result<Vec<Record>, Error> {
        filters.check(&KNOWN)?;
        for status in filters.get("status").unwrap_or_default() {
            if !["created", "running", "paused", "restarting", "exited", "removing", "dead"]
                .contains(&status.as_str())
            {
                return Err(Error::bad(format!("invalid filter 'status={status}'")));
            }
        }
        let all = all || last.is_some() || filters.get("status").is_some() || filters.get("exited").is_some();
        let edge = |name: &str| -> Result<Option<Record>, Error> {
            filters.get(name).and_then(<[String]>::first).map(|asked| self.find(asked)).transpose()
        };
        let (before, since) = (edge("before")?, edge("since")?);
        let ancestors: Vec<String> = filters
            .get("ancestor")
            .unwrap_or_default()
            .iter()
            .map(|name| {
                self.images().resolve(name).map_or_else(|_| name.clone(), |image| image.id().to_string())
            })
            .collect();
        let mut records = self.records()?;
        let stale: Vec<Record> = records.iter().filter(|record| record.status.is_live()).cloned().collect();
        let mut changed = false;
        for record in stale {
            if super::connect_probe(&self.roots, &record.id) {
                continue;
            }
            self.reconcile(&record)?;
            changed = true;
        }
        if changed {
            records = self.records()?;
        }
        let places = if filters.get("network").is_some() { self.all_endpoints()? } else { HashMap::new() };
        records.retain(|record| {
            (all || record.status.is_live())
                && filters.fits("id", |id| record.id.starts_with(id))
                && filters.fits("name", |name| matches_name(&record.name, name))
                && filters.fits("status", |status| record.status.name() == status)
                && filters.fits("exited", |code| {
                    record.status == Status::Exited && record.exit_code.to_string() == code
                })
                && filters.fits("ancestor", |_| ancestors.contains(&record.image_id))
                && filters.fits("volume", |volume| {
                    plan::wishes(&record.body).is_ok_and(|wishes| {
                        wishes
                            .iter()
                            .any(|wish| wish.source.as_deref() == Some(volume) || wish.target == volume)
                    })
                })
                && filters.fits("network", |network| {
                    record.network_name() == network
                        || places.get(&record.id).is_some_and(|places| {
                            places.iter().any(|place| {
                                place.network.name == network || place.network.id.starts_with(network)
                            })
                        })
                })
                && filters.fits("health", |health| {
                    health == record.health.as_ref().map_or("none", |found| &*found.status)
                })
                && filters.fits_labels(record.body.labels.as_ref().unwrap_or(&HashMap::new()))
                && before.as_ref().is_none_or(|edge| record.created < edge.created)
                && since.as_ref().is_none_or(|edge| record.created > edge.created)
        });
        if let Some(last) = last {
            records.truncate(last);
        }
        Ok(records)
    }
}

/// Docker takes a regular expression; what people type is a part of a name, or a whole one between `^` and `$`.
fn matches_name(name: &str, pattern: &str) -> bool {
    let (start, rest) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    match (start, rest.strip_suffix('$')) {
        (true, Some(whole)) => name == whole,
        (true, None) => name.starts_with(rest),
        (false, Some(end)) => name.ends_with(end),
        (false, None) => name.contains(rest),
    }
}

impl Record {
    /// The network that it asked for.
    pub fn network_name(&self) -> String {
        let mode =
            self.body.host_config.as_ref().and_then(|host| host.network_mode.clone()).unwrap_or_default();
        if matches!(mode.as_str(), "" | "default") { "bridge".to_owned() } else { mode }
    }

    /// Whether its network is a program in user space: asked for by that name, or the default network of one who may not make
    /// devices, where that program can be had. A machine has no other then, a container still its loopback.
    pub(crate) fn uses_passt(&self) -> bool {
        let name = self.network_name();
        let default = name == DEFAULT && !rustix::process::geteuid().is_root();
        name == passt::NAME || (default && (self.runtime() == Runtime::Vm || passt::is_for_containers()))
    }

    /// How it stands, as `docker ps` says it.
    pub fn status_text(&self, now: Timestamp) -> String {
        let since = |time: &str| {
            time.parse::<Timestamp>().map_or(0, |then| now.as_second() - then.as_second()).max(0) as u64
        };
        match self.status {
            Status::Created => "Created".to_owned(),
            Status::Running => {
                let health = match self.health.as_ref().map(|health| &*health.status) {
                    None => String::new(),
                    Some("starting") => " (health: starting)".to_owned(),
                    Some(other) => format!(" ({other})"),
                };
                format!("Up {}{health}", duration(since(&self.started)))
            }
            Status::Paused => format!("Up {} (Paused)", duration(since(&self.started))),
            Status::Restarting => {
                format!("Restarting ({}) {} ago", self.exit_code, duration(since(&self.finished)))
            }
            // Where it never began there is no end to count from.
            Status::Exited if self.finished.starts_with("0001") => format!("Exited ({})", self.exit_code),
            Status::Exited => format!("Exited ({}) {} ago", self.exit_code, duration(since(&self.finished))),
        }
    }

    /// The command line, as `docker ps` shows it.
    pub fn command(&self) -> String {
        let words = self.body.entrypoint.iter().flatten().chain(self.body.cmd.iter().flatten());
        words.map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// The ports, as a list of containers has them: those that are published, and those that are only exposed.
    fn published(&self) -> Vec<Value> {
        let number = |text: &str| text.parse::<u16>().unwrap_or(0);
        let mut ports: Vec<Value> = Vec::new();
        for (key, bindings) in &self.ports {
            let (port, kind) = key.split_once('/').unwrap_or((key, "tcp"));
            for binding in bindings.iter().flatten() {
                let public = number(binding.host_port.as_deref().unwrap_or_default());
                ports.push(
                    json!({"IP": binding.host_ip, "PrivatePort": number(port), "PublicPort": public, "Type": kind}),
                );
            }
        }
        if self.status.is_live() {
            let exposed = super::published::exposed(&self.body);
            let hidden =
                exposed.iter().filter(|(port, kind)| !self.ports.contains_key(&format!("{port}/{kind}")));
            ports.extend(hidden.map(|(port, kind)| json!({"PrivatePort": port, "Type": kind.to_string()})));
        }
        ports
    }

    /// The published ports, as people read them: `0.0.0.0:8080->80/tcp`.
    pub fn ports_text(&self) -> String {
        let told = self.ports.iter().flat_map(|(key, bindings)| {
            bindings.iter().flatten().map(move |binding| {
                let text = |part: &Option<String>| part.clone().unwrap_or_default();
                format!("{}:{}->{key}", text(&binding.host_ip), text(&binding.host_port))
            })
        });
        let mut told: Vec<String> = told.collect();
        told.sort();
        told.join(", ")
    }

    /// The entry of `GET /containers/json`.
    pub fn summary(&self, now: Timestamp) -> Value {
        let created = self.created.parse::<Timestamp>().map_or(0, Timestamp::as_second);
        let wishes = plan::wishes(&self.body).unwrap_or_default();
        let mounts: Vec<Value> = wishes
            .iter()
            .map(|wish| {
                json!({
                    "Type": wish.kind, "Name": wish.source, "Source": wish.source.clone().unwrap_or_default(),
                    "Destination": wish.target, "Mode": "", "RW": !wish.read_only, "Propagation": "",
                })
            })
            .collect();
        let network = self.network_name();
        json!({
            "Id": self.id, "Names": [format!("/{}", self.name)], "Image": self.image, "ImageID": self.image_id,
            "Command": self.command(), "Created": created, "Ports": self.published(), "Labels": self.body.labels.clone().unwrap_or_default(),
            "State": self.status.name(), "Status": self.status_text(now),
            "HostConfig": {"NetworkMode": network}, "NetworkSettings": {"Networks": {}}, "Mounts": mounts,
        })
    }
}

/// A duration as docker says it (go-units, `HumanDuration`).
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_as_docker_does() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn both_forms_of_filters_are_read_and_unknown_ones_refused() {
        for text in [r#"{"name":["web"]}"#, r#"{"name":{"web":true}}"#] {
            let filters = Filters::from_json(text).unwrap();
            assert!(filters.fits("name", |name| name == "web"));
            assert!(!filters.fits("name", |name| name == "db"));
        }
        assert!(Filters::from_json("[]").is_err());
        assert!(Filters::from_json(r#"{"colour":["red"]}"#).unwrap().check(&KNOWN).is_err());
    }

    #[test]
    fn a_name_is_matched_in_part_or_between_anchors() {
        assert!(matches_name("web-1", "eb"));
        assert!(matches_name("web-1", "^/web-1$"));
        assert!(!matches_name("web-1", "^eb"));
        assert!(!matches_name("web-1", "^web$"));
    }
}
