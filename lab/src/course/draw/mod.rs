//! Pictures of what runs right now, for a terminal and as SVG: the same that the book draws, of the reader's own sandboxes.
//!
//! ```text
//!   /proc ──▶ see: sandboxes, their processes ──▶ pictures: a tree each ──┬──▶ terminal
//!             (nothing is asked of them; a machine's monitor, its queues)                                  └──▶ SVG
//! ```
//!
//! A container is known by its control group, a virtual machine by the descriptors that KVM gives to its monitor.

mod machine;
mod network;
mod pictures;
mod render;
mod see;

pub use pictures::{Picture, draw};
pub use render::{svg, terminal};
pub use see::{Kind, Sandbox, see};

/// A line of a picture, and what belongs below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// What it says.
    pub text: String,
    /// What is below it.
    pub below: Vec<Node>,
}

impl Node {
    /// A line with nothing below it.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), below: Vec::new() }
    }

    /// With these below it.
    #[must_use]
    pub fn with(mut self, below: impl IntoIterator<Item = Node>) -> Self {
        self.below.extend(below);
        self
    }
}
