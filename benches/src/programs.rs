//! Where the programs are that a bench races.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release build of one of the lab's own programs, brought up to date first: a bench is linked to the lab's
/// libraries, but races its programs. Where the variable `LAB_BENCH_PROGRAMS` names a folder, the program there is taken as it
/// is: so another build, an older one say, can be raced.
///
/// # Errors
/// What cargo wrote, where the build fails.
pub fn own(package: &str, program: &str) -> Result<PathBuf, String> {
    if let Some(folder) = env::var_os("LAB_BENCH_PROGRAMS") {
        return Ok(Path::new(&folder).join(program));
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--package", package, "--bin", program])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    // This bench itself lies in TARGET/release/deps.
    let bench = env::current_exe().map_err(|error| format!("where is this bench? {error}"))?;
    let target = bench.ancestors().nth(3).ok_or("this bench lies in no target folder")?;
    Ok(target.join("release").join(program))
}

/// A peer's program in `PATH`; none where it is not installed, which a bench says.
pub fn peer(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file()
}
