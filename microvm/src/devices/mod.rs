//! The devices that the guest sees, one file each.

pub mod boot_timer;
pub mod power;
pub mod renewals;
pub mod serial;
pub mod virtio;
