//! PID 1 inside the guest.
//!
//! The guest kernel unpacks this program from the initramfs and runs it as its first process. It makes the world that the
//! bundle describes, runs the workload in it, and carries bytes between the workload and the host:
//!
//! ```text
//!                      host (VMM, agent)
//!                             │  virtio-console port: frames of guest-wire
//!  ┌──────────────────────────┼───────────────────────────── guest ─┐
//!  │ PID 1   boot    devices, modules, find the port, Ready         │
//!  │         world   root file system, overlay, host name, clock    │   on Setup
//!  │         network loopback, cards, /etc/hosts                    │
//!  │         pump    one ppoll(2) loop: channel ↔ pipes ↔ children  │
//!  │           │ fork in new pid and mount namespaces               │   on Exec
//!  │           ▼                                                    │
//!  │ child   world   enter the root, mounts, /dev, hidden paths     │
//!  │         child   session, terminal, limits, user, capabilities  │
//!  │                 … waits …  execve(2) → the workload            │   on Start
//!  └────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The workload is PID 1 of a pid namespace of its own, inside the guest's: so a signal means to it what it means to a
//! container's first process (a signal without a handler is dropped, its end ends all the others), behind either wall.
//!
//! Read [`boot`], [`channel`], [`world`], [`network`], [`process`], [`child`], [`pump`], in this order.
//!
//! Three rules keep it small and quick where the guest kernel's every instruction is emulated (a page fault costs
//! milliseconds there): no allocator (large payloads get an mmap(2) of their own), no formatting machinery, no system
//! call that the bundle did not ask for. What the host sends is checked before it is used, as in any other direction.

#![cfg_attr(not(test), no_std)]

pub mod boot;
pub mod channel;
pub mod child;
pub mod failure;
pub mod modules;
pub mod network;
pub mod path;
pub mod process;
pub mod pump;
pub mod queue;
pub mod spec;
pub mod world;

use freestanding::{Args, Fd, sys};

/// The program's main. Never returns in a guest: the machine goes off first.
///
/// `--channel FD` is for running it without a machine: the channel is an inherited descriptor, and the devices, modules
/// and marks of a boot are left out. All else is the same, so that tests on a host cover what runs in a guest.
pub fn main(args: Args<'static>) -> u8 {
    // Everything below is made for PID 1: run by mistake elsewhere, `kill(-1)` and `reboot(2)` would hit the wrong machine.
    if sys::process::pid() != sys::process::Pid(1) {
        let _ = Fd::ERROR.write_all(b"guest-init: runs as PID 1 of a guest only\n");
        return 1;
    }
    let channel = match (args.get(1), args.get(2)) {
        (Some(option), Some(number)) if option == c"--channel" => boot::inherited(number.to_bytes()),
        _ => boot::boot(),
    };
    match channel {
        Ok(channel) => pump::run(channel),
        Err(failure) => {
            let mut line = freestanding::Text::<256>::new();
            line.text("guest-init: ");
            failure.write(&mut line);
            line.text("\n");
            let _ = Fd::ERROR.write_all(line.bytes());
        }
    }
    pump::power_off();
    1
}
