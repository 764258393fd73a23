//! The boot timer: a port where the guest says "now", and the VMM reads the host's clock.
//!
//! So the guest's start is on the same clock as everything else, whatever the guest's own clock thinks.

use std::sync::Arc;
use std::time::SystemTime;

use guest_wire::GuestMark;
use lab_clock::{Mark, Timeline};

use crate::bus::BusDevice;

/// The port [`guest_wire::BOOT_TIMER_PORT`].
#[derive(Debug)]
pub struct BootTimer {
    timeline: Arc<Timeline>,
    clock_read: Option<SystemTime>,
}

impl BootTimer {
    /// A boot timer that marks on this timeline.
    pub fn new(timeline: Arc<Timeline>) -> Self {
        Self { timeline, clock_read: None }
    }
}

impl BootTimer {
    /// The host's time when the guest last said that it had just read its own.
    pub fn clock_read(&self) -> Option<SystemTime> {
        self.clock_read
    }
}

/// The mark on the timeline, if it is one of a start.
fn mark_of(mark: GuestMark) -> Option<Mark> {
    Some(match mark {
        GuestMark::KernelEntered => Mark::KernelEntered,
        GuestMark::KernelInitcalls => Mark::KernelInitcalls,
        GuestMark::KernelDone => Mark::KernelDone,
        GuestMark::InitStarted => Mark::InitStarted,
        GuestMark::AgentReady => Mark::AgentReady,
        GuestMark::RootMounted => Mark::RootMounted,
        GuestMark::Executed => Mark::Executed,
        GuestMark::ClockRead => return None,
    })
}

impl BusDevice for BootTimer {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    // ANCHOR: write
    fn write(&mut self, _offset: u64, data: &[u8]) {
        // The first marking stands (Timeline::mark), so a guest cannot rewrite its history. Unknown bytes are no marks.
        if let [byte] = data
            && let Some(mark) = GuestMark::from_byte(*byte)
        {
            match mark_of(mark) {
                Some(mark) => self.timeline.mark(mark),
                None => self.clock_read = Some(SystemTime::now()),
            }
        }
    }
    // ANCHOR_END: write
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_marks_and_the_first_marking_stands() {
        let timeline = Arc::new(Timeline::new().unwrap());
        let mut timer = BootTimer::new(timeline.clone());
        timer.write(0, &[GuestMark::InitStarted as u8]);
        let first = timeline.get(Mark::InitStarted).unwrap();
        timer.write(0, &[GuestMark::InitStarted as u8]);
        timer.write(0, &[0xee]);
        timer.write(0, &[4, 0]);
        assert_eq!(timeline.marks(), [(Mark::InitStarted, first)]);
    }
}
