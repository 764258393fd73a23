//! What the first wall needs: namespaces, an overlay file system, control groups, seccomp.

use std::fs;
use std::process::{Command, Stdio};

use super::{Check, as_root, find_program, install};
use crate::engine::stored::networks::no_way_out;
use crate::measure::environment::CgroupLayout;

pub(super) fn checks() -> Vec<Check> {
    vec![namespaces(), overlay(), cgroups(), seccomp(), networks()]
}

/// As root every namespace can be made; a user needs a user namespace for the others (user_namespaces(7)).
fn namespaces() -> Check {
    const NAME: &str = "namespaces";
    if nix::unistd::geteuid().is_root() {
        return Check::found(NAME, "run as root: all namespaces can be made");
    }
    // By making one: three different knobs of distributions can forbid it, and the kernel may lack it altogether.
    let made = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match made {
        Ok(status) if status.success() => Check::found(NAME, "a user may make user namespaces"),
        Ok(_) => Check::missing(NAME, "a user may not make user namespaces here", knob()),
        Err(_) => match fs::read_to_string("/proc/sys/user/max_user_namespaces") {
            Ok(most) if most.trim() != "0" => {
                Check::found(NAME, "user namespaces (not tried: no unshare(1))")
            }
            _ => Check::missing(NAME, "no user namespaces", knob()),
        },
    }
}

/// The knob that forbids user namespaces to users.
fn knob() -> String {
    let reads = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    let setting = if reads("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "kernel.apparmor_restrict_unprivileged_userns=0" // Ubuntu 23.10 and later
    } else if reads("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "kernel.unprivileged_userns_clone=1" // Debian before 11
    } else if reads("/proc/sys/user/max_user_namespaces", "0") {
        "user.max_user_namespaces=10000"
    } else {
        return "run the lab as root".into();
    };
    as_root(&format!("sysctl -w {setting}"))
}

/// Bridges are root's, and their way out is the packet filter's; others have passt.
fn networks() -> Check {
    const NAME: &str = "networks";
    if !nix::unistd::geteuid().is_root() {
        return match find_program("passt") {
            Some(_) => Check::found(NAME, "passt, for containers and machines without root"),
            None => Check::limited(NAME, "bridges need root, and passt is not installed", install("passt")),
        };
    }
    match no_way_out() {
        None => Check::found(NAME, "bridges, and a way out by nf_tables"),
        Some(why) => {
            Check::limited(NAME, why, "use a kernel with CONFIG_NF_TABLES, CONFIG_NFT_MASQ and CONFIG_NFT_CT")
        }
    }
}

fn overlay() -> Check {
    const NAME: &str = "overlay";
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay") {
        return Check::found(NAME, "the kernel has it");
    }
    let loads = Command::new("modinfo").arg("overlay").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if loads.is_ok_and(|status| status.success()) && nix::unistd::geteuid().is_root() {
        // mount(2) loads it by itself for root.
        return Check::found(NAME, "a module that is loaded when it is needed");
    }
    Check::missing(NAME, "the kernel does not have it loaded", as_root("modprobe overlay"))
}

fn cgroups() -> Check {
    const NAME: &str = "cgroups";
    let layout = CgroupLayout::probe();
    if layout == CgroupLayout::Absent {
        let fix = as_root("mount -t cgroup2 none /sys/fs/cgroup");
        return Check::limited(NAME, "not mounted: no limits, no cgroup figures", fix);
    }
    if nix::unistd::geteuid().is_root() {
        return Check::found(NAME, layout.label());
    }
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let folder = format!("/sys/fs/cgroup{path}");
    if layout == CgroupLayout::V2
        && nix::unistd::access(folder.as_str(), nix::unistd::AccessFlags::W_OK).is_ok()
    {
        return Check::found(NAME, "v2, delegated to this user");
    }
    let found = format!("{}, not delegated to this user: no limits without root", layout.label());
    let fix = if find_program("systemd-run").is_some() {
        "systemd-run --user --scope -p Delegate=yes lab …"
    } else {
        "run the lab as root"
    };
    Check::limited(NAME, found, fix)
}

fn seccomp() -> Check {
    const NAME: &str = "seccomp";
    if fs::metadata("/proc/sys/kernel/seccomp/actions_avail").is_ok() {
        return Check::found(NAME, "the kernel filters system calls");
    }
    Check::missing(NAME, "the kernel has no seccomp filter", "boot a kernel with CONFIG_SECCOMP_FILTER=y")
}
