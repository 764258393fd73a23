//! Virtio: the devices of a guest that knows it is one.
//!
//! A virtio device shares *rings* of buffer descriptors with its driver (virtio 1.2, section 2.7). The driver puts
//! buffers into a ring and writes the ring's number to a register; the device fills or empties them, puts them on the
//! used side and raises an interrupt. That register write is the only exit to the VMM that data ever costs.
//!
//! ```text
//!   vCPU threads                    event-loop thread                    host
//!  ┌──────────────┐  registers  ┌─────────────────────────┐
//!  │ bus → mmio   │────────────▶│ BackEnd: VirtioDevice   │◀──────── disk file, socket, …
//!  └──────────────┘  (locked)   │  process(event, queues) │
//!     KVM_IOEVENTFD ───────────▶│                         │
//!     KVM_IRQFD    ◀────────────│ Interrupt               │
//!                               └─────────────────────────┘
//! ```
//!
//! Read in this order: this trait; [`Virtqueue`] and [`Chain`], what a hostile guest can put into a ring and why
//! it does not matter; [`mmio`], the registers and the life of a device; then the devices: [`rng`] is the
//! smallest, then [`balloon`], [`blk`], [`console`], [`net`], [`vsock`] and [`mod@fs`].

mod back_end;
pub mod balloon;
pub mod blk;
mod chain;
pub mod console;
pub mod fs;
#[cfg(test)]
mod hostile;
pub mod mmio;
pub mod net;
pub mod queue;
pub mod rng;
pub(crate) mod state;
mod sys;
#[cfg(test)]
mod testing;
pub mod vsock;

pub use back_end::BackEnd;
pub use chain::{Chain, LastByte};
pub use mmio::VirtioMmio;
pub use queue::{Interrupt, Virtqueue};

use std::os::fd::RawFd;

/// What makes one kind of device differ from another. The transport does the rest.
///
/// The transport calls every method with the device locked, so a device is plain single-threaded code. It never panics
/// and never waits: the guest chooses what is in the rings, and one slow device must not stop the others.
pub trait VirtioDevice: Send {
    /// The device's number (virtio 1.2, section 5), `VIRTIO_ID_*`.
    fn id(&self) -> u32;

    /// The feature bits it offers beyond those of the transport (VERSION_1, INDIRECT_DESC, EVENT_IDX).
    fn features(&self) -> u64;

    /// How many descriptors each of its queues can hold: powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// Fills `data` from its configuration space at `offset`; what lies beyond its end stays as it is (zeroes).
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Takes a write to its configuration space. Most devices have nothing to write there.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The host's descriptors to watch, besides its queues, for reading and writing, edge-triggered. They must not block.
    fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }

    /// Whether its work may take as long as the host's disk does. Then it is done on a thread of its own, so that other devices
    /// do not wait for it.
    fn waits(&self) -> bool {
        false
    }

    /// The driver is up and accepted these features. [`Event::Queue`] follows for each queue.
    fn activate(&mut self, _features: u64) {}

    /// Something happened; do all that can be done now, without waiting.
    ///
    /// # Errors
    /// A [`Fault`] stops the device until the driver resets it.
    fn process(&mut self, event: Event, queues: &mut [Virtqueue]) -> Result<(), Fault>;

    /// Forget the driver: it reset the device. The host side stays.
    fn reset(&mut self) {}

    /// What it remembers of its driver, for a snapshot. The transport saves the queues. The host's side is no part of it: a
    /// restored device gets one of its own.
    ///
    /// # Errors
    /// Why it cannot be saved now: what it holds that is the host's.
    fn save(&self) -> Result<Vec<u8>, &'static str> {
        Ok(Vec::new())
    }

    /// Takes back what [`VirtioDevice::save`] gave. Whether it was that.
    fn restore(&mut self, state: &[u8]) -> bool {
        state.is_empty()
    }
}

/// What happened to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The driver put buffers into this queue (or may have).
    Queue(usize),
    /// One of [`VirtioDevice::descriptors`], by its place in that list, became readable or writable.
    Descriptor(usize),
}

/// Why a device stopped serving its driver. It shows DEVICE_NEEDS_RESET from then on (virtio 1.2, section 2.1.1).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A ring is not where it should be or not as it should be.
    #[error("the guest's driver broke a ring: {0}")]
    Ring(#[from] virtio_queue::Error),
    /// A buffer lies outside guest memory.
    #[error("the guest's driver gave a buffer outside its memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// The driver did what the specification forbids.
    #[error("the guest's driver broke the rules: {0}")]
    Driver(&'static str),
    /// The host's side failed.
    #[error("cannot {operation}: {source}")]
    Host {
        /// What was to be done.
        operation: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Copies a device's configuration space to a read of it; beyond its end, nothing.
fn copy_config(config: &[u8], offset: u64, data: &mut [u8]) {
    let from = usize::try_from(offset).ok().and_then(|offset| config.get(offset..)).unwrap_or_default();
    for (to, from) in data.iter_mut().zip(from) {
        *to = *from;
    }
}
