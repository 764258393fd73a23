//! The zero page: what Linux wants to know at its start.

#[allow(unused_imports)]
use lesson::vm::{build, write};

#[allow(dead_code)]
const ZERO_PAGE: u64 = 0x7000;

fn main() -> std::io::Result<()> {
    build(|given, _memory, _registers| {
        println!("{} bytes of RAM, \"{}\"", given.number("ram"), given.text("cmdline"));

        // TODO: the page, its fields, and rsi.
        Ok(())
    })
}
