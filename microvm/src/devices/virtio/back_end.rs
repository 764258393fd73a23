//! The event loop's side of a device: it runs when a queue or a descriptor of the host says so.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_config::{VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_NEEDS_RESET};
use vmm_sys_util::eventfd::EventFd;

use super::{Event, Fault, Interrupt, VirtioDevice, Virtqueue};
use crate::event_loop::EventHandler;

/// The event loop's side of a device.
pub struct BackEnd {
    pub(super) shared: Arc<Shared>,
}

/// What both sides hold: the transport, and this.
pub(super) struct Shared {
    pub(super) live: Mutex<Live>,
    pub(super) interrupt: Arc<Interrupt>,
    /// The device status register. Here, because the back end sets NEEDS_RESET.
    pub(super) status: AtomicU32,
    /// How often the device was called to work.
    pub(super) operations: AtomicU64,
    pub(super) kicks: Vec<Arc<EventFd>>,
    pub(super) descriptors: Vec<RawFd>,
}

/// The device and, from DRIVER_OK to reset, its queues.
pub(crate) struct Live {
    pub(super) device: Box<dyn VirtioDevice>,
    pub(super) queues: Vec<Virtqueue>,
    pub(super) fault: Option<Fault>,
}

impl Shared {
    /// The device. A panic while it was locked would be a bug of ours, not a reason for the vCPUs to panic as well.
    pub(super) fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the device: the driver broke it, or the host did. Only a reset brings it back.
    pub(super) fn fail(&self, mut live: MutexGuard<'_, Live>, fault: Fault) {
        live.queues.clear();
        live.fault = Some(fault);
        self.status.fetch_or(VIRTIO_CONFIG_S_NEEDS_RESET, Ordering::AcqRel);
        // Section 2.1.1: told only to a driver that is up. A line that cannot be written has no VM to tell.
        if self.status.load(Ordering::Acquire) & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            let _ = self.interrupt.config_changed();
        }
    }
}

impl BackEnd {
    /// Why the device stopped, if it did: for the VM's report.
    pub fn fault(&self) -> Option<String> {
        self.shared.lock().fault.as_ref().map(ToString::to_string)
    }
}

impl EventHandler for BackEnd {
    fn descriptors(&self) -> Vec<RawFd> {
        let kicks = self.shared.kicks.iter().map(AsRawFd::as_raw_fd);
        kicks.chain(self.shared.descriptors.iter().copied()).collect()
    }

    fn ready(&mut self, index: usize) {
        let queues = self.shared.kicks.len();
        let event = if index < queues { Event::Queue(index) } else { Event::Descriptor(index - queues) };
        let mut guard = self.shared.lock();
        let live = &mut *guard;
        if live.queues.is_empty() {
            return; // Not driven: DRIVER_OK announces every queue again.
        }
        self.shared.operations.fetch_add(1, Ordering::Relaxed);
        if let Err(fault) = live.device.process(event, &mut live.queues) {
            self.shared.fail(guard, fault);
        }
    }
}
