//! `lab build`: an image from a Dockerfile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use lab::engine;
use lab::engine::build::{Build, Keys};
use lab::engine::stored::Engine;
use lab::image::Reference;
use lab::image::registry::DockerConfig;

use super::flags::pairs;
use super::style::print_error;

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
    /// The Dockerfile, - for standard input [default: Dockerfile of the folder]
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
    /// Look for newer base images in their registries
    #[arg(long)]
    pull: bool,
    /// For which machine base images are taken, where not for this one
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Show a file to RUN --mount=type=secret,id=ID
    #[arg(long, value_name = "id=ID[,src=FILE]")]
    secret: Vec<String>,
    /// Which wall RUN is behind; only containers can keep what a step changes
    #[arg(long, default_value = "container", value_name = "WALL", value_parser = ["container", "vm"])]
    runtime: String,
    /// Understood for docker's sake: nothing is left of a step in any case
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    rm: Option<bool>,
    /// As --rm
    #[arg(long, hide = true)]
    force_rm: bool,
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
    anyhow::ensure!(
        args.runtime == "container",
        "--runtime vm does not work with build yet: what a step changes stays in the machine's memory; leave it out"
    );
    let engine = Engine::open()?;
    let is_stream = args.context == Path::new("-");
    let from_input = args.file.as_deref() == Some(Path::new("-"));
    anyhow::ensure!(
        !(is_stream && from_input),
        "the context and the Dockerfile cannot both be standard input"
    );
    let mut input = std::io::BufReader::new(std::io::stdin());
    let text = if from_input {
        Some(std::io::read_to_string(&mut input).context("read the Dockerfile")?)
    } else {
        None
    };
    // Docker's: what begins like an archive is one, anything else is a Dockerfile without a context.
    let alone = is_stream && !is_archive(&mut input)?;
    let text =
        if alone { Some(std::io::read_to_string(&mut input).context("read the Dockerfile")?) } else { text };
    let file = args.file.as_deref().filter(|_| !from_input);
    let config = DockerConfig::open()?;
    let build = Build {
        dockerfile: dockerfile(file, if is_stream { None } else { Some(&args.context) })?,
        text,
        names: args.tag,
        arguments: args.build_arg.into_iter().filter_map(argument).collect(),
        labels: pairs(&args.label, "--label")?.into_iter().collect::<BTreeMap<_, _>>(),
        target: args.target,
        no_cache: args.no_cache,
        pull: args.pull,
        platform: args.platform,
        host_network: args.network == "host",
        secrets: args.secret.iter().map(|text| secret(text)).collect::<anyhow::Result<_>>()?,
        keys: Keys::new(move |host| config.credentials(host).unwrap_or_default()),
    };
    let mut say = |text: &str| {
        if !args.quiet {
            // A reader that has gone does not stop a build.
            let _ = super::print(text);
        }
    };
    let built = if alone {
        engine.build(&build, std::io::empty(), &mut say)
    } else if is_stream {
        engine.build(&build, input, &mut say)
    } else {
        engine.build(&build, engine.pack_context(&args.context, &build.dockerfile)?, &mut say)
    };
    let image = match built {
        // With the line and the place in it: several lines of its own.
        Err(engine::Error::Bad { message }) if message.contains('\n') => {
            print_error(&message);
            return Ok(ExitCode::FAILURE);
        }
        built => built?,
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

/// Whether a stream begins like a tar or one that is compressed. Nothing is taken from it.
fn is_archive(input: &mut impl std::io::BufRead) -> anyhow::Result<bool> {
    let head = input.fill_buf().context("read the context")?;
    let compressed = [&[0x1f, 0x8b][..], &[0x28, 0xb5, 0x2f, 0xfd], &[0xfd, b'7', b'z', b'X', b'Z', 0]];
    // POSIX, "ustar Interchange Format": the field magic. Older tars have a path with NULs behind it.
    let tar = head.get(257..262) == Some(b"ustar") || head.get(..100).is_some_and(|name| name.contains(&0));
    Ok(tar || compressed.iter().any(|magic| head.starts_with(magic)))
}

/// `id=ID,src=FILE`; without a file, the id is its path.
fn secret(text: &str) -> anyhow::Result<(String, PathBuf)> {
    let (mut id, mut source) = (None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("src" | "source", value)) => source = Some(PathBuf::from(value)),
            Some(("type", "file")) => {}
            _ => anyhow::bail!("--secret {text}: id=ID[,src=FILE] is expected"),
        }
    }
    let id = id.with_context(|| format!("--secret {text}: id is missing"))?;
    let path = source.unwrap_or_else(|| PathBuf::from(&id));
    let path =
        std::fs::canonicalize(&path).with_context(|| format!("--secret {text}: {}", path.display()))?;
    Ok((id, path))
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
