//! How much: a control group with a limit.

use std::fs;

use lesson::{TASK, cgroup, exec};

fn main() -> std::io::Result<()> {
    let _limit = fs::read_to_string("/lesson/limit")?;
    let group = cgroup::folder()?.join("box");
    fs::create_dir(&group)?;
    // "0" is whoever writes it. The program that it becomes stays in the group.
    fs::write(group.join("cgroup.procs"), "0")?;
    Err(exec(TASK, &[]))
}
