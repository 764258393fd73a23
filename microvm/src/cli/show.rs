//! The commands that show something.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use lab_clock::date;
use microvm::runtime::{ANNOTATIONS, Instance, Status};
use serde_json::{Value, json};

use super::Global;

/// How a list is printed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
}

/// List machines
#[derive(clap::Args)]
pub(super) struct List {
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,
    /// Only the names
    #[arg(short, long)]
    quiet: bool,
}

/// List the processes of a machine on the host: the guest's are its kernel's own
#[derive(clap::Args)]
pub(super) struct Ps {
    /// The machine's name
    id: String,
    /// How to print them
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,
    /// Options of ps(1), for the table [default: -ef]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Print what a machine uses, as one JSON object a line
#[derive(clap::Args)]
pub(super) struct Events {
    /// The machine's name
    id: String,
    /// Print once and return
    #[arg(long)]
    stats: bool,
    /// How long to wait between two prints
    #[arg(long, value_name = "SECONDS", default_value = "5s")]
    interval: String,
}

/// The example: what engines give a container by default as far as a machine has it, with a shell to run.
const EXAMPLE: &str = include_str!("example.json");

/// Write an example configuration
#[derive(clap::Args)]
pub(super) struct Spec {
    /// Where to write config.json
    #[arg(short, long, value_name = "FOLDER", default_value = ".")]
    bundle: PathBuf,
    /// For an ordinary user
    #[arg(long)]
    rootless: bool,
}

/// What `state` and `list` say of a machine (runtime.md, "State", and what engines read beside it).
fn describe(instance: &Instance) -> Value {
    let (state, status) = (instance.state(), instance.status());
    json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": if status == Status::Stopped { 0 } else { state.pid },
        "status": status.to_string(),
        "bundle": state.bundle,
        "rootfs": state.rootfs,
        "created": date::rfc3339(state.created),
        "owner": state.owner.to_string(),
        "annotations": state.annotations,
    })
}

/// `state`.
pub(super) fn state(instance: &Instance) {
    out!("{:#}", describe(instance));
}

impl List {
    pub(super) fn run(&self, global: &Global) {
        let root = global.root();
        let entries = fs::read_dir(&root).into_iter().flatten().flatten();
        // One that is deleted meanwhile is no error.
        let mut machines: Vec<_> = entries
            .filter_map(|entry| Instance::load(&root, &entry.file_name().to_string_lossy()).ok())
            .collect();
        machines.sort_by(|a, b| a.id().cmp(b.id()));
        match (self.quiet, self.format) {
            (true, _) => machines.iter().for_each(|machine| out!("{}", machine.id())),
            (false, Format::Json) => out!("{}", machines.iter().map(describe).collect::<Value>()),
            (false, Format::Table) => {
                out!("{:<20} {:>8} {:<10} {:<22} BUNDLE", "ID", "PID", "STATUS", "CREATED");
                for machine in &machines {
                    let state = machine.state();
                    let (status, created) = (machine.status().to_string(), date::rfc3339(state.created));
                    let (id, pid, bundle) = (&state.id, state.pid, state.bundle.display());
                    out!("{id:<20} {pid:>8} {status:<10} {created:<22} {bundle}");
                }
            }
        }
    }
}

impl Ps {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        let pids = global.load(&self.id)?.processes();
        if self.format == Format::Json {
            out!("{}", json!(pids));
            return Ok(());
        }
        let options = if self.options.is_empty() { vec!["-ef".to_owned()] } else { self.options.clone() };
        let output = std::process::Command::new("ps").args(options).output();
        let output = output.context("cannot run ps; use --format json")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        let column = header.split_whitespace().position(|title| title == "PID");
        let column = column.ok_or_else(|| anyhow!("ps printed no column PID; choose other options"))?;
        out!("{header}");
        for line in lines {
            let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse::<i32>().ok());
            if pid.is_some_and(|pid| pids.contains(&pid)) {
                out!("{line}");
            }
        }
        Ok(())
    }
}

impl Events {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        let seconds = self.interval.trim_end_matches('s').parse::<u64>().ok().filter(|seconds| *seconds > 0);
        let seconds =
            seconds.ok_or_else(|| anyhow!("--interval {}: give whole seconds, as 5s", self.interval))?;
        loop {
            let machine = global.load(&self.id)?;
            if machine.status() == Status::Stopped && !self.stats {
                return Ok(());
            }
            let usage = machine.usage();
            let report = machine.report().unwrap_or_default();
            let data = json!({
                "cpu": {"usage": {"total": usage.cpu_nanos}},
                "memory": {"usage": {"usage": usage.memory, "limit": report.memory, "max": usage.memory_peak}},
                "pids": {"current": usage.threads},
                "vm": report,
            });
            out!("{}", json!({"type": "stats", "id": self.id, "data": data}));
            if self.stats {
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs(seconds));
        }
    }
}

impl Spec {
    pub(super) fn run(&self) -> Result<()> {
        let path = self.bundle.join("config.json");
        if path.exists() {
            bail!("{} exists already; remove it first", path.display());
        }
        let mut example: Value = serde_json::from_str(EXAMPLE).context("cannot read the example")?;
        if self.rootless {
            // An ordinary user's machine has no network namespace: nobody could connect it to anything.
            example["linux"]["namespaces"] = json!([]);
        }
        fs::write(&path, format!("{example:#}\n")).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// `features` (features.md of the specification). A guest has no namespaces, seccomp filters or labels of the host's: its
/// kernel is the wall.
pub(super) fn features() {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": microvm::agent::flatten::MOUNT_OPTIONS,
        "potentiallyUnsafeConfigAnnotations": ANNOTATIONS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": microvm::agent::flatten::capability_names(),
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "seccomp": {"enabled": false},
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": false}},
        },
    });
    out!("{features:#}");
}
