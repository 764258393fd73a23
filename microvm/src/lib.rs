//! The second wall: a virtual machine monitor.
//!
//! A container shares the host's kernel; a virtual machine brings its own. What makes that possible is the CPU's second mode of
//! running, *guest mode*, where even a kernel can be let loose: what it may not touch brings the CPU back to the host, an
//! *exit*. Linux offers that mode as KVM, by ioctls on `/dev/kvm`. A virtual machine monitor is the program that calls them,
//! and serves the exits.
//!
//! # The smallest virtual machine
//!
//! ```
//! use kvm_bindings::{kvm_regs, kvm_userspace_memory_region};
//! use kvm_ioctls::{Kvm, VcpuExit};
//! use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // 1. Open KVM.
//! # if Kvm::new().is_err() { eprintln!("SKIPPED (no usable /dev/kvm): the smallest virtual machine"); return Ok(()); }
//! let kvm = Kvm::new()?;
//!
//! // 2. Make a machine: it has no memory and no CPU yet.
//! let vm = kvm.create_vm()?;
//!
//! // 3. Give it memory: a page of this process, which the guest sees at address 0x1000. In it, the guest's program.
//! let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0x1000), 0x1000)])?;
//! let program = [
//!     0xb0, b'0',       // mov al, '0'
//!     0x04, 0x02,       // add al, 2
//!     0xe6, 0x80,       // out 0x80, al    an exit: the machine has no such port
//!     0xf4,             // hlt             another
//! ];
//! memory.write_slice(&program, GuestAddress(0x1000))?;
//! let region = memory.find_region(GuestAddress(0x1000)).unwrap();
//! let slot = kvm_userspace_memory_region {
//!     slot: 0,
//!     guest_phys_addr: 0x1000,
//!     memory_size: region.len(),
//!     userspace_addr: region.as_ptr() as u64,
//!     flags: 0,
//! };
//! // SAFETY: the memory is mapped as long as `memory` lives, which is longer than `vm` is used.
//! unsafe { vm.set_user_memory_region(slot)? };
//!
//! // 4. Make a CPU. It wakes up as a PC's does, in 16-bit mode; only its start is put elsewhere.
//! let mut vcpu = vm.create_vcpu(0)?;
//! let mut sregs = vcpu.get_sregs()?;
//! (sregs.cs.base, sregs.cs.selector) = (0, 0);
//! vcpu.set_sregs(&sregs)?;
//! vcpu.set_regs(&kvm_regs { rip: 0x1000, rflags: 2, ..Default::default() })?;
//!
//! // 5. Run it until it touches something that it does not have.
//! match vcpu.run()? {
//!     VcpuExit::IoOut(0x80, data) => assert_eq!(data, b"2"),
//!     other => panic!("unexpected exit: {other:?}"),
//! }
//!
//! // 6. Serve that (here: nothing to do), and run it again.
//! assert!(matches!(vcpu.run()?, VcpuExit::Hlt));
//! # Ok(())
//! # }
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
//! 6. [`vm`]: a running machine, and how it ends. [`stats`]: what it did.
//! 7. [`snapshot`]: a machine written down, and any number of machines made of that.
//! 8. [`agent`], [`sandbox`]: from a machine to a bundle's process; [`network`]: its cards; `warm`: from a snapshot to one.
//! 9. [`runtime`]: a machine that lives on between the commands of an engine.

mod board;
mod error;
mod machine;
mod shares;
mod sys;
mod warm;

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
pub mod network;
pub mod qemu;
pub mod runtime;
pub mod sandbox;
pub mod snapshot;
pub mod stats;
pub mod vcpu;
pub mod vm;

pub use agent::{Exit, Stdio};
pub use error::Error;
pub use sandbox::{
    Accel, CreateOptions, Diagnostics, Kernel, RootDisk, RootFs, Running, Sandbox, create, create_with,
};
