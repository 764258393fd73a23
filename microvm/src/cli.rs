//! The command line of `lab-vm`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand};
use lab_clock::{Mark, Timeline};
use microvm::boot::{self, Config};
use microvm::devices::serial::Console;
use microvm::initramfs::Initramfs;
use microvm::vcpu::End;
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
    Boot(Boot),
}

/// Boot a kernel with its console on standard output, without a bundle: to look at a kernel, and at where its boot spends
/// its time.
#[derive(clap::Args)]
struct Boot {
    /// The kernel: a vmlinux or a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// A static program that becomes /init of the initramfs
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Memory in MiB
    #[arg(short, long, default_value_t = 64)]
    memory: u32,
    /// Number of vCPUs
    #[arg(long, default_value_t = 1)]
    cpus: u8,
    /// Words for the kernel command line; of two equal words the last counts
    #[arg(short, long, value_name = "WORDS")]
    append: Vec<String>,
    /// Enter the kernel by PVH, if it offers that
    #[arg(long)]
    pvh: bool,
    /// Print the marks and the exits on standard error at the end
    #[arg(long)]
    stats: bool,
    /// Sample the first vCPU every millisecond and print a histogram by function: a System.map, or the output of `nm -n vmlinux`
    #[arg(long, value_name = "SYMBOLS")]
    profile: Option<PathBuf>,
}

pub(crate) fn run() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Boot(args) => boot_kernel(args),
    }
}

fn boot_kernel(args: Boot) -> Result<ExitCode> {
    let timeline = Arc::new(Timeline::new()?);
    timeline.mark(Mark::Started);
    let symbols = match &args.profile {
        Some(path) => Some(read_symbols(path)?),
        None => None,
    };
    let mut initramfs = Initramfs::new();
    if let Some(init) = &args.init {
        initramfs.add_file("init", true, init)?;
    }
    let vm = boot::boot(Config {
        kernel: args.kernel,
        kernel_cache: None,
        initramfs,
        command_line: args.append,
        memory_mib: args.memory,
        vcpus: args.cpus,
        devices: Vec::new(),
        console: Console::new(Some(Box::new(io::stdout()))),
        pvh: args.pvh,
        profile: symbols.is_some(),
        timeline: timeline.clone(),
    })?;
    let end = vm.wait()?;
    timeline.mark(Mark::Exited);
    if args.stats {
        print_stats(&vm, &timeline);
    }
    if let (Some(symbols), Some(profile)) = (symbols, vm.profile()) {
        eprint!("{}", profile.by_function(&symbols));
    }
    match end {
        End::Asked(_) => Ok(ExitCode::SUCCESS),
        other => anyhow::bail!("the guest did not end well: {other:?}"),
    }
}

fn read_symbols(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| anyhow!("cannot read the symbols {}: {error}", path.display()))
}

fn print_stats(vm: &Vm, timeline: &Timeline) {
    let marks = timeline.marks();
    let start = marks.first().map_or(0, |(_, at)| *at);
    for (mark, at) in marks {
        eprintln!("{:>12.3} ms  {}", (at - start) as f64 / 1e6, mark.name());
    }
    eprintln!("{:?}", vm.probe());
    for (name, count) in vm.stats().exits() {
        eprintln!("{count:>12}     {name}");
    }
}
