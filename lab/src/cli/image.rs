//! `lab image`: load, save, import, inspect, name and remove images. The same are docker's commands of their own: `lab load`,
//! `lab save`, `lab import`, `lab tag`, `lab history`, `lab rmi`.

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use jiff::Timestamp;
use lab::engine::stored::{Engine, Filters, Import};
use lab::image::{Loaded, Reference, Store, embedded};
use serde_json::{Value, json};

use super::progress::Bars;
use super::style::print_error;
use super::{columns, images, prune, template};

/// Work with images: load, save, import, list, inspect, name, remove.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  docker save busybox | lab image load -      an image of docker's, through a pipe
  lab image load app.tar.zst --tag app:1      an OCI layout in a compressed tar, under a name of your choice
  lab image save -o app.tar app:1             an archive that lab, docker, podman and skopeo read
  lab image inspect lab                       what an image says about itself, as JSON")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Load(LoadArgs),
    Save(SaveArgs),
    Disk(DiskArgs),
    Import(ImportArgs),
    #[command(visible_alias = "list")]
    Ls(images::Args),
    /// Print what images say about themselves, as JSON.
    Inspect {
        /// A Go template for each, such as '{{.Id}}'.
        #[arg(short, long, value_name = "TEMPLATE")]
        format: Option<String>,
        /// Names or ids.
        #[arg(required = true)]
        images: Vec<String>,
    },
    History(HistoryArgs),
    Tag(TagArgs),
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    Pull(super::registry::PullArgs),
    Push(super::registry::PushArgs),
    Build(Box<super::build::Args>),
    Prune(PruneArgs),
}

/// Load an OCI layout (a folder or a tar) or what `docker save` writes; tars may be compressed.
#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    /// The file or folder; - or none is standard input
    file: Option<PathBuf>,
    /// The file or folder, as docker has it
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    input: Option<PathBuf>,
    /// Do not show how far it has come
    #[arg(short, long)]
    quiet: bool,
    /// Give the image this name as well
    #[arg(short, long, value_name = "NAME")]
    tag: Option<Reference>,
}

/// Save images as an archive: an OCI layout and docker's form in one.
#[derive(Debug, clap::Args)]
pub struct SaveArgs {
    /// The archive; standard output where it is not given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Names or ids
    #[arg(required = true)]
    images: Vec<String>,
}

/// Save an image with a guest kernel as a disk that any PC boots, QEMU's as well, without the lab.
///
/// All files live in the machine's memory, and nothing that the workload writes is kept. The console is the first serial port; the machine
/// switches itself off when the workload ends, and says with which code.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  lab image disk -o hello.img lab hello
  qemu-system-x86_64 -m 256 -nographic -drive file=hello.img,format=raw")]
pub struct DiskArgs {
    /// The disk's file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// This guest kernel, one that `lab kernel list` shows
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Name or id of the image, then a command in place of its own
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["IMAGE", "COMMAND"])]
    image: Vec<String>,
}

/// Make an image of one layer from a tar of a root file system.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// An instruction of a Dockerfile for the image's configuration, such as `USER eva`
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// What the image's history is to say
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    message: String,
    /// For which machine it is, where not for this one
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// The tar, which may be compressed; - is standard input
    file: PathBuf,
    /// The image's name
    name: Option<Reference>,
}

/// Print the steps that made an image, the last first.
#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    /// A Go template for each, such as '{{.CreatedBy}}', one behind `table`, or json
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "quiet")]
    format: Option<String>,
    /// Sizes and times for people; false for numbers
    #[arg(short = 'H', long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    human: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Name or id
    image: String,
}

/// Give an image a further name.
#[derive(Debug, clap::Args)]
pub struct TagArgs {
    /// The image's name or id
    image: String,
    /// The new name
    name: Reference,
}

/// Remove names of images, and images without a name.
#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    /// Also where it has several names or something uses it (which keeps its files until it ends)
    #[arg(short, long)]
    force: bool,
    /// Understood for docker's sake: layers that nobody needs go in any case
    #[arg(long, hide = true)]
    no_prune: bool,
    /// Names or ids
    #[arg(required = true)]
    images: Vec<String>,
}

