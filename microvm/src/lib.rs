//! The second wall: a virtual machine monitor.
