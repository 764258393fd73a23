//! Snapshots, tried by guests of a few bytes: what was begun before one is finished after it.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::{ProptestConfig, any};
use proptest::test_runner::TestRunner;

use common::{config, elf, kvm, out, reset};
use lab_clock::Timeline;
use microvm::Error;
use microvm::boot::boot;
use microvm::devices::power::PowerRequest;
use microvm::devices::serial::Console;
use microvm::devices::virtio::rng::Rng;
use microvm::snapshot::{Identity, Renew, Restore, restore, take};
use microvm::vcpu::End;
use microvm::vm::Vm;

/// Counts in memory at 0x200000 until bit 0 of the byte at 0x200008 is set; nobody in the guest sets it. Then prints what is
/// in R12 and resets.
fn counter() -> Vec<u8> {
    // mov r12b, 'K'; mov ebx, 0x200000
    let mut code = vec![0x41, 0xb4, b'K', 0xbb, 0, 0, 0x20, 0];
    // again: inc qword [rbx]; test byte [rbx + 8], 1; jz again
    code.extend([0x48, 0xff, 0x03, 0xf6, 0x43, 8, 1, 0x74, 0xf7]);
    // mov dx, 0x3f8; mov al, r12b; out dx, al
    code.extend([0x66, 0xba, 0xf8, 0x03, 0x44, 0x88, 0xe0, 0xee]);
    code.extend(reset());
    code
}

fn identity() -> Identity {
    vec![("kernel", b"one".to_vec())]
}

fn from(path: &Path) -> Restore {
    Restore {
        path: path.into(),
        identity: identity(),
        renew: None,
        paused: false,
        devices: vec![Box::new(Rng)],
        console: Console::default(),
        profile: false,
        explain: None,
        at_end: None,
        timeline: Arc::new(Timeline::new().unwrap()),
    }
}

/// A machine with this code and a snapshot of it, taken while it ran.
fn taken(code: &[u8], folder: &Path) -> (Vm, std::path::PathBuf) {
    let kernel = elf(code);
    let mut config = config(kernel.path());
    config.devices = vec![Box::new(Rng)];
    let vm = boot(config).unwrap();
    thread::sleep(Duration::from_millis(50));
    let path = folder.join("test.snapshot");
    take(&vm, &path, &identity()).unwrap();
    (vm, path)
}

#[test]
fn a_restored_guest_goes_on_with_its_registers_and_memory_and_so_does_the_original() {
    if !kvm("a_restored_guest_goes_on_with_its_registers_and_memory_and_so_does_the_original") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // 'A' is printed before the snapshot: the console of a restored machine begins anew.
    let code = [out(0x3f8, b'A'), counter()].concat();
    let (original, path) = taken(&code, folder.path());
    let clones: Vec<_> = (0..4).map(|_| restore(from(&path)).unwrap()).collect();
    let count = |vm: &Vm| {
        vm.pause();
        let count = vm.peek(0x20_0000).unwrap();
        vm.resume();
        count
    };
    let before: Vec<u64> = clones.iter().map(count).collect();
    thread::sleep(Duration::from_millis(100));
    for (vm, before) in clones.iter().zip(before) {
        assert!(before > 0, "it began where the original was");
        assert!(count(vm) > before, "it goes on");
    }
    // Each has a memory of its own: one is told to end, and only that one ends.
    clones[2].poke(0x20_0008, 1).unwrap();
    assert_eq!(clones[2].wait().unwrap(), End::Asked(PowerRequest::Reset));
    assert_eq!(clones[2].console().last_lines(1), ["K"]);
    assert!([0, 1, 3].iter().all(|&other| clones[other].end().is_none()) && original.end().is_none());
    original.poke(0x20_0008, 1).unwrap();
    assert_eq!(original.wait().unwrap(), End::Asked(PowerRequest::Reset));
    assert_eq!(original.console().last_lines(1), ["AK"]);
}

#[test]
fn a_snapshot_of_a_snapshot_is_one() {
    if !kvm("a_snapshot_of_a_snapshot_is_one") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (_original, path) = taken(&counter(), folder.path());
    let second = restore(from(&path)).unwrap();
    thread::sleep(Duration::from_millis(20));
    take(&second, &path, &identity()).unwrap();
    let third = restore(from(&path)).unwrap();
    third.poke(0x20_0008, 1).unwrap();
    assert_eq!(third.wait().unwrap(), End::Asked(PowerRequest::Reset));
}

