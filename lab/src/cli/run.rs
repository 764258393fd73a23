//! `lab run`: one command in a sandbox, behind the wall of choice.

use std::process::ExitCode;

use lab_clock::Nanos;

/// Run a command in a new sandbox: a container, or a virtual machine with its own kernel.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args, _started: Nanos) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`lab run` is not built yet");
}
