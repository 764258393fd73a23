//! `lab demo`: the main job in one command.

use std::process::ExitCode;

/// Set up what is missing, then compare both walls on the default image.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`lab demo` is not built yet");
}
