//! Process 1: a PID namespace with its own /proc.

use lesson::{NEWNS, NEWPID, TASK, exec, fork, mount, unshare, wait};

fn main() -> std::io::Result<()> {
    unshare(NEWPID | NEWNS)?;
    match fork()? {
        // The first child is process 1. Mounted from here, /proc shows the new namespace's processes.
        None => {
            mount("proc", "/proc", "proc", 0, "")?;
            Err(exec(TASK, &[]))
        }
        Some(child) => std::process::exit(wait(child)?.into()),
    }
}
