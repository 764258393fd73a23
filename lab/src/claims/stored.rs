//! The claims judged by the experiments of a stored bench: nothing is run, and the same rules decide.
//!
//! | claim | decided by | beside it |
//! |---|---|---|
//! | resources | `memory`: PSS, MemAvailable and its noise | `density`'s slope, `minimum` |
//! | time | `startup`, first instruction, warm: booted VM against container | cold cache, restored, `creation` |
//! | isolation | `isolation`: whose kernel, name, processes | calls of the host's kernel, what `neighbours` feel |
//! | portability | `portability`: the sizes of what is carried | the time until it runs there, the bootable disk |

use super::judge::{SENTENCES, against_snapshot};
use super::verdict::{self, Idle, Shared, Sizes, Times, Verdict, drowned_from};
use super::{Claim, Evidence, Figure};
use crate::measure::bench::record::{Bench, Run};
use crate::measure::bench::subjects::{CONTAINER, DISK, HOST, RESTORED, VM};
use crate::measure::bench::summary;
use crate::measure::record::Obtained;
use crate::measure::stats::{Ratio, Stats};
use crate::report::figures;

const WARM: &str = "warm cache";
const COLD: &str = "cold cache";

/// Judges the claims, in the order in which they are made.
pub fn judge(bench: &Bench) -> Vec<Claim> {
    let found = Found(bench);
    vec![resources(&found), time(&found), isolation(&found), portability(&found)]
}

/// What a bench has found.
struct Found<'a>(&'a Bench);

impl Found<'_> {
    fn vm_by(&self) -> Obtained {
        self.0.subject(VM).map_or(Obtained::Nothing, |vm| vm.obtained)
    }

    fn runs(&self, experiment: &str, subject: &str, variant: &str) -> Vec<&Run> {
        self.0
            .experiment(experiment)
            .map_or_else(Vec::new, |it| it.runs.iter().collect())
            .into_iter()
            .filter(|run| run.counts() && run.subject == subject && run.variant == variant)
            .collect()
    }

    fn values(&self, experiment: &str, metric: &str, subject: &str, variant: &str) -> Vec<f64> {
        let runs = self.runs(experiment, subject, variant);
        let values = runs.into_iter().flat_map(|run| &run.values);
        let values = values.filter(|values| values.metric == metric && values.x.is_none());
        values.flat_map(|values| values.samples.iter().copied()).collect()
    }

    fn stats(&self, experiment: &str, metric: &str, subject: &str, variant: &str) -> Option<Stats> {
        Stats::of(&self.values(experiment, metric, subject, variant), self.0.seed)
    }

    fn median(&self, experiment: &str, metric: &str, subject: &str, variant: &str) -> Option<f64> {
        self.stats(experiment, metric, subject, variant).map(|stats| stats.median)
    }

    /// A row with the medians of a metric on all sides.
    fn row(&self, name: &str, of: (&str, &str, &str), figure: fn(f64) -> Figure) -> Evidence {
        let (experiment, metric, variant) = of;
        let cell = |subject| self.median(experiment, metric, subject, variant).map(figure);
        let count = self.values(experiment, metric, CONTAINER, variant).len();
        let count = count.max(self.values(experiment, metric, VM, variant).len());
        Evidence {
            name: name.into(),
            host: cell(HOST),
            container: cell(CONTAINER),
            vm: cell(VM),
            how: format!("{experiment}: {metric}, {count} values a side at most"),
        }
    }

    /// Why a side has no figures in this experiment.
    fn missing(&self, experiment: &str, subject: &str) -> Verdict {
        let reason = match self.0.experiment(experiment) {
            None => format!("the result has no experiment {experiment}: lab bench {experiment}"),
            Some(found) => {
                let absent = found.absent.iter().find(|absent| absent.subject == subject);
                let unavailable = || self.0.subject(subject)?.unavailable.clone();
                let reason = absent.map(|absent| absent.reason.clone()).or_else(unavailable);
                format!("no figures for the {subject}: {}", reason.unwrap_or_else(|| "no run counts".into()))
            }
        };
        Verdict::undecided(&reason)
    }

    fn claim(&self, number: usize, evidence: Vec<Evidence>, verdict: Verdict, flips: Vec<String>) -> Claim {
        let (name, sentence) = SENTENCES[number];
        let shown = |row: &Evidence| row.host.is_some() || row.container.is_some() || row.vm.is_some();
        let evidence = evidence.into_iter().filter(shown).collect();
        Claim { name, sentence, vm_by: self.vm_by(), evidence, verdict, flips }
    }
}

