//! What is told of one container: `GET /containers/ID/json`.

use serde_json::{Map, Value, json};

use super::networks::{DEFAULT, Endpoint};
use super::{Engine, Record, Status, linked, plan};
use crate::engine::Error;

impl Engine {
    /// Everything about a container, as docker tells it.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn inspect(&self, record: &Record) -> Result<Value, Error> {
        self.reconcile(record)?;
        let record = &self.find(&record.id)?;
        let mut config = serde_json::to_value(&record.body)?;
        let (host, network) = match config.as_object_mut() {
            Some(config) => (config.remove("HostConfig"), config.remove("NetworkingConfig")),
            None => (None, None),
        };
        let _ = network;
        let mut host = host.unwrap_or_default();
        fill_host(&mut host, record);
        fill_config(&mut config, record);
        let words: Vec<&String> =
            record.body.entrypoint.iter().flatten().chain(record.body.cmd.iter().flatten()).collect();
        let directory = self.roots.stored(&record.id);
        let live = record.status.is_live();
        let execs = self.execs_of(record)?;
        // Those that an image exposes and nobody publishes are told, too.
        let mut ports = serde_json::to_value(&record.ports)?;
        let networks = self.networks_of(record)?;
        // Docker tells the default network's once more, beside the list.
        let default = |key: &str, none: Value| networks[DEFAULT].get(key).cloned().unwrap_or(none);
        for exposed in record.body.exposed_ports.iter().flatten().filter(|_| live) {
            if ports.get(exposed).is_none() {
                ports[exposed] = Value::Null;
            }
        }
        let mut told = json!({
            "Id": record.id,
            "Created": record.created,
            "Path": words.first(),
            "Args": words.get(1..).unwrap_or_default(),
            "State": {
                "Status": record.status.name(),
                "Running": live,
                "Paused": record.status == Status::Paused,
                "Restarting": record.status == Status::Restarting,
                "OOMKilled": false,
                "Dead": false,
                "Pid": record.pid,
                "ExitCode": record.exit_code,
                "Error": record.error,
                "StartedAt": record.started,
                "FinishedAt": record.finished,
            },
            "Image": record.image_id,
            "ResolvConfPath": directory.join("resolv.conf"),
            "HostnamePath": directory.join("hostname"),
            "HostsPath": directory.join("hosts"),
            "LogPath": self.log_path(record),
            "Name": format!("/{}", record.name),
            "RestartCount": record.restarts,
            "Driver": "overlay",
            "Platform": "linux",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "ExecIDs": if execs.is_empty() { Value::Null } else { execs.into() },
            "HostConfig": host,
            "GraphDriver": {"Name": "overlay", "Data": {"UpperDir": directory.join("upper"), "WorkDir": directory.join("work")}},
            "Mounts": self.mount_points(record),
            "Config": config,
            "NetworkSettings": {
                "Bridge": "", "SandboxID": if live { record.id.as_str() } else { "" },
                "SandboxKey": if record.pid > 0 { format!("/proc/{}/ns/net", record.pid) } else { String::new() },
                "Ports": ports, "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
                "SecondaryIPAddresses": null, "SecondaryIPv6Addresses": null,
                "EndpointID": default("EndpointID", "".into()), "Gateway": default("Gateway", "".into()),
                "IPAddress": default("IPAddress", "".into()), "IPPrefixLen": default("IPPrefixLen", 0.into()),
                "IPv6Gateway": default("IPv6Gateway", "".into()), "MacAddress": default("MacAddress", "".into()),
                "GlobalIPv6Address": default("GlobalIPv6Address", "".into()),
                "GlobalIPv6PrefixLen": default("GlobalIPv6PrefixLen", 0.into()), "Networks": networks,
            },
        });
        if let Some(health) = &record.health {
            told["State"]["Health"] = json!(health);
        }
        Ok(told)
    }

    /// The container's places in networks, as `EndpointSettings`. Addresses are told while they are in use.
    fn networks_of(&self, record: &Record) -> Result<Value, Error> {
        tell_networks(record, &self.endpoints_of(&record.id)?)
    }

    /// The same for the entries of a list, by one question to the database.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn add_networks(&self, records: &[Record], entries: &mut [Value]) -> Result<(), Error> {
        let mut all = self.all_endpoints()?;
        for (record, entry) in records.iter().zip(entries) {
            let endpoints = all.remove(&record.id).unwrap_or_default();
            entry["NetworkSettings"]["Networks"] = tell_networks(record, &endpoints)?;
        }
        Ok(())
    }

    fn mount_points(&self, record: &Record) -> Vec<Value> {
        let wishes = plan::wishes(&record.body).unwrap_or_default();
        let tell = |wish: &plan::Wish| {
            let mut point = Map::new();
            point.insert("Type".into(), json!(wish.kind));
            if wish.kind == bollard_stubs::models::MountType::VOLUME {
                let name = wish.source.clone().unwrap_or_default();
                point.insert("Source".into(), json!(self.volume_path(&name)));
                point.insert("Name".into(), name.into());
                point.insert("Driver".into(), "local".into());
            } else {
                point.insert("Source".into(), wish.source.clone().unwrap_or_default().into());
            }
            point.insert("Destination".into(), wish.target.clone().into());
            point.insert("Mode".into(), if wish.read_only { "ro" } else { "" }.into());
            point.insert("RW".into(), (!wish.read_only).into());
            point.insert("Propagation".into(), "rprivate".into());
            Value::Object(point)
        };
        wishes.iter().filter(|wish| wish.kind != bollard_stubs::models::MountType::TMPFS).map(tell).collect()
    }
}

