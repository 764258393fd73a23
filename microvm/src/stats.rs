//! What a VM did: its exits by kind, and where its kernel spends its time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::arch::layout;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike as _};
use serde::{Deserialize, Serialize};

/// Why a vCPU left the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Exit {
    /// It wrote an I/O port.
    PortWrite,
    /// It read an I/O port.
    PortRead,
    /// It wrote a device's window in memory.
    MemoryWrite,
    /// It read a device's window in memory.
    MemoryRead,
    /// An instruction that KVM cannot emulate was done by the VMM (see [`crate::arch::quirks`]).
    Repair,
    /// The VMM called it out.
    Kick,
    /// Anything else.
    Other,
}

const KINDS: [(Exit, &str); 7] = [
    (Exit::PortWrite, "port-write"),
    (Exit::PortRead, "port-read"),
    (Exit::MemoryWrite, "memory-write"),
    (Exit::MemoryRead, "memory-read"),
    (Exit::Repair, "repair"),
    (Exit::Kick, "kick"),
    (Exit::Other, "other"),
];

/// Exits by kind.
#[derive(Debug, Default)]
pub struct Stats {
    exits: [AtomicU64; KINDS.len()],
}

impl Stats {
    pub(crate) fn count(&self, exit: Exit) {
        self.exits[exit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The number of exits of each kind, with the kind's name.
    pub fn exits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KINDS.iter().map(|(kind, name)| (*name, self.exits[*kind as usize].load(Ordering::Relaxed)))
    }
}

/// What a machine is, and what it did so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// vCPUs.
    pub vcpus: usize,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Whether KVM has hardware virtualization behind it; without it the guest's kernel is interpreted.
    pub hardware: bool,
    /// Nanoseconds that one instruction of the guest's kernel took when the machine began.
    pub instruction: f64,
    /// Exits by kind.
    pub exits: BTreeMap<String, u64>,
    /// The virtio devices, in the order in which the guest finds them.
    pub devices: Vec<DeviceReport>,
    /// Pages that the host gave the process as it touched them, most of them the guest's.
    pub page_faults: u64,
    /// Those of them that came from a disk.
    pub major_page_faults: u64,
    /// Processor time of the process with all its threads, in nanoseconds.
    pub cpu_nanos: u64,
    /// Memory that it has resident, in bytes; 0 where its jail hides that from it.
    pub memory_now: u64,
    /// The most memory that it had resident, in bytes.
    pub memory_peak: u64,
}

/// A virtio device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// What it is.
    pub name: String,
    /// How often it was called to work: by the guest, or by the host's end of it.
    pub operations: u64,
    /// Why it stopped, if it did.
    pub fault: Option<String>,
    /// Its queues, from the driver's DRIVER_OK on.
    #[serde(default)]
    pub queues: Vec<QueueReport>,
}

/// A virtqueue: where its tables lie in guest memory, and how far each side is (virtio 1.2, section 2.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueReport {
    /// Descriptors.
    pub size: u16,
    /// Address of the table of descriptors.
    pub descriptors: u64,
    /// Address of the available ring, which the driver writes.
    pub available: u64,
    /// Address of the used ring, which the device writes.
    pub used: u64,
    /// Chains that the driver has offered, as its ring's index says: modulo 65536.
    pub offered: u16,
    /// Chains that the device has taken so far, likewise.
    pub taken: u16,
    /// Chains that it has given back, likewise.
    pub returned: u16,
}

impl Report {
    /// What the operating system counts of this process.
    pub(crate) fn count_process(&mut self) {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return };
        let nanos = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0) * 1000;
        self.page_faults = usage.minor_page_faults() as u64;
        self.major_page_faults = usage.major_page_faults() as u64;
        self.cpu_nanos = nanos(usage.user_time()) + nanos(usage.system_time());
        self.memory_peak = (usage.max_rss() as u64) << 10;
        // The second number is that of resident pages (proc_pid_statm(5)).
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        self.memory_now = pages.unwrap_or(0) * layout::PAGE;
    }
}

/// Samples of a vCPU's instruction pointer, taken every so often: a histogram of where a boot spends its time.
#[derive(Debug, Default)]
pub struct Profile {
    samples: Mutex<BTreeMap<u64, u64>>,
}

impl Profile {
    pub(crate) fn record(&self, rip: u64) {
        *self.samples.lock().unwrap_or_else(PoisonError::into_inner).entry(rip).or_default() += 1;
    }

    /// The histogram by function, the most frequent first: `share samples function`. The text is of the form of a
    /// `System.map` or of `nm -n vmlinux`: address, kind, name.
    pub fn by_function(&self, symbols: &str) -> String {
        let functions: BTreeMap<u64, &str> = symbols.lines().filter_map(parse_symbol).collect();
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (rip, count) in samples.iter() {
            let name = match functions.range(..=rip).next_back() {
                Some((_, name)) if *rip >= KERNEL_HALF => (*name).to_owned(),
                _ if *rip < KERNEL_HALF => "(user mode)".to_owned(),
                _ => format!("{rip:#x}"),
            };
            *counts.entry(name).or_default() += count;
        }
        let total: u64 = samples.values().sum();
        let mut rows: Vec<_> = counts.into_iter().collect();
        rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let mut text = format!("{total} samples\n");
        for (name, count) in rows {
            let share = 100.0 * count as f64 / total as f64;
            let _ = writeln!(text, "{share:6.2} % {count:8} {name}");
        }
        text
    }
}

/// Linux is in the upper half of the address space, programs in the lower.
const KERNEL_HALF: u64 = 1 << 63;

fn parse_symbol(line: &str) -> Option<(u64, &str)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    // t, T, w, W: code. Data symbols between functions would take their samples.
    matches!(words.next()?, "t" | "T" | "w" | "W").then_some((address, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_count_for_the_function_that_they_are_in() {
        let profile = Profile::default();
        for rip in [0xffff_ffff_8100_0004, 0xffff_ffff_8100_0010, 0xffff_ffff_8100_0014, 0x40_1000] {
            profile.record(rip);
        }
        let map =
            "ffffffff81000000 T startup\nffffffff81000008 d some_data\nffffffff81000010 t loop\n\nnonsense";
        let text = profile.by_function(map);
        assert_eq!(
            text,
            "4 samples\n 50.00 %        2 loop\n 25.00 %        1 (user mode)\n 25.00 %        1 startup\n"
        );
    }

    #[test]
    fn exits_are_counted_by_kind() {
        let stats = Stats::default();
        stats.count(Exit::PortRead);
        stats.count(Exit::PortRead);
        assert_eq!(stats.exits().find(|(name, _)| *name == "port-read"), Some(("port-read", 2)));
        assert_eq!(stats.exits().map(|(_, count)| count).sum::<u64>(), 2);
    }
}
