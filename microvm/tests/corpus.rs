//! What the fuzzer found worth keeping (`microvm/fuzz/corpus`), once more with an ordinary compiler: nothing of it may make a
//! device, a loader or the agent panic.

#[path = "../fuzz/src/lib.rs"]
mod harness;

use std::fs;
use std::path::Path;

/// The files of a target's corpus.
fn replay(target: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries: Vec<_> =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).collect();
    assert!(!entries.is_empty(), "{} is empty", folder.display());
    for entry in entries {
        run(&fs::read(entry.unwrap().path()).unwrap());
    }
}

#[test]
fn no_device_minds_what_the_fuzzer_found() {
    for device in harness::DEVICES {
        replay(&format!("virtio_{device}"), |data| harness::virtio(device, data));
    }
}

#[test]
fn no_kernel_file_and_no_word_of_a_guests_pid_1_makes_a_panic() {
    replay("kernel", harness::kernel);
    replay("agent", harness::agent);
}
