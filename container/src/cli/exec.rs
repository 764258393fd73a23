//! `exec`: one more process in a container.

use std::collections::HashSet;
use std::path::PathBuf;

use container::ExecOptions;
use container::spec::{self, Process};
use oci_spec::runtime::Capability;

use super::arguments::{self, Arguments, Word, needed};
use super::create::{self, Ends};
use super::{Failure, Global, Outcome, foreground};

const HELP: &str = "\
Run one more process in a container.

Usage: exec [OPTIONS] ID COMMAND [ARGUMENTS]...
       exec --process FILE [OPTIONS] ID

  -t, --tty                   Give it a terminal
  -d, --detach                Return once it runs
  -p, --process FILE          A file with the process as config.json describes it
      --cwd DIR               Working directory
  -e, --env NAME=VALUE        One more environment variable
  -u, --user IDS              UID or UID:GID
  -g, --additional-gids GID   One more group
  -c, --cap CAP               One more capability
      --no-new-privs          Set no_new_privs
      --pid-file FILE         File to write its id to
      --console-socket SOCKET Unix socket to send the terminal to
      --pidfd-socket SOCKET   Unix socket to send a descriptor of it to (pidfd_open(2))
      --preserve-fds N        How many descriptors from 3 on it keeps
      --cgroup [NAMES:]PATH   Into a cgroup that is below the container's, on version 1 for these controllers
      --ignore-paused         Also in a paused container: it runs once that is resumed
      --apparmor PROFILE      AppArmor profile to run under
      --process-label LABEL   SELinux label to run under";

/// What is asked of `exec`.
#[derive(Debug, Default)]
struct Exec {
    tty: bool,
    detach: bool,
    process: Option<PathBuf>,
    cwd: Option<PathBuf>,
    env: Vec<String>,
    user: Option<String>,
    gids: Vec<u32>,
    caps: Vec<String>,
    no_new_privs: bool,
    ignore_paused: bool,
    apparmor: Option<String>,
    label: Option<String>,
    cgroups: Vec<String>,
    ends: Ends,
    id: Option<String>,
    command: Vec<String>,
}

/// `exec`.
pub(super) fn exec(arguments: Arguments, global: &Global) -> Outcome {
    let mut exec = Exec::read(arguments.for_command(HELP))?;
    let container = global.load(&needed(exec.id.take())?)?;
    let mut config = container.config()?;
    let mut options = ExecOptions::new(exec.process(config.process.take())?);
    options.config = Some(config);
    options.process.env.extend(create::listen_environment());
    options.preserve_fds = exec.ends.preserve_fds();
    options.ignore_paused = exec.ignore_paused;
    options.cgroups = std::mem::take(&mut exec.cgroups);
    options.stdio = exec.ends.stdio()?;
    options.pid_file = exec.ends.pid_file.take();
    let terminal = options.process.terminal.unwrap_or(false);
    let relay = match (exec.detach, &exec.ends.console_socket) {
        (false, None) if terminal => {
            let (relay, stdio) = foreground::Relay::new()?;
            options.stdio = stdio;
            Some(relay)
        }
        _ => None,
    };
    let signals = (!exec.detach).then(foreground::Signals::catch).transpose()?;
    let mut running = container.exec(options)?;
    if let Err(failure) = exec.ends.send_pidfd(running.exit_fd()) {
        let _ = running.kill(libc::SIGKILL);
        running.wait()?;
        return Err(failure);
    }
    let Some(signals) = signals else { return Ok(0) };
    foreground::wait(relay.as_ref(), &signals, &running, |signal| {
        let _ = running.kill(signal);
    })?;
    Ok(running.wait()?.code())
}

impl Exec {
    fn read(mut arguments: Arguments) -> Result<Self, Failure> {
        let mut this = Self::default();
        while let Some(word) = arguments.next()? {
            let option = match word {
                Word::Name(name) if this.id.is_none() => {
                    this.id = Some(name);
                    continue;
                }
                // From the command on, all words are the command's.
                Word::Name(name) => {
                    this.command.push(name);
                    this.command.extend(arguments.rest()?);
                    continue;
                }
                Word::Option(option) => option,
            };
            match option.as_str() {
                "-t" | "--tty" => this.tty = arguments.flag()?,
                "-d" | "--detach" => this.detach = arguments.flag()?,
                "-p" | "--process" => this.process = Some(arguments.path()?),
                "--cwd" => this.cwd = Some(arguments.path()?),
                "-e" | "--env" => this.env.push(arguments.text()?),
                "-u" | "--user" => this.user = Some(arguments.text()?),
                "-g" | "--additional-gids" => this.gids.push(arguments.number()?),
                "-c" | "--cap" => this.caps.push(arguments.text()?),
                "--no-new-privs" => this.no_new_privs = arguments.flag()?,
                "--apparmor" => this.apparmor = Some(arguments.text()?),
                "--process-label" => this.label = Some(arguments.text()?),
                "--cgroup" => this.cgroups.push(arguments.text()?),
                "--ignore-paused" => this.ignore_paused = arguments.flag()?,
                option if this.ends.take(option, &mut arguments)? => {}
                option => return arguments::unknown(option),
            }
        }
        Ok(this)
    }

    /// The process: from the file, or the container's own with what the options change.
    fn process(&self, own: Option<Process>) -> Result<Process, Failure> {
        if let Some(path) = &self.process {
            return Ok(spec::load_process(path)?);
        }
        if self.command.is_empty() {
            return Err(Failure::new("exec needs a command after the id, or --process FILE"));
        }
        let mut process = own.unwrap_or_default();
        process.args.clone_from(&self.command);
        process.terminal = Some(self.tty);
        process.env.extend(self.env.iter().cloned());
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        if let Some(ids) = &self.user {
            let (uid, gid) = ids.split_once(':').map_or((ids.as_str(), None), |(uid, gid)| (uid, Some(gid)));
            let number = |text: &str| {
                text.parse::<u32>()
                    .map_err(|_| Failure::new(format!("--user {ids}: give numbers, UID or UID:GID")))
            };
            process.user.set_uid(number(uid)?);
            if let Some(gid) = gid {
                process.user.set_gid(number(gid)?);
            }
        }
        if !self.gids.is_empty() {
            let own = process.user.additional_gids().iter().flatten();
            let all = own.chain(&self.gids).copied().collect();
            process.user.set_additional_gids(Some(all));
        }
        if !self.caps.is_empty() {
            self.add_capabilities(&mut process)?;
        }
        if self.no_new_privs {
            process.no_new_privileges = Some(true);
        }
        process.apparmor_profile = self.apparmor.clone().or(process.apparmor_profile);
        process.selinux_label = self.label.clone().or(process.selinux_label);
        Ok(process)
    }

    fn add_capabilities(&self, process: &mut Process) -> Result<(), Failure> {
        let parse = |name: &String| {
            let short = name.strip_prefix("CAP_").unwrap_or(name);
            short.parse::<Capability>().map_err(|_| Failure::new(format!("--cap {name}: no such capability")))
        };
        let more = self.caps.iter().map(parse).collect::<Result<HashSet<_>, _>>()?;
        let sets = process.capabilities.get_or_insert_default();
        let join =
            |set: &Option<HashSet<Capability>>| Some(set.iter().flatten().chain(&more).copied().collect());
        let (bounding, effective) = (join(sets.bounding()), join(sets.effective()));
        let permitted = join(sets.permitted());
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        Ok(())
    }
}
