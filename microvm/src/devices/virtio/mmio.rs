//! The virtio-mmio transport: registers, and the life of a device (virtio 1.2, section 4.2).
//!
//! ```text
//!   reset ─▶ ACKNOWLEDGE ─▶ DRIVER ─▶ features ─▶ FEATURES_OK ─▶ queues ─▶ DRIVER_OK ─▶ (NEEDS_RESET) ─▶ reset
//! ```
//!
//! A driver that skips a step or takes one back is ignored: it finds that the register does not hold what it wrote.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_DEVICE_FEATURES,
    VIRTIO_MMIO_DEVICE_FEATURES_SEL, VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_DRIVER_FEATURES,
    VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS,
    VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_LOW,
    VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_QUEUE_NUM,
    VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_USED_HIGH,
    VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_SHM_BASE_HIGH, VIRTIO_MMIO_SHM_BASE_LOW,
    VIRTIO_MMIO_SHM_LEN_HIGH, VIRTIO_MMIO_SHM_LEN_LOW, VIRTIO_MMIO_STATUS, VIRTIO_MMIO_VENDOR_ID,
    VIRTIO_MMIO_VERSION,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::back_end::{BackEnd, Live, Shared};
use super::{Fault, Interrupt, VirtioDevice, Virtqueue};
use crate::Error;
use crate::bus::BusDevice;
use crate::explain;
use crate::stats::DeviceReport;

/// Size of a device's window: the registers, then its configuration space.
pub const WINDOW: u64 = 0x1000;

/// Offset of the register that a driver writes a queue's number to: where KVM_IOEVENTFD listens.
pub const NOTIFY: u64 = VIRTIO_MMIO_QUEUE_NOTIFY as u64;

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;

/// The register layout of virtio 1.0 and later; 1 would be the legacy one.
const VERSION: u32 = 2;

/// Ours to choose; Linux prints it and nothing else.
const VENDOR: u32 = u32::from_le_bytes(*b"LAB\0");

/// What every device of ours offers. Packed rings would save cache misses, not exits: not offered.
const TRANSPORT_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;

/// A device on the bus.
pub struct VirtioMmio {
    pub(super) shared: Arc<Shared>,
    memory: Arc<GuestMemoryMmap>,
    /// The device's constants, copied so that reading them takes no lock.
    pub(super) id: u32,
    pub(super) offered: u64,
    /// As the driver configures them; the device gets copies at DRIVER_OK.
    pub(super) queues: Vec<Queue>,
    pub(super) selected_queue: u32,
    pub(super) features: u64,
    pub(super) selected_device_features: u32,
    pub(super) selected_driver_features: u32,
}

impl VirtioMmio {
    /// Puts the transport before a device. `irq` is to be registered with KVM_IRQFD, [`Self::queue_events`] with
    /// KVM_IOEVENTFD, and [`Self::back_end`] with the event loop.
    ///
    /// # Errors
    /// Where the process has no descriptors left, or the device's queue sizes are not powers of two.
    pub fn new(memory: GuestMemoryMmap, device: Box<dyn VirtioDevice>, irq: EventFd) -> Result<Self, Error> {
        let id = device.id();
        let offered = device.features() | TRANSPORT_FEATURES;
        let (mut queues, mut kicks) = (Vec::new(), Vec::new());
        for &size in device.queue_sizes() {
            queues.push(Queue::new(size).map_err(|error| Error::Device {
                device: "virtio",
                reason: format!("a queue of {size} descriptors: {error}"),
            })?);
            let kick = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
                .map_err(Error::system("make a queue's event (eventfd)"))?;
            kicks.push(Arc::new(kick));
        }
        let shared = Shared {
            descriptors: device.descriptors(),
            live: Mutex::new(Live { device, queues: Vec::new(), fault: None }),
            interrupt: Arc::new(Interrupt::new(irq)),
            status: AtomicU32::new(0),
            operations: AtomicU64::new(0),
            kicks,
        };
        Ok(Self {
            shared: Arc::new(shared),
            memory: Arc::new(memory),
            id,
            offered,
            queues,
            selected_queue: 0,
            features: 0,
            selected_device_features: 0,
            selected_driver_features: 0,
        })
    }

