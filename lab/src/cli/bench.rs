//! `lab bench`: the field's experiments on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use lab::measure::bench::pin::Pins;
use lab::measure::bench::record::Bench;
use lab::measure::bench::session::{self, Request};
use lab::measure::bench::{Experiment, store, subjects};
use lab::measure::{experiments, peers, plan};
use lab::report::bench as report;

use super::runs_bar;

/// Run the field's experiments through both walls: start-up, memory, density, system calls, isolation and more.
///
/// Each experiment runs on the bare host, in a container and in a virtual machine, as far as the machine has them, in an order
/// that is random but stored. Every result is kept with its raw samples, the commands that made them and the machine's description.
/// Ctrl-C ends it early and keeps what there is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab bench --list                               what can be asked
  lab bench --explain density                    how it is measured, and what the figures do not show
  lab bench --quick                              everything, in less than five minutes
  lab bench startup --peers --runs 30            beside runc, crun, podman, QEMU and whoever is installed
  lab bench --quick --html report.html --svg plots/")]
pub struct Args {
    /// Which experiments; all without a name
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// The short form: fewer runs of each
    #[arg(long)]
    quick: bool,
    /// Runs of each case, in place of each experiment's own number
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: Option<u32>,
    /// What the random order comes from; by default a new one each time, stored with the result
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Measure other runtimes, engines and monitors in the same run, those that are installed
    #[arg(long)]
    peers: bool,
    /// Hold all that is measured to these CPUs, monitor and vCPU and load alike, but for what the next two say
    #[arg(long, value_name = "CPU[,CPU]", value_delimiter = ',')]
    pin: Vec<usize>,
    /// Hold the vCPUs of virtual machines to these CPUs
    #[arg(long, value_name = "CPU[,CPU]", value_delimiter = ',')]
    pin_vcpus: Vec<usize>,
    /// Hold clients that put load on a server behind a wall to these CPUs
    #[arg(long, value_name = "CPU[,CPU]", value_delimiter = ',')]
    pin_load: Vec<usize>,
    /// Boot this guest kernel, one that `lab kernel list` shows
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,

    /// List the experiments
    #[arg(long)]
    list: bool,
    /// Say what the experiments ask and what their answers are worth, and measure nothing
    #[arg(long, conflicts_with = "list")]
    explain: bool,

    #[command(flatten)]
    reports: Reports,
}

/// Where to write what a terminal does not hold.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Reports")]
pub struct Reports {
    /// Write the result with all raw samples as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write one line a value, for a spreadsheet
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write one self-contained page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write each plot as a picture of its own, for slides
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,
}

impl Reports {
    /// Writes what was asked for.
    pub fn write(&self, bench: &Bench) -> anyhow::Result<()> {
        let write = |path: &Path, text: &str| -> anyhow::Result<()> {
            lab::measure::store::write(path, text)?;
            if path != Path::new("/dev/stdout") {
                anstream::eprintln!("wrote: {}", path.display());
            }
            Ok(())
        };
        if let Some(path) = &self.json {
            write(path, &store::json_text(bench))?;
        }
        if let Some(path) = &self.csv {
            write(path, &report::csv::render(bench).context("write the values as CSV")?)?;
        }
        if let Some(path) = &self.html {
            write(path, &report::page::render(bench))?;
        }
        if let Some(folder) = &self.svg {
            for plot in report::plots::all(bench) {
                write(&folder.join(format!("{}.svg", plot.name)), &plot.standalone())?;
            }
        }
        Ok(())
    }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.list {
        super::print(&report::explain::list())?;
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = chosen(&args.names)?;
    if args.explain {
        let texts: Vec<_> =
            chosen.iter().map(|&it| report::explain::explain(it, runs_bar::width())).collect();
        super::print(&texts.join("\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let bench = measure(&args, chosen)?;
    let folder = lab::paths::data()?.join("results");
    match store::save(&bench, &folder) {
        Ok(path) => anstream::eprintln!("stored: {}", path.display()),
        // A result that cannot be stored is still worth its report.
        Err(error) => anstream::eprintln!("lab: warning: {error}"),
    }
    super::print(&report::terminal::render(&bench, runs_bar::width()))?;
    args.reports.write(&bench)?;
    // The reasons are in the report above; scripts see the failure.
    let any = bench.experiments.iter().any(|it| it.runs.iter().any(lab::measure::bench::record::Run::counts));
    Ok(if any { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static dyn Experiment>> {
    if names.is_empty() {
        return Ok(experiments::ALL.to_vec());
    }
    let find = |name: &String| {
        experiments::find(name).with_context(|| {
            let known: Vec<_> = experiments::ALL.iter().map(|it| it.about().name).collect();
            format!("no experiment is called {name}; there are {}", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

fn measure(args: &Args, experiments: Vec<&'static dyn Experiment>) -> anyhow::Result<Bench> {
    let interrupted = super::compare::interrupt_flag()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if let Some(cpu) = args.pin.iter().chain(&args.pin_vcpus).chain(&args.pin_load).find(|&&cpu| cpu >= cores)
    {
        bail!("there is no CPU {cpu} to hold to: they are numbered from 0 to {}", cores - 1);
    }
    let scratch =
        tempfile::Builder::new().prefix("lab-bench-").tempdir().context("make a folder to work in")?;
    // An archive or a bundle is made there, and some peers map users: all may look.
    fs::set_permissions(scratch.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let (subjects, image, digest) =
        subjects::of_machine(args.kernel.clone(), args.peers, scratch.path(), &interrupted)?;
    let seed = args.seed.unwrap_or_else(plan::fresh_seed);
    let request = Request {
        experiments,
        subjects,
        image: (image, digest),
        runs: args.runs,
        seed,
        quick: args.quick,
        pins: Pins { all: args.pin.clone(), vcpus: args.pin_vcpus.clone(), load: args.pin_load.clone() },
        reproduce: reproduce(args, seed),
        scratch: scratch.path().into(),
    };
    let style = ProgressStyle::with_template("{msg:34} {wide_bar} {pos}/{len}  {prefix}");
    let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let bench = session::bench(request, &interrupted, &mut |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_prefix(progress.left.map_or_else(String::new, runs_bar::left));
        bar.set_message(format!("{}: {}", progress.experiment, progress.case));
    });
    bar.finish_and_clear();
    if args.peers {
        peers::engines::tidy(scratch.path());
    }
    Ok(bench)
}

/// The command line that makes such a result again.
fn reproduce(args: &Args, seed: u64) -> Vec<String> {
    let mut words: Vec<String> = ["lab", "bench"].map(Into::into).into();
    words.extend(args.names.iter().cloned());
    words.extend(args.quick.then(|| "--quick".into()));
    words.extend(args.peers.then(|| "--peers".into()));
    words.extend(args.runs.iter().flat_map(|runs| ["--runs".into(), runs.to_string()]));
    words.extend(["--seed".into(), seed.to_string()]);
    let pins = [("--pin", &args.pin), ("--pin-vcpus", &args.pin_vcpus), ("--pin-load", &args.pin_load)];
    for (flag, cpus) in pins.into_iter().filter(|(_, cpus)| !cpus.is_empty()) {
        let cpus: Vec<_> = cpus.iter().map(ToString::to_string).collect();
        words.extend([flag.into(), cpus.join(",")]);
    }
    words.extend(args.kernel.iter().flat_map(|name| ["--kernel".into(), name.clone()]));
    words
}
