//! One image, two walls: run it as a container and as a virtual machine, and measure what each wall costs.
//!
//! ```text
//!                     lab (the binary: src/main.rs, src/cli/)
//!                      │
//!        image ──► engine ──► trait Sandbox ──┬──► crate container   (namespaces, cgroups, overlay)
//!    (OCI store)  (bundle,                    └──► crate microvm     (KVM, its own kernel, virtio)
//!                  run, signals,                          ▲
//!                  terminal)                            kernel  (lean or stock, cached)
//! ```
//!
//! Reading order:
//! 1. [`paths`]: where images, kernels and the state of running sandboxes lie on this machine.
//! 2. [`image`]: images, from a saved file to what sandboxes run from.
//! 3. [`kernel`]: the kernels that virtual machines boot, built or fetched, and kept.
//! 4. [`engine`]: from what is asked for to a workload behind a wall; [`engine::stored`]: containers that live on their own;
//!    [`daemon`]: the same for the docker client, over HTTP.
//! 5. [`measure`]: the same work through both walls, timed and weighed; [`report`]: its figures for a terminal, a browser
//!    and other programs; [`claims`]: what its figures decide; [`doctor`]: what this machine lacks for it.
//! 6. [`course`]: lessons that grade themselves.
//!
//! The library never prints and never ends the process; that is the binary's part. Its errors say what was being done,
//! to which object, and what would help.

pub mod claims;
pub mod course;
pub mod daemon;
pub mod doctor;
pub mod engine;
pub mod image;
pub mod kernel;
pub mod measure;
pub mod paths;
pub mod report;
pub mod rig;
mod sys;
