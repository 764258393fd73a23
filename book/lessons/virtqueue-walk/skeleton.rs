//! Virtqueues: walk what the driver offers.

#[allow(unused_imports)]
use lesson::vm::{build, read, write};

fn main() -> std::io::Result<()> {
    build(|given, memory, _| {
        let avail = given.number("avail");
        let last = given.number("last") as u16;
        let new = u16::from_le_bytes(read(memory, avail + 2)?);
        println!("chains from {last} to {new}");

        // TODO: for each: its head from the available ring, its descriptors, the answer, an entry in the used ring. At the end: the
        // used index.
        Ok(())
    })
}
