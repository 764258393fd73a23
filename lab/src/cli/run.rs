//! `lab run`: one command in a sandbox, behind the wall of choice. The flags are docker's where docker has them.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use bollard_stubs::models::ContainerCreateBody;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use lab::engine::limits::{self, Limits, MilliCpus};
use lab::engine::request::Choices;
use lab::engine::{self, Accelerator, Request, Runtime, process, stored};
use lab::image::{self, Progress};
use lab_clock::{Mark, Nanos, Timeline};

use super::flags::Flags;
use super::place::Place;
use super::progress::Bars;

/// Run a command in a new sandbox: a container, or a virtual machine with its own kernel.
///
/// The exit code is the command's own; 128 and the signal's number where a signal ended it; 127 where the command does not
/// exist, 126 where it cannot be executed, 125 where the lab itself failed. State is removed at the end in any case.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "lab run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    after_help = "Examples:
  lab run lab hello                              the default image's hello, as a container
  lab run --runtime vm lab hello                 the same in a virtual machine
  lab run -it lab sh                             a shell with a terminal
  echo 1 2 3 | lab run -i lab cat                standard input needs -i
  lab run -e NAME=eva -w /tmp -u 1000 lab env    environment, directory, user
  lab run -m 64m --cpus 0.5 lab memory           within limits"
)]
pub struct Args {
    /// The image, then the command and its arguments; without a command, the image's own
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    image_and_command: Vec<String>,

    /// Which wall the command runs behind
    #[arg(long, default_value = "container", value_name = "WALL", value_parser = runtime_parser())]
    runtime: Runtime,

    /// Connect standard input; without it the command reads from /dev/null
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable; NAME alone passes on the caller's
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set the environment variables that a file lists, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Start in this directory
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// Run as this user, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Replace the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Name the sandbox
    #[arg(long)]
    name: Option<String>,
    /// Host name inside; by default the first 12 digits of the sandbox's id
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Remove the sandbox at the end; with -d only, as one in the foreground always is
    #[arg(long)]
    rm: bool,

    /// Limit memory; for a virtual machine, its whole memory [default there: 128m]
    #[arg(short, long, value_name = "SIZE", value_parser = limits::parse_size, help_heading = "Limits")]
    memory: Option<u64>,
    /// Limit memory and swap together; -1 for no limit
    #[arg(long, value_name = "SIZE", value_parser = limits::parse_swap, allow_hyphen_values = true, help_heading = "Limits")]
    memory_swap: Option<i64>,
    /// Limit processor time to so many CPUs
    #[arg(long, value_name = "NUMBER", value_parser = limits::parse_cpus, help_heading = "Limits")]
    cpus: Option<MilliCpus>,
    /// Limit processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Limits")]
    pids_limit: Option<i64>,

    /// Boot this guest kernel, one that `lab kernel list` shows
    #[arg(long, value_name = "NAME", help_heading = "Virtual machine")]
    kernel: Option<String>,
    /// Start the machine from a snapshot of its kind (image, kernel, size and options, whatever the command) where there is
    /// one, and leave one for the next run where there is none. The same command again starts as a fork of its first run, at
    /// its first instruction, with random numbers, time and host name of its own, but its memory layout
    #[arg(long, help_heading = "Virtual machine")]
    warm: bool,
    /// Make this Unix socket, by which the host's programs reach those in the machine (vsock): connect, and say CONNECT PORT.
    /// Those in the machine that connect to the host (cid 2) reach who listens on SOCKET_PORT
    #[arg(long, value_name = "SOCKET", help_heading = "Virtual machine")]
    vsock: Option<PathBuf>,
    /// Make this Unix socket, where GDB may connect to the machine: `target remote SOCKET`
    #[arg(long, value_name = "SOCKET", help_heading = "Virtual machine")]
    gdb: Option<PathBuf>,
    /// Print the machine's memory map, its vCPU's first registers, and each exit to the VMM as it happens, on standard error
    #[arg(long, help_heading = "Virtual machine")]
    explain: bool,
    /// Run the machine's processor by KVM, or by QEMU's emulation
    #[arg(long, default_value = "auto", value_parser = accelerator_parser(), help_heading = "Virtual machine")]
    accel: Accelerator,

    /// Say nothing but what the command says
    #[arg(short, long)]
    quiet: bool,
    /// Write the moments of the run to this open file as one JSON object: names and nanoseconds of CLOCK_MONOTONIC
    #[arg(long, value_name = "FD", help_heading = "Measuring")]
    marks: Option<u32>,

