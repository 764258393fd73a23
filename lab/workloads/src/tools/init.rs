//! init: a first process for a workload that does not want to be one (`--init`).
//!
//! Process 1 of a PID namespace has two duties that most programs do not know of: it takes the ends of all orphans, which
//! stay zombies otherwise, and signals without a handler are dropped for it (pid_namespaces(7)). So this program runs the
//! workload as its child, passes on what it is sent, and takes every end until the child's.

use freestanding::sys::process::{self, Fork, Pid, Which};
use freestanding::sys::signal::{self, Set, Signal};
use freestanding::{Args, Errno};

use super::identity::execute;
use crate::output::{complain, failed};

/// Runs a command as a child, and ends as it ends.
pub fn init(args: Args) -> u8 {
    let skipped = 1 + usize::from(args.get(1) == Some(c"--"));
    let command = args.skip(skipped);
    if command.is_empty() {
        return complain("init", b"COMMAND", "which?", 2);
    }
    let all = (1..=64).filter_map(Signal::new).fold(Set::EMPTY, Set::with);
    let before = signal::set_blocked(all).unwrap_or(Set::EMPTY);
    match process::fork(0) {
        Ok(Fork::Child) => {
            let _ = signal::set_blocked(before);
            execute("init", command)
        }
        Ok(Fork::Parent(child)) => attend(child, all),
        Err(errno) => failed("init", b"fork", errno),
    }
}

/// Passes signals on and takes ends, until the child's: its exit code.
fn attend(child: Pid, all: Set) -> u8 {
    loop {
        match signal::wait_for(all, None) {
            Ok(Some(Signal::CHLD)) => {
                // Several ends may be told by one signal.
                while let Ok(Some((pid, ended))) = process::wait(Which::Any, false) {
                    if pid.0 == child.0 {
                        return ended.code();
                    }
                }
            }
            Ok(Some(signal)) => drop(process::kill(child, signal)),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return failed("init", b"wait", errno),
        }
    }
}
