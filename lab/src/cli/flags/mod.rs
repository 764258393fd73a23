//! What `lab run` and `lab create` may change about a container's surroundings, with docker's flags.

mod health;
mod more;
mod mount;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use bollard_stubs::models::{
    ContainerCreateBody, HostConfig, PortBinding, PortMap, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};

/// The surroundings of a container.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Surroundings")]
pub struct Flags {
    /// Show a folder of the host or a volume inside; without a source, a new volume
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:ro]")]
    volume: Vec<String>,
    /// Mount an empty tmpfs
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Mount a folder of the host, a volume or a tmpfs, in words: type=bind,source=PATH,target=PATH,readonly
    #[arg(long, value_name = "WORDS")]
    mount: Vec<String>,
    /// Add a capability, such as NET_ADMIN; ALL adds all
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Take a capability away; ALL takes all
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// Every capability and device, nothing masked, no filter of system calls
    #[arg(long)]
    privileged: bool,
    /// Limit a resource of each process, such as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Set a kernel parameter of the container's namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// Add the user to a group
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE", value_parser = lab::engine::limits::parse_size)]
    shm_size: Option<u64>,
    /// seccomp=unconfined, or no-new-privileges
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Mark the container
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Mark the container with what a file lists, one a line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Pass connections to a port of the host on to one inside
    #[arg(short, long, value_name = "[[ADDRESS:]PORT:]PORT")]
    publish: Vec<String>,
    /// Ask this server for the names that the network does not know
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Look for names without a dot in this domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Set an option of resolv.conf(5)
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Start it again when it ends: no, on-failure[:TIMES], always, unless-stopped; with -d
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// The signal that asks it to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds that it has to stop
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<i64>,
    #[command(flatten)]
    more: more::More,
    #[command(flatten)]
    health: health::Checks,
}

impl Flags {
    /// Writes the flags into a configuration.
    pub fn apply(&self, body: &mut ContainerCreateBody) -> anyhow::Result<()> {
        let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        body.labels = Some(self.labels()?);
        body.stop_signal.clone_from(&self.stop_signal);
        body.stop_timeout = self.stop_timeout;
        body.healthcheck = self.health.config()?;
        let (named, new): (Vec<String>, Vec<String>) =
            self.volume.iter().cloned().partition(|text| text.contains(':'));
        body.volumes = some(&new);
        let host: &mut HostConfig = body.host_config.get_or_insert_default();
        // A relative path of the host is meant from here (docker: since 23.0).
        let binds: Vec<String> = named.into_iter().map(absolute).collect::<anyhow::Result<_>>()?;
        host.binds = some(&binds);
        let tmpfs = self.tmpfs.iter().map(|text| {
            let (target, options) = text.split_once(':').unwrap_or((text, ""));
            (target.to_owned(), options.to_owned())
        });
        host.tmpfs = Some(tmpfs.collect());
        host.mounts = Some(self.mount.iter().map(|text| mount::mount(text)).collect::<anyhow::Result<_>>()?);
        host.port_bindings = Some(ports(&self.publish)?);
        host.cap_add = some(&self.cap_add);
        host.cap_drop = some(&self.cap_drop);
        host.privileged = Some(self.privileged);
        host.group_add = some(&self.group_add);
        host.shm_size = self.shm_size.map(|size| size as i64);
        host.security_opt = some(&self.security_opt);
        host.extra_hosts = some(&self.add_host);
        host.dns = some(&self.dns);
        host.dns_search = some(&self.dns_search);
        host.dns_options = some(&self.dns_option);
        host.ulimits = Some(self.ulimit.iter().map(|text| ulimit(text)).collect::<anyhow::Result<_>>()?);
        host.sysctls = Some(pairs(&self.sysctl, "--sysctl")?);
        host.restart_policy = self.restart.as_deref().map(policy).transpose()?;
        self.more.apply(host)
    }

    /// Whether ports are published.
    pub fn publishes(&self) -> bool {
        !self.publish.is_empty()
    }

    /// Whether something is asked for that only a stored container has.
    pub fn needs_storing(&self) -> bool {
        let names = [&self.add_host, &self.dns, &self.dns_search, &self.dns_option];
        names.iter().any(|list| !list.is_empty())
            || self.more.has_log()
            || self.more.has_volumes_from()
            || self.health.is_asked()
    }

