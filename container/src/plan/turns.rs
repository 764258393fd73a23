//! A process's turn at the machine: scheduler, disk priority, processors, memory nodes.

use oci_spec::runtime::{IOPriorityClass, Linux, MemoryPolicyFlagType, MemoryPolicyModeType};
use rustix::thread::CpuSet;

use crate::error::{Error, Result};
use crate::spec::{Process, Scheduler};

/// What of this a process asks for.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    pub(crate) scheduler: Option<libc::sched_attr>,
    /// Class, level.
    pub(crate) io: Option<(u32, u32)>,
    /// Mode with flags, nodes as a bit mask.
    pub(crate) memory: Option<(i32, Vec<u64>)>,
    /// The processors of an added process: while it is set up, and when it runs.
    pub(crate) processors: (Option<CpuSet>, Option<CpuSet>),
}

impl Turns {
    pub(crate) fn new(process: &Process, linux: &Linux) -> Result<Self> {
        let affinity = process.exec_cpu_affinity.clone().unwrap_or_default();
        let set = |name: &str, list: Option<String>| {
            list.map(|list| processors(&format!("process.execCPUAffinity.{name}"), &list)).transpose()
        };
        Ok(Self {
            scheduler: process.scheduler.as_ref().map(scheduler).transpose()?,
            io: process.io_priority.as_ref().map(io).transpose()?,
            memory: memory(linux)?,
            processors: (set("initial", affinity.initial)?, set("final", affinity.last)?),
        })
    }
}

/// Policies and flags by name, as linux/sched.h numbers them.
const POLICIES: &[&str] =
    &["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"];
const FLAGS: &[&str] = &[
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
];

fn scheduler(asked: &Scheduler) -> Result<libc::sched_attr> {
    let policy = POLICIES.iter().position(|name| *name == asked.policy);
    let policy = policy.filter(|_| asked.policy != "SCHED_ISO").ok_or_else(|| {
        let reason = format!("{:?} is no policy of Linux; use SCHED_OTHER, for one", asked.policy);
        Error::config("process.scheduler.policy", reason)
    })?;
    let mut flags = 0;
    for (index, flag) in asked.flags.iter().enumerate() {
        let bit = FLAGS.iter().position(|name| name == flag).ok_or_else(|| {
            Error::config(
                format!("process.scheduler.flags[{index}]"),
                format!("{flag:?} is no flag of Linux"),
            )
        })?;
        flags |= 1 << bit;
    }
    if !(-20..=19).contains(&asked.nice) {
        let reason = format!("{} is not between -20 and 19", asked.nice);
        return Err(Error::config("process.scheduler.nice", reason));
    }
    let priority =
        u32::try_from(asked.priority).ok().filter(|priority| *priority <= 99).ok_or_else(|| {
            let reason = format!("{} is not between 0 and 99", asked.priority);
            Error::config("process.scheduler.priority", reason)
        })?;
    Ok(libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: policy as u32,
        sched_flags: flags,
        sched_nice: asked.nice,
        sched_priority: priority,
        sched_runtime: asked.runtime,
        sched_deadline: asked.deadline,
        sched_period: asked.period,
    })
}

fn io(asked: &oci_spec::runtime::LinuxIOPriority) -> Result<(u32, u32)> {
    let class = match asked.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = u32::try_from(asked.priority()).ok().filter(|level| *level <= 7).ok_or_else(|| {
        let reason = format!("{} is not between 0 and 7", asked.priority());
        Error::config("process.ioPriority.priority", reason)
    })?;
    Ok((class, level))
}

fn memory(linux: &Linux) -> Result<Option<(i32, Vec<u64>)>> {
    let Some(policy) = linux.memory_policy() else { return Ok(None) };
    let mut mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => libc::MPOL_DEFAULT,
        MemoryPolicyModeType::MpolPreferred => libc::MPOL_PREFERRED,
        MemoryPolicyModeType::MpolBind => libc::MPOL_BIND,
        MemoryPolicyModeType::MpolInterleave => libc::MPOL_INTERLEAVE,
        MemoryPolicyModeType::MpolLocal => libc::MPOL_LOCAL,
        MemoryPolicyModeType::MpolPreferredMany => 5, // linux/mempolicy.h
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    for flag in policy.flags().iter().flatten() {
        mode |= match flag {
            MemoryPolicyFlagType::MpolFNumaBalancing => libc::MPOL_F_NUMA_BALANCING,
            MemoryPolicyFlagType::MpolFRelativeNodes => libc::MPOL_F_RELATIVE_NODES,
            MemoryPolicyFlagType::MpolFStaticNodes => libc::MPOL_F_STATIC_NODES,
        };
    }
    let mut mask = Vec::new();
    if let Some(nodes) = policy.nodes().as_deref().filter(|nodes| !nodes.is_empty()) {
        for node in list("linux.memoryPolicy.nodes", nodes)? {
            mask.resize(mask.len().max(node / 64 + 1), 0);
            mask[node / 64] |= 1u64 << (node % 64);
        }
    }
    Ok(Some((mode, mask)))
}

fn processors(field: &str, text: &str) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    list(field, text)?.into_iter().for_each(|number| set.set(number));
    Ok(set)
}

/// A list of numbers and ranges, "0-3,7", none larger than the kernel's largest (CpuSet has as many bits).
fn list(field: &str, text: &str) -> Result<Vec<usize>> {
    let wrong = |part: &str| {
        Error::config(field, format!("{part:?} in {text:?}: write numbers and ranges, as 0-3,7"))
    };
    let mut numbers = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.parse::<usize>().ok().filter(|number| *number < CpuSet::MAX_CPU).ok_or_else(|| wrong(part))
        };
        let (from, to) = (number(from)?, number(to)?);
        if from > to {
            return Err(wrong(part));
        }
        numbers.extend(from..=to);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_numbers_and_ranges() {
        assert_eq!(list("x", "0-2, 7").unwrap(), [0, 1, 2, 7]);
        for text in ["", "a", "3-1", "1-", "-1", "99999", "1,,2"] {
            assert!(list("x", text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_scheduler_has_the_kernels_numbers() {
        let flags = vec!["SCHED_FLAG_RECLAIM".to_owned()];
        let asked = Scheduler { policy: "SCHED_DEADLINE".into(), flags, runtime: 5, ..Scheduler::default() };
        let attributes = scheduler(&asked).unwrap();
        assert_eq!((attributes.sched_policy, attributes.sched_flags, attributes.sched_runtime), (6, 2, 5));
        for asked in [
            Scheduler { policy: "SCHED_ISO".into(), ..Scheduler::default() },
            Scheduler { nice: 20, ..asked.clone() },
            Scheduler { flags: vec!["x".into()], ..asked },
        ] {
            assert!(scheduler(&asked).unwrap_err().to_string().starts_with("process.scheduler."));
        }
    }
}
