//! `lab rig`: hardware-like KVM on any machine.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use lab::rig::{Rig, RigCommand};

/// Run a command on an emulated machine whose processor has hardware virtualization.
///
/// The command sees this machine's files (what it writes is gone afterwards), a /dev/kvm with the semantics of hardware,
/// and cgroup v2 with every controller. Times measured in it compare only with others from the rig.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab rig lab run --runtime vm lab hello      both walls' code against real KVM semantics
  lab rig sh -c 'ls -l /dev/kvm; nproc'       look around")]
pub struct Args {
    /// Memory of the machine, in MiB.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(512..=65536))]
    memory: u32,
    /// Emulated CPUs.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    cpus: u8,
    /// Switch the machine off after so many seconds.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// Show the machine's kernel messages.
    #[arg(short, long)]
    verbose: bool,
    /// Another kernel than the distribution's (a bzImage).
    #[arg(long, requires = "modules", value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The folder of that kernel's modules.
    #[arg(long, requires = "kernel", value_name = "DIR")]
    modules: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (kernel, modules) = match (args.kernel, args.modules) {
        (Some(kernel), Some(modules)) => (kernel, modules),
        _ => lab::kernel::list()?.iter().find_map(lab::kernel::Kernel::for_rig).context(
            "the rig boots the distribution's kernel, which is not here; `lab kernel fetch` gets it",
        )?,
    };
    let rig = Rig {
        memory_mib: args.memory,
        cpus: args.cpus,
        timeout: Duration::from_secs(args.timeout),
        verbose: args.verbose,
        ..Rig::new(&kernel, &modules)
    };
    let command = RigCommand {
        argv: args.command,
        env: std::env::vars_os().collect(),
        cwd: std::env::current_dir().context("the working directory is gone")?,
    };
    let code = rig.run(&command, &mut io::stdout(), &mut io::stderr())?;
    Ok(ExitCode::from(code))
}
