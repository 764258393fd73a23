//! Which sandboxes there are, seen in `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use microvm::stats::DeviceReport;

use super::super::look::Look;

/// The folder of all sandboxes' groups.
const GROUP: &str = "/lab/";

/// What a sandbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Processes of the host in namespaces.
    Container,
    /// A monitor with a virtual machine.
    Machine,
}

/// A sandbox that runs.
#[derive(Debug)]
pub struct Sandbox {
    /// The engine's name for it, or the beginning of its id.
    pub name: String,
    /// Its id; of a machine that the engine does not know, its monitor's process.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Its processes, the first one first.
    pub processes: Vec<Look>,
    /// The devices of a machine, where its monitor told of them.
    pub devices: Vec<DeviceReport>,
}

/// All that run. `name` knows the engine's names of ids, and of processes.
pub fn see(name: impl Fn(&str, i32) -> Option<String>) -> Vec<Sandbox> {
    let mut containers: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    let mut machines = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if holds_machine(pid) {
            machines.push(pid);
        } else if let Some(id) = group_of(pid) {
            containers.entry(id).or_default().push(pid);
        }
    }
    machines.sort_unstable();
    // An id of the engine's is shortened, as everywhere; anything else is shown whole.
    let short = |id: &str| id.get(..12).filter(|_| id.len() == 64).unwrap_or(id).to_owned();
    let called = |id: &str, pid| name(id, pid).unwrap_or_else(|| short(id));
    let containers = containers.into_iter().map(|(id, mut pids)| {
        // The first has number 1 inside; where numbers are the host's, it is the oldest.
        pids.sort_by_key(|&pid| (Look::at(pid).inner_pid().unwrap_or(i32::MAX), pid));
        let processes: Vec<Look> = pids.into_iter().map(Look::at).collect();
        let name = called(&id, processes[0].pid);
        Sandbox { name, id, kind: Kind::Container, processes, devices: Vec::new() }
    });
    let machines = machines.into_iter().map(|pid| {
        let processes = vec![Look::at(pid)];
        let (name, id) = match monitored(pid) {
            Some(id) => (called(&id, pid), id),
            None => (called(&format!("monitor {pid}"), pid), pid.to_string()),
        };
        Sandbox { name, id, kind: Kind::Machine, processes, devices: Vec::new() }
    });
    containers.chain(machines).collect()
}

/// The sandbox whose group a process is in: `/lab/ID` of any tree.
fn group_of(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.splitn(3, ':').nth(2)?.split_once(GROUP))?.1;
    let id = path.split('/').next().filter(|id| !id.is_empty())?;
    Some(id.to_owned())
}

/// Which container's monitor a process is, if it is one: it holds the sandbox's folder, `sandboxes/ID`.
fn monitored(pid: i32) -> Option<String> {
    let held =
        descriptors(pid).find(|path| path.parent().is_some_and(|parent| parent.ends_with("sandboxes")))?;
    Some(held.file_name()?.to_str()?.to_owned())
}

/// A monitor holds descriptors that KVM made.
fn holds_machine(pid: i32) -> bool {
    descriptors(pid).any(|path| path.as_os_str() == "anon_inode:kvm-vm")
}

/// What a process's descriptors are, as far as we may see it.
fn descriptors(pid: i32) -> impl Iterator<Item = PathBuf> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    all.filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
}
