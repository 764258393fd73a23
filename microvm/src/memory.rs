//! Guest memory: anonymous pages of the VMM that KVM shows to the guest.
//!
//! Nothing is copied or cleared in advance: the mapping is anonymous, so a page costs memory from the moment that the guest or
//! a loader first touches it. The kernel's own pages come from its file by a private mapping: what the guest does not
//! read is never loaded, what it does not write is shared by all VMs of the machine.

use std::fs::File;
use std::os::fd::AsFd;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, ReadVolatile};

use crate::Error;
use crate::arch::layout;
use crate::sys;

/// Maps guest memory of `mib` MiB, around the hole where the devices are.
///
/// # Errors
/// Less memory than any kernel can use, or more than the system gives.
pub fn allocate(mib: u32) -> Result<GuestMemoryMmap, Error> {
    if mib < 4 {
        return Err(Error::MemoryTooSmall { mib: mib.into(), needed: 4 });
    }
    let ranges: Vec<_> = layout::ram(u64::from(mib) << 20)
        .into_iter()
        .map(|(start, len)| (GuestAddress(start), len as usize))
        .collect();
    GuestMemoryMmap::from_ranges(&ranges).map_err(|error| Error::Memory { mib, reason: error.to_string() })
}

/// Shows the memory to the guest, one KVM slot for each region.
///
/// The caller keeps the memory mapped for as long as the VM exists; [`crate::vm::Vm`] drops the VM first.
///
/// # Errors
/// The ioctl failed.
pub fn register(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<(), Error> {
    for (slot, region) in memory.iter().enumerate() {
        let region = kvm_userspace_memory_region {
            slot: slot as u32,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
            flags: 0,
        };
        sys::set_memory_region(vm, region).map_err(Error::kvm("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}

/// Puts `len` bytes of the file, from `offset`, at guest address `to`: whole pages by mapping them privately, the rest, and
/// everything where page boundaries do not agree, by reading.
///
/// The file must not shrink while the VM runs (the guest would then die of a bus error); the kernels that the lab
/// caches are never changed in place.
///
/// # Errors
/// The range is not in guest memory, or the file is shorter.
// ANCHOR: load_file
pub fn load_file(
    memory: &GuestMemoryMmap,
    file: &mut File,
    offset: u64,
    to: u64,
    len: u64,
) -> Result<(), LoadError> {
    let slice = memory.get_slice(GuestAddress(to), len as usize).map_err(|_| LoadError::OutsideMemory)?;
    if file.metadata().map_err(LoadError::Io)?.len() < offset.checked_add(len).ok_or(LoadError::Truncated)? {
        return Err(LoadError::Truncated);
    }
    let page = layout::PAGE;
    let head = (page - to % page) % page;
    let whole = len.saturating_sub(head) / page * page;
    if whole == 0 || offset % page != to % page {
        return copy(&slice, file, offset, 0, len);
    }
    copy(&slice, file, offset, 0, head)?;
    sys::map_file_over(&slice, head as usize, whole as usize, file.as_fd(), offset + head)
        .map_err(LoadError::Io)?;
    copy(&slice, file, offset, head + whole, len - head - whole)
}
// ANCHOR_END: load_file

fn copy(
    slice: &vm_memory::VolatileSlice<'_>,
    file: &mut File,
    offset: u64,
    from: u64,
    len: u64,
) -> Result<(), LoadError> {
    use std::io::{Seek, SeekFrom};
    if len == 0 {
        return Ok(());
    }
    file.seek(SeekFrom::Start(offset + from)).map_err(LoadError::Io)?;
    let mut part = slice.subslice(from as usize, len as usize).map_err(|_| LoadError::OutsideMemory)?;
    file.read_exact_volatile(&mut part).map_err(|_| LoadError::Truncated)
}

/// Why a part of a file did not get into guest memory.
#[derive(Debug)]
pub enum LoadError {
    /// The destination is not (wholly) guest memory.
    OutsideMemory,
    /// The file ends too early.
    Truncated,
    /// Reading or mapping failed.
    Io(std::io::Error),
}

/// Writes bytes to guest memory.
///
/// # Errors
/// Where there is none.
pub fn write(memory: &GuestMemoryMmap, what: &'static str, address: u64, bytes: &[u8]) -> Result<(), Error> {
    memory
        .write_slice(bytes, GuestAddress(address))
        .map_err(|error| Error::GuestMemory { what, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 7) as u8).collect()
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn read(memory: &GuestMemoryMmap, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    #[test]
    fn a_file_arrives_whole_whether_mapped_or_copied() {
        let content = pattern(5 * 4096 + 99);
        // aligned alike; alike but not at a page; not alike; shorter than a page
        for (offset, to, len) in [(4096, 8192, 16000), (4099, 8195, 16000), (1, 8192, 16000), (10, 8202, 50)]
        {
            let memory = allocate(4).unwrap();
            let mut file = file_of(&content);
            load_file(&memory, &mut file, offset, to, len).unwrap();
            let expected = &content[offset as usize..(offset + len) as usize];
            assert!(read(&memory, to, len as usize) == expected, "{offset} {to} {len}");
            // and nothing around it was touched
            assert_eq!(read(&memory, to - 1, 1), [0]);
            assert_eq!(read(&memory, to + len, 64), [0; 64]);
        }
    }

    #[test]
    fn what_the_guest_writes_to_a_mapped_kernel_does_not_reach_the_file() {
        let mut file = file_of(&pattern(8192));
        let memory = allocate(4).unwrap();
        load_file(&memory, &mut file, 0, 0x10_0000, 8192).unwrap();
        memory.write_slice(b"changed", GuestAddress(0x10_0000)).unwrap();
        let again = allocate(4).unwrap();
        load_file(&again, &mut file, 0, 0x10_0000, 8192).unwrap();
        assert_eq!(read(&again, 0x10_0000, 7), pattern(7));
    }

    #[test]
    fn a_truncated_file_and_an_address_outside_memory_are_refused() {
        let memory = allocate(4).unwrap();
        let mut file = file_of(&pattern(4096));
        assert!(matches!(load_file(&memory, &mut file, 0, 0, 4097), Err(LoadError::Truncated)));
        assert!(matches!(load_file(&memory, &mut file, u64::MAX, 0, 1), Err(LoadError::Truncated)));
        assert!(matches!(load_file(&memory, &mut file, 0, 4 << 20, 1), Err(LoadError::OutsideMemory)));
        assert!(matches!(load_file(&memory, &mut file, 0, u64::MAX, 2), Err(LoadError::OutsideMemory)));
    }
}
