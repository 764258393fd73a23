//! The boot parameters of Linux, read field by field and by a guest (Documentation/arch/x86/zero-page.rst).

use std::fs;
use std::path::Path;

use microvm::arch::layout;

use super::super::Error;
use super::super::compile::Tools;
use super::super::error::Context as _;
use super::super::machine::{Exit, Machine, Registers, SIZE};
use super::{Cause, Seen, room, secret, unseen};

/// The fields that the student sets, and so need not be zero: start and length.
const FIELDS: [(usize, usize); 7] =
    [(0x1e8, 1), (0x1fe, 2), (0x202, 4), (0x210, 1), (0x218, 8), (0x228, 4), (0x2d0, 128 * 20)];
/// Where the memory map begins, and the size of an entry.
const MAP: usize = 0x2d0;
const ENTRY: usize = 20;
/// What fills the memory before.
const NOISE: u8 = 0x5a;
/// Where the guest of the last check lies: away from all that the student writes.
const CODE: u64 = 0x30_0000;
const PORT: u8 = 0x80;

/// The machine that the student is told to describe.
struct Wanted {
    ram: u64,
    line: String,
    initrd: u64,
    initrd_size: u64,
}

/// Runs the program, reads the page, and lets a guest read it.
pub(in crate::course) fn grade(_: &Tools, program: &Path) -> Result<Seen, Error> {
    let wanted = Wanted {
        ram: secret(64..2048) << 20,
        line: format!("console=ttyS0 lesson={}", secret(1_000_000..10_000_000)),
        initrd: secret(0x200..0x280) * 0x1000,
        initrd_size: secret(1000..100_000),
    };
    let room = room(program)?;
    let file = room.root().join("lesson/memory");
    fs::write(&file, vec![NOISE; SIZE as usize]).at("write", &file)?;
    let mut live = room.start()?;
    live.say(&format!(
        "ram={}\ncmdline={}\ninitrd={}\ninitrd_size={}\n\n",
        wanted.ram,
        // The part after the first `=` is the value, further ones belong to it.
        wanted.line,
        wanted.initrd,
        wanted.initrd_size
    ));
    let registers = live.listen().as_deref().and_then(Registers::parse);
    let memory = super::super::compile::read_at_most(&live.root().join("lesson/memory"), SIZE)?;
    let file = live.root().join("lesson/memory");
    let machine = registers.map(|_| Machine::new(Some(&file))).transpose()?;
    let ended = live.finish()?;
    let mut seen = Seen::default();
    seen.output.clone_from(&ended.output);
    let at = registers.map(|registers| registers.rsi as usize).filter(|&rsi| rsi != 0);
    let page = at.and_then(|at| memory.get(at..at.checked_add(4096)?));
    let (Some(registers), Some(machine), Some(page)) = (registers, machine, page) else {
        let rsi = registers.unwrap_or_default().rsi;
        seen.fail("built", unseen(&ended, "no-page").address("rsi", rsi));
        return Ok(seen);
    };
    seen.pass("built");
    seen.judge("header", magic(page));
    seen.judge("map", map(page, &wanted));
    seen.judge("command-line", command_line(page, &memory, &wanted));
    let (at, size) = (u64::from(word(page, 0x218)), u64::from(word(page, 0x21c)));
    let right = (at, size) == (wanted.initrd, wanted.initrd_size);
    let cause = Cause::new("no-initramfs").address("at", at).fact("size", size);
    let cause = cause.address("wanted", wanted.initrd).fact("wanted-size", wanted.initrd_size);
    seen.judge("initramfs", (!right).then_some(cause));
    seen.judge("clean", rest(page));
    read_by_guest(&mut seen, machine, registers.rsi, &wanted)?;
    Ok(seen)
}

fn word(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(page[at..at + 4].try_into().unwrap_or_default())
}

fn long(page: &[u8], at: usize) -> u64 {
    u64::from(word(page, at)) | u64::from(word(page, at + 4)) << 32
}

fn magic(page: &[u8]) -> Option<Cause> {
    let wanted: [(usize, &[u8]); 3] = [(0x1fe, &[0x55, 0xaa]), (0x202, b"HdrS"), (0x210, &[0xff])];
    let (at, bytes) = wanted.into_iter().find(|&(at, bytes)| !page[at..].starts_with(bytes))?;
    let found = format!("{:02x?}", &page[at..at + bytes.len()]);
    Some(
        Cause::new("no-magic")
            .address("at", at as u64)
            .fact("found", found)
            .fact("wanted", format!("{bytes:02x?}")),
    )
}

