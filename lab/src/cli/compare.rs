//! `lab compare`: both walls on the same work.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use lab::measure::plan;
use lab::measure::record::Record;
use lab::measure::session::{self, Request};
use lab::measure::store;
use lab::measure::walls::{self, Choice};
use lab::report;

use super::runs_bar::Progress;

/// Run the same program behind both walls and compare what each costs.
///
/// Each run is a fresh `lab run` process, timed from its start to the workload's first instruction and to its exit; the
/// runs of the two walls are interleaved in random order. Then the memory of idle sandboxes is measured. Ctrl-C ends it
/// early and keeps what there is. Every result is stored with its raw samples and the machine's description.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "lab compare [OPTIONS] [IMAGE] [COMMAND] [ARG...]",
    after_help = "Examples:
  lab compare                                     the default image's hello, 10 runs a wall
  lab compare --runs 30 --html report.html lab cpu
  lab compare --seed 42 --json a.json             the same order of runs each time
  lab compare --from a.json --html a.html         a stored result again, on any machine"
)]
pub struct Args {
    /// The image, then the command and its arguments; without them, the default image's hello
    #[arg(trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    image_and_command: Vec<String>,

    /// Counted runs a wall
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// What the random order comes from; by default a new one each time, stored with the result
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Leave out the memory of idle sandboxes
    #[arg(long)]
    no_memory: bool,

    /// Limit memory, in both walls alike; for a virtual machine, its whole memory
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Boot this guest kernel, one that `lab kernel list` shows
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Run the machine's processor by KVM, or by QEMU's emulation
    #[arg(long, default_value = "auto", value_parser = ["auto", "kvm", "tcg"])]
    accel: String,

    /// Write the result with all raw samples as JSON
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    json: Option<PathBuf>,
    /// Write one self-contained page
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    html: Option<PathBuf>,
    /// Write one line a run, for a spreadsheet
    #[arg(long, value_name = "FILE", help_heading = "Reports")]
    csv: Option<PathBuf>,
    /// Measure nothing: report a stored result
    #[arg(long, value_name = "FILE", help_heading = "Reports", conflicts_with_all = ["seed", "memory", "kernel", "no_memory"])]
    from: Option<PathBuf>,
}

impl Args {
    /// What `lab demo` compares: the default image, the default number of runs.
    pub(super) fn of_demo(html: Option<PathBuf>, runs: u32) -> Self {
        Self {
            image_and_command: Vec::new(),
            runs,
            seed: None,
            no_memory: false,
            memory: None,
            kernel: None,
            accel: "auto".into(),
            json: None,
            html,
            csv: None,
            from: None,
        }
    }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let record = match &args.from {
        Some(path) => store::load(path)?,
        None => measure(&args)?,
    };
    super::print(&report::terminal::render(&record, super::runs_bar::width()))?;
    write_reports(&args, &record)?;
    if record.walls.iter().all(|wall| wall.counted().next().is_none()) {
        // The reasons are in the report above; scripts see the failure.
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &Args) -> anyhow::Result<Record> {
    let mut words = args.image_and_command.iter().cloned();
    let choice = Choice {
        image: words.next(),
        command: words.collect(),
        memory: args.memory.clone(),
        kernel: args.kernel.clone(),
        accelerator: args.accel.clone(),
        with_memory: !args.no_memory,
    };
    let seed = args.seed.unwrap_or_else(plan::fresh_seed);
    let request: Request = walls::request(&choice, args.runs, seed)?;
    let interrupted = interrupt_flag()?;
    let mut progress = Progress::new();
    let record = session::compare(request, &interrupted, &mut |step| progress.show(step));
    progress.finish();
    let folder = lab::paths::data()?.join("results");
    match store::save(&record, &folder) {
        Ok(path) => anstream::eprintln!("stored: {}", path.display()),
        // A result that cannot be stored is still worth its report.
        Err(error) => anstream::eprintln!("lab: warning: {error}"),
    }
    Ok(record)
}

fn write_reports(args: &Args, record: &Record) -> anyhow::Result<()> {
    let write = |path: &Option<PathBuf>, text: &dyn Fn() -> anyhow::Result<String>| -> anyhow::Result<()> {
        let Some(path) = path else { return Ok(()) };
        store::write(path, &text()?)?;
        if path != Path::new("/dev/stdout") {
            anstream::eprintln!("wrote: {}", path.display());
        }
        Ok(())
    };
    write(&args.json, &|| Ok(store::json_text(record)))?;
    write(&args.html, &|| Ok(report::html::render(record)))?;
    write(&args.csv, &|| report::csv::render(record).context("write the samples as CSV"))
}

/// Ctrl-C and SIGTERM end the comparison in good order: the run that is going on gives everything back.
pub(super) fn interrupt_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).context("watch for Ctrl-C")?;
    }
    Ok(flag)
}
