//! A device in a snapshot: its registers, its queues, and what the device itself remembers.
//!
//! A restored device is a new one on a new host side (another socket, perhaps another disk of the same size) that goes on
//! with the driver where the old one stopped. The guest must not notice, so whatever the driver could have read at its start
//! must still be so.

use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;
use virtio_queue::{Queue, QueueState, QueueT};

use super::VirtioMmio;
use super::back_end::Live;
use crate::snapshot::record::{Malformed, Reader, Writer};

/// As much of a configuration space as any of our devices has, and more.
const CONFIG: usize = 64;

/// Why a device cannot be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotRestored {
    /// The record is no device's.
    Malformed,
    /// It is another device's: of another kind, size, or with other features.
    OtherDevice,
}

impl From<Malformed> for NotRestored {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl VirtioMmio {
    /// Keeps the device from doing anything, as long as the guard lives.
    pub(crate) fn hold(&self) -> MutexGuard<'_, Live> {
        self.shared.lock()
    }

    /// Saves the device; `live` is from [`VirtioMmio::hold`].
    ///
    /// # Errors
    /// Why it cannot be saved now.
    pub(crate) fn save(&self, live: &Live, record: &mut Writer) -> Result<(), &'static str> {
        record.value(&self.id);
        record.value(&self.offered);
        record.bytes(&config(live));
        record.value(&self.shared.status.load(Ordering::Acquire));
        record.value(&self.features);
        for register in [self.selected_queue, self.selected_device_features, self.selected_driver_features] {
            record.value(&register);
        }
        record.value(&self.shared.interrupt.status());
        record.value(&self.shared.interrupt.generation());
        // A device that works knows best where its queues are; one that does not has no opinion.
        for (number, configured) in self.queues.iter().enumerate() {
            let state = live.queues.get(number).map_or_else(|| configured.state(), super::Virtqueue::state);
            save_queue(&state, record);
        }
        record.value(&u8::from(!live.queues.is_empty()));
        record.bytes(&live.device.save()?);
        Ok(())
    }

    /// Makes this new device that which was saved.
    pub(crate) fn restore(&mut self, record: &mut Reader<'_>) -> Result<(), NotRestored> {
        let same = record.value::<u32>()? == self.id
            && record.value::<u64>()? == self.offered
            && record.bytes()? == config(&self.shared.lock());
        if !same {
            return Err(NotRestored::OtherDevice);
        }
        let status: u32 = record.value()?;
        self.features = record.value()?;
        self.selected_queue = record.value()?;
        self.selected_device_features = record.value()?;
        self.selected_driver_features = record.value()?;
        let (interrupt, generation) = (record.value()?, record.value()?);
        for queue in &mut self.queues {
            let state = read_queue(record)?;
            if state.max_size != queue.max_size() {
                return Err(NotRestored::OtherDevice);
            }
            *queue = Queue::try_from(state).map_err(|_| NotRestored::Malformed)?;
        }
        let is_active = record.value::<u8>()? != 0;
        let device = record.bytes()?;
        if is_active {
            // Which also has the device look into each queue: a notification may have been under way.
            self.hand_over_queues();
        }
        let mut live = self.shared.lock();
        let is_driven = !live.queues.is_empty() && status & VIRTIO_CONFIG_S_DRIVER_OK != 0;
        if is_active != is_driven || !live.device.restore(device) {
            return Err(NotRestored::Malformed);
        }
        drop(live);
        self.shared.status.store(status, Ordering::Release);
        self.shared.interrupt.restore(interrupt, generation);
        Ok(())
    }
}

fn config(live: &Live) -> [u8; CONFIG] {
    let mut config = [0; CONFIG];
    live.device.read_config(0, &mut config);
    config
}

fn save_queue(state: &QueueState, record: &mut Writer) {
    for number in [state.max_size, state.next_avail, state.next_used, state.size] {
        record.value(&number);
    }
    record.bytes(&[state.event_idx_enabled.into(), state.ready.into()]);
    for address in [state.desc_table, state.avail_ring, state.used_ring] {
        record.value(&address);
    }
}

fn read_queue(record: &mut Reader<'_>) -> Result<QueueState, Malformed> {
    let (max_size, next_avail) = (record.value()?, record.value()?);
    let (next_used, size) = (record.value()?, record.value()?);
    let [event_idx, ready]: [u8; 2] = record.bytes()?.try_into().map_err(|_| Malformed)?;
    Ok(QueueState {
        max_size,
        next_avail,
        next_used,
        size,
        event_idx_enabled: event_idx != 0,
        ready: ready != 0,
        desc_table: record.value()?,
        avail_ring: record.value()?,
        used_ring: record.value()?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::VirtioDevice;
    use super::super::console::Console;
    use super::super::rng::Rng;
    use super::super::testing::{Buffer, Driver};
    use super::*;
    use std::os::unix::net::UnixStream;

    fn saved(driver: &Driver) -> Vec<u8> {
        let mut record = Writer::default();
        driver.mmio.save(&driver.mmio.hold(), &mut record).unwrap();
        record.finish()
    }

    /// The same driver on a new device, in the same memory.
    fn restored(driver: Driver, state: &[u8], device: Box<dyn VirtioDevice>) -> Result<Driver, NotRestored> {
        let mut driver = driver.on_a_new_device(device);
        driver.mmio.restore(&mut Reader::new(state))?;
        Ok(driver)
    }

    #[test]
    fn the_driver_goes_on_with_the_restored_device_where_it_was() {
        let mut driver = Driver::new(Box::new(Rng));
        driver.request(0, &[Buffer::Write(8)]).unwrap();
        driver.write(0x64, 1);
        // Announced, but not served before the snapshot: the new device finds it.
        let state = saved(&driver);
        driver.add(0, &[Buffer::Write(16)]);
        let mut driver = restored(driver, &state, Box::new(Rng)).unwrap();
        assert_eq!(driver.irq.read().ok(), None, "no interrupt without a reason");
        driver.settle();
        assert_eq!(driver.take_used(0).unwrap().1, 16);
        assert_eq!(driver.read(0x70), 0xf);
    }

    #[test]
    fn an_interrupt_that_the_driver_has_not_seen_comes_again() {
        let mut driver = Driver::new(Box::new(Rng));
        driver.request(0, &[Buffer::Write(8)]).unwrap();
        let state = saved(&driver);
        let driver = restored(driver, &state, Box::new(Rng)).unwrap();
        assert_eq!(driver.irq.read().unwrap(), 1);
    }

    #[test]
    fn another_device_is_not_the_one_that_was_saved() {
        let driver = Driver::new(Box::new(Rng));
        let state = saved(&driver);
        let (socket, _host) = UnixStream::pair().unwrap();
        let console = Box::new(Console::new(socket, None).unwrap());
        assert_eq!(restored(driver, &state, console).err(), Some(NotRestored::OtherDevice));
    }

    #[test]
    fn whatever_a_damaged_record_says_nothing_panics() {
        let driver = Driver::new(Box::new(Rng));
        let state = saved(&driver);
        for at in 0..state.len() {
            let mut damaged = state.clone();
            damaged[at] ^= 0xff;
            let mut new = Driver::new(Box::new(Rng));
            let _ = new.mmio.restore(&mut Reader::new(&damaged));
            new.settle();
            assert!(new.mmio.restore(&mut Reader::new(&state[..at])).is_err());
        }
    }
}
