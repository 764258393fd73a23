use lesson::{MS_BIND, NEWNS, TASK, chroot, exec, mount, unshare};

fn main() -> std::io::Result<()> {
    unshare(NEWNS)?;
    mount("/new-root", "/new-root", "", MS_BIND, "")?;
    chroot("/new-root")?;
    std::env::set_current_dir("/")?;
    Err(exec(TASK, &[]))
}
