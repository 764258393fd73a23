//! `lab demo`: the main job in one command.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use lab::doctor;
use lab::kernel::{self, Packages};
use lab::measure::record::Backing;
use lab::measure::walls;

use super::kernel::Progress;
use super::{compare, style};

/// Set up what is missing, then compare both walls on the default image.
///
/// On a fresh machine: says which packages it installs and what for, installs them through apt (as root, or with sudo),
/// builds the guest kernel (once, some minutes; Ctrl-C pauses it), and compares. A second run sets nothing up again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab demo                        asks before it installs anything
  lab demo --yes --html demo.html")]
pub struct Args {
    /// Install what is missing without asking
    #[arg(short, long)]
    yes: bool,
    /// Counted runs a wall
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Write the comparison as one self-contained page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Without its VM the comparison still shows the container, and says what is missing.
    if let Err(error) = set_up(args.yes) {
        style::print_error(&super::one_line(&error));
        anstream::eprintln!(
            "The comparison goes on with what there is; `lab doctor` lists what is missing.\n"
        );
    }
    compare::run(compare::Args::of_demo(args.html, args.runs))
}

/// Installs and builds what a VM needs and this machine lacks.
fn set_up(yes: bool) -> anyhow::Result<()> {
    let backing = walls::backing();
    let kernel = kernel::resolve(None)?;
    let fits = |kernel: &kernel::Kernel| backing != Ok(Backing::Software) || kernel.meta.works_without_vtx;
    let build = !kernel.as_ref().is_some_and(fits);

    let mut install = Packages::default();
    let mut reasons = Vec::new();
    if let Err(reason) = &backing
        && doctor::find_program("qemu-system-x86_64").is_none()
    {
        install.names.push("qemu-system-x86".into());
        reasons.push(format!(
            "qemu-system-x86 emulates the machine in software, for KVM cannot be used here ({reason})"
        ));
    }
    if build {
        let tools = kernel::missing_for_build();
        if !tools.is_empty() {
            reasons
                .push(format!("{} build the guest's Linux kernel from its source", tools.names.join(", ")));
        }
        install.names.extend(tools.names);
    }
    let mut progress = Progress::new();
    if !install.is_empty() {
        let names = install.names.join(" ");
        anstream::eprintln!("To be installed through the package manager: {names}");
        for reason in reasons {
            anstream::eprintln!("  because {reason}");
        }
        anstream::eprintln!("  by: {}", install.command());
        if !yes && !agreed()? {
            anyhow::bail!(
                "nothing was installed; run `{}` yourself, then `lab demo` again",
                install.command()
            );
        }
        kernel::install(&install, &mut |event| progress.show(event))?;
    }
    if build {
        anstream::eprintln!("Building the guest's kernel, once: some minutes.");
        let interrupted = super::kernel::interrupt_flag()?;
        kernel::build(None, &interrupted, &mut |event| progress.show(event))?;
        progress.finish();
    }
    Ok(())
}

/// Asks on a terminal; where there is nobody to ask, to have said it must do.
fn agreed() -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(true);
    }
    anstream::eprint!("Install them? [Y/n] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    // The end of input is no consent.
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") || answer == "\n")
}
