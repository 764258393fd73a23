//! What an idle sandbox costs in memory.
//!
//! "How much memory does it use" has several answers, and the popular one, resident set size, is wrong: it counts a
//! page that ten processes share ten times. So, most trustworthy first:
//!
//! | figure | how | what it misses |
//! |---|---|---|
//! | drop of `MemAvailable` / N | proc_meminfo(5) before and while N idle sandboxes live | noisy; counts kernel memory too, which is its merit |
//! | PSS | `smaps_rollup` of every process of the sandbox; a page shared by k processes counts 1/k | kernel memory |
//! | private dirty | the same file: what would be freed if the process died, and cannot be read again from a file | shared pages, kernel memory |
//! | cgroup | `memory.current` of the sandbox's own cgroup | what is charged elsewhere: the lab process, the VMM |
//! | RSS | the same file as PSS | nothing: it counts shared pages once per process, and so too much |
//!
//! The N sandboxes run `cat` with an open standard input: it is idle, echoes a line to show that it runs, and ends when
//! its input is closed.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use procfs::{Current, process::Process};
use serde::{Deserialize, Serialize};

/// The memory of one idle sandbox through one wall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// How many sandboxes lived at once; every figure below is for one of them.
    pub instances: usize,
    /// What went wrong with those that did not come up.
    pub failures: Vec<String>,
    /// Bytes by which `MemAvailable` fell, for one sandbox. Negative where the machine's noise was greater.
    pub available_drop: i64,
    /// Bytes by which `MemAvailable` wandered by itself in the second before, divided like the drop.
    pub available_noise: i64,
    /// What the processes of one sandbox hold, by role.
    pub processes: Vec<ProcessMemory>,
    /// Bytes charged to the sandbox's own cgroup, where it has one.
    pub cgroup: Option<u64>,
}

/// The processes of one role, in one sandbox on average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessMemory {
    /// `lab` (supervisor or VMM) or the workload's program.
    pub role: String,
    /// How many processes of that role in all sandboxes together.
    pub count: usize,
    /// Proportional set size, bytes.
    pub pss: u64,
    /// Private dirty, bytes.
    pub private_dirty: u64,
    /// Resident set size, bytes.
    pub rss: u64,
}

impl Memory {
    /// PSS of all processes of one sandbox.
    pub fn pss(&self) -> u64 {
        self.processes.iter().map(|process| process.pss).sum()
    }

    /// Private dirty of all processes of one sandbox.
    pub fn private_dirty(&self) -> u64 {
        self.processes.iter().map(|process| process.private_dirty).sum()
    }

    /// RSS of all processes of one sandbox.
    pub fn rss(&self) -> u64 {
        self.processes.iter().map(|process| process.rss).sum()
    }
}

/// `MemAvailable` in bytes, and how far it wanders when nothing is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Available {
    /// The median of several readings.
    pub bytes: u64,
    /// The greatest less the least of them.
    pub noise: u64,
}

impl Available {
    /// Reads it for about a second; none where the kernel does not tell.
    pub fn read() -> Option<Self> {
        const READINGS: usize = 11;
        let mut readings = Vec::with_capacity(READINGS);
        for _ in 0..READINGS {
            readings.push(procfs::Meminfo::current().ok()?.mem_available?);
            std::thread::sleep(Duration::from_millis(100));
        }
        readings.sort_unstable();
        Some(Self { bytes: readings[READINGS / 2], noise: readings[READINGS - 1] - readings[0] })
    }
}

/// The memory of the sandboxes whose `lab run` processes are these, each figure divided by their number.
pub(super) fn of_sandboxes(roots: &[i32]) -> (Vec<ProcessMemory>, Option<u64>) {
    let parents = parents();
    let mut roles: BTreeMap<String, ProcessMemory> = BTreeMap::new();
    let mut charged = Vec::new();
    let own = cgroup_of(std::process::id() as i32);
    for &root in roots {
        let family = descendants(root, &parents);
        for &pid in &family {
            let Some((role, memory)) = of_process(pid, pid == root) else { continue };
            let total = roles.entry(role).or_insert_with_key(|role| ProcessMemory {
                role: role.clone(),
                count: 0,
                pss: 0,
                private_dirty: 0,
                rss: 0,
            });
            total.count += 1;
            total.pss += memory.pss;
            total.private_dirty += memory.private_dirty;
            total.rss += memory.rss;
        }
        // A process in a cgroup other than ours: the sandbox has one of its own.
        let cgroup =
            family.iter().filter_map(|&pid| cgroup_of(pid)).find(|cgroup| Some(cgroup) != own.as_ref());
        charged.extend(cgroup.as_deref().and_then(charge));
    }
    let divisor = roots.len().max(1) as u64;
    let processes = roles.into_values().map(|mut total| {
        total.pss /= divisor;
        total.private_dirty /= divisor;
        total.rss /= divisor;
        total
    });
    let cgroup = (!charged.is_empty()).then(|| charged.iter().sum::<u64>() / charged.len() as u64);
    (processes.collect(), cgroup)
}

