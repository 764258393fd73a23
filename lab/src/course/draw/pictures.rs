//! The pictures: what `/proc` says of a sandbox, as trees.

use std::fs;
use std::path::Path;

use procfs::process::MountInfo;

use super::super::look::Look;
use super::machine::machine;
use super::network::network;
use super::{Kind, Node, Sandbox};

/// What is to be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    /// Which lists each process is shown, and the processes.
    Namespaces,
    /// What is mounted where.
    Mounts,
    /// Groups, with limits and use.
    Cgroups,
    /// Interfaces.
    Network,
    /// Processors, guest memory and virtqueues of virtual machines.
    Machine,
}

impl Picture {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Namespaces, Self::Mounts, Self::Cgroups, Self::Network, Self::Machine];
}

/// The kinds of namespaces, as `/proc/PID/ns` has them.
const KINDS: [&str; 8] = ["user", "mnt", "pid", "net", "uts", "ipc", "cgroup", "time"];

/// Draws a picture of these sandboxes.
pub fn draw(picture: Picture, sandboxes: &[Sandbox]) -> Node {
    let of = |kind| sandboxes.iter().filter(move |sandbox| sandbox.kind == kind);
    let each = |title: &str, one: fn(&Sandbox) -> Vec<Node>| {
        let below = of(Kind::Container).map(|sandbox| Node::new(heading(sandbox)).with(one(sandbox)));
        Node::new(title).with(below)
    };
    match picture {
        Picture::Namespaces => each("namespaces", namespaces),
        Picture::Mounts => each("mounts", mounts),
        Picture::Cgroups => each("control groups", cgroups),
        Picture::Network => {
            // Machines have network cards, too: what is seen of them is the host's end.
            let wired = sandboxes.iter().map(|sandbox| (sandbox, network(sandbox)));
            let wired = wired.filter(|(_, nodes)| !nodes.is_empty());
            Node::new("network").with(wired.map(|(sandbox, nodes)| Node::new(heading(sandbox)).with(nodes)))
        }
        Picture::Machine => {
            let below = of(Kind::Machine).map(|sandbox| Node::new(heading(sandbox)).with(machine(sandbox)));
            Node::new("virtual machines").with(below)
        }
    }
}

fn heading(sandbox: &Sandbox) -> String {
    let first = &sandbox.processes[0];
    format!("{} (process {} of the host)", sandbox.name, first.pid)
}

/// New and shared lists, then the processes with both of their numbers.
fn namespaces(sandbox: &Sandbox) -> Vec<Node> {
    let (first, host) = (&sandbox.processes[0], Look::at(std::process::id() as i32));
    let mut nodes: Vec<Node> = KINDS
        .iter()
        .filter_map(|kind| {
            let number = first.namespace(kind)?;
            let shared = host.namespace(kind) == Some(number);
            let note = if shared { "shared with the host" } else { "its own" };
            Some(Node::new(format!("{kind:<6} {number}  {note}")))
        })
        .collect();
    nodes.push(Node::new("processes").with(family(sandbox, None)));
    nodes
}

/// The sandbox's processes below one of them; below none, those whose parent is outside.
fn family(sandbox: &Sandbox, parent: Option<i32>) -> Vec<Node> {
    let inside = |pid: i32| sandbox.processes.iter().any(|look| look.pid == pid);
    let of = |look: &Look| {
        // What it is while it ends, nobody knows: then it stands at the top.
        let above = look.status().map(|status| status.ppid).filter(|&pid| inside(pid) && pid != look.pid);
        above == parent
    };
    let children = sandbox.processes.iter().filter(|look| of(look));
    children
        .map(|look| {
            let inner = look.inner_pid().map_or_else(|| "?".to_owned(), |pid| pid.to_string());
            let text = format!("{inner}  {}  (outside {})", command(look), look.pid);
            Node::new(text).with(family(sandbox, Some(look.pid)))
        })
        .collect()
}

fn command(look: &Look) -> String {
    fs::read_to_string(look.path("comm")).unwrap_or_default().trim().to_owned()
}

/// The tree of mounts: each below the mount that it lies in.
fn mounts(sandbox: &Sandbox) -> Vec<Node> {
    let all = sandbox.processes[0].mounts();
    let root = all.iter().find(|mount| !all.iter().any(|other| other.mnt_id == mount.pid));
    root.map(|root| below(root, &all, 0)).into_iter().collect()
}

/// A chain of mounts is no longer than this, or the table was read while it changed.
const DEEPEST: usize = 32;

fn below(mount: &MountInfo, all: &[MountInfo], depth: usize) -> Node {
    let only = if mount.mount_options.contains_key("ro") { ", read-only" } else { "" };
    let text = format!("{}  {}{only}", mount.mount_point.display(), mount.fs_type);
    let children = all.iter().filter(|child| child.pid == mount.mnt_id && child.mnt_id != mount.mnt_id);
    if depth == DEEPEST {
        return Node::new(text);
    }
    Node::new(text).with(children.map(|child| below(child, all, depth + 1)))
}

/// The sandbox's groups: where the first process's is, as it is counted, and those below it.
fn cgroups(sandbox: &Sandbox) -> Vec<Node> {
    let first = &sandbox.processes[0];
    let (pids, memory) = (first.group("pids").unwrap_or_default(), first.group("memory").unwrap_or_default());
    vec![group(&pids, &memory, pids.display().to_string(), 0)]
}

/// One group with its limits and meters, whichever version counts them, and the groups in it.
fn group(pids: &Path, memory: &Path, name: String, depth: usize) -> Node {
    let read = |group: &Path, files: &[&str]| {
        let text = files.iter().find_map(|file| fs::read_to_string(group.join(file)).ok());
        text.map(|text| text.trim().to_owned())
    };
    let size = |text: Option<String>| match text.as_deref().map(str::parse::<u64>) {
        // Version 1 writes "no limit" as a number near 2^63.
        Some(Ok(bytes)) if bytes < 1 << 62 => mib(bytes),
        Some(_) => "no limit".to_owned(),
        None => "not counted".to_owned(),
    };
    let plain = |text: Option<String>| match text.as_deref() {
        Some("max") => "no limit".to_owned(),
        Some(text) => text.to_owned(),
        None => "not counted".to_owned(),
    };
    let used = size(read(memory, &["memory.current", "memory.usage_in_bytes"]));
    let most = size(read(memory, &["memory.max", "memory.limit_in_bytes"]));
    let (count, limit) = (plain(read(pids, &["pids.current"])), plain(read(pids, &["pids.max"])));
    let own = [
        Node::new(format!("memory     {used} of {most}")),
        Node::new(format!("processes  {count} of {limit}")),
    ];
    let folders = fs::read_dir(pids).into_iter().flatten().flatten();
    let mut names: Vec<String> = folders
        .filter(|entry| depth < DEEPEST && entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    let below = names.into_iter().map(|name| group(&pids.join(&name), &memory.join(&name), name, depth + 1));
    Node::new(name).with(own).with(below)
}

pub(super) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
