//! What the daemon tells of itself.

use serde_json::{Value, json};

use super::reply::{Handled, Reply, ok, text};
use super::{API, Daemon};
use crate::engine::Runtime;
use crate::engine::stored::Status;

pub(super) fn ping() -> Reply {
    let mut reply = text("OK");
    let headers = reply.headers_mut();
    for (name, value) in [
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("builder-version", "1"),
        ("docker-experimental", "false"),
    ] {
        headers.insert(name, hyper::header::HeaderValue::from_static(value));
    }
    reply
}

fn arch() -> &'static str {
    // Go's name, which clients compare.
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(super) fn version() -> Reply {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let own = env!("CARGO_PKG_VERSION");
    ok(&json!({
        "Platform": {"Name": "lab: one image, two walls"},
        "Components": [{"Name": "Engine", "Version": own, "Details": {"ApiVersion": API.0, "MinAPIVersion": API.1, "Os": "linux", "Arch": arch(), "KernelVersion": kernel}}],
        "Version": own, "ApiVersion": API.0, "MinAPIVersion": API.1, "GitCommit": "", "GoVersion": "", "Os": "linux",
        "Arch": arch(), "KernelVersion": kernel, "BuildTime": "",
    }))
}

pub(super) async fn info(daemon: &Daemon) -> Handled {
    let (records, images) =
        daemon.work(|engine| Ok((engine.records()?, engine.images_with_embedded()?.list()?.len()))).await?;
    let count = |status| records.iter().filter(|record| record.status == status).count();
    let uname = rustix::system::uname();
    let memory = rustix::system::sysinfo();
    let mut info = json!({
        "ID": "lab", "Name": uname.nodename().to_string_lossy(),
        "Containers": records.len(), "ContainersRunning": count(Status::Running), "ContainersPaused": count(Status::Paused),
        "ContainersStopped": records.iter().filter(|record| !record.status.is_live()).count(),
        "Images": images, "Driver": "overlay", "DriverStatus": [["Root disks of virtual machines", "EROFS"]],
        "Plugins": {"Volume": ["local"], "Network": ["none", "host"], "Authorization": null, "Log": ["json-file"]},
        "MemoryLimit": true, "SwapLimit": true, "CpuCfsPeriod": true, "CpuCfsQuota": true, "PidsLimit": true,
        "OomKillDisable": false, "IPv4Forwarding": true, "CgroupDriver": "cgroupfs",
        "CgroupVersion": if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "2" } else { "1" },
        "SystemTime": jiff::Timestamp::now().to_string(), "LoggingDriver": "json-file",
        "KernelVersion": uname.release().to_string_lossy(), "OperatingSystem": "Linux", "OSType": "linux",
        "Architecture": std::env::consts::ARCH, "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": memory.totalram as u64 * u64::from(memory.mem_unit),
        "DockerRootDir": crate::paths::data().map(|path| path.display().to_string()).unwrap_or_default(),
        "ServerVersion": env!("CARGO_PKG_VERSION"), "Runtimes": {"container": {"path": "lab"}, "vm": {"path": "lab"}},
        "DefaultRuntime": Runtime::Container.name(), "SecurityOptions": ["name=seccomp,profile=builtin"],
        "IndexServerAddress": "https://index.docker.io/v1/", "RegistryConfig": {"IndexConfigs": {}, "InsecureRegistryCIDRs": ["127.0.0.0/8"], "Mirrors": []},
        "Swarm": {"LocalNodeState": "inactive", "NodeID": "", "NodeAddr": "", "ControlAvailable": false, "Error": "", "RemoteManagers": null},
    });
    // What no part of the lab has, and clients look for.
    let more = json!({
        "Labels": [], "Warnings": null, "Debug": false, "ExperimentalBuild": false, "NFd": 0, "NGoroutines": 0, "NEventsListener": 0,
        "HttpProxy": "", "HttpsProxy": "", "NoProxy": "", "LiveRestoreEnabled": true, "Isolation": "", "InitBinary": "docker-init",
        "CPUShares": true, "CPUSet": true, "KernelMemoryTCP": false, "BridgeNfIptables": false, "BridgeNfIp6tables": false,
        "OSVersion": "", "ProductLicense": "", "GenericResources": null, "ContainerdCommit": {"ID": ""}, "RuncCommit": {"ID": ""}, "InitCommit": {"ID": ""},
    });
    if let (Value::Object(info), Value::Object(more)) = (&mut info, more) {
        info.extend(more);
    }
    Ok(ok(&info))
}

/// `docker system df`: what takes how much space.
pub(super) async fn usage(daemon: &Daemon) -> Handled {
    daemon
        .work(|engine| {
            let now = jiff::Timestamp::now();
            let (records, all) = (engine.records()?, engine.images_with_embedded()?.list()?);
            let mut images: Vec<Value> = Vec::new();
            for image in &all {
                let id = image.id.to_string();
                let name = image.name.as_ref().map(crate::image::Reference::familiar);
                // One image under two names is one entry.
                if let Some(known) = images.iter_mut().find(|known| known["Id"] == id.as_str()) {
                    if let (Some(tags), Some(name)) = (known["RepoTags"].as_array_mut(), name) {
                        tags.push(name.into());
                    }
                    continue;
                }
                let users = records.iter().filter(|record| record.image_id == id).count();
                let created = image.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
                images.push(json!({
                    "Id": id, "ParentId": "", "RepoTags": name.into_iter().collect::<Vec<_>>(), "RepoDigests": [], "Size": image.size,
                    "SharedSize": 0, "Containers": users, "Created": created.map_or(0, jiff::Timestamp::as_second), "Labels": {},
                }));
            }
            let total: u64 = images.iter().filter_map(|image| image["Size"].as_u64()).sum();
            let mut containers: Vec<Value> = Vec::new();
            for record in &records {
                let mut entry = record.summary(now);
                super::containers::add_sizes(engine, record, &mut entry);
                containers.push(entry);
            }
            let volumes: Vec<Value> = engine
                .volumes()?
                .iter()
                .map(|volume| {
                    let mut told = super::volumes::describe(engine, volume);
                    told["UsageData"] = json!({"Size": engine.volume_size(&volume.name), "RefCount": volume.used});
                    told
                })
                .collect();
            Ok(ok(&json!({
                "LayersSize": total, "Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": [], "BuilderSize": 0,
            })))
        })
        .await
}
