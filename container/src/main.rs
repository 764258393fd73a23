//! `lab-container`: the OCI runtime as a command, with the command line of runc, so that engines can drive it.
//!
//! Started by the C library itself: Rust's own start looks for the stack's end in /proc/self/maps and sets up a handler
//! that explains its overflow, 20 system calls and 90 kB of program that a runtime of a few milliseconds can do without.
#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

mod cli;

#[cfg(all(target_env = "gnu", not(test)))]
#[unsafe(no_mangle)]
extern "C" fn main() -> std::ffi::c_int {
    container::begin_program();
    cli::main().into()
}

// Others than GNU's C library do not tell a program its arguments without Rust's start.
#[cfg(not(all(target_env = "gnu", not(test))))]
fn main() -> std::process::ExitCode {
    cli::main().into()
}
