//! Page tables: into 64-bit mode without a boot loader.

use lesson::vm::{build, write};

const PML4: u64 = 0x9000;
const POINTERS: u64 = 0xa000;
const DIRECTORY: u64 = 0xb000;

const PRESENT_WRITABLE: u64 = 0b11;
const HUGE: u64 = 1 << 7;

fn main() -> std::io::Result<()> {
    build(|given, memory, registers| {
        registers.rip = given.number("entry");
        registers.rsp = given.number("stack");

        write(memory, PML4, &(POINTERS | PRESENT_WRITABLE).to_le_bytes())?;
        write(memory, POINTERS, &(DIRECTORY | PRESENT_WRITABLE).to_le_bytes())?;
        for page in 0..512 {
            let entry = page << 21 | PRESENT_WRITABLE | HUGE;
            write(memory, DIRECTORY + page * 8, &entry.to_le_bytes())?;
        }

        registers.cr3 = PML4;
        registers.efer |= 1 << 8 | 1 << 10; // LME, LMA
        registers.cr0 |= 1 | 1 << 31; // PE, PG
        Ok(())
    })
}
