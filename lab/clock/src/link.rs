//! Links a runtime's program, and nothing else, statically where the machine can: for build scripts (feature `build`).
//!
//! The first thing on either wall's clock is the program's own start. A container's is a few milliseconds, and one of them
//! went into loading three shared libraries and applying their relocations; a machine's monitor keeps those libraries in
//! memory for as long as the guest runs. `-C target-feature=+crt-static` would do the same, but cargo takes it for a whole
//! build only, so what it changes of the link is done here: `-static-pie`, and archives in the place of the shared libraries
//! that rustc names. Where an archive is missing (Fedora: glibc-static) the program is linked as usual.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// What rustc asks the linker for by name, and the linker script that answers (ld's "Implicit Linker Scripts").
const ANSWERS: &[(&str, &str)] = &[
    ("libc.so", "GROUP ( -l:libc.a -l:libgcc.a -l:libgcc_eh.a )"),
    ("libm.so", "INPUT ( -l:libm.a )"),
    ("libgcc_s.so", "INPUT ( -l:libgcc_eh.a )"),
];

/// A release of ours aborts where it panics, so nobody ever reads how to unwind its stack: a tenth of the program.
const NO_UNWINDING: &str =
    "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.eh_frame.*) *(.gcc_except_table*) } } INSERT AFTER .text;";

/// To be called by the build script of the package whose program this is.
///
/// # Errors
/// OUT_DIR cannot be written to.
pub fn statically(program: &str) -> io::Result<()> {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let argument = |text: &str| println!("cargo:rustc-link-arg-bin={program}={text}");
    let scripts = PathBuf::from(variable("OUT_DIR"));
    if variable("PROFILE") == "release" && variable("DEBUG") == "false" {
        // Cargo forgets the profile's `strip` for a package that has an `opt-level` of its own there.
        argument("-Wl,--strip-all");
        let script = scripts.join("no-unwinding.ld");
        fs::write(&script, NO_UNWINDING)?;
        argument(&format!("-Wl,-T,{}", script.display()));
    }
    let gnu = variable("CARGO_CFG_TARGET_OS") == "linux" && variable("CARGO_CFG_TARGET_ENV") == "gnu";
    let native = variable("HOST") == variable("TARGET");
    let dynamic = !variable("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "crt-static");
    let archives = ["libc.a", "libm.a", "libgcc.a", "libgcc_eh.a", "rcrt1.o"];
    // Before glibc 2.34 threads were a library of their own, which would be loaded all the same.
    let one_library = !found("libpthread.so");
    if !(gnu && native && dynamic && one_library && archives.into_iter().all(found)) {
        return Ok(());
    }
    for (name, script) in ANSWERS {
        fs::write(scripts.join(name), script)?;
    }
    argument("-static-pie");
    // Relative relocations as a bitmap, a twentieth of the size (DT_RELR; a linker that does not know it warns only).
    argument("-Wl,-z,pack-relative-relocs");
    argument(&format!("-L{}", scripts.display()));
    Ok(())
}

/// Whether the C compiler finds a file of the C library's: then it answers with a path.
fn found(file: &str) -> bool {
    let output = Command::new("cc").arg(format!("-print-file-name={file}")).output();
    output.is_ok_and(|output| {
        let path = String::from_utf8_lossy(&output.stdout);
        Path::new(path.trim()).is_absolute()
    })
}
