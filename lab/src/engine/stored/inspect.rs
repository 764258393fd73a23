//! What is told of one container: `GET /containers/ID/json`.

use serde_json::{Map, Value, json};

use super::{Engine, Record, Status, plan};
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
                "Bridge": "", "SandboxID": "", "SandboxKey": "", "Ports": ports, "Gateway": "", "IPAddress": "", "IPPrefixLen": 0,
                "MacAddress": "", "Networks": self.networks_of(record)?,
            },
        });
        if let Some(health) = &record.health {
            told["State"]["Health"] = json!(health);
        }
        Ok(told)
    }

    fn networks_of(&self, record: &Record) -> Result<Value, Error> {
        let mut networks = Map::new();
        for endpoint in self.endpoints_of(&record.id)? {
            let live = record.status.is_live();
            let address = if live { endpoint.address().to_string() } else { String::new() };
            networks.insert(
                endpoint.network.name.clone(),
                json!({
                    "NetworkID": endpoint.network.id, "EndpointID": if live { &record.id } else { "" }, "IPAddress": address,
                    "IPPrefixLen": if live { 24 } else { 0 }, "Gateway": endpoint.network.gateway().to_string(),
                    "Aliases": endpoint.aliases, "MacAddress": if live { endpoint.hardware() } else { String::new() }, "DNSNames": [record.name, record.short_id()],
                }),
            );
        }
        if networks.is_empty() {
            networks.insert(
                record.network_name(),
                json!({"NetworkID": "", "IPAddress": "", "Gateway": "", "Aliases": null}),
            );
        }
        Ok(networks.into())
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
    ] {
        if host.get(key).is_none_or(Value::is_null) {
            host[key] = value;
        }
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
