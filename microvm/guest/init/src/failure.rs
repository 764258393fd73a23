//! What went wrong, small enough to pass around: the step, its object, the kernel's reason.

use freestanding::{Errno, Text};

/// A failed step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure<'a> {
    /// The kernel's reason.
    pub errno: Errno,
    /// The step: mostly a system call's name.
    pub step: &'static str,
    /// What it was done to: a path, a name; possibly empty.
    pub object: &'a [u8],
}

impl<'a> Failure<'a> {
    /// A failure of this step on this object.
    pub const fn new(errno: Errno, step: &'static str, object: &'a [u8]) -> Self {
        Self { errno, step, object }
    }

    /// The step and its object as text, for a `Failed` frame.
    pub fn write<const N: usize>(&self, text: &mut Text<N>) {
        let both = !self.step.is_empty() && !self.object.is_empty();
        text.text(self.step).text(if both { " " } else { "" }).text(self.object);
    }
}

/// Names the step of a system call that failed.
pub trait During<T> {
    /// Turns the error into a [`Failure`] of this step on this object.
    ///
    /// # Errors
    /// The one it was called on, named.
    fn during<'a>(self, step: &'static str, object: &'a [u8]) -> Result<T, Failure<'a>>;
}

impl<T> During<T> for freestanding::sys::Result<T> {
    fn during<'a>(self, step: &'static str, object: &'a [u8]) -> Result<T, Failure<'a>> {
        self.map_err(|errno| Failure::new(errno, step, object))
    }
}
