//! Which processors measured processes may use (sched_setaffinity(2)): monitors and containers, the vCPUs in monitors, and what puts
//! load on a server, each apart where that is asked for.
//!
//! A child has its parent's affinity, so whoever starts a process sets its own first. A vCPU is a thread that a monitor starts: it is
//! looked for, by its name, and moved as soon as it is seen, within some milliseconds.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// How often new vCPUs are looked for.
const TICK: Duration = Duration::from_millis(3);
/// How their threads are called: by our monitor and Firecracker's kin, and by QEMU.
const NAMES: [&str; 3] = ["vcpu", "fc_vcpu", "CPU "];

/// The processors asked for; empty for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// Of all that is measured, where nothing else is said.
    pub all: Vec<usize>,
    /// Of vCPUs.
    pub vcpus: Vec<usize>,
    /// Of clients that put load on a server behind a wall.
    pub load: Vec<usize>,
}

/// Holds this thread, and so all that it spawns, to some CPUs until dropped.
pub struct Pin(Option<CpuSet>);

impl Pin {
    /// To these; to all where there are none.
    pub fn to(cpus: &[usize]) -> Self {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this).ok();
        Self(before.filter(|_| set(cpus).is_some_and(|set| sched_setaffinity(this, &set).is_ok())))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = sched_setaffinity(Pid::from_raw(0), before);
        }
    }
}

fn set(cpus: &[usize]) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    (!cpus.is_empty() && cpus.iter().all(|&cpu| set.set(cpu).is_ok())).then_some(set)
}

/// Does some work, and moves the vCPUs of all monitors among this process's children meanwhile.
pub fn with_vcpus<T>(pins: &Pins, work: impl FnOnce() -> T) -> T {
    let Some(wanted) = set(&pins.vcpus) else { return work() };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Looking must not disturb what it looks at.
            let _own = Pin::to(&pins.load);
            while !over.load(Ordering::Relaxed) {
                for thread in vcpus() {
                    if sched_getaffinity(thread).is_ok_and(|has| has != wanted) {
                        let _ = sched_setaffinity(thread, &wanted);
                    }
                }
                std::thread::sleep(TICK);
            }
        });
        let _ending = SetAtEnd(&over);
        work()
    })
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The threads of children that are vCPUs, and of their children: a monitor may be behind another process.
fn vcpus() -> Vec<Pid> {
    let mut found = Vec::new();
    let mut processes = vec!["self".to_owned()];
    while let Some(process) = processes.pop() {
        let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
        for thread in threads.flatten() {
            let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
            if process != "self" && NAMES.iter().any(|start| name.starts_with(start)) {
                found.extend(thread.file_name().to_string_lossy().parse().ok().map(Pid::from_raw));
            }
            // proc_tid_children(5)
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            processes.extend(children.split_whitespace().map(str::to_owned));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_s_thread_with_a_vcpu_s_name_is_moved_and_this_thread_is_not() {
        let mine = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let allowed: Vec<usize> =
            (0..CpuSet::count()).filter(|&cpu| mine.is_set(cpu).unwrap_or(false)).collect();
        let pins = Pins { vcpus: vec![allowed[0]], ..Pins::default() };
        // A process may call itself anything (proc_pid_comm(5)).
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "echo vcpu0 >/proc/$$/comm; read line"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let moved = with_vcpus(&pins, || {
            (0..2000).any(|_| {
                std::thread::sleep(Duration::from_millis(5));
                sched_getaffinity(pid).is_ok_and(|has| Some(has) == set(&pins.vcpus))
            })
        });
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(moved);
        assert_eq!(sched_getaffinity(Pid::from_raw(0)).unwrap(), mine);
    }
}
