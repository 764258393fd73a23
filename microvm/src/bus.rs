//! The bus: which device answers when the guest touches an address.
//!
//! A guest's access to an I/O port, or to guest-physical memory behind which there is no RAM, makes `KVM_RUN` return
//! (KVM_EXIT_IO, KVM_EXIT_MMIO). The vCPU thread then looks the address up here and calls the device. There are two
//! buses, because x86 has two address spaces: ports (16 bits) and memory.
//!
//! Devices are registered before the first vCPU runs and never change, so the look-up takes no lock; only the device
//! itself is locked, because two vCPUs may touch it at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;

/// A device that answers accesses in its window of a bus.
///
/// The guest is hostile: it may access any offset of the window with any length from 1 to 8 bytes (a single MMIO exit
/// carries at most 8, Documentation/virt/kvm/api.rst, `kvm_run.mmio`). A device must not panic.
pub trait BusDevice: Send {
    /// Fills `data` for a read at `offset` from the window's start. What is not filled reads as all ones.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Takes `data` for a write at `offset` from the window's start.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// A device as several vCPU threads and the event loop share it.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

/// One address space of devices.
#[derive(Clone, Default)]
pub struct Bus {
    windows: BTreeMap<u64, Window>,
}

#[derive(Clone)]
struct Window {
    /// Last address, inclusive, so that a window may end at the top of the address space.
    last: u64,
    device: SharedDevice,
}

impl Bus {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a device at `base .. base + len`.
    ///
    /// # Errors
    /// [`Error::BusOverlap`] where the window is empty, leaves the address space or overlaps another device's.
    pub fn insert(&mut self, base: u64, len: u64, device: SharedDevice) -> Result<(), Error> {
        let overlap = Error::BusOverlap { base, len };
        let Some(last) = len.checked_sub(1).and_then(|span| base.checked_add(span)) else {
            return Err(overlap);
        };
        // The only window that can reach into ours is the last one that begins at or below our end.
        if self.windows.range(..=last).next_back().is_some_and(|(_, other)| other.last >= base) {
            return Err(overlap);
        }
        self.windows.insert(base, Window { last, device });
        Ok(())
    }

    /// Reads from the device at `address`. Whether there is one; where there is none, `data` becomes all ones, as on a
    /// real bus that nobody drives.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        data.fill(0xff);
        let Some((offset, device)) = self.find(address, data.len()) else { return false };
        device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
        true
    }

    /// Writes to the device at `address`. Whether there is one.
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        let Some((offset, device)) = self.find(address, data.len()) else { return false };
        device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
        true
    }

    /// The device whose window holds the whole access, and the access's offset in it.
    // ANCHOR: find
    fn find(&self, address: u64, len: usize) -> Option<(u64, &SharedDevice)> {
        let (base, window) = self.windows.range(..=address).next_back()?;
        let last = address.checked_add(len.checked_sub(1)? as u64)?;
        (last <= window.last).then_some((address - base, &window.device))
    }
    // ANCHOR_END: find
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each read with its offset and remembers what was written.
    #[derive(Default)]
    struct Echo {
        written: Vec<(u64, Vec<u8>)>,
    }

    impl BusDevice for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data[0] = offset as u8;
        }
        fn write(&mut self, offset: u64, data: &[u8]) {
            self.written.push((offset, data.to_vec()));
        }
    }

    fn echo() -> Arc<Mutex<Echo>> {
        Arc::default()
    }

    #[test]
    fn a_device_sees_offsets_from_the_start_of_its_window() {
        let (mut bus, device) = (Bus::new(), echo());
        bus.insert(0x1000, 0x10, device.clone()).unwrap();
        let mut byte = [0];
        assert!(bus.read(0x100f, &mut byte));
        assert_eq!(byte, [0x0f]);
        assert!(bus.write(0x1004, &[1, 2]));
        assert_eq!(device.lock().unwrap().written, [(4, vec![1, 2])]);
    }

    #[test]
    fn nobody_drives_what_no_device_claims_and_it_reads_as_ones() {
        let mut bus = Bus::new();
        bus.insert(0x1000, 0x10, echo()).unwrap();
        for address in [0, 0xfff, 0x1010, u64::MAX] {
            let mut data = [0; 4];
            assert!(!bus.read(address, &mut data), "{address:#x}");
            assert_eq!(data, [0xff; 4]);
            assert!(!bus.write(address, &data));
        }
    }

    #[test]
    fn an_access_across_the_end_of_a_window_reaches_no_device() {
        let mut bus = Bus::new();
        bus.insert(0x1000, 0x10, echo()).unwrap();
        assert!(!bus.write(0x100e, &[0; 4]));
        assert!(!bus.write(0x1000, &[]));
    }

    #[test]
    fn windows_may_touch_but_not_overlap() {
        let mut bus = Bus::new();
        bus.insert(0x1000, 0x10, echo()).unwrap();
        bus.insert(0x1010, 0x10, echo()).unwrap();
        bus.insert(0x0ff0, 0x10, echo()).unwrap();
        bus.insert(u64::MAX, 1, echo()).unwrap();
        for (base, len) in
            [(0x1000, 0x10), (0x100f, 1), (0x0fff, 2), (0, u64::MAX), (0x2000, 0), (u64::MAX, 2)]
        {
            assert!(bus.insert(base, len, echo()).is_err(), "{base:#x}+{len:#x}");
        }
    }
}
