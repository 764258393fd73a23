//! `lab compare`: both walls on the same work.

use std::process::ExitCode;

/// Run the same program behind both walls and compare what each costs.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`lab compare` is not built yet");
}
