//! Where the kernel's list of renewals is: a port where it says so once, when it has booted.
//!
//! The list itself is read by [`crate::snapshot`], when a machine is made of a snapshot.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::bus::BusDevice;

/// The port [`guest_wire::RENEWALS_PORT`].
#[derive(Debug, Default)]
pub struct Renewals {
    list: AtomicU32,
}

impl Renewals {
    /// The guest-physical address of the list; 0 where the kernel has none.
    pub fn list(&self) -> u32 {
        self.list.load(Ordering::Relaxed)
    }

    /// A restored kernel has said so before.
    pub fn set_list(&self, list: u32) {
        self.list.store(list, Ordering::Relaxed);
    }
}

impl BusDevice for Renewals {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, _offset: u64, data: &[u8]) {
        // Whatever it is worth: the list is looked for in guest memory, and only that is ever written to because of it.
        if let Ok(address) = data.try_into() {
            self.set_list(u32::from_le_bytes(address));
        }
    }
}
