//! XSAVE and XRSTOR, for a kernel that is interpreted.
//!
//! Where user mode runs on the CPU and kernel mode is interpreted, programs see the CPU's own CPUID and use its vector
//! registers. The kernel has to save all of them when it changes from one program to another: FXSAVE, which the emulator knows,
//! saves the lower half of each only, and the upper halves would be those of the program that ran last. XSAVE and XRSTOR, which
//! save everything, it does not know. So they come here, as instructions that KVM failed at, and are done with the registers
//! as KVM has them (KVM_GET_XSAVE, KVM_SET_XSAVE), in the standard format (SDM vol. 1, chapter 13).

use std::ops::Range;
use std::sync::OnceLock;

use kvm_bindings::{kvm_regs, kvm_xsave};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::{FromBytes, IntoBytes};

use crate::sys;

/// Which way the state goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// From the registers to memory (XSAVE).
    Save,
    /// From memory to the registers (XRSTOR).
    Load,
}

/// Bytes of both instructions, in the form that Linux has them: `xsave64 [rdi]`, `xrstor64 [rdi]`.
const LENGTH: u64 = 4;

/// Bytes of the x87 and SSE part, and of the header behind it, whose first eight bytes say which components are not as after a
/// reset (SDM vol. 1, sections 13.4.1 and 13.4.2).
const LEGACY: usize = 512;
const HEADER: usize = 64;

/// Components: x87, SSE; the others are in the extended region.
const X87: u64 = 1 << 0;
const SSE: u64 = 1 << 1;

/// Where MXCSR and its mask are: with SSE, or AVX, whose state they are as well (section 13.4.1).
const MXCSR: Range<usize> = 24..32;
const AVX: u64 = 1 << 2;

/// Bits of a page table's entry (SDM vol. 3A, table 4-20).
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;

const PAGE: usize = 4096;

/// As much as KVM_GET_XSAVE gives.
type Area = [u8; size_of::<kvm_xsave>()];

/// What the guest gets in place of what it wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The page fault that it would have got.
    Page { address: u64, error: u32 },
    /// What memory holds is no state.
    Protection,
}

/// Does the instruction, or gives the guest the exception that it has earned. `None` where KVM refuses.
pub(super) fn repair(vcpu: &VcpuFd, guest: &GuestMemoryMmap, mut regs: kvm_regs, which: Move) -> Option<()> {
    const PAGE_FAULT: u8 = 14;
    const GENERAL_PROTECTION: u8 = 13;
    let mut sregs = vcpu.get_sregs().ok()?;
    let enabled = vcpu.get_xcrs().ok()?.xcrs[0].value;
    let components = (regs.rdx << 32 | regs.rax & 0xffff_ffff) & enabled;
    let tables = Tables { guest, root: sregs.cr3 };
    let state = Area::read_from_bytes(vcpu.get_xsave().ok()?.as_bytes()).ok()?;
    let done = match which {
        Move::Save => save(&tables, regs.rdi, &state, enabled, components),
        Move::Load => load(&tables, regs.rdi, &state, enabled, components).and_then(|new| {
            let new = kvm_xsave::read_from_bytes(&new).map_err(|_| Fault::Protection)?;
            // KVM refuses what the instruction would: reserved bits.
            sys::set_xsave(vcpu, &new).map_err(|_| Fault::Protection)
        }),
    };
    let (number, error) = match done {
        Ok(()) => {
            regs.rip = regs.rip.wrapping_add(LENGTH);
            return vcpu.set_regs(&regs).ok();
        }
        Err(Fault::Page { address, error }) => {
            sregs.cr2 = address;
            vcpu.set_sregs(&sregs).ok()?;
            (PAGE_FAULT, error)
        }
        Err(Fault::Protection) => (GENERAL_PROTECTION, 0),
    };
    let mut events = vcpu.get_vcpu_events().ok()?;
    events.exception.injected = 1;
    events.exception.nr = number;
    events.exception.has_error_code = 1;
    events.exception.error_code = error;
    vcpu.set_vcpu_events(&events).ok()
}

fn save(tables: &Tables<'_>, at: u64, state: &Area, enabled: u64, components: u64) -> Result<(), Fault> {
    let mut area: Area = [0; size_of::<Area>()];
    let area_end = end(enabled);
    // What is not saved keeps what memory has.
    tables.read(at, &mut area[..area_end])?;
    merge(&mut area, state, components);
    tables.write(at, &area[..area_end])
}

