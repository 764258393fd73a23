//! The commands that show something.

use std::time::Duration;

use container::{Container, Status};
use lab_clock::date;
use serde_json::{Value, json};

use super::arguments::{self, Arguments, Word, needed};
use super::{Failure, Global, Outcome};

const LIST: &str = "\
List containers.

Usage: list [OPTIONS]

  -f, --format FORMAT         table or json (default: table)
  -q, --quiet                 Only the names";

const PS: &str = "\
List a container's processes.

Usage: ps [OPTIONS] ID [PS_OPTIONS]...

  -f, --format FORMAT         table or json (default: table)
  PS_OPTIONS are ps(1)'s own, for the table (default: -ef)";

const EVENTS: &str = "\
Print what a container uses, as one JSON object a line.

Usage: events [OPTIONS] ID

      --stats                 Print once and return
      --interval TIME         How long to wait between two prints: 500ms, 5s, 1m (default: 5s)";

/// What `state` and `list` say of a container (runtime.md, "State", and what engines read beside it).
fn describe(container: &Container) -> Value {
    let status = container.status();
    let pid = if status == Status::Stopped { 0 } else { container.pid().unwrap_or(0) };
    json!({
        "ociVersion": container.oci_version(),
        "id": container.id(),
        "pid": pid,
        "status": status.to_string(),
        "bundle": container.bundle(),
        "rootfs": container.rootfs(),
        "created": date::rfc3339(container.created()),
        "owner": user(container.owner()),
        "annotations": container.annotations(),
    })
}

/// A user's name (`passwd(5)`), or the number where there is none.
fn user(uid: u32) -> String {
    let (number, text) = (uid.to_string(), std::fs::read_to_string("/etc/passwd").unwrap_or_default());
    let mut lines = text.lines().map(|line| line.split(':'));
    let name =
        lines.find_map(|mut fields| Some((fields.next()?, fields.nth(1)?)).filter(|(_, id)| *id == number));
    name.map(|(name, _)| name.to_owned()).unwrap_or(number)
}

fn print(value: &Value) -> Outcome {
    println!("{value:#}");
    Ok(0)
}

/// Whether a list is printed as JSON.
fn is_json(format: &str) -> Result<bool, Failure> {
    match format {
        "table" => Ok(false),
        "json" => Ok(true),
        _ => Err(Failure::new(format!("--format {format}: use table or json"))),
    }
}

/// `state`.
pub(super) fn state(id: &str, global: &Global) -> Outcome {
    print(&describe(&global.load(id)?))
}

/// `list`.
pub(super) fn list(arguments: Arguments, global: &Global) -> Outcome {
    let mut arguments = arguments.for_command(LIST);
    let (mut json, mut quiet) = (false, false);
    while let Some(word) = arguments.next()? {
        match word {
            Word::Name(name) => return Err(Failure::new(format!("list takes no name; {name:?} is one"))),
            Word::Option(option) => match option.as_str() {
                "-f" | "--format" => json = is_json(&arguments.text()?)?,
                "-q" | "--quiet" => quiet = arguments.flag()?,
                option => return arguments::unknown(option),
            },
        }
    }
    let mut containers = Vec::new();
    for entry in std::fs::read_dir(global.root()).into_iter().flatten().flatten() {
        // One that is deleted meanwhile is no error.
        if let Ok(container) = Container::load(&global.root(), &entry.file_name().to_string_lossy()) {
            containers.push(container);
        }
    }
    containers.sort_by(|a, b| a.id().cmp(b.id()));
    match (quiet, json) {
        (true, _) => containers.iter().for_each(|container| println!("{}", container.id())),
        (false, true) => println!("{}", containers.iter().map(describe).collect::<Value>()),
        (false, false) => {
            println!("{:<20} {:>8} {:<10} {:<22} BUNDLE", "ID", "PID", "STATUS", "CREATED");
            for c in &containers {
                let (pid, created) = (c.pid().unwrap_or(0), date::rfc3339(c.created()));
                let (id, status, bundle) = (c.id(), c.status().to_string(), c.bundle().display());
                println!("{id:<20} {pid:>8} {status:<10} {created:<22} {bundle}");
            }
        }
    }
    Ok(0)
}

/// `ps`.
pub(super) fn ps(arguments: Arguments, global: &Global) -> Outcome {
    let mut arguments = arguments.for_command(PS);
    let (mut json, mut id, mut options) = (false, None, Vec::new());
    while let Some(word) = arguments.next()? {
        match word {
            Word::Name(name) if id.is_none() => id = Some(name),
            Word::Name(name) => {
                options.push(name);
                options.extend(arguments.rest()?);
            }
            Word::Option(option) if matches!(option.as_str(), "-f" | "--format") => {
                json = is_json(&arguments.text()?)?;
            }
            Word::Option(option) if id.is_some() => {
                options.push(option);
                options.extend(arguments.rest()?);
            }
            Word::Option(option) => return arguments::unknown(&option),
        }
    }
    let pids = global.load(&needed(id)?)?.processes();
    if json {
        println!("{}", json!(pids));
        return Ok(0);
    }
    if options.is_empty() {
        options.push("-ef".to_owned());
    }
    let output = std::process::Command::new("ps").args(options).output();
    let output = output.map_err(|error| Failure::new(format!("run ps: {error}; use --format json")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|title| title == "PID");
    let column = column.ok_or_else(|| Failure::new("ps printed no column PID; choose other options"))?;
    println!("{header}");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            println!("{line}");
        }
    }
    Ok(0)
}

/// A time as Go's programs write it; plain numbers are seconds.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match &text[digits..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let milliseconds = text[..digits].parse::<u64>().ok()?.checked_mul(unit)?;
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

/// `events`.
pub(super) fn events(arguments: Arguments, global: &Global) -> Outcome {
    let mut arguments = arguments.for_command(EVENTS);
    let (mut once, mut interval, mut id) = (false, "5s".to_owned(), None);
    while let Some(word) = arguments.next()? {
        match word {
            Word::Name(name) => arguments::set(&mut id, name)?,
            Word::Option(option) => match option.as_str() {
                "--stats" => once = arguments.flag()?,
                "--interval" => interval = arguments.text()?,
                option => return arguments::unknown(option),
            },
        }
    }
    let id = needed(id)?;
    let interval = duration(&interval)
        .ok_or_else(|| Failure::new(format!("--interval {interval}: give a time, as 500ms, 5s or 1m")))?;
    loop {
        let container = global.load(&id)?;
        if container.status() == Status::Stopped && !once {
            return Ok(0);
        }
        let stats = container.stats();
        let data = json!({
            "cpu": {"usage": {"total": stats.cpu_nanos}},
            "memory": {"usage": {"usage": stats.memory, "limit": stats.memory_limit, "max": stats.memory_peak}},
            "pids": {"current": stats.pids, "limit": stats.pids_limit},
        });
        println!("{}", json!({"type": "stats", "id": id, "data": data}));
        if once {
            return Ok(0);
        }
        std::thread::sleep(interval);
    }
}
