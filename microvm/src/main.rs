//! `lab-vm`: the microvm crate's own small command line.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run().unwrap_or_else(|error| {
        // One line: the library's messages contain their causes.
        eprintln!("lab-vm: error: {error}");
        let code = error.downcast_ref::<microvm::Error>().map_or(125, microvm::Error::exit_code);
        ExitCode::from(code)
    })
}
