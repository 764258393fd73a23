//! What the process may still do once it is inside: capabilities and the seccomp filter.

pub(crate) mod caps;
pub(crate) mod seccomp;
