//! Programs without libc.
