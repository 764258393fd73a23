//! What the boot sector finds at 0x8000: written here once, so that the code that runs in real mode only has to read.
//!
//! | offset | what |
//! |---|---|
//! | 0x000 | the descriptor table's limit and address (LGDT), 0x008 the table: none, code, data; both flat, 4 GiB |
//! | 0x020 | PVH: `hvm_start_info`, 0x060 its one module, the initramfs; 0x080 where the kernel is entered |
//! | 0x0a0 | room for 32 entries of the memory map, filled by the boot sector |
//! | 0x400 | the kernel's command line, with its NUL |
//! | 0x800 | what is to be loaded: first sector, sectors, address; ends with zero sectors |

use super::kernel::Kernel;

/// Where the table lies in memory.
const BASE: u32 = 0x8000;
/// Its size on the disk, in sectors: what the boot sector reads.
pub(super) const SECTORS: u32 = 16;
pub(super) const SECTOR: u64 = 512;

const COMMAND_LINE: usize = 0x400;
const LOADS: usize = 0x800;
/// `HVM_START_MAGIC_VALUE` (xen/include/public/arch-x86/hvm/start_info.h).
const MAGIC: u32 = 0x336e_c578;

/// A part of the disk and where in memory it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub sector: u32,
    pub sectors: u32,
    pub address: u32,
}

/// The tables' bytes.
///
/// # Errors
/// Where something does not fit.
pub(super) fn encode(
    kernel: &Kernel,
    initramfs: (u32, u32),
    command_line: &str,
    loads: &[Load],
) -> Result<Vec<u8>, String> {
    let mut table = vec![0; (u64::from(SECTORS) * SECTOR) as usize];
    let mut put = |at: usize, bytes: &[u8]| match table.get_mut(at..at + bytes.len()) {
        Some(place) => {
            place.copy_from_slice(bytes);
            Ok(())
        }
        None => Err("its tables do not fit".to_owned()),
    };
    if command_line.len() >= LOADS - COMMAND_LINE || command_line.contains('\0') {
        return Err("the kernel's command line is too long".into());
    }
    put(0x000, &23u16.to_le_bytes())?;
    put(0x002, &(BASE + 8).to_le_bytes())?;
    // Segment descriptors (SDM volume 3, 3.4.5): base 0, limit 4 GiB, 32 bits; execute and read, read and write.
    put(0x010, &0x00cf_9a00_0000_ffff_u64.to_le_bytes())?;
    put(0x018, &0x00cf_9200_0000_ffff_u64.to_le_bytes())?;
    put(0x020, &MAGIC.to_le_bytes())?;
    put(0x024, &1u32.to_le_bytes())?; // version: with a memory map
    put(0x02c, &1u32.to_le_bytes())?; // modules
    put(0x030, &u64::from(BASE + 0x60).to_le_bytes())?;
    put(0x038, &u64::from(BASE + COMMAND_LINE as u32).to_le_bytes())?;
    put(0x048, &u64::from(BASE + 0xa0).to_le_bytes())?; // its entries are counted at 0x50 by the boot sector
    put(0x060, &u64::from(initramfs.0).to_le_bytes())?;
    put(0x068, &u64::from(initramfs.1).to_le_bytes())?;
    put(0x080, &kernel.entry.to_le_bytes())?;
    put(COMMAND_LINE, command_line.as_bytes())?;
    for (index, load) in loads.iter().enumerate() {
        let at = LOADS + 12 * index;
        put(at, &load.sector.to_le_bytes())?;
        put(at + 4, &load.sectors.to_le_bytes())?;
        put(at + 8, &load.address.to_le_bytes())?;
    }
    // Behind the last there is room for one without sectors.
    put(LOADS + 12 * loads.len(), &[0; 12])?;
    Ok(table)
}
