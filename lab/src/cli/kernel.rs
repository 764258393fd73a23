//! `lab kernel`: the kernels that virtual machines boot.

use std::process::ExitCode;

/// Work with guest kernels: list, build, fetch, use.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`lab kernel` is not built yet");
}
