//! The commands that show something.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use container::{Container, Status};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::{Failure, Global, Outcome, life, time};

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

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
        "created": time::rfc3339(container.created()),
        "owner": container.owner().to_string(),
        "annotations": container.annotations(),
    })
}

fn print(value: &Value) -> Outcome {
    println!("{value:#}");
    Ok(0)
}

/// `state`.
pub(super) fn state(args: &life::Id, global: &Global) -> Outcome {
    print(&describe(&global.load(&args.id)?))
}

/// `list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// How to print.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Only the names.
    #[arg(long, short)]
    quiet: bool,
}

impl List {
    pub(super) fn run(&self, global: &Global) -> Outcome {
        let mut containers = Vec::new();
        for entry in std::fs::read_dir(global.root()).into_iter().flatten().flatten() {
            // One that is deleted meanwhile is no error.
            if let Ok(container) = Container::load(&global.root(), &entry.file_name().to_string_lossy()) {
                containers.push(container);
            }
        }
        containers.sort_by(|a, b| a.id().cmp(b.id()));
        match (self.quiet, self.format) {
            (true, _) => containers.iter().for_each(|container| println!("{}", container.id())),
            (false, Format::Json) => println!("{}", containers.iter().map(describe).collect::<Value>()),
            (false, Format::Table) => {
                println!("{:<20} {:>8} {:<10} {:<22} BUNDLE", "ID", "PID", "STATUS", "CREATED");
                for c in &containers {
                    let (pid, created) = (c.pid().unwrap_or(0), time::rfc3339(c.created()));
                    println!(
                        "{:<20} {pid:>8} {:<10} {created:<22} {}",
                        c.id(),
                        c.status(),
                        c.bundle().display()
                    );
                }
            }
        }
        Ok(0)
    }
}

/// `ps`.
#[derive(Debug, Args)]
pub(super) struct Ps {
    /// How to print.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The container's name.
    id: String,
    /// Options for ps(1), for the table.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Ps {
    pub(super) fn run(&self, global: &Global) -> Outcome {
        let pids = global.load(&self.id)?.processes();
        if self.format == Format::Json {
            println!("{}", json!(pids));
            return Ok(0);
        }
        let default = ["-ef".to_owned()];
        let options = if self.options.is_empty() { &default[..] } else { &self.options[..] };
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
}

/// `events`.
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Print once and return.
    #[arg(long)]
    stats: bool,
    /// How long to wait between two prints, as "5s".
    #[arg(long, default_value = "5s")]
    interval: String,
    /// The container's name.
    id: String,
}

impl Events {
    pub(super) fn run(&self, global: &Global) -> Outcome {
        let seconds = self.interval.trim_end_matches('s').parse::<u64>().ok().filter(|seconds| *seconds > 0);
        let seconds = seconds.ok_or_else(|| Failure::new("--interval: give whole seconds, as 5s"))?;
        loop {
            let container = global.load(&self.id)?;
            if container.status() == Status::Stopped && !self.stats {
                return Ok(0);
            }
            let stats = container.stats();
            let data = json!({
                "cpu": {"usage": {"total": stats.cpu_nanos}},
                "memory": {"usage": {"usage": stats.memory, "limit": stats.memory_limit, "max": stats.memory_peak}},
                "pids": {"current": stats.pids, "limit": stats.pids_limit},
            });
            println!("{}", json!({"type": "stats", "id": self.id, "data": data}));
            if self.stats {
                return Ok(0);
            }
            std::thread::sleep(std::time::Duration::from_secs(seconds));
        }
    }
}

/// `spec`.
#[derive(Debug, Args)]
pub(super) struct SpecArgs {
    /// Where to write config.json.
    #[arg(long, short, default_value = ".")]
    bundle: PathBuf,
    /// For an ordinary user.
    #[arg(long)]
    rootless: bool,
}

impl SpecArgs {
    pub(super) fn run(&self) -> Outcome {
        let path = self.bundle.join("config.json");
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let spec = if self.rootless { Spec::rootless(uid, gid) } else { Spec::default() };
        let text = serde_json::to_string_pretty(&spec).map_err(|error| Failure::new(error.to_string()))?;
        if path.exists() {
            return Err(Failure::new(format!("{} exists already; remove it first", path.display())));
        }
        std::fs::write(&path, text)
            .map_err(|error| Failure::new(format!("write {}: {error}", path.display())))?;
        Ok(0)
    }
}
