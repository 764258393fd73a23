//! The bundle: what both walls are given. A directory with a `config.json` (OCI runtime specification) that says which
//! process to run, as whom, with which environment, mounts, limits and rights.

use std::fs::{DirBuilder, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use oci_spec::image::{Config, ImageConfiguration};
use oci_spec::runtime::{
    BoxBuilder, Capabilities, LinuxBuilder, LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder,
    LinuxResources, LinuxResourcesBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, ProcessBuilder,
    RootBuilder, Spec, SpecBuilder,
};

use super::error::Context as _;
use super::limits::{CPU_PERIOD, Limits};
use super::request::{Choices, Network};
use super::{Error, Request, Runtime, devices, id, isolation, process, seccomp, terminal};
use crate::image::users::{Accounts, User};

/// The version of the runtime specification that the bundle follows.
const SPEC_VERSION: &str = "1.2.0";

/// The surroundings that a bundle is written for.
pub struct Host {
    /// User and group of the caller, where that is not root: they become root inside a user namespace.
    pub rootless: Option<(u32, u32)>,
}

/// The specification of a request: the image's configuration, overridden by the flags, inside docker's default isolation.
///
/// # Errors
/// Where flags and image make no sense together.
pub fn specification(
    sandbox: &str,
    request: &Request,
    image: &ImageConfiguration,
    accounts: &Accounts,
    host: &Host,
) -> Result<Spec, Error> {
    let config = image.config().as_ref();
    let hostname = request.hostname.as_deref().unwrap_or_else(|| id::short(sandbox));
    let who =
        request.user.as_deref().or_else(|| config.and_then(|config| config.user().as_deref())).unwrap_or("");
    let mut user = accounts.resolve(who)?;
    let rootless = host.rootless.is_some();
    let choices = &request.isolation;
    let bounding = isolation::bounding(choices)?;

    let (mut nodes, mut rules) = devices::grant(&choices.devices)?;
    if choices.privileged {
        nodes.extend(devices::all()?);
    }
    for rule in &choices.device_rules {
        rules.push(devices::rule(rule)?);
    }
    let mut resources = resources(&request.limits, choices.privileged)?;
    if let Some(first) = resources.devices_mut() {
        first.extend(rules);
    }

    let mut linux = LinuxBuilder::default()
        .devices(nodes)
        .namespaces(isolation::namespaces(rootless, choices)?)
        .cgroups_path(isolation::cgroup(sandbox))
        .resources(resources)
        .sysctl(choices.sysctls.clone().into_iter().collect::<std::collections::HashMap<_, _>>());
    if !choices.privileged {
        if !choices.unmasked {
            linux =
                linux.masked_paths(isolation::masked_paths()).readonly_paths(isolation::read_only_paths());
        }
        match &choices.seccomp {
            _ if choices.seccomp_unconfined => {}
            Some(profile) => linux = linux.seccomp(seccomp::filter(profile, &bounding)?),
            None => linux = linux.seccomp(container::default_seccomp(&bounding)),
        }
    }
    if let Some((uid, gid)) = host.rootless {
        linux =
            linux.uid_mappings(isolation::own_id_as_root(uid)?).gid_mappings(isolation::own_id_as_root(gid)?);
    }

    let mut spec = SpecBuilder::default();
    // Names are set where they are the container's own.
    let own_names = choices.uts == Network::Own;
    if own_names {
        spec = spec.hostname(hostname);
    }
    if let Some(domain) = choices.domain.as_ref().filter(|domain| own_names && !domain.is_empty()) {
        spec = spec.domainname(domain);
    }
    for group in &choices.groups {
        user.groups.push(accounts.resolve(&format!("0:{group}"))?.gid);
    }
    let mut spec = spec
        .version(SPEC_VERSION)
        .root(RootBuilder::default().path("rootfs").readonly(request.read_only).build()?)
        .mounts(isolation::mounts(rootless, choices)?)
        .process(process_of(request, config, &user, rootless, hostname, bounding)?)
        .linux(linux.build()?)
        .build()?;
    if !own_names {
        // The builder has a name of its own.
        spec.set_hostname(None);
    }
    Ok(spec)
}

fn process_of(
    request: &Request,
    config: Option<&Config>,
    user: &User,
    rootless: bool,
    hostname: &str,
    bounding: Capabilities,
) -> Result<oci_spec::runtime::Process, Error> {
    let mut arguments = process::arguments(config, request)?;
    // A virtual machine has a first process of its own.
    if request.isolation.init.is_some() && request.runtime == Runtime::Container {
        arguments.splice(0..0, [isolation::INIT, "--"].map(str::to_owned));
    }
    let mut builder = ProcessBuilder::default()
        .terminal(request.terminal)
        .user(process::user(user, rootless)?)
        .args(arguments)
        .env(process::environment(config, &request.environment, hostname, request.terminal, &user.home))
        .cwd(process::directory(config, request)?)
        .capabilities(isolation::capabilities(user.uid, bounding)?)
        .rlimits(rlimits(&request.isolation)?)
        .no_new_privileges(!request.isolation.new_privileges && !request.isolation.privileged);
    if let Some(profile) = &request.isolation.apparmor {
        builder = builder.apparmor_profile(profile);
    }
    if let Some(score) = request.isolation.oom_score {
        builder = builder.oom_score_adj(score);
    }
    // The program's first look at its terminal already finds the user's size; later changes come by SIGWINCH.
    if let Some(size) = terminal::size().filter(|_| request.terminal) {
        let (height, width) = (u64::from(size.ws_row), u64::from(size.ws_col));
        builder = builder.console_size(BoxBuilder::default().height(height).width(width).build()?);
    }
    Ok(builder.build()?)
}

fn rlimits(choices: &Choices) -> Result<Vec<PosixRlimit>, Error> {
    let limit = |(name, soft, hard): &(String, u64, u64)| {
        let full = format!("RLIMIT_{}", name.to_ascii_uppercase());
        let kind = serde_json::from_value::<PosixRlimitType>(full.into());
        let kind = kind.map_err(|_| {
            Error::bad(format!("ulimit '{name}' is none; getrlimit(2) lists them, as nofile"))
        })?;
        Ok(PosixRlimitBuilder::default().typ(kind).soft(*soft).hard(*hard).build()?)
    };
    choices.ulimits.iter().map(limit).collect()
}

/// The limits as resources of a control group.
///
/// # Errors
/// Where they cannot be put together.
pub fn resources(limits: &Limits, privileged: bool) -> Result<LinuxResources, Error> {
    let mut resources = LinuxResourcesBuilder::default().devices(isolation::device_rules(privileged)?);
    if limits.memory.or(limits.memory_reservation).is_some() {
        let mut builder = LinuxMemoryBuilder::default();
        if let Some(memory) = limits.memory {
            builder = builder.limit(memory as i64);
        }
        if let Some(swap) = limits.memory_and_swap() {
            builder = builder.swap(swap);
        }
        if let Some(reserved) = limits.memory_reservation {
            builder = builder.reservation(reserved as i64);
        }
        resources = resources.memory(builder.build()?);
    }
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(cpus) = limits.cpus {
        cpu = cpu.quota(cpus.quota() as i64).period(CPU_PERIOD);
    }
    if let Some(shares) = limits.cpu_shares {
        cpu = cpu.shares(shares);
    }
    if let Some(list) = &limits.cpuset {
        cpu = cpu.cpus(list);
    }
    if let Some(list) = &limits.memory_nodes {
        cpu = cpu.mems(list);
    }
    if [
        limits.cpus.is_some(),
        limits.cpu_shares.is_some(),
        limits.cpuset.is_some(),
        limits.memory_nodes.is_some(),
    ]
    .contains(&true)
    {
        resources = resources.cpu(cpu.build()?);
    }
    if let Some(pids) = limits.pids.filter(|&pids| pids > 0) {
        resources = resources.pids(LinuxPidsBuilder::default().limit(pids).build()?);
    }
    Ok(resources.build()?)
}

/// Writes the bundle into a directory that is there already.
///
/// # Errors
/// Where it cannot be written.
pub fn write(spec: &Spec, directory: &Path) -> Result<(), Error> {
    let rootfs = directory.join("rootfs");
    DirBuilder::new().mode(0o700).create(&rootfs).context("create", rootfs.display())?;
    let path = directory.join("config.json");
    let mut file =
        BufWriter::with_capacity(32 * 1024, File::create(&path).context("create", path.display())?);
    serde_json::to_writer(&mut file, spec)?;
    file.flush().context("write", path.display())
}

#[cfg(test)]
mod tests {
    use super::super::limits;
    use super::*;
    use oci_spec::image::{ConfigBuilder, ImageConfigurationBuilder};

    fn image() -> ImageConfiguration {
        let config = ConfigBuilder::default().cmd(vec!["hello".to_owned()]).user("eva").build().unwrap();
        ImageConfigurationBuilder::default().config(config).build().unwrap()
    }

    fn accounts() -> Accounts {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "eva:x:1000:100::/home/eva:/bin/sh\n").unwrap();
        std::fs::write(root.path().join("etc/group"), "dialout:x:20:eva\n").unwrap();
        Accounts::read(&[root.path().to_owned()]).unwrap()
    }

    fn spec(request: &Request) -> Spec {
        let sandbox = "0123456789abcdef";
        specification(sandbox, request, &image(), &accounts(), &Host { rootless: None }).unwrap()
    }

    #[test]
    fn the_host_name_is_the_short_id_unless_given() {
        assert_eq!(spec(&Request::default()).hostname().as_deref(), Some("0123456789ab"));
        let named = Request { hostname: Some("box".into()), ..Request::default() };
        assert_eq!(spec(&named).hostname().as_deref(), Some("box"));
    }

    #[test]
    fn the_image_s_user_runs_with_its_groups_and_home_and_without_capabilities() {
        let spec = spec(&Request::default());
        let process = spec.process().as_ref().unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (1000, 100));
        assert_eq!(process.user().additional_gids().as_deref(), Some(&[100, 20][..]));
        assert!(process.env().as_ref().unwrap().contains(&"HOME=/home/eva".to_owned()));
        assert!(process.capabilities().as_ref().unwrap().effective().as_ref().unwrap().is_empty());
        assert_eq!(process.no_new_privileges(), Some(true));
    }

    #[test]
    fn limits_become_resources() {
        let limits = Limits {
            memory: Some(64 * limits::MIB),
            cpus: Some(limits::parse_cpus("0.5").unwrap()),
            pids: Some(10),
            ..Limits::default()
        };
        let spec = spec(&Request { limits, ..Request::default() });
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        let memory = resources.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(128 << 20)));
        let cpu = resources.cpu().clone().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(50_000), Some(100_000)));
        assert_eq!(resources.pids().unwrap().limit(), 10);
    }

    #[test]
    fn a_caller_without_root_is_root_inside_a_user_namespace() {
        let host = Host { rootless: Some((1234, 5678)) };
        let request = Request { user: Some("0".into()), ..Request::default() };
        let spec = specification("id", &request, &image(), &accounts(), &host).unwrap();
        let mapping = spec.linux().as_ref().unwrap().uid_mappings().clone().unwrap()[0];
        assert_eq!((mapping.container_id(), mapping.host_id(), mapping.size()), (0, 1234, 1));
        // setgroups(2) is denied there: user_namespaces(7).
        assert_eq!(*spec.process().as_ref().unwrap().user().additional_gids(), None);
    }

    #[test]
    fn a_caller_without_root_has_no_other_user_than_root() {
        let host = Host { rootless: Some((1234, 5678)) };
        let error = specification("id", &Request::default(), &image(), &accounts(), &host).unwrap_err();
        assert!(error.to_string().starts_with("user 1000:100: "), "{error}");
    }

    #[test]
    fn a_written_bundle_reads_back_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let spec = spec(&Request::default());
        write(&spec, directory.path()).unwrap();
        assert_eq!(Spec::load(directory.path().join("config.json")).unwrap(), spec);
    }
}
