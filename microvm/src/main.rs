//! `lab-vm`: virtual machines as a command, with the command line of runc, so that engines can drive it.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
