//! Process 1: a PID namespace with its own /proc.

#[allow(unused_imports)]
use lesson::{NEWNS, NEWPID, TASK, exec, fork, mount, unshare, wait};

fn main() -> std::io::Result<()> {
    // TODO 1: new namespaces. Which two?

    // TODO 2: who becomes process 1 of the new PID namespace? And what does it need to mount first?
    Err(exec(TASK, &[]))

    // TODO 3: wait for the task, and exit with its exit code.
}
