//! A run cut into phases: the time between two consecutive marks, under a name in plain words.
//!
//! A mark is the *end* of a step, so a phase carries the name of the step that its second mark ends. The phases of a
//! run leave no gap: they add up to the time from spawning `lab run` to its end.

use std::collections::BTreeMap;

use lab_clock::{Mark, Nanos};
use serde::{Deserialize, Serialize};

use super::record::Sample;
use super::stats::median;

/// Whose work a phase is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// The lab's, on the host, before the workload or the guest runs.
    SetUp,
    /// The guest's kernel.
    Kernel,
    /// The guest's PID 1.
    Guest,
    /// The workload itself.
    Workload,
    /// The lab's: giving everything back.
    CleanUp,
}

impl Group {
    /// All, in the order of a run.
    pub const ALL: [Group; 5] = [Group::SetUp, Group::Kernel, Group::Guest, Group::Workload, Group::CleanUp];

    /// In plain words, for a legend.
    pub const fn label(self) -> &'static str {
        match self {
            Group::SetUp => "set-up by the host",
            Group::Kernel => "guest kernel boots",
            Group::Guest => "guest's PID 1",
            Group::Workload => "workload runs",
            Group::CleanUp => "clean-up",
        }
    }
}

/// Which moment ends a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// A mark of the timeline.
    At(Mark),
    /// The `lab run` process was seen to have ended.
    ProcessEnded,
}

impl Moment {
    /// Its name in results.
    pub const fn name(self) -> &'static str {
        match self {
            Moment::At(mark) => mark.name(),
            Moment::ProcessEnded => "ended",
        }
    }

    /// The step that this moment ends.
    pub const fn step(self) -> &'static str {
        match self {
            Moment::ProcessEnded => "lab process exits",
            Moment::At(mark) => match mark {
                Mark::Started => "start the lab process",
                Mark::Resolved => "resolve image, write bundle",
                Mark::OverlayMounted => "mount overlay",
                Mark::Cloned => "clone into namespaces",
                Mark::CgroupReady => "cgroup and limits",
                Mark::Mounted => "mounts of the bundle",
                Mark::Pivoted => "pivot_root",
                Mark::Secured => "capabilities, seccomp",
                Mark::KvmOpened => "open /dev/kvm",
                Mark::VmCreated => "create VM",
                Mark::MemoryReady => "guest memory",
                Mark::KernelLoaded => "load kernel",
                Mark::DevicesReady => "devices",
                Mark::VcpuReady => "set up vCPU",
                Mark::FirstRun => "enter KVM_RUN",
                Mark::FirstExit => "run to first exit",
                Mark::KernelEntered => "kernel: to start_kernel",
                Mark::KernelInitcalls => "kernel: core set-up",
                Mark::KernelDone => "kernel: initcalls, drivers",
                Mark::InitStarted => "kernel: start PID 1",
                Mark::AgentReady => "PID 1: open channel",
                Mark::RootMounted => "PID 1: mount root",
                Mark::Executed => "exec of the workload",
                Mark::FirstByte => "first byte of output",
                Mark::Exited => "workload until exit",
                Mark::Deleted => "give everything back",
            },
        }
    }

    /// Whose work that step is.
    pub const fn group(self) -> Group {
        match self {
            Moment::ProcessEnded | Moment::At(Mark::Deleted) => Group::CleanUp,
            Moment::At(mark) => match mark {
                Mark::FirstExit
                | Mark::KernelEntered
                | Mark::KernelInitcalls
                | Mark::KernelDone
                | Mark::InitStarted => Group::Kernel,
                Mark::AgentReady | Mark::RootMounted => Group::Guest,
                Mark::FirstByte | Mark::Exited => Group::Workload,
                _ => Group::SetUp,
            },
        }
    }
}

/// One step of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    /// The moment that ends it.
    pub end: Moment,
    /// When it began, in milliseconds since `lab run` was spawned.
    pub from: f64,
    /// When it ended.
    pub to: f64,
    /// Whose work it is.
    pub group: Group,
}

impl Phase {
    /// How long it took, in milliseconds.
    pub fn duration(&self) -> f64 {
        self.to - self.from
    }
}

/// The milliseconds between two moments; negative where they are the wrong way round.
pub fn milliseconds(from: Nanos, to: Nanos) -> f64 {
    let apart = to.abs_diff(from) as f64 / 1e6;
    if to < from { -apart } else { apart }
}

