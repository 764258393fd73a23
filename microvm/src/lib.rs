//! The second wall: a virtual machine monitor.

mod error;

pub mod bus;
pub mod devices;

pub use error::Error;
