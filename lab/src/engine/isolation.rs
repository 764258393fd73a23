//! The walls' common default: what a workload sees and may do, written as parts of the OCI runtime specification.
//!
//! All of it is docker's default, so that an image behaves as its author saw it, with one difference: no_new_privs is set,
//! so set-user-id programs gain nothing. A virtual machine is given the same list of mounts, masked paths and
//! capabilities; its guest applies them inside.

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxDeviceCgroup,
    LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder,
};

use super::Error;
use super::request::{Choices, Extra, Network};

/// The capabilities(7) of a workload: what set-up scripts of images need, nothing that reaches the host.
const CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Where the first process of `--init` lies in a container, as in docker's.
pub const INIT: &str = "/sbin/docker-init";

/// Paths of the kernel that tell about the host or other workloads: hidden.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths by which the whole kernel is set: read-only.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Destination, type, source, options. In the order they are mounted.
const MOUNTS: [(&str, &str, &str, &[&str]); 7] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    // gid=5 is the group tty on every distribution: so programs may own their terminal without set-user-id helpers.
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
];

/// New namespaces of every kind, except for those that are another's; the user's too where the caller is not root.
pub fn namespaces(rootless: bool, choices: &Choices) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType as Kind;
    let own = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let mut namespaces = vec![own(Kind::Mount)?];
    if !choices.host_cgroups {
        namespaces.push(own(Kind::Cgroup)?);
    }
    if rootless {
        namespaces.push(own(Kind::User)?);
    }
    let shared = [
        (Kind::Uts, &choices.uts),
        (Kind::Pid, &choices.pid),
        (Kind::Ipc, &choices.ipc),
        (Kind::Network, &choices.network),
    ];
    for (kind, whose) in shared {
        match whose {
            Network::Own => namespaces.push(own(kind)?),
            Network::Host => {}
            Network::Join(path) => {
                namespaces.push(LinuxNamespaceBuilder::default().typ(kind).path(path.clone()).build()?);
            }
        }
    }
    Ok(namespaces)
}

/// The one mapping that the kernel grants without helpers: root inside is the caller outside (user_namespaces(7)).
pub fn own_id_as_root(id: u32) -> Result<Vec<LinuxIdMapping>, OciSpecError> {
    Ok(vec![LinuxIdMappingBuilder::default().container_id(0u32).host_id(id).size(1u32).build()?])
}

/// The file systems of the kernel, then the user's own, one below another after it.
pub fn mounts(rootless: bool, choices: &Choices) -> Result<Vec<Mount>, OciSpecError> {
    let mount = |(destination, kind, source, options): (&str, &str, &str, &[&str])| {
        // Group 5 has no mapping in a user namespace that maps one id, and devpts refuses unmapped ids.
        let options = options.iter().filter(|&&option| !(rootless && option == "gid=5"));
        let mut options: Vec<String> = options.map(|&option| option.to_owned()).collect();
        if let (Some(size), "/dev/shm") = (choices.shm_size, destination) {
            options.retain(|option| !option.starts_with("size="));
            options.push(format!("size={size}"));
        }
        if choices.privileged {
            options.retain(|option| option != "ro");
        }
        MountBuilder::default().destination(destination).typ(kind).source(source).options(options).build()
    };
    let mut all: Vec<Mount> = MOUNTS.into_iter().map(mount).collect::<Result<_, _>>()?;
    let init = choices.init.as_ref().map(|program| Extra {
        target: INIT.to_owned(),
        source: Some(program.clone()),
        options: ["bind", "ro", "rprivate"].map(str::to_owned).to_vec(),
    });
    let mut extras: Vec<&Extra> = choices.mounts.iter().chain(&init).collect();
    extras.sort_by_key(|extra| extra.target.matches('/').count());
    for extra in extras {
        let replaced = |mount: &Mount| mount.destination() == Path::new(&extra.target);
        all.retain(|mount| !replaced(mount));
        let builder = MountBuilder::default().destination(&extra.target);
        let builder = match &extra.source {
            Some(source) => builder.typ("bind").source(source),
            None => builder.typ("tmpfs").source("tmpfs"),
        };
        all.push(builder.options(extra.options.clone()).build()?);
    }
    Ok(all)
}

