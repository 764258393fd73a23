//! Security modules: labels that the kernel checks beside users and capabilities. AppArmor knows programs by profile,
//! SELinux knows everything by label; either is given to a process at its `execve(2)`, by a file of /proc
//! (`proc_pid_attr(5)`).

use std::ffi::{CStr, CString};
use std::path::Path;

use crate::error::{Error, Result};
use crate::spec::{Process, c_string};

/// The label of a process: the file of /proc that takes it, and what is written there.
#[derive(Debug)]
pub(crate) struct Label {
    pub(crate) file: &'static CStr,
    pub(crate) text: CString,
}

/// The label that a process asks for. A label that this kernel would ignore is an error: somebody relies on it.
pub(crate) fn label(process: &Process) -> Result<Option<Label>> {
    let some = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    if let Some(profile) = some(&process.apparmor_profile).filter(|profile| profile != "unconfined") {
        let field = "process.apparmorProfile";
        if !apparmor() {
            return Err(Error::config(field, "this kernel has no AppArmor in force; leave the profile out"));
        }
        // AppArmor's own directory of /proc is there since Linux 5.8; where SELinux has the files above, only there.
        let own = Path::new("/proc/self/attr/apparmor/exec").exists();
        let file = if own { c"/proc/self/attr/apparmor/exec" } else { c"/proc/self/attr/exec" };
        return Ok(Some(Label { file, text: c_string(field, format!("exec {profile}"))? }));
    }
    if let Some(label) = some(&process.selinux_label) {
        check_selinux("process.selinuxLabel")?;
        let text = c_string("process.selinuxLabel", label)?;
        return Ok(Some(Label { file: c"/proc/self/attr/exec", text }));
    }
    Ok(None)
}

/// That labels of SELinux mean something on this machine.
pub(crate) fn check_selinux(field: &str) -> Result<()> {
    if selinux() {
        return Ok(());
    }
    Err(Error::config(field, "this kernel has no SELinux in force; leave the label out"))
}

/// Whether AppArmor is in force.
pub(crate) fn apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// Whether SELinux is in force: then its file system is mounted.
pub(crate) fn selinux() -> bool {
    Path::new("/sys/fs/selinux/status").exists()
}
