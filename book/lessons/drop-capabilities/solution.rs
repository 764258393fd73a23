//! Root, but hardly: drop capabilities.

use lesson::{CAP_LAST, CAP_NET_BIND_SERVICE, TASK, drop_bounding, exec, no_new_privileges, set_capabilities};

fn main() -> std::io::Result<()> {
    // First, while this process may still do so.
    for capability in (0..=CAP_LAST).filter(|&capability| capability != CAP_NET_BIND_SERVICE) {
        drop_bounding(capability)?;
    }
    let only = 1 << CAP_NET_BIND_SERVICE;
    set_capabilities(only, only, 0)?;
    no_new_privileges()?;
    Err(exec(TASK, &[]))
}
