//! Intel's Resource Director Technology: shares of a processor's cache and of the memory's bandwidth, as directories of the
//! file system `resctrl` (config-linux.md, "IntelRdt"; Documentation/filesystems/resctrl.rst).
//!
//! A directory is a class of service: its `schemata` says what the class may use, its `tasks` who belongs to it. Below
//! `mon_groups` a container has a directory whose use is counted. What the runtime made, it removes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// The class of one container. It is written to the state file, so that whoever deletes the container finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Class {
    path: PathBuf,
    /// Whether the directory is not there yet, so that it is ours to make and to remove.
    new: bool,
    /// Lines of `schemata`, in the order to write them.
    #[serde(skip)]
    schemata: Vec<String>,
    /// The directory that counts the container's use.
    monitor: Option<PathBuf>,
}

/// Names in the file system's root that are no classes.
const RESERVED: &[&str] = &[".", "..", "info", "mon_groups", "mon_data"];

impl Class {
    /// Works out a container's class; makes nothing yet.
    pub(crate) fn plan(rdt: Option<&LinuxIntelRdt>, id: &str) -> Result<Option<Self>> {
        let Some(rdt) = rdt else { return Ok(None) };
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("read", "/proc/self/mountinfo")?;
        let root = mount_point(&mounts).ok_or_else(|| {
            let reason = "no resctrl file system is mounted; on a kernel with CONFIG_X86_CPU_RESCTRL and a processor \
                          that has it: mount -t resctrl resctrl /sys/fs/resctrl; else leave it out";
            Error::config("linux.intelRdt", reason)
        })?;
        Self::below(&root, rdt, id).map(Some)
    }

    /// Below a given root of the file system.
    pub(crate) fn below(root: &Path, rdt: &LinuxIntelRdt, id: &str) -> Result<Self> {
        let configured = rdt.clos_id().as_deref().filter(|name| !name.is_empty());
        let name = configured.unwrap_or(id);
        if name.contains(['/', '\n']) || RESERVED.contains(&name) {
            return Err(Error::config("linux.intelRdt.closID", format!("{name:?} cannot be a class's name")));
        }
        let (path, schemata) = (root.join(name), schemata(rdt)?);
        let new = !path.is_dir();
        if new && configured.is_some() && schemata.is_empty() {
            let reason =
                format!("there is no class {name:?} below {}; make it, or give a schema", root.display());
            return Err(Error::config("linux.intelRdt.closID", reason));
        }
        if !new && configured.is_some() && !schemata.is_empty() {
            let file = path.join("schemata");
            let text = fs::read_to_string(&file).context("read", file.display())?;
            if let Some(line) = schemata.iter().find(|line| !holds(&text, line)) {
                let reason = format!("{line:?} differs from what the class {name:?} has; use another closID");
                return Err(Error::config("linux.intelRdt", reason));
            }
        }
        let monitor = (rdt.enable_monitoring() == &Some(true)).then(|| path.join("mon_groups").join(id));
        // What a class that was there before has already needs no writing.
        let schemata = if new || configured.is_none() { schemata } else { Vec::new() };
        Ok(Self { path, new, schemata, monitor })
    }

    /// Makes the directories, and says what the class may use.
    pub(crate) fn make(&self) -> Result<()> {
        for directory in self.new.then_some(&self.path).into_iter().chain(&self.monitor) {
            match fs::create_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result
                    .context("make (are there classes left? see info/*/num_closids)", directory.display())?,
            }
        }
        self.write(&self.schemata)
    }

    /// Gives a class that is there other shares.
    pub(crate) fn change(&self, rdt: &LinuxIntelRdt) -> Result<()> {
        self.write(&schemata(rdt)?)
    }

    fn write(&self, schemata: &[String]) -> Result<()> {
        let file = self.path.join("schemata");
        for line in schemata {
            fs::write(&file, format!("{line}\n")).map_err(|error| {
                let status = self.path.with_file_name("info").join("last_cmd_status");
                let status = fs::read_to_string(status).unwrap_or_default();
                let reason = format!("writing {line:?} to {}: {error} {}", file.display(), status.trim());
                Error::config("linux.intelRdt", reason)
            })?;
        }
        Ok(())
    }

    /// Puts a process into the class.
    pub(crate) fn enter(&self, pid: i32) -> Result<()> {
        for directory in [&self.path].into_iter().chain(&self.monitor) {
            let file = directory.join("tasks");
            match fs::write(&file, pid.to_string()) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {} // it has exited
                result => result.context("write a process to", file.display())?,
            }
        }
        Ok(())
    }

    /// Removes what was made, but a class that others have joined. Repeatable.
    pub(crate) fn remove(&self) -> Result<()> {
        let empty = || fs::read_to_string(self.path.join("tasks")).is_ok_and(|tasks| tasks.trim().is_empty());
        let class = (self.new && empty()).then_some(&self.path);
        for directory in self.monitor.iter().chain(class) {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).context("remove", directory.display());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Where resctrl is mounted: a line of mountinfo whose type, the first field after " - ", is that (`proc_pid_mountinfo(5)`).
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    let mut lines = mountinfo.lines().filter_map(|line| line.split_once(" - "));
    let (mount, _) = lines.find(|(_, end)| end.split(' ').next() == Some("resctrl"))?;
    mount.split(' ').nth(4).map(PathBuf::from)
}

