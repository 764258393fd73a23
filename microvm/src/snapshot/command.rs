//! A command's snapshot: a process at its program's first instruction.
//!
//! ```text
//!   take     the guest holds the process there by a jump to itself (guest_wire::Kind::Halted)
//!            ▶ hold the vCPUs, one of which is at that jump ▶ find what must not be shared ▶ put the instruction back
//!            ▶ the machine, written down
//!   restore  the machine, made ▶ renew ▶ run: the program's first instruction, and not one of the kernel's before it
//! ```
//!
//! Such a snapshot is a fork of a process that has not begun. It serves the same command with the same environment only, and what
//! would make two machines of it equal where they must not be is written anew into their memory:
//! the kernel's random key and pool, its time of day and its host name, where it has told by its list of renewals;
//! the process's own 16 random bytes (getauxval(3), AT_RANDOM), and its HOSTNAME, on its stack. Where its pages are was chosen once
//! for all of them: address space layout randomisation protects against those who know no machine of the snapshot.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::agent::Halted;
use crate::arch::layout;
use crate::arch::state::VcpuState;
use crate::{Error, memory};

use super::record::{Malformed, Reader, Writer};

/// The variable that says the host's name, whose value is the machine's own.
pub(crate) const HOSTNAME: &[u8] = b"HOSTNAME=";

/// Bytes of AT_RANDOM.
const RANDOM: u64 = 16;

/// The longest lists that a program's stack is believed to begin with: arguments, environment.
const MOST_POINTERS: u64 = 1 << 16;

/// What in memory is a process's own, besides what the kernel lists: guest-physical addresses, byte by byte where a piece lies on two
/// pages.
#[derive(Debug, Default)]
pub(crate) struct Command {
    /// The guest's time of day when it was written down, in nanoseconds since 1970.
    clock: u64,
    random: Vec<u64>,
    host_name: Vec<u64>,
}

/// What a machine of a command's snapshot gets of its own.
#[derive(Clone, Debug, Default)]
pub struct Renew {
    /// Its name; as long as the one that its process's environment had, if that has one.
    pub host_name: Option<String>,
}

/// The vCPU that is held at that place, if one is and all others wait for something to do.
pub(super) fn runner<'a>(vcpus: &'a [VcpuState], halted: &Halted) -> Option<&'a VcpuState> {
    let mut busy = vcpus.iter().filter(|vcpu| !vcpu.is_halted());
    busy.next().filter(|vcpu| vcpu.is_at(halted.address) && busy.next().is_none())
}

/// Puts the instruction back that belongs where the vCPU is.
pub(super) fn put_back(guest: &GuestMemoryMmap, vcpu: &VcpuState, halted: &Halted) -> Result<(), Error> {
    let address = halted.address..halted.address + halted.instruction.len() as u64;
    let bytes = places(guest, vcpu, address)?;
    for (at, byte) in bytes.into_iter().zip(halted.instruction) {
        memory::write(guest, "the program's first instruction", at, &[byte])?;
    }
    Ok(())
}

/// Where each byte of a range of virtual addresses is.
fn places(guest: &GuestMemoryMmap, vcpu: &VcpuState, range: Range<u64>) -> Result<Vec<u64>, Error> {
    let place = |address| vcpu.translate(guest, address).ok_or_else(|| no_page(address));
    range.map(place).collect()
}

fn no_page(address: u64) -> Error {
    let reason = format!("no page is mapped at {address:#x}");
    Error::GuestMemory { what: "a process that is to be in a snapshot", reason }
}