    /// Its network: none (its own loopback), bridge, host, container:NAME, passt (sockets of yours, without root), or one that
    /// `lab network create` made; with -p bridge, otherwise none where not given
    #[arg(long, alias = "net", value_name = "NETWORK")]
    network: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Leave it running in the background, as a stored container; prints its id
    #[arg(short, long)]
    detach: bool,
    /// Write the container's id to this file, which must not be there
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// When to pull the image from its registry
    #[arg(long, default_value = "missing", value_name = "WHEN", value_parser = ["always", "missing", "never"])]
    pull: String,
    #[command(flatten)]
    flags: Flags,
}

fn runtime_parser() -> impl TypedValueParser<Value = Runtime> {
    PossibleValuesParser::new(Runtime::ALL.map(Runtime::name))
        .map(|name| Runtime::ALL.into_iter().find(|runtime| runtime.name() == name).unwrap_or_default())
}

fn accelerator_parser() -> impl TypedValueParser<Value = Accelerator> {
    PossibleValuesParser::new(["auto", "kvm", "tcg"]).map(|name| match name.as_str() {
        "kvm" => Accelerator::Kvm,
        "tcg" => Accelerator::Tcg,
        _ => Accelerator::Auto,
    })
}

pub fn run(args: Args, started: Nanos) -> anyhow::Result<ExitCode> {
    if args.detach {
        return super::create::run_detached(&args);
    }
    if args.network() != "none" || args.cidfile.is_some() || args.flags.needs_storing() {
        return super::create::run_attached(&args);
    }
    let marks = args.marks;
    let timeline = marks.map(|_| Timeline::new().map(Arc::new)).transpose().context("make a timeline")?;
    if let Some(timeline) = &timeline {
        timeline.mark_at(Mark::Started, started);
    }
    let pull = args.pull.clone();
    let result = request(args).and_then(|request| {
        let bars = Bars::default();
        let progress: &dyn Progress = if request.quiet { &() } else { &bars };
        if pull == "always" {
            super::registry::pull_for_run(&request.image, request.quiet)?;
        }
        match engine::run(&request, timeline.as_ref(), progress) {
            Err(engine::Error::Image(image::Error::NotFound { name }))
                if name == request.image && pull != "never" =>
            {
                super::registry::pull_for_run(&name, request.quiet)?;
                Ok(engine::run(&request, timeline.as_ref(), progress)?)
            }
            result => Ok(result?),
        }
    });
    if let (Some(fd), Some(timeline)) = (marks, &timeline) {
        write_marks(fd, timeline)?;
    }
    match result {
        Ok(exit) => Ok(ExitCode::from(exit.code())),
        Err(error) => Ok(failed(&error)),
    }
}

/// Tells why the workload did not run; the exit code says that it was not the workload's own.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    super::style::print_error(&super::one_line(error));
    let code = error.downcast_ref::<engine::Error>().map_or(super::USAGE, engine::Error::exit_code);
    ExitCode::from(code)
}

fn request(args: Args) -> anyhow::Result<Request> {
    if let Some(flag) = args.place.needs_network() {
        anyhow::bail!("{flag} is of a place in a network: give --network as well");
    }
    anyhow::ensure!(
        !args.flags.publishes() && !args.place.publishes(),
        "--publish needs a network that leads inside: leave --network none out"
    );
    anyhow::ensure!(
        !args.flags.restarts(),
        "--restart needs a container that lives on its own: give -d as well"
    );
    let environment = environment(&args)?;
    let mut body = ContainerCreateBody::default();
    args.flags.apply(&mut body)?;
    let isolation = isolation(&body)?;
    let finer = stored::plan::limits(&body.host_config.unwrap_or_default());
    let mut words = args.image_and_command.into_iter();
    Ok(Request {
        image: words.next().unwrap_or_default(),
        command: words.collect(),
        // An empty one takes the image's away.
        entrypoint: args
            .entrypoint
            .map(|program| Some(program).filter(|text| !text.is_empty()).into_iter().collect()),
        runtime: args.runtime,
        environment,
        workdir: args.workdir,
        user: args.user,
        limits: Limits {
            memory: args.memory.filter(|&memory| memory != 0),
            memory_swap: args.memory_swap,
            cpus: args.cpus.or(finer.cpus),
            pids: args.pids_limit,
            ..finer
        },
        interactive: args.interactive,
        terminal: args.tty,
        name: args.name,
        hostname: args.hostname,
        read_only: args.read_only,
        kernel: args.kernel,
        accelerator: args.accel,
        warm: args.warm,
        saved: None,
        vsock: args.vsock,
        gdb: args.gdb,
        explain: args.explain,
        quiet: args.quiet,
        isolation,
    })
}

