//! What the second wall needs: KVM, with hardware behind it or without, or else QEMU.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;

use super::{Check, as_root, find_program, install};
use crate::measure::environment::has_cpu_flag;
use crate::measure::record::{Backing, Obtained};
use crate::measure::walls;

/// What was found, and what follows for the guest's kernel.
pub(super) struct Machine {
    pub checks: Vec<Check>,
    /// KVM without hardware runs programs only on a kernel that is patched for it.
    pub needs_patched_kernel: bool,
}

const KVM: &str = "/dev/kvm";
const QEMU: &str = "qemu-system-x86_64";

pub(super) fn examine() -> Machine {
    let backing = walls::backing();
    let qemu = find_program(QEMU).is_some();
    let kvm = kvm(backing.as_ref().map_err(String::as_str), qemu);
    let emulator = match (&backing, qemu) {
        (_, true) => Check::found("qemu", "software emulation with --accel tcg, and the nested rig"),
        (Ok(_), false) => Check::limited(
            "qemu",
            "not installed; only --accel tcg and the nested rig need it",
            install("qemu-system-x86"),
        ),
        (Err(_), false) => {
            Check::missing("qemu", "not installed, and KVM cannot be used", install("qemu-system-x86"))
        }
    };
    Machine { checks: vec![kvm, emulator], needs_patched_kernel: backing == Ok(Backing::Software) }
}

fn kvm(backing: Result<&Backing, &str>, qemu: bool) -> Check {
    const NAME: &str = "kvm";
    let label = |backing| Obtained::Kvm { backing }.label();
    match backing {
        Ok(&Backing::Software) => {
            let fix = "measure on a machine with VT-x or AMD-V for a VM's true times; all else works here";
            Check::limited(NAME, format!("/dev/kvm works ({})", label(Backing::Software)), fix)
        }
        Ok(&backing) => Check::found(NAME, format!("/dev/kvm works ({})", label(backing))),
        Err(reason) => {
            let (found, fix) = obstacle(reason);
            // With QEMU there is another way; then the lack of KVM costs time only.
            if qemu { Check::limited(NAME, found, fix) } else { Check::missing(NAME, found, fix) }
        }
    }
}

/// What stands in the way of /dev/kvm, and what removes it.
fn obstacle(reason: &str) -> (String, String) {
    match OpenOptions::new().read(true).write(true).open(KVM) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let user = std::env::var("USER").unwrap_or_else(|_| "$USER".into());
            let groups = fs::read_to_string("/etc/group").unwrap_or_default();
            let (mode, gid) = fs::metadata(KVM).map_or((0, 0), |found| (found.mode(), found.gid()));
            ("no permission on /dev/kvm".into(), permit(&user, mode, gid, &groups))
        }
        Err(_) => {
            let module = match (has_cpu_flag("vmx"), has_cpu_flag("svm")) {
                (Some(true), _) => Some("kvm_intel"),
                (_, Some(true)) => Some("kvm_amd"),
                _ => None,
            };
            match module {
                Some(module) => ("/dev/kvm is missing".into(), as_root(&format!("modprobe {module}"))),
                None => (
                    "/dev/kvm is missing, and the CPU shows no VT-x or AMD-V".into(),
                    "switch virtualization on in the firmware (or nested virtualization on in the outer machine)".into(),
                ),
            }
        }
        Ok(_) => (format!("/dev/kvm opens, but cannot be used: {reason}"), "use --accel tcg".into()),
    }
}

/// What lets this user use /dev/kvm: to belong to its group, where udev gave it to one that may use it, as it does on most
/// machines; otherwise to open it to everyone, until the next start.
fn permit(user: &str, mode: u32, gid: u32, groups: &str) -> String {
    // A line of group(5): NAME:PASSWORD:GID:MEMBERS.
    let named = |line: &&str| line.split(':').nth(2).and_then(|text| text.parse().ok()) == Some(gid);
    let group = groups.lines().find(named).and_then(|line| line.split(':').next());
    match group {
        Some(group) if gid != 0 && mode & 0o060 == 0o060 => {
            format!("{}; then log in again", as_root(&format!("usermod -aG {group} {user}")))
        }
        _ => as_root(&format!("chmod 666 {KVM}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_the_device_is_the_way_in_only_where_it_may_use_it() {
        let groups = "root:x:0:\nkvm:x:104:eva\n";
        assert!(permit("eva", 0o20660, 104, groups).contains("usermod -aG kvm eva"));
        for (mode, gid) in [(0o20600, 104), (0o20660, 0), (0o20660, 7)] {
            assert!(permit("eva", mode, gid, groups).contains("chmod 666 /dev/kvm"), "{mode:o} {gid}");
        }
    }

    #[test]
    fn kvm_without_hardware_is_never_shown_as_plain_found() {
        assert_eq!(kvm(Ok(&Backing::Hardware), false).fix, None);
        let software = kvm(Ok(&Backing::Software), false);
        assert!(software.fix.is_some() && software.found.contains("not hardware-backed"));
    }

    #[test]
    fn without_kvm_qemu_decides_whether_a_vm_can_run_at_all() {
        use super::super::State;
        assert_eq!(kvm(Err("x"), true).state, State::Limited);
        assert_eq!(kvm(Err("x"), false).state, State::Missing);
    }
}
