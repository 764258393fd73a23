//! The command line of runc, which engines know. Options stand before or after the container's id; the global ones
//! before the command.
#![allow(clippy::unnecessary_wraps)] // all commands have one shape, also those that cannot fail

mod arguments;
mod create;
mod exec;
mod features;
mod foreground;
mod life;
mod log;
mod show;
mod spec;
mod update;

use std::path::PathBuf;

use arguments::{Arguments, Word};
use container::{Cgroups, Container, Error};

const HELP: &str = "\
An OCI runtime that is made to be read.

Usage: lab-container [OPTIONS] COMMAND ...; lab-container COMMAND --help

Commands:
  create      Make a container from a bundle; its process waits to be started
  start       Let a created container's process become the workload
  run         Create, start, wait and delete
  state       Print a container's state as JSON
  kill        Send a signal to a container's process
  delete      Remove a container and all it used
  pause       Freeze all processes of a container
  resume      Let a paused container go on
  exec        Run one more process in a container
  list        List containers
  ps          List a container's processes
  events      Print what a container uses
  update      Change a container's limits
  spec        Write an example configuration
  features    Print what this runtime can do, as JSON
  checkpoint, restore
              Not supported: both say so

Options:
      --root DIR          Directory for the state of containers
      --log FILE          File to write errors to, beside standard error
      --log-format FORMAT How to write that file: text or json
      --systemd-cgroup    Let systemd make the cgroup; linux.cgroupsPath then is slice:prefix:name
      --cgroup-manager M  cgroupfs, systemd (the same), or disabled: the container stays in the caller's cgroup
      --rootless [BOOL]   Accepted for engines: whether this is root is seen from the user
      --debug             Accepted for engines: nothing is logged but errors
      --criu FILE         Accepted for engines: there is no checkpoint
  -v, --version           Print the versions
  -h, --help              Print this, or a command's own help";

/// What all commands share.
#[derive(Debug, Default)]
struct Global {
    root: Option<PathBuf>,
    log: Option<PathBuf>,
    log_format: log::Format,
    cgroups: Cgroups,
}

/// What a command that failed says and returns.
#[derive(Debug)]
struct Failure {
    message: String,
    code: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: error.exit_code(), message: error.to_string() }
    }
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }
}

/// The exit code of a command, or why it failed.
type Outcome = Result<u8, Failure>;

/// The program, from its arguments to its exit code.
pub(crate) fn main() -> u8 {
    let mut global = Global::default();
    match command(&mut global) {
        Ok(code) => code,
        Err(failure) => {
            log::error(&global, &failure.message);
            failure.code
        }
    }
}

/// Reads the options that all commands share, then hands the words that are left to the command.
fn command(global: &mut Global) -> Outcome {
    let mut arguments = Arguments::new(lexopt::Parser::from_env(), HELP);
    while let Some(word) = arguments.next()? {
        let option = match word {
            Word::Name(command) => return run(&command, arguments, global),
            Word::Option(option) => option,
        };
        match option.as_str() {
            "--root" => global.root = Some(arguments.path()?),
            "--log" => global.log = Some(arguments.path()?),
            "--log-format" => global.log_format = log::Format::named(&arguments.text()?)?,
            "--systemd-cgroup" => {
                global.cgroups = if arguments.flag()? { Cgroups::Systemd } else { Cgroups::Files };
            }
            "--cgroup-manager" => global.cgroups = cgroups(&arguments.text()?)?,
            "--criu" => drop(arguments.path()?),
            "--rootless" => drop(arguments.optional(&["true", "false", "auto"])?),
            "--debug" => drop(arguments.flag()?),
            "-v" | "-V" | "--version" => return features::version(),
            option => return arguments::unknown(option),
        }
    }
    Err(Failure::new("no command; see --help"))
}

fn run(command: &str, arguments: Arguments, global: &Global) -> Outcome {
    let simple = |arguments: Arguments, help| arguments::only_id(arguments.for_command(help));
    match command {
        // ANCHOR: commands
        "create" => create::create(arguments, global),
        "run" => create::run(arguments, global),
        "start" => life::start(&simple(arguments, "Usage: start ID")?, global),
        "state" => show::state(&simple(arguments, "Usage: state ID")?, global),
        "pause" => life::pause(&simple(arguments, "Usage: pause ID")?, global),
        "resume" => life::resume(&simple(arguments, "Usage: resume ID")?, global),
        "kill" => life::kill(arguments, global),
        "delete" => life::delete(arguments, global),
        "exec" => exec::exec(arguments, global),
        "list" => show::list(arguments, global),
        "ps" => show::ps(arguments, global),
        "events" => show::events(arguments, global),
        "update" => update::update(arguments, global),
        "spec" => spec::spec(arguments),
        "features" => features::print(),
        // ANCHOR_END: commands
        "checkpoint" | "restore" => Err(Failure::new(
            "checkpoint and restore are not supported: use an engine's own image commit, or a virtual machine",
        )),
        "help" => {
            println!("{HELP}");
            Ok(0)
        }
        other => Err(Failure::new(format!("there is no command {other:?}; see --help"))),
    }
}

/// Who makes cgroups, as crun's option names it.
fn cgroups(manager: &str) -> Result<Cgroups, Failure> {
    match manager {
        "cgroupfs" => Ok(Cgroups::Files),
        "systemd" => Ok(Cgroups::Systemd),
        "disabled" => Ok(Cgroups::None),
        _ => Err(Failure::new(format!("--cgroup-manager {manager}: use cgroupfs, systemd or disabled"))),
    }
}

impl Global {
    /// Where state is kept: given, or `/run` for root, the user's own run-time directory otherwise.
    fn root(&self) -> PathBuf {
        match (&self.root, std::env::var_os("XDG_RUNTIME_DIR")) {
            (Some(root), _) => root.clone(),
            (None, Some(user)) if !rustix::process::geteuid().is_root() => {
                PathBuf::from(user).join("lab-container")
            }
            (None, _) => "/run/lab-container".into(),
        }
    }

    fn load(&self, id: &str) -> Result<Container, Failure> {
        Ok(Container::load(&self.root(), id)?)
    }
}
