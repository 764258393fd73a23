//! `lab doctor`: what this machine offers and what it lacks.

use std::process::ExitCode;

/// List each prerequisite, found or missing, and the command that fixes it.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`lab doctor` is not built yet");
}
