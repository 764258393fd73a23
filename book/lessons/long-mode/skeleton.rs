//! Page tables: into 64-bit mode without a boot loader.

#[allow(unused_imports)]
use lesson::vm::{build, write};

fn main() -> std::io::Result<()> {
    build(|given, _memory, registers| {
        registers.rip = given.number("entry");
        registers.rsp = given.number("stack");

        // TODO 1: a PML4, a page-directory-pointer table, a page directory: one page each. Use write(memory, address, bytes).

        // TODO 2: cr3, cr4, efer, cr0.
        Ok(())
    })
}
