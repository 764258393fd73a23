//! `lab lesson`: lessons that grade themselves.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Subcommand, ValueEnum};
use lab::course::report::{Format, Report, export};
use lab::course::texts::Common;
use lab::course::{LESSONS, Language, Lesson, check, classroom, find, look, workspace};
use lab::report::terminal::wrap;
use terminal_size::{Width, terminal_size};

use super::style::{HEADING, LITERAL};

/// How often `watch` looks at the file.
const LOOK: Duration = Duration::from_millis(150);

/// Columns, at most: longer lines are hard to read.
const WIDEST: usize = 110;

/// Learn by building: lessons that check themselves on this machine.
///
/// A lesson is a small Rust program with gaps, taken from a step of the real code. `check` compiles it, runs it in a
/// sandbox and looks at it from outside; what is wrong is told with what was seen. Nothing needs a network.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lab lesson list
  lab lesson start pid-namespace
  lab lesson watch pid-namespace
  lab lesson export --format junit > results.xml")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// Speak this language instead of the locale's
    #[arg(long, global = true, value_enum)]
    lang: Option<Lang>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Lang {
    En,
    Es,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the lessons, and how far you are
    List,
    /// Make a folder with the lesson's program, to be completed
    Start(At),
    /// Check the program
    Check(CheckArgs),
    /// Check the program each time that it is saved, until it passes
    Watch(At),
    /// A hint; asked again, a clearer one
    Hint {
        /// The lesson
        lesson: String,
        /// Which one, 1 to 3
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=3))]
        level: Option<u8>,
    },
    /// One way to do it
    Solution {
        /// The lesson
        lesson: String,
    },
    /// Send all results so far to the class's server
    Send {
        /// Where `lab classroom serve` listens, as HOST:PORT
        server: String,
        /// Your name
        #[arg(long)]
        name: String,
        /// The class's token
        #[arg(long)]
        token: String,
    },
    /// Look at the root of a process's mount namespace. Started by the lab itself
    #[command(hide = true)]
    Look {
        /// The process
        pid: i32,
    },
    /// All results so far, for other programs
    Export {
        /// The format
        #[arg(long, value_enum, default_value = "json")]
        format: ExportFormat,
    },
}