fn tell_networks(record: &Record, endpoints: &[Endpoint]) -> Result<Value, Error> {
    let mut networks = Map::new();
    for endpoint in endpoints {
        let mut told = serde_json::to_value(&endpoint.settings)?;
        let live = record.status.is_live();
        let network = &endpoint.network;
        let while_live = |value: Value, else_: Value| if live { value } else { else_ };
        let six = endpoint.address6.zip(network.subnet6);
        let text = |value: Option<String>| Value::from(value.unwrap_or_default());
        for (key, value) in [
            ("NetworkID", json!(network.id)),
            ("EndpointID", while_live(endpoint.id().into(), "".into())),
            ("Gateway", while_live(network.gateway().to_string().into(), "".into())),
            ("IPAddress", while_live(endpoint.address.to_string().into(), "".into())),
            ("IPPrefixLen", while_live(network.subnet.0.prefix_len().into(), 0.into())),
            ("IPv6Gateway", while_live(text(six.map(|(_, (_, gateway))| gateway.to_string())), "".into())),
            ("GlobalIPv6Address", while_live(text(six.map(|(own, _)| own.to_string())), "".into())),
            (
                "GlobalIPv6PrefixLen",
                while_live(six.map_or(0, |(_, (net, _))| net.prefix_len()).into(), 0.into()),
            ),
            ("DNSNames", if network.has_names() { json!(dns_names(endpoint, record)) } else { Value::Null }),
        ] {
            told[key] = value;
        }
        if told["MacAddress"].is_null() {
            told["MacAddress"] = while_live(endpoint.hardware().into(), "".into());
        }
        for key in ["IPAMConfig", "Links", "Aliases", "DriverOpts"] {
            if told.get(key).is_none() {
                told[key] = Value::Null;
            }
        }
        if told.get("GwPriority").is_none() {
            told["GwPriority"] = 0.into();
        }
        networks.insert(network.name.clone(), told);
    }
    let mode = record.network_name();
    if networks.is_empty() && matches!(mode.as_str(), "none" | "host" | DEFAULT) {
        networks.insert(mode, json!({"NetworkID": "", "IPAddress": "", "Gateway": "", "Aliases": null}));
    }
    Ok(networks.into())
}

fn dns_names(endpoint: &Endpoint, record: &Record) -> Vec<String> {
    let hostname = record.body.hostname.clone().unwrap_or_default();
    let own = [record.name.clone()].into_iter().chain(endpoint.aliases().iter().cloned());
    let mut names: Vec<String> = Vec::new();
    for name in own.chain([record.short_id().to_owned(), hostname]) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Clients expect these to be there.
fn fill_host(host: &mut Value, record: &Record) {
    for (key, value) in [
        ("NetworkMode", json!(record.network_name())),
        ("RestartPolicy", json!({"Name": "no", "MaximumRetryCount": 0})),
        ("LogConfig", json!({"Type": "json-file", "Config": {}})),
        ("Binds", Value::Null),
        ("PortBindings", json!({})),
        ("AutoRemove", json!(false)),
        ("Privileged", json!(false)),
        ("ReadonlyRootfs", json!(false)),
        ("Memory", json!(0)),
        ("NanoCpus", json!(0)),
        ("ShmSize", json!(64 << 20)),
        ("CapAdd", Value::Null),
        ("CapDrop", Value::Null),
        ("Links", Value::Null),
    ] {
        if host.get(key).is_none_or(Value::is_null) {
            host[key] = value;
        }
    }
    if let Some(links) = record.host().links.filter(|_| record.network_name() == DEFAULT) {
        let tell = |link: &String| {
            let (name, alias) = linked::parse(link).ok()?;
            Some(format!("/{name}:/{}/{alias}", record.name))
        };
        host["Links"] = links.iter().filter_map(tell).collect::<Vec<_>>().into();
    }
    if host["LogConfig"]["Type"].as_str().is_none_or(str::is_empty) {
        host["LogConfig"]["Type"] = "json-file".into();
    }
}

fn fill_config(config: &mut Value, record: &Record) {
    config["Image"] = record.image.clone().into();
    for (key, value) in [
        ("Hostname", json!("")),
        ("Domainname", json!("")),
        ("User", json!("")),
        ("AttachStdin", json!(false)),
        ("AttachStdout", json!(false)),
        ("AttachStderr", json!(false)),
        ("Tty", json!(false)),
        ("OpenStdin", json!(false)),
        ("StdinOnce", json!(false)),
        ("Env", json!([])),
        ("Cmd", Value::Null),
        ("Entrypoint", Value::Null),
        ("Volumes", Value::Null),
        ("WorkingDir", json!("")),
        ("Labels", json!({})),
    ] {
        if config.get(key).is_none() {
            config[key] = value;
        }
    }
}