#[test]
fn a_paused_machine_stays_paused_after_its_snapshot_was_taken() {
    if !kvm("a_paused_machine_stays_paused_after_its_snapshot_was_taken") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kernel = elf(&counter());
    let vm = boot(config(kernel.path())).unwrap();
    vm.pause();
    take(&vm, &folder.path().join("paused"), &identity()).unwrap();
    let count = vm.peek(0x20_0000).unwrap();
    thread::sleep(Duration::from_millis(50));
    assert_eq!(vm.peek(0x20_0000).unwrap(), count);
}

#[test]
fn a_machine_that_has_ended_cannot_be_written_down() {
    if !kvm("a_machine_that_has_ended_cannot_be_written_down") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let vm = common::run(&reset()).unwrap();
    vm.wait().unwrap();
    let path = folder.path().join("ended");
    assert!(matches!(take(&vm, &path, &identity()), Err(Error::GuestDied { .. })));
    assert!(!path.exists());
}

#[test]
fn a_snapshot_of_something_else_is_refused_and_the_difference_named() {
    if !kvm("a_snapshot_of_something_else_is_refused_and_the_difference_named") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (_original, path) = taken(&counter(), folder.path());
    let refused = |change: &dyn Fn(&mut Restore)| {
        let mut config = from(&path);
        change(&mut config);
        restore(config).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(
        refused(&|config| config.identity = vec![("kernel", b"two".to_vec())]).contains("another kernel")
    );
    assert!(refused(&|config| config.identity.push(("disk", Vec::new()))).contains("other things"));
    assert!(refused(&|config| config.devices.clear()).contains("1 virtio devices"));

    let mut bytes = std::fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(refused(&|_| {}).contains("checksum"));
}

/// Damages bytes of the state, and sets the checksum right again: as a liar would, or another version.
fn forge(bytes: &mut [u8], damage: &[(usize, u8)]) {
    const STATE: usize = 4096;
    let len = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) as usize;
    for &(at, with) in damage {
        bytes[STATE + at % len] ^= with;
    }
    bytes[12..16].fill(0);
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&bytes[STATE..STATE + len]);
    checksum.update(&bytes[..40]);
    bytes[12..16].copy_from_slice(&checksum.finalize().to_le_bytes());
}

#[test]
fn a_forged_snapshot_is_refused_or_its_guest_goes_astray_but_the_host_does_not() {
    if !kvm("a_forged_snapshot_is_refused_or_its_guest_goes_astray_but_the_host_does_not") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (_original, path) = taken(&counter(), folder.path());
    let whole = std::fs::read(&path).unwrap();
    let forged = folder.path().join("forged");
    let try_with = |damage: &[(usize, u8)]| {
        let mut bytes = whole.clone();
        forge(&mut bytes, damage);
        std::fs::write(&forged, bytes).unwrap();
        let mut config = from(&path);
        config.path.clone_from(&forged);
        // Whatever it does then, it can be stopped.
        if let Ok(vm) = restore(config) {
            let _ = vm.wait_until(Instant::now() + Duration::from_millis(2));
        }
    };
    try_with(&[]);
    let damages = proptest::collection::vec((any::<usize>(), any::<u8>()), 1..20);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() });
    runner
        .run(&damages, |damage| {
            try_with(&damage);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_snapshot_that_is_of_no_command_is_not_restored_as_one() {
    if !kvm("a_snapshot_that_is_of_no_command_is_not_restored_as_one") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (_original, path) = taken(&counter(), folder.path());
    let config = Restore { renew: Some(Renew::default()), ..from(&path) };
    assert!(restore(config).err().unwrap().to_string().contains("not of what is expected"));
}

/// What of this process's memory is its own and was written to, in bytes (proc_pid_smaps(5)).
fn private_dirty() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_hundred_machines_of_one_snapshot_at_once_have_little_each_of_their_own() {
    const MACHINES: u64 = 100;
    if !kvm("a_hundred_machines_of_one_snapshot_at_once_have_little_each_of_their_own") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (original, path) = taken(&counter(), folder.path());
    original.stop();
    let before = private_dirty();
    let clones: Vec<_> = (0..MACHINES)
        .map(|_| {
            let vm = restore(from(&path)).unwrap();
            vm.pause();
            vm
        })
        .collect();
    let each = private_dirty().saturating_sub(before) / MACHINES;
    // Other tests of this program run beside it; what they have is in it, too.
    assert!(each < 1_500_000, "{each} bytes each");
    assert!(clones.iter().all(|vm| vm.end().is_none() && vm.peek(0x20_0000).unwrap() > 0));
}
