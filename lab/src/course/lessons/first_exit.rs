//! The student's own virtual machine, up to its first exit. The grader reads the page that KVM shares with the student's
//! program (`struct kvm_run`), through `/proc/PID/mem`: not what the program says of it.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::super::Error;
use super::super::compile::Tools;
use super::super::error::Context as _;
use super::super::look::Look;
use super::{Cause, Seen, room, secret, unseen};

/// Where the guest's program belongs.
const START: u64 = 0x1000;

/// Reasons of exits (linux/kvm.h).
const KVM_EXIT_IO: u32 = 2;
const KVM_EXIT_HLT: u32 = 5;
const KVM_EXIT_MMIO: u32 = 6;

/// Runs the program; looks each time that it says it has an exit.
pub(in crate::course) fn grade(_: &Tools, program: &Path) -> Result<Seen, Error> {
    let mut room = room(program)?;
    room.with_kvm()?;
    let (first, second, port) = (secret(1..100) as u8, secret(1..100) as u8, secret(0x80..0xf0) as u8);
    let guest = [
        0xb0, first, // mov al, first
        0x04, second, // add al, second
        0xe6, port, // out port, al
        0xf4, // hlt
    ];
    let path = room.root().join("lesson/guest");
    fs::write(&path, guest).at("write", &path)?;
    let mut live = room.start()?;
    let mut seen = Seen::default();
    let mut exits = Vec::new();
    while exits.len() < 2 && live.listen().is_some() {
        let Some(exit) = Shared::read(&Look::at(live.pid())) else { break };
        exits.push(exit);
        live.say("go on\n");
    }
    let ended = live.finish()?;
    let missing = || unseen(&ended, "no-exit");
    match exits.first() {
        None => seen.fail("machine", missing()),
        Some(exit) => {
            seen.pass("machine");
            let found = exit.reason == KVM_EXIT_IO;
            seen.judge("first-exit", (!found).then(|| exit.explain()));
            let (want, is) = (first + second, exit.data);
            let right = (u64::from(port), want) == (u64::from(exit.port), is);
            let cause = Cause::new("wrong-byte").address("port", exit.port.into()).fact("byte", is);
            seen.judge("secret", (!right).then(|| cause.fact("expected", want)));
        }
    }
    let halted = exits.get(1).is_some_and(|exit| exit.reason == KVM_EXIT_HLT);
    let cause = match exits.get(1) {
        Some(exit) => exit.explain(),
        None => missing(),
    };
    seen.judge("halt", (!halted).then_some(cause));
    seen.output = ended.output;
    Ok(seen)
}

/// What KVM and the student's program share, read from outside.
struct Shared {
    reason: u32,
    port: u16,
    data: u8,
    /// For an access to memory that is not there.
    address: u64,
    rip: u64,
    code_base: u64,
}

impl Shared {
    fn read(look: &Look) -> Option<Self> {
        // The mapping carries the vCPU's name.
        let maps = fs::read_to_string(look.path("maps")).ok()?;
        let line = maps.lines().find(|line| line.contains("kvm-vcpu"))?;
        let start = u64::from_str_radix(line.split('-').next()?, 16).ok()?;
        let memory = fs::File::open(look.path("mem")).ok()?;
        let mut page = [0; 4096];
        memory.read_exact_at(&mut page, start).ok()?;
        let number = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap_or_default());
        // struct kvm_run: the reason at 8, the exit's own part at 32, registers at 304 (KVM_CAP_SYNC_REGS), in which rip is
        // the 17th number and the code segment follows the 18.
        let offset = usize::try_from(number(40)).ok().filter(|&offset| offset < 3 * 4096);
        let mut data = [0];
        if offset.is_some() {
            memory.read_exact_at(&mut data, start + number(40)).ok()?;
        }
        Some(Self {
            reason: number(8) as u32,
            port: (number(32) >> 16) as u16,
            data: data[0],
            address: number(32),
            rip: number(304 + 16 * 8),
            code_base: number(304 + 18 * 8),
        })
    }

    fn explain(&self) -> Cause {
        let at = self.code_base.wrapping_add(self.rip);
        let name = match self.reason {
            _ if at >= 0xffff_0000 => "reset-vector",
            KVM_EXIT_HLT => "halt-first",
            // Not even the instruction could be read; how KVM says that depends on the processor.
            _ if at == START && (self.reason != KVM_EXIT_MMIO || self.address == at) => "no-memory",
            KVM_EXIT_MMIO => "code-elsewhere",
            _ => "other-exit",
        };
        Cause::new(name).fact("reason", self.reason).address("rip", at).address("address", self.address)
    }
}
