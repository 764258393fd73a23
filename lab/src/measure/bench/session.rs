//! A bench from the first run to the last. Nothing is lost on the way: what fails, what is missing and what the user stopped
//! each leave a record that says so.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lab_clock::now;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use super::pin::{self, Pin, Pins};
use super::record::{Absent, Bench, ExperimentRecord, Run, SCHEMA, VERSION};
use super::subjects::{Subject, command_line};
use super::{Case, Experiment, Seen};
use crate::measure::child::{Call, Finished, Stopped};
use crate::measure::environment::{self, Environment};
use crate::measure::record::{Ended, Outcome};

/// What the bench has to work with.
pub struct Site<'a> {
    /// Who can be measured, or could if it were there.
    pub subjects: &'a [Subject],
    /// Whether it is to be short.
    pub quick: bool,
    /// What every order comes from.
    pub seed: u64,
    /// The CPUs that measured processes are held to.
    pub pins: &'a Pins,
    /// A folder for what experiments make; removed at the end.
    pub scratch: &'a Path,
    /// Set once the user has seen enough.
    pub interrupted: &'a AtomicBool,
}

/// A bench to make.
pub struct Request {
    /// What is asked.
    pub experiments: Vec<&'static dyn Experiment>,
    /// Who is measured.
    pub subjects: Vec<Subject>,
    /// The image, and its digest.
    pub image: (String, Option<String>),
    /// Runs of each case, where that is not left to the experiments.
    pub runs: Option<u32>,
    /// What every order comes from.
    pub seed: u64,
    /// Whether it is to be short.
    pub quick: bool,
    /// The CPUs to hold measured processes to.
    pub pins: Pins,
    /// The command line that makes such a result again.
    pub reproduce: Vec<String>,
    /// A folder for what experiments make.
    pub scratch: PathBuf,
}

/// How far a bench is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The experiment.
    pub experiment: &'static str,
    /// The subject, and its variation.
    pub case: String,
    /// Runs made, of all experiments.
    pub done: usize,
    /// Runs in all.
    pub total: usize,
    /// The time left, by the runs made so far.
    pub left: Option<Duration>,
}

impl Site<'_> {
    /// A subject, where it can be measured.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn subject(&self, name: &str) -> Result<&Subject, String> {
        let found = self.subjects.iter().find(|subject| subject.name() == name);
        let found = found.ok_or_else(|| format!("nobody is called {name}"))?;
        match &found.record.unavailable {
            Some(reason) => Err(reason.clone()),
            None => Ok(found),
        }
    }

    /// One case for each of these subjects.
    pub fn cases(&self, names: &[&str]) -> Vec<Case> {
        let known = |name: &&&str| self.subjects.iter().any(|subject| subject.name() == **name);
        names.iter().filter(known).map(|name| Case::of(name)).collect()
    }

    /// Runs a client to its end, which puts load on a server behind a wall: it may have processors of its own.
    ///
    /// # Errors
    /// As [`Site::finish`].
    pub fn put_load(&self, client: &Call, limit: Duration) -> Result<Finished, String> {
        let _pin = Pin::to(&self.pins.load);
        self.finish(client, limit)
    }

    /// Runs a call to its end.
    ///
    /// # Errors
    /// Where it could not be started, did not end in time, was stopped, or ended badly.
    pub fn finish(&self, call: &Call, limit: Duration) -> Result<Finished, String> {
        let running = call.spawn(Stdio::null()).map_err(|error| told(call, &error))?;
        let finished = running.finish(limit, self.interrupted).map_err(|error| error.to_string())?;
        match finished.stopped {
            Some(Stopped::Interrupted) => Err(STOPPED.into()),
            Some(Stopped::TimedOut) => Err(format!("did not end within {} s", limit.as_secs())),
            None if finished.status.success() => Ok(finished),
            None if finished.last_words().is_empty() => Err(format!("it ended with {}", finished.status)),
            None => Err(finished.last_words().to_owned()),
        }
    }
}

/// What a run that the user stopped is told by.
pub const STOPPED: &str = "stopped by the user";

/// Why a call could not be started.
pub fn told(call: &Call, error: &std::io::Error) -> String {
    format!("start {}: {error}", call.program.display())
}

/// Makes a bench. `interrupted` ends it early; what was measured until then is in the record.
pub fn bench(request: Request, interrupted: &AtomicBool, progress: &mut dyn FnMut(Progress)) -> Bench {
    let environment = Environment::probe();
    let created = jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string();
    let _pin = Pin::to(&request.pins.all);
    let site = Site {
        subjects: &request.subjects,
        quick: request.quick,
        seed: request.seed,
        pins: &request.pins,
        scratch: &request.scratch,
        interrupted,
    };
    let baseline = baseline(&site);
    let plans: Vec<_> = request.experiments.iter().map(|&it| Plan::of(it, &site, request.runs)).collect();
    let total = plans.iter().map(|plan| plan.order.len()).sum();
    let mut session =
        Session { site: &site, progress, done: 0, total, took: Vec::new(), gave_up: Vec::new() };
    let experiments = pin::with_vcpus(&request.pins, || {
        let mut experiments = Vec::new();
        for plan in plans {
            if interrupted.load(Ordering::Relaxed) {
                break;
            }
            experiments.push(session.run(plan));
        }
        experiments
    });
    let ended = if interrupted.load(Ordering::Relaxed) {
        Ended::Interrupted { reason: STOPPED.into() }
    } else {
        Ended::Complete
    };
    Bench {
        schema: SCHEMA.into(),
        version: VERSION,
        lab: env!("CARGO_PKG_VERSION").into(),
        created,
        reproduce: request.reproduce,
        ended,
        seed: request.seed,
        quick: request.quick,
        image: request.image.0,
        digest: request.image.1,
        pinned: request.pins.all,
        pinned_vcpus: request.pins.vcpus,
        pinned_load: request.pins.load,
        environment,
        baseline,
        subjects: request.subjects.into_iter().map(|subject| subject.record).collect(),
        experiments,
    }
}

