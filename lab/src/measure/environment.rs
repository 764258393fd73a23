//! The machine a result was made on: what a reader needs to judge a figure, and a second machine to explain another.
//!
//! Nothing here can fail: what a machine does not tell is recorded as not known, never guessed.

use std::fs;
use std::path::Path;

use procfs::Current;
use serde::{Deserialize, Serialize};

/// The machine, at the moment a comparison began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// As the processor calls itself.
    pub cpu: Option<String>,
    /// Processors that this process may run on (`sched_getaffinity(2)`, cgroup quotas).
    pub cores: usize,
    /// `uname -r` of the host.
    pub kernel: String,
    /// Distribution, as os-release(5) has it.
    pub distribution: Option<String>,
    /// Whether the host is itself a virtual machine (the CPU's hypervisor bit).
    pub virtual_machine: Option<bool>,
    /// Total memory in bytes.
    pub memory: Option<u64>,
    /// Memory that could be given out, in bytes (`MemAvailable`, proc_meminfo(5)).
    pub memory_available: Option<u64>,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// The frequency governor of CPU 0.
    pub governor: Option<String>,
    /// Whether the machine runs on its battery.
    pub on_battery: Option<bool>,
    /// How control groups are laid out.
    pub cgroups: CgroupLayout,
    /// Whether the lab ran as root.
    pub root: bool,
    /// `release` or `debug`: an unoptimised lab is slower.
    pub build: String,
}

/// How control groups are laid out (cgroups(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupLayout {
    /// One hierarchy for all controllers.
    V2,
    /// One hierarchy a controller.
    V1,
    /// Version 1 controllers, with a version 2 hierarchy beside them.
    Hybrid,
    /// None mounted.
    Absent,
}

impl CgroupLayout {
    /// In a few words.
    pub const fn label(self) -> &'static str {
        match self {
            CgroupLayout::V2 => "v2",
            CgroupLayout::V1 => "v1",
            CgroupLayout::Hybrid => "hybrid (v1 controllers beside v2)",
            CgroupLayout::Absent => "not mounted",
        }
    }

    /// From the mounts of this process.
    pub fn probe() -> Self {
        Self::of(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// From a mountinfo file: `… - TYPE SOURCE OPTIONS` (proc_pid_mountinfo(5)).
    fn of(mountinfo: &str) -> Self {
        let has = |kind: &str| {
            mountinfo.lines().any(|line| {
                line.split_once(" - ").is_some_and(|(_, tail)| tail.split(' ').next() == Some(kind))
            })
        };
        match (has("cgroup2"), has("cgroup")) {
            (true, false) => CgroupLayout::V2,
            (true, true) => CgroupLayout::Hybrid,
            (false, true) => CgroupLayout::V1,
            (false, false) => CgroupLayout::Absent,
        }
    }
}

impl Environment {
    /// Reads this machine's.
    pub fn probe() -> Self {
        let cpu = procfs::CpuInfo::current().ok();
        let memory = procfs::Meminfo::current().ok();
        let load = procfs::LoadAverage::current().ok();
        let text = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        Self {
            cpu: cpu.as_ref().and_then(|cpu| cpu.model_name(0).map(ToOwned::to_owned)),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            distribution: text("/etc/os-release").as_deref().and_then(pretty_name),
            virtual_machine: cpu.and_then(|cpu| cpu.flags(0).map(|flags| flags.contains(&"hypervisor"))),
            memory: memory.as_ref().map(|memory| memory.mem_total),
            memory_available: memory.as_ref().and_then(|memory| memory.mem_available),
            load: load.map(|load| [load.one, load.five, load.fifteen].map(f64::from)),
            governor: text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            on_battery: on_battery(Path::new("/sys/class/power_supply")),
            cgroups: CgroupLayout::probe(),
            root: nix::unistd::geteuid().is_root(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
        }
    }

    /// A made-up machine, for tests.
    #[cfg(test)]
    pub fn synthetic() -> Self {
        Self {
            cpu: Some("Example CPU @ 3.00GHz".into()),
            cores: 4,
            kernel: "6.18.0".into(),
            distribution: Some("Example Linux 12".into()),
            virtual_machine: Some(true),
            memory: Some(8 << 30),
            memory_available: Some(6 << 30),
            load: Some([0.2, 0.3, 0.1]),
            governor: Some("performance".into()),
            on_battery: None,
            cgroups: CgroupLayout::V2,
            root: true,
            build: "release".into(),
        }
    }
}

/// Whether this machine is itself a virtual one: hypervisors set a bit of CPUID for it.
pub fn is_virtual_machine() -> Option<bool> {
    has_cpu_flag("hypervisor")
}

/// Whether the first CPU has a flag, by its name in /proc/cpuinfo.
pub fn has_cpu_flag(flag: &str) -> Option<bool> {
    let cpu = procfs::CpuInfo::current().ok()?;
    Some(cpu.flags(0)?.contains(&flag))
}

/// The load average over the last minute; 0 where the machine does not tell.
pub fn load_now() -> f64 {
    procfs::LoadAverage::current().map_or(0.0, |load| f64::from(load.one))
}

/// `PRETTY_NAME` of an os-release(5) file.
fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// On battery: a mains adapter is known, and none is online (sysfs-class-power).
fn on_battery(supplies: &Path) -> Option<bool> {
    let mut adapters = fs::read_dir(supplies).ok()?.flatten().filter_map(|entry| {
        let read = |name| fs::read_to_string(entry.path().join(name)).ok();
        (read("type")?.trim() == "Mains").then(|| read("online").is_some_and(|online| online.trim() == "1"))
    });
    let first = adapters.next()?;
    Some(!(first || adapters.any(|online| online)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_tells_the_essentials() {
        let environment = Environment::probe();
        assert!(environment.cores > 0 && !environment.kernel.is_empty());
        assert!(environment.memory.unwrap() > environment.memory_available.unwrap());
    }

    #[test]
    fn the_cgroup_layout_follows_from_the_mounts() {
        let v2 = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let v1 = "31 20 0:27 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n";
        assert_eq!(CgroupLayout::of(v2), CgroupLayout::V2);
        assert_eq!(CgroupLayout::of(v1), CgroupLayout::V1);
        assert_eq!(CgroupLayout::of(&format!("{v1}{v2}")), CgroupLayout::Hybrid);
        assert_eq!(CgroupLayout::of("garbage\n\n - "), CgroupLayout::Absent);
    }

    #[test]
    fn the_distribution_s_name_may_be_quoted_or_not() {
        assert_eq!(pretty_name("ID=x\nPRETTY_NAME=\"Some Linux 1\"\n").as_deref(), Some("Some Linux 1"));
        assert_eq!(pretty_name("PRETTY_NAME=Plain"), Some("Plain".into()));
        assert_eq!(pretty_name("ID=x"), None);
    }
}
