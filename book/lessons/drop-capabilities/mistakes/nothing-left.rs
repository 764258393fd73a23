use lesson::{CAP_LAST, TASK, drop_bounding, exec, no_new_privileges};

fn main() -> std::io::Result<()> {
    for capability in 0..=CAP_LAST {
        drop_bounding(capability)?;
    }
    no_new_privileges()?;
    Err(exec(TASK, &[]))
}
