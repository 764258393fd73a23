//! What a reader must know before believing a figure.
//!
//! A warning changes no figure and removes no sample: it says what may have disturbed them, and what would help.

use serde::{Deserialize, Serialize};

use super::environment::Environment;
use super::plan::Wall;
use super::record::{Backing, Ended, Obtained, Record, WallRecord};
use super::stats::{LEAST_FOR_INTERVAL, Stats, outliers};
use super::summary::{Metric, values};

/// One warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// A name that programs can match.
    pub code: String,
    /// For people: what it is, and what would help.
    pub text: String,
}

/// All warnings that a record calls for, the gravest first.
pub fn of(record: &Record) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |code: &str, text: String| found.push(Warning { code: code.into(), text });
    if let Ended::Interrupted { reason } = &record.ended {
        let made: Vec<_> = record.walls.iter().map(|wall| wall.counted().count().to_string()).collect();
        let made = made.join(" and ");
        warn(
            "interrupted",
            format!("The comparison was {reason}: {made} of {} runs count.", record.plan.runs),
        );
    }
    for wall in &record.walls {
        obtained(wall, &mut warn);
    }
    for wall in &record.walls {
        runs(record, wall, &mut warn);
    }
    exit_codes(record, &mut warn);
    found.extend(of_machine(&record.environment));
    found
}

fn name(wall: &WallRecord) -> &'static str {
    match wall.wall {
        Wall::Container => "container",
        Wall::Vm => "VM",
    }
}

fn obtained(wall: &WallRecord, warn: &mut impl FnMut(&str, String)) {
    if let Some(reason) = &wall.unavailable {
        let reason = reason.trim_end_matches('.');
        warn("wall-unavailable", format!("No figures for the {}: {reason}.", name(wall)));
        return;
    }
    for warning in of_ways(&[wall.obtained]) {
        warn(&warning.code, warning.text);
    }
}

/// What a reader must know of figures obtained in these ways.
pub fn of_ways(ways: &[Obtained]) -> Vec<Warning> {
    let known = [
        (
            Obtained::Kvm { backing: Backing::Software },
            "not-hardware-backed",
            "/dev/kvm has no VT-x or AMD-V behind it here: the guest's kernel is emulated instruction by instruction, \
             some thousand times slower than on hardware. Read the VM's times as an upper bound, never as what a VM costs.",
        ),
        (
            Obtained::Kvm { backing: Backing::Nested },
            "nested",
            "KVM runs inside a virtual machine here: each exit of the guest takes a detour over the outer hypervisor.",
        ),
        (
            Obtained::Tcg,
            "tcg",
            "The VM ran under QEMU's software emulation (TCG), without /dev/kvm: its times say nothing about a VM on \
             hardware.",
        ),
    ];
    let found = known.iter().filter(|(way, ..)| ways.contains(way));
    found.map(|&(_, code, text)| Warning { code: code.into(), text: text.into() }).collect()
}

fn runs(record: &Record, wall: &WallRecord, warn: &mut impl FnMut(&str, String)) {
    let who = name(wall);
    let totals = values(record, wall.wall, Metric::WholeRun);
    let failures = wall.failures().filter(|(sample, _)| !sample.warmup).count();
    if let Some((_, message)) = wall.failures().find(|(sample, _)| !sample.warmup) {
        let runs = wall.samples.iter().filter(|sample| !sample.warmup).count();
        warn("failed-runs", format!("{failures} of {runs} runs of the {who} failed, first with: {message}"));
    }
    if (1..LEAST_FOR_INTERVAL).contains(&totals.len()) {
        warn(
            "few-runs",
            format!(
                "{} runs of the {who} give no 95 % interval: take at least {LEAST_FOR_INTERVAL}.",
                totals.len()
            ),
        );
    }
    let far = outliers(&totals);
    if far.contains(&0) && totals.len() >= LEAST_FOR_INTERVAL {
        warn(
            "slow-first-run",
            format!("The {who}'s first counted run is an outlier: its warm-up did not warm all it uses."),
        );
    }
    let others = far.iter().filter(|&&index| index > 0).count();
    if others > 0 {
        warn(
            "outliers",
            format!(
                "{others} of {} runs of the {who} lie far from the others (they are counted): something else may have \
                 used the machine.",
                totals.len()
            ),
        );
    }
    if let Some((first, second)) = drift(&totals) {
        warn(
            "drift",
            format!(
                "The {who} drifted: median {first:.1} ms in the first half of the runs, {second:.1} ms in the second."
            ),
        );
    }
    if let Some(memory) = &wall.memory {
        if memory.available_drop.abs() < 2 * memory.available_noise {
            warn(
                "memory-noise",
                format!(
                    "The {who}'s drop of MemAvailable is within the machine's own noise: trust its PSS and private dirty more."
                ),
            );
        }
        if let Some(message) = memory.failures.first() {
            warn("memory-failed", format!("Memory of the {who}: an idle sandbox failed: {message}"));
        }
    }
}

