//! `lab-vm`: the microvm crate's own small command line.
fn main() {}
