//! A control group of the student's making, read on the host's side.

use std::fs;
use std::path::Path;

use super::super::Error;
use super::super::compile::Tools;
use super::super::error::Context as _;
use super::super::look::Look;
use super::super::sandbox::{Live, Room};
use super::{Cause, Seen, secret, with_task};

/// Runs the program, looks at the task's group, and has the task try to break out of it.
pub(in crate::course) fn grade(tools: &Tools, program: &Path) -> Result<Seen, Error> {
    if !Room::can_have_cgroups() {
        let mut seen = Seen::default();
        seen.fail("task-runs", Cause::new("needs-root"));
        return Ok(seen);
    }
    let wanted = secret(4..12);
    with_task(
        tools,
        program,
        |room| {
            room.with_cgroups();
            let path = room.root().join("lesson/limit");
            fs::write(&path, wanted.to_string()).at("write", &path)
        },
        |seen, look, live| judge(seen, look, live, wanted),
    )
}

fn judge(seen: &mut Seen, look: &Look, live: &mut Live, wanted: u64) {
    let group = look.group("pids").unwrap_or_default();
    let shown = group.display().to_string();
    let first = group.file_name().is_none_or(|name| name.to_string_lossy() == live.id());
    seen.judge("group", first.then(|| Cause::new("not-moved").fact("group", &shown)));
    let limit = fs::read_to_string(group.join("pids.max")).unwrap_or_default();
    let limit = limit.trim();
    let wrong = limit != wanted.to_string();
    let cause = || Cause::new("no-limit").fact("group", &shown).fact("limit", limit).fact("wanted", wanted);
    seen.judge("limit", wrong.then(cause));
    live.say("fork 20\n");
    live.listen();
    let events = fs::read_to_string(group.join("pids.events")).unwrap_or_default();
    let refused = events.lines().any(|line| line.strip_prefix("max ").is_some_and(|count| count != "0"));
    seen.judge("held", (!refused).then(|| Cause::new("not-held")));
}
