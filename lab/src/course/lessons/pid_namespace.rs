//! A process that is the first of its PID namespace, with a `/proc` of its own.

use std::path::Path;

use super::super::Error;
use super::super::compile::Tools;
use super::super::look::Look;
use super::super::sandbox::Before;
use super::{Cause, Seen, with_task};

/// Runs the program and looks at the task that it runs.
pub(in crate::course) fn grade(tools: &Tools, program: &Path) -> Result<Seen, Error> {
    with_task(
        tools,
        program,
        |_| Ok(()),
        |seen, look, live| {
            judge(seen, look, &live.before, &Look::at(live.pid()));
        },
    )
}

fn judge(seen: &mut Seen, look: &Look, host: &Before, program: &Look) {
    let own = look.namespace("pid") != host.pid;
    seen.judge(
        "pid-namespace",
        (!own).then(|| {
            // Its *children* would be in a new one: so far there is none, or it is not this process.
            let unshared = [look, program].iter().any(|look| look.namespace("pid_for_children") != host.pid);
            let name = if unshared { "not-forked" } else { "host-pid-namespace" };
            Cause::new(name).fact("pid", look.inner_pid().unwrap_or_default()).fact("ns", number(host.pid))
        }),
    );
    let inner = look.inner_pid().unwrap_or_default();
    seen.judge("first-process", (inner != 1).then(|| Cause::new("not-first").fact("pid", inner)));
    let mounts = look.namespace("mnt");
    let shared = mounts == host.mount;
    seen.judge("mount-namespace", shared.then(|| Cause::new("mounts-shared").fact("ns", number(mounts))));
    // Whose processes does its /proc show? In its own, process 1 is itself.
    let shown = std::fs::metadata(look.path("root/proc/1/ns/pid")).ok();
    let shown = shown.map(|file| std::os::unix::fs::MetadataExt::ino(&file));
    let cause = match shown {
        None => Some(Cause::new("no-proc")),
        Some(_) if shown != look.namespace("pid") => Some(Cause::new("old-proc").fact("ns", number(shown))),
        Some(_) => None,
    };
    seen.judge("own-proc", cause);
}

fn number(namespace: Option<u64>) -> String {
    namespace.map_or_else(|| "?".to_owned(), |number| number.to_string())
}
