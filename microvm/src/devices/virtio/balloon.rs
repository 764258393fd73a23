//! virtio-balloon: the guest gives memory back (virtio 1.2, section 5.5).
//!
//! A guest's memory grows with what it ever touched: a page that its kernel has freed is still a page of the host's. With
//! *free page reporting* the kernel names such pages, in blocks of 2 MiB or more, a moment after they were freed; the device
//! gives them back to the host, and the guest may touch them again whenever it likes. Linux reports two seconds after the
//! last freeing, and only while more than 32 such blocks are free (mm/page_reporting.c), so a small machine reports nothing.
//!
//! The older way, a balloon that is inflated to a size that the host asks for, takes memory from a guest that may need it; here
//! the size asked for is always 0.

use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::{Chain, Event, Fault, VirtioDevice, Virtqueue, sys};

/// Bits of the features (section 5.5.3; Linux' include/uapi/linux/virtio_balloon.h): the guest may take pages back without
/// asking, and it reports free ones.
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
const F_REPORTING: u64 = 1 << 5;

/// The queues: to put pages in, to take them back (1), for reports. Queues of features that are not offered have no number.
const INFLATE: usize = 0;
const REPORTING: usize = 2;

/// Pages in the balloon's messages are of 4 KiB, whatever the guest's are (section 5.5.6).
const PAGE_BITS: u32 = 12;

/// The device.
#[derive(Debug)]
pub struct Balloon {
    memory: GuestMemoryMmap,
}

impl Balloon {
    /// A balloon for this memory.
    pub fn new(memory: GuestMemoryMmap) -> Self {
        Self { memory }
    }

    /// Pages that the driver put into the balloon: an array of their numbers.
    fn inflate(&self, chain: &mut Chain) -> Result<(), Fault> {
        while let Some(number) = chain.read_array()? {
            let address = u64::from(u32::from_le_bytes(number)) << PAGE_BITS;
            let page = self.memory.get_slice(GuestAddress(address), 1 << PAGE_BITS);
            sys::give_back(&page?).map_err(failed)?;
        }
        Ok(())
    }
}

fn failed(source: std::io::Error) -> Fault {
    Fault::Host { operation: "give memory back (madvise)", source }
}

impl VirtioDevice for Balloon {
    fn id(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        F_DEFLATE_ON_OOM | F_REPORTING
    }

    fn queue_sizes(&self) -> &[u16] {
        // Linux reports at most 32 blocks at once (PAGE_REPORTING_CAPACITY), and offers them as one chain.
        &[16, 16, 32]
    }

    /// `struct virtio_balloon_config`: the number of pages that the host asks for, 0, and how many the driver has given.
    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn process(&mut self, event: Event, queues: &mut [Virtqueue]) -> Result<(), Fault> {
        let Event::Queue(number) = event else { return Ok(()) };
        queues[number].serve(|chain| {
            match number {
                INFLATE => self.inflate(chain)?,
                REPORTING => {
                    // The blocks themselves are the buffers, for us to write: with nothing.
                    for block in chain.writable_slices()? {
                        sys::give_back(&block).map_err(failed)?;
                    }
                }
                // DEFLATE: the driver takes pages back. They come when they are touched, there is nothing to do.
                _ => {}
            }
            Ok(0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Buffer, Driver, MEMORY};
    use super::*;
    use vm_memory::Bytes;

    fn driver() -> Driver {
        Driver::with(|memory| Box::new(Balloon::new(memory.clone())))
    }

    fn fill(driver: &Driver, address: u64, len: u64) {
        driver.memory.write_slice(&vec![7; len as usize], GuestAddress(address)).unwrap();
    }

    fn byte(driver: &Driver, address: u64) -> u8 {
        driver.memory.read_obj(GuestAddress(address)).unwrap()
    }

    #[test]
    fn whole_pages_of_a_reported_block_are_given_back_and_nothing_beside_them() {
        let mut driver = driver();
        fill(&driver, 0x18_0000, 0x8000);
        driver.descriptor(REPORTING, 0, 0x18_1800, 0x3000, super::super::testing::WRITE, 0);
        driver.offer(REPORTING, 0);
        driver.settle();
        assert_eq!(driver.take_used(REPORTING), Some((0, 0)));
        let bytes = [0x18_1fff, 0x18_2000, 0x18_3fff, 0x18_4000].map(|address| byte(&driver, address));
        assert_eq!(bytes, [7, 0, 0, 7]);
    }

    #[test]
    fn pages_in_the_balloon_are_given_back_one_by_one() {
        let mut driver = driver();
        fill(&driver, 0x18_0000, 0x4000);
        let pages = [0x181u32, 0x183].map(u32::to_le_bytes).concat();
        driver.add(INFLATE, &[Buffer::Read(&pages)]);
        driver.settle();
        assert!(driver.take_used(INFLATE).is_some());
        let bytes = [0x18_0000, 0x18_1000, 0x18_2000, 0x18_3000].map(|address| byte(&driver, address));
        assert_eq!(bytes, [7, 0, 7, 0]);
        driver.add(1, &[Buffer::Read(&pages)]);
        driver.settle();
        assert!(driver.take_used(1).is_some());
    }

    #[test]
    fn a_page_outside_memory_stops_the_device() {
        for page in [MEMORY >> PAGE_BITS, u64::from(u32::MAX)] {
            let mut driver = driver();
            driver.add(INFLATE, &[Buffer::Read(&(page as u32).to_le_bytes())]);
            driver.settle();
            assert!(driver.needs_reset(), "{page:#x}");
        }
    }

    #[test]
    fn no_pages_are_asked_for() {
        assert_eq!(driver().read_config::<8>(0), [0; 8]);
    }
}
