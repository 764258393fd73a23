//! `lab vm snapshot` and `lab vm restore`: a machine written down as it runs, and new ones that go on from there.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::ensure;
use lab::engine::stored::saved::{Saved, size_on_disk};
use lab::engine::stored::{Engine, Record};
use serde_json::json;

use super::{bytes, one_line, print, style};

/// Write a running machine down into a new folder; it is held still meanwhile, and goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab run -d --name web --runtime vm lab http
  lab vm snapshot web web-snapshot
  lab vm restore web-snapshot --name web2")]
pub struct SnapshotArgs {
    /// Name or id
    container: String,
    /// The folder, to be made; an empty one will do
    folder: PathBuf,
    /// As JSON, for other programs
    #[arg(long)]
    json: bool,
}

/// Make new machines of a snapshot, which go on from there; prints their ids. Published ports get new numbers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab vm restore web-snapshot                        a machine with a name of its own
  lab vm restore web-snapshot --name web --count 3   web-1, web-2 and web-3")]
pub struct RestoreArgs {
    /// The snapshot's folder
    folder: PathBuf,
    /// The new machine's name; of several, what comes before their numbers
    #[arg(long)]
    name: Option<String>,
    /// How many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// As JSON, for other programs
    #[arg(long)]
    json: bool,
}

pub fn snapshot(args: &SnapshotArgs) -> anyhow::Result<()> {
    let engine = Engine::open()?;
    let record = engine.find(&args.container)?;
    let begun = Instant::now();
    let saved = engine.snapshot(&record, &args.folder)?;
    let (size, seconds) = (size_on_disk(&args.folder)?, begun.elapsed().as_secs_f64());
    let folder = args.folder.display();
    if args.json {
        let told = json!({
            "folder": std::path::absolute(&args.folder)?, "machine": saved.id, "name": saved.name, "image": saved.image,
            "taken": saved.taken, "memory": saved.memory_mib << 20, "vcpus": saved.vcpus, "size": size, "seconds": seconds,
        });
        return Ok(print(&format!("{told:#}\n"))?);
    }
    let memory = bytes(saved.memory_mib << 20);
    Ok(print(&format!("{folder}: {} of {}'s {memory}, in {seconds:.2} s\n", bytes(size), saved.name))?)
}

pub fn restore(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    ensure!(
        args.folder.is_dir(),
        "{} is no folder; `lab vm snapshot NAME FOLDER` makes one",
        args.folder.display()
    );
    let saved = Saved::read(&args.folder)?;
    let mut records: Vec<Record> = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for number in 1..=args.count {
        let name = args.name.as_ref().map(|name| match args.count {
            1 => name.clone(),
            _ => format!("{name}-{number}"),
        });
        match engine.restore(&saved, &args.folder, name.as_deref()) {
            Ok(record) => {
                if !args.json {
                    print(&format!("{}\n", record.id))?;
                }
                records.push(record);
            }
            Err(error) => {
                // Those that run already stay, and were told.
                style::print_error(&one_line(&error.into()));
                code = ExitCode::FAILURE;
                break;
            }
        }
    }
    if args.json {
        let told: Vec<_> =
            records.iter().map(|record| json!({"id": record.id, "name": record.name})).collect();
        print(&format!("{:#}\n", json!(told)))?;
    }
    Ok(code)
}
