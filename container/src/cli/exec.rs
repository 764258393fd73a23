//! `exec`: one more process in a container.

use std::path::PathBuf;

use clap::Args;
use container::{ExecOptions, spec};
use oci_spec::runtime::{Capability, LinuxCapabilitiesBuilder, Process, UserBuilder};

use super::{Failure, Global, Outcome, foreground, life};

/// `exec`.
#[derive(Debug, Args)]
pub(super) struct Exec {
    /// Give it a terminal.
    #[arg(long, short)]
    tty: bool,
    /// Return once it runs.
    #[arg(long, short)]
    detach: bool,
    /// A file with the process as config.json describes it.
    #[arg(long, short, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Working directory.
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// One more environment variable.
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// UID or UID:GID.
    #[arg(long, short, value_name = "IDS")]
    user: Option<String>,
    /// One more group.
    #[arg(long, short = 'g', value_name = "GID")]
    additional_gids: Vec<u32>,
    /// One more capability.
    #[arg(long, short, value_name = "CAP")]
    cap: Vec<String>,
    /// Set no_new_privs.
    #[arg(long)]
    no_new_privs: bool,
    /// File to write its id to.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Unix socket to send the terminal to.
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// How many descriptors from 3 on it keeps.
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Accepted for engines.
    #[arg(long)]
    ignore_paused: bool,
    /// The container's name.
    id: String,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let container = global.load(&self.id)?;
        let mut options = ExecOptions::new(self.process(&container)?);
        options.preserve_fds = self.preserve_fds;
        options.pid_file.clone_from(&self.pid_file);
        options.stdio = life::console(self.console_socket.clone())?;
        let terminal = options.process.terminal().unwrap_or(false);
        let relay = match (self.detach, &self.console_socket) {
            (false, None) if terminal => {
                let (relay, stdio) = foreground::Relay::new()?;
                options.stdio = stdio;
                Some(relay)
            }
            _ => None,
        };
        let signals = (!self.detach).then(foreground::Signals::catch).transpose()?;
        let mut running = container.exec(options)?;
        let Some(signals) = signals else { return Ok(0) };
        foreground::wait(relay.as_ref(), &signals, &running, |signal| {
            let _ = running.kill(signal);
        })?;
        Ok(running.wait()?.code())
    }

    /// The process: from the file, or the container's own with what the options change.
    fn process(&self, container: &container::Container) -> Result<Process, Failure> {
        if let Some(path) = &self.process {
            return Ok(spec::load_process(path)?);
        }
        if self.command.is_empty() {
            return Err(Failure::new("exec needs a command after the id, or --process FILE"));
        }
        let spec = spec::load(container.bundle())?;
        let mut process = spec.process().clone().unwrap_or_default();
        process.set_args(Some(self.command.clone()));
        process.set_terminal(Some(self.tty));
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.clone());
        }
        let mut environment = process.env().clone().unwrap_or_default();
        environment.extend(self.env.iter().cloned());
        process.set_env(Some(environment));
        if let Some(ids) = &self.user {
            let (uid, gid) = ids.split_once(':').unwrap_or((ids, "0"));
            let number = |text: &str| {
                text.parse::<u32>()
                    .map_err(|_| Failure::new(format!("--user {ids}: give numbers, UID or UID:GID")))
            };
            let user = UserBuilder::default().uid(number(uid)?).gid(number(gid)?);
            process.set_user(user.build().map_err(|error| Failure::new(error.to_string()))?);
        }
        if !self.additional_gids.is_empty() {
            let mut user = process.user().clone();
            user.set_additional_gids(Some(self.additional_gids.clone()));
            process.set_user(user);
        }
        if !self.cap.is_empty() {
            process.set_capabilities(Some(self.with_capabilities(&process)?));
        }
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        Ok(process)
    }

    fn with_capabilities(&self, process: &Process) -> Result<oci_spec::runtime::LinuxCapabilities, Failure> {
        let parse = |name: &String| {
            let short = name.strip_prefix("CAP_").unwrap_or(name);
            short.parse::<Capability>().map_err(|_| Failure::new(format!("--cap {name}: no such capability")))
        };
        let more = self.cap.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let old = process.capabilities().clone().unwrap_or_default();
        let join = |set: &Option<oci_spec::runtime::Capabilities>| {
            set.iter().flatten().chain(&more).copied().collect::<oci_spec::runtime::Capabilities>()
        };
        LinuxCapabilitiesBuilder::default()
            .bounding(join(old.bounding()))
            .effective(join(old.effective()))
            .permitted(join(old.permitted()))
            .inheritable(old.inheritable().clone().unwrap_or_default())
            .ambient(old.ambient().clone().unwrap_or_default())
            .build()
            .map_err(|error| Failure::new(error.to_string()))
    }
}
