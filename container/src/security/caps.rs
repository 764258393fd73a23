//! Capabilities: root's power in 41 pieces (`capabilities(7)`).
//!
//! A name that no kernel knows is refused, with its place in the configuration: versions 1.0 of the specification want
//! that ("MUST cause an error"), the validation suite of runtime-tools tries it, and whoever writes CAP_FLY believes in a
//! right that nobody will have. Later versions are content with a warning, for names of newer kernels: a name that is
//! known here, and that this kernel or this runtime cannot grant, is such a warning ([`beyond_own`]).

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxCapabilities};
use rustix::thread::CapabilitySet;

use crate::error::{Error, Result};
use crate::plan::Capabilities;

/// The names by number, as `linux/capability.h` has them, without "CAP_".
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// How many capabilities there are; a kernel may know fewer (`/proc/sys/kernel/cap_last_cap`).
pub(crate) const COUNT: u32 = NAMES.len() as u32;

/// All names, as the specification has them.
pub(crate) fn names() -> Vec<String> {
    NAMES.iter().map(|name| format!("CAP_{name}")).collect()
}

/// The five sets of the specification. Without any, the process keeps none.
pub(crate) fn sets(capabilities: Option<&LinuxCapabilities>) -> Result<Capabilities> {
    let set = |set: &dyn Fn(&LinuxCapabilities) -> Option<HashSet<Capability>>| {
        capabilities.and_then(set).map_or(Ok(CapabilitySet::empty()), |set| bits(&set))
    };
    let permitted = set(&|c| c.permitted().clone())?;
    let inheritable = set(&|c| c.inheritable().clone())?;
    // What cannot be granted is left out, not refused (config.md, "process.capabilities"): a capability is effective
    // only if permitted, and ambient only if permitted and inheritable (capabilities(7)).
    Ok(Capabilities {
        bounding: set(&|c| c.bounding().clone())?,
        effective: set(&|c| c.effective().clone())? & permitted,
        ambient: set(&|c| c.ambient().clone())? & permitted & inheritable,
        inheritable,
        permitted,
    })
}

/// What is asked for and cannot be granted, for the runtime does not have it itself: the specification wants a warning.
pub(crate) fn beyond_own(asked: &Capabilities) -> Vec<String> {
    let own = rustix::thread::capabilities(None).map_or(CapabilitySet::all(), |sets| sets.permitted);
    let beyond = (asked.permitted | asked.inheritable) - own;
    let named = NAMES.iter().enumerate().filter(|(number, _)| beyond.bits() & 1 << number != 0);
    named.map(|(_, name)| format!("CAP_{name}")).collect()
}

fn bits(set: &HashSet<Capability>) -> Result<CapabilitySet> {
    let mut bits = 0;
    for capability in set {
        let name = capability.to_string();
        let number = NAMES.iter().position(|known| *known == name);
        let number = number
            .ok_or_else(|| Error::config("process.capabilities", format!("CAP_{name} has no number here")))?;
        bits |= 1u64 << number;
    }
    Ok(CapabilitySet::from_bits_retain(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxCapabilitiesBuilder;

    #[test]
    fn every_capability_of_the_specification_has_its_number() {
        for (number, name) in NAMES.iter().enumerate() {
            let capability = name.parse::<Capability>().unwrap();
            assert_eq!(bits(&HashSet::from([capability])).unwrap().bits(), 1 << number, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_granted_is_left_out() {
        let (kill, empty) = (HashSet::from([Capability::Kill]), HashSet::new());
        let capabilities = LinuxCapabilitiesBuilder::default()
            .bounding(empty.clone())
            .permitted(empty.clone())
            .inheritable(empty)
            .ambient(kill.clone())
            .effective(kill)
            .build()
            .unwrap();
        let sets = sets(Some(&capabilities)).unwrap();
        assert!(sets.effective.is_empty() && sets.ambient.is_empty());
    }
}