impl Command {
    /// Finds what a process that is at its first instruction has of its own: the stack then begins with the number of arguments,
    /// pointers to them, pointers to the environment, and the auxiliary vector (System V ABI, AMD64 supplement, section 3.4.1).
    ///
    /// `clocks`: the host's time at a moment, and what the guest's clock showed then.
    pub(super) fn find(
        guest: &GuestMemoryMmap,
        vcpu: &VcpuState,
        clocks: Option<(SystemTime, u64)>,
    ) -> Result<Self, Error> {
        /// Types of the auxiliary vector's entries (getauxval(3)).
        const AT_NULL: u64 = 0;
        const AT_RANDOM: u64 = 25;
        let word = |at: u64| {
            let place = vcpu.translate(guest, at).ok_or_else(|| no_page(at))?;
            guest.read_obj::<u64>(GuestAddress(place)).map_err(|_| no_page(at))
        };
        let clock = match clocks {
            Some((then, clock)) => clock.saturating_add(then.elapsed().unwrap_or_default().as_nanos() as u64),
            None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64,
        };
        let mut found = Self { clock, ..Self::default() };
        let stack = vcpu.stack_pointer();
        let arguments = word(stack)?.min(MOST_POINTERS);
        let mut at = stack + 8 * (arguments + 2);
        for _ in 0..MOST_POINTERS {
            let variable = word(at)?;
            at += 8;
            if variable == 0 {
                break;
            }
            let name = places(guest, vcpu, variable..variable + HOSTNAME.len() as u64)?;
            let is_it = name.iter().zip(HOSTNAME).all(|(&place, byte)| {
                guest.read_obj::<u8>(GuestAddress(place)).is_ok_and(|found| found == *byte)
            });
            if is_it {
                let mut place = variable + HOSTNAME.len() as u64;
                while found.host_name.len() < layout::PAGE as usize {
                    let at = vcpu.translate(guest, place).ok_or_else(|| no_page(place))?;
                    if guest.read_obj::<u8>(GuestAddress(at)).map_or(0, |byte| byte) == 0 {
                        break;
                    }
                    found.host_name.push(at);
                    place += 1;
                }
            }
        }
        for _ in 0..MOST_POINTERS {
            match (word(at)?, word(at + 8)?) {
                (AT_NULL, _) => break,
                (AT_RANDOM, address) => found.random = places(guest, vcpu, address..address + RANDOM)?,
                _ => {}
            }
            at += 16;
        }
        Ok(found)
    }

    pub(super) fn write(&self, record: &mut Writer) {
        record.value(&self.clock);
        for list in [&self.random, &self.host_name] {
            let bytes: Vec<u8> = list.iter().flat_map(|place| place.to_le_bytes()).collect();
            record.bytes(&bytes);
        }
    }

    pub(super) fn read(record: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { clock: record.value()?, random: record.list()?, host_name: record.list()? })
    }

    /// By how much the guest's time of day is behind. A host whose clock was set back since does not let the guest's go backwards.
    pub(super) fn behind(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_nanos(self.clock))
    }

    /// Renews what the process has of its own, and what the kernel's list at `list` names. `passed`: by how much the time of day is
    /// to go forward.
    pub(super) fn renew(
        &self,
        guest: &GuestMemoryMmap,
        list: u32,
        renew: &Renew,
        passed: Duration,
    ) -> Result<(), Error> {
        let write = |at: u64, bytes: &[u8]| memory::write(guest, "what is renewed in a snapshot", at, bytes);
        let host_name = renew.host_name.as_deref().unwrap_or_default().as_bytes();
        let mut random = [0; RANDOM as usize];
        fill_random(&mut random)?;
        for (&at, byte) in self.random.iter().zip(random) {
            write(at, &[byte])?;
        }
        for (&at, &byte) in self.host_name.iter().zip(host_name) {
            write(at, &[byte])?;
        }
        for renewal in renewals(guest, list)? {
            renewal.apply(guest, host_name, passed)?;
        }
        Ok(())
    }
}

fn fill_random(bytes: &mut [u8]) -> Result<(), Error> {
    rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(Error::system("get random numbers (getrandom)"))?;
    Ok(())
}

/// An entry of the kernel's list: what to do with the bytes at a place (microvm/guest/kernel/patches, 0022).
#[derive(Debug)]
struct Renewal {
    how: u32,
    size: usize,
    at: u64,
}

/// What the list begins with.
const MAGIC: u64 = 0x6c61_776e_6572_2d31;

