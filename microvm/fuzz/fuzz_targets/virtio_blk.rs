#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| microvm_fuzz::virtio("blk", data));
