//! What depends on the processor's architecture: where things lie in guest memory, how a CPU is brought to the
//! kernel's entry, how the machine is described to the kernel. Another architecture is another folder beside this one.

#[cfg(target_arch = "x86_64")]
pub mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("microvm runs on x86-64 only for now: another architecture needs its own folder in src/arch/");
