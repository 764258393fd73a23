//! From docker's configuration to what a wall is asked for.
//!
//! What docker knows and the engine does not is either harmless and kept (log drivers, CPU shares), or refused by name when
//! the container is made, so that nobody believes in a wall that is not there.

use std::path::{Path, PathBuf};

use bollard_stubs::models::{
    ContainerCreateBody, DeviceMapping, HostConfig, HostConfigCgroupnsModeEnum, MountType,
};

use super::{LogConfig, published};
use crate::engine::limits::{Limits, MilliCpus};
use crate::engine::request::{Choices, Device, Extra, Network};
use crate::engine::{Error, Request, Runtime};

/// One folder or file of the host, or volume, or tmpfs, as `-v`, `--mount` and `--tmpfs` ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// A path of the host, a volume's name, or none: a new volume, or a tmpfs.
    pub source: Option<String>,
    /// Where it is seen.
    pub target: String,
    /// What it is.
    pub kind: MountType,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Further options of mount(8).
    pub options: Vec<String>,
    /// Whether a missing folder of the host is an error (`--mount`) or made (`-v`).
    pub must_exist: bool,
    /// Whether a new volume stays empty where the image has something.
    pub no_copy: bool,
}

/// Everything that is to be mounted, in docker's order of precedence.
///
/// # Errors
/// What breaks the rules of `-v` and `--mount`.
pub fn wishes(body: &ContainerCreateBody) -> Result<Vec<Wish>, Error> {
    let host = body.host_config.clone().unwrap_or_default();
    let mut wishes = Vec::new();
    for text in host.binds.iter().flatten() {
        wishes.push(bind(text)?);
    }
    for mount in host.mounts.iter().flatten() {
        let target = mount.target.clone().unwrap_or_default();
        let kind = mount.typ.unwrap_or(MountType::VOLUME);
        if !matches!(kind, MountType::BIND | MountType::VOLUME | MountType::TMPFS) {
            return Err(Error::bad(format!("mount type {kind} is not supported: use bind, volume or tmpfs")));
        }
        let mut options = Vec::new();
        if let Some(tmpfs) = &mount.tmpfs_options {
            options.extend(tmpfs.size_bytes.filter(|&size| size > 0).map(|size| format!("size={size}")));
            options.extend(tmpfs.mode.map(|mode| format!("mode={mode:o}")));
        }
        let source = mount.source.clone().filter(|source| !source.is_empty());
        if kind == MountType::BIND && !source.as_deref().is_some_and(|source| source.starts_with('/')) {
            return Err(Error::bad(format!(
                "invalid mount config for type \"bind\": the source of {target} must be an absolute path"
            )));
        }
        let read_only = mount.read_only.unwrap_or(false);
        let no_copy = mount.volume_options.as_ref().and_then(|options| options.no_copy).unwrap_or(false);
        let (binding, propagation) = (mount.bind_options.clone().unwrap_or_default(), "propagation");
        if let Some(mode) = binding.propagation.filter(|mode| !mode.to_string().is_empty()) {
            let mode = mode.to_string();
            if kind != MountType::BIND {
                return Err(Error::bad(format!(
                    "{propagation} {mode} of {target}: only a bind mount has one"
                )));
            }
            options.push(mode);
        }
        if binding.non_recursive.unwrap_or(false) {
            options.push("bind".to_owned());
        }
        let must_exist = !binding.create_mountpoint.unwrap_or(false);
        wishes.push(Wish { source, target, kind, read_only, options, must_exist, no_copy });
    }
    for (target, options) in host.tmpfs.iter().flatten() {
        let options = options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
        let (kind, target) = (MountType::TMPFS, target.clone());
        wishes.push(Wish {
            source: None,
            target,
            kind,
            read_only: false,
            options,
            must_exist: false,
            no_copy: false,
        });
    }
    // The image's volumes and `-v /path`: anonymous, unless something is mounted there already.
    for target in body.volumes.iter().flatten() {
        if !wishes.iter().any(|wish| wish.target == *target) {
            let (kind, target) = (MountType::VOLUME, target.clone());
            wishes.push(Wish {
                source: None,
                target,
                kind,
                read_only: false,
                options: Vec::new(),
                must_exist: false,
                no_copy: false,
            });
        }
    }
    for (index, wish) in wishes.iter().enumerate() {
        if !wish.target.starts_with('/') || wish.target == "/" {
            return Err(Error::bad(format!(
                "invalid mount target '{}': it must be an absolute path other than /",
                wish.target
            )));
        }
        if wishes[..index].iter().any(|other| other.target == wish.target) {
            return Err(Error::bad(format!("Duplicate mount point: {}", wish.target)));
        }
    }
    Ok(wishes)
}

