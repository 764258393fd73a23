//! The command line of `lab-vm`: that of runc, which engines know, and two commands for a closer look. Options stand before
//! or after the machine's id; the global ones before the command.

/// Prints a line; one that nobody wants to read any more is no reason to panic.
macro_rules! out {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod boot;
mod create;
mod exec;
mod life;
mod log;
mod look;
mod show;
mod update;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand};
use lab_clock::{Mark, Timeline};
use microvm::explain::Explain;
use microvm::runtime::Instance;
use microvm::vm::Vm;

/// Virtual machines from OCI bundles: an OCI runtime.
#[derive(Parser)]
#[command(name = "lab-vm", disable_version_flag = true, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What all commands share.
#[derive(clap::Args)]
struct Global {
    /// The folder for the state of machines
    #[arg(long, value_name = "FOLDER")]
    root: Option<PathBuf>,
    /// A file to write errors to, beside standard error
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How to write that file
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    log_format: log::Format,
    /// Accepted for engines: a unit's name becomes the control group's path
    #[arg(long)]
    systemd_cgroup: bool,
    /// Accepted for engines: whether this is root is seen from the user
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rootless: Option<String>,
    /// Accepted for engines: nothing is logged but errors
    #[arg(long)]
    debug: bool,
}

#[derive(Subcommand)]
enum Command {
    Create(create::Create),
    /// Let a created machine's process become the workload
    Start(Id),
    Run(create::Run),
    /// Print a machine's state as JSON
    State(Id),
    Kill(life::Kill),
    Delete(life::Delete),
    /// Hold a machine's guest still
    Pause(Id),
    /// Let a paused guest go on
    Resume(Id),
    Exec(exec::Exec),
    List(show::List),
    Ps(show::Ps),
    Events(show::Events),
    Update(update::Update),
    Spec(show::Spec),
    /// Print what this runtime can do, as JSON
    Features,
    Boot(boot::Args),
    Look(look::Args),
}

/// A machine.
#[derive(clap::Args)]
struct Id {
    /// The machine's name
    id: String,
}

/// Flags for a closer look at a guest, the same for every command.
#[derive(clap::Args)]
struct Look {
    /// Words for the kernel command line; of two equal words the last counts
    #[arg(short, long, value_name = "WORDS")]
    append: Vec<String>,
    /// Print the memory map, the first registers, and each exit as it happens, on standard error
    #[arg(long)]
    explain: bool,
    /// Print the marks and the exits on standard error at the end
    #[arg(long)]
    stats: bool,
    /// Make this Unix socket, and wait for GDB there before the guest's first instruction: `target remote SOCKET`
    #[arg(long, value_name = "SOCKET")]
    gdb: Option<PathBuf>,
    /// Sample the first vCPU every millisecond and print a histogram by function at the end; the file is a System.map, or the
    /// output of `nm -n vmlinux`
    #[arg(long, value_name = "SYMBOLS")]
    profile: Option<PathBuf>,
}

