//! A program without libc is built by the helper and runs on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

static HELLO: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    freestanding::build::for_test("freestanding", "freestanding-hello", folder)
        .unwrap_or_else(|e| panic!("{e}"))
});

#[test]
fn it_sees_its_arguments_and_its_exit_code_is_seen() {
    let output = Command::new(&*HELLO).args(["container", "microVM"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "hello, container\nhello, microVM\n");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_panic_says_where_and_ends_it() {
    let output = Command::new(&*HELLO).env("PANIC", "").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("panic at ") && said.contains("hello.rs:"), "{said}");
    assert_eq!(output.status.code(), Some(134));
}

#[test]
fn it_is_a_small_static_elf_at_a_fixed_address() {
    let elf = std::fs::read(&*HELLO).unwrap();
    assert!(elf.starts_with(b"\x7fELF"));
    assert_eq!(elf[16], 2, "e_type is ET_EXEC (elf(5)): nothing to relocate");
    assert!(elf.len() < 4 * 1024, "{} bytes", elf.len());
}