fn bytes(value: f64) -> Figure {
    Figure::Bytes(value as i64)
}

fn count(value: f64) -> Figure {
    Figure::Count(value.max(0.0) as usize)
}

fn resources(found: &Found<'_>) -> Claim {
    let idle = |subject| {
        let of = |metric| found.median("memory", metric, subject, "");
        Some(Idle {
            pss: of("pss")?.max(0.0) as u64,
            available_drop: of("available")? as i64,
            available_noise: of("noise")? as i64,
        })
    };
    let mut evidence = vec![
        found.row("PSS", ("memory", "pss", ""), bytes),
        found.row("MemAvailable", ("memory", "available", ""), bytes),
        found.row("its noise", ("memory", "noise", ""), bytes),
        found.row("least that suffices", ("minimum", "least", ""), bytes),
    ];
    let slope = |subject| {
        let slope = summary::slope(found.0.experiment("density")?, subject, "", "pss")?;
        Some(Figure::Bytes(slope.slope as i64))
    };
    evidence.push(Evidence {
        name: "PSS for one more".into(),
        host: None,
        container: slope(CONTAINER),
        vm: slope(VM).or_else(|| slope(RESTORED)),
        how: "density: slope; a VM restored, where none was booted for it".into(),
    });
    let (container, vm) = (idle(CONTAINER), idle(VM));
    let verdict = match (container, vm) {
        (Some(container), Some(vm)) => verdict::resources(container, vm),
        (None, _) => found.missing("memory", CONTAINER),
        (_, None) => found.missing("memory", VM),
    };
    let drowned = container.zip(vm).and_then(|(container, vm)| drowned_from(vm.pss, container.pss));
    let mut flips: Vec<String> = Vec::from_iter(drowned.map(|least| {
        let least = figures::bytes(least as i64);
        format!(
            "With an application that holds more than {least} itself, the VM's surplus is less than a tenth."
        )
    }));
    let restored = found.median("memory", "pss", RESTORED, "");
    flips.extend(restored.zip(vm).map(|(restored, vm)| {
        let (restored, booted) = (figures::bytes(restored as i64), figures::bytes(vm.pss as i64));
        format!("VMs restored from one snapshot share its pages: {restored} each in place of {booted}.")
    }));
    found.claim(0, evidence, verdict, flips)
}

