//! `lab image`: load, inspect, name and remove images.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lab::engine::stored::Engine;
use lab::image::{Loaded, Reference, Store, embedded};
use serde_json::Value;

use super::progress::Bars;
use super::style::print_error;
use super::template;

/// Work with images: load, list, inspect, name, remove.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  docker save busybox | lab image load -      an image of docker's, through a pipe
  lab image load app.tar.zst --tag app:1      an OCI layout in a compressed tar, under a name of your choice
  lab image inspect lab                       what an image says about itself, as JSON")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Load an OCI layout (a folder or a tar) or what `docker save` writes; tars may be compressed.
    Load {
        /// The file or folder; - is standard input.
        file: PathBuf,
        /// Give the image this name as well.
        #[arg(short, long, value_name = "NAME")]
        tag: Option<Reference>,
    },
    /// List the images at hand.
    #[command(visible_alias = "list")]
    Ls(super::images::Args),
    /// Print what images say about themselves, as JSON.
    Inspect {
        /// A Go template for each, such as '{{.Id}}'.
        #[arg(short, long, value_name = "TEMPLATE")]
        format: Option<String>,
        /// Names or ids.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Give an image a further name.
    Tag {
        /// The image's name or id.
        image: String,
        /// The new name.
        name: Reference,
    },
    /// Remove names of images, and images without a name.
    #[command(visible_alias = "remove")]
    Rm {
        /// Names or ids.
        #[arg(required = true)]
        images: Vec<String>,
        /// Also where it has several names or a sandbox uses it (which keeps its files until it ends).
        #[arg(short, long)]
        force: bool,
    },
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Command::Ls(args) = args.command {
        return super::images::run(args);
    }
    let store = Store::open_default()?;
    match args.command {
        Command::Load { file, tag } => load(&store, &file, tag.as_ref()),
        Command::Inspect { format, images } => inspect(&images, format.as_deref()),
        Command::Tag { image, name } => {
            embedded::ensure(&store)?;
            store.tag(&store.resolve(&image)?, &name)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Rm { images, force } => Ok(remove(&Engine::open()?, &images, force)),
        Command::Ls(_) => unreachable!("listed above"),
    }
}

fn load(store: &Store, file: &Path, tag: Option<&Reference>) -> anyhow::Result<ExitCode> {
    let progress = Bars::default();
    let mut loaded = if file == Path::new("-") {
        store.load_from(std::io::stdin(), "standard input", &progress)?
    } else {
        store.load(file, &progress)?
    };
    if let Some(tag) = tag {
        let id = loaded[0].id;
        anyhow::ensure!(
            loaded.iter().all(|other| other.id == id),
            "{} has several images, so which is to be {}? They are loaded; name one by `lab image tag`",
            file.display(),
            tag.familiar()
        );
        store.tag(&store.resolve(&id.to_string())?, tag)?;
        loaded.retain(|loaded| loaded.name.is_some());
        loaded.push(Loaded { name: Some(tag.clone()), id });
    }
    let lines = loaded.iter().map(|Loaded { name, id }| match name {
        // Docker's wording, which scripts read.
        Some(name) => format!("Loaded image: {}\n", name.familiar()),
        None => format!("Loaded image ID: {id}\n"),
    });
    super::print(&lines.collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

fn inspect(names: &[String], format: Option<&str>) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let described = names.iter().map(|name| engine.inspect_image(name)).collect::<Result<Vec<Value>, _>>()?;
    let text = match format {
        None => format!("{}\n", serde_json::to_string_pretty(&described)?),
        Some(format) => {
            let filled: anyhow::Result<Vec<String>> =
                described.iter().map(|value| template::fill(format, value)).collect();
            filled?.join("\n") + "\n"
        }
    };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Removes what can be removed; each failure is one line, and the exit code tells that there was one.
fn remove(engine: &Engine, names: &[String], force: bool) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        let result = engine.remove_image(name, force).map_err(anyhow::Error::from).and_then(|removed| {
            let mut text = String::new();
            for name in &removed.untagged {
                let _ = writeln!(text, "Untagged: {}", name.familiar());
            }
            if let Some(deleted) = removed.deleted {
                let _ = writeln!(text, "Deleted: {deleted}");
            }
            Ok(super::print(&text)?)
        });
        if let Err(error) = result {
            print_error(&super::one_line(&error));
            code = ExitCode::FAILURE;
        }
    }
    code
}
