//! How much: a control group with a limit.

#[allow(unused_imports)]
use lesson::{TASK, cgroup, exec};

fn main() -> std::io::Result<()> {
    let limit = std::fs::read_to_string("/lesson/limit")?;
    println!("at most {limit} processes");

    // TODO 1: make a group. TODO 2: limit it. TODO 3: enter it.

    Err(exec(TASK, &[]))
}
