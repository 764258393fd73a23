//! A kernel as an ELF file (`vmlinux`): which parts of it go where, and where it begins.
//!
//! An ELF file for loading is a header, a table of segments, and the segments' bytes (elf(5)). A loader needs nothing else,
//! so this is all there is: sections and symbols are for linkers and debuggers.

use std::fs::File;
use std::os::unix::fs::FileExt;

use vm_memory::GuestMemoryMmap;

use crate::memory::{LoadError, load_file};

use super::layout;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Most program headers of a kernel that we look at; Linux has 5.
const MAX_PROGRAM_HEADERS: u16 = 64;
/// Most bytes of notes that we look at; Linux has about 500.
const MAX_NOTES: u64 = 64 * 1024;
/// XEN_ELFNOTE_PHYS32_ENTRY: the note that names the PVH entry (xen/include/public/elfnote.h).
const PHYS32_ENTRY: u32 = 18;

/// A kernel in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Physical address of the 64-bit entry.
    pub entry: u64,
    /// Physical address of the 32-bit PVH entry, if the kernel has one.
    pub pvh_entry: Option<u32>,
    /// The first address behind the kernel, its zero-initialised data included.
    pub end: u64,
}

/// Why an ELF file cannot be booted.
#[derive(Debug, PartialEq, Eq)]
pub enum ElfError {
    /// It does not begin as ELF files do.
    NotElf,
    /// It is ELF, but something about it is wrong.
    Bad(String),
    /// It needs memory up to this address.
    TooBig {
        /// The first address behind it.
        end: u64,
    },
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

/// Loads the ELF kernel, at the physical addresses that it names, into guest memory whose low range ends at `ram_end`.
///
/// # Errors
/// See [`ElfError`]. The file is hostile: every number in it is checked before use.
// ANCHOR: load
pub fn load(memory: &GuestMemoryMmap, file: &mut File, ram_end: u64) -> Result<Loaded, ElfError> {
    let (entry, segments) = read_headers(file)?;
    let mut end = 0;
    let mut entered = false;
    let mut pvh_entry = None;
    for segment in &segments {
        match segment.kind {
            PT_LOAD if segment.memory_size > 0 => {
                let last = load_segment(memory, file, segment, ram_end)?;
                entered |= (segment.address..segment.address + segment.file_size).contains(&entry);
                end = end.max(last);
            }
            PT_NOTE => pvh_entry = pvh_entry.or(find_pvh_entry(file, segment)),
            _ => {}
        }
    }
    if !entered {
        return Err(ElfError::Bad(format!("its entry point {entry:#x} is in no loaded segment")));
    }
    Ok(Loaded { entry, pvh_entry, end })
}
// ANCHOR_END: load

fn read_headers(file: &File) -> Result<(u64, Vec<Segment>), ElfError> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).map_err(|_| ElfError::NotElf)?;
    if !header.starts_with(b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    // EI_CLASS and EI_DATA: 64 bits, little-endian.
    if header[4..6] != [2, 1] || u16_at(&header, 18) != EM_X86_64 {
        return Err(ElfError::Bad("it is an ELF file, but not for x86-64".into()));
    }
    let (table, size, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    if usize::from(size) != PROGRAM_HEADER || count == 0 || count > MAX_PROGRAM_HEADERS {
        return Err(ElfError::Bad(format!("{count} program headers of {size} bytes are not a kernel's")));
    }
    let mut bytes = vec![0; PROGRAM_HEADER * usize::from(count)];
    file.read_exact_at(&mut bytes, table)
        .map_err(|_| ElfError::Bad("the program headers are cut off".into()))?;
    let segments = bytes
        .chunks_exact(PROGRAM_HEADER)
        .map(|raw| Segment {
            kind: u32_at(raw, 0),
            offset: u64_at(raw, 8),
            address: u64_at(raw, 24),
            file_size: u64_at(raw, 32),
            memory_size: u64_at(raw, 40),
            align: u64_at(raw, 48),
        })
        .collect();
    Ok((u64_at(&header, 24), segments))
}

/// Loads one segment; returns the first address behind it.
fn load_segment(
    memory: &GuestMemoryMmap,
    file: &mut File,
    segment: &Segment,
    ram_end: u64,
) -> Result<u64, ElfError> {
    let end = segment
        .address
        .checked_add(segment.memory_size)
        .ok_or_else(|| ElfError::Bad("a segment wraps around the address space".into()))?;
    if segment.address < layout::HIGH_RAM {
        return Err(ElfError::Bad(format!(
            "a segment at {:#x} lies below 1 MiB, where the boot tables are",
            segment.address
        )));
    }
    if segment.file_size > segment.memory_size {
        return Err(ElfError::Bad("a segment has more bytes in the file than in memory".into()));
    }
    if end > ram_end {
        return Err(ElfError::TooBig { end });
    }
    // What is behind the file's bytes (.bss) stays as the mapping is: zero.
    match load_file(memory, file, segment.offset, segment.address, segment.file_size) {
        Ok(()) => Ok(end),
        Err(LoadError::Truncated) => Err(ElfError::Bad("the file is cut off".into())),
        Err(LoadError::OutsideMemory) => Err(ElfError::TooBig { end }),
        Err(LoadError::Io(error)) => Err(ElfError::Bad(format!("it cannot be read: {error}"))),
    }
}

/// Finds the PVH entry among the notes of a segment. A malformed note ends the search: PVH is only an offer.
fn find_pvh_entry(file: &File, segment: &Segment) -> Option<u32> {
    if segment.file_size > MAX_NOTES {
        return None;
    }
    let mut notes = vec![0; segment.file_size as usize];
    file.read_exact_at(&mut notes, segment.offset).ok()?;
    // Each note: three words (length of name, length of content, type), then both, each padded to the segment's alignment.
    let align = if segment.align == 8 { 8 } else { 4 };
    let mut rest = &notes[..];
    while let Some((header, body)) = rest.split_at_checked(12) {
        let (name_len, len) = (u32_at(header, 0) as usize, u32_at(header, 4) as usize);
        let name = body.get(..name_len)?;
        let content = body.get(name_len.next_multiple_of(align)..)?;
        if u32_at(header, 8) == PHYS32_ENTRY && name == b"Xen\0" {
            return Some(u32_at(content.get(..len)?.get(..4)?, 0));
        }
        rest = content.get(len.next_multiple_of(align)..)?;
    }
    None
}

// The callers slice so that these bounds hold; a short slice would be a bug here, not in the file.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::allocate;
    use std::io::Write;
    use vm_memory::{Bytes, GuestAddress};

    const MIB: u64 = 1 << 20;

    /// A kernel of one page at 1 MiB with four pages of .bss, and a PVH note.
    fn kernel() -> Vec<u8> {
        let mut elf = vec![0; HEADER];
        elf[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
        elf[18..20].copy_from_slice(&EM_X86_64.to_le_bytes());
        elf[24..32].copy_from_slice(&(MIB + 0x10).to_le_bytes());
        elf[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
        elf[54..56].copy_from_slice(&(PROGRAM_HEADER as u16).to_le_bytes());
        elf[56..58].copy_from_slice(&2u16.to_le_bytes());
        elf.extend(program_header(PT_LOAD, 0x1000, MIB, 0x1000, 0x5000));
        elf.extend(program_header(PT_NOTE, 0x2000, 0, 20, 20));
        elf.resize(0x1000, 0);
        elf.resize(0x2000, 0xaa);
        for word in [4, 4, PHYS32_ENTRY] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(b"Xen\0");
        elf.extend(0x10_0040u32.to_le_bytes());
        elf
    }

    fn program_header(kind: u32, offset: u64, address: u64, file_size: u64, memory_size: u64) -> Vec<u8> {
        let mut raw = Vec::new();
        raw.extend(kind.to_le_bytes());
        raw.extend(5u32.to_le_bytes());
        for word in [offset, 0xffff_ffff_8100_0000, address, file_size, memory_size, 4] {
            raw.extend(word.to_le_bytes());
        }
        raw
    }

    fn try_load(bytes: &[u8]) -> Result<Loaded, ElfError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        load(&allocate(4).unwrap(), &mut file, 4 * MIB)
    }

    #[test]
    fn a_kernel_is_loaded_where_it_says_and_its_entries_are_found() {
        let memory = allocate(4).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&kernel()).unwrap();
        let loaded = load(&memory, &mut file, 4 * MIB).unwrap();
        assert_eq!(loaded, Loaded { entry: MIB + 0x10, pvh_entry: Some(0x10_0040), end: MIB + 0x5000 });
        let mut bytes = [0; 0x1001];
        memory.read_slice(&mut bytes, GuestAddress(MIB)).unwrap();
        assert_eq!(bytes[..0x1000], [0xaa; 0x1000]);
        assert_eq!(bytes[0x1000], 0, ".bss is zero");
    }

    #[test]
    fn what_is_no_elf_is_said_to_be_none() {
        assert_eq!(try_load(b""), Err(ElfError::NotElf));
        assert_eq!(try_load(&[0; 4096]), Err(ElfError::NotElf));
        assert_eq!(try_load(b"\x7fELF"), Err(ElfError::NotElf));
    }

    #[test]
    fn a_kernel_cut_off_anywhere_is_refused() {
        let whole = kernel();
        for len in (0..0x2000).step_by(61) {
            assert!(try_load(&whole[..len]).is_err(), "{len} bytes");
        }
        // Without its notes it boots, only not by PVH.
        assert_eq!(try_load(&whole[..0x2008]).unwrap().pvh_entry, None);
    }

    #[test]
    fn no_number_in_the_headers_can_make_it_panic() {
        let whole = kernel();
        for at in 0..HEADER + 2 * PROGRAM_HEADER {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                let _ = try_load(&changed);
                changed[at..(at + 8).min(HEADER + 2 * PROGRAM_HEADER)].fill(value);
                let _ = try_load(&changed);
            }
        }
        for at in 0x2000..whole.len() {
            let mut changed = whole.clone();
            changed[at] = 0xff;
            let _ = try_load(&changed);
        }
    }

    #[test]
    fn a_kernel_bigger_than_memory_says_how_much_it_needs() {
        let mut elf = kernel();
        elf[HEADER + 40..HEADER + 48].copy_from_slice(&(64 * MIB).to_le_bytes());
        assert_eq!(try_load(&elf), Err(ElfError::TooBig { end: 65 * MIB }));
    }

    #[test]
    fn a_kernel_may_not_overwrite_the_boot_tables() {
        let mut elf = kernel();
        elf[HEADER + 24..HEADER + 32].copy_from_slice(&0x7000u64.to_le_bytes());
        assert!(matches!(try_load(&elf), Err(ElfError::Bad(_))));
    }
}