/// The registers' new state.
fn load(tables: &Tables<'_>, at: u64, state: &Area, enabled: u64, components: u64) -> Result<Area, Fault> {
    let mut area: Area = [0; size_of::<Area>()];
    tables.read(at, &mut area[..end(enabled)])?;
    // What memory says to be as after a reset becomes so, whatever its bytes (section 13.8.1).
    for (component, range) in parts(components & !header(&area)) {
        area[range].fill(0);
        if component == X87 {
            area[..2].copy_from_slice(&0x037f_u16.to_le_bytes()); // FCW, as FINIT leaves it
        }
    }
    let mut new = *state;
    merge(&mut new, &area, components);
    Ok(new)
}

/// Takes components from one area to another, and what the header says of them.
fn merge(to: &mut Area, from: &Area, components: u64) {
    for (_, range) in parts(components) {
        to[range.clone()].copy_from_slice(&from[range]);
    }
    if components & (SSE | AVX) != 0 {
        to[MXCSR].copy_from_slice(&from[MXCSR]);
    }
    let new = header(to) & !components | header(from) & components;
    to[LEGACY..LEGACY + HEADER].fill(0);
    to[LEGACY..LEGACY + 8].copy_from_slice(&new.to_le_bytes());
}

/// Which components are not as after a reset.
fn header(area: &Area) -> u64 {
    area[LEGACY..].first_chunk().map_or(0, |bits| u64::from_le_bytes(*bits))
}

/// Where the bytes of these components are, as CPUID says (leaf 0x0d, SDM vol. 1, section 13.4.3).
fn parts(components: u64) -> impl Iterator<Item = (u64, Range<usize>)> {
    static ALL: OnceLock<Vec<(u64, Range<usize>)>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut all = vec![(X87, 0..MXCSR.start), (X87, MXCSR.end..160), (SSE, 160..416)];
        for number in 2..63 {
            let leaf = std::arch::x86_64::__cpuid_count(0x0d, number);
            let (size, offset) = (leaf.eax as usize, leaf.ebx as usize);
            // A component that does not fit into KVM's area is none that a guest gets unasked.
            if size > 0 && offset >= LEGACY + HEADER && offset + size <= size_of::<Area>() {
                all.push((1 << number, offset..offset + size));
            }
        }
        all
    });
    all.iter().filter(move |(component, _)| components & component != 0).cloned()
}

/// How many bytes these components take.
fn end(components: u64) -> usize {
    parts(components).map(|(_, range)| range.end).max().unwrap_or(0).max(LEGACY + HEADER)
}

/// The pieces of a range that lie in one page each: offset, length.
fn pages(address: u64, len: usize) -> Vec<(usize, usize)> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < len {
        let piece = (len - at).min(PAGE - (address.wrapping_add(at as u64) as usize) % PAGE);
        pieces.push((at, piece));
        at += piece;
    }
    pieces
}

/// The guest's page tables, walked as the CPU does for its kernel (SDM vol. 3A, section 4.5): KVM_TRANSLATE does not tell
/// whether a page may be written to, and a page that is shared until then must not be.
struct Tables<'a> {
    guest: &'a GuestMemoryMmap,
    root: u64,
}

