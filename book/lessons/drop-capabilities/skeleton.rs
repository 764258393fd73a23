//! Root, but hardly: drop capabilities.

#[allow(unused_imports)]
use lesson::{CAP_LAST, CAP_NET_BIND_SERVICE, TASK, drop_bounding, exec, no_new_privileges, set_capabilities};

fn main() -> std::io::Result<()> {
    // TODO 1: what root could get back.

    // TODO 2: what this process has.

    // TODO 3: what set-user-id programs could add.

    Err(exec(TASK, &[]))
}
