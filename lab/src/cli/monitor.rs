//! `lab monitor`: the process that stays with a running container; started by the lab itself, never by hand.

use std::process::ExitCode;

use lab::engine::monitor;

/// Stay with a container while it runs. Started by the lab itself.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container's id.
    pub id: String,
}

pub fn run(id: &str) -> anyhow::Result<ExitCode> {
    monitor::detach()?;
    if let Err(error) = monitor::main(id) {
        // Whoever started it reads this, as long as it has not said that it is ready.
        super::print(&error.to_string())?;
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
