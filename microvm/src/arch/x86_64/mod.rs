//! x86-64: the order to read is the order of a boot.
//!
//! 1. [`layout`]: every address and number, with its reason.
//! 2. [`cpu`]: CPUID, segments, page tables, MSRs: the state a kernel expects at its first instruction.
//! 3. [`elf`], [`bzimage`]: finding the kernel in its file.
//! 4. [`protocol`]: what is handed to the kernel: the zero page (64-bit Linux boot) or the start info (PVH).
//! 5. [`acpi`]: the tables that describe the machine.
//! 6. [`probe`], [`quirks`], [`extended_state`]: is there hardware behind this KVM, and what to do where there is none.

pub mod acpi;
pub mod bzimage;
pub mod cpu;
pub(crate) mod debug;
pub mod elf;
pub mod extended_state;
pub mod layout;
pub(crate) mod paging;
pub mod probe;
pub mod protocol;
pub mod quirks;
pub(crate) mod state;
