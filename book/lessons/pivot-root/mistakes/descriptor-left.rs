use std::os::fd::AsRawFd;

use lesson::{MS_BIND, NEWNS, TASK, exec, mount, pivot_root, unmount, unshare};

unsafe extern "C" {
    fn dup(fd: i32) -> i32; // without O_CLOEXEC
}

fn main() -> std::io::Result<()> {
    let root = std::fs::File::open("/")?;
    // SAFETY: dup(2) takes any number and touches no memory of ours.
    unsafe { dup(root.as_raw_fd()) };
    unshare(NEWNS)?;
    mount("/new-root", "/new-root", "", MS_BIND, "")?;
    pivot_root("/new-root", "/new-root/old")?;
    std::env::set_current_dir("/")?;
    unmount("/old")?;
    Err(exec(TASK, &[]))
}