fn time(found: &Found<'_>) -> Claim {
    const FIRST: &str = "first-instruction";
    let of = |subject, variant| found.stats("startup", FIRST, subject, variant);
    let (container, vm, restored) = (of(CONTAINER, WARM), of(VM, WARM), of(RESTORED, WARM));
    let cold = of(CONTAINER, COLD).map(|stats| stats.median);
    let values = |subject| found.values("startup", FIRST, subject, WARM);
    let ratio = Ratio::of(&values(VM), &values(CONTAINER), found.0.seed);
    let mut evidence = vec![
        found.row("start → first instruction", ("startup", FIRST, WARM), Figure::Milliseconds),
        found.row("  cold cache", ("startup", FIRST, COLD), Figure::Milliseconds),
        found.row("start → first output", ("startup", "first-output", WARM), Figure::Milliseconds),
    ];
    let only_vm = |name: &str, figure: Figure, how: &str| Evidence {
        name: name.into(),
        vm: Some(figure),
        how: how.into(),
        ..Evidence::default()
    };
    evidence.extend(
        ratio
            .as_ref()
            .map(|ratio| only_vm("VM / container", Figure::Times(ratio.value), "ratio of the medians")),
    );
    evidence.extend(restored.as_ref().map(|stats| {
        let how = "startup: first-instruction, restored, warm cache";
        only_vm("restored from a snapshot", Figure::Milliseconds(stats.median), how)
    }));
    let representative = found.vm_by().is_representative();
    let verdict = match (&container, &vm) {
        (Some(container), Some(vm)) => verdict::time(&Times {
            container,
            vm,
            ratio: ratio.as_ref(),
            restored: restored.as_ref(),
            representative,
        }),
        (None, _) => found.missing("startup", CONTAINER),
        (_, None) => found.missing("startup", VM),
    };
    let mut flips = Vec::new();
    if let (Some(container), Some(restored)) = (&container, &restored) {
        flips.push(against_snapshot(container.median, cold, restored.median));
    } else if vm.is_some() {
        flips.push("A VM restored from a snapshot may be there first: the result has no such run.".into());
    }
    if !representative && vm.is_some() {
        flips.push(
            "On a bare machine with VT-x or AMD-V the VM takes less time: judge a result from there.".into(),
        );
    }
    found.claim(1, evidence, verdict, flips)
}

fn isolation(found: &Found<'_>) -> Claim {
    let fact = |subject, name: &str| {
        found.runs("isolation", subject, "").into_iter().find_map(|run| run.facts.get(name).cloned())
    };
    let processes = |subject| found.median("isolation", "processes", subject, "");
    // Whoever sees as many processes as the host sees the host's.
    let shared = |subject| {
        Some(Shared {
            kernel: fact(subject, "the host's kernel")? == "yes",
            hostname: fact(subject, "hostname")? == fact(HOST, "hostname")?,
            processes: processes(subject)? >= processes(HOST)?,
        })
    };
    let texts = |name: &str, fact_name: &str| Evidence {
        name: name.into(),
        host: fact(HOST, fact_name).map(Figure::Text),
        container: fact(CONTAINER, fact_name).map(Figure::Text),
        vm: fact(VM, fact_name).map(Figure::Text),
        how: format!("isolation: {fact_name}"),
    };
    let traced = "under strace";
    let mut evidence = vec![
        texts("kernel", "release"),
        texts("the host's kernel", "the host's kernel"),
        found.row("processes in sight", ("isolation", "processes", ""), count),
        found.row("files that rule a kernel", ("isolation", "rules", ""), count),
        found.row("host's system calls", ("isolation", "distinct-calls", traced), count),
        found.row("exits to the monitor", ("isolation", "exits", traced), count),
    ];
    let alone = found.median("neighbours", "round", HOST, "alone");
    for hog in ["cpu", "memory", "forks"] {
        let slower = |subject| {
            let felt = found.median("neighbours", "round", subject, hog)?;
            Some(Figure::Times(felt / alone?))
        };
        evidence.push(Evidence {
            name: format!("neighbour of a hog: {hog}"),
            host: None,
            container: slower(CONTAINER),
            vm: slower(VM).or_else(|| slower(RESTORED)),
            how: "neighbours: its round of arithmetic, by that without a hog".into(),
        });
    }
    let verdict = match (shared(CONTAINER), shared(VM)) {
        (Some(container), Some(vm)) => verdict::isolation(container, vm),
        (None, _) => found.missing("isolation", CONTAINER),
        (_, None) => found.missing("isolation", VM),
    };
    let flips = vec![
        "With an engine that gives each container a kernel of its own: then neither runs on the host's.".into(),
        "Without limits of memory and processes a container's hog takes the host's own; a VM's takes its own memory only."
            .into(),
        "Whose kernel it is says nothing about faults: a container can attack the host's system calls, a VM its monitor."
            .into(),
    ];
    found.claim(2, evidence, verdict, flips)
}

