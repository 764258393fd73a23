//! `lab`: the command line. Every command is one file under [`cli`]; what they do lives in the library of this crate.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: the first mark of a run's timeline is this moment.
    cli::main(lab_clock::now())
}
