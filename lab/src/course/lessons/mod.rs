//! The lessons' graders: each runs the student's program and turns what is seen from outside into verdicts.
//!
//! A verdict names its cause by a word; the lesson's texts say it in the student's language.

mod cgroup_limit;
mod drop_capabilities;
mod exit_code;
mod first_exit;
mod long_mode;
mod pid_namespace;
mod pivot_root;
mod predict_then_measure;
mod reap_zombies;
mod serial_port;
mod virtqueue_walk;
mod zero_page;

pub(super) use cgroup_limit::grade as cgroup_limit;
pub(super) use drop_capabilities::grade as drop_capabilities;
pub(super) use exit_code::grade as exit_code;
pub(super) use first_exit::grade as first_exit;
pub(super) use long_mode::grade as long_mode;
pub(super) use pid_namespace::grade as pid_namespace;
pub(super) use pivot_root::grade as pivot_root;
pub(super) use predict_then_measure::grade as predict_then_measure;
pub(super) use reap_zombies::grade as reap_zombies;
pub(super) use serial_port::grade as serial_port;
pub(super) use virtqueue_walk::grade as virtqueue_walk;
pub(super) use zero_page::grade as zero_page;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, make_rng};

use super::Error;
use super::compile::Tools;
use super::error::Context as _;
use super::look::Look;
use super::sandbox::{Ended, Limit, Live, Room};

/// Runs a compiled program and looks at it.
pub type Grade = fn(&Tools, &Path) -> Result<Seen, Error>;

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// By the checks' names. A check without a verdict was not come to.
    pub verdicts: BTreeMap<&'static str, Verdict>,
    /// What the program printed.
    pub output: String,
}

/// Whether a check passed.
#[derive(Debug)]
pub enum Verdict {
    /// It did.
    Pass,
    /// It did not.
    Fail(Cause),
}

/// What is wrong.
#[derive(Debug)]
pub struct Cause {
    /// By the name that the texts have it under.
    pub name: &'static str,
    /// What was seen, to be filled in.
    pub facts: Vec<(&'static str, String)>,
}

impl Cause {
    /// Without any facts.
    pub fn new(name: &'static str) -> Self {
        Self { name, facts: Vec::new() }
    }

    /// With one more fact.
    #[must_use]
    pub fn fact(mut self, name: &'static str, value: impl Display) -> Self {
        self.facts.push((name, value.to_string()));
        self
    }

    /// With a number in hexadecimal, as addresses are read.
    #[must_use]
    pub fn address(self, name: &'static str, value: u64) -> Self {
        self.fact(name, format!("{value:#x}"))
    }
}

impl Seen {
    /// A check passed.
    pub fn pass(&mut self, check: &'static str) {
        self.verdicts.insert(check, Verdict::Pass);
    }

    /// A check failed.
    pub fn fail(&mut self, check: &'static str, cause: Cause) {
        self.verdicts.insert(check, Verdict::Fail(cause));
    }

    /// A check passed, or its cause.
    pub fn judge(&mut self, check: &'static str, cause: Option<Cause>) {
        match cause {
            None => self.pass(check),
            Some(cause) => self.fail(check, cause),
        }
    }
}

/// A number that nobody can know beforehand.
pub(super) fn secret(range: std::ops::Range<u64>) -> u64 {
    make_rng::<ChaCha8Rng>().random_range(range)
}

/// A room with the student's program in it.
pub(super) fn room(program: &Path) -> Result<Room, Error> {
    let room = Room::new()?;
    put(program, &room.root().join("program"))?;
    Ok(room)
}

/// A room with the task, too.
pub(super) fn room_with_task(tools: &Tools, program: &Path) -> Result<Room, Error> {
    let room = room(program)?;
    put(&tools.task, &room.root().join("bin/task"))?;
    Ok(room)
}

fn put(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::copy(from, to).at("copy", from).map(drop)
}

/// Runs a program that is to become, or to start, the task; looks at the task while it waits, then lets it end.
pub(super) fn with_task(
    tools: &Tools,
    program: &Path,
    prepare: impl FnOnce(&mut Room) -> Result<(), Error>,
    judge: impl FnOnce(&mut Seen, &Look, &mut Live),
) -> Result<Seen, Error> {
    let mut room = room_with_task(tools, program)?;
    let task = room.root().join("bin/task");
    prepare(&mut room)?;
    room.hold(&tools.task)?;
    let mut live = room.start()?;
    let mut seen = Seen::default();
    let code = secret(1..100);
    let look = Look::wait_for(&live, &task);
    if let Some(look) = &look {
        seen.pass("task-runs");
        judge(&mut seen, look, &mut live);
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

/// What a program that serves a machine answers to an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Go on; this was read.
    Value(u8),
    /// Go on.
    Go,
    /// The machine ends with this code.
    Stop(u8),
}

/// Tells an exit, and hears the answer; none where there is none that makes sense.
pub(super) fn tell(live: &mut Live, exit: &str) -> Option<Answer> {
    live.say(&format!("{exit}\n"));
    let answer = live.listen()?;
    match answer.split_once(' ') {
        None => (answer == "go").then_some(Answer::Go),
        Some(("value", byte)) => byte.parse().ok().map(Answer::Value),
        Some(("stop", code)) => code.parse().ok().map(Answer::Stop),
        Some(_) => None,
    }
}

/// The limit that a program ran into, or else that it ended without doing what was to be seen.
pub(super) fn unseen(ended: &Ended, otherwise: &'static str) -> Cause {
    let name = match ended.limit {
        Some(Limit::Time) => "endless",
        Some(Limit::Processes) => "forks",
        Some(Limit::Memory) => "memory",
        None => otherwise,
    };
    let output = if ended.output.is_empty() { "–" } else { &ended.output };
    Cause::new(name).fact("code", ended.code).fact("output", output)
}

/// The program's exit code is to be the task's.
pub(super) fn judge_code(seen: &mut Seen, ended: &Ended, code: u64) {
    let cause = match ended.limit {
        Some(_) => Some(unseen(ended, "endless")),
        None if u64::from(ended.code) != code => {
            Some(Cause::new("code-lost").fact("expected", code).fact("code", ended.code))
        }
        None => None,
    };
    seen.judge("exit-code", cause);
}
