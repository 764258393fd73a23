//! One request in a queue: a chain of buffers, read with suspicion.
//!
//! A chain is walked once, copied out and checked before a device sees any of it, so that nothing the guest changes
//! afterwards matters; one that loops, is too long, leaves guest memory or mixes its directions is refused.

use std::sync::Arc;

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

use super::Fault;

/// A part of a chain: a buffer in guest memory, known to lie within it.
#[derive(Clone, Copy, Debug)]
struct Segment {
    address: GuestAddress,
    len: u32,
}

/// One request of the driver: buffers for the device to read, then buffers for it to write.
#[derive(Debug)]
pub struct Chain {
    head: u16,
    memory: Arc<GuestMemoryMmap>,
    readable: Buffers,
    writable: Buffers,
}

/// The last byte of a chain, set aside.
#[derive(Debug)]
pub struct LastByte {
    address: GuestAddress,
}

/// Buffers, consumed from the front.
#[derive(Debug, Default)]
struct Buffers {
    segments: Vec<Segment>,
    /// The first segment that is not consumed.
    next: usize,
    /// Bytes that are not consumed.
    len: u64,
}

impl Chain {
    /// Walks a chain once and copies its descriptors out.
    // ANCHOR: walk
    pub(super) fn walk(
        chain: DescriptorChain<&GuestMemoryMmap>,
        most: u16,
        memory: &Arc<GuestMemoryMmap>,
    ) -> Result<Self, Fault> {
        let (mut readable, mut writable) = (Buffers::default(), Buffers::default());
        let head = chain.head_index();
        for (count, descriptor) in chain.enumerate() {
            // A table of indirect descriptors may claim 65535 entries, but no chain may be longer than the queue
            // (virtio 1.2, section 2.7.5.3.1). This also ends a chain that loops.
            if count >= usize::from(most) {
                return Err(Fault::Driver("a chain is longer than its queue"));
            }
            let segment = Segment { address: descriptor.addr(), len: descriptor.len() };
            let access = if descriptor.is_write_only() { Permissions::Write } else { Permissions::Read };
            if !memory.check_range(segment.address, segment.len as usize, access) {
                return Err(vm_memory::GuestMemoryError::InvalidGuestAddress(segment.address).into());
            }
            if descriptor.is_write_only() {
                writable.push(segment);
            } else if writable.len > 0 {
                return Err(Fault::Driver("a buffer to read comes after one to write"));
            } else {
                readable.push(segment);
            }
        }
        Ok(Self { head, memory: memory.clone(), readable, writable })
    }
    // ANCHOR_END: walk

    /// Its first descriptor, by which the driver knows it.
    pub(super) fn head(&self) -> u16 {
        self.head
    }

    /// Bytes left to read.
    pub fn readable(&self) -> u64 {
        self.readable.len
    }

    /// Bytes left to write.
    pub fn writable(&self) -> u64 {
        self.writable.len
    }

    /// The bytes left to read, in place. [`Chain::skip_readable`] consumes them.
    ///
    /// # Errors
    /// As [`Chain::read`].
    pub fn readable_slices(&self) -> Result<Vec<VolatileSlice<'_>>, Fault> {
        self.readable.slices(&self.memory, Permissions::Read)
    }

    /// The bytes left to write, in place.
    ///
    /// # Errors
    /// As [`Chain::read`].
    pub fn writable_slices(&self) -> Result<Vec<VolatileSlice<'_>>, Fault> {
        self.writable.slices(&self.memory, Permissions::Write)
    }

    /// Consumes bytes that were read in place.
    pub fn skip_readable(&mut self, mut bytes: u64) {
        while let Some(segment) = self.readable.take(bytes) {
            bytes -= u64::from(segment.len);
        }
    }

    /// Takes the last byte to write out of the chain: where a block device puts its status.
    pub fn take_last_writable(&mut self) -> Option<LastByte> {
        let last = self.writable.segments.last_mut()?;
        last.len -= 1;
        // Cannot overflow: the whole segment lies in guest memory.
        let address = GuestAddress(last.address.0 + u64::from(last.len));
        if last.len == 0 {
            self.writable.segments.pop();
        }
        self.writable.len -= 1;
        Some(LastByte { address })
    }

    /// Writes a byte that was taken out of this chain.
    ///
    /// # Errors
    /// As [`Chain::read`].
    pub fn write_last(&self, last: &LastByte, value: u8) -> Result<(), Fault> {
        Ok(self.memory.write_obj(value, last.address)?)
    }

    /// Reads the next bytes; fewer than `buffer` holds where there are no more.
    ///
    /// # Errors
    /// None for a chain from a queue: its buffers were checked.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let mut done = 0;
        while let Some(segment) = self.readable.take((buffer.len() - done) as u64) {
            let end = done + segment.len as usize;
            self.memory.read_slice(&mut buffer[done..end], segment.address)?;
            done = end;
        }
        Ok(done)
    }

    /// Reads just as many bytes as the array holds; `None` where there are fewer.
    ///
    /// # Errors
    /// As [`Chain::read`].
    pub fn read_array<const N: usize>(&mut self) -> Result<Option<[u8; N]>, Fault> {
        let mut bytes = [0; N];
        Ok((self.read(&mut bytes)? == N).then_some(bytes))
    }

    /// Writes the next bytes; fewer than `bytes` where there is no more room.
    ///
    /// # Errors
    /// As [`Chain::read`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut done = 0;
        while let Some(segment) = self.writable.take((bytes.len() - done) as u64) {
            let end = done + segment.len as usize;
            self.memory.write_slice(&bytes[done..end], segment.address)?;
            done = end;
        }
        Ok(done)
    }
}

