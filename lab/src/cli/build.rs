//! `lab build`: an image from a Dockerfile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use lab::engine::build::Build;
use lab::engine::stored::Engine;
use lab::image::Reference;

use super::flags::pairs;

/// Build an image from a Dockerfile.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab build -t app:1 .                        the Dockerfile of this folder
  lab build --target test --build-arg V=2 .   up to a stage, with a value for an ARG
  tar c . | lab build -t app -                the folder as an archive")]
pub struct Args {
    /// Name the image; may be given several times
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<Reference>,
    /// The Dockerfile [default: Dockerfile of the folder]
    #[arg(short, long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Give an ARG its value; NAME alone passes on the caller's variable
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Label the image
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Stop at this stage
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Make every layer anew
    #[arg(long)]
    no_cache: bool,
    /// What RUN may reach: none or host
    #[arg(long, default_value = "none", value_parser = ["none", "host"])]
    network: String,
    /// Print the image's id only
    #[arg(short, long)]
    quiet: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// The folder that COPY and ADD take from; - is a tar on standard input
    #[arg(value_name = "FOLDER")]
    context: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let is_stream = args.context == Path::new("-");
    let build = Build {
        dockerfile: dockerfile(args.file.as_deref(), if is_stream { None } else { Some(&args.context) })?,
        names: args.tag,
        arguments: args.build_arg.into_iter().filter_map(argument).collect(),
        labels: pairs(&args.label, "--label")?.into_iter().collect::<BTreeMap<_, _>>(),
        target: args.target,
        no_cache: args.no_cache,
        host_network: args.network == "host",
    };
    let mut say = |text: &str| {
        if !args.quiet {
            // A reader that has gone does not stop a build.
            let _ = super::print(text);
        }
    };
    let image = if is_stream {
        engine.build(&build, std::io::stdin(), &mut say)?
    } else {
        engine.build(&build, engine.pack_context(&args.context, &build.dockerfile)?, &mut say)?
    };
    if let Some(file) = &args.iidfile {
        std::fs::write(file, image.id().to_string()).with_context(|| format!("write {}", file.display()))?;
    }
    if args.quiet {
        super::print(&format!("{}\n", image.id()))?;
    } else {
        super::print(&format!("Successfully built {}\n", &image.id().hex()[..12]))?;
        for name in &build.names {
            super::print(&format!("Successfully tagged {}\n", name.familiar()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The Dockerfile's path in the context. `-f` is relative to where the command runs, except for a context on a stream.
fn dockerfile(given: Option<&Path>, folder: Option<&Path>) -> anyhow::Result<String> {
    let Some(given) = given else { return Ok("Dockerfile".to_owned()) };
    let path = match folder {
        None => given.to_owned(),
        Some(folder) => {
            let real = |path: &Path| path.canonicalize().with_context(|| format!("find {}", path.display()));
            let (file, folder) = (real(given)?, real(folder)?);
            file.strip_prefix(&folder).map(Path::to_owned).ok().with_context(|| {
                format!("--file {}: the Dockerfile must lie in {}", given.display(), folder.display())
            })?
        }
    };
    path.into_os_string().into_string().ok().context("--file: the path is no text")
}

fn argument(text: String) -> Option<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => std::env::var(&text).ok().map(|value| (text, value)),
    }
}
