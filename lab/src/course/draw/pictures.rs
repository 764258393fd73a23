//! The pictures: what `/proc` says of a sandbox, as trees.

use std::fs;

use microvm::arch::layout;
use procfs::process::{MMPermissions, MountInfo, Process, VmFlags};

use super::super::look::Look;
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
    /// Processors and guest memory of virtual machines.
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
        Picture::Network => each("network", network),
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
    let processes = sandbox.processes.iter().map(|look| {
        let inner = look.inner_pid().map_or_else(|| "?".to_owned(), |pid| pid.to_string());
        Node::new(format!("{inner}  {}  (outside {})", command(look), look.pid))
    });
    nodes.push(Node::new("processes").with(processes));
    nodes
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

/// The sandbox's group with its limits and meters, whichever version counts them.
fn cgroups(sandbox: &Sandbox) -> Vec<Node> {
    let first = &sandbox.processes[0];
    let read = |controller: &str, files: &[&str]| {
        let group = first.group(controller)?;
        files
            .iter()
            .find_map(|file| fs::read_to_string(group.join(file)).ok())
            .map(|text| text.trim().to_owned())
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
    let used = size(read("memory", &["memory.current", "memory.usage_in_bytes"]));
    let most = size(read("memory", &["memory.max", "memory.limit_in_bytes"]));
    let (count, limit) = (plain(read("pids", &["pids.current"])), plain(read("pids", &["pids.max"])));
    let path = first.group("pids").unwrap_or_default();
    vec![Node::new(path.display().to_string()).with([
        Node::new(format!("memory     {used} of {most}")),
        Node::new(format!("processes  {count} of {limit}")),
    ])]
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// The interfaces of the first process's network namespace (`/proc/PID/net/dev`: two head lines, then one each).
fn network(sandbox: &Sandbox) -> Vec<Node> {
    let first = &sandbox.processes[0];
    let text = fs::read_to_string(first.path("net/dev")).unwrap_or_default();
    let interfaces = text.lines().skip(2).filter_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<&str> = numbers.split_whitespace().collect();
        let (received, sent) = (numbers.first()?, numbers.get(8)?);
        Some(Node::new(format!("{}  {received} bytes in, {sent} out", name.trim())))
    });
    let shared = first.namespace("net") == Look::at(std::process::id() as i32).namespace("net");
    let title = if shared { "the host's own interfaces" } else { "its own namespace" };
    vec![Node::new(title).with(interfaces)]
}

/// The processors (threads of the monitor), and where the guest sees its memory.
fn machine(sandbox: &Sandbox) -> Vec<Node> {
    let monitor = &sandbox.processes[0];
    let tasks = fs::read_dir(monitor.path("task")).into_iter().flatten().flatten();
    let threads = tasks.filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let number = task.file_name().into_string().ok()?;
        Some(Node::new(format!("{}  (thread {number})", name.trim())))
    });
    let mut nodes = vec![Node::new("monitor's threads").with(threads)];
    if let Some((size, touched)) = guest_memory(monitor.pid) {
        let map = layout::memory_map(size).into_iter().map(|(start, length, usable)| {
            let kind = if usable { "RAM" } else { "reserved" };
            Node::new(format!("{start:#012x} … {:#012x}  {kind}, {}", start + length, mib(length)))
        });
        let title = format!("guest memory  {}, of which {} are in use on the host", mib(size), mib(touched));
        nodes.push(Node::new(title).with(map));
    }
    nodes
}

/// Size and touched bytes of the guest's memory: the monitor's largest run of mappings that reserve nothing, as guest memory is
/// mapped (MAP_NORESERVE, `mmap(2)`); the kernel's file, mapped into it, is part of the run.
fn guest_memory(pid: i32) -> Option<(u64, u64)> {
    let maps = Process::new(pid).ok()?.smaps().ok()?;
    let (mut best, mut run) = (None::<(u64, u64)>, None::<Run>);
    for map in maps {
        let (start, end) = map.address;
        let written = map.perms.contains(MMPermissions::READ | MMPermissions::WRITE);
        let unreserved = map.extension.vm_flags.contains(VmFlags::NR);
        let rss = map.extension.map.get("Rss").copied().unwrap_or_default();
        run = match run.take() {
            Some(mut run) if written && run.last == start => {
                (run.last, run.rss) = (end, run.rss + rss);
                if unreserved {
                    (run.end, run.touched) = (end, run.rss);
                }
                Some(run)
            }
            _ if written && unreserved => Some(Run { start, end, last: end, rss, touched: rss }),
            _ => None,
        };
        if let Some(run) = &run {
            // Guests have whole MiB; a neighbour of less may lie beside them.
            best = best.max(Some(((run.end - run.start) >> 20 << 20, run.touched)));
        }
    }
    best
}

/// Mappings that lie side by side; `end` is that of the last one that reserves nothing.
struct Run {
    start: u64,
    end: u64,
    last: u64,
    rss: u64,
    touched: u64,
}
