//! A virtual machine: its processors, its memory as the guest sees it, its devices and their queues.

use std::fs;

use microvm::arch::layout;
use microvm::stats::{DeviceReport, QueueReport};
use procfs::process::{MMPermissions, Process, VmFlags};

use super::pictures::mib;
use super::{Node, Sandbox};

/// The processors (threads of the monitor), and where the guest sees its memory.
pub(super) fn machine(sandbox: &Sandbox) -> Vec<Node> {
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
    if !sandbox.devices.is_empty() {
        let windows = (0..).map(|number| layout::VIRTIO + number * layout::VIRTIO_SIZE);
        let devices = windows.zip(&sandbox.devices).map(|(window, report)| device(window, report));
        nodes.push(Node::new("virtio devices").with(devices));
    }
    nodes
}

/// A device: its window of registers, and its queues.
fn device(window: u64, report: &DeviceReport) -> Node {
    let fault = report.fault.as_ref().map(|fault| format!(", stopped: {fault}")).unwrap_or_default();
    let text = format!("{window:#012x}  {}, called {} times{fault}", report.name, report.operations);
    Node::new(text).with(report.queues.iter().enumerate().map(|(number, report)| queue(number, report)))
}

/// A queue: its three tables in guest memory, and how far each side is. The indices count modulo 65536.
fn queue(number: usize, report: &QueueReport) -> Node {
    let QueueReport { size, descriptors, available, used, offered, taken, returned } = report;
    let (waiting, working) = (offered.wrapping_sub(*taken), taken.wrapping_sub(*returned));
    Node::new(format!("queue {number}: {waiting} chains wait, the device holds {working}")).with([
        Node::new(format!("{descriptors:#012x}  descriptors, {size}")),
        Node::new(format!("{available:#012x}  available ring, the driver's: index {offered}")),
        Node::new(format!("{used:#012x}  used ring, the device's: index {returned}")),
    ])
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
