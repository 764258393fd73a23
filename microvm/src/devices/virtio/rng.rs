//! virtio-rng: the host's random numbers for the guest (virtio 1.2, section 5.4). The smallest device there is.
//!
//! A guest without it waits for entropy from interrupt timings, which a machine with four exits in its life has none of.

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use super::{Event, Fault, VirtioDevice, Virtqueue};

/// Bytes given for one request. `getrandom(2)` fills up to 256 at once and uninterrupted; a driver that wants more
/// asks again, so no guest keeps the event loop busy with one huge buffer.
const MOST: usize = 256;

/// The device.
#[derive(Debug, Default)]
pub struct Rng;

// ANCHOR: device
impl VirtioDevice for Rng {
    fn id(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[8]
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn process(&mut self, _event: Event, queues: &mut [Virtqueue]) -> Result<(), Fault> {
        queues[0].serve(|chain| {
            let mut random = [0; MOST];
            let wanted = chain.writable().min(MOST as u64) as usize;
            super::sys::random(&mut random[..wanted])
                .map_err(|source| Fault::Host { operation: "get random numbers (getrandom)", source })?;
            Ok(chain.write(&random[..wanted])? as u32)
        })
    }
}
// ANCHOR_END: device

#[cfg(test)]
mod tests {
    use super::super::testing::{Buffer, Driver};
    use super::*;

    #[test]
    fn a_buffer_is_filled_with_random_bytes_up_to_the_most() {
        let mut driver = Driver::new(Box::new(Rng));
        let first = driver.request(0, &[Buffer::Write(32), Buffer::Write(32)]).unwrap();
        let second = driver.request(0, &[Buffer::Write(64)]).unwrap();
        assert_ne!(first, second);

        driver.add(0, &[Buffer::Write(4096)]);
        driver.settle();
        assert_eq!(driver.take_used(0).unwrap().1 as usize, MOST);
    }

    #[test]
    fn a_buffer_that_cannot_be_filled_is_given_back_empty() {
        let mut driver = Driver::new(Box::new(Rng));
        driver.add(0, &[Buffer::Read(b"what is this?")]);
        driver.settle();
        assert_eq!(driver.take_used(0).unwrap().1, 0);
    }
}