fn portability(found: &Found<'_>) -> Claim {
    let size = |subject, metric| found.median("portability", metric, subject, "").map(|value| value as u64);
    let sizes = || {
        let layers = size(CONTAINER, "size")?;
        Some(Sizes { layers, disk: size(VM, "disk")?, kernel: size(VM, "size")?.saturating_sub(layers) })
    };
    let sizes = sizes();
    let mut evidence = vec![
        found.row("to be carried", ("portability", "size", ""), bytes),
        found.row("root disk, made there", ("portability", "disk", ""), bytes),
        found.row("until it runs there", ("portability", "total", ""), Figure::Milliseconds),
    ];
    let disk = |metric, figure: fn(f64) -> Figure| found.median("portability", metric, DISK, "").map(figure);
    let by_disk = |name: &str, figure, how: &str| Evidence {
        name: name.into(),
        vm: figure,
        how: how.into(),
        ..Evidence::default()
    };
    evidence.push(by_disk("as a bootable disk", disk("size", bytes), "portability: kernel and files in one"));
    evidence.push(by_disk(
        "  until it has run",
        disk("total", Figure::Milliseconds),
        "the same, in QEMU's emulation",
    ));
    let verdict = match (sizes, size(CONTAINER, "size")) {
        (Some(sizes), _) => verdict::portability(sizes),
        (None, None) => found.missing("portability", CONTAINER),
        (None, Some(_)) => found.missing("portability", VM),
    };
    let drowned = sizes.and_then(|sizes| drowned_from(sizes.layers + sizes.kernel, sizes.layers));
    let mut flips = Vec::from_iter(drowned.map(|least| {
        let least = figures::bytes(least as i64);
        format!("With an application of more than {least}, the VM's surplus is less than a tenth.")
    }));
    flips.push(
        "On a machine without Linux: there a container needs a VM around it, and its kernel travels as well; a bootable disk \
         needs no more than a PC."
            .into(),
    );
    found.claim(3, evidence, verdict, flips)
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Decision;
    use super::*;
    use crate::measure::bench::store;

    #[test]
    fn the_reference_decides_all_four_with_its_figures_and_its_mark() {
        let bench = store::reference().unwrap().into_bench();
        let claims = judge(&bench);
        assert_eq!(
            claims.iter().map(|claim| claim.name).collect::<Vec<_>>(),
            ["resources", "time", "isolation", "portability"]
        );
        for claim in &claims {
            assert_eq!(claim.vm_by, bench.subject(VM).unwrap().obtained, "{claim:?}");
            assert!(claim.evidence.len() >= 3 && !claim.flips.is_empty(), "{claim:?}");
            assert_ne!(claim.verdict.decision, Decision::UndecidedHere, "{claim:?}");
        }
        // Not on hardware: never without a condition.
        assert_eq!(claims[1].verdict.decision, Decision::HoldsWithACondition);
        assert!(claims[1].flips.iter().any(|flip| flip.contains("snapshot")), "{:?}", claims[1]);
    }

    #[test]
    fn an_experiment_that_was_not_made_leaves_its_claim_undecided_and_says_which() {
        let mut bench = store::reference().unwrap().into_bench();
        bench.experiments.retain(|experiment| experiment.name == "startup");
        let claims = judge(&bench);
        for (claim, experiment) in
            [(&claims[0], "memory"), (&claims[2], "isolation"), (&claims[3], "portability")]
        {
            assert_eq!(claim.verdict.decision, Decision::UndecidedHere);
            assert!(claim.verdict.because[0].contains(&format!("lab bench {experiment}")), "{claim:?}");
        }
        let vm = bench.subjects.iter_mut().find(|subject| subject.name == VM).unwrap();
        (vm.obtained, vm.unavailable) = (Obtained::Nothing, Some("/dev/kvm is missing".into()));
        bench.experiments[0].runs.retain(|run| run.subject != VM);
        let claims = judge(&bench);
        assert!(claims[1].verdict.because[0].contains("/dev/kvm is missing"), "{:?}", claims[1]);
    }
}
