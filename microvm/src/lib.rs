//! The second wall: a virtual machine monitor.

mod error;

pub mod bus;
pub mod devices;
pub mod event_loop;

pub use error::Error;