/// What an entry says is to be done: random bytes, or the next number.
const RANDOM_BYTES: u32 = 1;
const COUNT: u32 = 2;

/// The most entries that it has room for.
const MOST_RENEWALS: u64 = 31;

/// The longest thing to renew: a host name.
const MOST_SIZE: usize = 256;

/// Renews the kernel's random key and pool, where it has told of them: what may be done whatever its CPUs are at.
pub(super) fn renew_random(guest: &GuestMemoryMmap, list: u32) -> Result<(), Error> {
    for renewal in renewals(guest, list).unwrap_or_default() {
        if matches!(renewal.how, RANDOM_BYTES | COUNT) {
            renewal.apply(guest, &[], Duration::ZERO)?;
        }
    }
    Ok(())
}

/// Whether the kernel has a list at this place.
pub(super) fn has_renewals(guest: &GuestMemoryMmap, list: u32) -> bool {
    renewals(guest, list).is_ok_and(|renewals| !renewals.is_empty())
}

fn renewals(guest: &GuestMemoryMmap, list: u32) -> Result<Vec<Renewal>, Error> {
    let wrong =
        || Error::GuestMemory { what: "the kernel's list of renewals", reason: "there is none".into() };
    let word = |at: u64| guest.read_obj::<u64>(GuestAddress(at)).map_err(|_| wrong());
    let list = u64::from(list);
    let count = word(list + 8)?;
    if word(list)? != MAGIC || count > MOST_RENEWALS {
        return Err(wrong());
    }
    let entry = |number: u64| {
        let at = list + 16 + number * 16;
        let first = word(at)?;
        let size = (first >> 32) as usize;
        if size > MOST_SIZE {
            return Err(wrong());
        }
        Ok(Renewal { how: first as u32, size, at: word(at + 8)? })
    };
    (0..count).map(entry).collect()
}

