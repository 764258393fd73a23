//! Registries, tried with a real one on this machine (Debian's and Ubuntu's package docker-registry): by `lab` itself and by
//! the docker client through the daemon.

#[path = "../common/mod.rs"]
mod common;
#[path = "../images/fixture.rs"]
#[allow(dead_code, reason = "the images' tests use all of it")]
mod fixture;

mod docker;
mod faults;
mod pull;
mod push;
mod server;
