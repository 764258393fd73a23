//! `lab vm`: a closer look at a virtual machine that runs, and copies of it.

mod gdb;
mod saved;

use std::fmt::Write as _;
use std::process::ExitCode;

use lab::engine::stored::Engine;
use serde_json::Value;

use super::style::HEADING;
use super::{images::bytes, life, one_line, print, style};

/// Look at virtual machines more closely, and copy them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab vm stats web                       what it did: exits, devices, page faults
  lab vm snapshot web before-lunch       write it down as it runs
  lab vm restore before-lunch --count 3  three more that go on from there
  lab vm gdb web                         stop its kernel and look around")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print what the guest's kernel printed.
    Console(One),
    /// Print what a machine did: exits by kind, operations of its devices, page faults.
    Stats(StatsArgs),
    /// Hold the vCPUs of machines out of their guests.
    Pause(life::Names),
    /// Let them go on.
    Resume(life::Names),
    Snapshot(saved::SnapshotArgs),
    Restore(saved::RestoreArgs),
    Gdb(gdb::Args),
}

/// A machine.
#[derive(Debug, clap::Args)]
struct One {
    /// Name or id
    container: String,
}

#[derive(Debug, clap::Args)]
struct StatsArgs {
    #[command(flatten)]
    one: One,
    /// As a table, or as JSON for other programs
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let machine = |one: &One| {
        let engine = Engine::open()?;
        anyhow::Ok(engine.machine(&engine.find(&one.container)?)?)
    };
    match args.command {
        Command::Console(one) => {
            let mut text = machine(&one)?.console.join("\n");
            if !text.is_empty() {
                text.push('\n');
            }
            print(&text)?;
        }
        Command::Stats(args) => {
            let report = serde_json::to_value(machine(&args.one)?.report)?;
            print(&if args.format == "json" { format!("{report:#}\n") } else { table(&report) })?;
        }
        Command::Pause(names) => return life::pause(&names, true),
        Command::Resume(names) => return life::pause(&names, false),
        Command::Snapshot(args) => saved::snapshot(&args)?,
        Command::Restore(args) => return saved::restore(&args),
        Command::Gdb(args) => return gdb::run(&args),
    }
    Ok(ExitCode::SUCCESS)
}

fn table(report: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let mut text = String::new();
    let hardware = if report["hardware"] == true { "hardware" } else { "interpreted" };
    let _ = writeln!(
        text,
        "{HEADING}MACHINE{HEADING:#}\n{:>14}  vCPUs, kernel code: {hardware}, {:.1} ns an instruction\n{:>14}  memory",
        number(&report["vcpus"]),
        report["instruction"].as_f64().unwrap_or(0.0),
        bytes(number(&report["memory"])),
    );
    let _ = writeln!(text, "{HEADING}EXITS{HEADING:#}");
    for (kind, count) in report["exits"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "{:>14}  {kind}", number(count));
    }
    let _ = writeln!(text, "{HEADING}DEVICES{HEADING:#}  operations");
    for device in report["devices"].as_array().into_iter().flatten() {
        let fault = device["fault"].as_str().map(|fault| format!(": stopped, {fault}")).unwrap_or_default();
        let name = device["name"].as_str().unwrap_or_default();
        let _ = writeln!(text, "{:>14}  {name}{fault}", number(&device["operations"]));
    }
    let _ = writeln!(
        text,
        "{HEADING}PROCESS{HEADING:#}\n{:>14}  page faults, {} of them from a disk\n{:>12} ms  processor time\n{:>14}  memory now, {} at most",
        number(&report["page_faults"]),
        number(&report["major_page_faults"]),
        number(&report["cpu_nanos"]) / 1_000_000,
        bytes(number(&report["memory_now"])),
        bytes(number(&report["memory_peak"])),
    );
    text
}
