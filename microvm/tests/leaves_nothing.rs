//! Machines come and go, and leave no thread, descriptor or mapping behind. The one test of this binary, because it counts
//! what the whole process has.

mod common;

use common::{config, elf, kvm, reset};
use microvm::boot::boot;
use microvm::devices::virtio::rng::Rng;

fn count(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.contains("kvm")).count()
}

#[test]
fn a_machine_leaves_no_thread_descriptor_or_mapping_behind() {
    if !kvm("a_machine_leaves_no_thread_descriptor_or_mapping_behind") {
        return;
    }
    let (good, bad, forever) = (elf(&reset()), elf(&[]), elf(&[0xeb, 0xfe]));
    let boot_all = || {
        for kernel in [good.path(), bad.path(), forever.path()] {
            let mut config = config(kernel);
            config.devices = vec![Box::new(Rng)];
            // One ends by itself, one is refused, one is dropped while it runs.
            let vm = boot(config);
            if kernel == good.path() {
                vm.unwrap().wait().unwrap();
            }
        }
    };
    boot_all();
    let before = (count("/proc/self/task"), count("/proc/self/fd"), mappings());
    for _ in 0..5 {
        boot_all();
    }
    assert_eq!((count("/proc/self/task"), count("/proc/self/fd"), mappings()), before);
}
