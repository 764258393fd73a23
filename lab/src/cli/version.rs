//! `lab version`: what this is, for people and for scripts.

use std::process::ExitCode;

/// Print the version.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  lab version --json | jq -r .version")]
pub struct Args {
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    if args.json {
        let runtimes = ["container", "vm"];
        let object = serde_json::json!({
            "name": "lab", "version": version, "arch": std::env::consts::ARCH, "runtimes": runtimes,
        });
        super::print(&format!("{object}\n"))?;
    } else {
        super::print(&format!("lab {version}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
