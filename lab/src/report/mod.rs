//! Reports: the same figures for a terminal, a browser and other programs.
//!
//! A report is written from a [`Record`] alone, so that a stored result can be looked at again on any machine. All of it
//! is text: who calls prints it or writes it to a file.
//!
//! - [`terminal`]: tables ([`table`]) and waterfalls ([`waterfall`]) as wide as the terminal.
//! - [`claims`]: the claims and what became of them, in a terminal.
//! - [`html`]: one self-contained page.
//! - [`csv`]: one line a run, for a spreadsheet.
//! - [`figures`]: how a number is written.
//! - [`mod@bench`]: all this for `lab bench`, and for several results at once.

pub mod bench;
pub mod claims;
pub mod csv;
pub mod figures;
pub mod html;
pub mod table;
pub mod terminal;
pub mod waterfall;

use crate::measure::environment::Environment;
use crate::measure::memory::Memory;
use crate::measure::record::Record;

/// What was run, in a line.
fn plan_line(record: &Record) -> String {
    let plan = &record.plan;
    let command = if plan.command.is_empty() {
        "the image's own command".into()
    } else {
        figures::command_line(&plan.command)
    };
    format!(
        "{}, {}: {} runs a wall, interleaved (seed {})",
        figures::plain(&plan.image),
        figures::plain(&command),
        plan.runs,
        plan.seed
    )
}

/// The machine, as names and values.
fn environment_rows(record: &Record) -> Vec<(&'static str, String)> {
    let mut rows = machine_rows(&record.environment);
    for wall in record.walls.iter().filter(|wall| wall.wall == crate::measure::plan::Wall::Vm) {
        rows.push(("VM by", wall.obtained.label().into()));
        if let Some(kernel) = &wall.kernel {
            let digest =
                kernel.digest.as_deref().map_or_else(String::new, |digest| format!(", {}", short(digest)));
            rows.push(("guest kernel", format!("{} ({}{digest})", kernel.release, kernel.origin)));
        }
    }
    if let Some(digest) = &record.plan.digest {
        rows.push(("image", short(digest)));
    }
    rows.push(("lab", format!("{} ({} build), {}", record.lab, record.environment.build, record.created)));
    rows
}

/// What the machine itself tells.
fn machine_rows(environment: &Environment) -> Vec<(&'static str, String)> {
    let unknown = || "unknown".to_owned();
    let mut rows = vec![
        ("CPU", {
            let model = environment.cpu.clone().unwrap_or_else(unknown);
            let virtual_machine = match environment.virtual_machine {
                Some(true) => ", in a virtual machine",
                _ => "",
            };
            format!("{model}, {} usable{virtual_machine}", environment.cores)
        }),
        ("memory", {
            let size = |bytes: Option<u64>| bytes.map_or_else(unknown, |bytes| figures::bytes(bytes as i64));
            format!("{}, {} available", size(environment.memory), size(environment.memory_available))
        }),
        ("host", {
            let distribution = environment.distribution.clone().unwrap_or_else(unknown);
            format!("{distribution}, kernel {}", environment.kernel)
        }),
    ];
    rows.push(("cgroups", environment.cgroups.label().into()));
    let load = environment.load.map_or_else(unknown, |load| load.map(|load| format!("{load:.2}")).join(" "));
    let governor = environment.governor.as_ref().map_or_else(String::new, |it| format!(", governor {it}"));
    rows.push(("load", format!("{load}{governor}")));
    rows
}

/// A digest short enough for a line; the whole one is in the stored result.
fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

/// One figure of memory in every wall.
struct MemoryRow {
    name: String,
    /// Bytes, in the order of the record's walls.
    values: Vec<Option<i64>>,
    /// How it was obtained.
    how: &'static str,
}

/// The memory of one idle sandbox: most trustworthy figure first; nothing where none was measured.
fn memory_rows(record: &Record) -> Vec<MemoryRow> {
    let measured = |wall: usize| record.walls[wall].memory.as_ref().filter(|memory| memory.instances > 0);
    let walls = 0..record.walls.len();
    if !walls.clone().any(|wall| measured(wall).is_some()) {
        return Vec::new();
    }
    let counts = walls.clone().filter_map(measured).map(|memory| memory.instances.to_string());
    let counts = counts.collect::<Vec<_>>().join(", ");
    let row = |name: &str, how, value: &dyn Fn(&Memory) -> Option<i64>| MemoryRow {
        name: name.into(),
        values: walls.clone().map(|wall| measured(wall).and_then(value)).collect(),
        how,
    };
    vec![
        row(&format!("MemAvailable / {counts}"), "its drop with so many idle, for one", &|memory| {
            Some(memory.available_drop)
        }),
        row("PSS", "all processes, shared pages divided", &|memory| Some(memory.pss() as i64)),
        row("private dirty", "all processes, what only they hold", &|memory| {
            Some(memory.private_dirty() as i64)
        }),
        row("cgroup", "charged to its own cgroup", &|memory| memory.cgroup.map(|bytes| bytes as i64)),
        row("RSS (misleading)", "shared pages counted each time", &|memory| Some(memory.rss() as i64)),
    ]
}
