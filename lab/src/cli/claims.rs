//! `lab claims`: what introductions say of containers and virtual machines, judged on this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use lab::claims::{Judged, gather, stored};
use lab::measure::record::WallRecord;
use lab::measure::{plan, store};
use lab::report;

use super::runs_bar::{self, Progress};

/// Judge four common claims about containers and virtual machines by what this machine measures.
///
/// Resources, time, isolation, portability: each is printed with its evidence, its verdict, and under which conditions the
/// verdict would be another. Start-up and memory are measured as `lab compare` does, then the start of a machine restored from
/// a snapshot (kept for the next `lab run --warm`), what a workload sees behind each wall, and what each wall has to carry to
/// another machine. The result is stored with all raw samples. Ctrl-C ends it early.
///
/// With --from, nothing is run: the experiments of a stored bench decide, density, minimum memory, neighbours and the rest among them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab claims                      10 runs a wall
  lab claims --runs 30 --json claims.json
  lab bench --quick && lab claims --from latest
  lab claims --from reference     by the experiments that come with the lab")]
pub struct Args {
    /// Counted runs a wall
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Judge by the experiments of this stored result: a file, a name of `lab results list`, latest, or reference
    #[arg(long, value_name = "RESULT", conflicts_with_all = ["runs", "kernel"])]
    from: Option<String>,
    /// Boot this guest kernel, one that `lab kernel list` shows
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Write the result with all raw samples as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(name) = &args.from {
        return from_stored(name, args.json);
    }
    let interrupted = super::compare::interrupt_flag()?;
    let mut progress = Progress::new();
    let seed = plan::fresh_seed();
    let judged = gather(args.runs, seed, args.kernel, &interrupted, &mut |step| progress.show(step))?;
    progress.finish();
    super::print(&report::claims::render(&judged, runs_bar::width()))?;
    keep(&judged, args.json)?;
    let measured = |wall: &WallRecord| wall.counted().next().is_some();
    // The reasons are in the report above; scripts see the failure.
    let any = judged.gathered.comparison.walls.iter().any(measured);
    Ok(if any { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Judges a stored bench.
fn from_stored(name: &str, json: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let bench = super::results::find(name)?.into_bench();
    let claims = stored::judge(&bench);
    let made = report::figures::command_line(&bench.reproduce);
    let from = format!("judged by a stored result of {}, made by: {made}", bench.created);
    super::print(&report::claims::claims(&from, &claims, runs_bar::width()))?;
    if let Some(path) = json {
        let result = serde_json::json!({
            "schema": lab::claims::SCHEMA, "version": lab::claims::VERSION, "claims": claims, "from": bench,
        });
        store::write(&path, &format!("{result:#}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Stores the result beside those of `lab compare`, and where the user wants it.
fn keep(judged: &Judged, json: Option<PathBuf>) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(judged)?;
    text.push('\n');
    let record = &judged.gathered.comparison;
    let stored = store::path_of("claims", record, &lab::paths::data()?.join("results"));
    match store::write(&stored, &text) {
        Ok(()) => anstream::eprintln!("stored: {}", stored.display()),
        // A result that cannot be stored is still worth its report.
        Err(error) => anstream::eprintln!("lab: warning: {error}"),
    }
    if let Some(path) = json {
        store::write(&path, &text)?;
    }
    Ok(())
}
