//! The second wall: a virtual machine monitor.

mod error;
mod sys;

pub mod agent;
pub mod arch;
pub mod boot;
pub mod bus;
pub mod devices;
pub mod event_loop;
pub mod initramfs;
pub mod kvm;
pub mod loader;
pub mod memory;
pub mod stats;
pub mod vcpu;
pub mod vm;

pub use error::Error;
