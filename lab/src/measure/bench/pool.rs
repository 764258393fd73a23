//! The results of a class: how one metric is distributed over its machines, and what sets the odd ones apart.

use std::collections::BTreeMap;

use super::record::{Bench, Unit};
use super::summary::{self, is_time};
use crate::measure::environment::Environment;
use crate::measure::stats::{Stats, median};

/// The results of several machines.
#[derive(Clone, Debug)]
pub struct Pool {
    /// One row for each metric of each subject.
    pub rows: Vec<Row>,
    /// What each odd machine has that most have not.
    pub odd: Vec<Odd>,
}

/// One metric of one subject over all machines that have it.
#[derive(Clone, Debug)]
pub struct Row {
    /// The experiment.
    pub experiment: String,
    /// The subject, its variation, and by what it was obtained: those of different means never share a row.
    pub case: String,
    /// The metric's label.
    pub metric: String,
    /// Its unit.
    pub unit: Unit,
    /// Each machine's label and median.
    pub machines: Vec<(String, f64)>,
    /// The distribution of these medians.
    pub stats: Stats,
    /// The same as multiples of each machine's fork and exec; none where it is no time or a baseline is missing.
    pub normalised: Option<Stats>,
    /// Labels of machines that lie far from the others.
    pub odd: Vec<String>,
}

/// A machine that is often far from the others.
#[derive(Clone, Debug)]
pub struct Odd {
    /// Its label.
    pub machine: String,
    /// In how many rows it lies far off.
    pub rows: usize,
    /// What it has that most have not.
    pub because: Vec<String>,
}

/// Experiment, metric and case.
type Key = (String, String, String);
/// The place of a result, and its median.
type Machine = (usize, f64);

/// How far off is far: a modified Z score above 3.5 (Iglewicz and Hoaglin 1993), which is 3.5 / 0.6745 deviations.
const FAR: f64 = 3.5 / 0.6745;
/// Of fewer machines than this, none is odd.
const LEAST: usize = 4;

/// Pools the results; each comes with its label.
pub fn pool(results: &[(String, Bench)]) -> Pool {
    let mut grouped: BTreeMap<Key, (Unit, Vec<Machine>)> = BTreeMap::new();
    for (index, (_, bench)) in results.iter().enumerate() {
        for experiment in &bench.experiments {
            for metric in &experiment.metrics {
                for row in summary::rows(bench, experiment, metric) {
                    let by = bench.subject(row.subject).map_or("unknown", |subject| subject.obtained.label());
                    let case = format!("{} ({by})", summary::case(row.subject, row.variant));
                    let key = (experiment.name.clone(), metric.label.clone(), case);
                    let entry = grouped.entry(key).or_insert_with(|| (metric.unit, Vec::new()));
                    entry.1.push((index, row.stats.median));
                }
            }
        }
    }
    let mut far: BTreeMap<usize, usize> = BTreeMap::new();
    let rows = grouped.into_iter().filter_map(|((experiment, metric, case), (unit, machines))| {
        let values: Vec<f64> = machines.iter().map(|&(_, value)| value).collect();
        let odd: Vec<usize> = far_off(&values).into_iter().map(|place| machines[place].0).collect();
        for &machine in &odd {
            *far.entry(machine).or_default() += 1;
        }
        let baseline = |&(index, value): &Machine| {
            let baseline = median(&results[index].1.baseline);
            (baseline > 0.0).then(|| value / baseline)
        };
        let normalised: Option<Vec<f64>> = machines.iter().map(baseline).collect();
        let seed = results[machines[0].0].1.seed;
        Some(Row {
            stats: Stats::of(&values, seed)?,
            normalised: normalised.filter(|_| is_time(unit)).and_then(|values| Stats::of(&values, seed)),
            machines: machines.iter().map(|&(index, value)| (results[index].0.clone(), value)).collect(),
            odd: odd.iter().map(|&index| results[index].0.clone()).collect(),
            experiment,
            case,
            metric,
            unit,
        })
    });
    let rows = rows.collect();
    let odd = far.into_iter().map(|(index, rows)| Odd {
        machine: results[index].0.clone(),
        rows,
        because: explained(index, results),
    });
    Pool { rows, odd: odd.collect() }
}