/// The capabilities that bound what any process of the workload can have: the default ones, less those taken away, and
/// those added; docker's order for `ALL`.
///
/// # Errors
/// A name that is no capability's.
pub fn bounding(choices: &Choices) -> Result<Capabilities, Error> {
    let read =
        |names: &[String]| -> Result<(bool, Capabilities), Error> {
            let mut set = Capabilities::new();
            let mut all = false;
            for name in names {
                let name = name.to_ascii_uppercase();
                if name == "ALL" {
                    all = true;
                    continue;
                }
                let full = if name.starts_with("CAP_") { name } else { format!("CAP_{name}") };
                let known = serde_json::from_value(full.clone().into());
                set.insert(known.map_err(|_| {
                    Error::bad(format!("'{full}' is no capability; capabilities(7) lists them"))
                })?);
            }
            Ok((all, set))
        };
    let every = || -> Capabilities {
        let known = container::supported::capabilities().into_iter();
        known.filter_map(|name| serde_json::from_value(name.into()).ok()).collect()
    };
    let (add_all, add) = read(&choices.cap_add)?;
    let (drop_all, drop) = read(&choices.cap_drop)?;
    let mut base: Capabilities = match (choices.privileged || add_all, drop_all) {
        (true, _) => every(),
        (false, true) => Capabilities::new(),
        (false, false) => CAPABILITIES.into_iter().collect(),
    };
    base.retain(|capability| !drop.contains(capability));
    base.extend(add);
    Ok(base)
}

/// Root gets the capabilities at once. Another user gets none, and the set bounds what set-user-id programs could gain.
pub fn capabilities(uid: u32, all: Capabilities) -> Result<LinuxCapabilities, OciSpecError> {
    let held = if uid == 0 { all.clone() } else { Capabilities::new() };
    LinuxCapabilitiesBuilder::default()
        .bounding(all)
        .effective(held.clone())
        .permitted(held)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
}

/// Root's capabilities where root is nobody outside: all of them.
pub fn every_capability() -> Result<LinuxCapabilities, Error> {
    let all = Choices { privileged: true, ..Choices::default() };
    Ok(capabilities(0, bounding(&all)?)?)
}

/// The rule of the device cgroup: nothing. Every runtime adds the devices that it makes itself: null, zero, full, random,
/// urandom, tty, console, ptmx and the pseudo-terminals (runtime specification, "Default Devices").
pub fn device_rules(privileged: bool) -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    Ok(vec![
        LinuxDeviceCgroupBuilder::default()
            .allow(privileged)
            .typ(LinuxDeviceType::A)
            .access("rwm")
            .build()?,
    ])
}

/// Paths to hide.
pub fn masked_paths() -> Vec<String> {
    MASKED.map(str::to_owned).to_vec()
}

/// Paths to make read-only.
pub fn read_only_paths() -> Vec<String> {
    READ_ONLY.map(str::to_owned).to_vec()
}

/// The control group of a sandbox. The caller's own place in the hierarchies is the runtime's affair.
pub fn cgroup(id: &str) -> PathBuf {
    Path::new("/lab").join(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_starts_with_capabilities() {
        let all = bounding(&Choices::default()).unwrap();
        let root = capabilities(0, all.clone()).unwrap();
        assert_eq!(root.effective().as_ref().unwrap().len(), CAPABILITIES.len());
        let other = capabilities(1000, all).unwrap();
        assert!(other.effective().as_ref().unwrap().is_empty());
        assert_eq!(other.bounding(), root.bounding());
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        let set = |add: &[&str], drop: &[&str]| {
            let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
            bounding(&Choices { cap_add: names(add), cap_drop: names(drop), ..Choices::default() })
        };
        assert!(set(&["net_admin"], &[]).unwrap().contains(&Capability::NetAdmin));
        assert!(!set(&[], &["CAP_CHOWN"]).unwrap().contains(&Capability::Chown));
        assert_eq!(set(&["CHOWN"], &["ALL"]).unwrap().len(), 1);
        assert!(set(&["ALL"], &["CHOWN"]).unwrap().contains(&Capability::SysAdmin));
        assert!(set(&["FLY"], &[]).is_err());
    }

    #[test]
    fn a_user_without_root_gets_a_user_namespace() {
        let has_user = |rootless| {
            namespaces(rootless, &Choices::default())
                .unwrap()
                .iter()
                .any(|namespace| namespace.typ() == LinuxNamespaceType::User)
        };
        assert!(has_user(true));
        assert!(!has_user(false));
    }

    #[test]
    fn the_kernel_s_file_systems_that_are_not_the_workload_s_own_are_read_only() {
        for mount in mounts(false, &Choices::default()).unwrap() {
            if mount.destination().starts_with("/sys") {
                assert!(mount.options().as_ref().unwrap().iter().any(|option| option == "ro"), "{mount:?}");
            }
        }
    }
}