    /// Whether it is to be started again when it ends.
    pub fn restarts(&self) -> bool {
        self.restart.as_deref().is_some_and(|policy| policy != "no")
    }

    fn labels(&self) -> anyhow::Result<HashMap<String, String>> {
        let mut labels = HashMap::new();
        let mut add = |text: &str| labels.extend([label(text)]);
        for path in &self.label_file {
            let text =
                fs::read_to_string(path).with_context(|| format!("--label-file {}", path.display()))?;
            text.lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .for_each(&mut add);
        }
        self.label.iter().for_each(|text| add(text));
        Ok(labels)
    }
}

/// KEY=VALUE, or KEY alone.
pub fn label(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

fn absolute(bind: String) -> anyhow::Result<String> {
    let Some((source, rest)) = bind.split_once(':') else { return Ok(bind) };
    if !source.starts_with('.') {
        return Ok(bind);
    }
    let path = std::path::absolute(source).with_context(|| format!("--volume {bind}"))?;
    // `absolute` keeps `..`, which mount(2) understands as well as we do.
    Ok(format!("{}:{rest}", path.display()))
}

fn ulimit(text: &str) -> anyhow::Result<ResourcesUlimits> {
    let wrong = || format!("--ulimit {text}: use NAME=SOFT[:HARD], such as nofile=1024:2048");
    let (name, values) = text.split_once('=').with_context(wrong)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| text.parse::<i64>().with_context(wrong);
    Ok(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(number(soft)?), hard: Some(number(hard)?) })
}

/// `[[ADDRESS:]PORT:]PORT[/tcp]`.
fn ports(list: &[String]) -> anyhow::Result<PortMap> {
    let mut map = PortMap::new();
    for text in list {
        let (outside, inside) = text.rsplit_once(':').unwrap_or(("", text));
        let (address, port) = outside.rsplit_once(':').unwrap_or(("", outside));
        let number = inside.split('/').next().unwrap_or_default();
        anyhow::ensure!(
            number.parse::<u16>().is_ok(),
            "--publish {text}: use [[ADDRESS:]PORT:]PORT, such as 8080:80"
        );
        let key = if inside.contains('/') { inside.to_owned() } else { format!("{inside}/tcp") };
        let binding = PortBinding { host_ip: Some(address.to_owned()), host_port: Some(port.to_owned()) };
        map.entry(key).or_default().get_or_insert_default().push(binding);
    }
    Ok(map)
}

/// NAME=VALUE each.
pub fn pairs(list: &[String], flag: &str) -> anyhow::Result<HashMap<String, String>> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').with_context(|| format!("{flag} {text}: use NAME=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    list.iter().map(pair).collect()
}

/// A restart policy as `--restart` has it.
pub fn policy(text: &str) -> anyhow::Result<RestartPolicy> {
    let (name, times) = text.split_once(':').map_or((text, None), |(name, times)| (name, Some(times)));
    let name = match name {
        "no" => RestartPolicyNameEnum::NO,
        "always" => RestartPolicyNameEnum::ALWAYS,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        _ => anyhow::bail!("--restart {text}: use no, on-failure[:TIMES], always or unless-stopped"),
    };
    let times = times
        .map(str::parse)
        .transpose()
        .with_context(|| format!("--restart {text}: TIMES must be a number"))?;
    Ok(RestartPolicy { name: Some(name), maximum_retry_count: times })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_policies_are_read_as_docker_reads_them() {
        assert_eq!(ulimit("nofile=10:20").unwrap().hard, Some(20));
        assert_eq!(ulimit("core=0").unwrap().hard, Some(0));
        assert!(ulimit("nofile").is_err());
        assert_eq!(policy("on-failure:3").unwrap().maximum_retry_count, Some(3));
        assert!(policy("sometimes").is_err());
    }

    #[test]
    fn a_folder_here_becomes_absolute_and_a_volume_s_name_stays() {
        assert_eq!(absolute("data:/d".into()).unwrap(), "data:/d");
        assert!(absolute("./x:/d".into()).unwrap().starts_with('/'));
    }
}
