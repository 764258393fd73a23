//! What of a kernel's ELF file goes where (elf(5)), and where its PVH entry is.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY` (xen/include/public/elfnote.h).
const PHYS32_ENTRY: u32 = 18;
/// More than any Linux kernel.
const MOST_SEGMENTS: u16 = 64;
const MOST_NOTES: u64 = 64 << 10;
/// A kernel lies beyond the first MiB, and leaves the address space room for the rest.
const LOWEST: u64 = 1 << 20;
const HIGHEST: u64 = 1 << 30;

/// A kernel to be loaded.
#[derive(Debug)]
pub(super) struct Kernel {
    pub file: File,
    /// The 32-bit PVH entry.
    pub entry: u32,
    pub segments: Vec<Segment>,
    /// The first address behind it, zeroed data included.
    pub end: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub offset: u64,
    pub address: u64,
    pub size: u64,
}

impl Kernel {
    /// Reads the headers.
    ///
    /// # Errors
    /// Where the file cannot be read, is no such kernel, or has no PVH entry.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut header = [0; 64];
        (&file).read_exact(&mut header)?;
        let bad = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
        // Magic, 64 bits, little endian; machine 62: x86-64.
        if !header.starts_with(b"\x7fELF\x02\x01") || u16_at(&header, 18) != 62 {
            return Err(bad("it is no 64-bit ELF file for x86"));
        }
        let (table, entry_size, count) =
            (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56).min(MOST_SEGMENTS));
        if entry_size != 56 {
            return Err(bad("its program headers have a strange size"));
        }
        let (mut segments, mut entry, mut end) = (Vec::new(), None, 0);
        for index in 0..count {
            let mut header = [0; 56];
            let at =
                table.checked_add(56 * u64::from(index)).ok_or_else(|| bad("its table lies beyond all"))?;
            file.read_exact_at(&mut header, at)?;
            let (offset, address) = (u64_at(&header, 8), u64_at(&header, 24));
            let (size, memory) = (u64_at(&header, 32), u64_at(&header, 40));
            match u32_at(&header, 0) {
                PT_LOAD if memory > 0 => {
                    let last = address.checked_add(memory.max(size)).filter(|last| *last <= HIGHEST);
                    let last = last.ok_or_else(|| bad("it wants to lie beyond the first GiB"))?;
                    if address < LOWEST {
                        return Err(bad("it wants to lie in the first MiB"));
                    }
                    end = last.max(end);
                    segments.extend((size > 0).then_some(Segment { offset, address, size }));
                }
                PT_NOTE if size <= MOST_NOTES => {
                    let mut notes = vec![0; size as usize];
                    file.read_exact_at(&mut notes, offset)?;
                    entry = entry.or_else(|| pvh_entry(&notes));
                }
                _ => {}
            }
        }
        let entry = entry.ok_or_else(|| bad("it has no PVH entry (CONFIG_PVH)"))?;
        Ok(Self { file, entry, segments, end })
    }
}

/// Walks the notes: lengths of name and content, kind, then both, each padded to four bytes.
fn pvh_entry(mut notes: &[u8]) -> Option<u32> {
    while notes.len() >= 12 {
        let padded = |length: u32| (length as usize).next_multiple_of(4);
        let (name, content) = (padded(u32_at(notes, 0)), padded(u32_at(notes, 4)));
        let rest = notes.get(12..)?;
        let value = rest.get(name..name.checked_add(content)?)?;
        if u32_at(notes, 8) == PHYS32_ENTRY && rest.starts_with(b"Xen\0") && value.len() >= 4 {
            return Some(u32_at(value, 0));
        }
        notes = rest.get(name + content..)?;
    }
    None
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    from.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

fn u16_at(from: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(from, at))
}

fn u32_at(from: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(from, at))
}

fn u64_at(from: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(from, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pvh_entry_is_found_behind_other_notes_and_a_cut_note_is_none() {
        let note = |kind: u32, name: &[u8], value: &[u8]| {
            let mut note = Vec::new();
            for number in [name.len() as u32, value.len() as u32, kind] {
                note.extend(number.to_le_bytes());
            }
            note.extend(name);
            note.extend(value);
            note
        };
        let notes = [note(3, b"GNU\0", &[1; 8]), note(18, b"Xen\0", &0x0100_0040_u32.to_le_bytes())].concat();
        assert_eq!(pvh_entry(&notes), Some(0x0100_0040));
        for end in 0..notes.len() {
            assert_eq!(pvh_entry(&notes[..end]), None);
        }
        assert_eq!(pvh_entry(&note(18, b"GNU\0", &[1; 4])), None);
        assert_eq!(pvh_entry(&[0xff; 64]), None);
    }

    #[test]
    fn what_is_no_kernel_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel");
        std::fs::write(&path, [0; 200]).unwrap();
        assert!(Kernel::open(&path).unwrap_err().to_string().contains("no 64-bit ELF"));
        let mut elf = vec![0; 200];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[18], elf[54], elf[56]) = (62, 56, 1);
        elf[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        std::fs::write(&path, elf).unwrap();
        assert!(Kernel::open(&path).is_err());
    }
}
