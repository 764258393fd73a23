//! Programs without libc: what stands between the kernel and a `main` of ours, in full.
//!
//! The guest's PID 1 and the lab's workloads must be tiny (on a KVM without hardware support each page that the guest
//! kernel maps for them costs milliseconds), must not depend on the machine's libc, and are read by students who want to
//! see a process start. So they are linked without any run-time but this crate:
//!
//! ```text
//!  kernel: execve(2) puts argc, argv, envp on the stack and jumps to _start
//!    │
//!    ▼
//!  arch      _start (assembly, five lines) ── the only code that is not Rust
//!    ▼
//!  program   start() → your main(Args) → exit_group(2);  panic handler;  memcpy, memset, … that the compiler calls
//!    ▼
//!  args      arguments and environment as the kernel laid them
//!  path      a program's place, by its name
//!  text      numbers and lines without core::fmt (it would double the size of a program)
//!  sys       the system calls, one safe function each; all of the unsafe code is there, in `arch` and in `program`
//!
//!  build     (std) for build scripts: compiles such a program by a nested cargo, into OUT_DIR
//! ```
//!
//! Read `arch/x86_64.rs`, `program.rs`, `sys/mod.rs`, then `src/bin/hello.rs`, which is the smallest program.
//!
//! A program is a `[[bin]]` with `required-features = ["program"]`, so that an ordinary `cargo build --workspace` passes it
//! by; its logic is in the package's library, where it is tested under std like any other code.

#![cfg_attr(not(any(test, feature = "build")), no_std)]

pub mod arch;
pub mod args;
#[cfg(feature = "build")]
pub mod build;
pub mod path;
#[cfg(all(feature = "program", not(feature = "build")))]
mod program;
pub mod sys;
pub mod text;

pub use args::Args;
pub use sys::{Errno, Fd, OwnedFd};
pub use text::Text;

/// Makes a function `fn(Args<'static>) -> u8` the program's main; its result is the exit code.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        /// Called by `freestanding` once the stack is set up.
        // SAFETY: the one definition of the symbol that `freestanding`'s entry point declares, with the same type.
        #[unsafe(no_mangle)]
        fn freestanding_main(args: $crate::Args<'static>) -> u8 {
            $main(args)
        }
    };
}
