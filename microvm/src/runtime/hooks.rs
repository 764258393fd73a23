//! Hooks: programs of the engine that are called at moments of a machine's life (config.md, "POSIX-platform Hooks").
//!
//! All run on the host: the guest has a root file system and a kernel of its own, and engines' programs are for this one.
//! Those that belong into the container's namespaces (`createContainer`, `startContainer`) run in the monitor's network
//! namespace, which is what a machine has of them.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;

use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;

use super::state::{State, Status};
use crate::Error;
use crate::spec::Spec;

/// The hooks that run while the machine is made, in their order.
#[allow(deprecated)] // the specification's word for prestart, which dockerd still sets networks up with
pub(crate) fn before_boot(spec: &Spec, state: &State) -> Result<(), Error> {
    let Some(hooks) = &spec.hooks else { return Ok(()) };
    run("prestart", hooks.prestart().as_deref().unwrap_or_default(), state, Status::Creating)?;
    run("createRuntime", hooks.create_runtime().as_deref().unwrap_or_default(), state, Status::Creating)?;
    let inside = hooks.create_container().as_deref().unwrap_or_default();
    run_inside("createContainer", inside, state, Status::Creating)
}

/// Hooks run in their order; the first that fails ends the list.
pub(crate) fn run(kind: &'static str, hooks: &[Hook], state: &State, status: Status) -> Result<(), Error> {
    let input = json!({
        "ociVersion": state.oci_version, "id": state.id, "status": status.to_string(), "pid": state.pid,
        "bundle": state.bundle, "annotations": state.annotations,
    });
    for (number, hook) in hooks.iter().enumerate() {
        let path = hook.path().to_owned();
        one(hook, input.to_string().as_bytes()).map_err(|reason| Error::Hook {
            kind,
            number,
            path,
            reason,
        })?;
    }
    Ok(())
}

/// As [`run`], in the network namespace of the monitor.
pub(crate) fn run_inside(
    kind: &'static str,
    hooks: &[Hook],
    state: &State,
    status: Status,
) -> Result<(), Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{}/ns/net", state.pid);
    let namespace = File::open(&path).map_err(Error::file("open", path))?;
    // On a thread of its own, which takes the namespace along when it ends.
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(Error::system("enter the network namespace of the monitor (setns)"))?;
            run(kind, hooks, state, status)
        });
        inside
            .join()
            .unwrap_or_else(|_| Err(Error::Told { message: format!("hooks.{kind}: panicked"), code: 125 }))
    })
}

fn one(hook: &Hook, input: &[u8]) -> Result<(), String> {
    let mut command = Command::new(hook.path());
    let arguments = hook.args().clone().unwrap_or_default();
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(name).args(rest);
    }
    let environment = hook.env().iter().flatten().filter_map(|entry| entry.split_once('='));
    command.env_clear().envs(environment).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("it cannot be run: {error}"))?;
    // A hook that does not read its input is no error.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    let in_time = hook.timeout().is_none_or(|seconds| exits_within(child.id(), seconds));
    if !in_time {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match (in_time, status.success()) {
        (true, true) => Ok(()),
        (true, false) => Err(format!("it failed: {status}")),
        (false, _) => Err(format!("it did not end within its timeout of {} s", hook.timeout().unwrap_or(0))),
    }
}

fn exits_within(pid: u32, seconds: i64) -> bool {
    let pidfd = Pid::from_raw(pid as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Some(pidfd) = pidfd else { return true };
    let timeout = Timespec { tv_sec: seconds.max(0), tv_nsec: 0 };
    !matches!(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::HookBuilder;
    use std::path::Path;

    fn hook(script: &str, timeout: i64) -> Hook {
        let args = ["sh", "-c", script].map(String::from).to_vec();
        HookBuilder::default().path("/bin/sh").args(args).timeout(timeout).build().unwrap()
    }

    #[test]
    fn the_first_that_fails_or_takes_too_long_is_named() {
        let state = State::new(&Spec::default(), "x", Path::new("/"));
        let said = |hooks: &[Hook]| run("poststart", hooks, &state, Status::Running).unwrap_err().to_string();
        let text = said(&[hook("grep -q '\"id\":\"x\"'", 10), hook("exit 3", 10)]);
        assert!(text.contains("hooks.poststart[1] (/bin/sh)") && text.contains('3'), "{text}");
        assert!(said(&[hook("exec sleep 100", 0)]).contains("timeout of 0 s"));
    }
}
