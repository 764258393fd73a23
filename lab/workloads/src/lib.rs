//! The static programs of the embedded default image.
