//! What does a workload see and reach of the machine around it?

use std::collections::BTreeSet;
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
             believes to have, and the kernel's log. Where strace is installed, a script that lists a folder, reads a file and prints \
             runs under it: counted are the host's system calls that the workload itself makes from its execve(2) on; for a VM, \
             those that its monitor makes from the first KVM_RUN on, and how often KVM_RUN came back.",
    blind_spot: "That a call is never made does not say that it could not be made. strace slows everything down; it counts calls, \
                 not what they do. Exits that KVM serves by itself are not seen by it.",
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
                Metric::less("distinct-calls", "different calls of the host's kernel", Unit::Count),
                Metric::less("calls", "calls of the host's kernel", Unit::Count),
                Metric::shown("exits", "returns of KVM_RUN to the monitor", Unit::Count),
            ]
        }
    }

    fn cases(&self, site: &Site<'_>) -> Vec<Case> {
        let looks = site.cases(&[HOST, CONTAINER, VM]);
        let walls = site.cases(&[CONTAINER, VM]);
        let traced = walls.iter().map(|case| Case::with(&case.subject, TRACED)).collect::<Vec<_>>();
        let strace = crate::doctor::find_program("strace").is_some();
        looks.into_iter().chain(traced.into_iter().filter(|_| strace)).collect()
    }

    fn rounds(&self, _quick: bool) -> u32 {
        1
    }

    fn run(&self, site: &Site<'_>, case: &Case) -> Result<Seen, String> {
        let subject = site.subject(&case.subject)?;
        if case.variant == TRACED {
            return traced(site, case, &subject.call(&[], &["sh", "-c", WORK])?);
        }
        look(site, &subject.call(&[], &["sh", "-c", LOOK])?)
    }
}

const TRACED: &str = "under strace";

fn look(site: &Site<'_>, call: &Call) -> Result<Seen, String> {
    let finished = site.finish(call, LIMIT)?;
    let mut seen = seen_of(call);
    let host = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let host = host.trim();
    for line in String::from_utf8_lossy(&finished.printed).lines() {
        let (name, text) = line.split_once(' ').unwrap_or((line, ""));
        match (name, text.trim().parse::<f64>()) {
            ("processes" | "devices" | "mounts", Ok(number)) => seen.value(name, number),
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
    fn a_monitor_is_counted_from_its_first_entry_on() {
        let log = "10 openat(AT_FDCWD, \"/dev/kvm\") = 3\n12 ioctl(9, KVM_RUN, 0 <unfinished ...>\n10 epoll_wait(5) = 1\n\
                   12 <... ioctl resumed>) = 0\n12 ioctl(9, KVM_RUN, 0) = 0\n10 write(1, \"\", 0) = 0\n";
        let counted = count_lines(log, true);
        assert_eq!(counted.distinct.len(), 3, "{counted:?}");
        assert_eq!((counted.calls, counted.exits), (4, 1));
    }
}