impl Tables<'_> {
    fn read(&self, address: u64, area: &mut [u8]) -> Result<(), Fault> {
        for (at, len) in pages(address, area.len()) {
            let physical = self.walk(address.wrapping_add(at as u64), 0)?;
            let read = self.guest.read_slice(&mut area[at..at + len], physical);
            read.map_err(|_| Fault::Page { address, error: 0 })?;
        }
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        // All pages first: an instruction that faults has written nothing, as far as its program can tell.
        let pieces = pages(address, bytes.len());
        let walk = |&(at, _): &(usize, usize)| self.walk(address.wrapping_add(at as u64), WRITABLE);
        let physical = pieces.iter().map(walk).collect::<Result<Vec<_>, _>>()?;
        for ((at, len), physical) in pieces.into_iter().zip(physical) {
            let written = self.guest.write_slice(&bytes[at..at + len], physical);
            written.map_err(|_| Fault::Page { address, error: WRITABLE as u32 })?;
        }
        Ok(())
    }

    /// Where an address is, if it is anywhere, and may be written to where `needed` says so.
    fn walk(&self, address: u64, needed: u64) -> Result<GuestAddress, Fault> {
        const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
        let fault = |present| Fault::Page { address, error: (needed | present) as u32 };
        let mut table = self.root & ADDRESS;
        for level in (0..4u32).rev() {
            let shift = 12 + 9 * level;
            let slot = GuestAddress(table + (address >> shift & 0x1ff) * 8);
            let entry: u64 = self.guest.read_obj(slot).map_err(|_| fault(0))?;
            if entry & PRESENT == 0 {
                return Err(fault(0));
            }
            if entry & needed != needed {
                return Err(fault(PRESENT));
            }
            let is_page = level == 0 || (level < 3 && entry & LARGE != 0);
            let used = entry | ACCESSED | if is_page && needed != 0 { DIRTY } else { 0 };
            if used != entry {
                self.guest.write_obj(used, slot).map_err(|_| fault(0))?;
            }
            if is_page {
                let within = (1 << shift) - 1;
                return Ok(GuestAddress(entry & ADDRESS & !within | address & within));
            }
            table = entry & ADDRESS;
        }
        Err(fault(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_for_stays_and_the_header_tells_both() {
        let mut to: Area = [1; size_of::<Area>()];
        let mut from: Area = [2; size_of::<Area>()];
        to[LEGACY..LEGACY + 8].copy_from_slice(&(X87 | AVX).to_le_bytes());
        from[LEGACY..LEGACY + 8].copy_from_slice(&SSE.to_le_bytes());
        merge(&mut to, &from, SSE | AVX);
        assert_eq!((to[0], to[24], to[40], to[160], to[415], to[416]), (1, 2, 1, 2, 2, 1));
        assert_eq!(header(&to), X87 | SSE);
        assert!(to[LEGACY + 8..LEGACY + HEADER].iter().all(|&byte| byte == 0), "the standard format");
    }

    #[test]
    fn a_range_is_cut_where_a_page_ends() {
        assert_eq!(pages(0xff0, 0x20), [(0, 0x10), (0x10, 0x10)]);
        assert_eq!(pages(0x1000, 0x1000), [(0, 0x1000)]);
        assert_eq!(pages(u64::MAX, 2), [(0, 1), (1, 1)]);
    }

    #[test]
    fn pages_are_found_by_the_guests_tables_and_shared_ones_are_not_written_to() {
        let guest = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
        let put = |at: u64, entry: u64| guest.write_obj(entry, GuestAddress(at)).unwrap();
        // Address 0 is at 0x5000, and may be written to; 0x1000 is at 0x6000, and may not; 2 MiB is a large page, at 0.
        put(0x1000, 0x2000 | PRESENT | WRITABLE);
        put(0x2000, 0x3000 | PRESENT | WRITABLE);
        put(0x3000, 0x4000 | PRESENT | WRITABLE);
        put(0x3008, PRESENT | WRITABLE | LARGE);
        put(0x4000, 0x5000 | PRESENT | WRITABLE);
        put(0x4008, 0x6000 | PRESENT);
        let tables = Tables { guest: &guest, root: 0x1000 };
        tables.write(0xff0, &[7; 16]).unwrap();
        assert_eq!(guest.read_obj::<u8>(GuestAddress(0x5fff)).unwrap(), 7);
        assert_eq!(
            guest.read_obj::<u64>(GuestAddress(0x4000)).unwrap() & (ACCESSED | DIRTY),
            ACCESSED | DIRTY
        );
        assert_eq!(tables.write(0xff0, &[8; 17]), Err(Fault::Page { address: 0x1000, error: 3 }));
        assert_eq!(guest.read_obj::<u8>(GuestAddress(0x5fff)).unwrap(), 7, "nothing was written");
        let mut bytes = [1; 32];
        tables.read(0xff0, &mut bytes).unwrap();
        assert_eq!(bytes, [[7; 16], [0; 16]].concat()[..]);
        assert_eq!(tables.walk(0x20_5ff0, WRITABLE), Ok(GuestAddress(0x5ff0)));
        assert_eq!(tables.walk(0x2000, 0), Err(Fault::Page { address: 0x2000, error: 0 }));
        assert_eq!(tables.walk(u64::MAX, 2), Err(Fault::Page { address: u64::MAX, error: 2 }));
    }
}
