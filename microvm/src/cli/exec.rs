//! `exec`: one more process in a machine.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use microvm::runtime::{ExecOptions, Instance};
use microvm::spec::Process;
use oci_spec::runtime::Capability;

use super::Global;

/// Run one more process in a machine
#[derive(clap::Args)]
pub(super) struct Exec {
    /// The machine's name
    id: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Return once it runs
    #[arg(short, long)]
    detach: bool,
    /// A file with the process as config.json describes it
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Working directory
    #[arg(long, value_name = "FOLDER")]
    cwd: Option<PathBuf>,
    /// One more environment variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// UID or UID:GID
    #[arg(short, long, value_name = "IDS")]
    user: Option<String>,
    /// One more group
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// One more capability
    #[arg(short, long, value_name = "CAP")]
    cap: Vec<String>,
    /// Set no_new_privs
    #[arg(long)]
    no_new_privs: bool,
    /// File to write the id to of the process that stands for it
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Unix socket to send its terminal to
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Accepted for engines: a guest's process has no descriptors of the host's
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Accepted for engines
    #[arg(long)]
    ignore_paused: bool,
    /// Accepted for engines: the guest's kernel has no AppArmor
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Accepted for engines: the guest's kernel has no SELinux
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
}

impl Exec {
    pub(super) fn run(self, global: &Global) -> Result<ExitCode> {
        let instance = global.load(&self.id)?;
        let code = instance.exec(ExecOptions {
            process: self.process(&instance)?,
            console_socket: self.console_socket.as_deref().map(super::create::connect).transpose()?,
            pid_file: self.pid_file,
            detach: self.detach,
        })?;
        Ok(ExitCode::from(code))
    }

    /// The process: from the file, or the machine's own with what the options change.
    fn process(&self, instance: &Instance) -> Result<Process> {
        if let Some(path) = &self.process {
            let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            return serde_json::from_slice(&text).map_err(|error| anyhow!("{}: {error}", path.display()));
        }
        if self.command.is_empty() {
            bail!("exec needs a command after the id, or --process FILE");
        }
        let mut process = instance.spec()?.process.unwrap_or_default();
        process.args.clone_from(&self.command);
        process.terminal = self.tty;
        process.console_size = None;
        process.env.extend(self.env.iter().cloned());
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        let user = &mut process.user;
        if let Some(ids) = &self.user {
            let (uid, gid) = ids.split_once(':').unwrap_or((ids, "0"));
            let number = |text: &str| {
                text.parse::<u32>().map_err(|_| anyhow!("--user {ids}: give numbers, UID or UID:GID"))
            };
            user.set_uid(number(uid)?).set_gid(number(gid)?).set_additional_gids(None);
        }
        if !self.additional_gids.is_empty() {
            user.set_additional_gids(Some(self.additional_gids.clone()));
        }
        if !self.cap.is_empty() {
            self.add_capabilities(&mut process)?;
        }
        process.no_new_privileges |= self.no_new_privs;
        Ok(process)
    }

    fn add_capabilities(&self, process: &mut Process) -> Result<()> {
        let parse = |name: &String| {
            let short = name.strip_prefix("CAP_").unwrap_or(name);
            short.parse::<Capability>().map_err(|_| anyhow!("--cap {name}: no such capability"))
        };
        let more = self.cap.iter().map(parse).collect::<Result<HashSet<_>>>()?;
        let sets = process.capabilities.get_or_insert_default();
        let join =
            |set: &Option<HashSet<Capability>>| Some(set.iter().flatten().chain(&more).copied().collect());
        let (bounding, effective) = (join(sets.bounding()), join(sets.effective()));
        let permitted = join(sets.permitted());
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        Ok(())
    }
}
