//! The least a workload can do, so that all of its time is the wall's.

use freestanding::Args;

use crate::output::say;

/// Says hello. Nothing comes before the write: the first byte that the host sees is this program's first system call.
pub fn run(_args: Args) -> u8 {
    say(&[b"hello, world\n"])
}