fn far_off(values: &[f64]) -> Vec<usize> {
    if values.len() < LEAST {
        return Vec::new();
    }
    let middle = median(values);
    let deviations: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    // Machines of one kind agree to some percent: that alone must not make a tenth more an oddity.
    let deviation = median(&deviations).max(middle.abs() * 0.03);
    (0..values.len()).filter(|&index| deviations[index] > FAR * deviation).collect()
}

/// The properties of a machine's environment that less than half of the others share.
fn explained(index: usize, results: &[(String, Bench)]) -> Vec<String> {
    let own = properties(&results[index].1.environment);
    let all: Vec<_> = results.iter().map(|(_, bench)| properties(&bench.environment)).collect();
    let rare = own.iter().enumerate().filter(|(place, property)| {
        let same = all.iter().filter(|other| other[*place].1 == property.1).count();
        same * 2 <= results.len()
    });
    rare.map(|(_, (name, value))| format!("{name}: {value}")).collect()
}

/// What may explain a machine's figures, rough enough to be shared.
fn properties(environment: &Environment) -> Vec<(&'static str, String)> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
    let yes = |value: Option<bool>| value.map_or("unknown", |yes| if yes { "yes" } else { "no" }).to_owned();
    let busy = environment.load.map(|[load, ..]| load > environment.cores as f64 / 4.0);
    vec![
        ("CPU", text(&environment.cpu)),
        ("CPUs", environment.cores.to_string()),
        ("kernel", environment.kernel.clone()),
        ("memory in GiB", environment.memory.map_or_else(String::new, |bytes| (bytes >> 30).to_string())),
        ("virtual machine", yes(environment.virtual_machine)),
        ("busy when it began", yes(busy)),
        ("governor", text(&environment.governor)),
        ("on battery", yes(environment.on_battery)),
        ("cgroups", environment.cgroups.label().into()),
        ("root", environment.root.to_string()),
        ("build of the lab", environment.build.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::bench;
    use super::*;

    fn class(slow: usize) -> Vec<(String, Bench)> {
        let machine = |number: usize| {
            let mut bench = bench(6);
            if number == slow {
                for values in bench.experiments[0].runs.iter_mut().flat_map(|run| &mut run.values) {
                    values.samples.iter_mut().for_each(|value| *value *= 3.0);
                }
                bench.environment.governor = Some("powersave".into());
                bench.environment.on_battery = Some(true);
            }
            (format!("machine {number}"), bench)
        };
        (0..6).map(machine).collect()
    }

    #[test]
    fn a_slow_machine_is_found_and_explained_by_what_sets_it_apart() {
        let pool = pool(&class(2));
        assert!(pool.rows.iter().all(|row| row.odd == ["machine 2"]), "{pool:?}");
        assert_eq!(pool.odd.len(), 1);
        let because = &pool.odd[0].because;
        assert_eq!(because, &["governor: powersave", "on battery: yes"]);
    }

    #[test]
    fn a_class_of_equal_machines_has_no_odd_one() {
        assert!(pool(&class(99)).odd.is_empty());
        assert_eq!(far_off(&[1.0, 1.01, 0.99, 1.1, 1.02]), [0_usize; 0]);
        assert_eq!(far_off(&[1.0, 9.0]), [0_usize; 0]);
    }

    #[test]
    fn machines_with_and_without_hardware_never_share_a_row() {
        let mut results = class(99);
        results[1].1.subjects[1].obtained = crate::measure::record::Obtained::Tcg;
        let pool = pool(&results);
        let vm: Vec<_> = pool.rows.iter().filter(|row| row.case.starts_with("vm")).collect();
        assert_eq!(vm.len(), 2);
        assert!(vm.iter().any(|row| row.machines.len() == 1 && row.case.contains("TCG")), "{vm:?}");
    }
}
