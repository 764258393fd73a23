//! One queue: its rings in guest memory, and the interrupt that says that something was put there.
//!
//! The crate `virtio-queue` keeps the rings' indices and bounds. This file adds what a device wants: chains one after
//! another ([`Chain`]), a fair share of the event loop, and as few notifications either way as EVENT_IDX allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::{Chain, Fault};
use crate::stats::QueueReport;

/// A device's interrupt line, and why it was raised (virtio 1.2, section 4.2.2, InterruptStatus).
///
/// Not behind the device's lock: the guest acknowledges an interrupt from a vCPU thread while the device works on.
#[derive(Debug)]
pub struct Interrupt {
    line: EventFd,
    status: AtomicU32,
    generation: AtomicU32,
}

impl Interrupt {
    /// An interrupt that writes to `line`, which KVM_IRQFD turns into an edge of the device's interrupt.
    pub fn new(line: EventFd) -> Self {
        Self { line, status: AtomicU32::new(0), generation: AtomicU32::new(0) }
    }

    /// Tells the driver that buffers were used.
    ///
    /// # Errors
    /// Where the line cannot be written: only when the VM is gone.
    pub fn used_buffers(&self) -> Result<(), Fault> {
        self.raise(VIRTIO_MMIO_INT_VRING)
    }

    /// Tells the driver that the configuration space or the device's status changed.
    ///
    /// # Errors
    /// As [`Interrupt::used_buffers`].
    pub fn config_changed(&self) -> Result<(), Fault> {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.raise(VIRTIO_MMIO_INT_CONFIG)
    }

    fn raise(&self, reason: u32) -> Result<(), Fault> {
        self.status.fetch_or(reason, Ordering::AcqRel);
        self.line.write(1).map_err(|source| Fault::Host { operation: "raise an interrupt", source })
    }

    /// The reasons not yet acknowledged.
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::Acquire)
    }

    /// The driver saw these reasons.
    pub fn acknowledge(&self, reasons: u32) {
        self.status.fetch_and(!reasons, Ordering::AcqRel);
    }

    /// Puts both registers back as a snapshot has them, and raises the line for what the driver has not seen: whether that
    /// interrupt had reached it, nobody can tell, and one too many does no harm.
    pub(super) fn restore(&self, status: u32, generation: u32) {
        self.status.store(status, Ordering::Release);
        self.generation.store(generation, Ordering::Release);
        if status != 0 {
            // Fails only where its counter is full: then it is raised.
            let _ = self.line.write(1);
        }
    }

    /// Changes with the configuration space, so that the driver notices a change between two reads.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }
}

/// A queue as a device sees it.
#[derive(Debug)]
pub struct Virtqueue {
    queue: Queue,
    memory: Arc<GuestMemoryMmap>,
    interrupt: Arc<Interrupt>,
    kick: Arc<EventFd>,
    must_notify: bool,
}

impl Virtqueue {
    /// A queue that the driver has set up; `kick` is the event by which the driver announces buffers.
    pub fn new(
        queue: Queue,
        memory: Arc<GuestMemoryMmap>,
        interrupt: Arc<Interrupt>,
        kick: Arc<EventFd>,
    ) -> Self {
        Self { queue, memory, interrupt, kick, must_notify: false }
    }

    /// Where it is, for a snapshot.
    pub(super) fn state(&self) -> QueueState {
        self.queue.state()
    }

    /// Where it is and how far both sides are; none of a queue that the driver does not use.
    pub(super) fn report(&self) -> Option<QueueReport> {
        let state = self.queue.state();
        // Behind each ring's flags stands its index (sections 2.7.6 and 2.7.8). What cannot be read was never valid.
        let index = |ring: u64| {
            let bytes: [u8; 2] = self.memory.read_obj(GuestAddress(ring.checked_add(2)?)).ok()?;
            Some(u16::from_le_bytes(bytes))
        };
        self.queue.ready().then_some(())?;
        Some(QueueReport {
            size: state.size,
            descriptors: state.desc_table,
            available: state.avail_ring,
            used: state.used_ring,
            offered: index(state.avail_ring)?,
            taken: state.next_avail,
            returned: index(state.used_ring)?,
        })
    }

