//! From what was gathered to the claims: which figures are shown, and which the rules are given.

use super::verdict::{self, Idle, Shared, Times, Verdict, drowned_from};
use super::{Claim, Evidence, Figure, Gathered};
use crate::measure::inside::View;
use crate::measure::memory::Memory;
use crate::measure::plan::Wall;
use crate::measure::record::{Ended, Obtained, Record, Sample};
use crate::measure::stats::{Ratio, Stats};
use crate::measure::summary::{Metric, values};
use crate::report::figures;
use lab_clock::Mark;

/// Judges the claims, in the order in which they are made.
pub fn judge(gathered: &Gathered) -> Vec<Claim> {
    vec![resources(gathered), time(gathered), isolation(gathered), portability(gathered)]
}

/// Name and sentence of each claim.
pub(super) const SENTENCES: [(&str, &str); 4] = [
    (
        "resources",
        "A VM needs many resources, for it runs a whole operating system; a container needs only what its application needs.",
    ),
    (
        "time",
        "A container is there almost at once; a VM has to start a whole operating system, which may take several minutes.",
    ),
    (
        "isolation",
        "A VM has an operating system of its own, and so isolates more than a container, which shares the host's kernel.",
    ),
    ("portability", "VMs are usually heavier than containers, which makes them harder to move."),
];

fn vm_by(gathered: &Gathered) -> Obtained {
    gathered.comparison.wall(Wall::Vm).map_or(Obtained::Nothing, |wall| wall.obtained)
}

/// Why a wall has no figures.
fn missing(record: &Record, wall: Wall) -> String {
    let title = crate::report::waterfall::title(wall);
    let found = record.wall(wall);
    let failure = || found?.memory.as_ref()?.failures.first().cloned();
    let reason = found.and_then(|found| found.unavailable.clone()).or_else(failure);
    let reason = reason.unwrap_or_else(|| match &record.ended {
        Ended::Interrupted { reason } => reason.clone(),
        Ended::Complete => "no run of it succeeded".into(),
    });
    format!("no figures for the {title}: {}", reason.trim_end_matches('.'))
}

/// A row of evidence with a figure for each wall.
fn row(name: &str, container: Option<Figure>, vm: Option<Figure>, how: &str) -> Evidence {
    Evidence { name: name.into(), host: None, container, vm, how: how.into() }
}

fn resources(gathered: &Gathered) -> Claim {
    let record = &gathered.comparison;
    let memory = |wall| record.wall(wall)?.memory.as_ref().filter(|memory| memory.instances > 0);
    let (container, vm) = (memory(Wall::Container), memory(Wall::Vm));
    let both = |name: &str, how: &str, of: &dyn Fn(&Memory) -> Option<i64>| {
        row(name, container.and_then(of).map(Figure::Bytes), vm.and_then(of).map(Figure::Bytes), how)
    };
    let evidence = vec![
        both("PSS", "its processes, shared pages divided", &|memory| Some(memory.pss() as i64)),
        both("of it, the workload", "without the lab's own process", &|memory| {
            let own: u64 = memory.processes.iter().filter(|it| it.role != "lab").map(|it| it.pss).sum();
            (own > 0).then_some(own as i64)
        }),
        both("MemAvailable", "its drop with several idle, for one", &|memory| Some(memory.available_drop)),
        both("its noise", "how far it wanders by itself", &|memory| Some(memory.available_noise)),
    ];
    let idle = |memory: &Memory| Idle {
        pss: memory.pss(),
        available_drop: memory.available_drop,
        available_noise: memory.available_noise,
    };
    let verdict = match (container, vm) {
        (Some(container), Some(vm)) => verdict::resources(idle(container), idle(vm)),
        (None, _) => Verdict::undecided(&missing(record, Wall::Container)),
        (_, None) => Verdict::undecided(&missing(record, Wall::Vm)),
    };
    let mut flips = Vec::new();
    let drowned = container.zip(vm).and_then(|(container, vm)| drowned_from(vm.pss(), container.pss()));
    flips.extend(drowned.map(|least| {
        let least = figures::bytes(least as i64);
        format!(
            "With an application that holds more than {least} itself, the VM's surplus is less than a tenth."
        )
    }));
    Claim { name: SENTENCES[0].0, sentence: SENTENCES[0].1, vm_by: vm_by(gathered), evidence, verdict, flips }
}

