//! A stored container's life: `lab start`, `stop`, `restart`, `kill`, `pause`, `unpause`, `wait`, `rename`, `rm`.

use std::process::ExitCode;

use lab::engine::Error;
use lab::engine::stored::{Engine, Record, Stop};

use super::style::print_error;

/// Containers, by their names or ids.
#[derive(Debug, clap::Args)]
pub struct Names {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Containers, and how they are stopped.
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    #[command(flatten)]
    names: Names,
    /// Seconds until it is killed; -1 never
    #[arg(short = 't', long = "time", alias = "timeout", allow_hyphen_values = true, value_name = "SECONDS")]
    seconds: Option<i64>,
    /// The signal that asks it to stop
    #[arg(short, long)]
    signal: Option<String>,
}

/// Containers, and what they are killed by.
#[derive(Debug, clap::Args)]
pub struct KillArgs {
    #[command(flatten)]
    names: Names,
    /// The signal
    #[arg(short, long, default_value = "KILL")]
    signal: String,
}

/// Containers, and how they are removed.
#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    names: Names,
    /// Kill it first where it runs
    #[arg(short, long)]
    force: bool,
    /// Remove its volumes that have no name, too
    #[arg(short, long)]
    volumes: bool,
}

/// A container, and its new name.
#[derive(Debug, clap::Args)]
pub struct RenameArgs {
    /// Name or id
    container: String,
    /// The new name
    name: String,
}

/// Does something to each container: its name is printed, or an error, and the exit code tells that there was one.
pub fn each(
    names: &[String],
    act: impl Fn(&Engine, &Record) -> Result<Option<String>, Error>,
) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match engine.find(name).and_then(|record| act(&engine, &record)) {
            // What is so already is what was wanted, as docker sees it.
            Err(Error::Already { .. }) | Ok(None) => super::print(&format!("{name}\n"))?,
            Ok(Some(said)) => super::print(&format!("{said}\n"))?,
            Err(error) => {
                print_error(&super::one_line(&error.into()));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

pub fn start(names: &Names) -> anyhow::Result<ExitCode> {
    each(&names.containers, |engine, record| engine.start(record).map(|()| None))
}

pub fn stop(args: &StopArgs) -> anyhow::Result<ExitCode> {
    each(&args.names.containers, |engine, record| engine.stop(record, &args.how()).map(|()| None))
}

pub fn restart(args: &StopArgs) -> anyhow::Result<ExitCode> {
    each(&args.names.containers, |engine, record| engine.restart(record, &args.how()).map(|()| None))
}

pub fn kill(args: &KillArgs) -> anyhow::Result<ExitCode> {
    each(&args.names.containers, |engine, record| engine.kill(record, &args.signal).map(|()| None))
}

pub fn pause(names: &Names, still: bool) -> anyhow::Result<ExitCode> {
    each(&names.containers, |engine, record| engine.pause(record, still).map(|()| None))
}

pub fn wait(names: &Names) -> anyhow::Result<ExitCode> {
    each(&names.containers, |engine, record| engine.wait(record).map(|code| Some(code.to_string())))
}

pub fn remove(args: &RemoveArgs) -> anyhow::Result<ExitCode> {
    each(&args.names.containers, |engine, record| {
        engine.remove(record, args.force, args.volumes).map(|()| None)
    })
}

pub fn rename(args: &RenameArgs) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    engine.rename(&engine.find(&args.container)?, &args.name)?;
    Ok(ExitCode::SUCCESS)
}

impl StopArgs {
    fn how(&self) -> Stop {
        Stop { signal: self.signal.clone(), seconds: self.seconds }
    }
}
