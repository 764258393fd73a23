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
pub mod sandbox;
pub mod stats;
pub mod vcpu;
pub mod vm;

pub use agent::{Exit, Stdio};
pub use error::Error;
pub use sandbox::{Accel, CreateOptions, Diagnostics, Kernel, RootDisk, Sandbox, create, create_with};
