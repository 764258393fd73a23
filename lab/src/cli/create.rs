//! `lab create` and `lab run -d`: containers that are stored and live on their own.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
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
    let record = create(&Engine::open()?, &args.run, |_| {})?;
    super::print(&format!("{}\n", record.id))?;
    Ok(ExitCode::SUCCESS)
}

/// `lab run -d`: made and started.
pub fn run_detached(args: &run::Args) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let record = match create(&engine, args, |_| {}) {
        Ok(record) => record,
        Err(error) => return Ok(run::failed(&error)),
    };
    engine.start(&record)?;
    super::print(&format!("{}\n", record.id))?;
    Ok(ExitCode::SUCCESS)
}

/// `lab run` in a network: stored while it runs, with this terminal or these streams, and removed at its end.
pub fn run_attached(args: &run::Args) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let record = create(&engine, args, |body| {
        body.stdin_once = Some(true);
        body.host_config.get_or_insert_default().auto_remove = Some(true);
    });
    let record = match record {
        Ok(record) => record,
        Err(error) => return Ok(run::failed(&error)),
    };
    super::exec::run_to_the_end(&engine, &record, args.streams())
}

/// As `lab run` tells it: the exit code says that it was the lab that failed.
pub fn failed(error: &Error) -> anyhow::Result<ExitCode> {
    super::style::print_error(&error.to_string());
    Ok(ExitCode::from(error.exit_code()))
}

fn create(
    engine: &Engine,
    args: &run::Args,
    change: impl FnOnce(&mut ContainerCreateBody),
) -> anyhow::Result<Record> {
    let mut body = ContainerCreateBody::default();
    args.configure(&mut body)?;
    change(&mut body);
    let image = body.image.clone().unwrap_or_default();
    let mut file = args.id_file()?;
    if args.pull() == "always" {
        super::registry::pull_for_run(&image, false)?;
    }
    let created = match engine.create(args.name(), body.clone()) {
        Err(Error::Image(image::Error::NotFound { name })) if image == name && args.pull() != "never" => {
            super::registry::pull_for_run(&name, false)?;
            engine.create(args.name(), body)
        }
        result => result,
    };
    match (created, &mut file) {
        (Ok(record), Some(file)) => {
            file.write_all(record.id.as_bytes()).context("write the --cidfile")?;
            Ok(record)
        }
        (Ok(record), None) => Ok(record),
        (Err(error), file) => {
            if file.is_some() {
                args.forget_id_file();
            }
            Err(error.into())
        }
    }
}
