//! `lab prune`: what nobody uses any more.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use lab::engine::stored::{Engine, Filters};

/// Remove the containers that do not run and the images without a name.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only containers that fit, such as label=KEY=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let filters = Filters::from_words(&args.filter)?;
    if !args.force && !agreed()? {
        return Ok(ExitCode::FAILURE);
    }
    let engine = Engine::open()?;
    let mut text = String::new();
    for id in engine.prune_containers(&filters)? {
        let _ = writeln!(text, "Deleted container: {id}");
    }
    for id in engine.prune_images()? {
        let _ = writeln!(text, "Deleted image: {id}");
    }
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn agreed() -> anyhow::Result<bool> {
    anyhow::ensure!(std::io::stdin().is_terminal(), "there is nobody to ask: say --force");
    eprint!("Remove all containers that do not run and all images without a name? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
