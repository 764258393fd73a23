//! Hooks: programs of the engine that are called at moments of a container's life (config.md, "POSIX-platform Hooks").
//!
//! `prestart` and `createRuntime` run here, in the runtime's namespaces, while the first process waits; engines set
//! networks up in them. `createContainer` and `startContainer` run in the container's namespaces: the first process
//! makes them itself (`init::hooks`), from what is made ready here. `poststart` and `poststop` run here again.
//! Each gets the container's state on its standard input.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use oci_spec::runtime::{Hook, Hooks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::json;

use crate::error::{Context, Error, Result};
use crate::plan::HookPlan;
use crate::state::{State, Status};

/// Hooks run by the runtime, in order; the first that fails ends the list.
pub(crate) fn run(kind: &str, hooks: Option<&Vec<Hook>>, state: &State, status: Status) -> Result<()> {
    for (index, hook) in hooks.into_iter().flatten().enumerate() {
        let field = format!("hooks.{kind}[{index}] ({})", hook.path().display());
        one(hook, &input(state, status), &state.bundle).map_err(|reason| Error::config(field, reason))?;
    }
    Ok(())
}

/// The state as hooks read it.
fn input(state: &State, status: Status) -> Vec<u8> {
    self::state(state, status).to_string().into_bytes()
}

/// The container's state (runtime.md, "State").
pub(crate) fn state(state: &State, status: Status) -> serde_json::Value {
    json!({
        "ociVersion": state.oci_version, "id": state.id, "status": status.to_string(), "pid": state.pid,
        "bundle": state.bundle, "annotations": state.annotations,
    })
}

/// What the specification says of every hook, whichever of them are ever run.
pub(crate) fn check(hooks: &Hooks) -> Result<()> {
    let kinds = [
        ("prestart", prestart(hooks)),
        ("createRuntime", hooks.create_runtime().as_ref()),
        ("createContainer", hooks.create_container().as_ref()),
        ("startContainer", hooks.start_container().as_ref()),
        ("poststart", hooks.poststart().as_ref()),
        ("poststop", hooks.poststop().as_ref()),
    ];
    for (kind, hooks) in kinds {
        for (index, hook) in hooks.into_iter().flatten().enumerate() {
            let wrong = |field, reason| Err(Error::config(format!("hooks.{kind}[{index}].{field}"), reason));
            if !hook.path().is_absolute() {
                return wrong("path", "must be an absolute path");
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return wrong("timeout", "must be greater than 0; leave it out for none");
            }
        }
    }
    Ok(())
}

/// Runs one hook, in the bundle's directory as other runtimes do.
fn one(hook: &Hook, input: &[u8], bundle: &Path) -> std::result::Result<(), String> {
    let mut command = Command::new(hook.path());
    let arguments = hook.args().clone().unwrap_or_default();
    if let Some((name, rest)) = arguments.split_first() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
        command.args(rest);
    }
    let environment = hook.env().iter().flatten().filter_map(|entry| entry.split_once('='));
    command.env_clear().envs(environment).stdin(Stdio::piped()).stdout(Stdio::null());
    if bundle.is_dir() {
        command.current_dir(bundle);
    }
    let mut child = command.spawn().map_err(|error| format!("cannot be run: {error}"))?;
    // A hook that does not read its input is no error.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    let in_time = hook.timeout().is_none_or(|seconds| exits_within(child.id(), seconds));
    if !in_time {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match (in_time, status.success()) {
        (true, true) => Ok(()),
        (true, false) => Err(format!("failed: {status}")),
        (false, _) => Err(format!("did not end within its timeout of {} s", hook.timeout().unwrap_or(0))),
    }
}

fn exits_within(pid: u32, seconds: i64) -> bool {
    let pidfd = Pid::from_raw(pid as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Some(pidfd) = pidfd else { return true };
    let timeout = Timespec { tv_sec: seconds.max(0), tv_nsec: 0 };
    !matches!(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)), Ok(0))
}

/// The hooks that the first process runs, with the files that their standard input will be.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) create: Vec<HookPlan>,
    pub(crate) start: Vec<HookPlan>,
    /// The state, once for each kind; filled when the process's id is known.
    pub(crate) create_input: OwnedFd,
    pub(crate) start_input: OwnedFd,
}

impl Inside {
    /// None where there is nothing to run.
    pub(crate) fn new(hooks: &Hooks) -> Result<Option<Self>> {
        let plan = |kind: &str, hooks: &Option<Vec<Hook>>| {
            let hooks = hooks.iter().flatten().enumerate();
            hooks
                .map(|(i, hook)| HookPlan::new(&format!("hooks.{kind}[{i}]"), hook))
                .collect::<Result<Vec<_>>>()
        };
        let create = plan("createContainer", hooks.create_container())?;
        let start = plan("startContainer", hooks.start_container())?;
        if create.is_empty() && start.is_empty() {
            return Ok(None);
        }
        let memory = || memfd_create(c"state", MemfdFlags::CLOEXEC).context("make", "a file in memory");
        Ok(Some(Self { create, start, create_input: memory()?, start_input: memory()? }))
    }

    /// Writes the state for the hooks to read. The files are shared with the process.
    pub(crate) fn fill(&self, state: &State) -> Result<()> {
        for (file, status) in [(&self.create_input, Status::Creating), (&self.start_input, Status::Created)] {
            let write = |text: &[u8]| -> io::Result<()> {
                let mut file = File::from(file.try_clone()?);
                file.write_all(text)?;
                file.rewind()
            };
            write(&input(state, status)).context("write", "the state for hooks")?;
        }
        Ok(())
    }
}

/// Whether anything must run while the first process waits.
pub(crate) fn before_pivot(hooks: &Hooks) -> bool {
    let others = [hooks.create_runtime(), hooks.create_container(), hooks.start_container()];
    let mut all = others.into_iter().map(Option::as_ref).chain([prestart(hooks)]);
    all.any(|hooks| hooks.is_some_and(|hooks| !hooks.is_empty()))
}

/// Deprecated by the specification, and still what dockerd sets networks up with.
#[allow(deprecated)]
pub(crate) fn prestart(hooks: &Hooks) -> Option<&Vec<Hook>> {
    hooks.prestart().as_ref()
}
