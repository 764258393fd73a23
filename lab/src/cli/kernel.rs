//! `lab kernel`: the kernels that virtual machines boot.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use lab::kernel::{self, Event, Kernel};

use super::style::HEADING;

/// Work with guest kernels: build, fetch, list, use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab kernel build           the lean kernel, from the distribution's source package
  lab kernel fetch           the distribution's own kernel, with its virtio modules
  lab kernel list            the kernels at hand; the first one is booted by default
  lab kernel use cloud       boot another one by default")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Build the lean kernel from the distribution's kernel source. Takes some minutes, once; Ctrl-C pauses it.
    Build {
        /// The source's archive, instead of the newest /usr/src/linux-source-*.tar.*.
        #[arg(long, value_name = "ARCHIVE")]
        source: Option<PathBuf>,
        /// Install nothing: fail and name the packages that are missing.
        #[arg(long)]
        no_install: bool,
    },
    /// Download the distribution's own kernel into the cache, without installing it.
    Fetch {
        /// Which of the distribution's kernels: cloud (Debian), virtual (Ubuntu) or generic.
        #[arg(long, value_parser = ["cloud", "virtual", "generic"])]
        flavour: Option<String>,
    },
    /// List the kernels at hand, the one that is booted by default first.
    #[command(visible_alias = "ls")]
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Boot this kernel by default: its name, its release or the beginning of its hash.
    Use {
        /// The kernel.
        kernel: String,
    },
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Build { source, no_install } => build(source, no_install)?,
        Command::Fetch { flavour } => fetch(flavour.as_deref())?,
        Command::List { json } => list(json)?,
        Command::Use { kernel } => {
            let kernel = kernel::select(&kernel)?;
            super::print(&format!("{} {} is booted by default\n", kernel.meta.name, kernel.meta.release))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn build(source: Option<PathBuf>, no_install: bool) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    let missing = kernel::missing_for_build();
    if no_install && !missing.is_empty() {
        anyhow::bail!("a kernel build needs packages that are missing: `{}`", missing.command());
    }
    kernel::install(&missing, &mut |event| progress.show(event))?;
    let interrupted = interrupt_flag()?;
    let built = kernel::build(source.as_deref(), &interrupted, &mut |event| progress.show(event))?;
    progress.finish();
    super::print(&format!(
        "{} the lean kernel {} ({}): {}\n",
        if built.cached { "there already:" } else { "built" },
        built.kernel.meta.release,
        built.kernel.hash,
        built.kernel.image.display()
    ))?;
    Ok(())
}

fn fetch(flavour: Option<&str>) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    let interrupted = interrupt_flag()?;
    let fetched = kernel::fetch(flavour, &interrupted, &mut |event| progress.show(event))?;
    progress.finish();
    super::print(&format!(
        "{} the {} kernel {} ({}): {}\n",
        if fetched.cached { "there already:" } else { "fetched" },
        fetched.kernel.meta.name,
        fetched.kernel.meta.release,
        fetched.kernel.hash,
        fetched.kernel.image.display()
    ))?;
    Ok(())
}

/// Ctrl-C also reaches the compilers, which end; this process stays to say what that means.
pub(super) fn interrupt_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&flag))
        .context("watch for Ctrl-C")?;
    Ok(flag)
}

fn list(json: bool) -> anyhow::Result<()> {
    let kernels = kernel::list()?;
    if json {
        super::print(&format!("{}\n", serde_json::to_string_pretty(&kernels)?))?;
    } else if kernels.is_empty() {
        super::print(
            "no kernels yet: `lab kernel build` makes the lean one, `lab kernel fetch` gets the distribution's\n",
        )?;
    } else {
        super::print(&table(&kernels))?;
    }
    Ok(())
}

/// The kernels as a table; the star marks the one that is booted by default.
fn table(kernels: &[Kernel]) -> String {
    let width = |text: fn(&Kernel) -> &str, least: usize| {
        kernels.iter().map(|kernel| text(kernel).len()).max().unwrap_or(0).max(least)
    };
    let name = width(|kernel| &kernel.meta.name, 4);
    let release = width(|kernel| &kernel.meta.release, 7);
    let mut out = format!(
        "{HEADING}  {:name$}  {:7}  {:release$}  {:>8}  {:16}  WITHOUT VT-X{HEADING:#}\n",
        "NAME", "ORIGIN", "RELEASE", "SIZE", "HASH"
    );
    for (index, kernel) in kernels.iter().enumerate() {
        let meta = &kernel.meta;
        let _ = writeln!(
            out,
            "{} {:name$}  {:7}  {:release$}  {:>8}  {:16}  {}",
            if index == 0 { '*' } else { ' ' },
            meta.name,
            meta.origin.name(),
            meta.release,
            format!("{:.1} MB", kernel.size as f64 / 1e6),
            kernel.hash,
            if meta.works_without_vtx { "works" } else { "no" }
        );
    }
    out
}

/// Steps as lines and a bar with the time left, on standard error; without a terminal only the lines.
pub(super) struct Progress {
    bar: ProgressBar,
    title: String,
}

impl Progress {
    pub(super) fn new() -> Self {
        let style = ProgressStyle::with_template("{msg:14} {wide_bar} {percent:>3} %  {eta} left");
        let bar = ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, title: String::new() }
    }

    pub(super) fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Step(text) => {
                self.bar.suspend(|| anstream::eprintln!("lab: {text}"));
                text.split(' ').next().unwrap_or_default().clone_into(&mut self.title);
                self.bar.reset();
            }
            Event::Progress { done, total } => {
                if self.bar.length() != Some(total) || self.bar.message().is_empty() {
                    self.bar.set_message(self.title.clone());
                    self.bar.set_length(total);
                    self.bar.enable_steady_tick(Duration::from_secs(1));
                    // What an earlier call did says nothing about how fast this one is.
                    self.bar.set_position(done);
                    self.bar.reset_eta();
                }
                self.bar.set_position(done);
            }
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
