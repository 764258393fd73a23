//! `lab results`, `lab replay`, `lab pool`: what was measured before, here or elsewhere. None of them needs a wall.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use lab::measure::bench::record::Bench;
use lab::measure::bench::store::{self, Stored};
use lab::measure::bench::{compare, pool, summary};
use lab::report::{self, figures};

use super::bench::Reports;
use super::runs_bar::width;

/// Look at stored results, and set two beside each other.
///
/// A result is a file, or the name of one that `lab results list` shows. Those of `lab compare` and `lab claims` can be read as
/// well. Machines differ; times of different machines are compared as multiples of what each takes for fork and exec.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab results list
  lab results show bench-20260102T030405Z-42
  lab results diff before.json after.json
  lab results export bench-20260102T030405Z-42 --html report.html --svg plots/")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the stored results.
    #[command(visible_alias = "ls")]
    List,
    /// Print a result's report.
    Show {
        /// The result.
        result: String,
        #[command(flatten)]
        reports: Reports,
    },
    /// Set two results beside each other, and say which differences are above the noise.
    Diff {
        /// The first.
        before: String,
        /// The second.
        after: String,
    },
    /// Write a result as JSON, CSV, a page or pictures.
    Export {
        /// The result.
        result: String,
        #[command(flatten)]
        reports: Reports,
    },
}

/// Play a recorded result back, run by run, as if it were measured now: for a machine without /dev/kvm.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// The result: a file, or a name of `lab results list`; `reference` is one that the lab carries
    result: String,
    /// So many times as fast as it was; 0 for at once
    #[arg(long, value_name = "TIMES", value_parser = speed)]
    speed: Option<f64>,
    #[command(flatten)]
    reports: Reports,
}

/// Put the results of several machines together: distributions, and what sets the odd ones apart.
#[derive(Debug, clap::Args)]
pub struct PoolArgs {
    /// A folder with results of `lab bench` and `lab compare`, one or more a machine
    folder: PathBuf,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    if speed.is_finite() && speed >= 0.0 { Ok(speed) } else { Err("it must be 0 or more".into()) }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List => list()?,
        Command::Show { result, reports } => {
            let stored = find(&result)?;
            super::print(&report_of(&stored))?;
            reports.write(&stored.into_bench())?;
        }
        Command::Diff { before, after } => {
            let (first, second) = (find(&before)?.into_bench(), find(&after)?.into_bench());
            let difference = compare::difference(&first, &second);
            let text = report::bench::several::difference((&before, &after), &difference, width());
            super::print(&text)?;
        }
        Command::Export { result, reports } => {
            let bench = find(&result)?.into_bench();
            reports.write(&bench)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list() -> anyhow::Result<()> {
    let folder = lab::paths::data()?.join("results");
    let results = match store::list(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        results => results.with_context(|| format!("list {}", folder.display()))?,
    };
    super::print(&report::bench::several::list(&results, width()))?;
    Ok(())
}

/// A file, or the name of a stored one; `latest` is the bench that was stored last.
pub(super) fn find(result: &str) -> anyhow::Result<Stored> {
    if result == "latest" {
        let folder = lab::paths::data()?.join("results");
        let benches = store::list(&folder).unwrap_or_default().into_iter();
        let benches = benches.filter_map(|(path, stored)| match stored {
            Ok(Stored::Bench(bench)) => Some((path.metadata().and_then(|meta| meta.modified()).ok()?, bench)),
            _ => None,
        });
        let last = benches.max_by_key(|(time, _)| *time);
        let (_, bench) =
            last.context("no result of lab bench is stored yet; make one with: lab bench --quick")?;
        return Ok(Stored::Bench(bench));
    }
    if result == "reference" {
        return Ok(store::reference()?);
    }
    if Path::new(result).is_file() {
        return Ok(store::load(Path::new(result))?);
    }
    let stored = lab::paths::data()?.join("results").join(format!("{result}.json"));
    if result.contains('/') || !stored.is_file() {
        bail!("no result {result}: it is no file, and lab results list does not show it");
    }
    Ok(store::load(&stored)?)
}

/// Each kind has its own report.
fn report_of(stored: &Stored) -> String {
    match stored {
        Stored::Bench(bench) => report::bench::terminal::render(bench, width()),
        Stored::Comparison(record) => report::terminal::render(record, width()),
    }
}

pub fn replay(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let stored = find(&args.result)?;
    let bench = stored.clone().into_bench();
    let terminal = std::io::stdout().is_terminal();
    // A pipe's reader wants the text, not the wait.
    let speed = args.speed.unwrap_or(if terminal { 1.0 } else { 0.0 });
    let interrupted = super::compare::interrupt_flag()?;
    super::print(&format!(
        "Recorded {} on {}: nothing is measured now.\n\n",
        figures::plain(&bench.created),
        figures::plain(bench.environment.cpu.as_deref().unwrap_or("an unknown machine"))
    ))?;
    for experiment in &bench.experiments {
        super::print(&format!("{}\n", figures::plain(&experiment.name)))?;
        for run in &experiment.runs {
            if interrupted.load(std::sync::atomic::Ordering::Relaxed) {
                return Ok(ExitCode::FAILURE);
            }
            if speed > 0.0 {
                let nanos = (run.ended - run.began) as f64 / speed;
                std::thread::sleep(Duration::from_nanos(nanos as u64).min(Duration::from_secs(30)));
            }
            super::print(&line(&bench, experiment, run))?;
        }
    }
    super::print("\n")?;
    super::print(&report_of(&stored))?;
    args.reports.write(&bench)?;
    Ok(ExitCode::SUCCESS)
}

/// One run, as it was.
fn line(
    bench: &Bench,
    experiment: &lab::measure::bench::record::ExperimentRecord,
    run: &lab::measure::bench::record::Run,
) -> String {
    let values = run.values.iter().filter(|values| values.x.is_none()).filter_map(|values| {
        let metric = experiment.metric(&values.metric)?;
        let median = lab::measure::stats::median(&values.samples);
        Some(format!("{} {}", metric.name, figures::quantity(median, metric.unit)))
    });
    let values: Vec<_> = values.collect();
    let by = bench.subject(&run.subject).map_or("unknown", |subject| subject.obtained.label());
    let warmup = if run.warmup { ", warm-up" } else { "" };
    let case = figures::plain(&summary::case(&run.subject, &run.variant));
    format!("  {:3}  {case} ({by}{warmup}): {}\n", run.sequence, values.join(", "))
}

pub fn pool(args: PoolArgs) -> anyhow::Result<ExitCode> {
    let found = store::list(&args.folder).with_context(|| format!("list {}", args.folder.display()))?;
    let mut results = Vec::new();
    for (path, result) in found {
        match result {
            Ok(stored) => results.push((report::bench::several::name(&path), stored.into_bench())),
            Err(error) => anstream::eprintln!("lab: warning: {error}"),
        }
    }
    if results.is_empty() {
        bail!("no results in {}; put files of lab bench or lab compare there", args.folder.display());
    }
    let pooled = pool::pool(&results);
    super::print(&report::bench::several::pool(&pooled, results.len(), width()))?;
    Ok(ExitCode::SUCCESS)
}
