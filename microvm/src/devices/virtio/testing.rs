//! A driver in miniature, for the tests: it does what Linux' virtio-mmio driver does, in memory that looks like a
//! guest's, through the same registers. And, unlike Linux, whatever a test asks of it.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{BackEnd, VirtioDevice, VirtioMmio};
use crate::bus::BusDevice;
use crate::event_loop::EventHandler;

/// Size of the guest's memory.
pub(super) const MEMORY: u64 = 2 << 20;

/// Where a queue's rings lie: descriptors, available, used.
const RINGS: u64 = 0x10000;
/// Where buffers are placed.
const BUFFERS: u64 = 0x100000;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// A buffer of a request.
#[derive(Clone, Copy)]
pub(super) enum Buffer<'a> {
    /// For the device to read.
    Read(&'a [u8]),
    /// For the device to fill.
    Write(u32),
}

pub(super) struct Driver {
    pub(super) memory: GuestMemoryMmap,
    pub(super) mmio: VirtioMmio,
    pub(super) back_end: BackEnd,
    pub(super) irq: EventFd,
    queues: Vec<Ring>,
    next_buffer: u64,
}

#[derive(Clone, Default)]
struct Ring {
    size: u16,
    next_descriptor: u16,
    available: u16,
    used: u16,
}

impl Driver {
    /// A device with its driver, up and running.
    pub(super) fn new(device: Box<dyn VirtioDevice>) -> Self {
        Self::with(|_| device)
    }