#[derive(Debug, clap::Args)]
struct At {
    /// The lesson, one that `lab lesson list` shows
    lesson: String,
    /// Its folder, where that is not the lesson's name
    folder: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    #[command(flatten)]
    at: At,
    /// Print the result for other programs
    #[arg(long, value_enum)]
    format: Option<ExportFormat>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExportFormat {
    Json,
    Junit,
    Csv,
}

impl From<ExportFormat> for Format {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Json => Self::Json,
            ExportFormat::Junit => Self::Junit,
            ExportFormat::Csv => Self::Csv,
        }
    }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let language = match args.lang {
        Some(Lang::En) => Language::En,
        Some(Lang::Es) => Language::Es,
        None => Language::of_locale(|name| std::env::var(name).ok()),
    };
    match args.action {
        Action::List => list(language)?,
        Action::Start(at) => start(&at, language)?,
        Action::Check(args) => return check_once(&args, language),
        Action::Watch(at) => watch(&at, language)?,
        Action::Hint { lesson, level } => hint(find(&lesson)?, level, language)?,
        Action::Solution { lesson } => super::print(find(&lesson)?.solution)?,
        Action::Send { server, name, token } => classroom::send::send(&server, &name, &token)?,
        Action::Look { pid } => {
            let (device, inode) = look::enter_and_look(pid)?;
            super::print(&format!("{device} {inode}\n"))?;
        }
        Action::Export { format } => super::print(&export(&Report::all()?, format.into())?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(language: Language) -> anyhow::Result<()> {
    let common = Common::read()?;
    let mut text = String::new();
    let mut wall = None;
    for lesson in LESSONS {
        if wall != Some(lesson.wall) {
            wall = Some(lesson.wall);
            let _ = writeln!(text, "{HEADING}{}{HEADING:#}", common.word(lesson.wall.name(), language));
        }
        let texts = lesson.texts()?;
        let state = Report::load(lesson.name)?.map_or_else(String::new, |report| {
            let mark = if report.passed() { "✓" } else { " " };
            format!("{mark} {}/{}", report.count(), report.checks.len())
        });
        let title = texts.title.in_language(language);
        let _ = writeln!(text, "  {:<21} {:>3} min  {state:<6}  {title}", lesson.name, texts.minutes);
    }
    Ok(super::print(&text)?)
}

/// Prints a text for people. In a terminal, a line that is too long goes on below its own beginning.
fn tell(text: &str) -> std::io::Result<()> {
    match terminal_size() {
        Some((Width(width), _)) => super::print(&fitted(text, usize::from(width).min(WIDEST))),
        None => super::print(text),
    }
}

fn fitted(text: &str, width: usize) -> String {
    let mut fitted = String::new();
    for line in text.lines() {
        let (indent, words) = line.split_at(line.len() - line.trim_start().len());
        for part in wrap(words, width.saturating_sub(indent.len()).max(20)) {
            let _ = writeln!(fitted, "{indent}{part}");
        }
    }
    fitted
}

fn start(at: &At, language: Language) -> anyhow::Result<()> {
    let lesson = find(&at.lesson)?;
    let folder = workspace::start(lesson, at.folder.as_deref(), language)?;
    let texts = lesson.texts()?;
    let common = Common::read()?;
    let title = texts.title.in_language(language);
    // Its lines are broken for who edits it.
    let task = texts.task.in_language(language).replace('\n', " ");
    let place = folder.join(workspace::PROGRAM).display().to_string();
    let next = common.word("next", language).replace("{file}", &place).replace("{lesson}", lesson.name);
    Ok(tell(&format!("{HEADING}{title}{HEADING:#}\n\n{task}\n\n{next}\n"))?)
}

/// Checks, and keeps the result with the numbers that go over all tries.
fn checked(lesson: &Lesson, program: &Path, language: Language) -> anyhow::Result<Report> {
    let mut report = check(lesson, program, language)?;
    let before = Report::load(lesson.name)?;
    report.tries = before.as_ref().map_or(0, |report| report.tries) + 1;
    report.hints = before.map_or(0, |report| report.hints);
    report.keep()?;
    Ok(report)
}

fn check_once(args: &CheckArgs, language: Language) -> anyhow::Result<ExitCode> {
    let lesson = find(&args.at.lesson)?;
    let program = workspace::program(lesson, args.at.folder.as_deref())?;
    let report = checked(lesson, &program, language)?;
    let text = match args.format {
        Some(format) => export(std::slice::from_ref(&report), format.into())?,
        None => report.render(language)?,
    };
    if args.format.is_some() {
        super::print(&text)?;
    } else {
        tell(&text)?;
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn watch(at: &At, language: Language) -> anyhow::Result<()> {
    let lesson = find(&at.lesson)?;
    let program = workspace::program(lesson, at.folder.as_deref())?;
    let common = Common::read()?;
    let mut last = None;
    loop {
        // An editor may replace the file: for a moment there is none.
        let saved: Option<SystemTime> = program.metadata().and_then(|file| file.modified()).ok();
        if saved.is_some() && saved != last {
            last = saved;
            let report = checked(lesson, &program, language)?;
            tell(&format!("\n{HEADING}{}{HEADING:#}\n{}", lesson.name, report.render(language)?))?;
            if report.passed() {
                return Ok(());
            }
            super::print(&format!("{}\n", common.word("watching", language)))?;
        }
        std::thread::sleep(LOOK);
    }
}

fn hint(lesson: &Lesson, level: Option<u8>, language: Language) -> anyhow::Result<()> {
    let texts = lesson.texts()?;
    let mut report = Report::load(lesson.name)?;
    let used = report.as_ref().map_or(0, |report| report.hints);
    let level = level.map_or((used + 1).min(3), usize::from);
    let hint = texts.hints[level - 1].in_language(language);
    let mut text = format!("{LITERAL}{level}/3{LITERAL:#} {hint}\n");
    // What the last check saw says more than what was written for everybody.
    let seen = report.iter().flat_map(|report| &report.checks).find_map(|check| check.hint.as_ref());
    if let Some(seen) = seen {
        let _ = writeln!(text, "\n{}\n{seen}", Common::read()?.word("last-check", language));
    }
    if let Some(report) = &mut report {
        report.hints = used.max(level);
        report.keep()?;
    }
    Ok(tell(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_below_their_beginning() {
        let text = "  one two three four five six\n\nshort\n";
        assert_eq!(fitted(text, 22), "  one two three four\n  five six\n\nshort\n");
    }
}
