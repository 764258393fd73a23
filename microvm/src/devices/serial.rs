//! The serial console: a 16550 UART whose output goes to the [`Console`].

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, SerialState};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::BusDevice;
use crate::snapshot::record::{Malformed, Reader, Writer};

/// What the guest's kernel prints: its last lines are kept, for when it dies, and all of it is passed on where someone
/// wants to see it.
#[derive(Clone, Default)]
pub struct Console {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    tail: VecDeque<u8>,
    echo: Option<Box<dyn Write + Send>>,
}

/// Bytes of output that are kept. A panic with its call trace has about 3 KiB; a guest that floods the console costs no more.
const TAIL: usize = 8 * 1024;

impl Console {
    /// A console that also writes to `echo`. What cannot be written there is lost: a console does not wait.
    pub fn new(echo: Option<Box<dyn Write + Send>>) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { tail: VecDeque::new(), echo })) }
    }

    /// The last `count` lines, with what no terminal should be sent replaced.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = inner.tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let skip = lines.len().saturating_sub(count);
        lines[skip..].iter().map(|line| line.replace(char::is_control, "\u{fffd}")).collect()
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.tail.extend(bytes);
        let excess = inner.tail.len().saturating_sub(TAIL);
        inner.tail.drain(..excess);
        if let Some(echo) = &mut inner.echo {
            let _ = echo.write_all(bytes).and_then(|()| echo.flush());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Raises the UART's interrupt: KVM delivers it when the eventfd is written (KVM_IRQFD).
#[derive(Clone)]
struct Line(Arc<EventFd>);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The UART.
pub struct Serial {
    uart: vm_superio::Serial<Line, NoEvents, Console>,
    line: Line,
    console: Console,
}

impl Serial {
    /// A UART that writes to the console and interrupts through `irq`.
    pub fn new(irq: EventFd, console: Console) -> Self {
        let line = Line(Arc::new(irq));
        Self { uart: vm_superio::Serial::new(line.clone(), console.clone()), line, console }
    }

    /// Its registers, for a snapshot.
    pub(crate) fn save(&self, record: &mut Writer) {
        let s = self.uart.state();
        record.bytes(&[
            s.baud_divisor_low,
            s.baud_divisor_high,
            s.interrupt_enable,
            s.interrupt_identification,
            s.line_control,
            s.line_status,
            s.modem_control,
            s.modem_status,
            s.scratch,
        ]);
        record.bytes(&s.in_buffer);
    }

    /// Takes its registers back from a snapshot.
    pub(crate) fn restore(&mut self, record: &mut Reader<'_>) -> Result<(), Malformed> {
        let registers: [u8; 9] = record.bytes()?.try_into().map_err(|_| Malformed)?;
        let [low, high, enable, identification, line, line_status, modem, modem_status, scratch] = registers;
        let state = SerialState {
            baud_divisor_low: low,
            baud_divisor_high: high,
            interrupt_enable: enable,
            interrupt_identification: identification,
            line_control: line,
            line_status,
            modem_control: modem,
            modem_status,
            scratch,
            in_buffer: record.bytes()?.to_vec(),
        };
        let (line, console) = (self.line.clone(), self.console.clone());
        self.uart = vm_superio::Serial::from_state(&state, line, NoEvents, console).map_err(|_| Malformed)?;
        Ok(())
    }
}

impl BusDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        // Registers are bytes; whoever reads more gets one and ones.
        data[0] = self.uart.read(offset as u8);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        // The only failure is that the interrupt could not be raised: the guest then polls.
        let _ = self.uart.write(offset as u8, data[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_sends_is_on_the_console() {
        let console = Console::default();
        let mut serial = Serial::new(EventFd::new(0).unwrap(), console.clone());
        for byte in b"first\r\nsecond\r\n\x1b[2Jthird" {
            serial.write(0, &[*byte]);
        }
        assert_eq!(console.last_lines(2), ["second", "\u{fffd}[2Jthird"]);
    }

    #[test]
    fn a_flood_costs_no_more_than_the_tail() {
        let mut console = Console::default();
        for _ in 0..100 {
            console.write_all(&[b'x'; 1000]).unwrap();
        }
        assert_eq!(console.last_lines(1)[0].len(), TAIL);
    }

    #[test]
    fn any_access_is_answered() {
        let mut serial = Serial::new(EventFd::new(0).unwrap(), Console::default());
        for offset in 0..8 {
            for len in [1, 2, 4] {
                serial.read(offset, &mut [0; 4][..len]);
                serial.write(offset, &[0xff; 4][..len]);
            }
        }
    }
}