/// Runs the command that the arguments name, and reports its error.
pub(crate) fn run() -> ExitCode {
    // As engines ask for it, in the lines that they read.
    if let [_, flag] = &std::env::args().collect::<Vec<_>>()[..]
        && matches!(flag.as_str(), "--version" | "-v" | "-V")
    {
        out!("lab-vm version {}\nspec: 1.3.0", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let Cli { global, command } = Cli::parse();
    command.run(&global).unwrap_or_else(|error| {
        // One line: the library's messages contain their causes.
        log::error(&global, &error.to_string());
        let code = error.downcast_ref::<microvm::Error>().map_or(1, microvm::Error::exit_code);
        ExitCode::from(code)
    })
}

impl Command {
    fn run(self, global: &Global) -> Result<ExitCode> {
        let load = |id: &Id| global.load(&id.id);
        match self {
            Self::Create(args) => args.run(global)?,
            Self::Start(id) => load(&id)?.start()?,
            Self::Run(args) => return args.run(global),
            Self::State(id) => show::state(&load(&id)?),
            Self::Kill(args) => args.run(global)?,
            Self::Delete(args) => args.run(global)?,
            Self::Pause(id) => load(&id)?.pause()?,
            Self::Resume(id) => load(&id)?.resume()?,
            Self::Exec(args) => return args.run(global),
            Self::List(args) => args.run(global),
            Self::Ps(args) => args.run(global)?,
            Self::Events(args) => args.run(global)?,
            Self::Update(args) => args.run(global)?,
            Self::Spec(args) => args.run()?,
            Self::Features => show::features(),
            Self::Boot(args) => return boot::run(args),
            Self::Look(args) => return look::run(args, global),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Global {
    /// Where state is kept: given, or `/run` for root, the user's own run-time folder otherwise.
    fn root(&self) -> PathBuf {
        match (&self.root, std::env::var_os("XDG_RUNTIME_DIR")) {
            (Some(root), _) => root.clone(),
            (None, Some(user)) if !rustix::process::geteuid().is_root() => PathBuf::from(user).join("lab-vm"),
            (None, _) => "/run/lab-vm".into(),
        }
    }

    fn load(&self, id: &str) -> Result<Instance, microvm::Error> {
        Instance::load(&self.root(), id)
    }
}

fn timeline() -> Result<Arc<Timeline>> {
    let timeline = Arc::new(Timeline::new()?);
    timeline.mark(Mark::Started);
    Ok(timeline)
}

impl Look {
    fn explain(&self) -> Option<Explain> {
        self.explain.then(|| Explain::new(Box::new(std::io::stderr())))
    }

    /// The symbols, read before the boot: a wrong name should not cost one.
    fn symbols(&self) -> Result<Option<String>> {
        let read = |path: &Path| {
            fs::read_to_string(path)
                .map_err(|error| anyhow!("cannot read the symbols {}: {error}", path.display()))
        };
        self.profile.as_deref().map(read).transpose()
    }

    /// What was seen.
    /// `vm` is none where QEMU runs the guest.
    fn print(&self, vm: Option<&Vm>, timeline: &Timeline, symbols: Option<&str>) {
        if self.stats {
            let marks = timeline.marks();
            let start = marks.first().map_or(0, |(_, at)| *at);
            for (mark, at) in marks {
                eprintln!("{:>12.3} ms  {}", (at - start) as f64 / 1e6, mark.name());
            }
        }
        let Some(vm) = vm else {
            return eprintln!("the guest ran under QEMU's translator (TCG), without KVM");
        };
        if self.stats {
            let (probe, kind) = (vm.probe(), if vm.probe().hardware { "hardware" } else { "interpreted" });
            eprintln!("{:>12.3} ns  a kernel-mode instruction: {kind}", probe.instruction);
            for (name, count) in vm.stats().exits().filter(|(_, count)| *count > 0) {
                eprintln!("{count:>12}     {name}");
            }
        }
        if let (Some(symbols), Some(profile)) = (symbols, vm.profile()) {
            eprint!("{}", profile.by_function(symbols));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn what_engines_say_is_understood() {
        Cli::command().debug_assert();
        for words in [
            "--root /r --log /l --log-format json --systemd-cgroup --rootless=true create --bundle /b --pid-file /p id",
            "create id --bundle /b --console-socket /s --preserve-fds 2 --no-pivot --no-new-keyring",
            "exec --process /p --console-socket /s --detach --pid-file /p id",
            "exec -t -e A=b --cwd / id sh -c --help",
            "kill --all id KILL",
            "kill id 9",
            "delete --force id",
            "ps --format json id",
            "ps id -ef",
            "events --stats id",
            "update --resources - id",
            "--rootless run -b . id",
        ] {
            let parsed = Cli::try_parse_from(["lab-vm"].into_iter().chain(words.split(' ')));
            assert!(parsed.is_ok(), "{words}: {}", parsed.err().unwrap());
        }
    }
}
