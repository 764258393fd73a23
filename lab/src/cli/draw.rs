//! `lab draw`: pictures of what runs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use lab::course::draw::{self, Kind, Node, Picture};
use lab::engine::stored::{Engine, Filters, Record};

/// Draw what runs right now: namespaces, mounts, control groups, interfaces, virtual machines.
///
/// Everything is read from outside, in /proc and /sys; only a machine's queues are asked of its monitor. The sandboxes notice
/// nothing. All sandboxes of this machine are drawn, or those named.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab draw
  lab draw web
  lab draw namespaces web
  lab draw mounts web --svg mounts.svg")]
pub struct Args {
    /// What to draw: namespaces, mounts, cgroups, network or machine; everything where not given. Then the only sandboxes
    /// to be drawn, by name or id
    #[arg(value_names = ["KIND", "SANDBOX"], num_args = 0..)]
    words: Vec<String>,
    /// Write it as SVG to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    Namespaces,
    Mounts,
    Cgroups,
    Network,
    Machine,
}

impl From<What> for Picture {
    fn from(what: What) -> Self {
        match what {
            What::Namespaces => Self::Namespaces,
            What::Mounts => Self::Mounts,
            What::Cgroups => Self::Cgroups,
            What::Network => Self::Network,
            What::Machine => Self::Machine,
        }
    }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let records = engine.list(false, None, &Filters::default())?;
    let name = |id: &str, pid: i32| {
        let same = |record: &&Record| record.id == id || record.pid == i64::from(pid);
        records.iter().find(same).map(|record| record.name.clone())
    };
    // The first word is a kind where it can be one: a sandbox of such a name is drawn as `lab draw KIND NAME`.
    let what = args.words.first().and_then(|word| What::from_str(word, false).ok());
    let wanted = &args.words[usize::from(what.is_some())..];
    let mut sandboxes = draw::see(name);
    if !wanted.is_empty() {
        for wanted in wanted {
            let known = sandboxes.iter().any(|sandbox| fits(sandbox, wanted));
            anyhow::ensure!(known, "no sandbox '{wanted}' runs; `lab draw` shows those that do");
        }
        sandboxes.retain(|sandbox| wanted.iter().any(|wanted| fits(sandbox, wanted)));
    }
    // Only a machine's monitor knows its queues. One that does not answer, or is another lab's, is drawn without.
    for sandbox in sandboxes.iter_mut().filter(|sandbox| sandbox.kind == Kind::Machine) {
        let record = records.iter().find(|record| record.id == sandbox.id);
        let machine = record.and_then(|record| engine.machine(record).ok());
        sandbox.devices = machine.map(|machine| machine.report.devices).unwrap_or_default();
    }
    let pictures: Vec<Picture> = what.map_or(Picture::ALL.to_vec(), |what| vec![what.into()]);
    let trees: Vec<Node> = pictures
        .into_iter()
        .map(|picture| draw::draw(picture, &sandboxes))
        .filter(|tree| !tree.below.is_empty())
        .collect();
    if trees.is_empty() {
        super::print("nothing to draw: no sandbox of that kind runs\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = args.svg {
        std::fs::write(&path, draw::svg(&trees)).with_context(|| format!("write {}", path.display()))?;
    } else {
        trees.iter().try_for_each(|tree| super::print(&draw::terminal(tree)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn fits(sandbox: &draw::Sandbox, wanted: &str) -> bool {
    sandbox.name == wanted || (!wanted.is_empty() && sandbox.id.starts_with(wanted))
}
