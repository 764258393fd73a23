//! What the daemon tells of itself.

use serde_json::json;

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
    ok_info(&json!({
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
        "Swarm": {"LocalNodeState": "inactive"}, "Labels": [], "Warnings": null,
    }))
}

#[allow(clippy::unnecessary_wraps, reason = "the end of a handler")]
fn ok_info(value: &serde_json::Value) -> Handled {
    Ok(ok(value))
}

pub(super) async fn usage(daemon: &Daemon) -> Handled {
    let now = jiff::Timestamp::now();
    let (records, images, volumes) = daemon
        .work(|engine| Ok((engine.records()?, engine.images_with_embedded()?.list()?, engine.volumes()?)))
        .await?;
    let total: u64 = images.iter().map(|image| image.size).sum();
    let images: Vec<_> = images
        .iter()
        .map(|image| {
            let users = records.iter().filter(|record| record.image_id == image.id.to_string()).count();
            let names: Vec<String> = image.name.iter().map(crate::image::Reference::familiar).collect();
            json!({"Id": image.id, "RepoTags": names, "Size": image.size, "SharedSize": 0, "Containers": users, "Created": 0})
        })
        .collect();
    let containers: Vec<_> = records.iter().map(|record| record.summary(now)).collect();
    let volumes: Vec<_> = volumes
        .iter()
        .map(|volume| json!({"Name": volume.name, "Driver": "local", "Scope": "local", "UsageData": {"Size": 0, "RefCount": volume.used}}))
        .collect();
    Ok(ok(
        &json!({"LayersSize": total, "Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": []}),
    ))
}
