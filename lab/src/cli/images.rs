//! `lab images`: the images at hand.

use std::process::ExitCode;

/// List the images at hand.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`lab images` is not built yet");
}