impl Buffers {
    fn push(&mut self, segment: Segment) {
        if segment.len > 0 {
            self.len += u64::from(segment.len);
            self.segments.push(segment);
        }
    }

    fn slices<'m>(
        &self,
        memory: &'m GuestMemoryMmap,
        access: Permissions,
    ) -> Result<Vec<VolatileSlice<'m>>, Fault> {
        let mut slices = Vec::with_capacity(self.segments.len() - self.next);
        for segment in &self.segments[self.next..] {
            // A buffer that spans two regions of memory becomes two slices.
            for slice in memory.get_slices(segment.address, segment.len as usize, access)? {
                slices.push(slice?);
            }
        }
        Ok(slices)
    }

    /// Consumes at most `most` bytes of the first segment.
    fn take(&mut self, most: u64) -> Option<Segment> {
        let segment = self.segments.get_mut(self.next)?;
        let len = u64::from(segment.len).min(most) as u32;
        if len == 0 {
            return None;
        }
        let taken = Segment { address: segment.address, len };
        // Cannot overflow: the whole segment lies in guest memory.
        segment.address = GuestAddress(segment.address.0 + u64::from(len));
        segment.len -= len;
        self.next += usize::from(segment.len == 0);
        self.len -= u64::from(len);
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rng::Rng;
    use super::super::testing::{Driver, INDIRECT, MEMORY, NEXT, WRITE};

    const SIZE: u16 = 8;
    const BUFFER: u64 = 0x100000;

    /// A driver, and what the device does about a chain that begins at descriptor 0.
    fn offer(descriptors: &[(u64, u32, u16, u16)]) -> Driver {
        let mut driver = Driver::new(Box::new(Rng));
        for (index, &(address, len, flags, next)) in descriptors.iter().enumerate() {
            driver.descriptor(0, index as u16, address, len, flags, next);
        }
        driver.offer(0, 0);
        driver.settle();
        driver
    }

    #[test]
    fn a_buffer_that_leaves_memory_stops_the_device() {
        for (address, len) in
            [(MEMORY - 4, 8), (MEMORY, 1), (u64::MAX - 1, 2), (u64::MAX, u32::MAX), (0, u32::MAX)]
        {
            assert!(offer(&[(address, len, WRITE, 0)]).needs_reset(), "{address:#x} {len:#x}");
        }
    }

    #[test]
    fn a_chain_that_loops_comes_to_an_end() {
        let mut driver = offer(&[(BUFFER, 8, WRITE | NEXT, 1), (BUFFER, 8, WRITE | NEXT, 0)]);
        // As many descriptors as the queue has, and then no more: more than a chain can be, but harmless.
        assert_eq!(driver.take_used(0), Some((0, 8 * u32::from(SIZE))));
    }

    #[test]
    fn a_chain_that_points_outside_its_table_ends_there() {
        let mut driver = offer(&[(BUFFER, 8, WRITE | NEXT, SIZE)]);
        assert_eq!(driver.take_used(0), Some((0, 8)));
    }

    #[test]
    fn a_buffer_to_read_after_one_to_write_stops_the_device() {
        assert!(offer(&[(BUFFER, 8, WRITE | NEXT, 1), (BUFFER, 8, 0, 0)]).needs_reset());
    }

    #[test]
    fn an_indirect_table_is_followed_once_and_no_longer_than_the_queue() {
        let table = |entries: u64, flags: u16| {
            let mut driver = Driver::new(Box::new(Rng));
            for index in 0..entries {
                let next = if index + 1 < entries { NEXT } else { 0 };
                // Descriptors of queue 1, which does not exist, are a piece of memory like any other.
                driver.descriptor(1, index as u16, BUFFER, 8, flags | next, index as u16 + 1);
            }
            driver.descriptor(0, 0, 0x20000, entries as u32 * 16, INDIRECT, 0);
            driver.offer(0, 0);
            driver.settle();
            driver
        };
        assert_eq!(table(8, WRITE).take_used(0), Some((0, 64)));
        assert!(table(9, WRITE).needs_reset(), "longer than the queue");
        assert_eq!(table(1, INDIRECT).take_used(0), Some((0, 0)), "a table in a table has no buffers");
    }
}
