//! `lab doctor`: what this machine offers and what it lacks.

use std::process::ExitCode;

use lab::doctor;

/// List each prerequisite, found or missing, and the command that fixes it.
///
/// Changes nothing and needs no rights. The exit code is 0 where both walls can be compared as things are, 1 otherwise.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  lab doctor --json | jq -r '.checks[] | select(.state == \"missing\") | .fix'")]
pub struct Args {
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let checks = doctor::examine();
    let ready = doctor::is_ready(&checks);
    if args.json {
        let object = serde_json::json!({ "ready": ready, "checks": checks });
        super::print(&format!("{}\n", serde_json::to_string_pretty(&object)?))?;
    } else {
        super::print(&doctor::render(&checks))?;
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
