//! Process 1 has duties: reap zombies, pass on signals.

#[allow(unused_imports)]
use lesson::{SIGCHLD, TASK, allow_signals, exec, fork, hold_signals, kill, next_signal, reap_one, wait};

fn main() -> std::io::Result<()> {
    // TODO 1: from which moment on must no signal be lost?

    match fork()? {
        None => Err(exec(TASK, &["orphans", "3"])),
        // TODO 2: this waits for one child only, and for no signal.
        Some(task) => std::process::exit(wait(task)?.into()),
    }
}
