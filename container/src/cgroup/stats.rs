//! What a container uses, as its cgroups count it.

use std::fs;

use super::Membership;

/// What a container uses now. A number that its machine does not count is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processor time so far, in nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Memory, in bytes, with the file cache that is charged to it.
    pub memory: Option<u64>,
    /// The most memory it ever used.
    pub memory_peak: Option<u64>,
    /// The limit of memory; none is no limit.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// The limit of processes; none is no limit.
    pub pids_limit: Option<u64>,
}

/// Version 1 writes "no limit" as a number near 2^63, rounded down to pages.
const V1_NO_LIMIT: u64 = 1 << 62;

impl Membership {
    /// Reads the counters.
    pub(crate) fn stats(&self) -> Stats {
        // The file's name on version 1, then on version 2.
        let number = |controller: &str, v1: &str, v2: &str| -> Option<u64> {
            let group = self.group(controller)?;
            let file = if group.name.is_some() { v1 } else { v2 };
            fs::read_to_string(group.path.join(file)).ok()?.trim().parse().ok()
        };
        let limit = number("memory", "memory.limit_in_bytes", "memory.max");
        Stats {
            cpu_nanos: number("cpuacct", "cpuacct.usage", "").or_else(|| self.cpu_v2()),
            memory: number("memory", "memory.usage_in_bytes", "memory.current"),
            memory_peak: number("memory", "memory.max_usage_in_bytes", "memory.peak"),
            memory_limit: limit.filter(|limit| *limit < V1_NO_LIMIT),
            pids: number("pids", "pids.current", "pids.current"),
            pids_limit: number("pids", "pids.max", "pids.max"),
        }
    }

    fn cpu_v2(&self) -> Option<u64> {
        let text = fs::read_to_string(self.group("cpu")?.path.join("cpu.stat")).ok()?;
        let micros: u64 =
            text.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()?;
        Some(micros * 1000)
    }
}
