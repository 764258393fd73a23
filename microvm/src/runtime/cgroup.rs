//! The control group of a monitor: who looks for the container's use finds the machine's there, and a CPU quota holds for
//! all that the machine does. Memory needs no limit: a guest has what it was given, and no more.
//!
//! Both versions are served: with version 1 the same folder is made in each hierarchy, with version 2 there is one.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::LinuxCpu;

use crate::Error;
use crate::spec::Spec;

/// The folders that a bundle wants, one in each hierarchy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cgroup {
    folders: Vec<PathBuf>,
    cpu: Option<LinuxCpu>,
}

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    unified: bool,
}

impl Cgroup {
    /// What `linux.cgroupsPath` names; a folder of the machine's name where it names nothing.
    pub(crate) fn plan(spec: &Spec, id: &str) -> Result<Self, Error> {
        let path = spec.linux.cgroups_path.as_deref().filter(|path| !path.as_os_str().is_empty());
        let path = path.map_or_else(|| format!("lab-vm-{id}").into(), of_systemd);
        if path.components().any(|part| part == Component::ParentDir) {
            let reason = format!("{} must not climb; leave out its ..", path.display());
            return Err(Error::Config { field: "linux.cgroupsPath".into(), reason });
        }
        let below = path.strip_prefix("/").unwrap_or(&path);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Ok(Self {
            folders: hierarchies(&mounts).into_iter().map(|hierarchy| hierarchy.mount.join(below)).collect(),
            cpu: spec.linux.resources.cpu.clone(),
        })
    }

    /// The folders, for the state.
    pub(crate) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Makes the folders and sets the quota. Who may not make any (an ordinary user) has no control group, and that is no
    /// error unless a quota was asked for.
    pub(crate) fn make(&mut self) -> Result<(), Error> {
        for folder in std::mem::take(&mut self.folders) {
            match make(&folder) {
                Ok(()) => self.folders.push(folder),
                Err(error) if is_refused(&error) => {}
                Err(error) => return Err(Error::file("make the control group", folder)(error)),
            }
        }
        let Some(cpu) = &self.cpu else { return Ok(()) };
        set_cpu(&self.folders, cpu)
    }

    /// Moves the process in.
    pub(crate) fn enter(&self, pid: i32) -> Result<(), Error> {
        for folder in &self.folders {
            let file = folder.join("cgroup.procs");
            match fs::write(&file, pid.to_string()) {
                Err(error) if !is_refused(&error) => return Err(Error::file("write", file)(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Gives a running machine another quota.
pub(crate) fn set_cpu(folders: &[PathBuf], cpu: &LinuxCpu) -> Result<(), Error> {
    let mut values: Vec<(&str, String)> = Vec::new();
    let period = cpu.period().unwrap_or(100_000);
    if let Some(quota) = cpu.quota() {
        let max = if quota > 0 { quota.to_string() } else { "max".into() };
        values.push(("cpu.max", format!("{max} {period}")));
        values.push(("cpu.cfs_period_us", period.to_string()));
        values.push(("cpu.cfs_quota_us", quota.to_string()));
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares > 0) {
        values.push(("cpu.shares", shares.to_string()));
        // The same share in version 2's scale (from 2 … 262144 to 1 … 10000), as runc and crun convert it.
        values.push(("cpu.weight", (1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142).to_string()));
    }
    for (name, value) in values {
        for file in folders.iter().map(|folder| folder.join(name)).filter(|file| file.exists()) {
            fs::write(&file, &value).map_err(Error::file("write", file))?;
        }
    }
    Ok(())
}

/// Removes the folders of a machine that is gone. Repeatable.
pub(crate) fn remove(folders: &[PathBuf]) -> Result<(), Error> {
    for folder in folders {
        // Processes that have just ended may still be counted.
        for left in (0..50).rev() {
            match fs::remove_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && left > 0 => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound && !is_refused(&error) => {
                    return Err(Error::file("remove the control group", folder)(error));
                }
                _ => break,
            }
        }
    }
    Ok(())
}

fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// "slice:prefix:name" is how engines name a unit of systemd's; that makes the folder slice/prefix-name.scope of it.
fn of_systemd(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    match text.split(':').collect::<Vec<_>>()[..] {
        [slice, prefix, name] if !text.contains('/') => {
            let slice = if slice.is_empty() { "system.slice" } else { slice };
            Path::new(slice).join(format!("{prefix}-{name}.scope"))
        }
        _ => path.to_owned(),
    }
}

/// Makes a folder, and hands controllers down to it where the hierarchy is of version 2.
fn make(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let above: Vec<_> = folder.ancestors().skip(1).collect();
    for ancestor in above.into_iter().rev() {
        let control = ancestor.join("cgroup.subtree_control");
        if control.exists() {
            // A controller that is not there, or in use by version 1, is left out.
            let _ = fs::write(&control, "+cpu");
            let _ = fs::write(&control, "+memory");
        }
    }
    // A set of CPUs begins empty in version 1 and takes nobody then.
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let (own, parent) = (folder.join(name), folder.parent().unwrap_or(folder).join(name));
        if fs::read_to_string(&own).is_ok_and(|text| text.trim().is_empty())
            && !folder.join("cgroup.controllers").exists()
        {
            fs::write(own, inherited(&parent, name)?.trim())?;
        }
    }
    Ok(())
}

/// The nearest set of CPUs or memory nodes above that is not empty; those on the way are filled.
fn inherited(file: &Path, name: &str) -> io::Result<String> {
    let text = fs::read_to_string(file)?;
    if !text.trim().is_empty() {
        return Ok(text);
    }
    let above = file.parent().and_then(Path::parent).ok_or(io::ErrorKind::NotFound)?;
    let text = inherited(&above.join(name), name)?;
    fs::write(file, text.trim())?;
    Ok(text)
}

/// All hierarchies, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    let hierarchy = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        let unified = match after.split(' ').next()? {
            "cgroup2" => true,
            "cgroup" => false,
            _ => return None,
        };
        // A bind mount of a part of the tree shows other folders than the paths name.
        (root == "/").then(|| Hierarchy { mount: mount.into(), unified })
    };
    let mut all: Vec<Hierarchy> = mounts.lines().filter_map(hierarchy).collect();
    all.sort_by(|a, b| (a.unified, &a.mount).cmp(&(b.unified, &b.mount)));
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:4 - cgroup2 cgroup2 rw\n\
             31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
             32 23 0:27 /docker/x /sys/fs/cgroup/part rw - cgroup cgroup rw,cpu\n\
             23 1 0:20 / /sys rw - sysfs sysfs rw\n";
        let found: Vec<_> = hierarchies(mounts).into_iter().map(|h| (h.mount, h.unified)).collect();
        assert_eq!(found, [("/sys/fs/cgroup/cpu".into(), false), ("/sys/fs/cgroup/unified".into(), true)]);
    }

    #[test]
    fn a_name_of_systemds_becomes_its_folder() {
        assert_eq!(of_systemd(Path::new("user.slice:docker:1a")), Path::new("user.slice/docker-1a.scope"));
        assert_eq!(of_systemd(Path::new(":lab:1a")), Path::new("system.slice/lab-1a.scope"));
        assert_eq!(of_systemd(Path::new("/docker/1a")), Path::new("/docker/1a"));
    }
}
