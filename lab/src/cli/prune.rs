//! `lab prune`: what nobody uses any more.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use lab::engine::stored::{Engine, Filters, Scope};

/// Remove the containers that do not run and the images without a name.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only those that fit: label=KEY[=VALUE], label!=KEY[=VALUE], until=TIME (10m, 24h or a date)
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let filters = Filters::from_words(&args.filter)?;
    // Before anyone is asked, and before the first of several kinds is removed.
    Scope::of(&filters, &[])?;
    if !args.force && !agreed("all containers that do not run and all images without a tag")? {
        return Ok(ExitCode::FAILURE);
    }
    let engine = Engine::open()?;
    let mut text = String::new();
    let (removed, mut freed) = engine.prune_containers(&filters)?;
    for id in removed {
        let _ = writeln!(text, "Deleted container: {id}");
    }
    let pruned = engine.prune_images(&filters)?;
    freed += pruned.freed;
    for id in &pruned.deleted {
        let _ = writeln!(text, "Deleted image: {id}");
    }
    let _ = writeln!(text, "Total reclaimed space: {}", super::images::bytes(freed));
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks whether to go on.
pub fn agreed(what: &str) -> anyhow::Result<bool> {
    anyhow::ensure!(std::io::stdin().is_terminal(), "there is nobody to ask: say --force");
    eprint!("Remove {what}? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
