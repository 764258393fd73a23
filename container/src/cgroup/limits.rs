//! Limits: from the specification's resources to files and values of version 1 and version 2.

use std::fmt::Write as _;

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::{devices, disks};
use crate::error::{Error, Result};

/// One value for one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) controller: &'static str,
    pub(super) file: String,
    pub(super) value: String,
    /// For messages.
    pub(super) field: String,
    /// No error where the kernel was built without the file.
    pub(super) optional: bool,
    /// The file and the value for a kernel that was built without the first.
    pub(super) instead: Option<(&'static str, String)>,
}

#[allow(clippy::needless_pass_by_value)] // numbers and strings alike
pub(super) fn limit(
    controller: &'static str,
    file: impl Into<String>,
    value: impl ToString,
    field: &str,
) -> Limit {
    let field = format!("linux.resources.{field}");
    Limit { controller, file: file.into(), value: value.to_string(), field, optional: false, instead: None }
}

/// Whether a limit asks for the tree of this name (version 1), or for any (version 2).
pub(super) fn needs(resources: Option<&LinuxResources>, tree: Option<&str>) -> bool {
    let Some(resources) = resources else { return false };
    let limits = all(resources, tree.is_some()).unwrap_or_default();
    limits.iter().any(|limit| {
        limit.controller != "devices"
            && tree.is_none_or(|tree| tree.split(',').any(|name| name == limit.controller))
    })
}

/// All limits, in the order to write them.
pub(super) fn all(resources: &LinuxResources, v1: bool) -> Result<Vec<Limit>> {
    let mut limits = Vec::new();
    if let Some(memory) = resources.memory() {
        if v1 { memory_v1(&mut limits, memory) } else { memory_v2(&mut limits, memory)? }
    }
    if let Some(cpu) = resources.cpu() {
        if v1 { cpu_v1(&mut limits, cpu) } else { cpu_v2(&mut limits, cpu)? }
    }
    if let Some(pids) = resources.pids() {
        // 0 was "no limit" to engines before the specification allowed it to mean none (runc reads it so too).
        let value = if pids.limit() <= 0 { "max".to_owned() } else { pids.limit().to_string() };
        limits.push(limit("pids", "pids.max", value, "pids.limit"));
    }
    if let Some(io) = resources.block_io() {
        if v1 { disks::version_1(&mut limits, io) } else { disks::version_2(&mut limits, io)? }
    }
    for (index, page) in resources.hugepage_limits().iter().flatten().enumerate() {
        let (size, end) = (page.page_size(), if v1 { "limit_in_bytes" } else { "max" });
        if size.contains('/') {
            return Err(Error::config(
                format!("linux.resources.hugepageLimits[{index}].pageSize"),
                "is no page size",
            ));
        }
        let field = format!("hugepageLimits[{index}]");
        limits.push(limit("hugetlb", format!("hugetlb.{size}.{end}"), page.limit(), &field));
        // Reservations too, where the kernel counts them: then mmap(2) fails, instead of a SIGBUS later.
        let reserved = limit("hugetlb", format!("hugetlb.{size}.rsvd.{end}"), page.limit(), &field);
        limits.push(Limit { optional: true, ..reserved });
    }
    if let Some(network) = resources.network() {
        let priorities = network.priorities().as_ref().is_some_and(|list| !list.is_empty());
        let asked = network.class_id().is_some() || priorities;
        only_v1(v1, asked, "network")?;
        if let Some(class) = network.class_id() {
            limits.push(limit("net_cls", "net_cls.classid", class, "network.classID"));
        }
        for priority in network.priorities().iter().flatten() {
            let value = format!("{} {}", priority.name(), priority.priority());
            limits.push(limit("net_prio", "net_prio.ifpriomap", value, "network.priorities"));
        }
    }
    for (device, rdma) in resources.rdma().iter().flatten() {
        let mut value = device.clone();
        let values = [("hca_handle", rdma.hca_handles()), ("hca_object", rdma.hca_objects())];
        for (name, count) in values.into_iter().filter_map(|(name, count)| Some((name, count?))) {
            let _ = write!(value, " {name}={count}");
        }
        if value == *device {
            let field = format!("linux.resources.rdma[{device:?}]");
            return Err(Error::config(field, "needs hcaHandles or hcaObjects, or both"));
        }
        limits.push(limit("rdma", "rdma.max", value, "rdma"));
    }
    if v1 {
        devices_v1(&mut limits, resources)?;
        if resources.unified().as_ref().is_some_and(|files| !files.is_empty()) {
            let reason = "names files of cgroup version 2, and this machine has version 1";
            return Err(Error::config("linux.resources.unified", reason));
        }
    } else {
        for (file, value) in resources.unified().iter().flatten() {
            if file.contains('/') {
                return Err(Error::config(
                    format!("linux.resources.unified[{file:?}]"),
                    "is no name of a cgroup file",
                ));
            }
            limits.push(limit("unified", file, value, &format!("unified[{file:?}]")));
        }
    }
    Ok(limits)
}