/// The order of an experiment's runs, and who is left out of it.
struct Plan {
    experiment: &'static dyn Experiment,
    order: Vec<(Case, bool)>,
    absent: Vec<Absent>,
}

impl Plan {
    /// Block-randomised, as in [`crate::measure::plan`]: each block holds one run of each case, shuffled.
    fn of(experiment: &'static dyn Experiment, site: &Site<'_>, runs: Option<u32>) -> Self {
        let mut absent: Vec<Absent> = Vec::new();
        let mut cases = experiment.cases(site);
        cases.retain(|case| match site.subject(&case.subject) {
            Ok(_) => true,
            Err(reason) => {
                let entry = Absent { subject: case.subject.clone(), reason };
                if !absent.contains(&entry) {
                    absent.push(entry);
                }
                false
            }
        });
        let mut rng = ChaCha8Rng::seed_from_u64(site.seed);
        let rounds = runs.unwrap_or_else(|| experiment.rounds(site.quick));
        let first = u32::from(!experiment.warms_up());
        let mut order = Vec::new();
        for block in first..=rounds {
            cases.shuffle(&mut rng);
            order.extend(cases.iter().map(|case| (case.clone(), block == 0)));
        }
        Self { experiment, order, absent }
    }
}

struct Session<'a, 'b> {
    site: &'a Site<'a>,
    progress: &'b mut dyn FnMut(Progress),
    done: usize,
    total: usize,
    took: Vec<u64>,
    /// Cases whose first run failed: they would fail each time in the same way.
    gave_up: Vec<Case>,
}

impl Session<'_, '_> {
    fn run(&mut self, plan: Plan) -> ExperimentRecord {
        let name = plan.experiment.about().name;
        let mut record = ExperimentRecord {
            name: name.into(),
            metrics: plan.experiment.metrics().iter().map(super::Metric::record).collect(),
            runs: Vec::new(),
            absent: plan.absent,
        };
        self.gave_up.clear();
        for (sequence, (case, warmup)) in (0..).zip(plan.order) {
            if self.site.interrupted.load(Ordering::Relaxed) {
                break;
            }
            if !self.gave_up.contains(&case) {
                self.report(name, &case);
                let run = self.one(plan.experiment, &case, sequence, warmup);
                self.took.push(run.ended - run.began);
                let failed = matches!(run.outcome, Outcome::Failed { .. });
                if failed && !record.runs.iter().any(|other| other.subject == run.subject && other.counts()) {
                    self.gave_up.push(case);
                }
                record.runs.push(run);
            }
            self.done += 1;
        }
        record
    }

    fn one(&self, experiment: &dyn Experiment, case: &Case, sequence: u32, warmup: bool) -> Run {
        let load = environment::load_now();
        let began = now();
        let result = experiment.run(self.site, case);
        let ended = now();
        let (seen, outcome) = match result {
            Ok(seen) => (seen, Outcome::Ok),
            Err(_) if self.site.interrupted.load(Ordering::Relaxed) => {
                (Seen::default(), Outcome::Interrupted)
            }
            Err(message) => (Seen::default(), Outcome::Failed { message }),
        };
        Run {
            sequence,
            subject: case.subject.clone(),
            variant: case.variant.clone(),
            warmup,
            began,
            ended,
            load,
            outcome,
            command: seen.command,
            values: seen.values,
            facts: seen.facts,
            marks: seen.marks,
        }
    }

    fn report(&mut self, experiment: &'static str, case: &Case) {
        let mean = self.took.iter().sum::<u64>().checked_div(self.took.len() as u64);
        let left = mean.map(|mean| Duration::from_nanos(mean) * (self.total - self.done) as u32);
        let variant = if case.variant.is_empty() { String::new() } else { format!(", {}", case.variant) };
        let case = format!("{}{variant}", case.subject);
        (self.progress)(Progress { experiment, case, done: self.done, total: self.total, left });
    }
}

/// Fork, exec and exit of the smallest program there is, again and again: how fast this machine does what every wall does.
fn baseline(site: &Site<'_>) -> Vec<f64> {
    const RUNS: usize = 40;
    let Ok(call) = site.subject(super::subjects::HOST).and_then(|host| host.call(&[], &["true"])) else {
        return Vec::new();
    };
    let mut values = Vec::new();
    for run in 0..=RUNS {
        if site.interrupted.load(Ordering::Relaxed) {
            break;
        }
        let mut command = std::process::Command::new(&call.program);
        command.args(&call.before).stdin(Stdio::null()).stdout(Stdio::null());
        let began = now();
        // The first fills the page cache.
        if command.status().is_ok_and(|status| status.success()) && run > 0 {
            values.push((now() - began) as f64 / 1e6);
        }
    }
    values
}

/// The command of a call, for the record.
pub fn seen_of(call: &Call) -> Seen {
    Seen { command: command_line(call), ..Seen::default() }
}
