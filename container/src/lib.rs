//! The first wall: what a container is.
//!
//! A container is a process. There is no object of that name in the kernel: there is a process whose view of the
//! machine was narrowed, step by step, before it became the program you asked for. This crate takes those steps, as
//! the OCI runtime specification prescribes them, so that any engine (dockerd, podman, containerd) can use it.
//!
//! ```text
//!   runtime (this crate)                    first process
//!   ────────────────────                    ─────────────
//!   bundle: config.json, rootfs
//!   state directory
//!   cgroup + limits
//!   plan
//!   clone3 ───────────────────────────────► new pid, mount, uts, ipc, net, cgroup (user) namespaces
//!     │ map user ids                        enter cgroup
//!     │ write state                         mount the root, then all mounts in it
//!     │                                     make devices, hide paths
//!     │ hooks  ◄──────── if there are any   wait
//!     │                                     pivot_root: the host's tree is gone (chroot, where the mounts are not its own)
//!     │                                     user, capabilities, no_new_privs
//!     ◄──────────────── ready ────────────  wait
//!   start ─────────────────────────────────► seccomp, execve: the workload
//!   wait  ◄──────────── pidfd ────────────  exit
//!   delete: cgroup, state directory
//! ```
//!
//! Reading order, one idea a file:
//! 1. [`create`] lists the steps of the left side, `init::first_process` those of the right.
//! 2. `spec` reads the bundle, `plan` turns it into what the child will do, `error` says what can go wrong.
//! 3. `cgroup` limits (on version 2 it decides on devices by a program of its own, and where systemd runs it can be
//!    asked for a unit), `security` takes rights away: capabilities, seccomp, Landlock, labels. `network` moves devices
//!    of the host in, `rdt` gives shares of caches. `sys` holds the system calls that no library wraps.
//! 4. [`Container::exec`] adds a process to a container, `birth` has it born in the right pid namespace, `hooks` runs the
//!    engine's programs.
//! 5. `state` is what one command leaves for the next; [`Container`] is what one can do with it.
//!
//! Namespaces that a configuration does not list are the runtime's own. Without a mount namespace the container's mounts
//! would stay when its last process has gone: they hang below one place in its state directory (`plan::RootPlan`,
//! `init::root`), where `delete` finds them.
//!
//! The tests drive the program as engines do, and dockerd, podman, containerd and systemd with it; what needs another kernel
//! (every controller of cgroup version 2, AppArmor) runs in the nested rig too. `fuzz/` throws configurations at the plan.
//!
//! ```no_run
//! use container::{CreateOptions, create};
//! let mut container = create(CreateOptions::new("/run/lab-container", "first", "/tmp/bundle"))?;
//! container.start()?;
//! println!("{:?}", container.wait()?);
//! container.delete(false)?;
//! # Ok::<(), container::Error>(())
//! ```

mod birth;
mod cgroup;
mod container;
mod create;
mod error;
mod exec;
mod hooks;
mod init;
mod network;
mod options;
mod plan;
mod process;
mod rdt;
mod security;
pub mod spec;
mod state;
pub mod supported;
mod sys;

pub use cgroup::Stats;
pub use container::Container;
pub use create::create;
pub use error::{Error, Result};
pub use exec::{ExecOptions, Running};
pub use options::{Cgroups, CreateOptions, RootFs, Stdio};
/// For the fuzzer: a configuration is planned or refused, and the machine is not touched.
#[cfg(fuzzing)]
pub use plan::tried;
pub use process::Exit;
pub use security::seccomp::profile::default_seccomp;
pub use state::Status;
pub use sys::{SignalFd, begin_program};