/// The medians of the two halves, where their 95 % intervals do not meet.
pub(super) fn drift(totals: &[f64]) -> Option<(f64, f64)> {
    let (first, second) = totals.split_at(totals.len() / 2);
    let (first, second) = (Stats::of(first, 0)?, Stats::of(second, 0)?);
    let (a, b) = (first.interval?, second.interval?);
    (a.high < b.low || b.high < a.low).then_some((first.median, second.median))
}

fn exit_codes(record: &Record, warn: &mut impl FnMut(&str, String)) {
    let mut codes: Vec<_> =
        record.walls.iter().flat_map(WallRecord::counted).filter_map(|sample| sample.exit).collect();
    codes.sort_unstable();
    codes.dedup();
    if codes.iter().any(|&code| code != 0) {
        let codes: Vec<_> = codes.iter().map(i32::to_string).collect();
        warn("exit-codes", format!("The workload did not always succeed: exit codes {}.", codes.join(", ")));
    }
}

/// What a reader must know of the machine.
pub fn of_machine(environment: &Environment) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |code: &str, text: String| found.push(Warning { code: code.into(), text });
    if environment.build == "debug" {
        warn("debug-build", "The lab itself is a debug build: build it with --release to measure.".into());
    }
    if let Some([load, ..]) = environment.load.filter(|[load, ..]| *load > environment.cores as f64 / 4.0) {
        warn(
            "load",
            format!(
                "The machine was busy when it began (load {load:.1} on {} CPUs): stop what else runs, and \
                 measure again.",
                environment.cores
            ),
        );
    }
    if let Some(governor) = environment.governor.as_deref().filter(|&governor| governor != "performance") {
        warn(
            "frequency-scaling",
            format!(
                "The CPU's frequency is scaled (governor {governor}); for steadier figures: cpupower frequency-set -g performance"
            ),
        );
    }
    if environment.on_battery == Some(true) {
        warn("battery", "The machine runs on its battery, and may save power: plug it in.".into());
    }
    if environment.virtual_machine == Some(true) {
        warn(
            "virtual-host",
            "The host is itself a virtual machine: neighbours can disturb the figures.".into(),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;

    fn codes(record: &Record) -> Vec<String> {
        of(record).into_iter().map(|warning| warning.code).collect()
    }

    #[test]
    fn a_quiet_machine_with_hardware_warns_of_nothing() {
        let mut record = fixtures::record(12);
        record.walls[1].obtained = Obtained::Kvm { backing: Backing::Hardware };
        record.environment.virtual_machine = Some(false);
        assert_eq!(codes(&record), [""; 0]);
    }

    #[test]
    fn every_way_of_running_a_vm_but_hardware_is_named_first() {
        let mut record = fixtures::record(12);
        for (obtained, code) in [
            (Obtained::Kvm { backing: Backing::Software }, "not-hardware-backed"),
            (Obtained::Kvm { backing: Backing::Nested }, "nested"),
            (Obtained::Tcg, "tcg"),
        ] {
            record.walls[1].obtained = obtained;
            assert_eq!(codes(&record)[0], code);
        }
    }

    #[test]
    fn disturbances_are_named_and_nothing_is_removed() {
        let mut record = fixtures::record(20);
        let before = record.walls[0].counted().count();
        let slow = record.walls[0].samples.iter_mut().filter(|sample| !sample.warmup).nth(5).unwrap();
        slow.ended += 900_000_000;
        record.environment.load = Some([3.0, 1.0, 1.0]);
        record.environment.governor = Some("powersave".into());
        let codes = codes(&record);
        for code in ["outliers", "load", "frequency-scaling"] {
            assert!(codes.iter().any(|found| found == code), "{code} in {codes:?}");
        }
        assert_eq!(record.walls[0].counted().count(), before);
    }

    #[test]
    fn a_drift_between_the_halves_is_seen_and_a_steady_series_is_not() {
        let steady: Vec<f64> = (0..40).map(|run| 10.0 + f64::from(run * 7 % 5)).collect();
        assert_eq!(drift(&steady), None);
        let drifting: Vec<f64> = steady.iter().zip(0..).map(|(value, run)| value + f64::from(run)).collect();
        assert!(drift(&drifting).is_some());
    }

    #[test]
    fn an_interrupted_comparison_says_how_much_there_is() {
        let mut record = fixtures::without(fixtures::record(4), Wall::Vm);
        record.ended = Ended::Interrupted { reason: "stopped by the user".into() };
        let warnings = of(&record);
        assert!(warnings[0].text.contains("4 and 0 of 4 runs"), "{}", warnings[0].text);
        assert_eq!(warnings[1].code, "wall-unavailable");
        assert_eq!(warnings[2].code, "few-runs");
    }
}
