//! The commands: what is typed, and where it goes.
//!
//! A command is one file with a clap struct `Args` and a function `run`, and one line in [`Command`] and [`dispatch`].
//! Nothing is opened, read or started before a command asks for it: `lab --help` costs what clap costs.

#![allow(
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    reason = "every command has the same signature, also those that need less"
)]

mod bench;
mod build;
mod claims;
mod classroom;
mod columns;
mod compare;
mod completion;
mod create;
mod daemon;
mod demo;
mod doctor;
mod draw;
mod exec;
mod files;
mod flags;
mod image;
mod images;
mod kernel;
mod lesson;
mod life;
mod monitor;
mod network;
mod place;
mod progress;
mod prune;
mod ps;
mod registry;
mod results;
mod rig;
mod run;
mod runs_bar;
mod spanish;
mod stats;
mod style;
mod template;
mod version;
mod vm;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use lab::course::Language;
use lab_clock::Nanos;

/// The exit code of a command line that makes no sense, as the docker client's.
const USAGE: u8 = 125;

/// One image, two walls: run it as a container and as a virtual machine, and measure what each wall costs.
#[derive(Debug, Parser)]
#[command(
    name = "lab",
    version,
    styles = style::HELP,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Examples:
  lab demo                                    set up what is missing, then compare both walls
  lab run lab hello                           the default image's hello, as a container
  lab run --runtime vm -it lab sh             a shell in a virtual machine with its own kernel
  lab compare --runs 20 lab hello             what each wall costs, side by side

`lab COMMAND --help` tells more about a command."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Args>),
    Create(Box<create::Args>),
    /// Start containers.
    Start(life::Names),
    /// Stop containers: by their signal, and after some seconds by SIGKILL.
    Stop(life::StopArgs),
    /// Stop containers, and start them again.
    Restart(life::StopArgs),
    /// Send containers a signal.
    Kill(life::KillArgs),
    /// Hold containers still.
    Pause(life::Names),
    /// Let held containers go on.
    Unpause(life::Names),
    /// Wait until containers have ended; prints their exit codes.
    Wait(life::Names),
    /// Give a container another name.
    Rename(life::RenameArgs),
    /// Remove containers.
    Rm(life::RemoveArgs),
    Ps(ps::Args),
    Inspect(ps::InspectArgs),
    Logs(ps::LogsArgs),
    Top(ps::TopArgs),
    Exec(exec::Args),
    Attach(exec::AttachArgs),
    Stats(stats::Args),
    Port(stats::PortArgs),
    Update(stats::UpdateArgs),
    Cp(files::CopyArgs),
    Diff(files::DiffArgs),
    Export(files::ExportArgs),
    Commit(files::CommitArgs),
    Pull(registry::PullArgs),
    Push(registry::PushArgs),
    Login(registry::LoginArgs),
    Logout(registry::LogoutArgs),
    Prune(prune::Args),
    Network(network::Args),
    Build(build::Args),
    Compare(compare::Args),
    Bench(bench::Args),
    Claims(claims::Args),
    Results(results::Args),
    Replay(results::ReplayArgs),
    Pool(results::PoolArgs),
    Demo(demo::Args),
    Doctor(doctor::Args),
    Draw(draw::Args),
    Lesson(lesson::Args),
    Classroom(classroom::Args),
    Images(images::Args),
    Image(image::Args),
    Load(image::LoadArgs),
    Save(image::SaveArgs),
    Import(image::ImportArgs),
    History(image::HistoryArgs),
    Tag(image::TagArgs),
    Rmi(image::RemoveArgs),
    Kernel(kernel::Args),
    Vm(vm::Args),
    Rig(rig::Args),
    Daemon(daemon::Args),
    #[command(hide = true)]
    Monitor(monitor::Args),
    Completion(completion::Args),
    Version(version::Args),
}

/// Reads the command line; what is told of lessons is in the locale's language.
fn parse() -> Result<Cli, clap::Error> {
    let spanish = Language::of_locale(|name| std::env::var(name).ok()) == Language::Es;
    let lesson = std::env::args_os().nth(1).is_some_and(|word| word == "lesson");
    if !(spanish && lesson) {
        return Cli::try_parse();
    }
    let command = Cli::command().mut_subcommand("lesson", spanish::lesson);
    Cli::from_arg_matches(&command.try_get_matches()?)
}

/// Reads the command line and does what it says. `started` is the moment the process began.
pub fn main(started: Nanos) -> ExitCode {
    // Started for each container: what all the other commands look like need not be known for it.
    let mut words = std::env::args_os().skip(1);
    if let (Some("monitor"), Some(id), None) =
        (words.next().as_deref().and_then(OsStr::to_str), words.next(), words.next())
        && let Some(id) = id.to_str().filter(|id| !id.starts_with('-'))
    {
        return monitor::run(id).unwrap_or(ExitCode::FAILURE);
    }
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    dispatch(cli.command, started).unwrap_or_else(|error| {
        style::print_error(&one_line(&error));
        ExitCode::FAILURE
    })
}

