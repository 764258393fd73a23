//! Results of both kinds on disk, old and new: read with suspicion, and brought into one form where that is possible.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::record::{
    Absent, Bench, Better, ExperimentRecord, MetricRecord, Run, SCHEMA, SubjectRecord, Unit, VERSION, Values,
};
use crate::measure::plan::Wall;
use crate::measure::record::{Obtained, Record};
use crate::measure::store::{self, Error};
use crate::measure::summary::Metric;

const LIMIT: u64 = 256 << 20;
/// No value of any unit is greater: 10¹⁸ nanoseconds are thirty years.
const MOST: f64 = 1e18;

/// A stored result.
#[derive(Clone, Debug)]
pub enum Stored {
    /// Of `lab bench`.
    Bench(Box<Bench>),
    /// Of `lab compare`.
    Comparison(Box<Record>),
}

impl Stored {
    /// As a bench: a comparison is one with the experiments `startup` and `memory`.
    pub fn into_bench(self) -> Bench {
        match self {
            Stored::Bench(bench) => *bench,
            Stored::Comparison(record) => of_comparison(&record),
        }
    }
}

/// Writes a result into the folder under a name made of its time and seed.
///
/// # Errors
/// What the file system says.
pub fn save(bench: &Bench, folder: &Path) -> Result<PathBuf, Error> {
    let time: String = bench.created.chars().filter(char::is_ascii_alphanumeric).collect();
    let path = folder.join(format!("bench-{time}-{}.json", bench.seed));
    store::write(&path, &json_text(bench))?;
    Ok(path)
}

/// A result as its file has it: one line a run would be lost among braces, so it is not indented.
///
/// # Panics
/// Never: a result has no maps with keys other than strings.
pub fn json_text(bench: &Bench) -> String {
    let mut text = serde_json::to_string(bench).expect("a result is plain data");
    text.push('\n');
    text
}

/// Reads a result of either kind.
///
/// # Errors
/// Where the file cannot be read, is of a version that cannot be converted, or contradicts itself.
pub fn load(path: &Path) -> Result<Stored, Error> {
    let error = |source| Error::Read { path: path.into(), source };
    let mut text = String::new();
    File::open(path).map_err(error)?.take(LIMIT + 1).read_to_string(&mut text).map_err(error)?;
    let refuse = |reason| Error::Unreadable { path: path.into(), reason };
    if text.len() as u64 > LIMIT {
        return Err(refuse(format!("it is larger than {} MiB", LIMIT >> 20)));
    }
    parse(&text).map_err(refuse)
}

fn parse(text: &str) -> Result<Stored, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("it is not JSON, or was cut off: {error}"))?;
    match value["schema"].as_str() {
        Some(SCHEMA) => bench(value).map(|bench| Stored::Bench(Box::new(bench))),
        Some(crate::measure::record::SCHEMA) => {
            store::of_value(value).map(|record| Stored::Comparison(Box::new(record)))
        }
        // The claims carry the comparison that they follow from.
        Some(crate::claims::SCHEMA) => {
            let mut value = value;
            store::of_value(value["gathered"]["comparison"].take())
                .map(|record| Stored::Comparison(Box::new(record)))
        }
        Some(other) => Err(format!("\"schema\": {other:?} is none that this lab knows")),
        None => Err(format!("it has no \"schema\": \"{SCHEMA}\"")),
    }
}

fn bench(value: Value) -> Result<Bench, String> {
    if value["version"] != VERSION {
        return Err(format!(
            "its version is {}, this lab reads version {VERSION}; use the lab that wrote it ({})",
            value["version"], value["lab"]
        ));
    }
    let bench = Bench::deserialize(value).map_err(|error| format!("a field is missing or wrong: {error}"))?;
    check(&bench)?;
    Ok(bench)
}

