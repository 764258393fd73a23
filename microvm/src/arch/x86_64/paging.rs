//! From a guest's virtual addresses to guest-physical ones, by its page tables (SDM vol. 3A, section 4.5; APM vol. 2, section 5.3).

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// CR4.LA57: five levels of tables rather than four.
pub(crate) const FIVE_LEVELS: u64 = 1 << 12;

/// Bits of an entry.
const PRESENT: u64 = 1 << 0;
const LARGE: u64 = 1 << 7;
/// Where an entry points to: bits 12 to 51.
const ADDRESS: u64 = ((1 << 52) - 1) & !0xfff;

/// Where a virtual address is; `None` where no page is. `cr3` is the root of the tables.
pub(crate) fn translate(memory: &GuestMemoryMmap, cr3: u64, cr4: u64, address: u64) -> Option<u64> {
    let levels = if cr4 & FIVE_LEVELS == 0 { 4 } else { 5 };
    let mut table = cr3 & ADDRESS;
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let entry: u64 = memory.read_obj(GuestAddress(table + (address >> shift & 0x1ff) * 8)).ok()?;
        if entry & PRESENT == 0 {
            return None;
        }
        let large = entry & LARGE != 0 && (level == 1 || level == 2);
        if large || level == 0 {
            let within = (1u64 << shift) - 1;
            return Some(entry & ADDRESS & !within | address & within);
        }
        table = entry & ADDRESS;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_all_sizes_are_found_and_missing_ones_are_not() {
        let memory = crate::memory::allocate(4).unwrap();
        let put = |at: u64, entry: u64| memory.write_obj(entry, GuestAddress(at)).unwrap();
        put(0x1000, 0x2000 | PRESENT); // level 3, entry 0
        put(0x2000, 0x3000 | PRESENT); // level 2, entry 0
        put(0x2008, 0x4000_0000 | PRESENT | LARGE); // the second GiB
        put(0x3008, 0x0060_0000 | PRESENT | LARGE); // the second 2 MiB
        put(0x3010, 0x4000 | PRESENT); // the third
        put(0x4018, 0x8000_0000_0000_9000 | PRESENT); // a page that must not be executed
        let at = |address| translate(&memory, 0x1000 | 0x18, 0, address);
        assert_eq!(at(0x4000_1234), Some(0x4000_1234));
        assert_eq!(at(0x20_0042), Some(0x60_0042));
        assert_eq!(at(0x40_3007), Some(0x9007));
        assert_eq!((at(0x40_4007), at(0x1000), at(1 << 39)), (None, None, None));
        // Tables that lead out of memory end there.
        put(0x2010, 0xffff_ffff_f000 | PRESENT);
        assert_eq!(at(0x8000_0000), None);
        // A fifth level above.
        put(0x5000, 0x1000 | PRESENT);
        assert_eq!(translate(&memory, 0x5000, FIVE_LEVELS, 0x40_3007), Some(0x9007));
    }
}
