//! The devices that the guest sees, one file each.

pub mod virtio;
