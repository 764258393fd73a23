//! Limits: what `-m`, `--memory-swap`, `--cpus` and `--pids-limit` mean, and which values make no sense.

use std::num::NonZeroU64;

use super::Error;

/// One mebibyte.
pub const MIB: u64 = 1024 * 1024;

/// The least memory limit, for either wall; the same as docker's. Below it a program dies for reasons that puzzle.
pub const LEAST_MEMORY: u64 = 6 * MIB;

/// How often the scheduler refills a CPU quota, in microseconds: the kernel's own default (cgroup v2, `cpu.max`).
pub const CPU_PERIOD: u64 = 100_000;

/// This machine's memory, in bytes: the limit of what has none.
pub fn machine_memory() -> u64 {
    let machine = rustix::system::sysinfo();
    machine.totalram as u64 * u64::from(machine.mem_unit)
}

/// What the workload may use. Nothing given is no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; -1 is no limit.
    pub memory_swap: Option<i64>,
    /// CPUs, in thousandths.
    pub cpus: Option<MilliCpus>,
    /// Processes and threads; 0 or less is no limit.
    pub pids: Option<i64>,
    /// The share of the processors where they are short, relative to others' (docker's unit: 1024 is usual).
    pub cpu_shares: Option<u64>,
    /// Which processors, as `0-2,4`.
    pub cpuset: Option<String>,
    /// Which memory nodes.
    pub memory_nodes: Option<String>,
    /// Bytes of memory that are taken back last where memory is short.
    pub memory_reservation: Option<u64>,
}

/// Thousandths of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MilliCpus(NonZeroU64);

impl MilliCpus {
    /// So many thousandths; none is no amount.
    pub fn new(thousandths: u64) -> Option<Self> {
        NonZeroU64::new(thousandths).map(Self)
    }

    /// The run time allowed in each [`CPU_PERIOD`], in microseconds.
    pub fn quota(self) -> u64 {
        self.0.get().saturating_mul(CPU_PERIOD / 1000)
    }

    /// In docker's unit, thousand-millionths of a CPU.
    pub fn nano(self) -> u64 {
        self.0.get().saturating_mul(1_000_000)
    }

    /// The number of whole CPUs that can use that much.
    pub fn whole(self) -> u64 {
        self.0.get().div_ceil(1000)
    }
}

impl Limits {
    /// Refuses what cannot work, before anything is created. How many CPUs there are is asked only if it matters.
    ///
    /// # Errors
    /// Each names the flag and a value that works.
    pub fn check(&self, online_cpus: impl FnOnce() -> u64) -> Result<(), Error> {
        if let Some(memory) = self.memory.filter(|&memory| memory < LEAST_MEMORY) {
            return Err(Error::MemoryTooSmall { asked: memory });
        }
        match (self.memory, self.memory_swap) {
            (None, Some(swap)) if swap != -1 => return Err(Error::SwapWithoutMemory),
            (Some(memory), Some(swap))
                if swap != -1 && u64::try_from(swap).is_ok_and(|swap| swap < memory) =>
            {
                return Err(Error::SwapBelowMemory);
            }
            _ => {}
        }
        if self.memory.zip(self.memory_reservation).is_some_and(|(memory, reserved)| reserved > memory) {
            return Err(Error::bad("--memory-reservation is the soft limit: it cannot be more than -m"));
        }
        for (flag, list) in [("--cpuset-cpus", &self.cpuset), ("--cpuset-mems", &self.memory_nodes)] {
            if let Some(list) = list.as_ref().filter(|list| !is_list(list)) {
                return Err(Error::bad(format!(
                    "Invalid value {list} for {flag}: numbers and ranges, such as 0-2,4"
                )));
            }
        }
        let Some(MilliCpus(cpus)) = self.cpus else { return Ok(()) };
        let online = online_cpus();
        if (10..=online * 1000).contains(&cpus.get()) {
            Ok(())
        } else {
            Err(Error::CpusOutOfRange { online })
        }
    }

    /// The limit on memory and swap together. Docker's default is twice the memory.
    pub fn memory_and_swap(&self) -> Option<i64> {
        let memory = i64::try_from(self.memory?).unwrap_or(i64::MAX);
        Some(self.memory_swap.filter(|&swap| swap != 0).unwrap_or(memory.saturating_mul(2)))
    }
}

/// Numbers and ranges (cpuset(7), "List format").
fn is_list(text: &str) -> bool {
    text.split(',').all(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<u32>().ok().zip(last.parse::<u32>().ok()).is_some_and(|(first, last)| first <= last)
    })
}

/// Reads a size as docker does: a number, then nothing or one of b, k, m, g, t, each step 1024 times the one before.
///
/// # Errors
/// A text that says what would be a size.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no size: a number and b, k, m or g, such as 64m");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let bytes = number * (1u64 << shift) as f64;
    // Above 2^62 the sum with swap would not fit the i64 of the runtime specification.
    if bytes < (1u64 << 62) as f64 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// Reads the limit of memory and swap together: a size, or -1 for none.
///
/// # Errors
/// A text that says what would be one.
pub fn parse_swap(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { parse_size(text).map(|bytes| bytes as i64) }
}

/// Reads a number of CPUs, such as 0.5 or 2.
///
/// # Errors
/// A text that says what would be one.
pub fn parse_cpus(text: &str) -> Result<MilliCpus, String> {
    let cpus: Option<f64> = text.parse().ok().filter(|cpus: &f64| (0.0005..1e6).contains(cpus));
    cpus.and_then(|cpus| NonZeroU64::new((cpus * 1000.0).round() as u64))
        .map(MilliCpus)
        .ok_or_else(|| format!("'{text}' is no number of CPUs, such as 0.5 or 2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in
            [("0", 0), ("64m", 64 * MIB), ("64M", 64 * MIB), ("1k", 1024), ("1.5g", 1536 * MIB)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_size("512 MiB"), Ok(512 * MIB));
        for text in ["", "m", "-1", "1x", "1 2m", "1..2", "99999999999g", "nan"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn half_a_cpu_is_half_of_each_period_on_one_cpu() {
        let half = parse_cpus("0.5").unwrap();
        assert_eq!((half.quota(), half.whole()), (50_000, 1));
        let more = parse_cpus("1.5").unwrap();
        assert_eq!((more.quota(), more.whole()), (150_000, 2));
        for text in ["0", "-1", "x", "inf", "nan"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_below_the_least_is_refused() {
        let limits = Limits { memory: Some(1024), ..Limits::default() };
        let message = limits.check(|| 2).unwrap_err().to_string();
        assert!(message.contains("6 MiB"), "{message}");
    }

    #[test]
    fn swap_counts_memory_too_so_it_cannot_be_less() {
        let limits = |memory, swap| Limits { memory, memory_swap: Some(swap), ..Limits::default() };
        assert!(limits(Some(64 * MIB), 32 * MIB as i64).check(|| 1).is_err());
        assert!(limits(None, 32 * MIB as i64).check(|| 1).is_err());
        assert!(limits(Some(64 * MIB), -1).check(|| 1).is_ok());
    }

    #[test]
    fn swap_defaults_to_as_much_again_as_the_memory() {
        let limits = Limits { memory: Some(64 * MIB), ..Limits::default() };
        assert_eq!(limits.memory_and_swap(), Some(128 * MIB as i64));
    }

    #[test]
    fn more_cpus_than_the_machine_has_are_refused() {
        let limits = Limits { cpus: Some(parse_cpus("3").unwrap()), ..Limits::default() };
        assert!(limits.check(|| 2).is_err());
        assert!(limits.check(|| 4).is_ok());
    }
}