/// `SOURCE:TARGET[:OPTIONS]`.
fn bind(text: &str) -> Result<Wish, Error> {
    let mut parts = text.split(':');
    let (source, target, options, rest) = (parts.next(), parts.next(), parts.next(), parts.next());
    let (Some(source), Some(target), None) = (source.filter(|text| !text.is_empty()), target, rest) else {
        return Err(Error::bad(format!("invalid volume specification: '{text}': use SOURCE:TARGET[:ro]")));
    };
    let kind = if source.starts_with('/') { MountType::BIND } else { MountType::VOLUME };
    let (mut read_only, mut no_copy) = (false, false);
    let mut kept = Vec::new();
    for option in options.unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            // SELinux labels and copying are settled here; there is no SELinux policy for the lab.
            "rw" | "z" | "Z" | "copy" => {}
            "nocopy" => no_copy = true,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                kept.push(option.to_owned());
            }
            _ => return Err(Error::bad(format!("invalid mode: {option} in '{text}'"))),
        }
    }
    Ok(Wish {
        source: Some(source.to_owned()),
        target: target.to_owned(),
        kind,
        read_only,
        options: kept,
        must_exist: false,
        no_copy,
    })
}

/// What a wall is asked for; `mounts` are the wishes, their sources found.
///
/// # Errors
/// What the engine cannot do, or what makes no sense.
pub fn request(name: &str, body: &ContainerCreateBody, mounts: Vec<Extra>) -> Result<Request, Error> {
    let host = body.host_config.clone().unwrap_or_default();
    let runtime = match host.runtime.as_deref() {
        // What the daemon calls its default; docker's own names for it are taken too.
        None | Some("" | "container" | "runc") => Runtime::Container,
        Some("vm") => Runtime::Vm,
        Some(other) => {
            return Err(Error::bad(format!(
                "unknown or invalid runtime name: {other}; there are container and vm"
            )));
        }
    };
    refuse(&host)?;
    LogConfig::of(body)?;
    let root = rustix::process::geteuid().is_root();
    if host.network_mode.as_deref() == Some(crate::engine::passt::NAME)
        && runtime == Runtime::Container
        && root
    {
        let reason = "as root a container takes bridge; passt is for those who may not make devices";
        return Err(Error::Unsupported { flag: "--network passt", runtime: "container", reason });
    }
    if !published::ports(body)?.is_empty() {
        let mode = host.network_mode.as_deref().unwrap_or_default();
        let own = !matches!(mode, "none" | "host") && !mode.starts_with("container:");
        if !own {
            return Err(Error::bad("--publish needs a network of the container's own: leave --network out"));
        }
    }
    let annotation = |key: &str| host.annotations.as_ref().and_then(|all| all.get(key).cloned());
    Ok(Request {
        image: body.image.clone().unwrap_or_default(),
        command: body.cmd.clone().unwrap_or_default(),
        entrypoint: Some(body.entrypoint.clone().unwrap_or_default()),
        runtime,
        environment: body.env.clone().unwrap_or_default(),
        workdir: some(body.working_dir.as_ref()),
        user: some(body.user.as_ref()),
        limits: limits(&host),
        interactive: body.open_stdin.unwrap_or(false),
        terminal: body.tty.unwrap_or(false),
        name: Some(name.to_owned()),
        hostname: some(body.hostname.as_ref()),
        read_only: host.readonly_rootfs.unwrap_or(false),
        kernel: annotation("lab.kernel"),
        accelerator: crate::engine::Accelerator::default(),
        warm: annotation("lab.warm").is_some_and(|value| value == "true"),
        saved: annotation(super::saved::ANNOTATION).map(Into::into),
        vsock: annotation("lab.vsock").map(Into::into),
        gdb: annotation("lab.gdb").map(Into::into),
        explain: false,
        quiet: true,
        isolation: choices(&host, body, mounts)?,
    })
}

