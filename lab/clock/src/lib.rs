//! One clock for both walls.
//!
//! Every figure the lab prints about start-up is a difference of two *marks*: moments of a sandbox's life, all read
//! from the host's `CLOCK_MONOTONIC` (`clock_gettime(2)`), in nanoseconds. A container's child process marks its own
//! steps after `clone3(2)`, from other namespaces and another address space; a virtual machine's guest marks its
//! steps by an exit to the VMM, which reads the host's clock for it. So neither wall is ever timed by a clock of its own.
//!
//! A [`Timeline`] is one page of memory shared (`MAP_SHARED`) with every process forked from the one that made it. Each
//! mark has one slot; a slot is written once, by an atomic store, without a system call (the clock is read through the
//! vDSO). So marking costs tens of nanoseconds, and the mark of a process that dies a moment later is not lost.
//!
//! ```
//! use lab_clock::{Mark, Timeline};
//! let timeline = Timeline::new()?;
//! timeline.mark(Mark::Started);
//! timeline.mark(Mark::Exited);
//! let [(_, start), (_, end)] = timeline.marks()[..] else { panic!("two marks") };
//! assert!(end >= start);
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod date;
#[cfg(feature = "build")]
pub mod link;
mod mark;
mod sys;

pub use mark::Mark;

use std::io;

use sys::SharedPage;

/// A moment on the host's `CLOCK_MONOTONIC`, in nanoseconds since an arbitrary start (the boot, on Linux).
pub type Nanos = u64;

/// Reads the host's `CLOCK_MONOTONIC` (`clock_gettime(2)`).
///
/// # Panics
/// Never on Linux: the call fails only for an unknown clock or a bad pointer.
pub fn now() -> Nanos {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC exists");
    time.tv_sec() as Nanos * 1_000_000_000 + time.tv_nsec() as Nanos
}

/// The marks of one sandbox's life, shared with the processes forked from the one that made it.
#[derive(Debug)]
pub struct Timeline {
    page: SharedPage,
}

impl Timeline {
    /// Makes an empty timeline.
    ///
    /// # Errors
    /// What `mmap(2)` returns, where the system has no page to give.
    pub fn new() -> io::Result<Self> {
        Ok(Self { page: SharedPage::new()? })
    }

    // ANCHOR: mark
    /// Marks this moment. The first marking of a mark stands; later ones are ignored.
    pub fn mark(&self, mark: Mark) {
        self.mark_at(mark, now());
    }

    /// Sets a mark at a moment read earlier from [`now`]. The first marking stands; a moment of 0 is none.
    pub fn mark_at(&self, mark: Mark, at: Nanos) {
        self.page.set_once(mark as usize, at);
    }
    // ANCHOR_END: mark

    /// The moment of a mark, if it was reached.
    pub fn get(&self, mark: Mark) -> Option<Nanos> {
        match self.page.get(mark as usize) {
            0 => None,
            at => Some(at),
        }
    }

    /// All marks reached, in order of time.
    pub fn marks(&self) -> Vec<(Mark, Nanos)> {
        let mut marks: Vec<_> =
            Mark::ALL.iter().filter_map(|&mark| self.get(mark).map(|at| (mark, at))).collect();
        marks.sort_by_key(|&(mark, at)| (at, mark as u8));
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_marking_of_a_mark_stands() {
        let timeline = Timeline::new().unwrap();
        timeline.mark_at(Mark::Started, 10);
        timeline.mark_at(Mark::Started, 20);
        assert_eq!(timeline.get(Mark::Started), Some(10));
        assert_eq!(timeline.get(Mark::Exited), None);
    }

    #[test]
    fn marks_come_in_order_of_time_whatever_order_they_were_set_in() {
        let timeline = Timeline::new().unwrap();
        timeline.mark_at(Mark::Exited, 30);
        timeline.mark_at(Mark::Started, 10);
        timeline.mark_at(Mark::Executed, 20);
        assert_eq!(timeline.marks(), [(Mark::Started, 10), (Mark::Executed, 20), (Mark::Exited, 30)]);
    }

    #[test]
    fn a_forked_process_marks_the_same_timeline() {
        let timeline = Timeline::new().unwrap();
        sys::in_forked_child(|| timeline.mark(Mark::Executed));
        assert!(timeline.get(Mark::Executed).is_some());
    }
}
