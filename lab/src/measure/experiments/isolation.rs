//! What does a workload see and reach of the machine around it?

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::LIMIT;
use crate::measure::bench::record::Unit;
use crate::measure::bench::session::{Site, seen_of};
use crate::measure::bench::subjects::{CONTAINER, HOST, VM};
use crate::measure::bench::{About, Case, Experiment, Metric, Paper, Seen};
use crate::measure::child::Call;

/// The experiment.
pub struct Isolation;

static ABOUT: About = About {
    name: "isolation",
    question: "What does a workload see of the machine around it, and how much of the host's kernel does it reach?",
    method: "A script looks at the kernel's release and boot id, the processes, devices and mounts in sight, the memory that it \
             believes to have, and the kernel's log, and opens, without writing to them, the files by which a whole kernel is ruled \
             (/dev/mem, /proc/sysrq-trigger, core_pattern, and others). A VM is run once more with each exit told, which are counted by kind, from \
             its first instruction to its end. Where strace is installed, a script that lists a folder, reads a file and prints \
             runs under it: counted are the host's system calls that the workload itself makes from its execve(2) on; for a VM, \
             those that its monitor makes from the first KVM_RUN on, and how often KVM_RUN came back.",
    blind_spot: "That a call is never made does not say that it could not be made. strace slows everything down; it counts calls, \
                 not what they do. Exits that KVM serves by itself, a queue's notification (ioeventfd) among them, are not seen by it. \
                 A file that opens in a VM rules the VM's own kernel, not the host's.",
    papers: &[Paper {
        source: "Anjali, Caraza-Harter, Swift, VEE 2020",
        says: "Firecracker's guests enter the host's kernel less often than containers do, but reach not much less of its code",
        line: None,
    }],
};

/// A name, then what is seen, a line each.
const LOOK: &str = "echo release $(uname -r); \
    echo boot $(cat /proc/sys/kernel/random/boot_id); \
    echo hostname $(hostname); \
    echo processes $(ls /proc | while read p; do [ -e /proc/$p/cmdline ] && echo $p; done | wc -l); \
    echo devices $(ls /dev | wc -l); \
    echo mounts $(wc -l </proc/self/mounts); \
    echo memory $(head -n 1 /proc/meminfo); \
    opened=; for f in /dev/mem /dev/port /dev/kmsg /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe \
    /proc/sys/vm/drop_caches /proc/irq/default_smp_affinity /sys/kernel/uevent_helper /sys/power/state /sys/fs/cgroup/cgroup.procs; \
    do [ -e $f ] && (: >>$f) 2>/dev/null && opened=$opened,$f; done; echo rules $opened; \
    echo log $(head -n 1 /dev/kmsg 2>/dev/null || echo hidden)";

/// Some work of files, processes and output, to be traced.
const WORK: &str = "ls / >/dev/null; cat /etc/passwd >/dev/null; hello";

impl Experiment for Isolation {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn metrics(&self) -> &'static [Metric] {
        const {
            &[
                Metric::less("processes", "processes in sight", Unit::Count),
                Metric::less("devices", "names in /dev", Unit::Count),
                Metric::shown("mounts", "mounts in sight", Unit::Count),
                Metric::less("rules", "files that rule its kernel and open for writing", Unit::Count),
                Metric::less("distinct-calls", "different calls of the host's kernel", Unit::Count),
                Metric::less("calls", "calls of the host's kernel", Unit::Count),
                Metric::shown("exits", "returns of KVM_RUN to the monitor", Unit::Count),
                Metric::shown(PORT_WRITES, "exits: a port written", Unit::Count),
                Metric::shown(PORT_READS, "exits: a port read", Unit::Count),
                Metric::shown(DEVICE_WRITES, "exits: a device's register written", Unit::Count),
                Metric::shown(DEVICE_READS, "exits: a device's register read", Unit::Count),
                Metric::shown(REPAIRS, "exits: an instruction that KVM cannot do", Unit::Count),
                Metric::shown(OTHERS, "exits: anything else", Unit::Count),
            ]
        }
    }

    fn cases(&self, site: &Site<'_>) -> Vec<Case> {
        let looks = site.cases(&[HOST, CONTAINER, VM]);
        let walls = site.cases(&[CONTAINER, VM]);
        let traced = walls.iter().map(|case| Case::with(&case.subject, TRACED)).collect::<Vec<_>>();
        let strace = crate::doctor::find_program("strace").is_some();
        let told = site.cases(&[VM]).into_iter().map(|case| Case::with(&case.subject, TOLD));
        looks.into_iter().chain(told).chain(traced.into_iter().filter(|_| strace)).collect()
    }

    fn rounds(&self, _quick: bool) -> u32 {
        1
    }

    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String> {
        let subject = site.subject(&case.subject)?;
        if case.variant == TRACED {
            return traced(site, case, &subject.call(&[], &["sh", "-c", WORK])?);
        }
        if case.variant == TOLD {
            return told(site, &subject.call(&["--explain"], &["sh", "-c", WORK])?);
        }
        look(site, &subject.call(&[], &["sh", "-c", LOOK])?)
    }
}