/// The phases of a run, in order of time.
// ANCHOR: of
pub fn of(sample: &Sample) -> Vec<Phase> {
    let mut moments: Vec<(Nanos, Moment)> = sample
        .marks
        .iter()
        .filter_map(|(name, &at)| Mark::from_name(name).map(|mark| (at, Moment::At(mark))))
        .collect();
    moments.push((sample.ended, Moment::ProcessEnded));
    moments.sort_unstable();
    // The last step before the workload is the wall's own: in a VM, it is the guest that execs.
    let in_guest = sample.mark(Mark::InitStarted).is_some();
    let mut from = 0.0;
    let mut phases = Vec::with_capacity(moments.len());
    for (at, end) in moments {
        let to = milliseconds(sample.spawned, at);
        let group = if in_guest && end == Moment::At(Mark::Executed) { Group::Guest } else { end.group() };
        phases.push(Phase { end, from, to, group });
        from = to;
    }
    phases
}
// ANCHOR_END: of

/// The median of a phase over all runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseMedian {
    /// The mark that ends it (`ended` for the end of the process).
    pub mark: String,
    /// Its plain-words name.
    pub step: String,
    /// Whose work it is.
    pub group: Group,
    /// Median milliseconds, over the runs that have it.
    pub median: f64,
    /// In how many runs it was seen.
    pub n: usize,
}

/// The median of each phase, in the order of the phases' median ends. Medians do not add up to the median total.
pub fn medians<'a>(samples: impl Iterator<Item = &'a Sample>) -> Vec<PhaseMedian> {
    let mut by_end: BTreeMap<Moment, Vec<Phase>> = BTreeMap::new();
    for phase in samples.flat_map(of) {
        by_end.entry(phase.end).or_default().push(phase);
    }
    let mut rows: Vec<_> = by_end
        .into_iter()
        .map(|(end, phases)| {
            let ends: Vec<_> = phases.iter().map(|phase| phase.to).collect();
            let durations: Vec<_> = phases.iter().map(Phase::duration).collect();
            let row = PhaseMedian {
                mark: end.name().into(),
                step: end.step().into(),
                group: phases[0].group,
                median: median(&durations),
                n: phases.len(),
            };
            (median(&ends), row)
        })
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    rows.into_iter().map(|(_, row)| row).collect()
}

/// The run whose total is the median (the lower of the two middle ones): a run that really happened.
pub fn median_run<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<&'a Sample> {
    let mut samples: Vec<_> = samples.collect();
    samples.sort_by_key(|sample| sample.ended.saturating_sub(sample.spawned));
    samples.get(samples.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;

    #[test]
    fn phases_leave_no_gap_and_add_up_to_the_whole_run() {
        for sample in [fixtures::container_sample(1, 1.0), fixtures::vm_sample(2, 1.0)] {
            let phases = of(&sample);
            assert!(phases[0].from.abs() < 1e-9);
            assert!(phases.windows(2).all(|two| (two[0].to - two[1].from).abs() < 1e-9));
            let total: f64 = phases.iter().map(Phase::duration).sum();
            assert!((total - milliseconds(sample.spawned, sample.ended)).abs() < 1e-6);
        }
    }

    #[test]
    fn the_exec_of_the_workload_is_the_guests_work_in_a_vm_and_the_hosts_in_a_container() {
        let group = |sample| {
            of(&sample).into_iter().find(|phase| phase.end == Moment::At(Mark::Executed)).unwrap().group
        };
        assert_eq!(group(fixtures::container_sample(1, 1.0)), Group::SetUp);
        assert_eq!(group(fixtures::vm_sample(1, 1.0)), Group::Guest);
    }

    #[test]
    fn the_median_run_is_one_of_the_runs() {
        let runs: Vec<_> = [3.0, 1.0, 2.0, 9.0].map(|scale| fixtures::container_sample(1, scale)).into();
        assert_eq!(median_run(runs.iter()), Some(&runs[2]));
        assert_eq!(median_run([].iter()), None);
    }

    #[test]
    fn a_mark_nobody_knows_is_left_out_and_a_mark_before_the_spawn_is_seen_as_such() {
        let mut sample = fixtures::container_sample(1, 1.0);
        sample.marks.insert("warp-drive".into(), sample.spawned + 1);
        let before = of(&sample).len();
        sample.marks.insert("started".into(), sample.spawned - 1_000_000);
        let phases = of(&sample);
        assert_eq!(phases.len(), before);
        assert!((phases[0].to + 1.0).abs() < 1e-9);
    }

    #[test]
    fn phase_medians_come_in_the_order_of_time() {
        let runs: Vec<_> = [1.0, 2.0, 3.0].map(|scale| fixtures::vm_sample(1, scale)).into();
        let rows = medians(runs.iter());
        assert_eq!(rows.first().unwrap().mark, "started");
        assert_eq!(rows.last().unwrap().mark, "ended");
        assert!(rows.iter().all(|row| row.n == 3));
    }
}