    /// The same with a device that knows the guest's memory.
    pub(super) fn with(device: impl FnOnce(&GuestMemoryMmap) -> Box<dyn VirtioDevice>) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        let device = device(&memory);
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let mmio = VirtioMmio::new(memory.clone(), device, irq.try_clone().unwrap()).unwrap();
        let back_end = mmio.back_end();
        let mut driver = Self { memory, mmio, back_end, irq, queues: Vec::new(), next_buffer: BUFFERS };
        driver.restart();
        driver
    }

    /// The same driver, in the same memory, before a new device.
    pub(super) fn on_a_new_device(self, device: Box<dyn VirtioDevice>) -> Self {
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let mmio = VirtioMmio::new(self.memory.clone(), device, irq.try_clone().unwrap()).unwrap();
        let back_end = mmio.back_end();
        Self { mmio, back_end, irq, ..self }
    }

    pub(super) fn read(&mut self, register: u64) -> u32 {
        let mut value = [0; 4];
        self.mmio.read(register, &mut value);
        u32::from_le_bytes(value)
    }

    pub(super) fn write(&mut self, register: u64, value: u32) {
        self.mmio.write(register, &value.to_le_bytes());
    }

    pub(super) fn read_config<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut value = [0; N];
        self.mmio.read(0x100 + offset, &mut value);
        value
    }

    pub(super) fn features(&mut self) -> u64 {
        self.write(0x14, 1);
        let high = u64::from(self.read(0x10));
        self.write(0x14, 0);
        high << 32 | u64::from(self.read(0x10))
    }

    /// Resets the device and brings it up again, with all features it offers.
    pub(super) fn restart(&mut self) {
        self.negotiate();
        self.set_up_queues();
        self.write(0x70, 0xf);
        self.settle();
    }

    /// From reset to FEATURES_OK.
    pub(super) fn negotiate(&mut self) {
        self.write(0x70, 0);
        self.write(0x70, 1);
        self.write(0x70, 3);
        let features = self.features();
        for half in 0..2u32 {
            self.write(0x24, half);
            self.write(0x20, (features >> (32 * half)) as u32);
        }
        self.write(0x70, 0xb);
        assert_eq!(self.read(0x70), 0xb, "FEATURES_OK");
    }

    pub(super) fn set_up_queues(&mut self) {
        self.queues.clear();
        for number in 0.. {
            self.write(0x30, number);
            let size = self.read(0x34);
            if size == 0 {
                break;
            }
            assert_eq!(self.read(0x44), 0, "a queue is not ready before it is set up");
            self.write(0x38, size);
            let ring = Self::ring(number as usize);
            for (register, address) in [(0x80, ring), (0x90, ring + 0x4000), (0xa0, ring + 0x8000)] {
                self.write(register, address as u32);
                self.write(register + 4, 0);
            }
            self.memory.write_slice(&vec![0; RINGS as usize], GuestAddress(ring)).unwrap();
            self.write(0x44, 1);
            self.queues.push(Ring { size: size as u16, ..Ring::default() });
        }
    }

    fn ring(number: usize) -> u64 {
        RINGS * (number as u64 + 1)
    }

    pub(super) fn queue_count(&self) -> usize {
        self.queues.len()
    }

    pub(super) fn needs_reset(&mut self) -> bool {
        self.read(0x70) & 64 != 0
    }

    /// Runs the back end as the event loop does, until no event is left.
    pub(super) fn settle(&mut self) {
        let queues = self.queues.len();
        for _ in 0..2 {
            for index in 0..self.back_end.descriptors().len() {
                if index >= queues || self.mmio.queue_events().nth(index).unwrap().read().is_ok() {
                    self.back_end.ready(index);
                }
            }
        }
    }

    /// Writes a descriptor as it is.
    pub(super) fn descriptor(
        &mut self,
        queue: usize,
        index: u16,
        address: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let bytes =
            [&address.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()]
                .concat();
        let at = Self::ring(queue) + 16 * u64::from(index);
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    /// Makes a chain available and rings the bell.
    pub(super) fn offer(&mut self, queue: usize, head: u16) {
        let available = Self::ring(queue) + 0x4000;
        let ring = &mut self.queues[queue];
        let slot = available + 4 + 2 * u64::from(ring.available % ring.size);
        ring.available = ring.available.wrapping_add(1);
        let index = ring.available;
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.memory.write_obj(index, GuestAddress(available + 2)).unwrap();
        self.set_used_event(queue, self.queues[queue].used);
        self.write(0x50, queue as u32);
    }

    /// The driver wants an interrupt when the used buffer of this index is there (virtio 1.2, section 2.7.7).
    pub(super) fn set_used_event(&mut self, queue: usize, index: u16) {
        let size = u64::from(self.queues[queue].size);
        let at = Self::ring(queue) + 0x4000 + 4 + 2 * size;
        self.memory.write_obj(index, GuestAddress(at)).unwrap();
    }

    /// Sets the available index, whatever the ring holds.
    pub(super) fn set_available(&mut self, queue: usize, index: u16) {
        self.memory.write_obj(index, GuestAddress(Self::ring(queue) + 0x4000 + 2)).unwrap();
    }

    /// Where the next buffers are placed.
    pub(super) fn place_buffers(&mut self, at: u64) {
        self.next_buffer = at;
    }

    /// Puts a chain of buffers into a queue. The places of those to be filled.
    pub(super) fn add(&mut self, queue: usize, buffers: &[Buffer<'_>]) -> Vec<(u64, u32)> {
        let head = self.queues[queue].next_descriptor;
        let mut to_fill = Vec::new();
        for (place, buffer) in buffers.iter().enumerate() {
            let address = self.next_buffer;
            let (len, write) = match *buffer {
                Buffer::Read(bytes) => {
                    self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
                    (bytes.len() as u32, 0)
                }
                Buffer::Write(len) => {
                    to_fill.push((address, len));
                    (len, WRITE)
                }
            };
            self.next_buffer = address + u64::from(len);
            let size = self.queues[queue].size;
            let index = self.queues[queue].next_descriptor;
            self.queues[queue].next_descriptor = (index + 1) % size;
            let next = if place + 1 < buffers.len() { NEXT } else { 0 };
            self.descriptor(queue, index, address, len, write | next, (index + 1) % size);
        }
        self.offer(queue, head);
        to_fill
    }

    /// The next chain that the device gave back: its head and how many bytes were written.
    pub(super) fn take_used(&mut self, queue: usize) -> Option<(u32, u32)> {
        let used = Self::ring(queue) + 0x8000;
        let ring = &mut self.queues[queue];
        let index: u16 = self.memory.read_obj(GuestAddress(used + 2)).unwrap();
        if index == ring.used {
            return None;
        }
        let slot = used + 4 + 8 * u64::from(ring.used % ring.size);
        ring.used = ring.used.wrapping_add(1);
        Some((
            self.memory.read_obj(GuestAddress(slot)).unwrap(),
            self.memory.read_obj(GuestAddress(slot + 4)).unwrap(),
        ))
    }

    /// The bytes of buffers that the device filled.
    pub(super) fn bytes(&self, places: &[(u64, u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(address, len) in places {
            let mut part = vec![0; len as usize];
            self.memory.read_slice(&mut part, GuestAddress(address)).unwrap();
            bytes.extend(part);
        }
        bytes
    }

    /// One request from start to end: the filled buffers, or `None` where it was not answered.
    pub(super) fn request(&mut self, queue: usize, buffers: &[Buffer<'_>]) -> Option<Vec<u8>> {
        // Each request has the whole memory to itself.
        self.next_buffer = BUFFERS;
        let places = self.add(queue, buffers);
        self.settle();
        self.take_used(queue)?;
        Some(self.bytes(&places))
    }
}