    /// The event of each queue, in their order: what KVM_IOEVENTFD is to signal for a write of the queue's number to
    /// [`NOTIFY`]. A write that comes here instead does the same.
    pub fn queue_events(&self) -> impl Iterator<Item = &EventFd> {
        self.shared.kicks.iter().map(AsRef::as_ref)
    }

    /// What it is and did.
    pub(crate) fn report(&self) -> DeviceReport {
        let live = self.shared.lock();
        DeviceReport {
            name: explain::device(self.id).into(),
            operations: self.shared.operations.load(Ordering::Relaxed),
            fault: live.fault.as_ref().map(ToString::to_string),
            queues: live.queues.iter().filter_map(Virtqueue::report).collect(),
        }
    }

    /// What the event loop runs.
    pub fn back_end(&self) -> BackEnd {
        BackEnd { shared: self.shared.clone() }
    }

    fn status(&self) -> u32 {
        self.shared.status.load(Ordering::Acquire)
    }

    fn has_status(&self, bits: u32) -> bool {
        self.status() & bits == bits
    }

    fn read_register(&self, offset: u32) -> u32 {
        let queue = self.queues.get(self.selected_queue as usize);
        match offset {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.id,
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => half(self.offered, self.selected_device_features),
            // A queue that does not exist has no room (section 4.2.2, QueueNumMax).
            VIRTIO_MMIO_QUEUE_NUM_MAX => queue.map_or(0, |queue| queue.max_size().into()),
            VIRTIO_MMIO_QUEUE_READY => queue.is_some_and(QueueT::ready).into(),
            VIRTIO_MMIO_INTERRUPT_STATUS => self.shared.interrupt.status(),
            VIRTIO_MMIO_STATUS => self.status(),
            VIRTIO_MMIO_CONFIG_GENERATION => self.shared.interrupt.generation(),
            // No shared memory regions: length and base read as all ones (section 4.2.2, SHMLen).
            VIRTIO_MMIO_SHM_LEN_LOW
            | VIRTIO_MMIO_SHM_LEN_HIGH
            | VIRTIO_MMIO_SHM_BASE_LOW
            | VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u32, value: u32) {
        match offset {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.selected_device_features = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.selected_driver_features = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.accept_features(value),
            VIRTIO_MMIO_QUEUE_SEL => self.selected_queue = value,
            VIRTIO_MMIO_QUEUE_NOTIFY => {
                if let Some(kick) = self.shared.kicks.get(value as usize) {
                    // Fails only where the counter is full: then the event is pending anyway.
                    let _ = kick.write(1);
                }
            }
            VIRTIO_MMIO_INTERRUPT_ACK => self.shared.interrupt.acknowledge(value),
            VIRTIO_MMIO_STATUS => self.set_status(value),
            _ => self.configure_queue(offset, value),
        }
    }

    fn accept_features(&mut self, value: u32) {
        if !self.has_status(VIRTIO_CONFIG_S_DRIVER) || self.has_status(VIRTIO_CONFIG_S_FEATURES_OK) {
            return;
        }
        let value = u64::from(value);
        match self.selected_driver_features {
            0 => self.features = self.features & !0xffff_ffff | value,
            1 => self.features = self.features & 0xffff_ffff | value << 32,
            _ => {}
        }
    }

    /// Queues are configured between FEATURES_OK and DRIVER_OK, each until it is made ready.
    fn configure_queue(&mut self, offset: u32, value: u32) {
        if !self.has_status(VIRTIO_CONFIG_S_FEATURES_OK) || self.has_status(VIRTIO_CONFIG_S_DRIVER_OK) {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.selected_queue as usize) else { return };
        if offset == VIRTIO_MMIO_QUEUE_READY {
            return queue.set_ready(value == 1);
        }
        if queue.ready() {
            return;
        }
        match offset {
            // One that does not fit in 16 bits is as wrong as 0, which the queue ignores.
            VIRTIO_MMIO_QUEUE_NUM => queue.set_size(u16::try_from(value).unwrap_or(0)),
            VIRTIO_MMIO_QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.set_avail_ring_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.set_avail_ring_address(None, Some(value)),
            VIRTIO_MMIO_QUEUE_USED_LOW => queue.set_used_ring_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_USED_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32) {
        let old = self.status();
        let added = value & !old;
        if value == 0 {
            self.reset();
        } else if value & VIRTIO_CONFIG_S_FAILED != 0 {
            self.add_status(VIRTIO_CONFIG_S_FAILED);
        } else if old & (VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET) == 0 && value & old == old {
            // The driver may set bits, one step after the other; to clear one it must reset (section 2.1.1).
            match (old, added) {
                (0, VIRTIO_CONFIG_S_ACKNOWLEDGE) | (VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER) => {
                    self.add_status(added);
                }
                (_, VIRTIO_CONFIG_S_FEATURES_OK)
                    if old & VIRTIO_CONFIG_S_DRIVER != 0
                        && self.features & !self.offered == 0
                        && self.features & 1 << VIRTIO_F_VERSION_1 != 0 =>
                {
                    self.add_status(added);
                }
                (_, VIRTIO_CONFIG_S_DRIVER_OK) if old & VIRTIO_CONFIG_S_FEATURES_OK != 0 => self.activate(),
                _ => {}
            }
        }
    }

    fn add_status(&self, bits: u32) {
        self.shared.status.fetch_or(bits, Ordering::AcqRel);
    }

    /// DRIVER_OK: hands the queues to the device, and looks into each for what the driver put there already.
    fn activate(&mut self) {
        let event_idx = self.features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        self.queues.iter_mut().for_each(|queue| queue.set_event_idx(event_idx));
        self.hand_over_queues();
    }

    /// Gives the device its queues as they are now.
    pub(super) fn hand_over_queues(&self) {
        let mut live = self.shared.lock();
        live.queues.clear();
        for (queue, kick) in self.queues.iter().zip(&self.shared.kicks) {
            let copy = match Queue::try_from(queue.state()) {
                Ok(copy) if !copy.ready() || copy.is_valid(&*self.memory) => copy,
                Ok(_) => return self.shared.fail(live, Fault::Driver("a ring lies outside guest memory")),
                Err(error) => return self.shared.fail(live, error.into()),
            };
            let interrupt = self.shared.interrupt.clone();
            live.queues.push(Virtqueue::new(copy, self.memory.clone(), interrupt, kick.clone()));
        }
        live.device.activate(self.features);
        self.add_status(VIRTIO_CONFIG_S_DRIVER_OK);
        drop(live);
        for kick in &self.shared.kicks {
            let _ = kick.write(1);
        }
    }

    fn reset(&mut self) {
        let mut live = self.shared.lock();
        live.queues.clear();
        live.fault = None;
        live.device.reset();
        for queue in &mut self.queues {
            queue.reset();
        }
        self.features = 0;
        (self.selected_queue, self.selected_device_features, self.selected_driver_features) = (0, 0, 0);
        self.shared.interrupt.acknowledge(u32::MAX);
        self.shared.status.store(0, Ordering::Release);
    }
}

/// The 32 bits of a feature set that a selector register chooses.
fn half(features: u64, selector: u32) -> u32 {
    match selector {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

impl BusDevice for VirtioMmio {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(VIRTIO_MMIO_CONFIG.into()) {
            self.shared.lock().device.read_config(offset, data);
        } else if let (Ok(register), 0) = (<&mut [u8; 4]>::try_from(data), offset % 4) {
            // Registers are 32 bits wide and accessed as such (section 4.2.2.2).
            *register = self.read_register(offset as u32).to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(VIRTIO_MMIO_CONFIG.into()) {
            self.shared.lock().device.write_config(offset, data);
        } else if let (Ok(&value), 0) = (<&[u8; 4]>::try_from(data), offset % 4) {
            self.write_register(offset as u32, u32::from_le_bytes(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rng::Rng;
    use super::super::testing::{Buffer, Driver};
    use super::*;

    fn driver() -> Driver {
        Driver::new(Box::new(Rng))
    }

    #[test]
    fn a_driver_finds_a_virtio_device_of_the_modern_kind() {
        let mut driver = driver();
        assert_eq!(driver.read(0).to_le_bytes(), *b"virt");
        assert_eq!((driver.read(4), driver.read(8)), (2, 4));
        assert_ne!(driver.features() & TRANSPORT_FEATURES, 0);
        assert_eq!((driver.read(0xb0), driver.read(0xb4)), (u32::MAX, u32::MAX), "no shared memory");
    }

    #[test]
    fn used_buffers_raise_the_interrupt_until_it_is_acknowledged() {
        let mut driver = driver();
        driver.request(0, &[Buffer::Write(8)]).unwrap();
        assert_eq!(driver.irq.read().unwrap(), 1);
        assert_eq!(driver.read(0x60), 1);
        driver.write(0x64, 1);
        assert_eq!(driver.read(0x60), 0);
    }

    #[test]
    fn with_event_idx_the_driver_is_interrupted_only_where_it_asked_to_be() {
        let mut driver = driver();
        driver.request(0, &[Buffer::Write(8)]).unwrap();
        driver.irq.read().unwrap();
        // The driver wants to hear of the third buffer, not of the second.
        driver.add(0, &[Buffer::Write(8)]);
        driver.set_used_event(0, 2);
        driver.settle();
        assert!(driver.irq.read().is_err());
        driver.add(0, &[Buffer::Write(8)]);
        driver.set_used_event(0, 2);
        driver.settle();
        assert_eq!(driver.irq.read().unwrap(), 1);
    }

    #[test]
    fn steps_that_are_skipped_or_taken_back_do_not_happen() {
        let mut driver = driver();
        driver.write(0x70, 0);
        driver.write(0x70, 0xf);
        assert_eq!(driver.read(0x70), 0, "all steps at once");
        driver.write(0x70, 2);
        assert_eq!(driver.read(0x70), 0, "DRIVER before ACKNOWLEDGE");
        driver.write(0x70, 1);
        driver.write(0x70, 2);
        assert_eq!(driver.read(0x70), 1, "ACKNOWLEDGE taken back");
        driver.write(0x70, 3);
        driver.write(0x70, 7);
        assert_eq!(driver.read(0x70), 3, "DRIVER_OK before FEATURES_OK");
        driver.write(0x70, 0x83);
        assert_eq!(driver.read(0x70), 0x83, "the driver may always give up");
        driver.write(0x70, 0x8b);
        assert_eq!(driver.read(0x70), 0x83, "and only a reset helps then");
    }

    #[test]
    fn features_that_were_not_offered_or_lack_version_1_are_not_accepted() {
        for features in [1u64 << 63 | 1 << VIRTIO_F_VERSION_1, 0] {
            let mut driver = driver();
            for status in [0, 1, 3] {
                driver.write(0x70, status);
            }
            for half in 0..2u32 {
                driver.write(0x24, half);
                driver.write(0x20, (features >> (32 * half)) as u32);
            }
            driver.write(0x70, 0xb);
            assert_eq!(driver.read(0x70), 3);
        }
    }

    #[test]
    fn rings_outside_memory_stop_the_device() {
        for register in [0x80, 0x90, 0xa0] {
            let mut driver = driver();
            driver.negotiate();
            driver.set_up_queues();
            driver.write(0x30, 0);
            driver.write(0x44, 0);
            driver.write(register, 0xffff_fff0);
            driver.write(register + 4, 0xffff_ffff);
            driver.write(0x44, 1);
            driver.write(0x70, 0xf);
            assert!(driver.needs_reset(), "{register:#x}");
            assert!(driver.back_end.fault().is_some());
        }
    }

    #[test]
    fn a_running_queue_keeps_its_rings_and_its_size() {
        let mut driver = driver();
        driver.write(0x30, 0);
        driver.write(0x44, 0);
        driver.write(0x38, 1);
        driver.write(0x80, 0);
        assert_eq!(driver.read(0x44), 1);
        assert!(driver.request(0, &[Buffer::Write(8)]).is_some());
    }

    #[test]
    fn a_reset_device_is_as_new() {
        let mut driver = driver();
        driver.request(0, &[Buffer::Write(8)]).unwrap();
        driver.write(0x70, 0);
        assert_eq!((driver.read(0x70), driver.read(0x60), driver.read(0x44)), (0, 0, 0));
        driver.write(0x50, 0);
        driver.settle();
        driver.restart();
        assert!(driver.request(0, &[Buffer::Write(8)]).is_some());
    }

    #[test]
    fn odd_accesses_are_harmless() {
        let mut driver = driver();
        for offset in (0..WINDOW).chain([u64::MAX]) {
            for len in [0, 1, 2, 3, 4, 8] {
                driver.mmio.read(offset, &mut [0xff; 8][..len]);
                driver.mmio.write(offset, &[0xff; 8][..len]);
            }
        }
        driver.restart();
        assert!(driver.request(0, &[Buffer::Write(8)]).is_some());
    }
}