fn map(page: &[u8], wanted: &Wanted) -> Option<Cause> {
    let count = usize::from(page[0x1e8]);
    let mut sum = 0u64;
    for index in 0..count.min(128) {
        let at = MAP + index * ENTRY;
        let (start, size, kind) = (long(page, at), long(page, at + 8), word(page, at + 16));
        if kind != 1 {
            continue;
        }
        let end = start.saturating_add(size);
        let cause = |name| Cause::new(name).address("from", start).address("to", end);
        if start < layout::HIGH_RAM && end > layout::LOW_RAM_END {
            return Some(cause("hole-claimed"));
        }
        if end > wanted.ram {
            return Some(cause("beyond-ram").address("end", wanted.ram));
        }
        sum = sum.saturating_add(size);
    }
    let right = wanted.ram - (layout::HIGH_RAM - layout::LOW_RAM_END);
    (sum != right)
        .then(|| Cause::new("ram-wrong").fact("count", count).fact("sum", sum).fact("wanted", right))
}

fn command_line(page: &[u8], memory: &[u8], wanted: &Wanted) -> Option<Cause> {
    let at = word(page, 0x228);
    let bytes = memory.get(at as usize..).unwrap_or_default();
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()).min(wanted.line.len() + 20);
    let text = String::from_utf8_lossy(&bytes[..end]);
    if text == wanted.line {
        return None;
    }
    let name = if text.starts_with(&wanted.line) { "unterminated" } else { "other-line" };
    let shown: String = text.chars().map(|c| if c.is_control() { '.' } else { c }).collect();
    Some(Cause::new(name).address("at", at.into()).fact("text", shown))
}

fn rest(page: &[u8]) -> Option<Cause> {
    let ours = |at: usize| FIELDS.iter().any(|&(start, length)| (start..start + length).contains(&at));
    let at = (0..4096).find(|&at| page[at] != 0 && !ours(at))?;
    Some(Cause::new("not-zeroed").address("at", at as u64).address("found", page[at].into()))
}

/// A guest that does what a kernel does first: adds up the map, and looks at the command line.
fn read_by_guest(seen: &mut Seen, mut machine: Machine, rsi: u64, wanted: &Wanted) -> Result<(), Error> {
    let code = [
        0x0f, 0xb6, 0x8e, 0xe8, 0x01, 0x00, 0x00, // movzx ecx, byte [rsi + 0x1e8]
        0x48, 0x8d, 0xbe, 0xd0, 0x02, 0x00, 0x00, // lea rdi, [rsi + 0x2d0]
        0x45, 0x31, 0xc0, // xor r8d, r8d
        0x85, 0xc9, 0x74, 0x12, // next: test ecx, ecx; jz done
        0x83, 0x7f, 0x10, 0x01, 0x75, 0x04, // cmp dword [rdi + 16], 1; jne skip
        0x4c, 0x03, 0x47, 0x08, // add r8, [rdi + 8]
        0x48, 0x83, 0xc7, 0x14, // skip: add rdi, 20
        0xff, 0xc9, 0xeb, 0xea, // dec ecx; jmp next
        0x8b, 0x86, 0x28, 0x02, 0x00, 0x00, // done: mov eax, [rsi + 0x228]
        0x4c, 0x8b, 0x08, // mov r9, [rax]
        0xe6, PORT, 0xf4, // out PORT, al; hlt
    ];
    machine.write(CODE, &code)?;
    let exit = match machine.start_linux(CODE, rsi)? {
        Ok(()) => machine.run(|_| 0),
        Err(refused) => Exit::Other(refused),
    };
    let after = machine.registers();
    let ram = wanted.ram - (layout::HIGH_RAM - layout::LOW_RAM_END);
    let line = wanted.line.as_bytes()[..8].try_into().map_or(0, u64::from_le_bytes);
    let right =
        matches!(exit, Exit::Out(port, _) if port == u16::from(PORT)) && (after.r8, after.r9) == (ram, line);
    let cause = || Cause::new("guest-differs").fact("exit", format!("{exit:?}")).fact("r8", after.r8);
    seen.judge("guest", (!right).then(cause));
    Ok(())
}
