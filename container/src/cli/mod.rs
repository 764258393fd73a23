//! The command line. Options stand before or after the container's id; the global ones before the command.
#![allow(clippy::unnecessary_wraps)] // all commands have one shape, also those that cannot fail

mod exec;
mod features;
mod foreground;
mod life;
mod log;
mod show;
mod time;
mod update;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use container::{Container, Error};

/// An OCI runtime that is made to be read.
#[derive(Debug, Parser)]
#[command(name = "lab-container", disable_version_flag = true, subcommand_required = false)]
struct Command {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Sub>,
}

/// What all commands share.
#[derive(Debug, Args)]
struct Global {
    /// Directory for the state of containers.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// File to write errors to, beside standard error.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How to write that file.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = log::Format::Text)]
    log_format: log::Format,
    /// Accepted for engines; nothing is logged but errors.
    #[arg(long)]
    debug: bool,
    /// Let systemd make the cgroup.
    #[arg(long)]
    systemd_cgroup: bool,
    /// Accepted for engines: whether this is root is seen from the user.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    rootless: Option<String>,
    /// Print the versions.
    #[arg(long, short)]
    version: bool,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Make a container from a bundle; its process waits to be started.
    Create(life::Create),
    /// Let a created container's process become the workload.
    Start(life::Id),
    /// Create, start, wait and delete.
    Run(life::Run),
    /// Print a container's state as JSON.
    State(life::Id),
    /// Send a signal to a container's process.
    Kill(life::Kill),
    /// Remove a container and all it used.
    Delete(life::Delete),
    /// Freeze all processes of a container.
    Pause(life::Id),
    /// Let a paused container go on.
    Resume(life::Id),
    /// Run one more process in a container.
    Exec(exec::Exec),
    /// List containers.
    List(show::List),
    /// List a container's processes.
    Ps(show::Ps),
    /// Print what a container uses.
    Events(show::Events),
    /// Change a container's limits.
    Update(update::Update),
    /// Write an example configuration.
    Spec(show::SpecArgs),
    /// Print what this runtime can do, as JSON.
    Features,
    /// Not supported.
    Checkpoint(Unsupported),
    /// Not supported.
    Restore(Unsupported),
}

/// Whatever is given to a command that does not exist here.
#[derive(Debug, Args)]
struct Unsupported {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<String>,
}

/// What a command that failed says and returns.
#[derive(Debug)]
struct Failure {
    message: String,
    code: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: error.exit_code(), message: error.to_string() }
    }
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }
}

/// The exit code of a command, or why it failed.
type Outcome = Result<u8, Failure>;

pub(crate) fn main() -> ExitCode {
    let command = Command::parse();
    let global = command.global;
    let outcome = match command.command {
        _ if global.version => features::version(),
        None => Err(Failure::new("no command; see --help")),
        Some(_) if global.systemd_cgroup => Err(Failure::new(
            "--systemd-cgroup: cgroups made by systemd are not supported yet; leave the option out",
        )),
        Some(command) => run(command, &global),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            log::error(&global, &failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: Sub, global: &Global) -> Outcome {
    match command {
        Sub::Create(args) => args.run(global),
        Sub::Start(args) => args.start(global),
        Sub::Run(args) => args.run(global),
        Sub::State(args) => show::state(&args, global),
        Sub::Kill(args) => args.run(global),
        Sub::Delete(args) => args.run(global),
        Sub::Pause(args) => args.pause(global),
        Sub::Resume(args) => args.resume(global),
        Sub::Exec(args) => args.run(global),
        Sub::List(args) => args.run(global),
        Sub::Ps(args) => args.run(global),
        Sub::Events(args) => args.run(global),
        Sub::Update(args) => args.run(global),
        Sub::Spec(args) => args.run(),
        Sub::Features => features::print(),
        Sub::Checkpoint(_) | Sub::Restore(_) => Err(Failure::new(
            "checkpoint and restore are not supported: use an engine's own image commit, or a virtual machine",
        )),
    }
}

impl Global {
    /// Where state is kept: given, or `/run` for root, the user's own run-time directory otherwise.
    fn root(&self) -> PathBuf {
        match (&self.root, std::env::var_os("XDG_RUNTIME_DIR")) {
            (Some(root), _) => root.clone(),
            (None, Some(user)) if !rustix::process::geteuid().is_root() => {
                PathBuf::from(user).join("lab-container")
            }
            (None, _) => "/run/lab-container".into(),
        }
    }

    fn load(&self, id: &str) -> Result<Container, Failure> {
        Ok(Container::load(&self.root(), id)?)
    }
}