/// What version 2 has nothing for must not be passed over (config-linux.md, "Unified").
pub(super) fn only_v1(v1: bool, asked: bool, field: &str) -> Result<()> {
    if v1 || !asked {
        return Ok(());
    }
    let reason = "has no equal in cgroup version 2; leave it out";
    Err(Error::config(format!("linux.resources.{field}"), reason))
}

/// "-1" is how the specification says "no limit"; version 2 says "max".
fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn memory_v1(limits: &mut Vec<Limit>, memory: &LinuxMemory) {
    let mut add = |file: &str, value: Option<i64>, field: &str| {
        if let Some(value) = value.filter(|value| *value != 0) {
            limits.push(limit("memory", file, value, &format!("memory.{field}")));
        }
    };
    add("memory.limit_in_bytes", memory.limit(), "limit");
    add("memory.soft_limit_in_bytes", memory.reservation(), "reservation");
    add("memory.memsw.limit_in_bytes", memory.swap(), "swap");
    if memory.limit() == Some(-1) && memory.swap().unwrap_or(0) == 0 {
        add("memory.memsw.limit_in_bytes", Some(-1), "swap"); // no less than memory alone
    }
    add("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp(), "kernelTCP");
    if let Some(swappiness) = memory.swappiness() {
        limits.push(limit("memory", "memory.swappiness", swappiness, "memory.swappiness"));
    }
    if memory.disable_oom_killer() == Some(true) {
        limits.push(limit("memory", "memory.oom_control", 1, "memory.disableOOMKiller"));
    }
    for limit in limits.iter_mut().filter(|limit| limit.file.contains("memsw")) {
        // The kernel may not account for swap. "As much swap as memory" then holds on a machine without swap anyway.
        limit.optional = limit.value == "-1" || memory.swap() == memory.limit();
    }
}

fn memory_v2(limits: &mut Vec<Limit>, memory: &LinuxMemory) -> Result<()> {
    only_v1(false, memory.kernel_tcp().is_some_and(|bytes| bytes > 0), "memory.kernelTCP")?;
    only_v1(false, memory.swappiness().is_some(), "memory.swappiness")?;
    only_v1(false, memory.disable_oom_killer() == Some(true), "memory.disableOOMKiller")?;
    if let Some(value) = memory.limit().filter(|value| *value != 0) {
        limits.push(limit("memory", "memory.max", or_max(value), "memory.limit"));
    }
    if let Some(value) = memory.reservation().filter(|value| *value != 0) {
        limits.push(limit("memory", "memory.low", or_max(value), "memory.reservation"));
    }
    // Memory without a limit and swap with an old one would be less than was asked for.
    let unlimited = memory.limit().filter(|value| *value < 0);
    if let Some(swap) = memory.swap().filter(|value| *value != 0).or(unlimited) {
        // The specification counts memory and swap together, version 2 swap alone.
        let alone = match memory.limit() {
            _ if swap < 0 => "max".to_owned(),
            Some(memory) if memory > 0 && swap >= memory => (swap - memory).to_string(),
            _ => {
                let reason = format!(
                    "{swap} counts memory and swap together: it needs memory.limit, and to be at least that"
                );
                return Err(Error::config("linux.resources.memory.swap", reason));
            }
        };
        let optional = alone == "0" || alone == "max";
        limits.push(Limit { optional, ..limit("memory", "memory.swap.max", alone, "memory.swap") });
    }
    Ok(())
}

fn cpu_v1(limits: &mut Vec<Limit>, cpu: &LinuxCpu) {
    let mut add = |controller, file: &str, value: Option<String>, field: &str| {
        if let Some(value) = value {
            limits.push(limit(controller, file, value, &format!("cpu.{field}")));
        }
    };
    add("cpu", "cpu.shares", cpu.shares().filter(|v| *v != 0).map(|v| v.to_string()), "shares");
    add("cpu", "cpu.cfs_period_us", cpu.period().filter(|v| *v != 0).map(|v| v.to_string()), "period");
    add("cpu", "cpu.cfs_quota_us", cpu.quota().filter(|v| *v != 0).map(|v| v.to_string()), "quota");
    add("cpu", "cpu.cfs_burst_us", cpu.burst().map(|v| v.to_string()), "burst");
    add(
        "cpu",
        "cpu.rt_period_us",
        cpu.realtime_period().filter(|v| *v != 0).map(|v| v.to_string()),
        "realtimePeriod",
    );
    add(
        "cpu",
        "cpu.rt_runtime_us",
        cpu.realtime_runtime().filter(|v| *v != 0).map(|v| v.to_string()),
        "realtimeRuntime",
    );
    add("cpu", "cpu.idle", cpu.idle().map(|v| v.to_string()), "idle");
    add("cpuset", "cpuset.cpus", cpu.cpus().clone().filter(|v| !v.is_empty()), "cpus");
    add("cpuset", "cpuset.mems", cpu.mems().clone().filter(|v| !v.is_empty()), "mems");
}

fn cpu_v2(limits: &mut Vec<Limit>, cpu: &LinuxCpu) -> Result<()> {
    only_v1(false, cpu.realtime_runtime().is_some_and(|time| time != 0), "cpu.realtimeRuntime")?;
    only_v1(false, cpu.realtime_period().is_some_and(|time| time != 0), "cpu.realtimePeriod")?;
    let mut add = |controller, file: &str, value: Option<String>, field: &str| {
        if let Some(value) = value {
            limits.push(limit(controller, file, value, &format!("cpu.{field}")));
        }
    };
    let shares = cpu.shares().filter(|shares| *shares != 0);
    add("cpu", "cpu.weight", shares.map(|shares| weight_of_shares(shares).to_string()), "shares");
    let max = match (cpu.quota().filter(|v| *v != 0), cpu.period().filter(|v| *v != 0)) {
        (None, None) => None,
        (quota, None) => quota.map(or_max),
        (quota, Some(period)) => Some(format!("{} {period}", quota.map_or("max".to_owned(), or_max))),
    };
    add("cpu", "cpu.max", max, "quota");
    add("cpu", "cpu.max.burst", cpu.burst().map(|v| v.to_string()), "burst");
    add("cpu", "cpu.idle", cpu.idle().map(|v| v.to_string()), "idle");
    add("cpuset", "cpuset.cpus", cpu.cpus().clone().filter(|v| !v.is_empty()), "cpus");
    add("cpuset", "cpuset.mems", cpu.mems().clone().filter(|v| !v.is_empty()), "mems");
    Ok(())
}

/// Version 1 counts shares from 2 to 262144 with 1024 as the default, version 2 weights from 1 to 10000 with 100: the
/// curve through these three points, which runc, crun and Kubernetes agreed on.
fn weight_of_shares(shares: u64) -> u64 {
    // The crate's functions instead of the C library's: its libm would be loaded at every start, for this alone.
    let log = libm::log2(shares.clamp(2, 262_144) as f64);
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (libm::ceil(libm::exp10(exponent)) as u64).clamp(1, 10_000)
}

/// The list of device rules, in its order.
fn devices_v1(limits: &mut Vec<Limit>, resources: &LinuxResources) -> Result<()> {
    for rule in devices::rules(resources)? {
        let (file, line) = rule.line();
        limits.push(limit("devices", file, line, "devices"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(json: &str, v1: bool) -> Vec<(String, String)> {
        let resources = serde_json::from_str(json).unwrap();
        all(&resources, v1).unwrap().into_iter().map(|l| (l.file, l.value)).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn memory_and_swap_count_together_in_the_specification() {
        let json = r#"{"memory":{"limit":1000,"swap":1500,"reservation":500}}"#;
        let v1 = [
            ("memory.limit_in_bytes", "1000"),
            ("memory.soft_limit_in_bytes", "500"),
            ("memory.memsw.limit_in_bytes", "1500"),
        ];
        assert_eq!(limits(json, true), pairs(&v1));
        let v2 = [("memory.max", "1000"), ("memory.low", "500"), ("memory.swap.max", "500")];
        assert_eq!(limits(json, false), pairs(&v2));
    }

    #[test]
    fn cpu_shares_become_weights_on_the_agreed_curve() {
        assert_eq!([2, 1024, 262_144].map(weight_of_shares), [1, 100, 10_000]);
    }

    #[test]
    fn quota_and_period_share_a_file_on_version_2() {
        let json = r#"{"cpu":{"quota":50000,"period":100000}}"#;
        assert_eq!(limits(json, false), pairs(&[("cpu.max", "50000 100000")]));
        assert_eq!(
            limits(json, true),
            pairs(&[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")])
        );
        assert_eq!(
            limits(r#"{"cpu":{"quota":-1,"period":100000}}"#, false),
            pairs(&[("cpu.max", "max 100000")])
        );
    }

    #[test]
    fn no_limit_is_minus_one_or_max() {
        let json = r#"{"memory":{"limit":-1},"pids":{"limit":-1}}"#;
        let last = |v1| limits(json, v1).pop().unwrap();
        assert_eq!((last(true).1, last(false).1), ("max".into(), "max".into()));
    }

    #[test]
    fn no_limit_of_memory_is_none_of_swap_either() {
        let json = r#"{"memory":{"limit":-1}}"#;
        let v1 = [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")];
        assert_eq!(limits(json, true), pairs(&v1));
        assert_eq!(limits(json, false), pairs(&[("memory.max", "max"), ("memory.swap.max", "max")]));
        for (json, swap) in
            [(r#"{"memory":{"limit":9,"swap":9}}"#, "0"), (r#"{"memory":{"swap":-1}}"#, "max")]
        {
            assert_eq!(limits(json, false).last().unwrap().1, swap, "{json}");
        }
        for json in [r#"{"memory":{"limit":9,"swap":8}}"#, r#"{"memory":{"swap":8}}"#] {
            let error = all(&serde_json::from_str(json).unwrap(), false).unwrap_err().to_string();
            assert!(error.starts_with("linux.resources.memory.swap: "), "{error}");
        }
    }

    #[test]
    fn what_version_2_has_nothing_for_is_refused_by_name() {
        for (json, field) in [
            (r#"{"memory":{"swappiness":60}}"#, "memory.swappiness"),
            (r#"{"memory":{"disableOOMKiller":true}}"#, "memory.disableOOMKiller"),
            (r#"{"cpu":{"realtimeRuntime":1}}"#, "cpu.realtimeRuntime"),
            (r#"{"blockIO":{"leafWeight":10}}"#, "blockIO.leafWeight"),
            (r#"{"network":{"classID":1}}"#, "network"),
        ] {
            let resources = serde_json::from_str(json).unwrap();
            all(&resources, true).unwrap();
            let error = all(&resources, false).unwrap_err().to_string();
            assert!(error.starts_with(&format!("linux.resources.{field}: ")), "{error}");
        }
        let resources = serde_json::from_str(r#"{"unified":{"memory.high":"1"}}"#).unwrap();
        assert!(all(&resources, true).unwrap_err().to_string().starts_with("linux.resources.unified: "));
        let resources = serde_json::from_str(r#"{"rdma":{"mlx5_1":{}}}"#).unwrap();
        assert!(all(&resources, true).unwrap_err().to_string().starts_with("linux.resources.rdma"));
    }

    #[test]
    fn huge_pages_are_limited_when_used_and_when_reserved() {
        let json = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#;
        let v2 = [("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")];
        assert_eq!(limits(json, false), pairs(&v2));
    }

    #[test]
    fn a_file_name_cannot_leave_the_cgroup() {
        let resources = serde_json::from_str(r#"{"unified":{"../cgroup.procs":"1"}}"#).unwrap();
        assert!(all(&resources, false).unwrap_err().to_string().starts_with("linux.resources.unified"));
    }
}
