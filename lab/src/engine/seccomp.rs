//! Profiles of system calls in docker's form (`--security-opt seccomp=FILE`), which is the runtime specification's with
//! conditions: rules for some architectures, for containers that have or lack a capability, for newer kernels.
//!
//! They are decided here, for this machine and this container, and what remains is the runtime's filter.

use oci_spec::runtime::{Capabilities, LinuxSeccomp};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::Error;

/// The profile. Fields that the specification has are passed on as they are.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: Value,
    default_errno_ret: Option<Value>,
    architectures: Option<Vec<String>>,
    #[serde(default, deserialize_with = "or_default")]
    arch_map: Vec<Architecture>,
    #[serde(default, deserialize_with = "or_default")]
    flags: Vec<Value>,
    #[serde(default, deserialize_with = "or_default")]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    names: Vec<String>,
    action: Value,
    errno_ret: Option<Value>,
    args: Option<Vec<Value>>,
    #[serde(default, deserialize_with = "or_default")]
    includes: Conditions,
    #[serde(default, deserialize_with = "or_default")]
    excludes: Conditions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Conditions {
    #[serde(deserialize_with = "or_default")]
    caps: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Go writes an empty list as null.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The filter of a profile for a container with these capabilities.
///
/// # Errors
/// What is no profile.
pub fn filter(text: &str, bounding: &Capabilities) -> Result<LinuxSeccomp, Error> {
    let wrong = |error: serde_json::Error| {
        Error::bad(format!("--security-opt seccomp: the profile is not docker's JSON: {error}"))
    };
    let profile: Profile = serde_json::from_str(text).map_err(wrong)?;
    let machine = Machine::this(bounding);
    let architectures: Vec<&String> = match &profile.architectures {
        Some(list) => list.iter().collect(),
        None => profile
            .arch_map
            .iter()
            .filter(|map| map.architecture == machine.scmp)
            .flat_map(|map| std::iter::once(&map.architecture).chain(&map.sub_architectures))
            .collect(),
    };
    let rules: Vec<Value> = profile
        .syscalls
        .iter()
        .filter(|rule| machine.meets(&rule.includes) && !machine.is_excluded(&rule.excludes))
        .map(|rule| {
            let names: Vec<&String> = rule.names.iter().chain(&rule.name).collect();
            let mut one = json!({"names": names, "action": rule.action});
            if let Some(errno) = &rule.errno_ret {
                one["errnoRet"] = errno.clone();
            }
            if let Some(args) = rule.args.as_ref().filter(|args| !args.is_empty()) {
                one["args"] = args.clone().into();
            }
            one
        })
        .collect();
    let mut filter = json!({"defaultAction": profile.default_action, "syscalls": rules});
    if !architectures.is_empty() {
        filter["architectures"] = json!(architectures);
    }
    if !profile.flags.is_empty() {
        filter["flags"] = profile.flags.into();
    }
    if let Some(errno) = profile.default_errno_ret {
        filter["defaultErrnoRet"] = errno;
    }
    serde_json::from_value(filter).map_err(wrong)
}

/// What conditions are about.
struct Machine<'a> {
    bounding: &'a Capabilities,
    /// Go's name, which conditions use, and libseccomp's.
    arch: &'static str,
    scmp: &'static str,
    kernel: (u32, u32),
}

impl<'a> Machine<'a> {
    fn this(bounding: &'a Capabilities) -> Self {
        let (arch, scmp) = match std::env::consts::ARCH {
            "aarch64" => ("arm64", "SCMP_ARCH_AARCH64"),
            _ => ("amd64", "SCMP_ARCH_X86_64"),
        };
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Self { bounding, arch, scmp, kernel: version(&release).unwrap_or((0, 0)) }
    }

    fn has(&self, name: &str) -> bool {
        serde_json::from_value(name.into()).is_ok_and(|capability| self.bounding.contains(&capability))
    }

    /// All capabilities, one of the architectures, the kernel.
    fn meets(&self, conditions: &Conditions) -> bool {
        conditions.caps.iter().all(|name| self.has(name))
            && (conditions.arches.is_empty() || conditions.arches.iter().any(|arch| arch == self.arch))
            && conditions.min_kernel.as_deref().and_then(version).is_none_or(|least| self.kernel >= least)
    }

    /// Any of them.
    fn is_excluded(&self, conditions: &Conditions) -> bool {
        conditions.caps.iter().any(|name| self.has(name))
            || conditions.arches.iter().any(|arch| arch == self.arch)
            || conditions.min_kernel.as_deref().and_then(version).is_some_and(|least| self.kernel >= least)
    }
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null}],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]},
             "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["s390_runtime_instr"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}}
        ]}"#;

    fn names(bounding: &[Capability]) -> Vec<String> {
        let filter = filter(PROFILE, &bounding.iter().copied().collect()).unwrap();
        filter.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn conditions_are_decided_for_this_container_and_machine() {
        assert_eq!(names(&[]), ["read", "write", "clone", "ptrace"]);
        assert_eq!(names(&[Capability::SysAdmin]), ["read", "write", "bpf", "ptrace"]);
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for text in ["", "{}", "[]", r#"{"defaultAction": "SCMP_ACT_FLY"}"#, r#"{"defaultAction": 7}"#] {
            assert!(filter(text, &Capabilities::new()).is_err(), "{text}");
        }
    }
}
