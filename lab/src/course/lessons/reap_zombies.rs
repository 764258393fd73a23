//! The student's program is process 1: does it reap what it did not make, and does it pass on what it is told?

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::Error;
use super::super::compile::Tools;
use super::super::look::{Look, family};
use super::{Cause, Seen, judge_code, room_with_task, secret, unseen};

/// The orphans live 60 ms; after this they have ended, and whoever reaps has reaped.
const NAP: Duration = Duration::from_millis(300);

/// A signal that is passed on arrives sooner.
const DELIVERY: Duration = Duration::from_millis(300);

/// Runs the program and looks at its children.
pub(in crate::course) fn grade(tools: &Tools, program: &Path) -> Result<Seen, Error> {
    let room = room_with_task(tools, program)?;
    let task = room.root().join("bin/task");
    let mut live = room.start()?;
    let mut seen = Seen::default();
    let mut code = secret(1..100);
    let look = Look::wait_for(&live, &task);
    if let Some(look) = &look {
        seen.pass("task-runs");
        live.pause(NAP);
        let zombies = family(live.pid()).into_iter().filter(|&pid| is_zombie(pid)).count();
        seen.judge("no-zombies", (zombies > 0).then(|| Cause::new("zombies").fact("count", zombies)));
        let blocked = look.status().map_or(0, |status| status.sigblk);
        let term = 1u64 << (nix::libc::SIGTERM - 1);
        let _ = kill(Pid::from_raw(live.pid()), Signal::SIGTERM);
        live.pause(DELIVERY);
        let passed = !look.path("exe").exists();
        let cause = || match blocked & term {
            0 => Cause::new("term-lost"),
            _ => Cause::new("mask-inherited").fact("pid", look.pid).address("mask", blocked),
        };
        seen.judge("term-passed", (!passed).then(cause));
        if passed {
            code = 128 + nix::libc::SIGTERM as u64;
        }
    }
    live.say(&format!("exit {code}\n"));
    let ended = live.finish()?;
    if look.is_none() {
        seen.fail("task-runs", unseen(&ended, "task-missing"));
    }
    judge_code(&mut seen, &ended, code);
    seen.output = ended.output;
    Ok(seen)
}

/// The state in `/proc/PID/stat` follows the name, which may hold anything but ends with the last parenthesis.
fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}
