use lesson::{CAP_NET_BIND_SERVICE, TASK, exec, no_new_privileges, set_capabilities};

fn main() -> std::io::Result<()> {
    let only = 1 << CAP_NET_BIND_SERVICE;
    set_capabilities(only, only, 0)?;
    no_new_privileges()?;
    Err(exec(TASK, &[]))
}
