//! `lab completion`: the shell learns the commands and flags.

use std::process::ExitCode;

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

/// Print the completion script of a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab completion bash | sudo tee /etc/bash_completion.d/lab
  lab completion zsh > \"${fpath[1]}/_lab\"
  lab completion fish > ~/.config/fish/completions/lab.fish")]
pub struct Args {
    /// The shell that the script is for.
    #[arg(value_enum)]
    shell: Supported,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Supported {
    Bash,
    Zsh,
    Fish,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let shell = match args.shell {
        Supported::Bash => Shell::Bash,
        Supported::Zsh => Shell::Zsh,
        Supported::Fish => Shell::Fish,
    };
    // Into memory first: `generate` panics where its writer fails, and `lab completion bash | head -1` must not.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::Cli::command(), "lab", &mut script);
    super::print(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}
