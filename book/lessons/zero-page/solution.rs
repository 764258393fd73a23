//! The zero page: what Linux wants to know at its start.

use lesson::vm::{build, write};

const ZERO_PAGE: u64 = 0x7000;
const COMMAND_LINE: u64 = 0x20000;
const LOW_RAM_END: u64 = 0x9fc00;
const HIGH_RAM: u64 = 0x100000;
const RAM: u32 = 1;

fn main() -> std::io::Result<()> {
    build(|given, memory, registers| {
        let mut page = [0; 4096];
        let mut set = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);

        set(0x1fe, &0xaa55u16.to_le_bytes());
        set(0x202, b"HdrS");
        set(0x210, &[0xff]);

        let map = [(0, LOW_RAM_END), (HIGH_RAM, given.number("ram") - HIGH_RAM)];
        set(0x1e8, &[map.len() as u8]);
        for (index, (start, size)) in map.into_iter().enumerate() {
            let entry = 0x2d0 + index * 20;
            set(entry, &start.to_le_bytes());
            set(entry + 8, &size.to_le_bytes());
            set(entry + 16, &RAM.to_le_bytes());
        }

        let mut line = given.text("cmdline").into_bytes();
        line.push(0);
        set(0x228, &(COMMAND_LINE as u32).to_le_bytes());
        set(0x218, &(given.number("initrd") as u32).to_le_bytes());
        set(0x21c, &(given.number("initrd_size") as u32).to_le_bytes());

        write(memory, ZERO_PAGE, &page)?;
        write(memory, COMMAND_LINE, &line)?;
        registers.rsi = ZERO_PAGE;
        Ok(())
    })
}
