//! What the host and the guest's PID 1 say to each other.
//!
//! The channel is one virtio-console port (virtio 1.2, section 5.3) named [`PORT_NAME`]: a plain byte stream each way, that
//! every kernel since 2.6 drives as a character device, that QEMU offers as well as our VMM does, and that needs no
//! network stack in the guest. On it travel *frames*: a header of eight bytes and a payload.
//!
//! ```text
//!  0      1        2         4                8
//!  ┌──────┬────────┬─────────┬────────────────┬───────────┐
//!  │ kind │ stream │ process │ payload length │ payload … │   integers little-endian
//!  └──────┴────────┴─────────┴────────────────┴───────────┘
//! ```
//!
//! The conversation of one run:
//!
//! ```text
//!  guest  Ready                                            PID 1 is up, the channel is open
//!  host   Setup(root, mounts, host name, …)                how the container's world looks
//!  host   Exec 0(arguments, environment, user, …)          what to run in it, held back until Start
//!  host   Start 0
//!  guest  Started 0 · Data 0/1 … · Closed 0/1 · Exited 0   or Failed 0
//!  host   PowerOff
//! ```
//!
//! A guest that is to be a snapshot is stopped before `Start`, and each machine made of it hears something new there:
//!
//! ```text
//!  host   Await 0
//!  guest  Prepared 0                                       snapshot
//!  host   Renew(random bytes, time, host name)             in each machine made of it
//!  host   Start 0(arguments, environment)
//! ```
//!
//! A snapshot of a *command* goes one step further. The process executes its program, is held at the first instruction of
//! it by a jump to itself, and the host, which can write the guest's memory, puts the instruction back: in the snapshot, and
//! in the machine that it took it of.
//!
//! ```text
//!  host   Halt 0 · Start 0
//!  guest  Started 0 · Halted 0(where, what belongs there)  snapshot
//! ```
//!
//! **Flow control.** Each stream (standard input, output, error of each process) has a window of [`WINDOW`] bytes. A
//! sender never has more than that under way; the receiver gives it back with `Credit` as it passes the bytes on. So a
//! workload that does not read its input cannot block the signal that would end it.
//!
//! Both ends treat the other as hostile: lengths are bounded before anything is read, unknown kinds end the conversation.

#![no_std]

mod fields;
mod frame;

pub use fields::{Field, Fields, Tag, Writer};
pub use frame::{Header, HeaderError, Kind, Stream};

/// The name of the virtio-console port; the guest finds it in `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "lab.agent";

/// The version of this protocol, sent in `Ready`. The host refuses any other.
pub const VERSION: u32 = 4;

/// An instruction that jumps to itself: `jmp` with a displacement of -2 (SDM vol. 2, "JMP"). On aarch64 `b .` has four bytes.
#[cfg(not(target_arch = "aarch64"))]
pub const SPIN: [u8; 2] = [0xeb, 0xfe];
/// An instruction that jumps to itself: `b .`.
#[cfg(target_arch = "aarch64")]
pub const SPIN: [u8; 4] = [0, 0, 0, 0x14];

/// Bytes that may be under way in each direction of a stream before the receiver gives credit.
pub const WINDOW: u32 = 64 * 1024;

/// The longest payload of a `Data` frame, in bytes.
pub const MAX_DATA: u32 = 16 * 1024;

/// The longest payload of any frame, in bytes: arguments and environment of a process must fit.
pub const MAX_PAYLOAD: u32 = 1024 * 1024;

/// The x86 I/O port of the boot timer: the guest writes one byte, a [`GuestMark`], and the VMM reads the host's clock.
///
/// A port rather than memory, so that user space reaches it by `ioperm(2)` with no mapping of its own. The number lies
/// in the range 0x300 to 0x31f that the PC left to prototype cards.
pub const BOOT_TIMER_PORT: u16 = 0x300;

/// The x86 I/O port where a kernel of ours tells, in one write of four bytes, the guest-physical address of its list of what
/// machines of one snapshot must not share (microvm/guest/kernel/patches, 0022).
pub const RENEWALS_PORT: u16 = 0x304;

/// The moments that the guest marks on the boot timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GuestMark {
    /// The kernel entered `start_kernel` (a patch of ours).
    KernelEntered = 1,
    /// The kernel is about to run its initcalls (a patch of ours).
    KernelInitcalls = 2,
    /// The kernel ran its initcalls and is about to start PID 1 (a patch of ours).
    KernelDone = 3,
    /// PID 1's first instruction.
    InitStarted = 4,
    /// PID 1 opened the channel.
    AgentReady = 5,
    /// The image's root file system is mounted.
    RootMounted = 6,
    /// `execve(2)` of the workload succeeded.
    Executed = 7,
    /// PID 1 has just read its clock, and will say what it showed.
    ClockRead = 8,
}

impl GuestMark {
    /// The mark of this number, if there is one.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::KernelEntered,
            2 => Self::KernelInitcalls,
            3 => Self::KernelDone,
            4 => Self::InitStarted,
            5 => Self::AgentReady,
            6 => Self::RootMounted,
            7 => Self::Executed,
            8 => Self::ClockRead,
            _ => return None,
        })
    }
}
