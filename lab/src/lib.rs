//! One image, two walls.
