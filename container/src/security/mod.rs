//! What the process may still do once it is inside: capabilities and the seccomp filter.

pub(crate) mod caps;
pub(crate) mod landlock;
pub(crate) mod lsm;
pub(crate) mod seccomp;
