//! Capabilities put down for good, read from `/proc/PID/status`.

use std::path::Path;

use procfs::process::Status;

use super::super::Error;
use super::super::compile::Tools;
use super::super::look::Look;
use super::{Cause, Seen, with_task};

/// CAP_NET_BIND_SERVICE, as a mask.
const ONLY: u64 = 1 << 10;

/// Runs the program and looks at the rights of the task that it becomes.
pub(in crate::course) fn grade(tools: &Tools, program: &Path) -> Result<Seen, Error> {
    with_task(
        tools,
        program,
        |_| Ok(()),
        |seen, look, _| {
            if let Some(status) = look.status() {
                judge(seen, look, &status);
            }
        },
    )
}

fn judge(seen: &mut Seen, look: &Look, status: &Status) {
    let bounding = status.capbnd.unwrap_or_default();
    let cause = |name| {
        Cause::new(name)
            .fact("count", status.capeff.count_ones())
            .address("effective", status.capeff)
            .address("permitted", status.capprm)
            .address("bounding", bounding)
    };
    let wrong = match bounding {
        ONLY => None,
        more if more & ONLY != 0 => Some(cause("regained")),
        _ => Some(cause("nothing-left")),
    };
    seen.judge("bounding", wrong);
    let right = (status.capprm, status.capeff) == (ONLY, ONLY);
    seen.judge("effective", (!right).then(|| cause("sets-differ")));
    let open = status.nonewprivs != Some(1);
    seen.judge("no-new-privileges", open.then(|| Cause::new("privileges-open").fact("pid", look.pid)));
}
