//! The first wall: a container engine.