/// The lines to write: those of the two schemas, then those of the whole one, which is to be written last.
fn schemata(rdt: &LinuxIntelRdt) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let bandwidth = rdt.mem_bw_schema().as_deref().filter(|schema| !schema.is_empty());
    let cache = rdt.l3_cache_schema().as_deref().unwrap_or_default().lines();
    lines.extend(cache.filter(|line| bandwidth.is_none() || !line.starts_with("MB:")).map(str::to_owned));
    if let Some(schema) = bandwidth {
        if !schema.starts_with("MB:") || schema.contains('\n') {
            let reason = format!("{schema:?} must be one line that begins with MB:");
            return Err(Error::config("linux.intelRdt.memBwSchema", reason));
        }
        lines.push(schema.to_owned());
    }
    lines.extend(rdt.schemata().iter().flatten().flat_map(|lines| lines.lines()).map(str::to_owned));
    lines.retain(|line| !line.trim().is_empty());
    Ok(lines)
}

/// Whether a class's schemata have what a line asks for. The kernel writes numbers and blanks in its own way.
fn holds(schemata: &str, line: &str) -> bool {
    let Some((resource, asked)) = parse(line) else { return false };
    schemata
        .lines()
        .filter_map(parse)
        .any(|(name, there)| name == resource && asked.iter().all(|one| there.contains(one)))
}

/// "L3:0=7f;1=1f" as the resource's name and (cache, bits) of each.
fn parse(line: &str) -> Option<(&str, Vec<(&str, String)>)> {
    let (resource, domains) = line.trim().split_once(':')?;
    let domains = domains.split(';').map(|domain| {
        let (id, value) = domain.split_once('=')?;
        let value = value.trim().to_ascii_lowercase();
        let short = value.trim_start_matches('0');
        Some((id.trim(), if short.is_empty() { "0".to_owned() } else { short.to_owned() }))
    });
    Some((resource.trim(), domains.collect::<Option<Vec<_>>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree that looks like resctrl; what the kernel does on a write is not tried here.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("lab-rdt-{}-{name}", std::process::id()));
            fs::create_dir_all(root.join("there/mon_groups")).unwrap();
            fs::write(root.join("there/schemata"), "    MB:0= 20;1= 70\n    L3:0=007f;1=001f\n").unwrap();
            fs::write(root.join("there/tasks"), "").unwrap();
            Self(root)
        }

        fn plan(&self, json: &str) -> Result<Class> {
            Class::below(&self.0, &serde_json::from_str(json).unwrap(), "id")
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_class_is_the_containers_own_or_one_by_name() {
        let tree = Tree::new("names");
        let own = tree.plan(r#"{"l3CacheSchema":"L3:0=f\nMB:0=10","memBwSchema":"MB:0=20"}"#).unwrap();
        assert_eq!((own.path.as_path(), own.new), (tree.0.join("id").as_path(), true));
        assert_eq!(own.schemata, ["L3:0=f", "MB:0=20"]);
        let named = tree.plan(r#"{"closID":"there","enableMonitoring":true}"#).unwrap();
        assert_eq!((named.new, named.monitor.clone()), (false, Some(tree.0.join("there/mon_groups/id"))));
        let whole = tree.plan(r#"{"closID":"new","l3CacheSchema":"L3:0=1","schemata":["L2:0=f","MB:0=9"]}"#);
        assert_eq!(whole.unwrap().schemata, ["L3:0=1", "L2:0=f", "MB:0=9"]);
        named.change(&serde_json::from_str(r#"{"l3CacheSchema":"L3:0=3"}"#).unwrap()).unwrap();
        assert_eq!(fs::read_to_string(tree.0.join("there/schemata")).unwrap(), "L3:0=3\n");
    }

    #[test]
    fn a_class_that_is_there_must_have_what_is_asked_for() {
        let tree = Tree::new("compare");
        tree.plan(r#"{"closID":"there","l3CacheSchema":"L3:0=7F","memBwSchema":"MB:1=70"}"#).unwrap();
        for json in [
            r#"{"closID":"there","l3CacheSchema":"L3:0=3f"}"#,
            r#"{"closID":"there","schemata":["L2:0=f"]}"#,
            r#"{"closID":"absent"}"#,
            r#"{"closID":"../x","schemata":["L3:0=f"]}"#,
            r#"{"closID":"info","schemata":["L3:0=f"]}"#,
            r#"{"memBwSchema":"L3:0=f"}"#,
        ] {
            assert!(tree.plan(json).unwrap_err().to_string().starts_with("linux.intelRdt"), "{json}");
        }
    }

    #[test]
    fn what_was_made_is_removed_and_what_was_there_stays() {
        let tree = Tree::new("remove");
        let named = tree.plan(r#"{"closID":"there","enableMonitoring":true}"#).unwrap();
        named.make().unwrap();
        assert!(tree.0.join("there/mon_groups/id").is_dir());
        named.remove().unwrap();
        named.remove().unwrap();
        assert!(tree.0.join("there").is_dir() && !tree.0.join("there/mon_groups/id").exists());
    }

    #[test]
    fn resctrl_is_found_wherever_it_is_mounted() {
        let text = "30 23 0:26 / /sys rw - sysfs sysfs rw\n31 30 0:27 / /sys/fs/resctrl rw,relatime - resctrl resctrl rw\n";
        assert_eq!(mount_point(text).as_deref(), Some(Path::new("/sys/fs/resctrl")));
        assert_eq!(mount_point("30 23 0:26 / /resctrl rw - sysfs resctrl rw\n"), None);
    }
}