/// Remove images that nobody needs: those without a tag, or all that no container uses.
#[derive(Debug, clap::Args)]
pub struct PruneArgs {
    /// Also those with a tag
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only those that fit: label=KEY[=VALUE], label!=KEY[=VALUE], until=TIME (10m, 24h or a date)
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Load(args) => load(args),
        Command::Save(args) => save(args),
        Command::Disk(args) => disk(args),
        Command::Import(args) => import(args),
        Command::Ls(args) => images::run(args),
        Command::Inspect { format, images } => inspect(&images, format.as_deref()),
        Command::History(args) => history(args),
        Command::Tag(args) => tag(args),
        Command::Rm(args) => remove(args),
        Command::Pull(args) => super::registry::pull(args),
        Command::Push(args) => super::registry::push(args),
        Command::Build(args) => super::build::run(*args),
        Command::Prune(args) => prune(args),
    }
}

pub fn load(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let store = Store::open_default()?;
    let bars = Bars::default();
    let progress: &dyn lab::image::Progress = if args.quiet { &() } else { &bars };
    let file = args.file.or(args.input).filter(|file| file != Path::new("-"));
    let mut loaded = if let Some(file) = &file {
        store.load(file, progress)?
    } else {
        let nothing = "there is nothing to load: give a file, or an archive on standard input";
        anyhow::ensure!(!std::io::stdin().is_terminal(), nothing);
        store.load_from(std::io::stdin(), "standard input", progress)?
    };
    if let Some(tag) = args.tag {
        let id = loaded.first().context("there is no image in it")?.id;
        anyhow::ensure!(
            loaded.iter().all(|other| other.id == id),
            "there are several images in it, so which is to be {}? They are loaded; name one by `lab image tag`",
            tag.familiar()
        );
        store.tag(&store.resolve(&id.to_string())?, &tag)?;
        loaded.retain(|loaded| loaded.name.is_some());
        loaded.push(Loaded { name: Some(tag), id });
    }
    let lines = loaded.iter().map(|Loaded { name, id }| match name {
        // Docker's wording, which scripts read.
        Some(name) => format!("Loaded image: {}\n", name.familiar()),
        None => format!("Loaded image ID: {id}\n"),
    });
    super::print(&lines.collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

fn disk(args: DiskArgs) -> anyhow::Result<ExitCode> {
    let (name, command) = args.image.split_first().context("which image?")?;
    let engine = Engine::open()?;
    let store = engine.images();
    embedded::ensure(store)?;
    let image = store.resolve(name)?;
    let kernel = lab::kernel::resolve(args.kernel.as_deref())?;
    let kernel = kernel.context("no guest kernel yet; make one with: lab kernel build")?;
    let path = &args.output;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)
        .with_context(|| format!("make a file in {}", directory.display()))?;
    let made = store.bootable(&image, &kernel.image, command, file.as_file_mut(), &Bars::default())?;
    file.persist(path).with_context(|| format!("write {}", path.display()))?;
    anstream::eprintln!(
        "wrote: {}, {} MiB; boot it with: qemu-system-x86_64 -m {} -nographic -drive file={},format=raw",
        path.display(),
        made.size >> 20,
        made.memory >> 20,
        path.display()
    );
    Ok(ExitCode::SUCCESS)
}

pub fn save(args: SaveArgs) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let images = engine.images_to_save(&args.images)?;
    let Some(path) = args.output else {
        let refusal = "cowardly refusing to save to a terminal. Use the -o flag or redirect";
        anyhow::ensure!(!std::io::stdout().is_terminal(), refusal);
        engine.images().save(&images, std::io::stdout().lock())?;
        return Ok(ExitCode::SUCCESS);
    };
    // Whole or not at all: an archive that ends in the middle could be taken for one.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)
        .with_context(|| format!("make a file in {}", directory.display()))?;
    engine.images().save(&images, &mut file)?;
    file.persist(&path).with_context(|| format!("write {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

pub fn import(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let import = Import {
        name: args.name,
        changes: args.change,
        message: args.message,
        platform: args.platform,
        source: args.file.display().to_string(),
    };
    let image = if args.file == Path::new("-") {
        engine.import(&import, std::io::stdin())?
    } else {
        let file = File::open(&args.file).with_context(|| format!("open {}", args.file.display()))?;
        engine.import(&import, file)?
    };
    super::print(&format!("{}\n", image.id()))?;
    Ok(ExitCode::SUCCESS)
}

pub fn tag(args: TagArgs) -> anyhow::Result<ExitCode> {
    let store = Store::open_default()?;
    embedded::ensure(&store)?;
    anyhow::ensure!(args.name.digest().is_none(), "refusing to create a tag with a digest reference");
    store.tag(&store.resolve(&args.image)?, &args.name)?;
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

/// How many characters of a step are shown.
const STEP: usize = 45;

pub fn history(args: HistoryArgs) -> anyhow::Result<ExitCode> {
    let columns = [
        ("IMAGE", "ID"),
        ("CREATED", "CreatedSince"),
        ("CREATED BY", "CreatedBy"),
        ("SIZE", "Size"),
        ("COMMENT", "Comment"),
    ];
    let now = Timestamp::now();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |step: &Value| {
        let id = text(&step["Id"]);
        let id = match id.strip_prefix("sha256:") {
            Some(hex) if !args.no_trunc => hex.chars().take(12).collect(),
            _ => id,
        };
        let by = text(&step["CreatedBy"]).replace('\t', " ");
        let by = match by.char_indices().nth(STEP) {
            Some(_) if !args.no_trunc => by.chars().take(STEP - 1).chain(['…']).collect(),
            _ => by,
        };
        let at = Timestamp::from_second(step["Created"].as_i64().unwrap_or(0)).unwrap_or_default();
        let size = step["Size"].as_u64().unwrap_or(0);
        json!({
            "ID": id, "CreatedBy": by, "Comment": text(&step["Comment"]), "CreatedAt": at.to_string(),
            "CreatedSince": if args.human { images::ago(&at.to_string(), now) } else { at.to_string() },
            "Size": if args.human { images::bytes(size) } else { size.to_string() },
        })
    };
    let rows: Vec<Value> = Engine::open()?.image_history(&args.image)?.iter().map(row).collect();
    let printed = if args.quiet {
        rows.iter().map(|row| text(&row["ID"]) + "\n").collect()
    } else {
        columns::list(args.format.as_deref(), &columns, &[("CREATED AT", "CreatedAt")], &rows)?
    };
    super::print(&printed)?;
    Ok(ExitCode::SUCCESS)
}

/// Removes what can be removed; each failure is one line, and the exit code tells that there was one.
pub fn remove(args: RemoveArgs) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let mut code = ExitCode::SUCCESS;
    for name in &args.images {
        match engine.remove_image(name, args.force) {
            Ok(removed) => {
                let untagged = removed.untagged.iter().map(|name| format!("Untagged: {}\n", name.familiar()));
                let deleted = removed.deleted.map(|id| format!("Deleted: {id}\n"));
                super::print(&untagged.chain(deleted).collect::<String>())?;
            }
            Err(error) => {
                print_error(&super::one_line(&error.into()));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn prune(args: PruneArgs) -> anyhow::Result<ExitCode> {
    let mut filters = Filters::from_words(&args.filter)?;
    if args.all {
        filters.add("dangling", "false");
    }
    // Before anyone is asked.
    lab::engine::stored::Scope::of(&filters, &["dangling"])?;
    let what = if args.all { "all images that no container uses" } else { "all images without a tag" };
    if !args.force && !prune::agreed(what)? {
        return Ok(ExitCode::FAILURE);
    }
    let pruned = Engine::open()?.prune_images(&filters)?;
    let untagged = pruned.untagged.iter().map(|name| format!("Untagged: {name}\n"));
    let deleted = pruned.deleted.iter().map(|id| format!("Deleted: {id}\n"));
    let text: String = untagged.chain(deleted).collect();
    super::print(&format!("{text}Total reclaimed space: {}\n", images::bytes(pruned.freed)))?;
    Ok(ExitCode::SUCCESS)
}
