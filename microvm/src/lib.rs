//! The second wall: a virtual machine monitor.
//!
//! A container shares the host's kernel; a virtual machine brings its own. What makes that possible is the CPU's second mode of
//! running, *guest mode*, where even a kernel can be let loose: what it may not touch brings the CPU back to the host, an
//! *exit*. Linux offers that mode as KVM, by ioctls on `/dev/kvm`. A virtual machine monitor is the program that calls them,
//! and serves the exits.
//!
//! # The smallest virtual machine
//!
//! `cargo run -p microvm --example smallest` runs it:
//!
//! ```no_run
#![doc = include_str!("../examples/smallest.rs")]
//! ```
//!
//! Everything in this crate is one of these six steps, for a guest that is Linux.
//!
//! # The whole
//!
//! ```text
//!  a bundle (config.json, root disk)          host
//!       │ create, start, kill, wait
//!  ┌────▼─────────────────────────────────────────────────────────────────┐
//!  │ sandbox ── agent ═══ frames ═══╗                             process │
//!  │    │                           ║ socket pair                         │
//!  │  boot: kvm, memory, loader,    ║                                     │
//!  │    │   cpu, acpi, devices      ║                                     │
//!  │    ▼                           ▼                                     │
//!  │  vm ─ vcpu threads ─ bus ─ devices: serial, power, boot timer,       │
//!  │         │    ▲               virtio (blk, console, …) ── event       │
//!  │         │    │ exit                                        loop      │
//!  └─────────┼────┼───────────────────────────────────────────────────────┘
//!    KVM_RUN ▼    │            guest mode
//!  ┌──────────────┴───────────────────────────────────────────────────────┐
//!  │ Linux ── PID 1 (guest/init, from the initramfs) ── the workload      │
//!  └──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Read in this order:
//! 1. [`boot`]: the story, step by step; each step is a mark on the start-up's waterfall.
//! 2. [`kvm`], [`memory`], [`loader`], [`initramfs`]: the steps.
//! 3. [`arch`]: what is x86: where things lie ([`arch::layout`]), the CPU's first state, the machine's description.
//! 4. [`vcpu`], [`bus`]: the exits, and who serves them.
//! 5. `board`, how devices are wired; [`devices`]: one file each; [`event_loop`], the thread that they work on.
//! 6. [`vm`]: a running machine, and how it ends. [`stats`]: what it did; [`explain`]: the same, as it happens; `gdb`: to stop it and look.
//! 7. [`snapshot`]: a machine written down, and any number of machines made of that.
//! 8. [`spec`], [`agent`], [`sandbox`]: from a machine to a bundle's process; [`network`]: its cards; `sockets`: its sockets on the host; `warm`: from a snapshot to one.
//! 9. [`runtime`]: a machine that lives on between the commands of an engine; `jail`: what its process may still do.

mod board;
mod error;
mod jail;
mod machine;
mod shares;
mod sockets;
mod sys;
mod warm;

pub mod agent;
pub mod arch;
pub mod boot;
pub mod bus;
pub mod devices;
pub mod event_loop;
pub mod explain;
mod gdb;
pub mod initramfs;
pub mod kvm;
pub mod loader;
pub mod memory;
pub mod network;
pub mod qemu;
pub mod runtime;
pub mod sandbox;
pub mod snapshot;
pub mod spec;
pub mod stats;
pub mod vcpu;
pub mod vm;

pub use agent::{Exit, Stdio};
pub use error::Error;
pub use sandbox::{
    Accel, CreateOptions, Diagnostics, Kernel, RootDisk, RootFs, Running, Sandbox, Saved, create, create_with,
};
pub use sockets::VsockPath;
