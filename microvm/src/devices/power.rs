//! The two ways out: the keyboard controller's reset line and ACPI's sleep control register.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::arch::layout;
use crate::bus::BusDevice;

/// What the guest asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerRequest {
    /// Power-off.
    Off = 1,
    /// A reset. The VM ends all the same: a new machine is made faster than an old one is cleaned.
    Reset = 2,
}

/// The machine's power button, as seen from inside.
#[derive(Clone, Debug, Default)]
pub struct Power {
    request: Arc<AtomicU8>,
}

impl Power {
    /// What the guest asked for, if it did.
    pub fn requested(&self) -> Option<PowerRequest> {
        match self.request.load(Ordering::Acquire) {
            1 => Some(PowerRequest::Off),
            2 => Some(PowerRequest::Reset),
            _ => None,
        }
    }

    fn request(&self, what: PowerRequest) {
        self.request.store(what as u8, Ordering::Release);
    }
}

/// The keyboard controller (i8042), as far as it resets the machine.
#[derive(Debug)]
pub struct Reset {
    power: Power,
}

impl Reset {
    /// A controller that acts on this power button.
    pub fn new(power: Power) -> Self {
        Self { power }
    }
}

impl BusDevice for Reset {
    /// The status register reads 0: the controller is always ready for a command and never has a byte. Linux waits for
    /// that before it resets (`kb_wait` in arch/x86/kernel/reboot.c).
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if data[0] == layout::I8042_RESET {
            self.power.request(PowerRequest::Reset);
        }
    }
}

/// The sleep control and status registers of hardware-reduced ACPI (ACPI 6.5, section 4.8.3.7).
#[derive(Debug)]
pub struct Sleep {
    power: Power,
}

impl Sleep {
    /// Registers that act on this power button.
    pub fn new(power: Power) -> Self {
        Self { power }
    }
}

impl BusDevice for Sleep {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        /// SLP_EN: act now; SLP_TYP is in bits 2 to 4.
        const ENABLE: u8 = 1 << 5;
        if offset == 0 && data[0] & ENABLE != 0 && (data[0] >> 2) & 7 == layout::ACPI_S5 {
            self.power.request(PowerRequest::Off);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reset_command_resets() {
        let power = Power::default();
        let mut reset = Reset::new(power.clone());
        reset.write(0, &[0xd1]);
        assert_eq!(power.requested(), None);
        reset.write(0, &[0xfe]);
        assert_eq!(power.requested(), Some(PowerRequest::Reset));
    }

    #[test]
    fn only_sleep_type_five_with_the_enable_bit_powers_off() {
        let power = Power::default();
        let mut sleep = Sleep::new(power.clone());
        for (offset, value) in [(0, 5 << 2), (0, 3 << 2 | 0x20), (1, 5 << 2 | 0x20)] {
            sleep.write(offset, &[value]);
            assert_eq!(power.requested(), None);
        }
        sleep.write(0, &[5 << 2 | 0x20]);
        assert_eq!(power.requested(), Some(PowerRequest::Off));
    }
}
