//! Page tables and control registers for 64-bit mode. The student fills memory; the guest then runs under the grader.

use std::fs;
use std::path::Path;

use super::super::Error;
use super::super::compile::Tools;
use super::super::error::Context as _;
use super::super::machine::{Exit, Machine, Registers, SIZE};
use super::{Cause, Seen, room, secret, unseen};

const CR0_PE: u64 = 1;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const PRESENT: u64 = 1;
const HUGE: u64 = 1 << 7;
/// Bits 51..12: where the next table is (SDM vol. 3A, table 4-14 on).
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The port that the guest reports on.
const PORT: u16 = 0x80;

/// Runs the program, then the guest on what it has built.
pub(in crate::course) fn grade(_: &Tools, program: &Path) -> Result<Seen, Error> {
    let room = room(program)?;
    let file = room.root().join("lesson/memory");
    fs::write(&file, vec![0; SIZE as usize]).at("write", &file)?;
    // In the second MiB, away from where tables usually are.
    let entry = 0x10_0000 + secret(0..0x80) * 0x1000;
    let mut live = room.start()?;
    live.say(&format!("entry={entry}\nstack={}\n\n", entry + 0x1000));
    let answer = live.listen();
    let file = live.root().join("lesson/memory");
    let registers = answer.as_deref().and_then(Registers::parse);
    let machine = registers.map(|_| Machine::new(Some(&file))).transpose()?;
    let ended = live.finish()?;
    let mut seen = Seen::default();
    seen.output.clone_from(&ended.output);
    match (registers, machine) {
        (Some(registers), Some(machine)) => {
            seen.pass("built");
            judge(&mut seen, registers, machine, entry)?;
        }
        _ => seen.fail("built", unseen(&ended, "no-registers")),
    }
    Ok(seen)
}

fn judge(seen: &mut Seen, registers: Registers, mut machine: Machine, entry: u64) -> Result<(), Error> {
    let switched = switches(registers);
    let walked = walk(&machine, registers.cr3, entry);
    seen.judge("switches", switched);
    seen.judge("tables", walked.err());
    let start = (registers.rip != entry)
        .then(|| Cause::new("wrong-entry").address("rip", registers.rip).address("entry", entry));
    seen.judge("entry", start);

    // A number that needs 64 bits, added up in a register that only 64-bit mode has.
    let (a, b) = (secret(1 << 40..1 << 60), secret(1 << 40..1 << 60));
    let mut code = vec![0x49, 0xb8]; // mov r8, a
    code.extend(a.to_le_bytes());
    code.extend([0x49, 0xb9]); // mov r9, b
    code.extend(b.to_le_bytes());
    code.extend([0x4d, 0x01, 0xc8]); // add r8, r9
    code.extend([0xe6, PORT as u8, 0xf4]); // out PORT, al; hlt
    machine.write(entry, &code)?;
    let exit = match machine.set_long_mode(registers) {
        Ok(()) => machine.run(|_| 0),
        Err(refused) => Exit::Other(refused),
    };
    let after = machine.registers();
    let right = exit == Exit::Out(PORT, 0) && after.r8 == a + b;
    let cause = || {
        let name = if exit == Exit::Shutdown { "triple-fault" } else { "guest-lost" };
        Cause::new(name).fact("exit", format!("{exit:?}")).address("rip", after.rip).address("r8", after.r8)
    };
    seen.judge("sixty-four", (!right).then(cause));
    Ok(())
}

/// The bits that switch 64-bit mode on (SDM vol. 3A, section 10.8.5).
fn switches(registers: Registers) -> Option<Cause> {
    let wanted = [
        (registers.cr0 & CR0_PE != 0, "no-protection"),
        (registers.cr4 & CR4_PAE != 0, "no-pae"),
        (registers.efer & EFER_LME != 0, "no-lme"),
        (registers.cr0 & CR0_PG != 0, "no-paging"),
        (registers.efer & EFER_LMA != 0, "no-lma"),
    ];
    let (_, name) = wanted.into_iter().find(|(set, _)| !set)?;
    let cause = Cause::new(name).address("cr0", registers.cr0).address("cr4", registers.cr4);
    Some(cause.address("efer", registers.efer))
}

/// Translates an address as the processor does; fails with the first entry that leads nowhere.
fn walk(machine: &Machine, cr3: u64, address: u64) -> Result<(), Cause> {
    if cr3 & 0xfff != 0 || cr3 == 0 {
        return Err(Cause::new("cr3").address("cr3", cr3));
    }
    let mut table = cr3 & ADDRESS;
    for (name, shift) in [("PML4", 39), ("PDPT", 30), ("PD", 21), ("PT", 12)] {
        let index = address >> shift & 511;
        let at = table + index * 8;
        let entry = machine.number(at).unwrap_or(0);
        let cause = |cause| {
            Cause::new(cause)
                .fact("table", name)
                .fact("index", index)
                .address("at", at)
                .address("entry", entry)
        };
        if entry & PRESENT == 0 {
            // An empty page table below an entry that was meant to be a page of 2 MiB.
            return Err(cause(if name == "PT" { "not-huge" } else { "entry-not-present" }));
        }
        let page = name == "PT" || name != "PML4" && entry & HUGE != 0;
        if page {
            let size = 1u64 << shift;
            let target = (entry & ADDRESS & !(size - 1)) | (address & (size - 1));
            if target == address {
                return Ok(());
            }
            return Err(cause("not-identity").address("address", address).address("target", target));
        }
        table = entry & ADDRESS;
    }
    Ok(())
}
