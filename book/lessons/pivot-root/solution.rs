//! Another root, and nothing left of the old one.

use lesson::{MS_BIND, MS_PRIVATE, MS_REC, NEWNS, TASK, exec, mount, pivot_root, unmount, unshare};

fn main() -> std::io::Result<()> {
    unshare(NEWNS)?;
    mount("", "/", "", MS_REC | MS_PRIVATE, "")?;
    // pivot_root wants a mount point.
    mount("/new-root", "/new-root", "", MS_BIND, "")?;
    pivot_root("/new-root", "/new-root/old")?;
    std::env::set_current_dir("/")?;
    unmount("/old")?;
    Err(exec(TASK, &[]))
}