/// What the types cannot say.
fn check(bench: &Bench) -> Result<(), String> {
    let finite = |value: &f64| value.is_finite() && value.abs() <= MOST;
    for subject in &bench.subjects {
        let wall = matches!(subject.name.as_str(), super::subjects::VM | super::subjects::RESTORED);
        if wall && subject.obtained == Obtained::HostKernel {
            return Err(format!("the subject {} cannot have been obtained by: host kernel", subject.name));
        }
    }
    for experiment in &bench.experiments {
        for run in &experiment.runs {
            let name = &experiment.name;
            if run.ended < run.began {
                return Err(format!("run {} of {name} ends before it begins", run.sequence));
            }
            match bench.subject(&run.subject) {
                None => return Err(format!("run {} of {name} is of nobody: {}", run.sequence, run.subject)),
                Some(subject) if subject.obtained == Obtained::Nothing && run.counts() => {
                    return Err(format!("{} has runs of {name}, but was obtained by nothing", run.subject));
                }
                Some(_) => {}
            }
            for values in &run.values {
                if experiment.metric(&values.metric).is_none() {
                    return Err(format!(
                        "run {} of {name} has an unknown metric {}",
                        run.sequence, values.metric
                    ));
                }
                if !values.samples.iter().chain(&values.x).all(finite) {
                    return Err(format!("run {} of {name} has a value that cannot be", run.sequence));
                }
            }
        }
    }
    if !bench.baseline.iter().all(finite) {
        return Err("the baseline has a value that cannot be".into());
    }
    Ok(())
}

/// A comparison as a bench.
pub fn of_comparison(record: &Record) -> Bench {
    let subject = |wall: Wall| match wall {
        Wall::Container => super::subjects::CONTAINER,
        Wall::Vm => super::subjects::VM,
    };
    let mut startup = ExperimentRecord {
        name: "startup".into(),
        metrics: [
            ("first-instruction", Metric::ToFirstInstruction),
            ("exit", Metric::ToExit),
            ("whole", Metric::WholeRun),
        ]
        .map(|(name, metric)| MetricRecord {
            name: name.into(),
            label: metric.label().into(),
            unit: Unit::Milliseconds,
            better: Better::Lower,
        })
        .into(),
        runs: Vec::new(),
        absent: Vec::new(),
    };
    for wall in &record.walls {
        if let Some(reason) = &wall.unavailable {
            startup.absent.push(Absent { subject: subject(wall.wall).into(), reason: reason.clone() });
        }
        startup.runs.extend(wall.samples.iter().map(|sample| {
            let values = [
                ("first-instruction", Metric::ToFirstInstruction),
                ("exit", Metric::ToExit),
                ("whole", Metric::WholeRun),
            ];
            let values = values.into_iter().filter_map(|(name, metric)| {
                Some(Values { metric: name.into(), x: None, samples: vec![metric.of(sample)?] })
            });
            Run {
                sequence: sample.sequence,
                subject: subject(wall.wall).into(),
                variant: "warm cache".into(),
                warmup: sample.warmup,
                began: sample.spawned,
                ended: sample.ended,
                load: sample.load,
                outcome: sample.outcome.clone(),
                command: String::new(),
                values: values.collect(),
                facts: [].into(),
                marks: sample.marks.clone(),
            }
        }));
    }
    startup.runs.sort_by_key(|run| run.sequence);
    Bench {
        schema: SCHEMA.into(),
        version: VERSION,
        lab: record.lab.clone(),
        created: record.created.clone(),
        reproduce: record.reproduce.clone(),
        ended: record.ended.clone(),
        seed: record.plan.seed,
        quick: false,
        image: record.plan.image.clone(),
        digest: record.plan.digest.clone(),
        pinned: Vec::new(),
        pinned_vcpus: Vec::new(),
        pinned_load: Vec::new(),
        environment: record.environment.clone(),
        baseline: Vec::new(),
        subjects: record
            .walls
            .iter()
            .map(|wall| SubjectRecord {
                name: subject(wall.wall).into(),
                title: crate::report::waterfall::title(wall.wall).into(),
                obtained: wall.obtained,
                version: wall.kernel.as_ref().map(|kernel| kernel.release.clone()),
                unavailable: wall.unavailable.clone(),
            })
            .collect(),
        experiments: vec![startup],
    }
}