const TRACED: &str = "under strace";
const TOLD: &str = "each exit told";

const PORT_WRITES: &str = "port-writes";
const PORT_READS: &str = "port-reads";
const DEVICE_WRITES: &str = "device-writes";
const DEVICE_READS: &str = "device-reads";
const REPAIRS: &str = "repairs";
const OTHERS: &str = "other-exits";

fn look(site: &Site<'_>, call: &Call) -> Result<Seen, String> {
    let finished = site.finish(call, LIMIT)?;
    let mut seen = seen_of(call);
    let host = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let host = host.trim();
    for line in String::from_utf8_lossy(&finished.printed).lines() {
        let (name, text) = line.split_once(' ').unwrap_or((line, ""));
        match (name, text.trim().parse::<f64>()) {
            ("processes" | "devices" | "mounts", Ok(number)) => seen.value(name, number),
            ("rules", _) => {
                let names: Vec<_> = text.trim().split(',').filter(|name| !name.is_empty()).collect();
                seen.value("rules", names.len() as f64);
                seen.fact(
                    "opens for writing",
                    if names.is_empty() { "none".into() } else { names.join(" ") },
                );
            }
            // Which boot it is is nobody's business; whether it is the host's is the question.
            ("boot", _) => seen.fact("the host's kernel", if host == text.trim() { "yes" } else { "no" }),
            // A line of the log is.
            ("log", _) => {
                seen.fact("the kernel's log", if text == "hidden" { "hidden" } else { "can be read" });
            }
            ("release" | "hostname" | "memory", _) => seen.fact(name, crate::report::figures::plain(text)),
            _ => {}
        }
    }
    if seen.values.len() < 3 {
        return Err("the look around did not print what it should".into());
    }
    Ok(seen)
}

/// A VM whose exits are told on standard error (`lab run --explain`), which goes to a file here.
fn told(site: &Site<'_>, call: &Call) -> Result<Seen, String> {
    let log = site.scratch.join("exits.log");
    let shell = format!("exec \"$0\" \"$@\" 2>{}", log.display());
    let words = ["-c".into(), shell.into(), call.program.clone().into()];
    let before = words.into_iter().chain(call.before.iter().cloned()).collect();
    let wrapped = Call { program: "/bin/sh".into(), before, marks: false, ..call.clone() };
    site.finish(&wrapped, LIMIT)?;
    let text = fs::read(&log).map_err(|error| format!("read {}: {error}", log.display()))?;
    let _ = fs::remove_file(&log);
    let counted = count_exits(&String::from_utf8_lossy(&text));
    if counted.is_empty() {
        return Err("no exit was told".into());
    }
    let mut seen = seen_of(call);
    for kind in [PORT_WRITES, PORT_READS, DEVICE_WRITES, DEVICE_READS, REPAIRS, OTHERS] {
        seen.value(kind, counted.get(kind).copied().unwrap_or(0) as f64);
    }
    Ok(seen)
}

/// Counts lines such as `12.3 ms  vCPU 0  memory 0xd0000050 ← 0x0  virtio device 0: QueueNotify`.
fn count_exits(text: &str) -> BTreeMap<&'static str, u64> {
    let mut counted = BTreeMap::new();
    let told = text.lines().skip_while(|line| *line != "exits:");
    for what in told.filter_map(|line| line.split_once("  vCPU ")?.1.split_once("  ").map(|(_, what)| what)) {
        let mut count = |kind| *counted.entry(kind).or_insert(0) += 1;
        let (first, writes) = (what.split(' ').next().unwrap_or_default(), what.contains('←'));
        match (first, writes) {
            ("port", true) => count(PORT_WRITES),
            ("port", false) => count(PORT_READS),
            ("memory", true) => count(DEVICE_WRITES),
            ("memory", false) => count(DEVICE_READS),
            ("an", _) => count(REPAIRS),
            _ => count(OTHERS),
        }
    }
    counted
}

fn traced(site: &Site<'_>, case: &Case, call: &Call) -> Result<Seen, String> {
    let strace = crate::doctor::find_program("strace").ok_or("not installed: strace")?;
    let log = site.scratch.join("strace.log");
    let options = ["-f", "-qq", "-s", "0", "-o"].into_iter().map(Into::into);
    let mut before: Vec<_> = options.chain([log.clone().into(), call.program.clone().into()]).collect();
    before.extend(call.before.iter().cloned());
    let wrapped = Call { program: strace, before, ..call.clone() };
    site.finish(&wrapped, LIMIT)?;
    let counted = count(&log, case.subject == VM)?;
    let _ = fs::remove_file(&log);
    let mut seen = seen_of(call);
    seen.command = format!("strace -f {}", seen.command);
    seen.value("distinct-calls", counted.distinct.len() as f64);
    seen.value("calls", counted.calls as f64);
    if case.subject == VM {
        seen.value("exits", counted.exits as f64);
    }
    let names: Vec<_> = counted.distinct.into_iter().collect();
    seen.fact("calls", names.join(" "));
    Ok(seen)
}