fn dispatch(command: Command, started: Nanos) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(*args, started),
        Command::Create(args) => create::run(*args),
        Command::Start(names) => life::start(&names),
        Command::Stop(args) => life::stop(&args),
        Command::Restart(args) => life::restart(&args),
        Command::Kill(args) => life::kill(&args),
        Command::Pause(names) => life::pause(&names, true),
        Command::Unpause(names) => life::pause(&names, false),
        Command::Wait(names) => life::wait(&names),
        Command::Rename(args) => life::rename(&args),
        Command::Rm(args) => life::remove(&args),
        Command::Ps(args) => ps::run(args),
        Command::Inspect(args) => ps::inspect(args),
        Command::Logs(args) => ps::logs(args),
        Command::Top(args) => ps::top(args),
        Command::Exec(args) => exec::run(args),
        Command::Attach(args) => exec::attach(args),
        Command::Stats(args) => stats::run(args),
        Command::Port(args) => stats::port(args),
        Command::Update(args) => stats::update(args),
        Command::Cp(args) => files::copy(args),
        Command::Diff(args) => files::diff(args),
        Command::Export(args) => files::export(args),
        Command::Commit(args) => files::commit(args),
        Command::Pull(args) => registry::pull(args),
        Command::Push(args) => registry::push(args),
        Command::Login(args) => registry::login(args),
        Command::Logout(args) => registry::logout(args),
        Command::Prune(args) => prune::run(args),
        Command::Network(args) => network::run(args),
        Command::Build(args) => build::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Claims(args) => claims::run(args),
        Command::Results(args) => results::run(args),
        Command::Replay(args) => results::replay(args),
        Command::Pool(args) => results::pool(args),
        Command::Demo(args) => demo::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Draw(args) => draw::run(args),
        Command::Classroom(args) => classroom::run(args),
        Command::Lesson(args) => lesson::run(args),
        Command::Images(args) => images::run(args),
        Command::Image(args) => image::run(args),
        Command::Load(args) => image::load(args),
        Command::Save(args) => image::save(args),
        Command::Import(args) => image::import(args),
        Command::History(args) => image::history(args),
        Command::Tag(args) => image::tag(args),
        Command::Rmi(args) => image::remove(args),
        Command::Kernel(args) => kernel::run(args),
        Command::Vm(args) => vm::run(args),
        Command::Rig(args) => rig::run(args),
        Command::Daemon(args) => daemon::run(args),
        Command::Monitor(args) => monitor::run(&args.id),
        Command::Completion(args) => completion::run(args),
        Command::Version(args) => version::run(args),
    }
}

/// Prints to standard output. A reader that has seen enough (`lab images | head -1`) is no failure.
fn print(text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    match anstream::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Help and version go to standard output and are a success; anything else is one line on standard error.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        let _ = error.print();
        return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
    }
    style::print_error(&usage_line(&error.render().to_string()));
    ExitCode::from(USAGE)
}

/// Clap's several lines as one: the message, its tip, and where to read on.
fn usage_line(rendered: &str) -> String {
    let mut line = String::new();
    let mut usage = None;
    for part in rendered.lines().map(str::trim).filter(|part| !part.is_empty()) {
        if let Some(rest) = part.strip_prefix("Usage: ") {
            usage = Some(rest);
        } else if !part.starts_with("For more information") {
            let part = part.strip_prefix("error: ").or_else(|| part.strip_prefix("tip: ")).unwrap_or(part);
            let joint = match line.chars().last() {
                None => "",
                Some(':') => " ",
                Some(_) => "; ",
            };
            let _ = write!(line, "{joint}{part}");
        }
    }
    // "Usage: lab run [OPTIONS] …": the words before the first bracket or flag are the command.
    let command: Vec<_> = usage.map_or_else(Vec::new, |usage| {
        usage.split(' ').take_while(|word| word.chars().all(|c| c.is_ascii_lowercase())).collect()
    });
    let command = if command.is_empty() { "lab".to_owned() } else { command.join(" ") };
    let _ = write!(line, "; see `{command} --help`");
    line
}

/// An error and its causes in one line. A cause that the message before it already tells is not told twice.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            let _ = write!(line, ": {cause}");
        }
    }
    line.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_mistyped_flag_is_told_in_one_line_with_the_likely_meaning() {
        let error = Cli::try_parse_from(["lab", "version", "--jso"]).unwrap_err();
        let line = usage_line(&error.render().to_string());
        assert!(!line.contains('\n'), "{line}");
        assert!(line.contains("'--jso'") && line.contains("'--json'"), "{line}");
        assert!(line.ends_with("; see `lab version --help`"), "{line}");
    }

    #[test]
    fn an_error_and_its_causes_are_one_line() {
        let error = anyhow::anyhow!("No such file").context("reading /x: No such file").context("no image x");
        assert_eq!(one_line(&error), "no image x: reading /x: No such file");
        assert_eq!(one_line(&anyhow::anyhow!("first\n  second\n")), "first; second");
    }
}
