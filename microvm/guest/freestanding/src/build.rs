//! Compiles a freestanding program from a build script or a test: a cargo inside cargo.
//!
//! A package that embeds a program cannot simply depend on it: cargo links what it builds for a package with one set of
//! flags, and a program without libc needs its own. So the build script calls cargo again, with a target folder of its
//! own below OUT_DIR (cargo locks target folders), and takes the ELF from there:
//!
//! ```no_run
//! // build.rs; then, in the crate: include_bytes!(concat!(env!("OUT_DIR"), "/guest-init"))
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     freestanding::build::for_build_script("guest-init")?;
//!     Ok(())
//! }
//! ```
//!
//! The nested cargo works offline: whatever it needs was fetched for the outer one, as both use one lock file.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The linker's script.
const LAYOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/program.ld");

/// The flags of rustc for a program. Joined by the separator that CARGO_ENCODED_RUSTFLAGS wants, 0x1f.
const FLAGS: &[&str] = &[
    // At a fixed address, with nothing to relocate: there is no loader that could.
    "-Crelocation-model=static",
    "-Ctarget-feature=+crt-static",
    // Neither the C start files nor the C library.
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    // Few pages: see the script. No build id, no unwind tables (panics abort), pages of 4 KiB.
    "-Clink-arg=-T",
    concat!("-Clink-arg=", env!("CARGO_MANIFEST_DIR"), "/program.ld"),
    "-Clink-arg=-Wl,--build-id=none",
    "-Clink-arg=-Wl,-z,max-page-size=4096",
    "-Clink-arg=-Wl,-z,norelro",
    "-Clink-arg=-Wl,--no-eh-frame-hdr",
    "-Cforce-unwind-tables=no",
];

/// Variables of the outer cargo (or of clippy, or of the shell) that would change what the nested one builds.
const CLEARED: &[&str] = &[
    "RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_BUILD_DIR",
];

/// Why a program could not be built.
#[derive(thiserror::Error)]
pub enum Error {
    /// Not called from a build script.
    #[error("{0} is not set: call this from a build script")]
    Variable(&'static str),
    /// The nested cargo did not start.
    #[error("cannot run {cargo:?} to build {program}: {source}; is cargo in PATH?")]
    Cargo {
        /// The program to build.
        program: String,
        /// What was run.
        cargo: OsString,
        /// Why it failed.
        source: io::Error,
    },
    /// The nested cargo failed.
    #[error("cannot build {program} without libc; cargo says:\n{output}")]
    Build {
        /// The program to build.
        program: String,
        /// What cargo wrote to standard error.
        output: String,
    },
    /// A file of the build cannot be read or written.
    #[error("cannot use {path}, part of the build of a program without libc: {source}; is the disk full?")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// As [`std::fmt::Display`] has it: a build script that ends with an error is shown by this one.
impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// For build scripts: builds the program of this package and name into OUT_DIR, and tells cargo which files to watch.
///
/// # Errors
/// Any [`Error`]; let the build script end with it, cargo prints it.
pub fn for_build_script(program: &str) -> Result<PathBuf, Error> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(Error::Variable("OUT_DIR"))?);
    let target = env::var("TARGET").map_err(|_| Error::Variable("TARGET"))?;
    let built = build(program, program, &out.join("freestanding"), &target)?;
    for source in sources(&built)? {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    let embedded = out.join(program);
    fs::copy(&built, &embedded).map_err(|source| Error::File { path: embedded.clone(), source })?;
    Ok(embedded)
}

/// For tests: builds a program of a package below `folder`, for this machine, and returns where it is.
///
/// # Errors
/// Any [`Error`].
pub fn for_test(package: &str, program: &str, folder: &Path) -> Result<PathBuf, Error> {
    build(package, program, &folder.join("freestanding"), &host())
}

/// The target that the test itself was built for: without libc, only the architecture matters.
fn host() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}

fn build(package: &str, program: &str, folder: &Path, target: &str) -> Result<PathBuf, Error> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .args(["build", "--offline", "--locked", "--profile", "freestanding", "--features", "program"])
        .args(["--package", package, "--bin", program, "--target", target])
        .arg("--target-dir")
        .arg(folder)
        .args(["--color", "never"])
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    for variable in CLEARED {
        command.env_remove(variable);
    }
    for (variable, _) in env::vars_os() {
        // CARGO_PROFILE_RELEASE_… would reach the profile `freestanding`, which inherits from it.
        if variable.to_string_lossy().starts_with("CARGO_PROFILE_") {
            command.env_remove(variable);
        }
    }
    let output = command.output().map_err(|source| Error::Cargo {
        program: program.into(),
        cargo: cargo.clone(),
        source,
    })?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Build { program: program.into(), output });
    }
    Ok(folder.join(target).join("freestanding").join(program))
}

/// Every file that the program was built from, as rustc wrote them beside it (`PROGRAM.d`, in make's syntax), and the
/// manifests above them.
fn sources(built: &Path) -> Result<BTreeSet<PathBuf>, Error> {
    let path = built.with_extension("d");
    let rules = fs::read_to_string(&path).map_err(|source| Error::File { path, source })?;
    let mut files: BTreeSet<PathBuf> = prerequisites(&rules).into_iter().map(PathBuf::from).collect();
    let manifests: Vec<PathBuf> = files
        .iter()
        .flat_map(|file| file.ancestors().skip(1))
        .flat_map(|folder| [folder.join("Cargo.toml"), folder.join("Cargo.lock")])
        .filter(|manifest| manifest.is_file())
        .collect();
    files.extend(manifests);
    files.insert(PathBuf::from(LAYOUT));
    Ok(files)
}

/// The files after the colon of a make rule; a space in a name is written with a backslash before it.
fn prerequisites(rule: &str) -> Vec<String> {
    let Some((_, list)) = rule.split_once(": ") else { return Vec::new() };
    let mut files = vec![String::new()];
    let mut escaped = false;
    for letter in list.lines().next().unwrap_or_default().chars() {
        match letter {
            '\\' if !escaped => escaped = true,
            ' ' if !escaped => files.push(String::new()),
            _ => {
                escaped = false;
                files.last_mut().expect("never empty").push(letter);
            }
        }
    }
    files.retain(|file| !file.is_empty());
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_make_rule_lists_the_sources() {
        assert_eq!(
            prerequisites("/t/init: /w/src/main.rs /w/a\\ b/lib.rs\n\n/w/src/main.rs:\n"),
            ["/w/src/main.rs", "/w/a b/lib.rs"]
        );
        assert!(prerequisites("/t/init:\n").is_empty());
    }
}
