//! The other side of a lesson about virtual machines: the grader has the machine, your code builds or serves it.
//!
//! What the grader says comes on standard input, what your code answers goes to standard output on lines that begin with
//! `@`. Everything else that you print is yours, for debugging.

use std::fs;
use std::io::{self, BufRead, Write};

/// The guest's memory, while its machine does not run.
const MEMORY: &str = "/lesson/memory";

/// The control registers and the few others that a lesson sets. They begin as a processor's after reset.
#[derive(Debug, Default)]
pub struct Registers {
    /// Protection (bit 0), paging (bit 31).
    pub cr0: u64,
    /// The physical address of the topmost page table.
    pub cr3: u64,
    /// Physical address extension (bit 5), and more.
    pub cr4: u64,
    /// Long mode enabled (bit 8) and active (bit 10).
    pub efer: u64,
    /// The next instruction.
    pub rip: u64,
    /// The stack.
    pub rsp: u64,
    /// For Linux: the address of the zero page.
    pub rsi: u64,
}

/// What the grader tells at the beginning: numbers and texts by name.
pub struct Given(Vec<(String, String)>);

impl Given {
    /// A number.
    pub fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or_default()
    }

    /// A text.
    pub fn text(&self, name: &str) -> String {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

fn given() -> io::Result<Given> {
    let mut pairs = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let Some((key, value)) = line.split_once('=') else { break };
        pairs.push((key.to_owned(), value.to_owned()));
    }
    Ok(Given(pairs))
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "@{line}")?;
    out.flush()
}

/// Builds a machine: your code fills the memory and sets registers; then the grader lets the guest run.
pub fn build(code: impl FnOnce(&Given, &mut [u8], &mut Registers) -> io::Result<()>) -> io::Result<()> {
    let given = given()?;
    let mut memory = fs::read(MEMORY)?;
    let mut r = Registers { cr0: 0x6000_0010, ..Registers::default() };
    code(&given, &mut memory, &mut r)?;
    fs::write(MEMORY, memory)?;
    say(&format!(
        "registers cr0={} cr3={} cr4={} efer={} rip={} rsp={} rsi={}",
        r.cr0, r.cr3, r.cr4, r.efer, r.rip, r.rsp, r.rsi
    ))
}

/// Why the guest stopped: what it wants from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It wrote this byte to this port.
    Out(u16, u8),
    /// It reads a byte from this port.
    In(u16),
    /// It waits for an interrupt.
    Halt,
    /// Its processor gave up: a fault in the handler of a fault's fault, a triple fault.
    Shutdown,
}

/// What your machine does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Go on; an `In` gets this byte.
    Value(u8),
    /// Go on.
    Go,
    /// End the machine with this exit code.
    Stop(u8),
}

/// Serves a machine: your code is called for each exit. Returns the exit code that it stopped with.
pub fn serve(mut code: impl FnMut(Exit) -> Answer) -> io::Result<u8> {
    given()?;
    say("ready")?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|word| word.parse::<u16>().ok()).unwrap_or_default();
        let exit = match kind {
            "out" => Exit::Out(number(), number() as u8),
            "in" => Exit::In(number()),
            "halt" => Exit::Halt,
            "shutdown" => Exit::Shutdown,
            _ => break,
        };
        match code(exit) {
            Answer::Value(byte) => say(&format!("value {byte}"))?,
            Answer::Go => say("go")?,
            Answer::Stop(code) => {
                say(&format!("stop {code}"))?;
                return Ok(code);
            }
        }
    }
    Err(io::Error::other("the machine is gone, and nobody stopped it"))
}

/// Little-endian numbers in memory; beyond its end they are an error, never a panic: a guest may name any address.
pub fn read<const N: usize>(memory: &[u8], address: u64) -> io::Result<[u8; N]> {
    let start = usize::try_from(address).map_err(io::Error::other)?;
    let bytes = start.checked_add(N).and_then(|end| memory.get(start..end));
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| outside(address))
}

/// Writes bytes.
pub fn write(memory: &mut [u8], address: u64, bytes: &[u8]) -> io::Result<()> {
    let start = usize::try_from(address).map_err(io::Error::other)?;
    let place = start.checked_add(bytes.len()).and_then(|end| memory.get_mut(start..end));
    place.map(|place| place.copy_from_slice(bytes)).ok_or_else(|| outside(address))
}

fn outside(address: u64) -> io::Error {
    io::Error::other(format!("address {address:#x} is outside of the guest's memory"))
}