const FIRST: Metric = Metric::ToFirstInstruction;

// ANCHOR: time
fn time(gathered: &Gathered) -> Claim {
    let record = &gathered.comparison;
    let seed = record.plan.seed;
    let of = |wall| values(record, wall, FIRST);
    let (container, vm) = (Stats::of(&of(Wall::Container), seed), Stats::of(&of(Wall::Vm), seed));
    let ratio = Ratio::of(&of(Wall::Vm), &of(Wall::Container), seed);
    let restored = restored(gathered);
    let warm_up = |wall| {
        let first = record.wall(wall)?.samples.iter().find(|sample| sample.warmup)?;
        FIRST.of(first)
    };
    let both = |name: &str, how: &str, value: &dyn Fn(&Stats) -> f64| {
        let cell = |stats: &Option<Stats>| stats.as_ref().map(|stats| Figure::Milliseconds(value(stats)));
        row(name, cell(&container), cell(&vm), how)
    };
    let median = "median, from spawning `lab run`";
    let mut evidence = vec![
        both("start → first instruction", median, &|stats| stats.median),
        both("  fastest", "the same runs", &|stats| stats.min),
        both("  slowest", "the same runs", &|stats| stats.max),
        row(
            "  first run of all",
            warm_up(Wall::Container).map(Figure::Milliseconds),
            warm_up(Wall::Vm).map(Figure::Milliseconds),
            "the warm-up, caches as they were",
        ),
    ];
    evidence.extend(
        ratio.map(|ratio| {
            row("VM / container", None, Some(Figure::Times(ratio.value)), "ratio of the medians")
        }),
    );
    evidence.extend(restored.as_ref().map(|stats| {
        let how = "median with --warm, after the rest";
        row("restored from a snapshot", None, Some(Figure::Milliseconds(stats.median)), how)
    }));
    let verdict = match (&container, &vm) {
        (Some(container), Some(vm)) => verdict::time(&Times {
            container,
            vm,
            ratio: ratio.as_ref(),
            restored: restored.as_ref(),
            representative: vm_by(gathered).is_representative(),
        }),
        (None, _) => Verdict::undecided(&missing(record, Wall::Container)),
        (_, None) => Verdict::undecided(&missing(record, Wall::Vm)),
    };
    let mut flips = Vec::new();
    if let (Some(container), Some(restored)) = (&container, &restored) {
        flips.push(against_snapshot(container.median, warm_up(Wall::Container), restored.median));
    } else if vm.is_some() {
        flips.push("A VM restored from a snapshot may be there first: no such run succeeded here.".into());
    }
    if !vm_by(gathered).is_representative() && vm.is_some() {
        flips.push("On a bare machine with VT-x or AMD-V the VM takes less time: judge there anew.".into());
    }
    Claim { name: SENTENCES[1].0, sentence: SENTENCES[1].1, vm_by: vm_by(gathered), evidence, verdict, flips }
}
// ANCHOR_END: time

/// How a restored VM stands to a container, warm and cold.
pub(super) fn against_snapshot(container: f64, cold: Option<f64>, restored: f64) -> String {
    let of = |other: f64| format!("{}×", figures::digits(restored / other));
    let against_cold = cold.map_or_else(String::new, |cold| format!(", {} that of its first run", of(cold)));
    let flips = if restored < container {
        "that flips the order here"
    } else if cold.is_some_and(|cold| restored < cold) {
        "that flips the order here against a cold container only"
    } else {
        "that does not flip the order here"
    };
    let time = figures::time(restored);
    format!(
        "From a snapshot the VM takes {time}, {} the container's time{against_cold}: {flips}.",
        of(container)
    )
}

