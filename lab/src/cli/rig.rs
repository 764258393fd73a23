//! `lab rig`: real KVM semantics on any machine.

use std::process::ExitCode;

/// Run the tests inside an emulated machine that has hardware virtualization.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`lab rig` is not built yet");
}
