//! What is asked for more seldom: whose namespaces it shares, devices, finer limits, its log.

use anyhow::{Context as _, ensure};
use bollard_stubs::models::{DeviceMapping, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig};

/// Further choices, all of which are in docker's configuration of the host's side.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Further choices")]
pub struct More {
    /// Run a small first process that passes signals on and reaps orphans
    #[arg(long)]
    init: bool,
    /// Whose processes it sees: host, or container:NAME
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// Whose shared memory and message queues it sees: none, private, shareable, host, or container:NAME
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// Whose host name it has: host
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// Whose control groups it sees: private or host
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<String>,
    /// Give it a device of the host
    #[arg(long, value_name = "PATH[:PATH[:rwm]]")]
    device: Vec<String>,
    /// Add a rule for devices, such as 'c 42:* rmw'
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// Mount what other containers have mounted
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
    /// Its part of processor time where that is short, beside 1024
    #[arg(short, long, value_name = "NUMBER")]
    cpu_shares: Option<i64>,
    /// Microseconds of processor time in each period
    #[arg(long, value_name = "NUMBER", conflicts_with = "cpus")]
    cpu_quota: Option<i64>,
    /// How long a period is, in microseconds
    #[arg(long, value_name = "NUMBER", conflicts_with = "cpus")]
    cpu_period: Option<i64>,
    /// On which CPUs it runs, such as 0-2,4
    #[arg(long, value_name = "CPUS")]
    cpuset_cpus: Option<String>,
    /// Of which nodes its memory is
    #[arg(long, value_name = "NODES")]
    cpuset_mems: Option<String>,
    /// Memory that it is left where that is short
    #[arg(long, value_name = "SIZE", value_parser = lab::engine::limits::parse_size)]
    memory_reservation: Option<u64>,
    /// How much sooner it is killed where memory is short: -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i64>,
    /// Where its output is kept: json-file, local or none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// How much of it, such as max-size=10m or max-file=3
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
}

impl More {
    /// Writes them into a configuration.
    pub fn apply(&self, host: &mut HostConfig) -> anyhow::Result<()> {
        let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        host.init = self.init.then_some(true);
        host.pid_mode.clone_from(&self.pid);
        host.ipc_mode.clone_from(&self.ipc);
        host.uts_mode.clone_from(&self.uts);
        host.cgroupns_mode = match self.cgroupns.as_deref() {
            None => None,
            Some("private") => Some(HostConfigCgroupnsModeEnum::PRIVATE),
            Some("host") => Some(HostConfigCgroupnsModeEnum::HOST),
            Some(other) => anyhow::bail!("--cgroupns {other}: use private or host"),
        };
        let devices = self.device.iter().map(|text| device(text)).collect::<anyhow::Result<Vec<_>>>()?;
        host.devices = Some(devices);
        host.device_cgroup_rules = some(&self.device_cgroup_rule);
        host.volumes_from = some(&self.volumes_from);
        host.cpu_shares = self.cpu_shares;
        host.cpu_quota = self.cpu_quota;
        host.cpu_period = self.cpu_period;
        host.cpuset_cpus.clone_from(&self.cpuset_cpus);
        host.cpuset_mems.clone_from(&self.cpuset_mems);
        host.memory_reservation = self.memory_reservation.map(|bytes| bytes as i64);
        if let Some(score) = self.oom_score_adj {
            ensure!(
                (-1000..=1000).contains(&score),
                "--oom-score-adj {score}: use a number from -1000 to 1000"
            );
        }
        host.oom_score_adj = self.oom_score_adj;
        if self.has_log() {
            let config = super::pairs(&self.log_opt, "--log-opt")?;
            host.log_config =
                Some(HostConfigLogConfig { typ: self.log_driver.clone(), config: Some(config) });
        }
        Ok(())
    }

    /// Whether something is said of its log, which only a stored container has.
    pub fn has_log(&self) -> bool {
        self.log_driver.is_some() || !self.log_opt.is_empty()
    }

    /// Whether other containers' volumes are asked for.
    pub fn has_volumes_from(&self) -> bool {
        !self.volumes_from.is_empty()
    }
}

/// `PATH[:PATH[:rwm]]`; the second word may be the rights already, as in docker.
fn device(text: &str) -> anyhow::Result<DeviceMapping> {
    let parts: Vec<&str> = text.split(':').collect();
    let rights = |word: &str| !word.is_empty() && word.chars().all(|letter| "rwm".contains(letter));
    let (inside, allowed) = match parts[1..] {
        [] => (parts[0], "rwm"),
        [word] if rights(word) => (parts[0], word),
        [word] => (word, "rwm"),
        [word, allowed] if rights(allowed) => (word, allowed),
        _ => anyhow::bail!("--device {text}: use PATH[:PATH[:rwm]]"),
    };
    let absolute = parts[0].starts_with('/') && inside.starts_with('/');
    absolute.then_some(()).with_context(|| format!("--device {text}: paths are absolute"))?;
    Ok(DeviceMapping {
        path_on_host: Some(parts[0].to_owned()),
        path_in_container: Some(inside.to_owned()),
        cgroup_permissions: Some(allowed.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_path_another_inside_and_rights() {
        let read = |text: &str| {
            let device = device(text).unwrap();
            (device.path_in_container.unwrap(), device.cgroup_permissions.unwrap())
        };
        assert_eq!(read("/dev/fuse"), ("/dev/fuse".into(), "rwm".into()));
        assert_eq!(read("/dev/fuse:r"), ("/dev/fuse".into(), "r".into()));
        assert_eq!(read("/dev/fuse:/dev/x:rw"), ("/dev/x".into(), "rw".into()));
        for wrong in ["fuse", "/dev/fuse:x:fly", "/a:/b:r:w"] {
            assert!(device(wrong).is_err(), "{wrong}");
        }
    }
}