/// What the flags change about the isolation. The engine's state is opened only for volumes, which are in it.
fn isolation(body: &ContainerCreateBody) -> anyhow::Result<Choices> {
    let mut choices = stored::choices_of_run(body)?;
    // Stricter than docker: a program that a student tries needs no set-user-id rights.
    choices.new_privileges = false;
    Ok(choices)
}

impl Args {
    /// The container's name, if one is given.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Which network. A port can be published of a network only.
    pub fn network(&self) -> &str {
        self.network.as_deref().unwrap_or(if self.flags.publishes() || self.place.publishes() {
            "bridge"
        } else {
            "none"
        })
    }

    /// When the image is pulled: always, missing or never.
    pub fn pull(&self) -> &str {
        &self.pull
    }

    /// Where the id is written, which is refused before anything is made.
    pub fn id_file(&self) -> anyhow::Result<Option<File>> {
        let Some(path) = &self.cidfile else { return Ok(None) };
        let file = File::create_new(path);
        Ok(Some(file.with_context(|| {
            format!("--cidfile {}: it must be a new file; remove it or choose another", path.display())
        })?))
    }

    /// There is no container whose id could stand there.
    pub fn forget_id_file(&self) {
        if let Some(path) = &self.cidfile {
            let _ = fs::remove_file(path);
        }
    }

    /// Whether it has a terminal, and whether standard input reaches it.
    pub fn streams(&self) -> (bool, bool) {
        (self.tty, self.interactive)
    }

    /// Writes the flags into the configuration of a stored container.
    pub fn configure(&self, body: &mut ContainerCreateBody) -> anyhow::Result<()> {
        self.flags.apply(body)?;
        let mut words = self.image_and_command.iter().cloned();
        body.image = words.next();
        body.cmd = Some(words.collect());
        body.entrypoint = self.entrypoint.clone().map(|program| vec![program]);
        body.env = Some(environment(self)?);
        body.working_dir.clone_from(&self.workdir);
        body.user.clone_from(&self.user);
        body.hostname.clone_from(&self.hostname);
        body.tty = Some(self.tty);
        body.open_stdin = Some(self.interactive);
        let host = body.host_config.get_or_insert_default();
        host.runtime = Some(self.runtime.name().to_owned());
        host.readonly_rootfs = Some(self.read_only);
        host.auto_remove = Some(self.rm);
        host.network_mode = Some(self.network().to_owned());
        host.memory = self.memory.map(|bytes| bytes as i64);
        host.memory_swap = self.memory_swap;
        host.nano_cpus = self.cpus.map(|cpus| cpus.nano() as i64);
        host.pids_limit = self.pids_limit;
        let mut annotations = HashMap::new();
        annotations.extend(self.kernel.clone().map(|kernel| ("lab.kernel".to_owned(), kernel)));
        annotations.extend(self.warm.then(|| ("lab.warm".to_owned(), "true".to_owned())));
        // The monitor works elsewhere.
        for (name, socket) in [("lab.vsock", &self.vsock), ("lab.gdb", &self.gdb)] {
            let Some(path) = socket else { continue };
            let absolute = std::path::absolute(path)?;
            let path = absolute.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
            annotations.insert(name.to_owned(), path.to_owned());
        }
        host.annotations = Some(annotations);
        if let Some(flag) = self.place.needs_network().filter(|_| self.network() == "none") {
            anyhow::bail!("{flag} is of a place in a network: give --network as well");
        }
        self.place.apply(self.network(), body);
        Ok(())
    }
}

/// Files first, flags after, so that a flag overrides a file, as docker has it.
fn environment(args: &Args) -> anyhow::Result<Vec<String>> {
    let own = |name: &str| std::env::var(name).ok();
    let mut environment = Vec::new();
    for path in &args.env_file {
        let text = fs::read_to_string(path)
            .map_err(|source| engine::Error::EnvironmentFile { path: path.clone(), source })?;
        environment.extend(process::variables_of_file(&text, own)?);
    }
    for text in &args.env {
        environment.push(process::variable(text, own)?);
    }
    Ok(environment)
}

/// Writes the timeline to a file that whoever started this process opened for it.
fn write_marks(fd: u32, timeline: &Timeline) -> anyhow::Result<()> {
    let marks: serde_json::Map<_, _> =
        timeline.marks().into_iter().map(|(mark, at)| (mark.name().to_owned(), at.into())).collect();
    let text = serde_json::to_string(&marks)?;
    // By its name below /proc rather than by its number: a number alone is no proof that the file is open.
    let mut file =
        OpenOptions::new().append(true).open(format!("/proc/self/fd/{fd}")).with_context(|| {
            format!("--marks {fd}: open that file for writing first, such as `{fd}>marks.json`")
        })?;
    writeln!(file, "{text}").with_context(|| format!("write the marks to file {fd}"))
}
