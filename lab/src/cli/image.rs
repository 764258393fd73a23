//! `lab image`: load, list and remove images.

use std::process::ExitCode;

/// Work with images: load, list, inspect, remove.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`lab image` is not built yet");
}
