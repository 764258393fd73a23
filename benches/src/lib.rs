//! Benches of both walls beside their peers: the same work, in one run, on one machine.
//!
//! A time alone says little: machines differ, and one machine differs from minute to minute. So every bench here runs its
//! contenders *interleaved* in one session and prints ratios of medians with their 95 % intervals; absolute times stand
//! beside them to be read, not compared. Nothing is asserted about a time: a bench is read by a person.
//!
//! - [`race`]: whole processes, from spawn to exit, in random order.
//! - [`cgroups`]: one version of control groups for all that race.
//! - [`programs`]: where the lab's own programs and its peers are, and the same bundle for each.
//!
//! `cargo bench -p benches --bench walls` is the first to run: both walls' speed and size beside crun and runc;
//! `--bench container` races the container runtime's own commands, and counts its system calls and memory; `--bench machine`
//! weighs the process of a machine that idles; `--bench daemon` races `lab daemon` and dockerd under the same client, weighs
//! both, and loads a large image. `--bench pieces` measures what both walls are made of, each piece alone.

pub mod cgroups;
pub mod programs;
pub mod race;