fn some(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}

fn refuse(host: &HostConfig) -> Result<(), Error> {
    let set =
        |text: &Option<String>, fine: &[&str]| text.as_deref().is_some_and(|text| !fine.contains(&text));
    let refused = [
        ("--userns", set(&host.userns_mode, &["", "host"])),
        ("--cgroupns", set(&host.cgroupns_mode.map(|mode| mode.to_string()), &["", "private", "host"])),
        ("--gpus", host.device_requests.as_ref().is_some_and(|requests| !requests.is_empty())),
    ];
    match refused.into_iter().find(|&(_, asked)| asked) {
        Some((flag, _)) => Err(Error::bad(format!("{flag} with this value is not supported by the lab yet"))),
        None => Ok(()),
    }
}

/// The limits that docker's configuration sets; 0 is docker's word for none.
pub fn limits(host: &HostConfig) -> Limits {
    let positive = |value: Option<i64>| value.filter(|&value| value > 0);
    let cpus = positive(host.nano_cpus).map(|nano| nano as u64 / 1_000_000).or_else(|| {
        let (quota, period) = (positive(host.cpu_quota)?, positive(host.cpu_period).unwrap_or(100_000));
        Some(quota as u64 * 1000 / period as u64)
    });
    Limits {
        memory: positive(host.memory).map(|bytes| bytes as u64),
        memory_swap: host.memory_swap.filter(|&bytes| bytes != 0),
        cpus: cpus.and_then(MilliCpus::new),
        pids: positive(host.pids_limit),
        cpu_shares: positive(host.cpu_shares).map(|shares| shares as u64),
        cpuset: some(host.cpuset_cpus.as_ref()),
        memory_nodes: some(host.cpuset_mems.as_ref()),
        memory_reservation: positive(host.memory_reservation).map(|bytes| bytes as u64),
    }
}

pub(super) fn choices(
    host: &HostConfig,
    body: &ContainerCreateBody,
    mounts: Vec<Extra>,
) -> Result<Choices, Error> {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let mut choices = Choices {
        mounts,
        cap_add: list(&host.cap_add),
        cap_drop: list(&host.cap_drop),
        privileged: host.privileged.unwrap_or(false),
        sysctls: host.sysctls.clone().unwrap_or_default().into_iter().collect(),
        groups: list(&host.group_add),
        shm_size: host.shm_size.filter(|&size| size > 0).map(|size| size as u64),
        // Docker's default; the lab's own `run` is stricter.
        new_privileges: true,
        oom_score: host.oom_score_adj.filter(|&score| score != 0).map(|score| score as i32),
        domain: some(body.domainname.as_ref()),
        host_cgroups: host.cgroupns_mode == Some(HostConfigCgroupnsModeEnum::HOST),
        devices: host.devices.iter().flatten().map(device).collect(),
        device_rules: list(&host.device_cgroup_rules),
        ..Choices::default()
    };
    if host.network_mode.as_deref() == Some("host") {
        choices.network = Network::Host;
    }
    for limit in host.ulimits.iter().flatten() {
        let number =
            |value: Option<i64>| value.map_or(u64::MAX, |value| u64::try_from(value).unwrap_or(u64::MAX));
        choices.ulimits.push((
            limit.name.clone().unwrap_or_default(),
            number(limit.soft),
            number(limit.hard),
        ));
    }
    for option in host.security_opt.iter().flatten() {
        match option.split_once(['=', ':']).unwrap_or((option, "true")) {
            ("no-new-privileges", "true") => choices.new_privileges = false,
            ("no-new-privileges", "false")
            | ("label", "disable")
            | ("apparmor" | "apparmor-profile", "unconfined")
            | ("seccomp", "builtin" | "default") => {}
            ("apparmor" | "apparmor-profile", profile) => choices.apparmor = Some(profile.to_owned()),
            ("seccomp", "unconfined") => choices.seccomp_unconfined = true,
            // The client has read the file.
            ("seccomp", profile) => choices.seccomp = Some(profile.to_owned()),
            ("systempaths", "unconfined") => choices.unmasked = true,
            _ => {
                return Err(Error::bad(format!(
                    "invalid --security-opt: {option:?}; there are no-new-privileges, seccomp=FILE or unconfined, \
                     apparmor=PROFILE, systempaths=unconfined"
                )));
            }
        }
    }
    Ok(choices)
}

