//! The example of the crate's documentation and of the book is a machine that works.

mod common;

#[path = "../examples/smallest.rs"]
mod smallest;

#[test]
fn the_smallest_kvm_machine_runs_to_its_end() {
    if !common::kvm("the smallest machine") {
        return;
    }
    smallest::main().expect("the example");
}