#[derive(Debug, Default)]
struct Counted {
    distinct: BTreeSet<String>,
    calls: u64,
    exits: u64,
}

/// Counts the calls in a log of `strace -f -o`, whose lines begin with the process's number.
fn count(log: &Path, machine: bool) -> Result<Counted, String> {
    let text = fs::read(log).map_err(|error| format!("read {}: {error}", log.display()))?;
    let counted = count_lines(&String::from_utf8_lossy(&text), machine);
    if counted.calls == 0 { Err("strace saw no call of the workload".into()) } else { Ok(counted) }
}

fn count_lines(text: &str, machine: bool) -> Counted {
    let mut counted = Counted::default();
    // The workload's processes: the one that becomes its program, and all below it.
    let mut of_workload: BTreeSet<&str> = BTreeSet::new();
    let mut running = false;
    for line in text.lines() {
        let Some((process, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let resumed = rest.strip_prefix("<... ");
        let name = resumed.unwrap_or(rest);
        let name: &str =
            name.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default();
        if machine {
            running |= rest.starts_with("ioctl(") && rest.contains("KVM_RUN");
            if running && rest.contains("KVM_RUN") && !rest.contains("<unfinished") {
                counted.exits += 1;
            }
        } else {
            if name == "execve" && rest.contains("/bin/sh\"") {
                of_workload.insert(process);
            }
            if of_workload.contains(process) && matches!(name, "clone" | "clone3" | "fork" | "vfork") {
                let child = rest.rsplit("= ").next().unwrap_or_default().trim();
                of_workload.insert(child);
            }
            running = of_workload.contains(process);
        }
        // A call that another process interrupted is on two lines: it is counted on the first.
        if running
            && resumed.is_none()
            && rest.contains('(')
            && !rest.starts_with("---")
            && !rest.starts_with("+++")
        {
            counted.calls += 1;
            counted.distinct.insert(name.to_owned());
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_workload_s_calls_are_counted() {
        let log = "10 execve(\"/usr/bin/lab\", 0x1, 0x2) = 0\n10 clone3({flags=CLONE_NEWPID}) = 11\n11 mount(\"a\") = 0\n\
                   11 execve(\"/bin/sh\", [\"sh\"], 0x2) = 0\n11 read(0,  <unfinished ...>\n10 poll([], 1) = 0\n\
                   11 <... read resumed>) = 3\n11 clone(flags=SIGCHLD) = 12\n12 getpid() = 2\n12 +++ exited with 0 +++\n\
                   11 --- SIGCHLD {} ---\n11 exit_group(0) = ?\n";
        let counted = count_lines(log, false);
        let names: Vec<_> = counted.distinct.iter().map(String::as_str).collect();
        assert_eq!(names, ["clone", "execve", "exit_group", "getpid", "read"]);
        assert_eq!(counted.calls, 5);
    }

    #[test]
    fn exits_are_counted_by_kind_from_the_machine_s_first_on() {
        let text = "ports:\n  0x0064  keyboard\nexits:\n  0.1 ms  vCPU 0  port 0x0300 ← 0x1\n  0.2 ms  vCPU 0  port 0x03fb → 1 byte(s)\n\
                    0.3 ms  vCPU 1  memory 0xd0000050 ← 0x0  virtio device 0: QueueNotify\n  0.4 ms  vCPU 0  interrupted\n\
                    0.5 ms  vCPU 0  an instruction that KVM cannot emulate; the VMM does it\n";
        let counted = count_exits(text);
        let of = |kind| counted.get(kind).copied().unwrap_or(0);
        assert_eq!((of(PORT_WRITES), of(PORT_READS), of(DEVICE_WRITES)), (1, 1, 1));
        assert_eq!((of(REPAIRS), of(OTHERS), of(DEVICE_READS)), (1, 1, 0));
        assert!(count_exits("nothing").is_empty());
    }

    #[test]
    fn a_monitor_is_counted_from_its_first_entry_on() {
        let log = "10 openat(AT_FDCWD, \"/dev/kvm\") = 3\n12 ioctl(9, KVM_RUN, 0 <unfinished ...>\n10 epoll_wait(5) = 1\n\
                   12 <... ioctl resumed>) = 0\n12 ioctl(9, KVM_RUN, 0) = 0\n10 write(1, \"\", 0) = 0\n";
        let counted = count_lines(log, true);
        assert_eq!(counted.distinct.len(), 3, "{counted:?}");
        assert_eq!((counted.calls, counted.exits), (4, 1));
    }
}
