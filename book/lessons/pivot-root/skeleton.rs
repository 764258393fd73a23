//! Another root, and nothing left of the old one.

#[allow(unused_imports)]
use lesson::{MS_BIND, MS_PRIVATE, MS_REC, NEWNS, TASK, exec, mount, pivot_root, unmount, unshare};

fn main() -> std::io::Result<()> {
    // TODO 1: a mount namespace of our own, and no propagation to anybody's else.

    // TODO 2: make /new-root a mount point, then the root.

    // TODO 3: take the old root away.

    Err(exec(TASK, &[]))
}