/// Every process's parent.
fn parents() -> HashMap<i32, i32> {
    let processes = procfs::process::all_processes().into_iter().flatten().flatten();
    // A process may end between being listed and being read: it is simply not counted.
    processes.filter_map(|process| process.stat().ok()).map(|stat| (stat.pid, stat.ppid)).collect()
}

/// A process and all below it.
fn descendants(root: i32, parents: &HashMap<i32, i32>) -> Vec<i32> {
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&pid) = family.get(next) {
        let children = parents.iter().filter(|&(child, parent)| *parent == pid && !family.contains(child));
        let children: Vec<_> = children.map(|(&child, _)| child).collect();
        family.extend(children);
        next += 1;
    }
    family
}

/// One process's role and memory; none where it has ended, is a zombie, or may not be looked at.
fn of_process(pid: i32, is_root: bool) -> Option<(String, ProcessMemory)> {
    let process = Process::new(pid).ok()?;
    let role = if is_root { "lab".to_owned() } else { process.stat().ok()?.comm };
    let rollup = process.smaps_rollup().ok()?.memory_map_rollup;
    let field = |name: &str| rollup.iter().filter_map(|map| map.extension.map.get(name)).sum::<u64>();
    let memory = ProcessMemory {
        role: role.clone(),
        count: 1,
        pss: field("Pss"),
        private_dirty: field("Private_Dirty"),
        rss: field("Rss"),
    };
    Some((role, memory))
}

/// The directory of the cgroup that charges a process's memory: the v1 `memory` hierarchy's, or v2's.
fn cgroup_of(pid: i32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    cgroup_path(&text, &mounts)
}

/// As [`cgroup_of`], from the two files (cgroups(7), proc_pid_mountinfo(5)).
fn cgroup_path(cgroups: &str, mountinfo: &str) -> Option<PathBuf> {
    // ID:CONTROLLERS:PATH, with no controllers for version 2.
    let entry = |wanted: &dyn Fn(&str) -> bool| {
        cgroups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            wanted(controllers).then(|| fields.next()).flatten()
        })
    };
    // ID PARENT MAJOR:MINOR ROOT MOUNTPOINT … - TYPE SOURCE SUPER-OPTIONS
    let mount = |wanted: &dyn Fn(&str, &str) -> bool| {
        mountinfo.lines().find_map(|line| {
            let (head, tail) = line.split_once(" - ")?;
            let mut tail = tail.split(' ');
            let (kind, options) = (tail.next()?, tail.nth(1).unwrap_or_default());
            let mut head = head.split(' ').skip(3);
            let (root, point) = (head.next()?, head.next()?);
            wanted(kind, options).then_some((root, point))
        })
    };
    let is_memory = |list: &str| list.split(',').any(|controller| controller == "memory");
    let v1 = entry(&is_memory).zip(mount(&|kind, options| kind == "cgroup" && is_memory(options)));
    let (path, (root, point)) =
        v1.or_else(|| entry(&str::is_empty).zip(mount(&|kind, _| kind == "cgroup2")))?;
    // The mount may show a part of the hierarchy only.
    let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(path).strip_prefix("/").ok()?);
    Some(Path::new(point).join(below))
}

/// What is charged to a cgroup.
fn charge(cgroup: &Path) -> Option<u64> {
    let files = ["memory.current", "memory.usage_in_bytes"];
    files.iter().find_map(|file| fs::read_to_string(cgroup.join(file)).ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_of_a_process_is_all_below_it_and_nothing_else() {
        let parents = HashMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 5), (7, 2)]);
        let mut family = descendants(2, &parents);
        family.sort_unstable();
        assert_eq!(family, [2, 3, 4, 7]);
    }

    #[test]
    fn a_loop_in_a_torn_reading_of_the_process_table_ends() {
        let parents = HashMap::from([(2, 3), (3, 2)]);
        assert_eq!(descendants(2, &parents).len(), 2);
    }

    #[test]
    fn this_process_holds_memory_and_never_more_pss_than_rss() {
        let (_, memory) = of_process(std::process::id() as i32, true).unwrap();
        assert!(memory.pss > 0 && memory.pss <= memory.rss && memory.private_dirty <= memory.rss);
    }

    #[test]
    fn the_cgroup_s_directory_is_found_in_every_layout() {
        let v2 = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let v1 = "31 20 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let hybrid = format!("{}{v1}", v2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified "));
        assert_eq!(cgroup_path("0::/lab/x\n", v2), Some("/sys/fs/cgroup/lab/x".into()));
        assert_eq!(
            cgroup_path("4:cpu:/a\n3:memory:/lab/x\n0::/b\n", &hybrid),
            Some("/sys/fs/cgroup/memory/lab/x".into())
        );
        let part = v2.replace(" / /sys", " /outer /sys");
        assert_eq!(cgroup_path("0::/outer/lab\n", &part), Some("/sys/fs/cgroup/lab".into()));
        assert_eq!(cgroup_path("garbage", v2), None);
    }
}
