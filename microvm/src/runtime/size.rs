//! How large a machine a bundle gets: a container's limits are ceilings of what it may take from the host; a machine's
//! memory and vCPUs are what it has.
//!
//! | what | from, the first that is there | else |
//! |---|---|---|
//! | memory | annotation `lab.vm.memory`, in MiB; `linux.resources.memory.limit` and what the guest's kernel takes | 256 MiB |
//! | vCPUs | annotation `lab.vm.cpus`; `cpu.quota` / `cpu.period` rounded up; the CPUs in `cpu.cpus` | 1 |
//!
//! An annotation is a request for this runtime alone, so it beats what is said for all.

use oci_spec::runtime::{LinuxCpu, LinuxMemory};

use crate::Error;
use crate::arch::layout;
use crate::spec::Spec;

/// Memory where nothing is said: a kernel, and room for a program of some size. Pages that the guest never touches cost
/// nothing.
const MEMORY: u32 = 256;

/// What the guest's kernel, its tables and PID 1 take of a machine's memory, so that a workload gets what its limit says.
const ROOM: u64 = 32;

/// The period of a CPU quota where none is given, in microseconds (kernel documentation, scheduler/sched-bwc).
const PERIOD: u64 = 100_000;

/// The annotation that names a socket for the guest's vsock.
pub(crate) const VSOCK: &str = "lab.vm.vsock";

/// Annotations that this runtime reads.
pub const ANNOTATIONS: [&str; 3] = ["lab.vm.cpus", "lab.vm.memory", VSOCK];

/// Memory in MiB, and vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) memory_mib: u32,
    pub(crate) vcpus: u8,
}

impl Size {
    pub(crate) fn of(spec: &Spec) -> Result<Self, Error> {
        let (cpu, memory) = (spec.linux.resources.cpu.as_ref(), spec.linux.resources.memory.as_ref());
        let limit = memory.and_then(LinuxMemory::limit).and_then(|limit| u64::try_from(limit).ok());
        // As little as 0 is no limit, as much as this is none either: what engines write for "unlimited" (PAGE_COUNTER_MAX).
        let limit = limit.filter(|limit| (1..1 << 50).contains(limit));
        let memory_mib = match annotation(spec, "lab.vm.memory")? {
            Some(mib) => mib,
            None => limit
                .map_or(MEMORY, |bytes| u32::try_from(bytes.div_ceil(1 << 20) + ROOM).unwrap_or(u32::MAX)),
        };
        let quota = cpu.and_then(LinuxCpu::quota).and_then(|quota| u64::try_from(quota).ok());
        let period = cpu.and_then(LinuxCpu::period).filter(|period| *period > 0).unwrap_or(PERIOD);
        let by_quota = quota.filter(|quota| *quota > 0).map(|quota| quota.div_ceil(period));
        let by_set = cpu.and_then(|cpu| cpu.cpus().as_deref()).and_then(count);
        let most = u64::from(layout::MAX_VCPUS);
        let vcpus = match annotation(spec, "lab.vm.cpus")? {
            Some(vcpus) => vcpus,
            None => by_quota.or(by_set).unwrap_or(1).clamp(1, most) as u8,
        };
        Ok(Self { memory_mib, vcpus })
    }
}

/// The number of CPUs in a list like "0-2,7" (cpuset(7), "List format").
fn count(list: &str) -> Option<u64> {
    let mut sum = 0;
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        sum += last.checked_sub(first)?.saturating_add(1);
    }
    (sum > 0).then_some(sum)
}

fn annotation<T: std::str::FromStr>(spec: &Spec, name: &str) -> Result<Option<T>, Error> {
    let text = spec.annotations.get(name);
    let parse = |text: &String| {
        text.trim().parse().map_err(|_| Error::Config {
            field: format!("annotations.{name}"),
            reason: format!("{text:?} is no number that can be; give a small whole number"),
        })
    };
    text.map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(resources: &Value, annotations: &Value) -> Result<(u32, u8), String> {
        let spec =
            json!({"ociVersion": "1.2.0", "linux": {"resources": resources}, "annotations": annotations});
        let size = Size::of(&serde_json::from_value(spec).unwrap()).map_err(|error| error.to_string())?;
        Ok((size.memory_mib, size.vcpus))
    }

    #[test]
    fn limits_become_a_size_and_annotations_beat_them() {
        assert_eq!(of(&json!({}), &json!({})), Ok((256, 1)));
        assert_eq!(of(&json!({"memory": {"limit": 64 << 20}}), &json!({})), Ok((96, 1)));
        assert_eq!(of(&json!({"memory": {"limit": -1}}), &json!({})), Ok((256, 1)));
        assert_eq!(of(&json!({"cpu": {"quota": 150_000, "period": 100_000}}), &json!({})), Ok((256, 2)));
        assert_eq!(of(&json!({"cpu": {"quota": -1, "cpus": "0-2,7"}}), &json!({})), Ok((256, 4)));
        assert_eq!(of(&json!({"cpu": {"quota": 90_000_000}}), &json!({})), Ok((256, 8)));
        let both = json!({"lab.vm.memory": "77", "lab.vm.cpus": "3"});
        assert_eq!(of(&json!({"memory": {"limit": 1 << 30}}), &both), Ok((77, 3)));
    }

    #[test]
    fn an_annotation_that_is_no_number_is_named() {
        let error = of(&json!({}), &json!({"lab.vm.memory": "much"})).unwrap_err();
        assert!(error.starts_with("annotations.lab.vm.memory: \"much\""), "{error}");
        assert!(of(&json!({}), &json!({"lab.vm.cpus": "300"})).is_err());
    }
}
