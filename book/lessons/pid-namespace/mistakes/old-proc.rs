use lesson::{NEWNS, NEWPID, TASK, exec, fork, unshare, wait};

fn main() -> std::io::Result<()> {
    unshare(NEWPID | NEWNS)?;
    match fork()? {
        None => Err(exec(TASK, &[])),
        Some(child) => std::process::exit(wait(child)?.into()),
    }
}