impl Renewal {
    fn apply(&self, guest: &GuestMemoryMmap, host_name: &[u8], passed: Duration) -> Result<(), Error> {
        const SECONDS: u32 = 3;
        const SECONDS_BACK: u32 = 4;
        const NANOSECONDS: u32 = 5;
        const HOST_NAME: u32 = 6;
        let unknown =
            |reason: String| Error::GuestMemory { what: "an entry of the list of renewals", reason };
        let mut bytes = [0; MOST_SIZE];
        let bytes = &mut bytes[..self.size];
        let seconds = passed.as_secs();
        match self.how {
            RANDOM_BYTES => fill_random(bytes)?,
            HOST_NAME if host_name.len() < self.size => bytes[..host_name.len()].copy_from_slice(host_name),
            COUNT | SECONDS | SECONDS_BACK | NANOSECONDS if matches!(self.size, 4 | 8) => {
                let read = guest.read_slice(bytes, GuestAddress(self.at));
                read.map_err(|error| unknown(error.to_string()))?;
                let mut number = [0; 8];
                number[..self.size].copy_from_slice(bytes);
                let number = u64::from_le_bytes(number);
                let new = match self.how {
                    // Its top value is what the kernel's CPUs have that have none yet.
                    COUNT if number.wrapping_add(2).trailing_zeros() as usize >= 8 * self.size => 0,
                    COUNT => number.wrapping_add(1),
                    SECONDS => number.wrapping_add(seconds),
                    SECONDS_BACK => number.wrapping_sub(seconds),
                    _ => number.wrapping_add(seconds.wrapping_mul(1_000_000_000)),
                };
                bytes.copy_from_slice(&new.to_le_bytes()[..self.size]);
            }
            how => return Err(unknown(format!("what to do is {how}, with {} bytes", self.size))),
        }
        memory::write(guest, "what is renewed in a snapshot", self.at, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: u32 = 0x8000;

    fn listed(entries: &[(u32, u32, u64)]) -> GuestMemoryMmap {
        let memory = memory::allocate(4).unwrap();
        let mut at = u64::from(LIST);
        let mut put = |word: u64| {
            memory.write_obj(word, GuestAddress(at)).unwrap();
            at += 8;
        };
        put(MAGIC);
        put(entries.len() as u64);
        for (how, size, place) in entries {
            put(u64::from(*size) << 32 | u64::from(*how));
            put(*place);
        }
        memory
    }

    fn renew(memory: &GuestMemoryMmap, command: &Command) -> Result<(), Error> {
        let renew = Renew { host_name: Some("new".into()) };
        command.renew(memory, LIST, &renew, Duration::from_millis(7_900))
    }

    fn word(memory: &GuestMemoryMmap, at: u64) -> u64 {
        memory.read_obj(GuestAddress(at)).unwrap()
    }

    #[test]
    fn everything_on_the_list_is_renewed_and_nothing_beside_it() {
        let list = [
            (1, 32, 0x1000),
            (2, 8, 0x2000),
            (3, 8, 0x2010),
            (4, 8, 0x2020),
            (5, 8, 0x2030),
            (6, 16, 0x3000),
        ];
        let memory = listed(&list);
        for at in [0x2000, 0x2010, 0x2020, 0x2030] {
            memory.write_obj(100u64, GuestAddress(at)).unwrap();
        }
        memory.write_slice(b"an older name...!", GuestAddress(0x3000)).unwrap();
        renew(&memory, &Command::default()).unwrap();
        let mut random = [0; 40];
        memory.read_slice(&mut random, GuestAddress(0x1000)).unwrap();
        assert!(random[..32] != [0; 32] && random[32..] == [0; 8]);
        assert_eq!(word(&memory, 0x2000), 101);
        assert_eq!(word(&memory, 0x2010), 107);
        assert_eq!(word(&memory, 0x2020), 93);
        assert_eq!(word(&memory, 0x2030), 7_000_000_100);
        let mut name = [0; 17];
        memory.read_slice(&mut name, GuestAddress(0x3000)).unwrap();
        assert_eq!(&name, b"new\0\0\0\0\0\0\0\0\0\0\0\0\0!");
    }

    #[test]
    fn a_count_skips_its_top_value() {
        let memory = listed(&[(2, 8, 0x2000), (2, 4, 0x2010)]);
        memory.write_obj(u64::MAX - 1, GuestAddress(0x2000)).unwrap();
        memory.write_obj(u32::MAX - 1, GuestAddress(0x2010)).unwrap();
        renew(&memory, &Command::default()).unwrap();
        assert_eq!((word(&memory, 0x2000), word(&memory, 0x2010)), (0, 0));
    }

    #[test]
    fn a_process_gets_random_bytes_and_a_name_of_its_own() {
        let memory = listed(&[(1, 8, 0x1000)]);
        // On two pages that are not neighbours.
        let command = Command {
            random: (0x5ff8..0x6000).chain(0x9000..0x9008).collect(),
            host_name: vec![10, 11, 30],
            clock: 0,
        };
        renew(&memory, &command).unwrap();
        assert!(word(&memory, 0x5ff8) != 0 && word(&memory, 0x9000) != 0);
        assert_eq!(memory.read_obj::<[u8; 2]>(GuestAddress(10)).unwrap(), *b"ne");
        assert_eq!(memory.read_obj::<u8>(GuestAddress(30)).unwrap(), b'w');
    }

    #[test]
    fn lists_of_a_hostile_guest_are_refused() {
        for entry in [
            (1, 257, 0x1000),
            (7, 8, 0x1000),
            (3, 3, 0x1000),
            (1, 8, u64::MAX),
            (6, 2, 0x1000),
            (2, 8, 1 << 40),
        ] {
            assert!(renew(&listed(&[entry]), &Command::default()).is_err(), "{entry:?}");
        }
        assert!(renew(&memory::allocate(4).unwrap(), &Command::default()).is_err(), "no list");
        let many = listed(&[]);
        many.write_obj(32u64, GuestAddress(u64::from(LIST) + 8)).unwrap();
        assert!(renew(&many, &Command::default()).is_err());
    }
}
