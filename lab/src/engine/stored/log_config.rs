//! Where a container's output is kept, and how much of it: docker's `--log-driver` and `--log-opt`.
//!
//! Three of docker's drivers are here. `json-file` and `local` are the same file of JSON lines, with docker's different
//! defaults of how large it may grow; `none` keeps nothing. Drivers that send elsewhere are refused.

use std::collections::{BTreeMap, HashMap};

use bollard_stubs::models::ContainerCreateBody;

use crate::engine::Error;

/// How the output of a container is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogConfig {
    /// Whether it is kept at all.
    pub kept: bool,
    /// From this size in bytes on, a new file is begun; none is never.
    pub max_size: Option<u64>,
    /// How many files there are at most, the one that grows among them.
    pub max_file: u32,
    /// Whether all but that one are compressed (gzip).
    pub compress: bool,
    /// What is noted with each line, for `logs --details`.
    pub attributes: BTreeMap<String, String>,
}

/// What docker's file drivers may be told.
const OPTIONS: [&str; 8] =
    ["max-size", "max-file", "compress", "labels", "env", "tag", "mode", "max-buffer-size"];

impl LogConfig {
    /// Reads it from a container's configuration.
    ///
    /// # Errors
    /// A driver that there is not, and options that make no sense.
    pub fn of(body: &ContainerCreateBody) -> Result<Self, Error> {
        let asked = body.host_config.as_ref().and_then(|host| host.log_config.clone()).unwrap_or_default();
        let driver = asked.typ.as_deref().filter(|name| !name.is_empty()).unwrap_or("json-file");
        let mut config = match driver {
            "none" => return Ok(Self::default()),
            "json-file" => Self { kept: true, max_file: 1, ..Self::default() },
            // Docker's defaults (moby, daemon/logger/local).
            "local" => Self {
                kept: true,
                max_size: Some(20_000_000),
                max_file: 5,
                compress: true,
                ..Self::default()
            },
            other => return Err(Error::bad(format!("logger: no log driver named '{other}' is registered"))),
        };
        let options = asked.config.unwrap_or_default();
        if let Some(unknown) = options.keys().find(|name| !OPTIONS.contains(&name.as_str())) {
            return Err(Error::bad(format!("unknown log opt '{unknown}' for {driver} log driver")));
        }
        let wrong = |name: &str, value: &str| Error::bad(format!("invalid value '{value}' for {name}"));
        if let Some(text) = options.get("max-size") {
            // -1 is docker's word for "no limit".
            config.max_size = match text.as_str() {
                "-1" => None,
                text => Some(size(text).ok_or_else(|| wrong("max-size", text))?),
            };
        }
        if let Some(text) = options.get("max-file") {
            config.max_file = text.parse().map_err(|_| wrong("max-file", text))?;
            if config.max_file < 1 {
                return Err(Error::bad("max-file cannot be less than 1"));
            }
        }
        if let Some(text) = options.get("compress") {
            config.compress = text.parse().map_err(|_| wrong("compress", text))?;
        }
        if config.compress && (config.max_file < 2 || config.max_size.is_none()) {
            if options.contains_key("compress") {
                return Err(Error::bad(
                    "compress cannot be true when max-file is less than 2 or max-size is not set",
                ));
            }
            config.compress = false;
        }
        config.attributes = attributes(body, &options);
        Ok(config)
    }
}

/// The labels and variables that are asked for and there, and the tag.
fn attributes(body: &ContainerCreateBody, options: &HashMap<String, String>) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    let asked = |option: &str| {
        let names = options.get(option).map(String::as_str).unwrap_or_default();
        names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    for name in asked("labels") {
        if let Some(value) = body.labels.as_ref().and_then(|labels| labels.get(&name)) {
            attributes.insert(name, value.clone());
        }
    }
    for name in asked("env") {
        let variables = body.env.iter().flatten().filter_map(|text| text.split_once('='));
        if let Some((_, value)) = variables.into_iter().find(|(own, _)| *own == name) {
            attributes.insert(name, value.to_owned());
        }
    }
    if let Some(tag) = options.get("tag").filter(|tag| !tag.is_empty()) {
        attributes.insert("tag".to_owned(), tag.clone());
    }
    attributes
}

/// A size as docker's loggers read it: decimal units, unlike those of memory (go-units, `FromHumanSize`).
fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: f64 = match unit.trim().trim_end_matches('b').trim_end_matches('i') {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor;
    (bytes >= 1.0).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(driver: &str, options: &[(&str, &str)]) -> Result<LogConfig, Error> {
        let options: HashMap<_, _> = options.iter().copied().collect();
        let body = serde_json::json!({
            "Labels": {"tier": "front"}, "Env": ["A=b=c"],
            "HostConfig": {"LogConfig": {"Type": driver, "Config": options}},
        });
        LogConfig::of(&serde_json::from_value(body).unwrap())
    }

    #[test]
    fn the_drivers_differ_by_their_defaults() {
        assert!(!config("none", &[("fly", "1")]).unwrap().kept);
        assert_eq!(config("json-file", &[]).unwrap().max_size, None);
        let local = config("local", &[]).unwrap();
        assert_eq!((local.max_size, local.max_file, local.compress), (Some(20_000_000), 5, true));
        assert!(config("syslog", &[]).is_err());
    }

    #[test]
    fn sizes_and_numbers_are_checked() {
        let both =
            config("json-file", &[("max-size", "10k"), ("max-file", "3"), ("compress", "true")]).unwrap();
        assert_eq!((both.max_size, both.max_file, both.compress), (Some(10_000), 3, true));
        for wrong in [
            ("max-size", "x"),
            ("max-size", "0"),
            ("max-file", "0"),
            ("max-file", "-1"),
            ("compress", "true"),
            ("fly", "1"),
        ] {
            assert!(config("json-file", &[wrong]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_noted_with_each_line_is_asked_for_by_name() {
        let noted = config("json-file", &[("labels", "tier,none"), ("env", "A")]).unwrap().attributes;
        assert_eq!(noted, BTreeMap::from([("A".into(), "b=c".into()), ("tier".into(), "front".into())]));
    }
}
