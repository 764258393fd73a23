//! `lab ps`, `lab inspect`, `lab logs`, `lab top`: looking at stored containers.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use lab::engine::stored::{Engine, Filters, LogOptions, Record};
use serde_json::{Value, json};

use super::style::HEADING;
use super::{images, template};

/// List containers: those that run, or all.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// The last so many, whether they run or not
    #[arg(short = 'n', long)]
    last: Option<usize>,
    /// Only those that fit, such as name=web, status=exited, label=KEY=VALUE
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// A Go template for each, such as '{{.Names}}: {{.Status}}', or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let records = engine.list(args.all, args.last, &Filters::from_words(&args.filter)?)?;
    let now = Timestamp::now();
    let rows: Vec<Value> = records.iter().map(|record| row(record, now, args.no_trunc)).collect();
    let mut text = String::new();
    match args.format.as_deref() {
        _ if args.quiet => rows.iter().for_each(|row| {
            let _ = writeln!(text, "{}", row["ID"].as_str().unwrap_or_default());
        }),
        Some("json") => rows.iter().for_each(|row| {
            let _ = writeln!(text, "{row}");
        }),
        Some(format) => {
            for row in &rows {
                text.push_str(&template::fill(format, row)?);
                text.push('\n');
            }
        }
        None => text = table(&rows),
    }
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The fields of `docker ps`.
fn row(record: &Record, now: Timestamp, full: bool) -> Value {
    let command = record.command();
    let short: String = if command.chars().count() > 20 {
        command.chars().take(19).chain(['…']).collect()
    } else {
        command.clone()
    };
    json!({
        "ID": if full { &record.id } else { record.short_id() },
        "Image": record.image,
        "Command": format!("\"{}\"", if full { command } else { short }),
        "CreatedAt": record.created,
        "RunningFor": images::ago(&record.created, now),
        "State": record.status.name(),
        "Status": record.status_text(now),
        "Names": record.name,
        "Runtime": record.runtime().name(),
        "Ports": record.ports_text(),
        "Labels": record.body.labels.clone().unwrap_or_default().into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","),
    })
}

/// Docker's columns, and the wall.
fn table(rows: &[Value]) -> String {
    const COLUMNS: [(&str, &str); 7] = [
        ("CONTAINER ID", "ID"),
        ("IMAGE", "Image"),
        ("COMMAND", "Command"),
        ("CREATED", "RunningFor"),
        ("STATUS", "Status"),
        ("RUNTIME", "Runtime"),
        ("NAMES", "Names"),
    ];
    let cell = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let widths = COLUMNS.map(|(head, key)| {
        rows.iter().map(|row| cell(row, key).chars().count()).chain([head.len()]).max().unwrap_or_default()
    });
    let line = |cells: [String; 7]| {
        let padded: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("   ").trim_end().to_owned()
    };
    let mut text = format!("{HEADING}{}{HEADING:#}\n", line(COLUMNS.map(|(head, _)| head.to_owned())));
    for row in rows {
        let _ = writeln!(text, "{}", line(COLUMNS.map(|(_, key)| cell(row, key))));
    }
    text
}

/// Print everything about containers, as JSON.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// Names or ids
    #[arg(required = true)]
    containers: Vec<String>,
    /// A Go template for each, such as '{{.State.Status}}'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub fn inspect(args: InspectArgs) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let mut all = Vec::new();
    for name in &args.containers {
        all.push(engine.inspect(&engine.find(name)?)?);
    }
    let text = match &args.format {
        None => format!("{}\n", serde_json::to_string_pretty(&all)?),
        Some(format) => {
            let filled: anyhow::Result<Vec<String>> =
                all.iter().map(|value| template::fill(format, value)).collect();
            filled?.join("\n") + "\n"
        }
    };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Print what a container wrote.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// Go on while it writes
    #[arg(short, long)]
    follow: bool,
    /// The last so many lines
    #[arg(short = 'n', long, value_name = "LINES", alias = "n")]
    tail: Option<String>,
    /// Not before this moment: RFC 3339, a date, seconds since 1970, or how long ago, such as 10m
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Not after this moment
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Each line with its time
    #[arg(short, long)]
    timestamps: bool,
    /// Each line with what the log's options note of the container
    #[arg(long)]
    details: bool,
    /// Name or id
    container: String,
}

fn moment(text: &str) -> Result<Timestamp, lab::engine::Error> {
    lab::engine::moment::parse(text, Timestamp::now())
}

pub fn logs(args: LogsArgs) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let record = engine.find(&args.container)?;
    let tail = args.tail.as_deref().filter(|&tail| tail != "all").map(str::parse).transpose()?;
    let options = LogOptions {
        stdout: true,
        stderr: true,
        tail,
        since: args.since,
        until: args.until,
        timestamps: args.timestamps,
        details: args.details,
    };
    let mut reader = engine.logs(&record, options)?;
    loop {
        // Looked at before the file: what is written until the end is read after it.
        let live = args.follow && engine.find(&record.id).is_ok_and(|record| record.status.is_live());
        while let Some(line) = reader.next_line()? {
            let bytes = line.text.as_bytes();
            let written = if line.stderr {
                std::io::stderr().write_all(bytes)
            } else {
                std::io::stdout().write_all(bytes)
            };
            if written.is_err() {
                return Ok(ExitCode::SUCCESS);
            }
        }
        if !live || reader.is_over() {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Print the processes of a container.
#[derive(Debug, clap::Args)]
pub struct TopArgs {
    /// Name or id
    container: String,
}

pub fn top(args: TopArgs) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let (titles, processes) = engine.top(&engine.find(&args.container)?, None)?;
    let mut text = String::new();
    for line in std::iter::once(&titles).chain(&processes) {
        let (last, fields) =
            line.split_last().map_or(("", &[][..]), |(last, fields)| (last.as_str(), fields));
        let fields: Vec<String> = fields.iter().map(|field| format!("{field:8}")).collect();
        let _ = writeln!(text, "{} {last}", fields.join(" "));
    }
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
