//! The command line of `lab-vm`: `boot` looks at a kernel, `run` runs a bundle.

mod boot;
mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand};
use lab_clock::{Mark, Timeline};
use microvm::vm::Vm;

/// Virtual machines from OCI bundles.
#[derive(Parser)]
#[command(name = "lab-vm", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Boot(boot::Args),
    Run(run::Args),
}

/// Flags for a closer look at a guest, the same for every command.
#[derive(clap::Args)]
struct Look {
    /// Words for the kernel command line; of two equal words the last counts
    #[arg(short, long, value_name = "WORDS")]
    append: Vec<String>,
    /// Print the marks and the exits on standard error at the end
    #[arg(long)]
    stats: bool,
    /// Sample the first vCPU every millisecond and print a histogram by function at the end; the file is a System.map, or the
    /// output of `nm -n vmlinux`
    #[arg(long, value_name = "SYMBOLS")]
    profile: Option<PathBuf>,
}

/// Runs the command that the arguments name.
pub(crate) fn run() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Boot(args) => boot::run(args),
        Command::Run(args) => run::run(args),
    }
}

fn timeline() -> Result<Arc<Timeline>> {
    let timeline = Arc::new(Timeline::new()?);
    timeline.mark(Mark::Started);
    Ok(timeline)
}

impl Look {
    /// The symbols, read before the boot: a wrong name should not cost one.
    fn symbols(&self) -> Result<Option<String>> {
        let read = |path: &Path| {
            fs::read_to_string(path)
                .map_err(|error| anyhow!("cannot read the symbols {}: {error}", path.display()))
        };
        self.profile.as_deref().map(read).transpose()
    }

    /// What was seen.
    /// `vm` is none where QEMU runs the guest.
    fn print(&self, vm: Option<&Vm>, timeline: &Timeline, symbols: Option<&str>) {
        if self.stats {
            let marks = timeline.marks();
            let start = marks.first().map_or(0, |(_, at)| *at);
            for (mark, at) in marks {
                eprintln!("{:>12.3} ms  {}", (at - start) as f64 / 1e6, mark.name());
            }
        }
        let Some(vm) = vm else {
            return eprintln!("the guest ran under QEMU's translator (TCG), without KVM");
        };
        if self.stats {
            let (probe, kind) = (vm.probe(), if vm.probe().hardware { "hardware" } else { "interpreted" });
            eprintln!("{:>12.3} ns  a kernel-mode instruction: {kind}", probe.instruction);
            for (name, count) in vm.stats().exits().filter(|(_, count)| *count > 0) {
                eprintln!("{count:>12}     {name}");
            }
        }
        if let (Some(symbols), Some(profile)) = (symbols, vm.profile()) {
            eprint!("{}", profile.by_function(symbols));
        }
    }
}