    /// Serves the chains that are available: `serve` does what a chain asks and returns how many bytes it wrote to it.
    ///
    /// At most one ring's worth at a time: a driver that refills the ring as fast as it is emptied shall not keep the
    /// event loop from the other devices. What is left is announced again.
    ///
    /// # Errors
    /// A broken ring or chain, or what `serve` returns.
    pub fn serve(&mut self, mut serve: impl FnMut(&mut Chain) -> Result<u32, Fault>) -> Result<(), Fault> {
        let mut budget = self.queue.size();
        while budget > 0 {
            budget -= 1;
            let Some(mut chain) = self.pop()? else { break };
            let written = serve(&mut chain)?;
            self.used(&chain, written)?;
        }
        self.notify()?;
        if budget == 0 { self.postpone() } else { Ok(()) }
    }

    /// Has this queue looked at again after the other devices had their turn.
    ///
    /// # Errors
    /// Where the event cannot be written: never, while its counter is read or small.
    pub fn postpone(&self) -> Result<(), Fault> {
        self.kick.write(1).map_err(|source| Fault::Host { operation: "postpone a queue", source })
    }

    /// The next available chain. Where there is none, the driver is asked to announce the next.
    ///
    /// # Errors
    /// A broken ring or chain.
    // ANCHOR: pop
    pub fn pop(&mut self) -> Result<Option<Chain>, Fault> {
        if !self.queue.ready() {
            return Ok(None);
        }
        loop {
            if let Some(chain) = self.queue.iter(&*self.memory)?.next() {
                return Chain::walk(chain, self.queue.size(), &self.memory).map(Some);
            }
            // With EVENT_IDX this writes the index that we want to hear about; a buffer that came in meanwhile is
            // seen by the second look that `enable_notification` takes (virtio 1.2, section 2.7.10).
            if !self.queue.enable_notification(&*self.memory)? {
                return Ok(None);
            }
        }
    }
    // ANCHOR_END: pop

    /// Takes back the last [`Virtqueue::pop`]: the chain stays available.
    pub fn unpop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a chain back to the driver, `written` bytes of it filled.
    ///
    /// # Errors
    /// A broken ring.
    pub fn used(&mut self, chain: &Chain, written: u32) -> Result<(), Fault> {
        Ok(self.queue.add_used(&*self.memory, chain.head(), written)?)
    }

    /// Gives several chains back as one: the driver sees none of them before all are there.
    ///
    /// # Errors
    /// A broken ring.
    pub fn used_together(&mut self, chains: &[(Chain, u32)]) -> Result<(), Fault> {
        let Some(((last, written), others)) = chains.split_last() else { return Ok(()) };
        // `add_used` publishes what it adds at once. So the others are written behind the published index by hand
        // (struct virtq_used_elem: two words; virtio 1.2, section 2.7.8), and the last one publishes all.
        let first = self.queue.next_used();
        for (place, (chain, written)) in (0..).zip(others) {
            let slot = u64::from(first.wrapping_add(place) % self.queue.size());
            let at = GuestAddress(self.queue.used_ring().saturating_add(4 + 8 * slot));
            self.memory.write_obj([u32::from(chain.head()), *written].map(u32::to_le), at)?;
        }
        self.queue.set_next_used(first.wrapping_add(others.len() as u16));
        // The crate counts one chain only; the index that the driver waits for may lie among the others.
        self.must_notify |= !others.is_empty();
        self.used(last, *written)
    }

    /// Interrupts the driver if chains were given back and it wants to know (EVENT_IDX).
    ///
    /// # Errors
    /// A broken ring.
    pub fn notify(&mut self) -> Result<(), Fault> {
        if self.queue.ready() && (self.queue.needs_notification(&*self.memory)? | self.must_notify) {
            self.must_notify = false;
            self.interrupt.used_buffers()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rng::Rng;
    use super::super::testing::{Buffer, Driver};

    const SIZE: u16 = 8;

    #[test]
    fn an_available_index_that_runs_ahead_of_the_ring_stops_the_device() {
        let mut driver = Driver::new(Box::new(Rng));
        driver.set_available(0, SIZE + 1);
        driver.write(0x50, 0);
        driver.settle();
        assert!(driver.needs_reset());
    }

    #[test]
    fn a_head_that_is_no_descriptor_stops_the_device() {
        let mut driver = Driver::new(Box::new(Rng));
        driver.offer(0, SIZE);
        driver.settle();
        assert!(driver.needs_reset());
    }

    #[test]
    fn a_full_ring_is_served_whole() {
        let mut driver = Driver::new(Box::new(Rng));
        for _ in 0..SIZE {
            driver.add(0, &[Buffer::Write(8)]);
        }
        driver.settle();
        for _ in 0..SIZE {
            assert_eq!(driver.take_used(0).unwrap().1, 8);
        }
    }
}