/// The result that the lab carries, to be replayed and compared with: a whole bench of a machine of two CPUs.
///
/// # Errors
/// None in practice: a test reads it.
pub fn reference() -> Result<Stored, Error> {
    parse(include_str!("../../../reference/two-cpus.json"))
        .map_err(|reason| Error::Unreadable { path: "the reference".into(), reason })
}

/// All results in a folder, newest last, each with why it cannot be read where it cannot.
///
/// # Errors
/// Where the folder cannot be read.
pub fn list(folder: &Path) -> std::io::Result<Vec<(PathBuf, Result<Stored, Error>)>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    let modified = |path: &PathBuf| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    paths.sort_by_cached_key(|path| (modified(path), path.clone()));
    Ok(paths.into_iter().map(|path| (path.clone(), load(&path))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::bench as synthetic;
    use super::*;
    use serde_json::json;

    fn with(change: impl FnOnce(&mut Value)) -> Result<Stored, String> {
        let mut value = serde_json::to_value(synthetic(3)).unwrap();
        change(&mut value);
        parse(&value.to_string())
    }

    #[test]
    fn a_result_comes_back_as_it_was_stored() {
        let folder = tempfile::tempdir().unwrap();
        let bench = synthetic(5);
        let path = save(&bench, folder.path()).unwrap();
        assert!(load(&path).unwrap().into_bench() == bench);
        assert_eq!(list(folder.path()).unwrap().len(), 1);
    }

    #[test]
    fn another_version_is_named_and_another_schema_is_refused() {
        assert!(with(|value| value["version"] = json!(9)).unwrap_err().contains("version is 9"));
        assert!(with(|value| value["schema"] = json!("other")).unwrap_err().contains("other"));
        assert!(with(|value| drop(value.as_object_mut().unwrap().remove("schema"))).is_err());
    }

    #[test]
    fn a_comparison_becomes_a_bench_and_keeps_what_it_was_obtained_by() {
        let record = crate::measure::fixtures::record(4);
        let bench = parse(&store::json_text(&record)).unwrap().into_bench();
        assert_eq!(bench.subject("vm").unwrap().obtained.label(), "KVM, not hardware-backed");
        let startup = bench.experiment("startup").unwrap();
        assert_eq!(startup.runs.len(), 10);
        assert_eq!(startup.counted("vm", "warm cache").count(), 4);
        check(&bench).unwrap();
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let run = "/experiments/0/runs/0";
        let set = |value: &mut Value, path: &str, to: Value| *value.pointer_mut(path).unwrap() = to;
        assert!(with(|value| set(value, &format!("{run}/ended"), json!(0))).is_ok(), "0 is not before 0");
        assert!(with(|value| set(value, &format!("{run}/began"), json!(u64::MAX))).is_err());
        assert!(with(|value| set(value, &format!("{run}/subject"), json!("stranger"))).is_err());
        assert!(with(|value| set(value, &format!("{run}/values/0/metric"), json!("odd"))).is_err());
        assert!(with(|value| set(value, &format!("{run}/values/0/samples/0"), json!(1e300))).is_err());
        assert!(with(|value| set(value, "/baseline/0", json!(1e300))).is_err());
    }

    #[test]
    fn a_vm_s_result_cannot_lose_or_change_what_it_was_obtained_by() {
        let remove = |value: &mut Value, path: &str, key: &str| {
            value.pointer_mut(path).unwrap().as_object_mut().unwrap().remove(key);
        };
        assert!(with(|value| remove(value, "/subjects/1", "obtained")).is_err());
        assert!(with(|value| remove(value, "/subjects/1/obtained", "backing")).is_err());
        assert!(with(|value| value["subjects"][1]["obtained"] = json!({"by": "host-kernel"})).is_err());
        assert!(with(|value| value["subjects"][1]["obtained"] = json!({"by": "nothing"})).is_err());
    }

    #[test]
    fn a_file_cut_off_at_any_place_is_refused_without_a_panic() {
        let text = json_text(&synthetic(2));
        for end in (0..text.len() - 2).step_by(61) {
            assert!(parse(&text[..end]).is_err(), "{end}");
        }
    }
}
