//! `lab cp`, `lab diff`, `lab export`, `lab commit`: a container's files.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use lab::engine::stored::{Commit, Engine};
use lab::image::Reference;

/// Copy files between the host and a container.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab cp web:/etc/nginx .                     a folder of the container, to here
  lab cp site/. web:/srv                      what is in a folder, into one of the container
  lab cp web:/var/log - | tar t               as an archive")]
pub struct CopyArgs {
    /// CONTAINER:PATH or a path of the host; - reads a tar
    #[arg(value_name = "[CONTAINER:]SOURCE")]
    source: String,
    /// CONTAINER:PATH or a path of the host; - writes a tar
    #[arg(value_name = "[CONTAINER:]TARGET")]
    target: String,
}

/// A container and its path; none for a path of the host, which docker tells by a `/` or `.` at its beginning.
fn inside(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').filter(|(name, _)| !name.is_empty() && !text.starts_with(['/', '.']))
}

pub fn copy(args: CopyArgs) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    match (inside(&args.source), inside(&args.target)) {
        (Some((container, path)), None) => {
            let record = engine.find(container)?;
            if args.target == "-" {
                ensure!(!io::stdout().is_terminal(), "a tar is not for a terminal: redirect the output");
                engine.copy_out(&record, path, io::stdout().lock())?;
            } else {
                engine.copy_to_host(&record, path, Path::new(&args.target))?;
            }
        }
        (None, Some((container, path))) => {
            let record = engine.find(container)?;
            if args.source == "-" {
                engine.copy_in(&record, path, BufReader::with_capacity(64 * 1024, io::stdin()))?;
            } else {
                engine.copy_from_host(Path::new(&args.source), &record, path)?;
            }
        }
        (Some(_), Some(_)) => bail!("copying between containers is not supported; copy to the host first"),
        (None, None) => bail!("one of both must be CONTAINER:PATH"),
    }
    Ok(ExitCode::SUCCESS)
}

/// List how a container's files differ from its image's: A added, C changed, D deleted.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// Name or id
    container: String,
}

pub fn diff(args: DiffArgs) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let mut text = String::new();
    for change in engine.changes(&engine.find(&args.container)?)? {
        let letter = match change.kind {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        let _ = writeln!(text, "{letter} {}", change.path);
    }
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Write all files of a container as a tar.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// To this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name or id
    container: String,
}

pub fn export(args: ExportArgs) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let record = engine.find(&args.container)?;
    if let Some(path) = &args.output {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        engine.export(&record, io::BufWriter::with_capacity(256 * 1024, file))?;
    } else {
        ensure!(
            !io::stdout().is_terminal(),
            "a tar is not for a terminal: use -o FILE or redirect the output"
        );
        engine.export(&record, io::stdout().lock())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Make an image from a container's changes; prints its id.
#[derive(Debug, clap::Args)]
pub struct CommitArgs {
    /// Who made it
    #[arg(short, long, default_value = "", hide_default_value = true)]
    author: String,
    /// What it is
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// An instruction of a Dockerfile for the image's configuration, such as `USER eva`
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Let the container run on meanwhile
    #[arg(long)]
    no_pause: bool,
    /// Name or id
    container: String,
    /// The image's name
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<Reference>,
}

pub fn commit(args: CommitArgs) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let commit = Commit {
        name: args.name,
        author: args.author,
        comment: args.message,
        changes: args.change,
        pause: !args.no_pause,
        ..Commit::default()
    };
    let image = engine.commit(&engine.find(&args.container)?, &commit)?;
    super::print(&format!("{}\n", image.id()))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_host_may_have_a_colon() {
        assert_eq!(inside("web:/a"), Some(("web", "/a")));
        for host in ["/a:b", "./web:a", "..", "-", "a"] {
            assert_eq!(inside(host), None, "{host}");
        }
    }
}
