//! `lab pull`, `lab push`, `lab login`, `lab logout`: images from and to registries.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lab::image::registry::{self, Credentials, DockerConfig, Listener, News, Wanted};
use lab::image::{Reference, Store};

/// Fetch an image from a registry.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab pull busybox                            from Docker Hub
  lab pull localhost:5000/app:1               from a registry of this machine, by plain HTTP
  lab pull --platform linux/arm64 busybox     for another machine")]
pub struct PullArgs {
    /// Every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Print the image's name only
    #[arg(short, long)]
    quiet: bool,
    /// For this machine, of an image for several
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: Reference,
}

pub fn pull(args: PullArgs) -> anyhow::Result<ExitCode> {
    let store = Store::open_default()?;
    let credentials = credentials(&args.name)?;
    let names = if args.all_tags {
        anyhow::ensure!(args.name.tag() == Some("latest"), "tag can't be used with --all-tags");
        let tags = registry::tags(&args.name, &credentials)?;
        tags.iter().map(|tag| args.name.with_tag(tag)).collect::<Result<Vec<_>, _>>()?
    } else {
        vec![args.name.clone()]
    };
    for name in names {
        let wanted = Wanted { name, platform: args.platform.clone(), credentials: credentials.clone() };
        let newer = store.pull(&wanted, &Display::new(args.quiet, Stream::Out))?.newer;
        let name = wanted.name.familiar();
        if !args.quiet {
            let status = if newer { "Downloaded newer image" } else { "Image is up to date" };
            super::print(&format!("Status: {status} for {name}\n"))?;
        }
        super::print(&format!("{}\n", wanted.name))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Fetches an image that a command needs and that is not here, and says so as docker does.
pub fn pull_for_run(name: &str, quiet: bool) -> anyhow::Result<()> {
    let name: Reference = name.parse()?;
    if !quiet {
        anstream::eprintln!("Unable to find image '{}' locally", name.familiar());
    }
    let credentials = credentials(&name)?;
    let wanted = Wanted { name, platform: None, credentials };
    let pulled = Store::open_default()?.pull(&wanted, &Display::new(quiet, Stream::Error));
    let name = wanted.name.familiar();
    pulled.with_context(|| {
        format!("unable to find image '{name}' locally (`lab image load FILE` adds one) nor to pull it")
    })?;
    if !quiet {
        anstream::eprintln!("Status: Downloaded newer image for {name}");
    }
    Ok(())
}

/// Send an image to a registry.
#[derive(Debug, clap::Args)]
pub struct PushArgs {
    /// Every tag of the repository that is here
    #[arg(short, long)]
    all_tags: bool,
    /// Print the image's name only
    #[arg(short, long)]
    quiet: bool,
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    name: Reference,
}

pub fn push(args: PushArgs) -> anyhow::Result<ExitCode> {
    let store = Store::open_default()?;
    let credentials = credentials(&args.name)?;
    let names = if args.all_tags {
        anyhow::ensure!(args.name.tag() == Some("latest"), "tag can't be used with --all-tags");
        let here = store.list()?.into_iter().filter_map(|image| image.name);
        let repository = args.name.familiar_repository();
        let names: Vec<Reference> =
            here.filter(|name| name.tag().is_some() && name.familiar_repository() == repository).collect();
        anyhow::ensure!(!names.is_empty(), "an image does not exist locally with the tag: {repository}");
        names
    } else {
        vec![args.name.clone()]
    };
    if !args.quiet {
        super::print(&format!(
            "The push refers to repository [{}/{}]\n",
            args.name.host(),
            args.name.repository()
        ))?;
    }
    for name in names {
        store.push(&name, &credentials, &Display::new(args.quiet, Stream::Out))?;
        if args.quiet {
            super::print(&format!("{name}\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Remember a name and password for a registry, in docker's configuration file.
#[derive(Debug, clap::Args)]
pub struct LoginArgs {
    /// The name; asked for where it is not given
    #[arg(short, long)]
    username: Option<String>,
    /// The password; better asked for, or given on standard input
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// The registry; Docker Hub where none is given
    #[arg(value_name = "HOST[:PORT]", default_value = "docker.io")]
    server: String,
}

pub fn login(args: LoginArgs) -> anyhow::Result<ExitCode> {
    let user = match args.username {
        Some(user) => user,
        None if args.password_stdin => anyhow::bail!("must provide --username with --password-stdin"),
        None => ask("Username: ", true)?,
    };
    let password = match args.password {
        Some(password) => {
            anstream::eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
            password
        }
        None if args.password_stdin => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("read the password")?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        None => ask("Password: ", false)?,
    };
    anyhow::ensure!(!user.is_empty() && !password.is_empty(), "a name and a password are needed");
    let credentials = Credentials::Password { user: user.clone(), password: password.clone() };
    registry::log_in(&args.server, &credentials)?;
    DockerConfig::open()?.remember(&args.server, &user, &password)?;
    super::print("Login Succeeded\n")?;
    Ok(ExitCode::SUCCESS)
}

/// Asks on the terminal; what is secret is not shown.
fn ask(prompt: &str, shown: bool) -> anyhow::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    anyhow::ensure!(stdin.is_terminal(), "there is nobody to ask: say --username and --password-stdin");
    eprint!("{prompt}");
    std::io::stderr().flush()?;
    let before = tcgetattr(&stdin)?;
    if !shown {
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &quiet)?;
    }
    let mut answer = String::new();
    let read = stdin.read_line(&mut answer);
    if !shown {
        tcsetattr(&stdin, OptionalActions::Now, &before)?;
        anstream::eprintln!();
    }
    read?;
    Ok(answer.trim_end_matches(['\n', '\r']).to_owned())
}

/// Forget the name and password for a registry.
#[derive(Debug, clap::Args)]
pub struct LogoutArgs {
    /// The registry; Docker Hub where none is given
    #[arg(value_name = "HOST[:PORT]", default_value = "docker.io")]
    server: String,
}

pub fn logout(args: LogoutArgs) -> anyhow::Result<ExitCode> {
    let forgotten = DockerConfig::open()?.forget(&args.server)?;
    let text = if forgotten { "Removing login credentials for" } else { "Not logged in to" };
    super::print(&format!("{text} {}\n", args.server))?;
    Ok(ExitCode::SUCCESS)
}

fn credentials(name: &Reference) -> anyhow::Result<Credentials> {
    Ok(DockerConfig::open()?.credentials(name.host())?)
}

/// Where news go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Error,
}

/// Draws a bar for each layer on a terminal, with the time left; elsewhere writes a line for each piece of news.
struct Display {
    quiet: bool,
    stream: Stream,
    terminal: bool,
    all: MultiProgress,
    bars: RefCell<HashMap<String, ProgressBar>>,
}

impl Display {
    fn new(quiet: bool, stream: Stream) -> Self {
        let terminal = match stream {
            Stream::Out => std::io::stdout().is_terminal() && std::io::stderr().is_terminal(),
            Stream::Error => std::io::stderr().is_terminal(),
        };
        Self { quiet, stream, terminal, all: MultiProgress::new(), bars: RefCell::default() }
    }

    fn write(&self, line: &str) -> bool {
        let mut text = line.to_owned();
        let _ = writeln!(text);
        match self.stream {
            Stream::Out => super::print(&text).is_ok(),
            Stream::Error => anstream::stderr().write_all(text.as_bytes()).is_ok(),
        }
    }

    fn draw(&self, id: &str, news: &News<'_>) {
        let style = |template| ProgressStyle::with_template(template).expect("the template is a constant");
        let mut bars = self.bars.borrow_mut();
        let bar = bars.entry(id.to_owned()).or_insert_with(|| self.all.add(ProgressBar::no_length()));
        bar.set_message(format!("{id}: {}", news.status));
        if let Some((done, total)) = news.progress {
            if bar.length() != Some(total) {
                bar.set_style(style("{msg} {wide_bar} {bytes}/{total_bytes} {eta}"));
                bar.set_length(total);
            }
            bar.set_position(done);
        } else {
            bar.set_style(style("{msg}"));
            bar.unset_length();
            bar.tick();
        }
    }
}

impl Listener for Display {
    fn hear(&self, news: &News<'_>) -> bool {
        match news.id {
            _ if self.quiet => true,
            // The bar of a tag is a line that does not change.
            Some(id) if self.terminal && !news.status.starts_with("Pulling from") => {
                self.draw(id, news);
                true
            }
            _ if news.progress.is_some() => true,
            Some(id) => self.write(&format!("{id}: {}", news.status)),
            None => {
                self.finish();
                self.write(news.status)
            }
        }
    }
}

impl Display {
    /// Leaves the bars as they are.
    fn finish(&self) {
        for (_, bar) in self.bars.borrow_mut().drain() {
            bar.abandon();
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.finish();
    }
}