fn device(mapping: &DeviceMapping) -> Device {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let source = text(&mapping.path_on_host).unwrap_or_default();
    Device {
        target: text(&mapping.path_in_container).unwrap_or_else(|| source.clone()).into(),
        source: source.into(),
        rights: text(&mapping.cgroup_permissions).unwrap_or_else(|| "rwm".to_owned()),
    }
}

/// A mount whose source is found.
pub(super) fn extra(wish: &Wish, source: Option<PathBuf>) -> Extra {
    let mut options = wish.options.clone();
    if source.is_some() {
        if !options.iter().any(|option| option == "bind") {
            options.insert(0, "rbind".to_owned());
        }
        if !options
            .iter()
            .any(|option| matches!(&option[..], "shared" | "rshared" | "slave" | "rslave" | "private"))
        {
            options.push("rprivate".to_owned());
        }
    } else {
        options.splice(0..0, ["nosuid", "nodev", "noexec"].map(str::to_owned));
    }
    if wish.read_only {
        options.push("ro".to_owned());
    }
    Extra { target: wish.target.clone(), source, options }
}

/// A file that the engine keeps for a container, mounted over the image's.
pub(crate) fn own_file(target: &str, source: &Path) -> Extra {
    Extra {
        target: target.to_owned(),
        source: Some(source.to_owned()),
        options: ["bind", "rprivate"].map(str::to_owned).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_is_a_path_and_a_volume_a_name() {
        let wish = bind("/srv:/data:ro").unwrap();
        assert_eq!((wish.kind, wish.read_only), (MountType::BIND, true));
        let wish = bind("data:/data").unwrap();
        assert_eq!((wish.kind, wish.source.as_deref()), (MountType::VOLUME, Some("data")));
        for text in ["", "x", ":/data", "a:b:c:d", "/a:/b:sideways"] {
            assert!(bind(text).is_err(), "{text}");
        }
    }

    #[test]
    fn two_mounts_at_one_place_are_refused() {
        let host = HostConfig { binds: Some(vec!["a:/x".into(), "b:/x".into()]), ..HostConfig::default() };
        let body = ContainerCreateBody { host_config: Some(host), ..ContainerCreateBody::default() };
        assert!(wishes(&body).unwrap_err().to_string().contains("/x"));
    }

    #[test]
    fn nano_cpus_and_quotas_mean_the_same() {
        let nano = HostConfig { nano_cpus: Some(500_000_000), ..HostConfig::default() };
        let quota =
            HostConfig { cpu_quota: Some(50_000), cpu_period: Some(100_000), ..HostConfig::default() };
        assert_eq!(limits(&nano).cpus, limits(&quota).cpus);
        assert!(limits(&nano).cpus.is_some());
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_its_flag() {
        let host = HostConfig { userns_mode: Some("keep".into()), ..HostConfig::default() };
        let body = ContainerCreateBody { host_config: Some(host), ..ContainerCreateBody::default() };
        assert!(request("x", &body, Vec::new()).unwrap_err().to_string().contains("--userns"));
    }
}
