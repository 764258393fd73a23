//! Any bytes as a bundle's `config.json`: planned, or refused with a message, and never a panic, a leak or a hang.
//! What it found worth keeping is in `corpus/config`, which an ordinary test replays (`plan/hostile.rs`).
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| container::tried(text));
