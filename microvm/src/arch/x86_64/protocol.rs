//! What the kernel is handed at its entry: memory map, command line, initramfs, ACPI's address, in the format of the
//! entry that is used.

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{ByteValued, GuestMemoryMmap};

use crate::{Error, memory};

use super::cpu::Entry;
use super::layout;

/// What is in guest memory for the kernel to find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// Bytes of RAM.
    pub ram: u64,
    /// Length of the command line at [`layout::COMMAND_LINE`], without its NUL.
    pub command_line: u32,
    /// Address and length of the initramfs, if there is one.
    pub initramfs: Option<(u64, u64)>,
    /// Whether there are ACPI tables at [`layout::ACPI`].
    pub acpi: bool,
}

impl Handover {
    /// Writes it to guest memory as this entry expects it.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub fn write(&self, guest: &GuestMemoryMmap, entry: Entry) -> Result<(), Error> {
        match entry {
            Entry::Linux64(_) => {
                memory::write(guest, "zero page", layout::ZERO_PAGE, self.zero_page().as_slice())
            }
            Entry::Pvh(_) => {
                memory::write(guest, "PVH start info", layout::PVH_START_INFO, &self.start_info())
            }
        }
    }

    /// Linux' zero page (Documentation/arch/x86/zero-page.rst): all zero but for what a boot loader must fill in.
    // ANCHOR: zero_page
    fn zero_page(&self) -> boot_params {
        /// "undefined" boot loader, which makes the kernel believe the fields below (boot.rst, `type_of_loader`).
        const UNDEFINED_LOADER: u8 = 0xff;
        const E820_RAM: u32 = 1;
        const E820_RESERVED: u32 = 2;

        let mut page = boot_params::default();
        // The marks by which the kernel knows that a boot loader filled this in.
        page.hdr.boot_flag = 0xaa55;
        page.hdr.header = u32::from_le_bytes(*b"HdrS");
        page.hdr.type_of_loader = UNDEFINED_LOADER;
        page.hdr.kernel_alignment = layout::KERNEL_ALIGN as u32;
        page.hdr.cmd_line_ptr = layout::COMMAND_LINE as u32;
        page.hdr.cmdline_size = self.command_line;
        if let Some((start, len)) = self.initramfs {
            // Both below 4 GiB: the initramfs is placed below INITRAMFS_END_MAX.
            page.hdr.ramdisk_image = start as u32;
            page.hdr.ramdisk_size = len as u32;
        }
        if self.acpi {
            page.acpi_rsdp_addr = layout::ACPI;
        }
        for (slot, (addr, size, usable)) in page.e820_table.iter_mut().zip(layout::memory_map(self.ram)) {
            *slot = boot_e820_entry { addr, size, r#type: if usable { E820_RAM } else { E820_RESERVED } };
            page.e820_entries += 1;
        }
        page
    }
    // ANCHOR_END: zero_page

    /// The PVH start info, followed by its memory map and its one module, the initramfs
    /// (xen/include/public/arch-x86/hvm/start_info.h).
    fn start_info(&self) -> Vec<u8> {
        const MAGIC: u32 = 0x336e_c578;
        const XEN_RAM: u32 = 1;
        const XEN_RESERVED: u32 = 2;

        let map: Vec<_> = layout::memory_map(self.ram)
            .into_iter()
            .map(|(addr, size, usable)| hvm_memmap_table_entry {
                addr,
                size,
                type_: if usable { XEN_RAM } else { XEN_RESERVED },
                reserved: 0,
            })
            .collect();
        let map_at = layout::PVH_START_INFO + size_of::<hvm_start_info>() as u64;
        let modules_at = map_at + (map.len() * size_of::<hvm_memmap_table_entry>()) as u64;
        let info = hvm_start_info {
            magic: MAGIC,
            version: 1,
            nr_modules: u32::from(self.initramfs.is_some()),
            modlist_paddr: modules_at,
            cmdline_paddr: layout::COMMAND_LINE,
            rsdp_paddr: if self.acpi { layout::ACPI } else { 0 },
            memmap_paddr: map_at,
            memmap_entries: map.len() as u32,
            ..Default::default()
        };
        let mut bytes = info.as_slice().to_vec();
        for entry in &map {
            bytes.extend(entry.as_slice());
        }
        if let Some((paddr, size)) = self.initramfs {
            bytes.extend(hvm_modlist_entry { paddr, size, ..Default::default() }.as_slice());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDOVER: Handover =
        Handover { ram: 64 << 20, command_line: 12, initramfs: Some((0x3f0_0000, 999)), acpi: true };

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn the_zero_page_has_everything_where_the_boot_protocol_puts_it() {
        let page = HANDOVER.zero_page();
        let bytes = page.as_slice();
        assert_eq!(bytes.len(), 4096);
        assert_eq!(u32_at(bytes, 0x202), u32::from_le_bytes(*b"HdrS"));
        assert_eq!(bytes[0x1fe..0x200], [0x55, 0xaa]);
        assert_eq!(u32_at(bytes, 0x218), 0x3f0_0000, "ramdisk_image");
        assert_eq!(u32_at(bytes, 0x21c), 999, "ramdisk_size");
        assert_eq!(u32_at(bytes, 0x228), layout::COMMAND_LINE as u32, "cmd_line_ptr");
        assert_eq!(u32_at(bytes, 0x70), layout::ACPI as u32, "acpi_rsdp_addr");
        assert_eq!(bytes[0x1e8], 3, "e820_entries");
        assert_eq!(u32_at(bytes, 0x2d0 + 40), layout::HIGH_RAM as u32, "third e820 entry");
    }

    #[test]
    fn the_start_info_leads_to_its_map_and_its_module() {
        let bytes = HANDOVER.start_info();
        assert_eq!(u32_at(&bytes, 0), 0x336e_c578);
        let map = (u32_at(&bytes, 40) - layout::PVH_START_INFO as u32) as usize;
        assert_eq!(u32_at(&bytes, map + 48), layout::HIGH_RAM as u32);
        let module = (u32_at(&bytes, 16) - layout::PVH_START_INFO as u32) as usize;
        assert_eq!([u32_at(&bytes, module), u32_at(&bytes, module + 8)], [0x3f0_0000, 999]);
        assert_eq!(bytes.len(), module + 32);
    }

    #[test]
    fn without_initramfs_and_acpi_the_fields_are_zero() {
        let bare = Handover { initramfs: None, acpi: false, ..HANDOVER };
        let page = bare.zero_page();
        assert_eq!([u32_at(page.as_slice(), 0x218), u32_at(page.as_slice(), 0x70)], [0, 0]);
        assert_eq!(u32_at(&bare.start_info(), 12), 0, "nr_modules");
    }
}
