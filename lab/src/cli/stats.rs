//! `lab stats`, `lab port`, `lab update`: what a container uses, where it is reached, and what it may use.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bollard_stubs::models::ContainerUpdateBody;
use lab::engine::limits::{self, MilliCpus};
use lab::engine::stored::{Engine, Filters, Record};
use serde_json::{Value, json};

use super::style::HEADING;
use super::{flags, images::bytes, template};

/// Docker's period.
const PERIOD: Duration = Duration::from_secs(1);

/// Show what containers use: once a second, or once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Once only
    #[arg(long)]
    no_stream: bool,
    /// A Go template for each, such as '{{.Name}} {{.MemUsage}}', or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Names or ids; all that run where none is given
    containers: Vec<String>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let mut before = sample(&engine, &args)?;
    loop {
        std::thread::sleep(PERIOD);
        let now = sample(&engine, &args)?;
        let rows: Vec<Value> = now
            .iter()
            .map(|new| row(new, before.iter().find(|old| old.record.id == new.record.id)))
            .collect();
        let mut text = String::new();
        match args.format.as_deref() {
            None => text = table(&rows),
            Some("json") => rows.iter().for_each(|row| {
                let _ = writeln!(text, "{row}");
            }),
            Some(format) => {
                for row in &rows {
                    text.push_str(&template::fill(format, row)?);
                    text.push('\n');
                }
            }
        }
        super::print(&text)?;
        if args.no_stream {
            return Ok(ExitCode::SUCCESS);
        }
        before = now;
    }
}

/// A container at one moment.
struct Sample {
    record: Record,
    at: Instant,
    cpu_nanos: u64,
    memory: u64,
    limit: u64,
    pids: u64,
}

fn sample(engine: &Engine, args: &Args) -> anyhow::Result<Vec<Sample>> {
    let records = if args.containers.is_empty() {
        engine.list(args.all, None, &Filters::default())?
    } else {
        args.containers.iter().map(|name| engine.find(name)).collect::<Result<_, _>>()?
    };
    let mut samples = Vec::with_capacity(records.len());
    for record in records {
        let usage = engine.usage(&record)?.unwrap_or_default();
        samples.push(Sample {
            record,
            at: Instant::now(),
            cpu_nanos: usage.cpu_nanos.unwrap_or(0),
            memory: usage.memory.unwrap_or(0),
            limit: usage.memory_limit.unwrap_or_else(limits::machine_memory),
            pids: usage.pids.unwrap_or(0),
        });
    }
    Ok(samples)
}

/// The fields of `docker stats`.
fn row(new: &Sample, old: Option<&Sample>) -> Value {
    let cpu = old.map_or(0.0, |old| {
        let nanos = (new.at - old.at).as_nanos().max(1) as f64;
        new.cpu_nanos.saturating_sub(old.cpu_nanos) as f64 / nanos * 100.0
    });
    json!({
        "ID": new.record.short_id(),
        "Container": new.record.short_id(),
        "Name": new.record.name,
        "CPUPerc": format!("{cpu:.2}%"),
        "MemUsage": format!("{} / {}", bytes(new.memory), bytes(new.limit)),
        "MemPerc": format!("{:.2}%", new.memory as f64 / new.limit.max(1) as f64 * 100.0),
        "PIDs": new.pids.to_string(),
    })
}

fn table(rows: &[Value]) -> String {
    let mut text = format!(
        "{HEADING}{:12}   {:20}   {:>8}   {:>21}   {:>7}   PIDS{HEADING:#}\n",
        "CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %"
    );
    for row in rows {
        let cell = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let _ = writeln!(
            text,
            "{:12}   {:20}   {:>8}   {:>21}   {:>7}   {}",
            cell("ID"),
            cell("Name"),
            cell("CPUPerc"),
            cell("MemUsage"),
            cell("MemPerc"),
            cell("PIDs")
        );
    }
    text
}

/// List where a container's published ports are reached.
#[derive(Debug, clap::Args)]
pub struct PortArgs {
    /// Name or id
    container: String,
    /// Only this one
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

pub fn port(args: PortArgs) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let record = engine.find(&args.container)?;
    let wanted = args.port.map(|port| if port.contains('/') { port } else { format!("{port}/tcp") });
    let mut lines = Vec::new();
    for (key, bindings) in
        record.ports.iter().filter(|(key, _)| wanted.as_ref().is_none_or(|port| port == *key))
    {
        for binding in bindings.iter().flatten() {
            let text = |part: &Option<String>| part.clone().unwrap_or_default();
            let address = format!("{}:{}", text(&binding.host_ip), text(&binding.host_port));
            lines.push(if wanted.is_some() {
                format!("{address}\n")
            } else {
                format!("{key} -> {address}\n")
            });
        }
    }
    if let Some(port) = wanted {
        ensure!(!lines.is_empty(), "no public port '{port}' published for {}", args.container);
    }
    lines.sort();
    super::print(&lines.concat())?;
    Ok(ExitCode::SUCCESS)
}

/// Change what containers may use, also while they run.
#[derive(Debug, clap::Args)]
pub struct UpdateArgs {
    /// Limit memory
    #[arg(short, long, value_name = "SIZE", value_parser = limits::parse_size)]
    memory: Option<u64>,
    /// Limit memory and swap together; -1 for no limit
    #[arg(long, value_name = "SIZE", value_parser = limits::parse_swap, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Limit processor time, in CPUs
    #[arg(long, value_name = "NUMBER", value_parser = limits::parse_cpus)]
    cpus: Option<MilliCpus>,
    /// Limit processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// When it is started again: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn update(args: UpdateArgs) -> anyhow::Result<ExitCode> {
    let change = ContainerUpdateBody {
        memory: args.memory.map(|memory| i64::try_from(memory).unwrap_or(i64::MAX)),
        memory_swap: args.memory_swap,
        nano_cpus: args.cpus.map(|cpus| i64::try_from(cpus.nano()).unwrap_or(i64::MAX)),
        pids_limit: args.pids_limit,
        restart_policy: args.restart.as_deref().map(flags::policy).transpose()?,
        ..ContainerUpdateBody::default()
    };
    ensure!(change != ContainerUpdateBody::default(), "nothing is to change; see `lab update --help`");
    super::life::each(&args.containers, |engine, record| engine.update(record, &change).map(|()| None))
}
