//! What the tests with `/dev/kvm` share: guests of a few bytes, and the loud skip.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use lab_clock::Timeline;
use microvm::Error;
use microvm::boot::{Config, boot};
use microvm::devices::serial::Console;
use microvm::initramfs::Initramfs;
use microvm::vm::Vm;
use tempfile::NamedTempFile;

/// Where the guests' code begins: the first address that a kernel may be loaded at.
pub const ENTRY: u64 = 0x10_0000;

/// Whether `/dev/kvm` can be used. Where not, the test says so and ends; in CI it fails.
pub fn kvm(test: &str) -> bool {
    match microvm::kvm::Kvm::open() {
        Ok(_) => true,
        Err(error) => skip(test, &error.to_string()),
    }
}

/// Says why a test cannot run.
pub fn skip(test: &str, reason: &str) -> bool {
    // Straight to the descriptor: the test harness would swallow what is printed.
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED ({reason}): {test}");
    assert!(std::env::var_os("CI").is_none(), "CI is set, and {test} cannot run: {reason}");
    false
}

/// A guest's code as the kernel that a loader sees: an ELF file with one segment and, for PVH, a note.
pub fn elf(code: &[u8]) -> NamedTempFile {
    let mut elf = vec![0u8; 64];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    elf[18..20].copy_from_slice(&62u16.to_le_bytes());
    elf[24..32].copy_from_slice(&ENTRY.to_le_bytes());
    elf[32..40].copy_from_slice(&64u64.to_le_bytes());
    elf[54..58].copy_from_slice(&[56, 0, 2, 0]);
    let len = code.len() as u64;
    for (kind, offset, address, size) in [(1u32, 0x1000u64, ENTRY, len), (4, 0x200, 0, 20)] {
        elf.extend(kind.to_le_bytes());
        elf.extend(5u32.to_le_bytes());
        for word in [offset, address, address, size, size, 4] {
            elf.extend(word.to_le_bytes());
        }
    }
    elf.resize(0x200, 0);
    for word in [4u32, 4, 18] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(b"Xen\0");
    elf.extend((ENTRY as u32).to_le_bytes());
    elf.resize(0x1000, 0);
    elf.extend(code);
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(&elf).expect("writing it");
    file
}

/// A small machine with this kernel.
pub fn config(kernel: impl Into<PathBuf>) -> Config {
    Config {
        kernel: kernel.into(),
        kernel_cache: None,
        initramfs: Initramfs::new(),
        command_line: Vec::new(),
        memory_mib: 16,
        vcpus: 1,
        devices: Vec::new(),
        console: Console::default(),
        plain: false,
        pvh: false,
        profile: false,
        explain: None,
        gdb: None,
        at_end: None,
        timeline: Arc::new(Timeline::new().expect("a timeline")),
    }
}

/// Boots code in 64-bit mode.
pub fn run(code: &[u8]) -> Result<Vm, Error> {
    boot(config(elf(code).path()))
}

/// `mov dx, port; mov al, value; out dx, al`
pub fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee]
}

/// Resets the machine by the keyboard controller.
pub fn reset() -> Vec<u8> {
    out(0x64, 0xfe)
}
