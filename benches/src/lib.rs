//! Benches of both walls, and the peers they are set beside.
