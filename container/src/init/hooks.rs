//! Hooks that run in the container's namespaces, as children of its first process.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::fault::{At, Fault, Step};
use crate::plan::HookPlan;
use crate::{process, sys};

/// Runs hooks in order; the first that fails ends the list. The errno says how: ETIMEDOUT, or EPROTO for an exit code
/// other than 0, or why it could not be run.
pub(super) fn run(hooks: &[HookPlan], input: &OwnedFd, step: Step) -> Result<(), Fault> {
    for (index, hook) in hooks.iter().enumerate() {
        one(hook, input).at_index(step, index)?;
    }
    Ok(())
}

fn one(hook: &HookPlan, input: &OwnedFd) -> sys::Result<()> {
    rustix::fs::seek(input, rustix::fs::SeekFrom::Start(0))?;
    let child = sys::clone_child(0, None, || {
        let ready = sys::install_fd(input.as_fd(), 0).and_then(|()| sys::close_on_exec_from(3));
        if ready.is_ok() {
            sys::execute(&hook.path, &hook.arguments, &hook.environment);
        }
        sys::exit(127)
    })?;
    loop {
        match poll(&mut [PollFd::new(&child.pidfd, PollFlags::IN)], hook.timeout.as_ref()) {
            Err(Errno::INTR) => {}
            Ok(0) => {
                sys::pidfd_signal(&child.pidfd, libc::SIGKILL)?;
                process::reap(&child.pidfd)?;
                return Err(Errno::TIMEDOUT);
            }
            Ok(_) => break,
            Err(error) => return Err(error),
        }
    }
    match process::reap(&child.pidfd)? {
        process::Exit::Code(0) => Ok(()),
        process::Exit::Code(127) => Err(Errno::NOENT),
        _ => Err(Errno::PROTO),
    }
}