/// The start of VMs that were indeed restored: in a boot the kernel would have reported its entry.
fn restored(gathered: &Gathered) -> Option<Stats> {
    let record = gathered.restored.as_ref()?;
    let restored = |sample: &&Sample| sample.mark(Mark::KernelEntered).is_none();
    let samples = record.wall(Wall::Vm)?.counted().filter(restored);
    Stats::of(&samples.filter_map(|sample| FIRST.of(sample)).collect::<Vec<_>>(), record.plan.seed)
}

fn isolation(gathered: &Gathered) -> Claim {
    let Gathered { host, container, vm, .. } = gathered;
    let all = |name: &str, how: &str, of: &dyn Fn(&View) -> Figure| {
        let cell = |view: &Result<View, String>| view.as_ref().ok().map(of);
        Evidence {
            name: name.into(),
            host: cell(host),
            container: cell(container),
            vm: cell(vm),
            how: how.into(),
        }
    };
    let text = |text: &str| Figure::Text(figures::plain(text));
    let evidence = vec![
        all("kernel", "uname -r", &|view| text(&view.release)),
        all("boot id", "random(4)", &|view| text(view.boot_id.get(..8).unwrap_or(&view.boot_id))),
        all("host name", "hostname", &|view| text(&view.hostname)),
        all("processes in sight", "numbers in /proc", &|view| Figure::Count(view.processes)),
        all("the lab's among them", "by command line", &|view| {
            text(if view.sees_host_process { "yes" } else { "no" })
        }),
    ];
    let verdict = match (host, container, vm) {
        (Ok(host), Ok(container), Ok(vm)) => {
            let shared = |view: &View| Shared {
                kernel: view.boot_id == host.boot_id,
                hostname: view.hostname == host.hostname,
                processes: view.sees_host_process,
            };
            verdict::isolation(shared(container), shared(vm))
        }
        (Err(reason), ..) => Verdict::undecided(&format!("no look at the host: {reason}")),
        (_, Err(reason), _) => Verdict::undecided(&format!("no look from the container: {reason}")),
        (.., Err(reason)) => Verdict::undecided(&format!("no look from the VM: {reason}")),
    };
    Claim {
        name: SENTENCES[2].0,
        sentence: SENTENCES[2].1,
        vm_by: vm_by(gathered),
        evidence,
        verdict,
        flips: vec![
            "With an engine that gives each container a kernel of its own: then both boot ids differ from the host's."
                .into(),
            "Whose kernel it is says nothing about faults: a container can attack the host's system calls, a VM its \
             monitor."
                .into(),
        ],
    }
}

fn portability(gathered: &Gathered) -> Claim {
    let sizes = gathered.sizes.as_ref();
    let bytes = |bytes: u64| Some(Figure::Bytes(bytes as i64));
    let layers = gathered.layers.as_ref().ok().and_then(|&layers| bytes(layers));
    let mut evidence = vec![row("image's layers", layers, None, "blobs in the image store")];
    let mut flips = Vec::new();
    if let Ok(sizes) = sizes {
        evidence.extend([
            row("root disk", None, bytes(sizes.disk), "its file, built from the layers"),
            row("kernel", None, bytes(sizes.kernel), "its file and its modules'"),
            row("together", bytes(sizes.layers), bytes(sizes.disk + sizes.kernel), "the sums"),
        ]);
        flips.extend(drowned_from(sizes.disk + sizes.kernel, sizes.layers).map(|least| {
            let least = figures::bytes(least as i64);
            format!("With an application of more than {least}, the VM's surplus is less than a tenth.")
        }));
    }
    flips.push(
        "On a machine without Linux: there a container needs a VM around it, and its kernel travels as well."
            .into(),
    );
    Claim {
        name: SENTENCES[3].0,
        sentence: SENTENCES[3].1,
        vm_by: vm_by(gathered),
        evidence,
        verdict: match sizes {
            Ok(sizes) => verdict::portability(*sizes),
            Err(reason) => Verdict::undecided(&format!("no size of what a VM needs: {reason}")),
        },
        flips,
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
