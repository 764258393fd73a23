//! Process 1 has duties: reap zombies, pass on signals.

use lesson::{SIGCHLD, TASK, allow_signals, exec, fork, hold_signals, kill, next_signal, reap_one};

fn main() -> std::io::Result<()> {
    // Before the fork: a task that ends at once must not be missed.
    hold_signals()?;
    let Some(task) = fork()? else {
        allow_signals()?;
        return Err(exec(TASK, &["orphans", "3"]));
    };
    loop {
        match next_signal()? {
            // Several children may have ended for one signal.
            SIGCHLD => {
                while let Some((pid, code)) = reap_one()? {
                    if pid == task {
                        std::process::exit(code.into());
                    }
                }
            }
            signal => kill(task, signal)?,
        }
    }
}
