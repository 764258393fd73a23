use lesson::{MS_BIND, NEWNS, TASK, exec, mount, pivot_root, unshare};

fn main() -> std::io::Result<()> {
    unshare(NEWNS)?;
    mount("/new-root", "/new-root", "", MS_BIND, "")?;
    pivot_root("/new-root", "/new-root/old")?;
    std::env::set_current_dir("/")?;
    Err(exec(TASK, &[]))
}
