use lesson::{TASK, exec, fork, reap_one};

fn main() -> std::io::Result<()> {
    let Some(task) = fork()? else {
        return Err(exec(TASK, &["orphans", "3"]));
    };
    loop {
        match reap_one()? {
            Some((pid, code)) if pid == task => std::process::exit(code.into()),
            _ => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    }
}
