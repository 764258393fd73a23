//! A plan for no container: for tests and for the fuzzer, which must not touch the machine.

use std::path::Path;

use super::{Plan, Surroundings};
use crate::cgroup::{self, Membership};
use crate::error::Error;
use crate::options::{Cgroups, RootFs};
use crate::rdt::Class;
use crate::spec;

/// Everything that is worked out of a configuration before the machine is touched.
pub(crate) fn plan(text: &[u8]) -> Result<(), Error> {
    let bundle = Path::new("/nonesuch-bundle");
    let spec = spec::parse_spec(text, bundle)?;
    let cgroup = Membership::plan(&spec, "hostile", Cgroups::Files)?;
    if let Some(resources) = spec.linux.as_ref().and_then(|linux| linux.resources().as_ref()) {
        cgroup::check(resources)?;
    }
    if let Some(rdt) = spec.linux.as_ref().and_then(|linux| linux.intel_rdt().as_ref()) {
        Class::below(Path::new("/nonesuch-resctrl"), rdt, "hostile")?;
    }
    // An overlay of a directory that exists, so that most configurations get past their root.
    let rootfs = RootFs::Overlay { lower: vec!["/".into()], upper: "/".into(), work: "/".into() };
    let state_dir = Path::new("/");
    let around = Surroundings {
        bundle,
        state_dir,
        rootfs: &rootfs,
        cgroup: &cgroup,
        pivot: true,
        preserve_fds: 0,
        new_keyring: true,
    };
    Plan::new(&spec, &around).map(drop)
}

/// A configuration is planned, or refused with a message that says something.
///
/// # Panics
/// When it is refused without words.
pub fn tried(text: &[u8]) {
    if let Err(error) = plan(text) {
        let message = error.to_string();
        assert!(message.len() > 10 && message.contains(' '), "no message: {message:?}");
    }
}
