//! `lab create` and `lab run -d`: containers that are stored and live on their own.

use std::process::ExitCode;

use bollard_stubs::models::ContainerCreateBody;
use lab::engine::Error;
use lab::engine::stored::{Engine, Record};
use lab::image;

use super::run;

/// Make a container, to be started later; prints its id.
#[derive(Debug, clap::Args)]
#[command(override_usage = "lab create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
#[group(id = "create")]
pub struct Args {
    #[command(flatten)]
    run: run::Args,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let record = create(&Engine::open()?, &args.run)?;
    super::print(&format!("{}\n", record.id))?;
    Ok(ExitCode::SUCCESS)
}

/// `lab run -d`: made and started.
pub fn run_detached(args: &run::Args) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let record = create(&engine, args)?;
    engine.start(&record)?;
    super::print(&format!("{}\n", record.id))?;
    Ok(ExitCode::SUCCESS)
}

/// `lab run` in a network: stored while it runs, with this terminal or these streams, and removed at its end.
pub fn run_attached(args: &run::Args) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let mut body = ContainerCreateBody::default();
    args.configure(&mut body)?;
    body.stdin_once = Some(true);
    body.host_config.get_or_insert_default().auto_remove = Some(true);
    let record = match engine.create(args.name(), body) {
        Ok(record) => record,
        Err(error) => return failed(&error),
    };
    super::exec::run_to_the_end(&engine, &record, args.streams())
}

/// As `lab run` tells it: the exit code says that it was the lab that failed.
pub fn failed(error: &Error) -> anyhow::Result<ExitCode> {
    super::style::print_error(&error.to_string());
    Ok(ExitCode::from(error.exit_code()))
}

fn create(engine: &Engine, args: &run::Args) -> anyhow::Result<Record> {
    let mut body = ContainerCreateBody::default();
    args.configure(&mut body)?;
    match engine.create(args.name(), body.clone()) {
        Err(Error::Image(image::Error::NotFound { name })) if body.image.as_ref() == Some(&name) => {
            super::registry::pull_for_run(&name, false)?;
            Ok(engine.create(args.name(), body)?)
        }
        result => Ok(result?),
    }
}
